"""Measure much data: outputs restored, and inputs hashed, beside cp, sha256sum and dvc.

    python benchmarks/volumes.py --peers VENV              everything, into results.md
    python benchmarks/volumes.py --quick                   a minute, shown only
    python benchmarks/volumes.py --only hash --rounds 7

VENV is a virtual environment with dvc, which is left out where it is not there. It takes 20 GB of
disk. Files are random bytes. Restored is what a step has made, after it was removed from the
project: each byte is hashed on the way. Hashed are the inputs of a step that is planned, cold and
with the memo; budgets of it are of CPU time, without that of a plan with nothing to hash.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import sections
from table import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
SMALL = 10_240
REPRO = (sys.executable, "-m", "repro")
HASHED = "find data -type f -print0 | xargs -0 sha256sum > /dev/null"


@dataclass(frozen=True)
class Sample:
    """What one call took: seconds, and the memory of its largest process in bytes."""

    cpu: float
    wall: float
    rss: int


@dataclass
class Case:
    """Files of one number and size, and the samples of what was done with them, by name."""

    title: str
    count: int
    size: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def median(self, name: str, what: str = "wall") -> float | None:
        """Give the median of what some calls took."""
        found = [getattr(sample, what) for sample in self.samples.get(name, ())]
        return statistics.median(found) if found else None


def main() -> None:
    """Measure what is asked for, and write tables."""
    chosen = _arguments()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["PATH"] = f"{chosen.peers.absolute() / 'bin'}:{path}" if chosen.peers else path
    load = f"{os.getloadavg()[0]:.2f}"
    cases = []
    for group, measure in (("restore", _restore), ("hash", _hash)):
        for count, size in chosen.cases[group] if chosen.only in (None, group) else ():
            case = Case(f"{group}: {count:,} of {size:,} bytes", count, size)
            with tempfile.TemporaryDirectory(prefix="volumes-", dir=chosen.folder) as place:
                measure(Path(place), case, chosen.rounds)
            cases.append(case)
    text = _report(cases, f"load before {load}, {chosen.rounds} rounds")
    sys.stdout.write(text)
    if chosen.output or not chosen.quick:
        sections.put(chosen.output or HERE / "results.md", "volumes", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="a virtual environment with dvc")
    parser.add_argument("--only", choices=("restore", "hash"))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the data, one round")
    parser.add_argument("--rounds", type=int, help="calls of each (3)")
    parser.add_argument("--folder", type=Path, help="where the projects and stores are made")
    parser.add_argument("--output", type=Path, help="the report to put the tables into")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    less = 100 if chosen.quick else 1
    chosen.cases = {
        "restore": [(1, (1 << 30) // less), (10_000 // less, SMALL)],
        "hash": [(1, (4 << 30) // less), (50_000 // less, SMALL)],
    }
    return chosen


# --- what is done --------------------------------------------------------------------------


def _restore(place: Path, case: Case, rounds: int) -> None:
    """Measure a hit whose outputs are not there, and what copies the same without looking."""
    made = f"mkdir -p data && head -c {case.count * case.size} /dev/urandom"
    made += f" | split -a 6 -b {case.size} - data/f"
    project = _project(place, "project", f"{{inputs: [], outputs: [data], command: '{made}'}}")
    _call(project, *REPRO, "run", "-q", "-q", "--env-manager", "local")
    origin = place / "origin"
    shutil.copytree(project / "data", origin)
    dvc = _dvc(place, origin) if shutil.which("dvc") else None

    def bare() -> Sample:
        return _call(place, "cp", "-r", "origin", "copy")

    def checked() -> Sample:
        return _shell(
            place, "find origin -type f -print0 | xargs -0 sha256sum > sums; cp -r origin copy"
        )

    def ours() -> Sample:
        return _call(project, *REPRO, "run", "-q", "-q", "--env-manager", "local")

    actions: dict[str, tuple[Callable[[], Sample], Path]] = {
        "repro run, a hit": (ours, project / "data"),
        "cp -r": (bare, place / "copy"),
        "sha256sum and cp -r": (checked, place / "copy"),
    }
    if dvc:
        actions["dvc checkout, not verified"] = (
            lambda: _call(dvc, "dvc", "checkout", "-q"),
            dvc / "data",
        )
    for number in range(rounds + 1):
        for name, (action, target) in actions.items():
            shutil.rmtree(target, ignore_errors=True)
            sample = action()
            if sum(1 for _ in target.rglob("f*")) != case.count:
                raise SystemExit(f"{name} has not restored all")
            if number:  # the first is a warm-up
                case.samples.setdefault(name, []).append(sample)


def _hash(place: Path, case: Case, rounds: int) -> None:
    """Measure a plan: all inputs are read, or known by the memo."""
    project = _project(place, "project", "{inputs: [data], outputs: [], command: 'true'}")
    (project / "data").mkdir()
    for number in range(case.count):
        with open(project / "data" / f"f{number}", "wb") as file:
            sizes = (min(1 << 20, case.size - at) for at in range(0, case.size, 1 << 20))
            file.writelines(os.urandom(size) for size in sizes)
    time.sleep(0.1)  # files that have just been written are not believed yet
    empty = _project(place, "empty", "{inputs: [], outputs: [], command: 'true'}")
    _call(empty, *REPRO, "plan", "--env-manager", "local", store="warm-up")
    for number in range(rounds):
        for kind in ("cold", "with the memo"):
            for folder, what in ((empty, "nothing to hash, "), (project, "")):
                store = f"store-{folder.name}-{number}"
                sample = _call(folder, *REPRO, "plan", "--env-manager", "local", store=store)
                case.samples.setdefault(f"repro plan, {what}{kind}", []).append(sample)
        case.samples.setdefault("sha256sum", []).append(_shell(project, HASHED))
    if shutil.which("dvc"):
        folder = place / "dvc"
        folder.mkdir()
        (project / "data").rename(folder / "data")
        _call(folder, "dvc", "init", "-q", "--no-scm")
        case.samples["dvc add, copies too"] = [_call(folder, "dvc", "add", "-q", "data")]
        case.samples["dvc status, with its state"] = [
            _call(folder, "dvc", "status", "-q") for _round in range(rounds)
        ]


def _project(place: Path, name: str, entry: str) -> Path:
    folder = place / name
    folder.mkdir()
    (folder / "MLproject").write_text(f"entry_points:\n  main: {entry}\n")
    return folder


def _dvc(place: Path, origin: Path) -> Path:
    folder = place / "dvc"
    folder.mkdir()
    shutil.copytree(origin, folder / "data")
    _call(folder, "dvc", "init", "-q", "--no-scm")
    _call(folder, "dvc", "add", "-q", "data")
    return folder


def _shell(folder: Path, text: str) -> Sample:
    return _call(folder, "sh", "-c", text)


def _call(folder: Path, *argv: str, store: str = "store") -> Sample:
    place = folder if folder.name.startswith("volumes-") else folder.parent
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parent),
        "PYTHONPYCACHEPREFIX": str(place / "pyc"),
        "HOME": str(place / "home"),
        "REPRO_HOME": str(place / store),
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
    }
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{argv}: {said.read().decode(errors='replace')[-1000:]}")
    return Sample(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss << 10)


# --- the report ----------------------------------------------------------------------------


def _report(cases: list[Case], about: str) -> str:
    lines = ["# Much data", "", f"- {os.cpu_count()} cores, {about}; wall times", ""]
    lines += ["| budget | limit | measured | verdict |", "| --- | ---: | ---: | ---: |"]
    for budget in (budget for case in cases for budget in _budgets(case)):
        bound = f"at {'least' if budget.at_least else 'most'} {budget.limit:,g}"
        shown = "" if budget.value is None else f"{budget.value:,.3g}"
        lines.append(f"| {budget.text} | {bound} | {shown} | {budget.verdict} |")
    for case in cases:
        lines += ["", f"## {case.title}", ""]
        lines += ["| command | CPU, s | wall, s | MB/s | files/s | memory, MB |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for name, found in case.samples.items():
            wall = case.median(name) or 1.0
            memory = max(sample.rss for sample in found) / 1e6
            rate = f"{case.count * case.size / wall / 1e6:,.0f} | {case.count / wall:,.0f}"
            cpu = case.median(name, "cpu") or 0.0
            lines.append(f"| {name} | {cpu:.3f} | {wall:.3f} | {rate} | {memory:.0f} |")
    return "\n".join(lines) + "\n"


def _budgets(case: Case) -> Iterator[Budget]:
    def times(name: str, base: str) -> float | None:
        one, other = case.median(name), case.median(base)
        return one / other if one and other else None

    memory = [s.rss for name, found in case.samples.items() if "repro" in name for s in found]
    if "cp -r" in case.samples and case.count == 1:
        limit, base = 1.2, "sha256sum and cp -r"
        yield Budget(f"{case.title} / {base}", times("repro run, a hit", base), limit)
    elif "cp -r" in case.samples:
        yield Budget(f"{case.title} / cp -r", times("repro run, a hit", "cp -r"), 2)
    elif case.count > 1:
        for kind, least in (("cold", 80_000), ("with the memo", 200_000)):
            names = [f"repro plan, {what}{kind}" for what in ("", "nothing to hash, ")]
            cpu, start = (case.median(name, "cpu") for name in names)
            rate = case.count / max(cpu - start, 1e-3) if cpu and start else None
            yield Budget(f"hashed {kind}, files a second", rate, least, at_least=True)
    if memory:
        yield Budget(f"{case.title}: memory, MB", max(memory) / 1e6, 200)


if __name__ == "__main__":
    main()

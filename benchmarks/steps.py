"""Measure many steps: a run with nothing to do, and a first run, beside other tools.

    python benchmarks/steps.py --peers VENV                everything, an hour, into results.md
    python benchmarks/steps.py --peers VENV --quick        five minutes, shown only
    python benchmarks/steps.py --only ninja --sizes 1,1000 --rounds 9

VENV is a virtual environment with doit, dvc, snakemake and redun; make, ninja, nix and bazel are
those of the system. Every tool gets the same steps, `cp` of one file to another, as a chain or as
a fan; commands take turns. A tool that is not there is named with the reason.
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
from builders import PEERS, REPRO, steps
from table import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from builders import Tool

RESULTS = Path(__file__).resolve().parent / "results.md"
FIRST = 200


@dataclass(frozen=True)
class Sample:
    """What one call took: CPU and wall in seconds, and the memory of its largest process."""

    cpu: float
    wall: float
    rss: int


@dataclass
class Table:
    """Samples of some tools in one project, nothing to do or not, and who is not among them."""

    shape: str
    size: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def median(self, name: str, what: str) -> float | None:
        """Give the median of what some calls took."""
        found = [getattr(sample, what) for sample in self.samples.get(name, ())]
        return statistics.median(found) if found else None


class Failed(Exception):
    """A tool did not do what it was asked for."""


def main() -> None:
    """Measure what is asked for, and write tables."""
    chosen = _arguments()
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if chosen.peers:
        path.insert(1, str(chosen.peers.absolute() / "bin"))
    os.environ["PATH"] = ":".join(path)
    tools = [REPRO, *(tool for tool in PEERS if not chosen.only or tool.name in chosen.only)]
    absent = {tool.name: tool.missing for tool in tools if tool.missing}
    tools = [tool for tool in tools if tool.name not in absent]
    load = f"{os.getloadavg()[0]:.2f}"
    noops = []
    with tempfile.TemporaryDirectory(prefix="steps-", dir=chosen.folder) as place:
        for shape in chosen.shapes.split(","):
            for size in map(int, chosen.sizes.split(",")):
                asked = [tool for tool in tools if tool.does(shape, size)]
                noops.append(_unchanged(Path(place), asked, Table(shape, size), chosen.rounds))
        firsts = [_first(Path(place), tools, chosen.jobs) for _round in range(chosen.firsts)]
    text = _report(noops, firsts, absent, f"load before {load}, {chosen.rounds} rounds")
    sys.stdout.write(text)
    if chosen.output or not chosen.quick:
        sections.put(chosen.output or RESULTS, "steps", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="a virtual environment with the peers")
    parser.add_argument("--only", action="append", help="a peer; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small projects, one round")
    parser.add_argument("--sizes", help="numbers of steps (1,100,1000,10000)")
    parser.add_argument("--shapes", default="fan,chain", help="fan, chain or both")
    parser.add_argument("--rounds", type=int, help="calls with nothing to do, of each tool (5)")
    parser.add_argument("--firsts", type=int, help="first runs, of each tool (3)")
    parser.add_argument("--jobs", type=int, default=2, help="steps at once")
    parser.add_argument("--folder", type=Path, help="where the projects and stores are made")
    parser.add_argument("--output", type=Path, help="the report to put the tables into")
    chosen = parser.parse_args()
    chosen.sizes = chosen.sizes or ("1,30" if chosen.quick else "1,100,1000,10000")
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 5)
    chosen.firsts = chosen.firsts or (1 if chosen.quick else 3)
    return chosen


def _environ(tool: Tool, folder: Path) -> dict[str, str]:
    home = folder.parent / f"{folder.name}-home"
    home.mkdir(exist_ok=True)
    variables = {
        name: str(home / value) if name.startswith("NIX_") and value.startswith("nix/") else value
        for name, value in tool.variables.items()
    }
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPYCACHEPREFIX": str(folder.parent / "pyc"),
        "HOME": str(home),
        "USER": "root",
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        **variables,
    }


def _call(tool: Tool, folder: Path, *more: str) -> Sample:
    """Run the command; what its children took that it waited for is counted."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*tool.command, *more],
            cwd=folder,
            env=_environ(tool, folder),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise Failed(said.read().decode(errors="replace").strip()[-500:])
    return Sample(cpu=usage.ru_utime + usage.ru_stime, wall=wall, rss=usage.ru_maxrss << 10)


def _prepared(place: Path, tool: Tool, shape: str, size: int) -> Path:
    folder = place / f"{tool.name}-{shape}-{size}-{os.urandom(3).hex()}"
    folder.mkdir()
    (folder / "source").write_text("text\n")
    tool.write(folder, steps(shape, size))
    return folder


def _unchanged(place: Path, tools: Iterable[Tool], table: Table, rounds: int) -> Table:
    """Measure runs with nothing to do, the tools in turn."""
    ready: list[tuple[Tool, Path]] = []
    for tool in tools:
        _tell(f"{tool.name}: making {table.size} steps, {table.shape}")
        folder = _prepared(place, tool, table.shape, table.size)
        try:
            for number in range(tool.settled):
                _call(tool, folder, *_at_once(tool, 2 if number == 0 else 0))
            ready.append((tool, folder))
        except Failed as error:
            table.failed[tool.name] = str(error)
    for _round in range(rounds):
        for tool, folder in ready:
            table.samples.setdefault(tool.name, []).append(_call(tool, folder))
    for tool, folder in ready:
        _clean(tool, folder)
    return table


def _first(place: Path, tools: Iterable[Tool], jobs: int) -> Table:
    """Measure a first run of each tool."""
    table = Table("fan", FIRST)
    for tool in tools:
        if not tool.does("fan", FIRST):
            table.failed[tool.name] = "it takes minutes"
            continue
        _tell(f"{tool.name}: first run of {FIRST} steps")
        folder = _prepared(place, tool, "fan", FIRST)
        try:
            table.samples[tool.name] = [_call(tool, folder, *_at_once(tool, jobs))]
        except Failed as error:
            table.failed[tool.name] = str(error)
        _clean(tool, folder)
    return table


def _at_once(tool: Tool, jobs: int) -> tuple[str, ...]:
    return (f"{tool.jobs}{jobs}",) if tool.jobs and jobs else ()


def _clean(tool: Tool, folder: Path) -> None:
    if tool.server:
        subprocess.run(
            tool.server, cwd=folder, env=_environ(tool, folder), check=False, capture_output=True
        )
    for root in (folder, folder.parent / f"{folder.name}-home"):
        subprocess.run(["chmod", "-R", "u+w", root], check=False)
        shutil.rmtree(root, ignore_errors=True)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# --- the report ----------------------------------------------------------------------------


def _report(noops: list[Table], firsts: list[Table], absent: dict[str, str], about: str) -> str:
    lines = ["# Many steps", "", f"- {os.cpu_count()} cores, {about}", *_reasons(absent), ""]
    lines += ["| budget | limit | measured | verdict |", "| --- | ---: | ---: | ---: |"]
    for budget in _budgets(noops, firsts):
        bound = f"at {'least' if budget.at_least else 'most'} {budget.limit:g}"
        shown = "" if budget.value is None else f"{budget.value:.3g}"
        lines.append(f"| {budget.text} | {bound} | {shown} | {budget.verdict} |")
    lines.append("")
    for table in noops:
        lines += _rows(f"{table.size} steps, {table.shape}, nothing to do", [table])
    lines += _rows(f"{FIRST} steps, fan, first run", firsts)
    return "\n".join(lines) + "\n"


def _reasons(reasons: dict[str, str]) -> Iterator[str]:
    for name, why in reasons.items():
        yield f"- {name} is not measured: {why.splitlines()[-1] if why else 'it failed'}"


def _rows(title: str, tables: list[Table]) -> list[str]:
    """Write what some tables of one kind say, as one."""
    joined = Table(tables[0].shape, tables[0].size, failed=tables[0].failed) if tables else None
    if joined is None:
        return []
    for table in tables:
        for name, found in table.samples.items():
            joined.samples.setdefault(name, []).extend(found)
    ours = joined.median("repro", "wall") or 1.0
    lines = [
        f"## {title}",
        "",
        "| tool | CPU median, s | wall median, s | steps a second | memory, MB | wall x repro |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for tool in (REPRO, *PEERS):
        cpu, wall = (joined.median(tool.name, what) for what in ("cpu", "wall"))
        if cpu is None or wall is None:
            continue
        used = "in its server" if tool.server else f"{cpu:.3f}"
        memory = "" if tool.server else f"{(joined.median(tool.name, 'rss') or 0) / 1e6:.0f}"
        rate = f"{joined.size / wall:,.0f}"
        lines.append(
            f"| {tool.name} | {used} | {wall:.3f} | {rate} | {memory} | {wall / ours:.2f} |"
        )
    return [*lines, "", *_reasons(joined.failed), ""]


def _budgets(noops: list[Table], firsts: list[Table]) -> list[Budget]:
    """Hold what was measured against what must hold."""
    tables = {(table.shape, table.size): table for table in noops}

    def cpu(size: int, shape: str = "fan") -> float | None:
        table = tables.get((shape, size))
        return table.median("repro", "cpu") if table else None

    def ahead(name: str, what: str = "cpu") -> float | None:
        table = tables.get(("fan", 1000))
        theirs, ours = (table.median(n, what) if table else None for n in (name, "repro"))
        return theirs / ours if theirs and ours else None

    walls = [s.wall for table in firsts for s in table.samples.get("repro", ())]
    found = [
        Budget("CPU of 1,000 steps, nothing to do, s", cpu(1000), 0.15),
        Budget("CPU of 1,000 steps, a chain, s", cpu(1000, "chain"), 0.15),
        Budget("CPU of 10,000 steps, nothing to do, s", cpu(10_000), 0.6),
        Budget("CPU of 10,000 steps, a chain, s", cpu(10_000, "chain"), 0.6),
        Budget("growth from 1,000 to 10,000 / tenfold, fan", _growth(cpu, "fan"), 1.5),
        Budget("growth from 1,000 to 10,000 / tenfold, chain", _growth(cpu, "chain"), 1.5),
        Budget(f"first run of {FIRST} steps, s", statistics.median(walls) if walls else None, 2),
    ]
    for name, least in {"doit": 1, "nix": 1, "snakemake": 15, "dvc": 60}.items():
        found.append(Budget(f"CPU of {name} / ours at 1,000", ahead(name), least, at_least=True))
    return found


def _growth(cpu: object, shape: str) -> float | None:
    """Give by how much the cost of a step grows beyond what the number of steps says."""
    one, some, many = (cpu(size, shape) for size in (1, 1000, 10_000))  # type: ignore[operator]
    if one is None or some is None or many is None:
        return None
    return (many - one) / 10 / max(some - one, 0.001)


if __name__ == "__main__":
    main()

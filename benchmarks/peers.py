"""Measure repro beside mlflow, dvc and snakemake, and hold it against its budgets."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
from pathlib import Path

import measure
import sections
import subjects
import table
from workspace import DISTRIBUTION, PEERS, REPOSITORY, Workspace

GROUPS = ("noop", "first", "import", "help", "count")
NAMES = (*GROUPS, *(tool.name for tool in subjects.TOOLS))
RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Measure, and write the report to stdout and to a file."""
    options = _options()
    place = Workspace(options.workspace.resolve(), _absolute(options.peers))
    chosen = _choose(subjects.all_subjects(place), options.only)
    counted = _counted(chosen, options.only)
    load = " ".join(f"{part:.2f}" for part in os.getloadavg())
    about = facts(load, _install(place, chosen), options.rounds)
    place.clear()
    for subject in chosen:
        subject.set_up()
    try:
        samples = measure.interleave(chosen, options.rounds, place, _tell)
        counts = {subject.name: measure.count(subject, place) for subject in counted}
    except (measure.CommandFailed, subjects.Unfit) as error:
        sys.exit(f"error: {error}")
    report = table.markdown(table.Results(chosen, samples, counts), about)
    sys.stdout.write(report)
    output = options.output or (None if options.only else RESULTS)
    if output:
        sections.put(output, "peers", report)


def _options() -> argparse.Namespace:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rounds", type=_positive, default=5, help="rounds to measure (default: 5)")
    add(
        "--only",
        action="append",
        default=[],
        choices=NAMES,
        metavar="NAME",
        help=f"measure this group or tool alone; may be repeated: {', '.join(NAMES)}",
    )
    add(
        "--workspace",
        type=Path,
        default=Path(cache, "repro-benchmarks"),
        metavar="DIR",
        help="folder for virtual environments and projects (default: %(default)s)",
    )
    add("--peers", type=Path, metavar="VENV", help="a virtual environment that has the peers")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the report (default: results.md beside this file; none with --only)",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 up")
    return int(text)


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def _choose(everything: list[subjects.Subject], only: list[str]) -> list[subjects.Subject]:
    """Choose the groups and the tools that are named, and the interpreters of those tools."""
    groups = {"noop" if name == "count" else name for name in only if name in GROUPS}
    tools = {name for name in only if name not in GROUPS}
    kept = [
        subject
        for subject in everything
        if subject.group != "bare"
        and (not groups or subject.group in groups)
        and (not tools or subject.tool in tools)
    ]
    venvs = {_venv(subject) for subject in kept}
    return [s for s in everything if s.group == "bare" and s.tool in venvs] + kept


def _counted(chosen: list[subjects.Subject], only: list[str]) -> list[subjects.Subject]:
    wanted = "count" in only or not set(only) & set(GROUPS)
    return [subject for subject in chosen if wanted and subject.group == "noop"]


def _venv(subject: subjects.Subject) -> str:
    return "repro" if subject.tool == "repro" else "peers"


def _install(place: Workspace, chosen: list[subjects.Subject]) -> dict[str, str]:
    """Install what is measured, and give the versions by name."""
    names = {"repro": (DISTRIBUTION,), "peers": tuple(peer.split("==")[0] for peer in PEERS)}
    found: dict[str, str] = {}
    for venv in dict.fromkeys(_venv(subject) for subject in chosen):
        _tell(f"installing {', '.join(names[venv])} in {place.venv(venv)}")
        place.install(venv)
        versions = place.versions(venv, names[venv])
        python = versions.pop("Python")
        found |= {name: f"{text} (Python {python})" for name, text in versions.items()}
    return found


def facts(load: str, versions: dict[str, str], rounds: int) -> dict[str, str]:
    """Say when, where and on what was measured."""
    now = dt.datetime.now(dt.UTC)
    return {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, load before {load}",
        **({"versions": ", ".join(f"{n} {t}" for n, t in versions.items())} if versions else {}),
        "commit": _commit(),
        "rounds": f"{rounds}; commands in turn; times in ms; CPU is user and system time of the "
        "command and its children; ratios are of CPU medians",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit() -> str:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--tags"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

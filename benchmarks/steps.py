"""Measure many steps: a run with nothing to do, and a first run, beside make, ninja and the peers.

    python benchmarks/steps.py --peers VENV [--sizes 1,100,1000] [--rounds 5] [--output FILE]

VENV is a virtual environment with dvc, snakemake and doit; what is not there is left out. Every
tool gets the same steps, `cp` of one file to another, as a chain or as a fan; commands take turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parent.parent
SLOW = {"dvc": 100, "snakemake": 1000, "doit": 10_000}
"""The largest project that a tool is asked about: beyond, one round takes minutes."""


@dataclass(frozen=True)
class Tool:
    """A tool: its program, what its project consists of, and the command that brings it about."""

    name: str
    program: str
    write: Callable[[Path, list[tuple[str, str]]], None]
    command: tuple[str, ...]


def steps(shape: str, size: int) -> list[tuple[str, str]]:
    """Give the steps as (input, output)."""
    if shape == "fan":
        return [("source", f"out{i}") for i in range(size)]
    return [("source" if i == 0 else f"out{i - 1}", f"out{i}") for i in range(size)]


def _repro(folder: Path, wanted: list[tuple[str, str]]) -> None:
    lines = ["entry_points:"]
    for index, (made_of, made) in enumerate(wanted):
        lines.append(
            f"  s{index}: {{inputs: [{made_of}], outputs: [{made}], command: cp {made_of} {made}}}"
        )
    needs = ", ".join(f"s{i}" for i in range(len(wanted)))
    lines.append(f"  main: {{needs: [{needs}], inputs: [], outputs: [], command: 'true'}}")
    (folder / "MLproject").write_text("\n".join(lines) + "\n")


def _make(folder: Path, wanted: list[tuple[str, str]]) -> None:
    goals = " ".join(made for _of, made in wanted)
    rules = "".join(f"{made}: {of}\n\tcp {of} {made}\n" for of, made in wanted)
    (folder / "Makefile").write_text(f"all: {goals}\n{rules}")


def _ninja(folder: Path, wanted: list[tuple[str, str]]) -> None:
    edges = "".join(f"build {made}: cp {of}\n" for of, made in wanted)
    (folder / "build.ninja").write_text(f"rule cp\n  command = cp $in $out\n{edges}")


def _doit(folder: Path, wanted: list[tuple[str, str]]) -> None:
    body = f"STEPS = {wanted!r}\n\ndef task_cp():\n    for of, made in STEPS:\n"
    body += "        yield {'name': made, 'file_dep': [of], 'targets': [made],"
    body += " 'actions': [f'cp {of} {made}']}\n"
    (folder / "dodo.py").write_text(body)


def _snakemake(folder: Path, wanted: list[tuple[str, str]]) -> None:
    text = f"rule all:\n    input: {[made for _of, made in wanted]!r}\n"
    for index, (of, made) in enumerate(wanted):
        text += f"rule s{index}:\n    input: {of!r}\n    output: {made!r}\n"
        text += "    shell: 'cp {input} {output}'\n"
    (folder / "Snakefile").write_text(text)


def _dvc(folder: Path, wanted: list[tuple[str, str]]) -> None:
    lines = ["stages:"]
    for index, (of, made) in enumerate(wanted):
        lines.append(f"  s{index}: {{cmd: cp {of} {made}, deps: [{of}], outs: [{made}]}}")
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=folder, check=True, env=_environ(folder))


TOOLS = (
    Tool("repro", "repro", _repro, ("repro", "run", "-q", "-q", "--env-manager", "local")),
    Tool("make", "make", _make, ("make", "-s", "all")),
    Tool("ninja", "ninja", _ninja, ("ninja", "--quiet")),
    Tool("doit", "doit", _doit, ("doit", "-v0")),
    Tool("snakemake", "snakemake", _snakemake, ("snakemake", "-q", "-c1")),
    Tool("dvc", "dvc", _dvc, ("dvc", "repro", "-q")),
)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="a virtual environment with the peers")
    parser.add_argument("--sizes", default="1,100,1000", help="numbers of steps")
    parser.add_argument("--shapes", default="fan,chain", help="fan, chain or both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="at once, on a first run")
    parser.add_argument("--output", type=Path, help="append the table to a file")
    given = parser.parse_args()
    if given.peers:
        os.environ["PATH"] = f"{given.peers.absolute() / 'bin'}:{os.environ['PATH']}"
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    report = [f"## Many steps, load before {os.getloadavg()[0]:.1f}", ""]
    with tempfile.TemporaryDirectory() as place:
        for shape in given.shapes.split(","):
            for size in map(int, given.sizes.split(",")):
                report += _table(Path(place), shape, size, given.rounds)
        report += _first(Path(place), 200, given.jobs)
    text = "\n".join(report) + "\n"
    sys.stdout.write(text)
    if given.output:
        with given.output.open("a") as file:
            file.write(f"\n{text}")


def _environ(folder: Path) -> dict[str, str]:
    home = folder.parent / f"{folder.name}-home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", str(home / "pyc")),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
    }


def _prepared(place: Path, tool: Tool, wanted: list[tuple[str, str]], name: str) -> Path | None:
    if shutil.which(tool.program) is None and tool.name != "repro":
        return None
    folder = place / f"{tool.name}-{name}"
    folder.mkdir()
    (folder / "source").write_text("text\n")
    tool.write(folder, wanted)
    return folder


def _call(tool: Tool, folder: Path, *more: str) -> tuple[float, float]:
    """Run a command; give CPU and wall seconds, those of all it waited for included."""
    command = [*tool.command, *more]
    if tool.name == "repro":
        command[:1] = [sys.executable, "-m", "repro"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=_environ(folder), capture_output=True, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"error: {tool.name} failed: {done.stderr.decode()[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def _table(place: Path, shape: str, size: int, rounds: int) -> list[str]:
    """Measure a run with nothing to do."""
    wanted = steps(shape, size)
    folders = {}
    for tool in TOOLS:
        if size > SLOW.get(tool.name, size):
            continue
        folder = _prepared(place, tool, wanted, f"{shape}-{size}")
        if folder is not None:
            folders[tool.name] = (tool, folder)
            for _ in range(3 if tool.name == "repro" else 2):
                _call(tool, folder)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
    for _round in range(rounds):
        for name, (tool, folder) in folders.items():
            samples[name].append(_call(tool, folder))
    ours = statistics.median(cpu for cpu, _wall in samples["repro"])
    rows = [
        f"### {size} steps, {shape}, nothing to do",
        "",
        "| tool | CPU median, s | wall median, s | x repro |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, found in samples.items():
        cpu = statistics.median(c for c, _wall in found)
        wall = statistics.median(w for _cpu, w in found)
        rows.append(f"| {name} | {cpu:.3f} | {wall:.3f} | {cpu / ours:.2f} |")
    return [*rows, ""]


def _first(place: Path, size: int, jobs: int) -> list[str]:
    """Measure a first run of trivial steps, once each."""
    rows = [
        f"### {size} steps, fan, first run, {jobs} at once",
        "",
        "| tool | wall, s | steps a second |",
        "| --- | ---: | ---: |",
    ]
    flags = {"repro": f"-j{jobs}", "make": f"-j{jobs}", "ninja": f"-j{jobs}", "doit": f"-n{jobs}"}
    for tool in TOOLS:
        folder = _prepared(place, tool, steps("fan", size), "first")
        if folder is None:
            continue
        more = (flags[tool.name],) if tool.name in flags else ()
        _cpu, wall = _call(tool, folder, *more)
        rows.append(f"| {tool.name} | {wall:.2f} | {size / wall:.0f} |")
    return [*rows, ""]


if __name__ == "__main__":
    main()

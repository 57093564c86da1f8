"""What is measured: the same one-step project in four tools, their API and their help."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workspace import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from workspace import Workspace

OFTEN = 5
IGNORED = "/out.txt\n/mlflow.db\n/mlruns/\n/.snakemake/\n/.dvc/tmp/\n/.dvc/cache/\n"
MLPROJECT = """\
name: trivial
entry_points:
  main:
    command: "cp in.txt out.txt"
"""
DVC_YAML = """\
stages:
  main:
    cmd: cp in.txt out.txt
    deps: [in.txt]
    outs: [out.txt]
"""
DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
"""
SNAKEFILE = """\
rule main:
    input: "in.txt"
    output: "out.txt"
    shell: "cp {input} {output}"
"""


class Unfit(Exception):
    """A command did something else than what is being measured."""


@dataclass(frozen=True)
class Tool:
    """A tool, the words that make it bring `out.txt` up to date, and the files that say how.

    `idle` is what it says when it has nothing to do; empty for a tool that always runs the step.
    """

    name: str
    words: tuple[str, ...]
    files: Mapping[str, str]
    idle: str


TOOLS = (
    Tool("repro", ("run", ".", "--env-manager", "local"), {"MLproject": MLPROJECT}, "reused run"),
    Tool("mlflow", ("run", ".", "--env-manager", "local"), {"MLproject": MLPROJECT}, ""),
    Tool("dvc", ("repro",), {"dvc.yaml": DVC_YAML, ".dvc/config": DVC_CONFIG}, "up to date"),
    Tool("snakemake", ("-c1",), {"Snakefile": SNAKEFILE}, "Nothing to be done"),
)


@dataclass(frozen=True)
class Subject:
    """One command that is measured; `label` is Markdown for a table.

    `around` sets the scene before each call and raises Unfit after it where the command did not
    do what it is measured for. `passes` is how often a round calls it: what takes a few
    milliseconds needs more calls for a steady median.
    """

    name: str
    label: str
    tool: str
    argv: tuple[str, ...]
    folder: Path
    passes: int
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    set_up: Callable[[], None] = lambda: None

    @property
    def group(self) -> str:
        """Give the first word of the name: subjects of a group are compared to each other."""
        return self.name.partition("-")[0]


def all_subjects(place: Workspace) -> list[Subject]:
    """List everything that can be measured; in each group what the others are compared to first."""
    repro, *peers = TOOLS
    return [
        _python(place, "bare-repro", "repro", "pass"),
        _python(place, "bare-peers", "peers", "pass"),
        _noop(place, repro),
        _noop(place, repro, git=False),
        *(_noop(place, tool) for tool in peers),
        *(_first(place, tool) for tool in TOOLS),
        _python(place, "import-repro", "repro", "from repro import run"),
        _python(place, "import-package", "repro", "import repro"),
        _python(place, "import-mlflow", "mlflow", "import mlflow.projects"),
        *(_help(place, tool) for tool in TOOLS),
    ]


def _python(place: Workspace, name: str, tool: str, code: str) -> Subject:
    venv = place.venv(tool)
    prefix = f"pycache_prefix={place.bytecode}"  # -I ignores the variable
    return Subject(
        name=name,
        label=f"`python -I -c '{code}'`, venv of {'repro' if tool == 'repro' else 'the peers'}",
        tool=tool,
        argv=(str(venv / "bin" / "python"), "-I", "-X", prefix, "-c", code),
        folder=place.state,
        passes=1 if tool == "mlflow" else OFTEN,
    )


def _help(place: Workspace, tool: Tool) -> Subject:
    return _script(place, tool, f"help-{tool.name}", ("--help",), place.state)


def _noop(place: Workspace, tool: Tool, *, git: bool = True) -> Subject:
    name = f"noop-{tool.name}" if git else f"noop-{tool.name}-plain"
    folder = place.state / name
    subject = _script(place, tool, name, tool.words, folder)
    return replace(
        subject,
        label=subject.label if git else f"{subject.label} outside Git",
        around=lambda: _idle(tool, folder, place.log),
        set_up=lambda: _make_project(place, folder, tool.files, git=git),
    )


def _first(place: Workspace, tool: Tool) -> Subject:
    name = f"first-{tool.name}"
    folder = place.state / name
    return replace(
        _script(place, tool, name, tool.words, folder),
        around=lambda: _remade(folder),
        set_up=lambda: _make_project(place, folder, tool.files, git=True),
    )


def _script(
    place: Workspace, tool: Tool, name: str, words: tuple[str, ...], folder: Path
) -> Subject:
    return Subject(
        name=name,
        label=f"`{' '.join((tool.name, *words))}`",
        tool=tool.name,
        argv=(str(place.venv(tool.name) / "bin" / tool.name), *words),
        folder=folder,
        passes=OFTEN if tool.name == "repro" else 1,
    )


def _make_project(place: Workspace, folder: Path, files: Mapping[str, str], *, git: bool) -> None:
    for name, text in {**files, "in.txt": "input\n", ".gitignore": IGNORED}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if git:
        author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
        for words in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "input")):
            call(("git", *words), folder, place.environ("git"))


@contextlib.contextmanager
def _idle(tool: Tool, folder: Path, log: Path) -> Iterator[None]:
    made_before = (folder / "out.txt").exists()
    yield
    if made_before and tool.idle not in log.read_text():
        raise Unfit(f"{tool.name} ran the step again although nothing had changed")


@contextlib.contextmanager
def _remade(folder: Path) -> Iterator[None]:
    wanted = f"{time.time_ns()}\n"
    (folder / "in.txt").write_text(wanted)
    yield
    if (folder / "out.txt").read_text() != wanted:
        raise Unfit(f"{folder / 'out.txt'} was not made from the new input")

"""What is measured: the same one-step project in four tools, their API and their help."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """A tool, the command that makes `out.txt` with it, and the files that describe the step."""

    name: str
    command: tuple[str, ...]
    files: Mapping[str, str]
    caches: bool = True


TOOLS = (
    Tool("repro", ("repro", "run", ".", "--env-manager", "local"), {"MLproject": MLPROJECT}),
    Tool(
        "mlflow",
        ("mlflow", "run", ".", "--env-manager", "local"),
        {"MLproject": MLPROJECT},
        caches=False,
    ),
    Tool("dvc", ("dvc", "repro"), {"dvc.yaml": DVC_YAML, ".dvc/config": DVC_CONFIG}),
    Tool("snakemake", ("snakemake", "-c1"), {"Snakefile": SNAKEFILE}),
)


@dataclass(frozen=True)
class Subject:
    """One command that is measured.

    `around` sets the scene before each call and raises Unfit after it where the command did not
    do what it is measured for. `passes` is how often a round calls it: what takes a few
    milliseconds needs more calls for a steady median.
    """

    group: str
    label: str
    tool: str
    argv: tuple[str, ...]
    folder: Path
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    set_up: Callable[[], None] = lambda: None
    passes: int = 1

    @property
    def name(self) -> str:
        """Give a name that no other subject has."""
        return f"{self.group}: {self.label} ({self.tool})"


def all_subjects(place: Workspace) -> list[Subject]:
    """List everything that can be measured; in each group what the others are compared to first."""
    return [
        *_bare(place),
        *(_noop(place, tool) for tool in TOOLS),
        _noop(place, TOOLS[0], git=False),
        *(_first(place, tool) for tool in TOOLS),
        *_imports(place),
        *(_help(place, tool) for tool in TOOLS),
    ]


def _bare(place: Workspace) -> Iterator[Subject]:
    for tool, label in (("repro", "venv of repro"), ("peers", "venv of the peers")):
        yield _python(place, "bare", tool, "pass", f"python -I -c pass, {label}")


def _imports(place: Workspace) -> Iterator[Subject]:
    for tool, code in (
        ("repro", "from repro import run"),
        ("repro", "import repro"),
        ("mlflow", "import mlflow.projects"),
    ):
        yield _python(place, "import", tool, code, code)


def _python(place: Workspace, group: str, tool: str, code: str, label: str) -> Subject:
    prefix = f"pycache_prefix={place.bytecode}"  # -I ignores the variable
    python = str(place.venv(tool) / "bin" / "python")
    return Subject(
        group=group,
        label=label,
        tool=tool,
        argv=(python, "-I", "-X", prefix, "-c", code),
        folder=place.state,
        passes=OFTEN if tool != "mlflow" else 1,
    )


def _help(place: Workspace, tool: Tool) -> Subject:
    return Subject(
        group="help",
        label=f"{tool.name} --help",
        tool=tool.name,
        argv=(str(place.venv(tool.name) / "bin" / tool.name), "--help"),
        folder=place.state,
        passes=_passes(tool),
    )


def _noop(place: Workspace, tool: Tool, *, git: bool = True) -> Subject:
    folder = place.state / f"noop-{tool.name}{'' if git else '-plain'}"
    return _run(
        place,
        tool,
        group="noop",
        folder=folder,
        git=git,
        around=lambda: _untouched(folder) if tool.caches else contextlib.nullcontext(),
    )


def _first(place: Workspace, tool: Tool) -> Subject:
    folder = place.state / f"first-{tool.name}"
    return _run(place, tool, group="first", folder=folder, git=True, around=lambda: _remade(folder))


def _run(
    place: Workspace,
    tool: Tool,
    *,
    group: str,
    folder: Path,
    git: bool,
    around: Callable[[], AbstractContextManager[None]],
) -> Subject:
    executable = str(place.venv(tool.name) / "bin" / tool.command[0])
    return Subject(
        group=group,
        label=" ".join(tool.command) + ("" if git else ", outside Git"),
        tool=tool.name,
        argv=(executable, *tool.command[1:]),
        folder=folder,
        around=around,
        set_up=lambda: _make_project(folder, tool.files, git=git),
        passes=_passes(tool),
    )


def _passes(tool: Tool) -> int:
    return OFTEN if tool.name == "repro" else 1


def _make_project(folder: Path, files: Mapping[str, str], *, git: bool) -> None:
    for name, text in {**files, "in.txt": "input\n", ".gitignore": IGNORED}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not git:
        return
    author = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost")
    unsigned = ("-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*author, *unsigned, "commit", "-qm", "input")):
        subprocess.run(("git", *words), cwd=folder, check=True)


@contextlib.contextmanager
def _untouched(folder: Path) -> Iterator[None]:
    output = folder / "out.txt"
    before = output.stat() if output.exists() else None
    yield
    after = output.stat()
    if before and (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
        raise Unfit(f"{output} was made again although nothing had changed")


@contextlib.contextmanager
def _remade(folder: Path) -> Iterator[None]:
    wanted = f"{time.time_ns()}\n"
    (folder / "in.txt").write_text(wanted)
    yield
    if (folder / "out.txt").read_text() != wanted:
        raise Unfit(f"{folder / 'out.txt'} was not made from the new input")

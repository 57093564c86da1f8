"""The tools that `steps.py` compares: how each is told of steps, and the command that does them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Steps = list[tuple[str, str]]
    Write = Callable[[Path, Steps], None]

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Tool:
    """A tool: its program, what its project consists of, and the command that brings it about.

    `jobs` is the option that says how many steps may run at once, empty where there is none.
    `most` is the largest project, as a fan and as a chain, that it does in minutes. `settled` is
    how many runs there are before nothing changes any more. The CPU time of a tool with a
    `server` is not told by its command; the words end it.
    """

    name: str
    program: str
    write: Write
    command: tuple[str, ...]
    jobs: str = ""
    most: tuple[int, int] = (10_000, 10_000)
    variables: Mapping[str, str] = field(default_factory=dict)
    settled: int = 2
    server: tuple[str, ...] = ()

    def does(self, shape: str, size: int) -> bool:
        """Say whether it is asked about a project."""
        return size <= self.most[shape == "chain"]

    @property
    def missing(self) -> str:
        """Say why it cannot be measured, or nothing."""
        return "" if shutil.which(self.program) else f"no `{self.program}` on the PATH"


def steps(shape: str, size: int) -> Steps:
    """Give the steps as (input, output)."""
    if shape == "fan":
        return [("source", f"out{i}") for i in range(size)]
    return [("source" if i == 0 else f"out{i - 1}", f"out{i}") for i in range(size)]


def _repro(folder: Path, wanted: Steps) -> None:
    lines = ["entry_points:"]
    for index, (of, made) in enumerate(wanted):
        lines.append(f"  s{index}: {{inputs: [{of}], outputs: [{made}], command: cp {of} {made}}}")
    needs = ", ".join(f"s{i}" for i in range(len(wanted)))
    lines.append(f"  main: {{needs: [{needs}], inputs: [], outputs: [], command: 'true'}}")
    (folder / "MLproject").write_text("\n".join(lines) + "\n")


def _make(folder: Path, wanted: Steps) -> None:
    lines = ["all: " + " ".join(made for _, made in wanted)]
    lines += [f"{made}: {of}\n\tcp {of} {made}" for of, made in wanted]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")


def _ninja(folder: Path, wanted: Steps) -> None:
    lines = ["rule cp", "  command = cp $in $out"]
    lines += [f"build {made}: cp {of}" for of, made in wanted]
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def _doit(folder: Path, wanted: Steps) -> None:
    text = "def task_step():\n"
    text += f"    for of, made in {wanted!r}:\n"
    text += "        yield {'name': made, 'actions': [f'cp {of} {made}'],\n"
    text += "               'file_dep': [of], 'targets': [made]}\n"
    (folder / "dodo.py").write_text(text)


def _snakemake(folder: Path, wanted: Steps) -> None:
    text = f"rule all:\n    input: {[made for _, made in wanted]!r}\n"
    for index, (of, made) in enumerate(wanted):
        text += f"rule s{index}:\n    input: {of!r}\n    output: {made!r}\n"
        text += "    shell: 'cp {input} {output}'\n"
    (folder / "Snakefile").write_text(text)


def _dvc(folder: Path, wanted: Steps) -> None:
    lines = ["stages:"]
    for index, (of, made) in enumerate(wanted):
        lines.append(f"  s{index}: {{cmd: cp {of} {made}, deps: [{of}], outs: [{made}]}}")
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)


def _redun(folder: Path, wanted: Steps) -> None:
    text = "from redun import File, task\n\nredun_namespace = 'steps'\n\n\n"
    text += "@task()\ndef copy(of: File, made: str) -> File:\n"
    text += "    out = File(made)\n    out.write(of.read())\n    return out\n\n\n"
    text += "@task()\ndef main():\n    files = {'source': File('source')}\n"
    text += f"    for of, made in {wanted!r}:\n        files[made] = copy(files[of], made)\n"
    text += "    return list(files.values())\n"
    (folder / "workflow.py").write_text(text)


def _bazel(folder: Path, wanted: Steps) -> None:
    (folder / "WORKSPACE").write_text("")
    rule = 'genrule(name = "s{}", srcs = ["{}"], outs = ["{}"], cmd = "cp $< $@")'
    lines = [rule.format(index, of, made) for index, (of, made) in enumerate(wanted)]
    (folder / "BUILD").write_text("\n".join(lines) + "\n")


def _nix(folder: Path, wanted: Steps) -> None:
    lines = ["let", "  source = ./source;"]
    for _index, (of, made) in enumerate(wanted):
        lines.append(
            f'  {made} = derivation {{ name = "{made}"; system = builtins.currentSystem; '
            f'builder = "/bin/sh"; args = [ "-c" "/bin/cp ${{{of}}} $out" ]; }};'
        )
    lines.append("in [ " + " ".join(made for _, made in wanted) + " ]")
    (folder / "default.nix").write_text("\n".join(lines) + "\n")


NIX = {
    "NIX_STORE_DIR": "nix/store",
    "NIX_STATE_DIR": "nix/state",
    "NIX_LOG_DIR": "nix/log",
    "NIX_CONF_DIR": "nix/conf",
    "NIX_REMOTE": "local",
}
"""Folders are below the home of the measured tool, see `steps.environ`."""
NIX_CONFIG = "sandbox = false\nsubstitute = false\nbuild-users-group =\n"
BAZEL = ("bazel", "--output_user_root=../bazel-state")

REPRO = Tool(
    "repro",
    sys.executable,
    _repro,
    (sys.executable, "-m", "repro", "run", "-q", "-q", "--env-manager", "local"),
    jobs="-j",
    variables={"PYTHONPATH": str(REPOSITORY)},
    settled=3,
)
PEERS = (
    Tool("make", "make", _make, ("make", "-s", "all"), jobs="-j"),
    Tool("ninja", "ninja", _ninja, ("ninja", "--quiet"), jobs="-j"),
    Tool("doit", "doit", _doit, ("doit", "-v0"), jobs="-n"),
    Tool(
        "nix",
        "nix-build",
        _nix,
        ("nix-build", "--no-out-link", "default.nix"),
        jobs="-j",
        most=(1000, 1000),
        variables={**NIX, "NIX_CONFIG": NIX_CONFIG},
    ),
    Tool(
        "bazel",
        "bazel",
        _bazel,
        (*BAZEL, "build", "--noshow_progress", "--ui_event_filters=-info", "//:all"),
        jobs="--jobs=",
        server=(*BAZEL, "shutdown"),
    ),
    Tool(
        "snakemake",
        "snakemake",
        _snakemake,
        ("snakemake", "-q", "all", "--nolock", "-c1"),
        jobs="-c",
        most=(1000, 100),
    ),
    Tool("redun", "redun", _redun, ("redun", "run", "workflow.py", "main"), most=(100, 100)),
    Tool("dvc", "dvc", _dvc, ("dvc", "repro", "-q"), most=(1000, 100)),
)

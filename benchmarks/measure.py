"""The measuring: CPU and wall time of process trees, modules loaded, processes started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subjects import Subject
    from workspace import Workspace

WARM_UPS = 2  # the first makes the state that the second, and then every other, starts from
COUNT_MODULES = """\
import os, sys
del sys.argv[0]
leave = os._exit
def tell(status=0):
    sys.stderr.write(f"\\nmodules loaded: {len(sys.modules)}\\n")
    sys.stderr.flush()
    leave(status)
os._exit = tell
try:
    with open(sys.argv[0]) as script:
        exec(compile(script.read(), sys.argv[0], "exec"), {"__name__": "__main__"})
except SystemExit as end:
    tell(end.code or 0)
"""
FORKED = re.compile(r"^(?:clone3?|v?fork)\((?!.*CLONE_THREAD).* = [1-9]\d*$", re.MULTILINE)


class CommandFailed(Exception):
    """A measured command failed; the message shows the end of what it said."""


@dataclass(frozen=True)
class Sample:
    """What one call cost, in milliseconds: CPU of the command and all children it waited for."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Count:
    """What one call took: modules in its interpreter, and processes below it (None: unknown)."""

    modules: int
    children: int | None


def interleave(
    subjects: Sequence[Subject], rounds: int, place: Workspace, tell: Callable[[str], None]
) -> dict[str, list[Sample]]:
    """Call the subjects in turn (A B C A B C ...), and give the samples of each by its name.

    So every subject meets the same disturbances of the machine. Raises CommandFailed and Unfit.
    """
    for number in range(WARM_UPS):
        tell(f"warm-up {number + 1} of {WARM_UPS}")
        for subject in subjects:
            _sample(subject, place)
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for turn in range(max(subject.passes for subject in subjects)):
            for subject in subjects:
                if turn < subject.passes:
                    samples[subject.name].append(_sample(subject, place))
    return samples


def count(subject: Subject, place: Workspace) -> Count:
    """Count what a Python console script loads and starts; children only where strace works."""
    python = str(place.venv(subject.tool) / "bin" / "python")
    _call((python, "-c", COUNT_MODULES, *subject.argv), subject, place)
    modules = re.findall(r"^modules loaded: (\d+)$", place.log.read_text(), re.MULTILINE)
    return Count(modules=int(modules[-1]), children=_children(subject, place))


def _children(subject: Subject, place: Workspace) -> int | None:
    strace = shutil.which("strace")
    if strace is None:
        return None
    with tempfile.TemporaryDirectory(dir=place.state) as folder:
        follow = (strace, "-ff", "--seccomp-bpf", "-e", "trace=%process", "-o", f"{folder}/trace")
        try:
            _call((*follow, *subject.argv), subject, place)
        except CommandFailed:  # it has worked without strace, which many containers forbid
            return None
        traces = [path.read_text() for path in Path(folder).iterdir()]
    return sum(len(FORKED.findall(trace)) for trace in traces)


def _sample(subject: Subject, place: Workspace) -> Sample:
    with subject.around():
        return _call(subject.argv, subject, place)


def _call(argv: Sequence[str], subject: Subject, place: Workspace) -> Sample:
    environ = place.environ(subject.tool)
    with open(place.log, "wb") as told:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=subject.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = place.log.read_text(errors="replace")[-2000:]
        raise CommandFailed(f"{subject.name} ended with {process.returncode}:\n{end}")
    return Sample(cpu=(usage.ru_utime + usage.ru_stime) * 1000, wall=wall * 1000)

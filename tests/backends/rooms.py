"""Rooms for confined jobs, and the means of this machine to keep them in."""

import os
import shutil
import sys

import pytest
from backends.jobs import FOLDER, SHAPE, Output, marked

from repro.backends.local import Local
from repro.backends.sandbox import probe, surroundings
from repro.backends.sandbox.means import Available
from repro.ports import Confinement
from repro.value import replace

PROGRAM = shutil.which("bwrap") or ""
PYTHON = os.path.realpath(sys.executable)
ROOMS = ("work", "home", "tmp")


def need(name, level="hermetic"):
    """Skip where the machine lacks these means, but not in CI, which has them all."""
    reason = probe.attempt(name, level, PROGRAM)
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{name}: {reason}")
    if reason:
        pytest.skip(f"{name}: {reason}; `apt-get install bubblewrap`, or allow user namespaces")


def made(place):
    """Make the folders of a room."""
    for name in ROOMS:
        (place / name).mkdir(parents=True)
    return place


def backend(name, *levels):
    return Local(
        Available(means=dict.fromkeys(levels or ("mounts", "hermetic"), name), program=PROGRAM)
    )


def confined(job, room, level="mounts", **changes):
    """Put a job into a room; Python and the shapes can be read."""
    writable = tuple(str(room / name) for name in ROOMS)
    readable = (*surroundings.of_environment([os.path.dirname(PYTHON)]), (FOLDER, FOLDER))
    confinement = Confinement(
        level=level,
        writable=writable,
        temporary=writable[2],
        readable=readable,
        **changes,
    )
    variables = {**job.variables, "HOME": writable[1], "TMPDIR": writable[2]}
    return replace(job, folder=writable[0], variables=variables, confinement=confinement)


def run_by(name, job):
    output = Output()
    return backend(name).submit(job, output).wait(), output


def shape(name, *words, **changes):
    return marked(PYTHON, "-I", "-S", SHAPE, name, *words, **changes)

"""How a confined job is started: the means that this machine has for a level, and its orders."""

from __future__ import annotations

import errno
import os
from functools import cache

from repro.backends.sandbox import plan
from repro.errors import Unsupported
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.backends.sandbox.plan import View
    from repro.ports import Confinement, Job

LEVELS = ("none", "mounts", "hermetic")
MEANS = ("bubblewrap", "namespaces", "landlock")
"""From the one that is preferred to the last resort."""


class Available(Value):
    """What this machine can do: the means for each level that it has, and why not the others.

    `program` is bubblewrap's path, empty where there is none.
    """

    means: Mapping[str, str] = {}
    reasons: Mapping[str, str] = {}
    program: str = ""

    @property
    def best(self) -> str:
        """Give the strictest level that leaves the network: `mounts`, or `none`."""
        return "mounts" if "mounts" in self.means else "none"

    def means_for(self, level: str) -> str:
        """Give the means for a level, nothing for `none`. Raises Unsupported where it has none."""
        if level == "none":
            return ""
        if level in self.means:
            return self.means[level]
        if level not in LEVELS:
            known = ", ".join(LEVELS)
            raise Unsupported(f"no sandbox level `{level}`", hints=[f"levels: {known}"])
        raise Unsupported(
            f"the sandbox level `{level}` is not available on this machine",
            hints=[f"{name}: {self.reasons[name]}" for name in MEANS if name in self.reasons],
        )


class Start(Value):
    """How the supervisor starts a command: the means, and its orders as plain data."""

    means: str
    orders: Mapping[str, Any]


def wrap(job: Job, available: Available) -> Start | None:
    """Say how to start a job under its confinement, None where it has none.

    Raises Unsupported where the machine cannot keep it, or the means cannot.
    """
    confinement = job.confinement
    level = confinement.level
    if level == "mounts" and not plan.reaches_network(confinement):
        level = "hermetic"
    name = available.means_for(level)
    if not name:
        return None
    if name == "landlock" and any(host != inside for host, inside in confinement.readable):
        raise Unsupported(
            "something is to be shown in another place, which Landlock cannot do",
            hints=["declare it under its own path", "or install bubblewrap"],
        )
    seen = view(confinement)
    return Start(
        means=name,
        orders={
            "shown": [[_bytewise(word) for word in thing] for thing in seen.shown],
            "network": seen.network,
            "port": seen.port,
            "folder": _bytewise(job.folder),
            "program": _bytewise(available.program),
            "refusal": _refusal(job, seen) if name == "bubblewrap" else 0,
        },
    )


def _refusal(job: Job, seen: View) -> int:
    """Give the error number that executing a command would end with, as far as one can see."""
    name = job.argv[0]
    path = job.variables.get("PATH", os.defpath).split(":")
    places = [name] if "/" in name else [os.path.join(place, name) for place in path]
    found = 0
    for place in places:
        original = seen.original(os.path.join(job.folder, place))
        real = os.path.realpath(original) if original else ""
        if not real or not os.path.isfile(real) or seen.original(real) is None:
            continue
        if os.access(real, os.X_OK):
            return 0
        found = errno.EACCES
    return found or errno.ENOENT


def view(confinement: Confinement) -> View:
    """Give what a confined step sees on this machine."""
    machine = _system(network=plan.reaches_network(confinement))
    return plan.view(confinement, machine, _look)


@cache
def _system(*, network: bool) -> tuple[plan.Thing, ...]:
    return plan.system(_look, network=network)


def _look(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return "" if os.path.lexists(path) else None


def _bytewise(text: str) -> str:
    """Write each byte as a character: not all paths are UTF-8."""
    return os.fsencode(text).decode("latin-1")

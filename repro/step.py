"""What a step is, for the purpose of doing it once: its fields, and the key over them."""

from __future__ import annotations

from repro import digest
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.params import Argument

KEY_FORMAT = 1
"""Raised when the meaning of a field changes; every earlier result is then a miss."""

SETTINGS = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
    "SOURCE_DATE_EPOCH": "315532800",
    "TZ": "UTC",
}
"""Set for every step, so that a result does not depend on who ran it. Part of KEY_FORMAT."""


class Step(Value):
    """One execution of an entry point, complete. All that can change its result is in the key.

    `command` is the template, not the expansion: what reaches the placeholders is in
    `arguments`. `inputs` is the manifest digest of the files it sees, those among them that the
    steps before it made. `variables` are the declared ones, those taken from the caller
    among them; `secrets` are names only. `mounts` are (target, identity). `container` are the
    caller's options for the container engine. The level of the sandbox is not part of a step: it
    belongs to a result, see `engine.look_up`.
    """

    entry_point: str  # a label: not in the key
    command: str
    arguments: tuple[Argument, ...]
    inputs: str
    environment: str
    platform: str
    variables: Mapping[str, str] = {}
    unset: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    outputs: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    container: Mapping[str, str | None] = {}
    network: bool = True
    shell: str = ""


def parts(step: Step) -> dict[str, Any]:
    """Give the fields that the key is made of, as plain data, each under its name.

    This is kept with every result: the difference between two of them is the reason of a miss.
    """
    return {
        "command": step.command,
        "parameters": [[a.name, a.kind, _identity(a)] for a in step.arguments],
        "inputs": step.inputs,
        "environment": step.environment,
        "platform": step.platform,
        "variables": dict(step.variables),
        "unset": list(step.unset),
        "secrets": list(step.secrets),
        "outputs": None if step.outputs is None else list(step.outputs),
        "metrics": list(step.metrics),
        "mounts": [list(mount) for mount in step.mounts],
        "container": dict(step.container),
        "network": step.network,
        "shell": step.shell,
    }


def key_of(step: Step) -> str:
    """Give the step key: SHA-256 over the canonical encoding of its parts.

    Not in it, on purpose: the entry point's name, descriptions, time, host, user, backend, level
    of the sandbox, retries, timeouts, and the commit, of which only the tree counts.
    """
    return key_of_parts(parts(step))


def key_of_parts(given: Mapping[str, Any]) -> str:
    """Give the key of parts that were kept, to check that they belong to it."""
    return digest.of_value("repro/step", [KEY_FORMAT, dict(given)])


def _identity(argument: Argument) -> str | None:
    return argument.text if argument.identity is None else argument.identity

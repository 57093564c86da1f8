"""A job as Slurm takes it: the settings, and the script that they make. Nothing is asked here."""

from __future__ import annotations

import os
import shlex

from repro import quantity
from repro.backends import configuration
from repro.errors import UsageError
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.ports import Job

    Directive = tuple[str, str | None]

SCHEMA = "backend-slurm"
OUTPUT = "slurm.out"
MINUTE_MS = 60_000
SPARE_MINUTES = 10
"""What a time limit that follows from a step's own leaves for its inputs and outputs."""

SETTINGS = {
    "account": "account",
    "constraint": "constraint",
    "cpus-per-task": "cpus",
    "gpus": "gpus",
    "mem": "memory",
    "no-requeue": "requeue",
    "partition": "partition",
    "qos": "qos",
    "requeue": "requeue",
    "time": "time",
}
OURS = frozenset(
    [
        "array",
        "batch",
        "chdir",
        "clusters",
        "comment",
        "error",
        "export",
        "export-file",
        "get-user-env",
        "gid",
        "help",
        "ignore-pbs",
        "input",
        "job-name",
        "kill-on-invalid-dep",
        "open-mode",
        "output",
        "parsable",
        "quiet",
        "test-only",
        "uid",
        "usage",
        "verbose",
        "version",
        "wait",
        "wait-all-nodes",
        "wrap",
    ]
)
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "SLURM_CONF", "SLURM_JWT")
DEFAULTS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_GPUS": "gpus",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_NO_REQUEUE": "requeue",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_TIMELIMIT": "time",
}
"""Variables in which people keep defaults: sbatch would put them above what a script says."""


class Settings(Value):
    """The settings of the backend, as `schemas/backend-slurm.schema.json` describes them.

    Sizes are in bytes, `poll` and `patience` in seconds; what is empty or 0 is unsaid.
    """

    shared_folder: str = ""
    scratch: str = ""
    python: str = "python3"
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = ""
    cpus: int = 0
    memory: int = 0
    gpus: str = ""
    requeue: bool | None = None
    array: int = 500
    concurrent: int = 0
    advertise: str = ""
    poll: float = 10.0
    patience: float = 600.0
    options: tuple[Directive, ...] = ()


def settings(given: Mapping[str, Any] | str | None) -> Settings:
    """Read the settings: a mapping, the path of a JSON or YAML file, or JSON text.

    Raises ProjectInvalid with every mistake, and UsageError for options that are ours to give.
    """
    found = configuration.read(given, SCHEMA)
    options = found.pop("options", {})
    for name in options:
        if name in OURS:
            raise UsageError(f"repro itself gives sbatch the option `{name}`")
        if name in SETTINGS:
            raise UsageError(
                f"the option `{name}` has a setting of its own",
                hints=[f"write `{SETTINGS[name]}:` beside `options:`"],
            )
    for name in ("time", "gpus"):
        if name in found:
            found[name] = str(found[name])
    if "memory" in found:
        found["memory"] = quantity.size(found["memory"])
    pairs = ((n, None if v is True else str(v)) for n, v in options.items() if v is not False)
    return Settings(**found, options=tuple(sorted(pairs)))


def named(text: str) -> str:
    """Give a name that no other job has, by which one can be found."""
    return f"repro-{text}-{os.urandom(4).hex()}"


def directives(given: Settings, job: Job) -> tuple[Directive, ...]:
    """Give what sbatch is told about a job's needs; those of its step come first."""
    asked = job.resources
    memory = asked.memory or given.memory
    found: dict[str, str | None] = {
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": str(asked.cpus or given.cpus or ""),
        "mem": f"{-(-memory // 1024)}K" if memory else "",
        "gpus": str(asked.gpus or given.gpus or ""),
        "time": given.time or _limit(job),
        "partition": given.partition,
        "account": given.account,
        "qos": given.qos,
        "constraint": given.constraint,
    }
    if given.requeue is not None:
        found["requeue" if given.requeue else "no-requeue"] = None
    found |= dict(given.options)
    return tuple((name, value) for name, value in found.items() if value != "")


def _limit(job: Job) -> str:
    if not job.timeout_ms:
        return ""
    return str(-(-(job.timeout_ms + job.grace_ms) // MINUTE_MS) + SPARE_MINUTES)


def script(
    name: str,
    needs: tuple[Directive, ...],
    folder: str,
    command: tuple[str, str, str],
    array: str = "",
) -> bytes:
    """Write the script of a job, or of an array of jobs.

    `command` is an interpreter, the agent and a specification, of which an array has one for
    each task, in a folder of that number.
    """
    output = "%a.out" if array else OUTPUT
    told: list[Directive] = [("job-name", name), ("chdir", folder), ("output", output)]
    told += [("open-mode", "append"), *([("array", array)] if array else []), *needs]
    python, agent, spec = command
    last = shlex.quote(spec)
    if array:
        base, file = os.path.split(spec)
        last = f'{shlex.quote(base + "/")}"$SLURM_ARRAY_TASK_ID"/{shlex.quote(file)}'
    lines = ["#!/bin/sh", *(f"#SBATCH {_written(*pair)}" for pair in told)]
    lines.append(f"exec {shlex.quote(python)} {shlex.quote(agent)} {last}")
    return os.fsencode("\n".join(lines) + "\n")


def _written(name: str, value: str | None) -> str:
    """Write an option as sbatch reads it: blanks, quotes and `#` count outside of quotes."""
    if value is None:
        return f"--{name}"
    if not value.isprintable():
        raise UsageError(f"sbatch can be given no control character, as in {value[:60]!a}")
    if all(char.isalnum() or char in "-_./:,%=+@&|*[]()" for char in value):
        return f"--{name}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'--{name}="{escaped}"'


def variables(environ: Mapping[str, str], needs: tuple[Directive, ...] = ()) -> dict[str, str]:
    """Give the variables for Slurm's commands: none that could outdo `needs` or reach a job."""
    told = {name.removeprefix("no-") for name, _ in needs}
    wanted = {*KEPT, *(variable for variable, name in DEFAULTS.items() if name not in told)}
    return {n: v for n, v in environ.items() if n in wanted} | {"LC_ALL": "C"}

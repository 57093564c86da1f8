"""What is remembered of a run, whatever became of it."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SCHEMA = "repro.run/1"

RUNNING = "RUNNING"
FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"
SETTLED = (FINISHED, FAILED, KILLED)


class RunRecord(Value):
    """One run. Never holds a secret: its value is `***` here and an HMAC in `parts`.

    `project` names the project wherever it is run from: a folder, or a remote without
    credentials. `parameters` are (name, text, origin). `cached` runs executed nothing and give
    the run whose result they reused in `origin_run`. `reason` says why it was executed. `parts`
    are the key parts of an executed run. `verifies` is the run whose result an execution was to
    make again; its own is no result that any other run could reuse. `metrics` are the last values,
    as text. Times are nanoseconds since 1970 UTC or durations.
    """

    run_id: str
    status: str
    project: str
    entry_point: str
    started_ns: int
    ended_ns: int = 0
    key: str = ""
    cached: bool = False
    origin_run: str = ""
    reason: str = ""
    verifies: str = ""
    parts: Mapping[str, Any] = {}
    command: str = ""
    parameters: tuple[tuple[str, str, str], ...] = ()
    uri: str = ""
    version: str = ""
    commit: str = ""
    branch: str = ""
    repo_url: str = ""
    dirty: bool = False
    patch: str = ""
    tree: str = ""
    environment: str = ""
    environment_kind: str = ""
    backend: str = "local"
    sandbox: str = "none"
    means: str = ""
    reads: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    exit_code: int | None = None
    cause: str = ""
    wall_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    peak_bytes: int = 0
    metrics: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    logged: Mapping[str, str] = {}
    outputs: str = ""
    artifacts: str = ""
    log: str = ""
    log_size: int = 0
    run_name: str = ""
    experiment: str = ""
    parent_run: str = ""
    tracking: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    error: str = ""


def plain(record: RunRecord) -> dict[str, Any]:
    """Give the record as the data that is kept and shown, with its schema first."""
    return {"schema": SCHEMA, **{name: getattr(record, name) for name in record.__fields__}}


def of_plain(data: Mapping[str, Any]) -> RunRecord:
    """Read what `plain` gave; fields of a later version are left out."""
    known = {name: data[name] for name in RunRecord.__fields__ if name in data}
    for name in ("reads", "hosts"):
        if known.get(name) is not None:
            known[name] = tuple(known[name])
    for name in ("parameters", "notes"):
        rows = known.get(name, ())
        known[name] = tuple(tuple(row) if isinstance(row, list) else row for row in rows)
    return RunRecord(**known)

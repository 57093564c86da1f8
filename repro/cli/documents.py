"""Records as the JSON documents that programs read; their schemas are in `schemas/`."""

from __future__ import annotations

import math
from datetime import UTC, datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.explain import Reason
    from repro.foresight import Explanation, StepState
    from repro.manifest import Entry
    from repro.record import RunRecord

SCALE = 1_000_000_000


def run(record: RunRecord) -> dict[str, Any]:
    """Give a run as `repro.run/1`."""
    return {
        "schema": "repro.run/1",
        "run_id": record.run_id,
        "status": record.status,
        "entry_point": record.entry_point,
        "key": record.key,
        "cached": record.cached,
        "origin_run": record.origin_run or None,
        "reason": record.reason,
        "verifies": record.verifies or None,
        "command": record.command,
        "parameters": [
            {"name": name, "value": text, "origin": origin}
            for name, text, origin in record.parameters
        ],
        "metrics": {name: number(text) for name, text in record.metrics.items()},
        "tags": dict(record.tags),
        "logged_parameters": dict(record.logged),
        "source": {
            "project": record.project,
            "uri": record.uri,
            "version": record.version or None,
            "commit": record.commit or None,
            "branch": record.branch or None,
            "repo_url": record.repo_url or None,
            "dirty": record.dirty,
            "patch": record.patch or None,
            "tree": record.tree,
        },
        "environment": {"digest": record.environment, "kind": record.environment_kind},
        "backend": record.backend,
        "sandbox": record.sandbox,
        "started": time(record.started_ns),
        "ended": time(record.ended_ns) if record.ended_ns else None,
        "exit_code": record.exit_code,
        "cause": record.cause or None,
        "wall_seconds": record.wall_ns / SCALE,
        "user_seconds": record.user_ns / SCALE,
        "system_seconds": record.system_ns / SCALE,
        "peak_bytes": record.peak_bytes,
        "outputs": record.outputs or None,
        "artifacts": record.artifacts or None,
        "log": record.log or None,
        "log_bytes": record.log_size,
        "run_name": record.run_name or None,
        "experiment": record.experiment or None,
        "parent_run": record.parent_run or None,
        "tracking": dict(record.tracking),
        "notes": list(record.notes),
        "error": record.error or None,
    }


def log(records: list[RunRecord]) -> dict[str, Any]:
    """Give a table of runs as `repro.log/1`."""
    return {"schema": "repro.log/1", "runs": [run(record) for record in records]}


def outputs(record: RunRecord, entries: tuple[Entry, ...]) -> dict[str, Any]:
    """Give the outputs of a run as `repro.outputs/1`."""
    return {
        "schema": "repro.outputs/1",
        "run_id": record.run_id,
        "outputs": [
            {
                "path": e.path,
                "kind": e.kind,
                "sha256": e.content if e.kind in ("file", "exec") else None,
                "target": e.content if e.kind == "link" else None,
                "size": e.size,
            }
            for e in entries
        ],
    }


def why(told: Explanation) -> dict[str, Any]:
    """Give what would happen to a step, and why, as `repro.why/1`."""
    return {
        "schema": "repro.why/1",
        "entry_point": told.entry_point,
        "key": told.key,
        "decision": told.state,
        "reused_run": told.reused_run or None,
        "summary": told.summary,
        "commits": told.commits or None,
        "reasons": reasons(told.reasons),
    }


def plan(told: tuple[Explanation, ...]) -> dict[str, Any]:
    """Give what would happen to the steps of a run, in their order, as `repro.plan/1`."""
    return {
        "schema": "repro.plan/1",
        "steps": [
            {
                "step": one.step,
                "entry_point": one.entry_point,
                "needs": list(one.needs),
                "state": one.state,
                "key": one.key or None,
                "reused_run": one.reused_run or None,
                "summary": one.summary,
                "reasons": reasons(one.reasons),
            }
            for one in told
        ],
    }


def why_of_run(record: RunRecord) -> dict[str, Any]:
    """Give why a run of the past ran, as `repro.why/1`."""
    return {
        "schema": "repro.why/1",
        "entry_point": record.entry_point,
        "key": record.key,
        "decision": "hit" if record.cached else "run",
        "reused_run": record.origin_run or None,
        "summary": record.reason or f"reused run {record.origin_run}",
        "commits": None,
        "reasons": [],
    }


def reasons(found: tuple[Reason, ...]) -> list[dict[str, Any]]:
    """Give what differs, one row each."""
    return [
        {
            "part": r.part,
            "name": r.name or None,
            "before": r.before or None,
            "after": r.after or None,
            "lines": None if r.lines is None else {"added": r.lines[0], "removed": r.lines[1]},
        }
        for r in found
    ]


def status(project: str, found: tuple[StepState, ...]) -> dict[str, Any]:
    """Give the state of a project's steps as `repro.status/1`."""
    return {
        "schema": "repro.status/1",
        "project": project,
        "steps": [
            {
                "entry_point": s.entry_point,
                "state": s.state,
                "reason": s.reason or None,
                "last_run": s.last_run or None,
                "last": time(s.last_ns) if s.last_ns else None,
            }
            for s in found
        ],
    }


def number(text: str) -> float | str:
    """Give a metric as a number; JSON has none for nan and the infinities, which stay text."""
    value = float(text)
    return value if math.isfinite(value) else text


def time(ns: int) -> str:
    """Write a time as RFC 3339 in UTC."""
    moment = datetime.fromtimestamp(ns / SCALE, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

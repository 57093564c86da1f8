"""Where a result came from, as an in-toto Statement v1 with a SLSA v1 provenance predicate.

Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json

from repro import __version__
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.lock import EnvironmentLock
    from repro.manifest import Entry
    from repro.record import RunRecord

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://repro-projects.dev/provenance/step/v1"
BUILDER = "https://repro-projects.dev/builder"
MEDIA_TYPE = "application/vnd.in-toto+json"


class Made(Value):
    """What came out of an execution, and out of what: the subject of a statement.

    `outputs` and `artifacts` are the files that it made and that it logged through MLflow.
    """

    run: RunRecord
    parts: Mapping[str, Any]
    outputs: tuple[Entry, ...]
    artifacts: tuple[Entry, ...]
    lock: EnvironmentLock


def statement(made: Made) -> dict[str, Any]:
    """Give the statement about one execution. Secrets are in it as keyed digests only."""
    run = made.run
    return {
        "_type": STATEMENT,
        "subject": _subjects(made),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "project": run.uri,
                    "version": run.version,
                    "entryPoint": run.entry_point,
                    "parameters": {name: text for name, text, _origin in run.parameters},
                },
                "internalParameters": {
                    "key": run.key,
                    "parts": dict(made.parts),
                    "sandbox": run.sandbox,
                    "backend": run.backend,
                },
                "resolvedDependencies": _dependencies(made),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"repro": __version__}},
                "metadata": {
                    "invocationId": run.run_id,
                    "startedOn": _time(run.started_ns),
                    "finishedOn": _time(run.ended_ns),
                },
                "byproducts": [{"name": "log", "digest": {"sha256": run.log}}] if run.log else [],
            },
        },
    }


def encode(found: Mapping[str, Any]) -> bytes:
    """Give a statement as JSON, with sorted names: equal statements are equal bytes."""
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode()


def faults(data: bytes, key: str, outputs: Iterable[Entry]) -> tuple[str, ...]:
    """Say what keeps a statement from being one about the result of `key` with these outputs."""
    try:
        found = json.loads(data)
        definition = found["predicate"]["buildDefinition"]
        named = {s["name"]: s["digest"]["sha256"] for s in found["subject"]}
        told = definition["internalParameters"]["key"]
        kinds = (found["_type"], found["predicateType"])
    except (ValueError, KeyError, TypeError):
        return ("it is no in-toto statement with a provenance",)
    problems = []
    if kinds != (STATEMENT, PREDICATE):
        problems.append("it is of another type")
    if told != key:
        problems.append(f"it is about the key {str(told)[:12]}")
    files = {e.path: e.content for e in outputs if e.kind in ("file", "exec")}
    wrong = sorted(path for path, content in files.items() if named.get(path) != content)
    if wrong:
        problems.append(f"it does not name `{wrong[0]}` with its content")
    return tuple(problems)


def _subjects(made: Made) -> list[dict[str, Any]]:
    pairs = [("", e) for e in made.outputs] + [("mlflow-artifacts/", e) for e in made.artifacts]
    return [
        {"name": prefix + e.path, "digest": {"sha256": e.content}}
        for prefix, e in pairs
        if e.kind in ("file", "exec")
    ]


def _dependencies(made: Made) -> list[dict[str, Any]]:
    run = made.run
    found: list[dict[str, Any]] = []
    if run.commit:
        place = run.repo_url or run.uri
        found.append({"name": "source", "uri": f"git+{place}", "digest": {"gitCommit": run.commit}})
    found.append(
        {
            "name": "tree",
            "digest": {"sha256": run.tree},
            "annotations": {"dirty": run.dirty, "patch": run.patch},
        }
    )
    found.append({"name": "inputs", "digest": {"sha256": str(made.parts.get("inputs", ""))}})
    found.append(
        {
            "name": "environment",
            "digest": {"sha256": made.lock.digest},
            "annotations": {"kind": made.lock.kind, "python": str(made.lock.interpreter)},
        }
    )
    if made.lock.image is not None:
        algorithm, _, value = made.lock.image.id.partition(":")
        found.append({"name": made.lock.image.reference, "digest": {algorithm: value}})
    for one in made.lock.artifacts:
        kind = {"conda": "conda"}.get(one.kind, "pypi")
        algorithm = "gitCommit" if one.kind == "vcs" else "sha256"
        found.append(
            {"uri": f"pkg:{kind}/{one.name}@{one.version}", "digest": {algorithm: one.digest}}
        )
    return found


def _time(ns: int) -> str:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(ns / 1_000_000_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""What a result from elsewhere must look like before anything of it is believed."""

from __future__ import annotations

import os
import re

from repro import digest, manifest, provenance, runlog, value
from repro.ports import ChildRun
from repro.remote.port import Unfit
from repro.store.home import Home
from repro.store.results import Results
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.manifest import Entry
    from repro.store.results import Result

DIGESTS = ("outputs", "artifacts", "log")
NUMBERS = ("log_size", "ended_ns", "wall_ns", "user_ns", "system_ns", "peak_bytes")
LIMIT = 2**63
DEPTH = 32
RUN_ID = re.compile(r"[0-9a-f]{32}")
METRIC = (str, str, int, int)
FOREIGN = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
"""What plain data of an unexpected shape makes a reader raise."""


def result_of(key: str, record: bytes, scratch: str) -> Result:
    """Read a record as the store reads its own, and check all that the store takes for granted.

    `scratch` is a folder for a moment. Raises Unfit: for a record that is damaged, for one whose
    parts do not give its key, and for one with fields of other types than ours have.
    """
    place = Results(Home(os.path.join(scratch, f"record-{os.urandom(8).hex()}")))
    try:
        os.makedirs(os.path.dirname(place.path(key)))
        files.replace(place.path(key), record, durable=False)
        result = place.get(key)
        fault = "it is damaged, or of another key" if result is None else fault_of(result)
    except FOREIGN:
        result, fault = None, "it has another shape"
    finally:
        files.remove_tree(place.home.root)
    if result is None or fault:
        raise Unfit(f"the result {key[:12]} is refused: {fault}")
    return result


def fault_of(result: Result) -> str:
    """Say what of a result is not as ours are, or nothing."""
    bad = [name for name in DIGESTS if not digest.is_digest(getattr(result, name))]
    bad += [name for name in NUMBERS if not _is_count(getattr(result, name))]
    checks = {
        "key": digest.is_digest(result.key),
        "run_id": isinstance(result.run_id, str) and RUN_ID.fullmatch(result.run_id),
        "exit_code": result.exit_code == 0,
        "metrics": all(_is_metric(row) for row in result.metrics),
        "parameters": _are_texts(result.parameters),
        "tags": _are_texts(result.tags),
        "datasets": all(isinstance(row, dict) for row in result.datasets),
        "children": all(_is_child(child) for child in result.children),
        "origin": isinstance(result.origin, dict),
        # to judge it, the projects that it asked for would have to be fetched, wherever they are
        "calls": not result.calls,
    }
    for name in ("parts", "origin", "datasets", "children"):
        checks[name] = checks.get(name, True) and _is_plain(getattr(result, name), DEPTH)
    bad += [name for name, good in checks.items() if not good]
    return f"`{bad[0]}` is not what it should be" if bad else ""


def _is_plain(data: Any, depth: int) -> bool:
    """Say whether data can be written again: no number of ours is so large, no nesting so deep."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in data)
    return not isinstance(data, int) or -LIMIT <= data < LIMIT


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < LIMIT


def _is_metric(row: Any) -> bool:
    if len(row) != len(METRIC) or any(type(v) is not t for v, t in zip(row, METRIC, strict=True)):
        return False
    float(row[1])
    return all(-LIMIT <= number < LIMIT for number in row[2:])


def _are_texts(given: Any) -> bool:
    return isinstance(given, dict) and all(
        isinstance(name, str) and isinstance(text, str) for name, text in given.items()
    )


def _is_child(plain: Any) -> bool:
    child = value.load(plain, {"ChildRun": ChildRun})
    return (
        isinstance(child, ChildRun)
        and digest.is_digest(child.artifacts)
        and all(isinstance(text, str) for text in (child.name, child.status))
        and type(child.parent) is int
        and all(_is_count(number) for number in (child.started_ms, child.ended_ms))
        and all(_is_metric(row) for row in child.metrics)
        and _are_texts(child.parameters)
        and _are_texts(child.tags)
        and all(isinstance(row, dict) for row in child.datasets)
    )


def entries_of(data: bytes) -> tuple[Entry, ...]:
    """Read a manifest from elsewhere. Raises Unfit for one that no step of ours could have made.

    That is one with paths that leave the tree, or that reach into `.git`, where a file is code.
    """
    try:
        entries = manifest.decode(data)
    except FOREIGN as error:
        raise Unfit(f"a list of files is refused: {str(error)[:80]}") from None
    sizes: dict[str, int] = {}
    for entry in entries:
        if not _is_count(entry.size):
            raise Unfit("a list of files is refused: a size is no number")
        if any(part.lower() == ".git" for part in entry.path.split("/")):
            raise Unfit(f"a list of files is refused: {entry.path!r} is a file of Git")
        if sizes.setdefault(entry.content, entry.size) != entry.size:
            raise Unfit("a list of files is refused: one file has two sizes")
    if manifest.clash(entries):
        raise Unfit("a list of files is refused: a file stands where a folder is")
    return entries


def check_declared(parts: Mapping[str, Any], entries: tuple[Entry, ...]) -> None:
    """Raise Unfit for outputs that the step does not declare; `parts` must be our own."""
    declared = parts.get("outputs")
    if declared is None:
        return
    is_declared = manifest.matcher(declared)
    for entry in entries:
        if not is_declared(entry.path):
            raise Unfit(f"{entry.path!r} is no output that the step declares")


def check_statement(data: bytes, key: str, outputs: bytes) -> None:
    """Raise Unfit for an attestation that is not about the result of `key` with its outputs."""
    faults = provenance.faults(data, key, entries_of(outputs))
    if faults:
        raise Unfit(f"the attestation is refused: {faults[0]}")


def check_log(data: bytes) -> None:
    """Raise Unfit for what is no log."""
    try:
        good = all(
            type(ms) is int and stream in ("stdout", "stderr")
            for ms, stream, _text in runlog.pieces(data)
        )
    except FOREIGN:
        good = False
    if not good:
        raise Unfit("the log is refused: it is none")

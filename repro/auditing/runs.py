"""What the history and the store tell of a project's steps."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from repro import digest, manifest, provenance
from repro.audit.facts import Provenance as Checked
from repro.audit.facts import StepHistory
from repro.errors import RunUnknown
from repro.record import FINISHED
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repro.auditing.installed import Installed
    from repro.machine import Machine
    from repro.record import RunRecord
    from repro.store.results import Result
    from repro.verification.verdict import Verdict

NOT_KEPT = "not kept, since `outputs:` does not name them: "
"""How the note of a run begins that made files beside its outputs."""

MORE = " and "
RECENT = 50
ALTERING = ("changed", "extra")


def history(
    machine: Machine, project: str, steps: Iterable[str], seen: Iterable[Installed]
) -> tuple[StepHistory, ...]:
    """Give what is known of steps; `seen` are the environments that were inspected."""
    found = {one.digest: one for one in seen}
    return tuple(_step(machine, project, step, found) for step in steps)


def _step(machine: Machine, project: str, step: str, seen: dict[str, Installed]) -> StepHistory:
    last = _last(machine, project, step)
    if last is None:
        return StepHistory(step=step)
    made = _executed(machine, last)
    there = seen.get(last.environment)
    verdict = _verdict(machine, last.key)
    return StepHistory(
        step=step,
        last_good=made.run_id,
        environment=last.environment,
        verified=_date(verdict.at_ns) if verdict else "",
        differed=verdict.differed if verdict and not verdict.good else (),
        made=tuple(_made(made)),
        altered=tuple(_altered(made, there)) if there else None,
    )


def _last(machine: Machine, project: str, step: str) -> RunRecord | None:
    """Give the last run that succeeded, other than to verify an earlier one."""
    found = machine.history.find(project=project, entry_point=step, status=FINISHED, limit=RECENT)
    return next((run for run in found if not run.verifies), None)


def _executed(machine: Machine, last: RunRecord) -> RunRecord:
    """Give the run that executed the command, as long as it is remembered."""
    try:
        return machine.history.get(last.origin_run) if last.origin_run else last
    except RunUnknown:
        return last


def _verdict(machine: Machine, key: str) -> Verdict | None:
    """Give the last verification of a result that came to an end."""
    from repro.store.verdicts import Verdicts

    found = Verdicts(machine.history.root).get(key)
    return next((one for one in found if one.good or one.differed), None)


def _date(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).date().isoformat()


def _made(record: RunRecord) -> Iterator[str]:
    """Give the files that a run made beside its outputs, as far as its note names them."""
    for note in record.notes:
        if note.startswith(NOT_KEPT):
            yield from note.removeprefix(NOT_KEPT).partition(MORE)[0].split(", ")


def _altered(record: RunRecord, there: Installed) -> Iterator[str]:
    """Give the files of an environment that were written while a run was in it."""
    for one in there.prefix.found:
        if one.kind not in ALTERING:
            continue
        try:
            when = os.lstat(os.path.join(there.prefix.path, one.path)).st_ctime_ns
        except OSError:
            continue
        if record.started_ns <= when <= record.ended_ns:
            yield one.path


# -- provenance


def provenance_checks(
    machine: Machine, project: str, steps: Iterable[str]
) -> tuple[Checked, ...] | None:
    """Check the statements about the last results of steps, and the signatures on these results.

    None where no result with a statement is in the store.
    """
    runs = (_last(machine, project, step) for step in steps)
    results = {run.key: machine.results.get(run.key) for run in runs if run is not None}
    found = tuple(_checked(machine, one) for one in results.values() if one and one.provenance)
    return found or None


def _checked(machine: Machine, result: Result) -> Checked:
    return Checked(run=result.run_id, fault=next(_faults(machine, result), ""))


def _faults(machine: Machine, result: Result) -> Iterator[str]:
    from repro.store.blobs import BlobMissing

    try:
        statement = machine.blobs.get(result.provenance)
        outputs = manifest.decode(machine.blobs.get(result.outputs))
    except (BlobMissing, manifest.NotAManifest):
        yield "it is not in the store any more, or was damaged there"
        return
    yield from provenance.faults(statement, result.key, outputs)
    yield from _of_signature(machine, result.key)


def _of_signature(machine: Machine, key: str) -> Iterator[str]:
    """Check the signature that came with a result, where there is one and somebody counts."""
    from repro.remote import signing
    from repro.remote.port import RemoteFailed

    keys = signing.Signing(machine.environ, machine.home, machine.memos)
    record = files.read(machine.results.path(key)) or b""
    signature = machine.memos.get("signature", digest.of_bytes(record))
    if not keys.signers or not isinstance(signature, str):
        return
    try:
        trusted = keys.is_trusted(record, signature.encode())
    except RemoteFailed as error:
        yield f"the signature of its result cannot be checked: {error}"
        return
    if not trusted:
        yield "its result is signed by no key that counts"

"""The result of one step: fetched, finished, or made, by one process at a time."""

from __future__ import annotations

import time
from signal import SIGTERM

from repro import causes, engine, leftovers, plan
from repro.attempt import Attempt, Resumption
from repro.errors import Interrupted, UsageError
from repro.events import Missed, Progress
from repro.record import FINISHED, RunRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.engine import Prepared
    from repro.events import Emit
    from repro.system.files import Lock
    from repro.world import Machine

NOTHING = ""
PAUSE = 0.05


def execute(prepared: Prepared, reason: str, machine: Machine, emit: Emit) -> RunRecord:
    """Run a step, or wait for another process that runs the same one and reuse its result.

    Gives the record, also of a failed command. Raises ReproError where the step could not be
    run; Interrupted after a signal, with the run recorded as killed.
    """
    if prepared.key in machine.callers:
        raise UsageError(
            f"`{prepared.name}` calls itself, with the same parameters",
            hints=["a step that calls itself has to do so with others, and come to an end"],
        )
    key_lock = machine.home.lock(f"key-{prepared.key[:32]}")
    _wait_for(key_lock, prepared, machine, emit)
    try:
        answer = engine.look_up(prepared, machine)
        if answer.result is not None and reason == NOTHING:
            return engine.reuse(prepared, answer, machine, emit)
        found = _fetched(prepared, machine, emit) or _finished(prepared, machine, emit)
        if found is not None:
            return found
        reason = reason or causes.why(prepared, machine)
        emit(Missed(step=prepared.name, key=prepared.key, reason=reason))
        return Attempt(prepared, machine, emit, reason).run()
    finally:
        key_lock.free()


def _fetched(prepared: Prepared, machine: Machine, emit: Emit) -> RunRecord | None:
    """Reuse a result of the remote cache, if there is one that serves."""
    wanted = prepared.request.use_results and prepared.entry.cache
    if not wanted or machine.sharing is None:
        return None
    emit(Progress(step=prepared.name, text="looking in the remote cache"))
    if not machine.sharing.fetch_result(prepared.key):
        return None
    found, _reason = engine.answered(prepared, machine, emit)
    if found is None:
        machine.sharing.outdated(prepared.key)
    return found


def _finished(prepared: Prepared, machine: Machine, emit: Emit) -> RunRecord | None:
    """Wait for a job of this step that a process which is gone has left; reuse its result."""
    left = leftovers.of_step(prepared, machine)
    if left is None:
        return None
    emit(Progress(step=prepared.name, text=f"going on with run {left.run_id[:8]}, left behind"))
    done = resume(prepared, left, machine, emit)
    if done is None or done.status != FINISHED or not prepared.request.use_results:
        return None
    return engine.answered(prepared, machine, emit)[0]


def resume(prepared: Prepared, left: RunRecord, machine: Machine, emit: Emit) -> RunRecord | None:
    """Go on with a run whose process is gone and whose job is not; None where it is gone too.

    Gives the record, and raises, as `execute` does.
    """
    settings = plan.settings(prepared.request, prepared.backend)
    if not leftovers.has_job(left, machine, settings):
        leftovers.forget(left, machine)
        return None
    return Resumption(prepared, left, machine, emit).run()


def repeat(prepared: Prepared, reason: str, machine: Machine, emit: Emit) -> RunRecord:
    """Run a step again for the comparison: what comes of it is neither published nor placed.

    Gives the record and raises as `execute` does.
    """
    return Attempt(prepared, machine, emit, reason).run()


def _wait_for(key_lock: Lock, prepared: Prepared, machine: Machine, emit: Emit) -> None:
    """Take the lock of a key, while another process runs the step; give up when cancelled."""
    told = False
    while not key_lock.take(wait=False):
        if machine.cancelled:
            raise Interrupted("cancelled while another process ran the step", signal=SIGTERM)
        if not told:
            told = True
            holder = key_lock.holder()
            emit(Progress(step=prepared.name, text=f"waiting for {holder}, which runs it"))
        time.sleep(PAUSE)

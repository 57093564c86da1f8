"""A run whose process is gone, brought to its end by another one."""

from __future__ import annotations

from repro import execution, leftovers, plan, repeating
from repro.errors import UsageError
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.events import Emit
    from repro.record import RunRecord
    from repro.repeating import Recalling


def attach(prefix: str, machine: Recalling, emit: Emit, settings: Any = None) -> RunRecord:
    """Wait for the job of a run, deliver its output from the beginning, and record its end.

    `settings` are those of the backend where they are others than the run had. Raises RunUnknown,
    UsageError for a run that is not left behind or whose project has changed meanwhile, and
    what `execution.execute` raises.
    """
    run = machine.history.get(prefix)
    owner = machine.history.owner(run.run_id)
    if owner is not None:
        raise UsageError(
            f"run {run.run_id[:8]} is under way in process {owner[0]} on `{owner[1]}`",
            hints=["attach to it when that has ended, or follow it there"],
        )
    if run.backend not in plan.LASTING or not leftovers.is_left(run, machine):
        raise _nothing_left(run)
    known = leftovers.settings(run, machine) if settings is None else settings
    prepared = repeating.rebuild(run, machine, emit)
    prepared = replace(prepared, request=replace(prepared.request, run_id=run.run_id, config=known))
    done = execution.resume(prepared, run, machine, emit)
    if done is None:
        raise _nothing_left(run)
    return done


def _nothing_left(run: RunRecord) -> UsageError:
    short = run.run_id[:8]
    return UsageError(
        f"run {short} has left no job to attach to",
        hints=[f"`repro show {short}` says what became of it"],
    )

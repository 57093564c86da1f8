"""Why a step has to run: its key beside that of its last execution, in one line and in full."""

from __future__ import annotations

from repro import engine, explain, step
from repro.record import FINISHED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.engine import Prepared
    from repro.manifest import Entry
    from repro.world import Machine


def why(prepared: Prepared, machine: Machine) -> str:
    """Say in one line why a step has to run: what differs from its last run."""
    return explain.summary(reasons(prepared, machine)) or first_reason(prepared, machine)


def reasons(prepared: Prepared, machine: Machine) -> tuple[explain.Reason, ...]:
    """Give what differs from the last executed run of the same step."""
    earlier = machine.history.latest(prepared.source.project, prepared.entry.name)
    if earlier is None:
        return ()

    def tree(name: str) -> tuple[Entry, ...] | None:
        is_new = name == prepared.step.inputs  # and nothing of it is in the store yet
        return engine.inputs_of(prepared) if is_new else machine.tree_of(name)

    return explain.reasons(
        earlier.parts, step.parts(prepared.step), tree, machine.locks.of_environment
    )


def first_reason(prepared: Prepared, machine: Machine) -> str:
    """Say why a step runs whose key has not changed."""
    earlier = machine.history.latest(prepared.source.project, prepared.entry.name)
    if earlier is None:
        return f"first run of `{prepared.name}` in this project"
    if earlier.status == FINISHED:
        return f"the result of run {earlier.run_id[:8]} is not in the store any more"
    code = f" with exit code {earlier.exit_code}" if earlier.exit_code else ""
    return f"the last run, {earlier.run_id[:8]}, {earlier.status.lower()}{code}"

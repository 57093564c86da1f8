"""Runs whose process is gone while their job may go on: what is known of them, and where it is."""

from __future__ import annotations

import json
import os

from repro import plan
from repro.errors import RunUnknown
from repro.record import KILLED
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.engine import Prepared
    from repro.ports import Sink, SubmittedJob
    from repro.record import RunRecord
    from repro.world import Machine

NOTES = "notes.json"
MANY = 100


def note(folder: str, receiver: Mapping[str, str], settings: Any) -> None:
    """Keep in the private folder of a run what one who goes on with it needs to know.

    `receiver` are the variables by which its calls find us, `settings` those of the backend.
    """
    notes = json.dumps({"receiver": dict(receiver), "settings": settings})
    files.replace(os.path.join(folder, NOTES), notes.encode("ascii"), durable=False)


def noted(folder: str) -> Mapping[str, Any]:
    """Give what was noted, nothing where that was cut short."""
    try:
        found: dict[str, Any] = json.loads(files.read(os.path.join(folder, NOTES)) or b"{}")
    except ValueError:
        return {}
    return found


def of_step(prepared: Prepared, machine: Machine) -> RunRecord | None:
    """Give a run of the same step that was left behind."""
    if prepared.backend not in plan.LASTING:
        return None
    for run in machine.history.find(
        project=prepared.source.project, entry_point=prepared.entry.name, limit=MANY
    ):
        if (run.key, run.backend) == (prepared.key, prepared.backend) and is_left(run, machine):
            return run
    return None


def everything(machine: Machine) -> tuple[RunRecord, ...]:
    """Give all runs that were left behind, and that nobody goes on with."""
    place = machine.rooms(plan.LASTING[0])
    found = []
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
        try:
            run = machine.history.get(name)
        except RunUnknown:
            continue
        if is_left(run, machine):
            found.append(run)
    return tuple(found)


def is_left(run: RunRecord, machine: Machine) -> bool:
    """Say whether a run was left by its process, and not ended."""
    return (run.status, run.cause) == (KILLED, "lost") and os.path.isdir(folder(run, machine))


def folder(run: RunRecord, machine: Machine) -> str:
    """Give the private folder of a run on a backend whose jobs last."""
    return os.path.join(machine.rooms(run.backend), run.run_id[:16])


def forget(run: RunRecord, machine: Machine) -> None:
    """Remove what a run left on this machine."""
    machine.remove(folder(run, machine))


def settings(run: RunRecord, machine: Machine) -> Any:
    """Give the settings of the backend that a run was left on."""
    return noted(folder(run, machine)).get("settings")


def has_job(run: RunRecord, machine: Machine, given: Any = None) -> bool:
    """Say whether the job of a run may be there; `given` are settings, if not the noted ones."""
    return run.run_id in _place(run, machine, given).orphans()


def job(
    run: RunRecord, machine: Machine, sink: Sink | None = None, base: str = "", given: Any = None
) -> SubmittedJob | None:
    """Give the job of a run, as far as the backend still has it; see `ports.Lasting.find`."""
    if run.backend not in plan.LASTING:
        return None
    found: SubmittedJob | None = _place(run, machine, given).find(run.run_id, sink, base)
    return found


def _place(run: RunRecord, machine: Machine, given: Any) -> Any:
    known = settings(run, machine) if given is None else given
    return machine.backend(run.backend, config=known)

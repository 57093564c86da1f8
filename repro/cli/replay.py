"""The recorded output of a step, shown again when its result is reused."""

from __future__ import annotations

from repro.events import Output
from repro.store.blobs import BlobMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.api import SubmittedRun
    from repro.cli.render import Narrator

LONGEST = 64 << 10


def show(event: Any, submitted: SubmittedRun, narrator: Narrator) -> None:
    """Show the output that the reused run printed, unless it is long."""
    from repro.runlog import pieces

    record = event.record
    if not record.log_size or record.run_id != submitted.run_id:
        return  # of several steps, only what was asked for speaks again
    if record.log_size > LONGEST:
        narrator.terminal.line(
            f"  its output is long: `repro show {record.origin_run[:8]} --log` shows it"
        )
        return
    try:
        data = submitted.blob(record.log)
    except BlobMissing:
        return
    for _ms, stream, piece in pieces(data):
        narrator(Output(step=event.step, stream=stream, data=piece))

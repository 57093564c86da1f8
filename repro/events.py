"""What happens during a run, as values; only the command line decides how it looks."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from repro.record import RunRecord

    Emit = Callable[["Event"], None]


class Event(Value):
    """Base of all events; `step` is the entry point, empty before it is known."""

    step: str = ""


class Progress(Event):
    """Work that takes time has begun, in a few words."""

    text: str


class Warned(Event):
    """Something that the user should know and can do something about."""

    text: str
    hint: str = ""


class Missed(Event):
    """A step has to run, and why."""

    key: str
    reason: str


class Started(Event):
    """The command of a step is running."""

    run_id: str
    command: str


class Output(Event):
    """Some output of a step, as it comes; `stream` is `stdout` or `stderr`."""

    stream: str
    data: bytes


class Reused(Event):
    """A step was answered by an earlier run; `restored` counts the outputs that were written.

    `steps` is more than one where all the steps of a run were answered together.
    """

    record: RunRecord
    saved_ns: int
    ended_ns: int
    restored: int
    steps: int = 1


class Ended(Event):
    """A step has ended, one way or another."""

    record: RunRecord
    outputs: int
    bytes: int

"""Signals on the command line: the first ends the run and records it, the second ends repro."""

from __future__ import annotations

import os
import signal

from repro.errors import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def arm() -> None:
    """Turn the signals that end a program into Interrupted, raised where the program waits."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _first)


def _first(number: int, _frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, _second)
    name = signal.Signals(number).name
    word = "interrupted" if number == signal.SIGINT else f"ended by {name}"
    raise Interrupted(f"{word}; the run is recorded as killed", signal=number)


def _second(number: int, _frame: FrameType | None) -> None:
    # the supervisor notices that we are gone and ends the step
    os._exit(128 + number)

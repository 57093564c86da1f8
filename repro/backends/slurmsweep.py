"""Jobs that several threads submit in the same moment, made one array of Slurm."""

from __future__ import annotations

import threading
import time

from repro.errors import ReproError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from repro.backends.slurmrun import Running
    from repro.ports import Job, Sink

    SubmitMany = Callable[[Sequence[Job], Sequence[Sink]], Sequence[Running]]

MOMENT = 0.05
"""Seconds that the first job waits for others; Slurm takes longer for the least of jobs."""


class _Asked:
    """A job that is to be submitted, and what came of it."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self.job, self.sink = job, sink
        self.over = threading.Event()
        self.running: Running | None = None
        self.failure: BaseException | None = None

    def outcome(self) -> Running:
        if self.running is None:
            assert self.failure is not None  # noqa: S101  (one of the two)
            raise self.failure
        return self.running


class Sweep:
    """Takes jobs from any thread. The first of a moment submits those of all."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []

    def submit(self, job: Job, sink: Sink, submit_many: SubmitMany) -> Running:
        """Submit a job together with those of other threads. Raises what `submit_many` raises.

        Where jobs cannot be submitted together, each is by itself, so that each gets its own
        error.
        """
        asked = _Asked(job, sink)
        with self._lock:
            self._waiting.append(asked)
            is_first = len(self._waiting) == 1
        if not is_first:
            asked.over.wait()
            return asked.outcome()
        taken: list[_Asked] = []
        try:
            time.sleep(MOMENT)
        finally:
            with self._lock:
                taken, self._waiting = self._waiting, []
            _submit(taken, submit_many)
        return asked.outcome()


def _submit(taken: Sequence[_Asked], submit_many: SubmitMany) -> None:
    try:
        runnings = submit_many([a.job for a in taken], [a.sink for a in taken])
        for asked, running in zip(taken, runnings, strict=True):
            asked.running = running
    except ReproError as error:
        if len(taken) == 1:
            taken[0].failure = error
        else:
            for asked in taken:
                _submit([asked], submit_many)
    except BaseException as error:
        for asked in taken:
            asked.failure = error
        raise
    finally:
        for asked in taken:
            asked.over.set()


_SWEEPS: dict[tuple[str, ...], Sweep] = {}
_CHOOSING = threading.Lock()


def shared(*place: str) -> Sweep:
    """Give the one sweep of this process for a cluster, a folder and settings."""
    with _CHOOSING:
        return _SWEEPS.setdefault(place, Sweep())

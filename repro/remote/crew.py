"""Many transfers at once, watched: whoever waits for them always gets an answer."""

from __future__ import annotations

import threading
import time

from repro.remote.port import RemoteFailed, Unanswered
from repro.store.blobs import BlobMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from repro.remote.port import Sink, Source

TICK = 0.5
TROUBLE = (RemoteFailed, BlobMissing, OSError)
"""What a transfer may raise: the remote's doing, a blob of ours that rotted, or our own disk's."""


class Crew:
    """Threads that work through a list. They die with the process, however stuck they are."""

    def __init__(self, threads: int, stall: float) -> None:
        """Work with so many threads; give up when nothing moved for `stall` seconds."""
        self.threads = threads
        self.stall = stall
        self.moved = 0
        self.stopped = False
        self._changed = threading.Condition()

    def each(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Do `work` with every item; give what came of it, or the TROUBLE, in their order.

        When nothing moves any more, what is not done is an Unanswered, and its threads are left
        behind. Raises whatever else `work` raises.
        """
        job = _Job(work, items)
        for _ in range(min(self.threads, len(items))):
            threading.Thread(target=self._labour, args=(job,), daemon=True).start()
        try:
            self._watch(job)
        finally:
            with self._changed:
                job.over = True
        for index, outcome in enumerate(job.outcomes):
            if outcome is _OPEN:
                reason = "interrupted" if self.stopped else f"nothing moved for {self.stall:g} s"
                job.outcomes[index] = Unanswered(reason, dead=True)
            elif isinstance(outcome, Exception) and not isinstance(outcome, TROUBLE):
                raise outcome
        return job.outcomes

    def stop(self) -> None:
        """Give up what is under way, and all that follows."""
        self.stopped = True

    def _labour(self, job: _Job) -> None:
        while True:
            with self._changed:
                index = None if job.over else next(job.order, None)
            if index is None:
                return
            try:
                outcome = job.work(job.items[index])
            except Exception as error:  # noqa: BLE001  (it is the caller's, who gets it)
                outcome = error
            with self._changed:
                if not job.over:
                    job.outcomes[index] = outcome
                    job.left -= 1
                self.moved += 1
                self._changed.notify_all()

    def _watch(self, job: _Job) -> None:
        seen, since = self.moved, time.monotonic()
        with self._changed:
            while job.left and not self.stopped:
                self._changed.wait(min(TICK, self.stall))
                if self.moved != seen:
                    seen, since = self.moved, time.monotonic()
                elif time.monotonic() - since > self.stall:
                    return

    def sink(self, sink: Sink) -> Sink:
        """Give a sink that tells the crew that something arrived."""

        def watched(data: bytes) -> None:
            self.moved += 1
            sink(data)

        return watched

    def source(self, source: Source) -> Source:
        """Give a source that tells the crew that something left."""
        return _Watched(source, self)


class _Job:
    """One list that is worked through."""

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.work = work
        self.items = items
        self.order = iter(range(len(items)))
        self.outcomes: list[Any] = [_OPEN] * len(items)
        self.left = len(items)
        self.over = False


class _Watched:
    """A source whose reading is noticed."""

    def __init__(self, source: Source, crew: Crew) -> None:
        self.inner = source
        self.crew = crew
        self.size = source.size

    def pieces(self, start: int = 0, end: int | None = None) -> Iterable[bytes]:
        """Give the pieces of the source."""
        for piece in self.inner.pieces(start, end):
            self.crew.moved += 1
            yield piece


_OPEN = object()

"""A job that a thread of ours follows: its output delivered, and its end waited for."""

from __future__ import annotations

import signal
import threading

from repro.ports import JobEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.ports import Sink

LOST = JobEnd(code=128 + signal.SIGKILL, cause="lost")


def nowhere(_stream: str, _data: bytes) -> None:
    """Take output that nobody wants."""


class Following:
    """What every such job has: a sink, a failure of the sink, and an end that many may wait for.

    Who follows sets `_end` and releases `_over`, in this order, when all was delivered.
    """

    def __init__(self, sink: Sink) -> None:
        """Prepare to give output to `sink`."""
        self._sink = sink
        self._failure: BaseException | None = None
        self._end: JobEnd | None = None
        # A signal handler may come in while its thread waits for the end, and wait for it too:
        # a lock that the one who follows opens stands that, a threading.Event may not.
        self._over = threading.Lock()
        self._over.acquire()

    def wait(self) -> JobEnd:
        """Block until all has ended and was delivered. Raises what `sink` raised."""
        self._join()
        if self._failure:
            raise self._failure
        return self._end or LOST

    def poll(self) -> JobEnd | None:
        """Give the end if it has ended."""
        return self._end

    def _join(self) -> None:
        with self._over:
            pass

    def _deliver(self, stream: str, data: bytes) -> None:
        if self._failure or not data:
            return
        try:
            self._sink(stream, data)
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = error

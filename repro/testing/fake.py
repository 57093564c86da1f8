"""A backend that runs nothing, for tests of what is built on backends."""

from __future__ import annotations

import threading

from repro.ports import JobEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from repro.ports import Job, Sink

    Act = Callable[[Job, Sink], int | JobEnd]

CANCELLED = JobEnd(code=143, cause="cancel")


def succeed(_job: Job, _sink: Sink) -> int:
    """Stand for a command that says nothing and ends well."""
    return 0


class FakeBackend:
    """Keeps the jobs that it gets in `jobs`, and calls a function in place of each command.

    `act(job, sink)` may give output to `sink` and write into `job.folder`; what it gives is the
    exit code, or the whole end. An exception of it is raised by `wait`. With `hold`, jobs go on,
    after that call, until they are released or cancelled.
    """

    name = "fake"

    def __init__(self, act: Act = succeed, *, hold: bool = False) -> None:
        """Answer every job with `act`."""
        self._act, self._hold = act, hold
        self.jobs: list[Job] = []
        self.submitted: list[FakeJob] = []

    def submit(self, job: Job, sink: Sink) -> FakeJob:
        """Begin, as `repro.ports.Backend` says."""
        begun = FakeJob(lambda: self._act(job, sink))
        self.jobs.append(job)
        self.submitted.append(begun)
        if not self._hold:
            begun.release()
        begun.start()
        return begun

    def release(self) -> None:
        """Let all that was submitted so far end."""
        for begun in self.submitted:
            begun.release()


class FakeJob:
    """A job of `FakeBackend`, as `repro.ports.SubmittedJob` says."""

    def __init__(self, command: Callable[[], int | JobEnd]) -> None:
        """Prepare to call `command` in a thread."""
        self._command = command
        self._end: JobEnd | None = None
        self._failure: BaseException | None = None
        self._cancelled = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Call the command."""
        self._thread.start()

    def release(self) -> None:
        """Let it end, if it is held."""
        self._released.set()

    def wait(self) -> JobEnd:
        """Block until it has ended. Raises what stood for the command raised."""
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._end or CANCELLED

    def poll(self) -> JobEnd | None:
        """Give the end if it has ended."""
        return self._end

    def cancel(self) -> None:
        """End it, if it is held."""
        self._cancelled = not self._released.is_set()
        self._released.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            given = self._command()
            self._released.wait()
            end = given if isinstance(given, JobEnd) else JobEnd(code=given)
            self._end = CANCELLED if self._cancelled else end
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = error
            self._end = JobEnd(code=1, cause="lost")

"""Steps as processes of this machine, none of which survives its step, or repro."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress

from repro.backends.following import LOST, Following
from repro.backends.nursery import command
from repro.backends.sandbox import means
from repro.backends.sandbox.relay import Relay
from repro.errors import Unreachable
from repro.ports import JobEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.backends.nursery import Nursery
    from repro.backends.sandbox.means import Available, Start
    from repro.ports import Job, Sink

NOTHING = means.Available()
STREAMS = ("stdout", "stderr")
CHUNK = 1 << 16
FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
PIPE = 1 << 10  # chunks; more than any pipe holds


class Local:
    """Runs each step under a supervisor that ends whatever the step leaves behind.

    It does so too when repro dies, of whatever. A supervisor that is itself killed takes along
    the command's process group, but not what the step has moved into other sessions.
    """

    name = "local"
    environments = "files"

    def __init__(self, available: Available = NOTHING, nursery: Nursery | None = None) -> None:
        """Confine jobs that ask for it by what is `available`, see `sandbox.probe`.

        With a `nursery`, the second and all later jobs are begun in a fraction of the time.
        """
        self._available = available
        self._nursery = nursery

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start `job`, as `repro.ports.Backend` says.

        All calls of `sink` come from one thread. What it raises ends the delivery, not the job,
        and is raised again by `wait`. Raises Unreachable where no process can be started, and
        Unsupported where it cannot be confined as it asks.
        """
        start = means.wrap(job, self._available)
        running = Running(sink)
        try:
            running.begin(job, start, self._nursery)
        except (OSError, RuntimeError) as error:  # RuntimeError: not another thread
            reason = str(getattr(error, "strerror", None) or error).lower()
            raise Unreachable(
                f"no process can be started in `{job.folder}`: {reason}",
                hints=["see that the folder exists, and what `ulimit -n` and `ulimit -u` allow"],
            ) from error
        return running


class Running(Following):
    """A job under way, as `repro.ports.SubmittedJob` says."""

    def __init__(self, sink: Sink) -> None:
        """Prepare to give output to `sink`."""
        super().__init__(sink)
        self._reader = threading.Thread(target=self._follow, name="repro-job", daemon=True)
        self._closing = threading.RLock()  # no word may go to a number that has a new owner
        self._held = ExitStack()

    def begin(self, job: Job, start: Start | None = None, nursery: Nursery | None = None) -> None:
        """Start it; nothing stays behind if that fails."""
        self._port = job.confinement.port
        try:
            self._selector = self._held.enter_context(selectors.DefaultSelector())
            with ExitStack() as theirs:
                self._line, line = socket.socketpair()
                theirs.enter_context(line)
                self._held.enter_context(self._line)
                self._streams = {name: self._pipe(theirs) for name in STREAMS}
                outputs = [output for _, output in self._streams.values()]
                process = _supervisor(job, start, nursery, [line.fileno(), *outputs])
                if process is not None:
                    self._held.enter_context(process)
                self._held.callback(self._line.close)  # first of all: that ends the supervisor
            with suppress(ConnectionError):  # it has died, as the reader will notice
                self._line.sendall(_request(job, start))
            self._reader.start()
        except BaseException:
            self._held.close()
            raise

    def _pipe(self, theirs: ExitStack) -> tuple[int, int]:
        """Make a pipe: one end is ours, the other is closed with what else is theirs."""
        ends = os.pipe()
        self._held.callback(os.close, ends[0])
        theirs.callback(os.close, ends[1])
        return ends

    def cancel(self) -> None:
        """End it, and return when nothing is left of it; called by `sink`, return at once."""
        with self._closing, suppress(OSError):  # it has ended, and the line is closed
            self._line.send(b"c")
        if threading.current_thread() is not self._reader:
            self._join()

    def _follow(self) -> None:
        end = LOST
        try:
            end = self._ended(self._listen())
            self._drain()
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = error
        finally:
            with self._closing:
                self._held.close()
            self._end = end
            self._over.release()

    def _listen(self) -> bytes:
        """Deliver output until the supervisor has ended; give what it reported."""
        report, selector = b"", self._selector
        selector.register(self._line, selectors.EVENT_READ)
        for stream, (descriptor, _) in self._streams.items():
            selector.register(descriptor, selectors.EVENT_READ, stream)
        while self._line in selector.get_map():
            for key, _ in selector.select():
                data = _read(key.fd) if key.data else self._heard()
                if not data:
                    selector.unregister(key.fileobj)
                elif key.data:
                    self._deliver(key.data, data)
                else:
                    report += data
        return report

    def _heard(self) -> bytes:
        """Read what the supervisor says; a socket that it hands over leads to our port."""
        try:
            data, doors, *_ = socket.recv_fds(self._line, CHUNK, 1)
        except ConnectionResetError:
            return b""
        for door in doors:
            self._held.callback(Relay(socket.socket(fileno=door), self._port).close)
        return data

    def _drain(self) -> None:
        """Deliver what is left in the pipes; a lost process may hold them, so never block."""
        for stream, (descriptor, _) in self._streams.items():
            os.set_blocking(descriptor, False)
            for _ in range(PIPE):
                data = _read(descriptor)
                if not data:
                    break
                self._deliver(stream, data)

    def _ended(self, report: bytes) -> JobEnd:
        facts: dict[str, Any] = {}
        for line in report.splitlines():
            facts |= json.loads(line)
        if "code" in facts:
            return JobEnd(**{field: facts[field] for field in JobEnd.__fields__})
        if "group" in facts:
            with suppress(OSError):  # it has ended already
                os.killpg(facts["group"], signal.SIGKILL)
        return LOST


def _supervisor(
    job: Job, start: Start | None, nursery: Nursery | None, streams: list[int]
) -> subprocess.Popen[bytes] | None:
    """Make a supervisor with these standard streams; give its process where it is our child."""
    if nursery is not None and not job.starter:
        folder = os.open(job.folder, FOLDER)
        try:
            if nursery.fork(start.means if start else "", [folder, *streams]):
                return None
        finally:
            os.close(folder)
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        [*job.starter, *command("main")],
        cwd=job.folder,
        start_new_session=True,  # Ctrl-C on a terminal is for repro to act on
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


def _read(descriptor: int) -> bytes:
    """Read what is there; nothing if there is nothing more."""
    try:
        return os.read(descriptor, CHUNK)
    except (BlockingIOError, ConnectionResetError):
        return b""


def _request(job: Job, start: Start | None) -> bytes:
    """Say what to run, in one line; each character is a byte, since not all bytes are UTF-8."""
    asked: dict[str, Any] = {
        "argv": [_bytewise(word) for word in job.argv],
        "variables": {_bytewise(name): _bytewise(job.variables[name]) for name in job.variables},
        "timeout_ms": job.timeout_ms,
        "grace_ms": job.grace_ms,
    }
    if start:
        asked |= {"means": start.means, "orders": start.orders}
    return json.dumps(asked).encode("ascii") + b"\n"


def _bytewise(text: str) -> str:
    return text if text.isascii() else os.fsencode(text).decode("latin-1")

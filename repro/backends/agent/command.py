"""The command and all that it starts, none of which outlives it; and what it writes."""

from __future__ import annotations

import os
import resource
import select
import selectors
import signal
import subprocess
import sys
import threading
import time

from repro.backends.agent.carriage import Failed, patiently
from repro.backends.agent.frames import BEAT, CHUNK, ERR, OUT, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from repro.backends.agent.carriage import Carriage

    class Taker(Protocol):
        """Takes what is written, until it says in `lost` why it cannot."""

        lost: str

        def add(self, kind: int, data: bytes = b"") -> None:
            """Take a piece."""


FLUSH = 0.1  # seconds until output that is small is sent on, at first
SLOWER = 1.05
UNKILLABLE = 10.0  # seconds with processes that even SIGKILL does not end
PAUSE = 0.01
TERMINATED = 128 + signal.SIGTERM
KILLED = 128 + signal.SIGKILL
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
DEATH_SIGNAL, SUBREAPER = 1, 36


class Record:
    """The stream of an attempt. Any thread may add to it."""

    def __init__(self, carriage: Carriage) -> None:
        """Begin an attempt."""
        self._carriage = carriage
        self.attempt = patiently(carriage.claim)
        self._number = 0
        self._lock = threading.Lock()
        self.lost = ""

    def add(self, kind: int, data: bytes = b"") -> None:
        """Add a frame; once that has failed for long, say so in `lost` and add no more."""
        with self._lock:
            if not self.lost:
                packed = frame(self._number, kind, data)
                self._try(self._carriage.append, self.attempt, packed)
                self._number += 1

    def say(self, text: str) -> None:
        """Add a line of our own to the standard error."""
        self.add(ERR, os.fsencode(f"repro: {text}\n"))

    def flush(self) -> None:
        """See to it that what was added can be read."""
        with self._lock:
            if not self.lost:
                self._try(self._carriage.flush)

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            patiently(call, *arguments)
        except Failed as error:
            self.lost = str(error)

    def beat(self, over: threading.Event, bell: Bell, seconds: float, longest: float) -> None:
        """Flush often, and show every now and then that we live, until it is over.

        The longer it takes, the rarer the flushes, up to pauses of `longest` seconds. Rings
        where the other side asks us to end.
        """
        last, pause = 0.0, FLUSH
        while not over.wait(pause):
            if time.monotonic() - last >= seconds:
                last = time.monotonic()
                self.add(BEAT)
            self.flush()
            if self._carriage.recalled():
                bell.ring()
            pause = min(pause * SLOWER, longest)


class Pump:
    """Reads what the command writes, until nobody can write any more."""

    def __init__(self, pipes: Mapping[int, int], record: Taker) -> None:
        """Read from descriptors, each with the kind of its frames."""
        self._pipes, self._record = pipes, record
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        selector = selectors.DefaultSelector()
        for pipe in (*self._pipes, self._over):
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        left = set(self._pipes)
        while left:
            ready = {key.fd for key, _ in selector.select()}
            if ready == {self._over}:
                break
            for pipe in ready & left:
                data = os.read(pipe, CHUNK)
                if data:
                    self._record.add(self._pipes[pipe], data)
                else:
                    selector.unregister(pipe)
                    left.discard(pipe)
        selector.close()

    def finish(self) -> None:
        """Read what is left, and wait for nothing."""
        os.write(self._end, b"x")
        self._thread.join()


class Bell:
    """What wakes us: the end of a child, and signals that ask us to end."""

    def __init__(self) -> None:
        """Listen; from here on such a signal rings, and does nothing else."""
        self._rung = False
        self._pipe, bell = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPS:
            signal.signal(number, self.ring)

    def ring(self, *_: object) -> None:
        """Ask us to end. Any thread may do it: who waits looks every now and then."""
        self._rung = True

    def has_rung(self) -> bool:
        """Say whether we were asked to end."""
        return self._rung

    def wait(self, seconds: float) -> None:
        """Sleep until something happens, at most for so long."""
        if select.select([self._pipe], [], [], max(0.0, seconds))[0]:
            os.read(self._pipe, CHUNK)


class Command:
    """The command and all that it started."""

    def __init__(self, argv: list[bytes], variables: dict[bytes, bytes], folder: bytes) -> None:
        """Start it in a session of its own. Raises OSError."""
        control = _control()
        self.is_tree = control(SUBREAPER, 1) and os.path.isdir("/proc/self")
        self.started = time.monotonic_ns()
        self.wall = 0
        self.status: int | None = None
        self.process = subprocess.Popen(
            argv,
            env=variables,
            cwd=folder,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # It dies with us. What is called after the fork was loaded before, and takes no lock.
            preexec_fn=lambda: control(DEATH_SIGNAL, signal.SIGKILL),  # noqa: PLW1509
        )

    @property
    def pipes(self) -> dict[int, int]:
        """Give the descriptors of its output."""
        assert self.process.stdout  # noqa: S101  (asked for)
        assert self.process.stderr  # noqa: S101
        return {self.process.stdout.fileno(): OUT, self.process.stderr.fileno(): ERR}

    def alive(self) -> bool:
        """Bury the dead, and say whether anything is left: orphans become our children."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return True
                if pid == self.process.pid:
                    self.status = self.process.returncode = status
                    self.wall = time.monotonic_ns() - self.started
        except ChildProcessError:
            return not self.is_tree and _sent(os.killpg, self.process.pid, 0)

    def send(self, *numbers: int) -> None:
        """Send signals to all of it; the group first, since no fork gets away from that."""
        found = _descendants() if self.is_tree else {}
        main = self.process.pid
        ours = self.status is None or not self.is_tree or main in found.values()
        for number in numbers:
            if ours:
                _sent(os.killpg, main, number)
            for pid, group in found.items():
                if group != main:
                    _sent(os.kill, pid, number)

    def watch(self, bell: Bell, record: Taker, seconds: float) -> str:
        """Wait for its end, or for its time or us being over; say which."""
        end = time.monotonic() + seconds if seconds else float("inf")
        while True:
            self.alive()
            if self.status is not None:
                return "exit"
            if bell.has_rung() or record.lost:
                return "cancel"
            if time.monotonic() >= end:
                return "timeout"
            bell.wait(min(1.0, end - time.monotonic()))

    def end(self, bell: Bell, grace: float) -> None:
        """Ask all that is left to end, then end it; stopped processes do not fork."""
        self.send(signal.SIGTERM, signal.SIGCONT)
        limit = time.monotonic() + grace
        while self.alive() and time.monotonic() < limit:
            bell.wait(PAUSE)
        limit = time.monotonic() + UNKILLABLE
        while self.alive() and time.monotonic() < limit:
            self.send(signal.SIGSTOP)
            self.send(signal.SIGKILL)
            bell.wait(PAUSE)

    def code(self, cause: str) -> int:
        """Give its exit code; one that we ended has that of the signal that it took."""
        if self.status is None:
            return KILLED
        is_killed = os.WIFSIGNALED(self.status)
        code = 128 + os.WTERMSIG(self.status) if is_killed else os.WEXITSTATUS(self.status)
        return code if cause == "exit" or code == KILLED else TERMINATED


def _sent(call: Callable[[int, int], None], target: int, number: int) -> bool:
    try:
        call(target, number)
    except OSError:
        return False
    return True


def _control() -> Callable[[int, int], bool]:
    """Give what asks the kernel for something, where that is Linux."""
    if not sys.platform.startswith("linux"):
        return lambda _option, _value: False
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda option, value: bool(prctl(option, value, 0, 0, 0) == 0)


def _descendants() -> dict[int, int]:
    """Find every process below this one, with its group."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    words = file.read().rpartition(b") ")[2].split()
            except OSError:
                continue
            children.setdefault(int(words[1]), []).append((int(name), int(words[2])))
    found: dict[int, int] = {}
    below = children.pop(os.getpid(), [])
    while below:
        pid, group = below.pop()
        found[pid] = group
        below += children.pop(pid, [])
    return found


def usage() -> dict[str, int]:
    """Say what all that has ended took: times in nanoseconds, the largest process in bytes."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "user_ns": round(found.ru_utime * 10**9),
        "system_ns": round(found.ru_stime * 10**9),
        "peak_bytes": found.ru_maxrss * unit,
    }

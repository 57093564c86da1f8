"""A job that our agent runs elsewhere, followed by what it tells; an engine adds what it knows."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress

from repro.backends import container
from repro.backends.agent import carrier
from repro.backends.following import LOST, Following
from repro.backends.sandbox.relay import Relay
from repro.errors import SourceUnusable, Unreachable
from repro.ports import JobEnd
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from repro.backends.agent.carriage import Carriage
    from repro.backends.agent.depot import Depot
    from repro.backends.agent.trees import Entry
    from repro.ports import Job, Sink

SOON, LATER, GROWTH = 0.02, 1.0, 1.3  # seconds between two looks at what the job tells
GRACE_MS = 5000
KILLED = 128 + signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM


class Errand(Following, ABC):
    """What such jobs have in common: the loop that delivers, and what comes back at the end.

    One thread follows, from `_set_out` on; every `_…` method below is called by it. `_wished` is
    when the end was asked for, on the monotonic clock, 0 before. `_heard` is when the job last
    told something. `_is_kept` is for jobs that another process is to come back to.
    """

    again = "the job was started again; what came before does not count"

    def __init__(self, sink: Sink, carriage: Carriage, base: str) -> None:
        """Prepare to give output to `sink`, and to bring outputs to `base` if there is one."""
        super().__init__(sink)
        self._carriage, self._base = carriage, base
        self._follower = carrier.Follower(carriage)
        self._grace = GRACE_MS / 1000
        self._is_kept = False
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()  # a signal handler may cancel
        self._wished = self._heard = 0.0
        self._thread = threading.Thread(target=self._follow, name="repro-errand", daemon=True)
        self._held = ExitStack()  # what is needed until the end

    # -- what an engine adds

    @abstractmethod
    def _judged(self) -> JobEnd | None:
        """Give the end that the job has told; None while the engine has yet to say why."""

    @abstractmethod
    def _given_up(self) -> JobEnd | None:
        """Give an end for a job that tells none, once it will not any more."""

    @abstractmethod
    def _pursue(self) -> None:
        """Have the engine end it; called again and again."""

    @abstractmethod
    def _leave(self) -> None:
        """Leave nothing behind but what is kept; the last call."""

    @abstractmethod
    def _sent(self) -> Iterable[Entry]:
        """Give what was sent."""

    def _hurry(self) -> None:
        """Look at the engine soon: the end was asked for."""

    # -- before it begins

    def reached(self, job: Job, host: str) -> tuple[dict[str, str], tuple[int, ...]]:
        """Give the variables with which the job reaches our loopback ports, at `host` if known.

        Also gives the ports that have to answer on the loopback interface where the job runs.
        """
        variables = dict(job.variables)
        ports = container.loopback_ports(variables)
        if not host:
            return variables, ports
        for port in ports:
            door = socket.create_server(("", 0))
            self._held.callback(Relay(door, port).close)
            there = f"{host}:{door.getsockname()[1]}"
            variables = {n: _readdressed(v, port, there) for n, v in variables.items()}
        return variables, ()

    def _set_out(self) -> None:
        self._heard = time.monotonic()
        self._thread.start()

    # -- what others may call

    def cancel(self) -> None:
        """End it, and return when nothing is left of it; called by `sink`, return at once."""
        self._words.put("cancel")
        if threading.current_thread() is not self._thread:
            self._join()

    def wake(self) -> None:
        """Look again at once: something has changed."""
        self._words.put("")

    # -- following

    def _follow(self) -> None:
        end: JobEnd | None = None
        try:
            end = self._ended()
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = self._failure or _explained(error)
        finally:
            self._held.close()
            try:
                self._leave()
            finally:
                self._end = end or LOST
                self._over.release()

    def _ended(self) -> JobEnd:
        """Deliver until there is an end; give it."""
        pause = SOON
        while True:
            moved = self._look()
            end = self._judged() if self._follower.end else None if moved else self._given_up()
            if end is not None:
                return end
            if self._wished:
                self._pursue()
            pause = SOON if moved else min(pause * GROWTH, LATER)
            self._listen(pause)

    def _listen(self, seconds: float) -> None:
        """Wait for a word of others, at most for so long."""
        with suppress(queue.Empty):
            word = self._words.get(timeout=seconds)
            if word == "cancel" and not self._wished:
                self._wished = time.monotonic()
                self._hurry()

    def _look(self) -> bool:
        """Deliver what has come; go over to a new start of the job, if there is one."""
        try:
            moved = self._follower.deliver(self._deliver)
            if not moved and self._is_open() and self._follower.next_attempt():
                self._say(self.again)
                moved = True
        except OSError:
            return False  # what carries may come back: silence is measured
        if moved:
            self._heard = time.monotonic()
        return moved

    def _is_open(self) -> bool:
        """Say whether another start of the job may follow the one that we follow."""
        end = self._follower.end
        return end is None or (end["cause"] == "cancel" and not self._wished)

    def _say(self, text: str) -> None:
        self._deliver("stderr", f"repro: {text}\n".encode())

    def _bring(self, tree: str) -> None:
        """Make `base` what the job has left, where both are known."""
        if not self._base or not tree:
            return
        try:
            carrier.bring(self._carriage, tree, self._sent(), self._base)
        except OSError as error:
            self._is_kept = True
            raise files.explained(error, "bringing back what a job made") from error


def with_cause(end: JobEnd, cause: str) -> JobEnd:
    """Give the same end with another cause."""
    fields: dict[str, Any] = {field: getattr(end, field) for field in JobEnd.__fields__}
    return JobEnd(**{**fields, "cause": cause})


def check(job: Job) -> None:
    """Raise SourceUnusable for a job that cannot be sent or started anywhere."""
    if not os.path.isdir(job.folder):
        raise SourceUnusable(f"there is no folder `{job.folder}` to run in")
    for text in (*job.argv, *job.variables, *job.variables.values()):
        if "\0" in text:
            raise SourceUnusable(f"no process can be given a null byte, as in {text[:40]!a}")


def orphans(depot: Depot) -> tuple[str, ...]:
    """Name the runs of a depot whose processes on this machine are gone."""
    found = ((run_id, depot.found(run_id)) for run_id in depot.runs())
    owners = ((run_id, parcel.order().get("owner", "")) for run_id, parcel in found if parcel)
    return tuple(run_id for run_id, owner in owners if container.is_orphan(owner))


def _readdressed(value: str, port: int, there: str) -> str:
    if value.startswith(("http://", "https://")):
        for local in container.LOOPBACK:
            value = value.replace(f"://{local}:{port}", f"://{there}", 1)
    return value


def _explained(error: BaseException) -> BaseException:
    """Give the error to raise for one of the carriage."""
    if isinstance(error, carrier.Failed):
        return Unreachable(f"the job's result cannot be had: {error}", hints=["run again"])
    return error

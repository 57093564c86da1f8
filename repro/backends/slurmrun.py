"""A job of Slurm under way: its output, its end, and the ways in which there is none."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress

from repro.backends import container, slurmjob
from repro.backends.agent import carrier
from repro.backends.agent.trees import unpacked
from repro.backends.following import LOST, Following
from repro.backends.sandbox.relay import Relay
from repro.backends.slurmqueue import Down, State
from repro.errors import Unreachable, UsageError
from repro.ports import JobEnd
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.backends.agent.depot import Parcel
    from repro.backends.agent.trees import Entry
    from repro.backends.slurm import Slurm
    from repro.ports import Job, Sink

SOON, LATER, GROWTH = 0.02, 1.0, 1.3  # seconds between two looks at what the job tells
SETTLE = 5.0  # seconds from a job's end, as Slurm sees it, to that of all that it told
AGAIN = 2.0  # seconds between two requests to end
PATIENCE = 30.0  # seconds beyond the grace after which Slurm is to kill
GRACE_MS = 5000
KILLED = 128 + signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM
MEANINGS = {
    "OUT_OF_MEMORY": "its memory was not enough, and Slurm ended it",
    "TIMEOUT": "Slurm's time limit was over",
    "DEADLINE": "Slurm's deadline for it was over",
    "NODE_FAIL": "its node has failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "another job took its place",
    "CANCELLED": "it was cancelled in Slurm",
    "REVOKED": "another cluster has taken it",
    "GONE": "Slurm does not know it any more",
}
OUT_OF_MEMORY = ("exceeded memory limit", "exceeded job memory", "oom-kill", "oom kill")
CAUSES = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "CANCELLED": "cancel",
    "OUT_OF_MEMORY": "exit",
}


class Running(Following):
    """A job under way, as `repro.ports.SubmittedJob` says."""

    def __init__(self, backend: Slurm, parcel: Parcel, sink: Sink, base: str) -> None:
        """Prepare to give output to `sink`, and to bring outputs to `base` if there is one."""
        super().__init__(sink)
        self.parcel = parcel
        self._backend, self._base = backend, base
        self._queue, self._call = backend.queue, backend.commands.call
        self._follower = carrier.Follower(parcel.carriage)
        self._before: tuple[Entry, ...] = ()
        self._grace = GRACE_MS / 1000
        self._batch, self._task = "", 0
        self._is_kept = False  # for another process to come back to
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()  # a signal handler may cancel
        self._wished = self._asked = 0.0
        self._over_since = self._heard = 0.0
        self._thread = threading.Thread(target=self._follow, name="repro-slurm", daemon=True)
        self._held = ExitStack()

    # -- before it begins

    def reached(self, job: Job, host: str) -> tuple[dict[str, str], tuple[int, ...]]:
        """Give the variables with which the job reaches our loopback ports, at `host` if known.

        Also gives the ports that have to answer on the node's own loopback interface.
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

    def prepare(self, before: tuple[Entry, ...], grace_ms: int) -> None:
        """Know what was sent, and how long the command has to end."""
        self._before, self._grace = before, grace_ms / 1000

    def abandon(self) -> None:
        """Leave nothing behind of a job that was not submitted."""
        self._held.close()
        self._clear()

    def begin(self, number: str) -> None:
        """Follow the job of that number."""
        self.parcel.note(id=number)
        self.adopt(number, self.parcel.order())

    def adopt(self, number: str, order: Mapping[str, Any]) -> None:
        """Follow a job by what was noted of it."""
        self.number = number
        self._batch = order.get("batch", "")
        self._task = order.get("task", 0)
        self._grace = order.get("grace_ms", GRACE_MS) / 1000
        self._heard = time.monotonic()
        self._queue.watch(number)
        self._thread.start()

    # -- what others may call

    def cancel(self) -> None:
        """End it, and return when nothing is left of it; called by `sink`, return at once."""
        self._words.put("cancel")
        if threading.current_thread() is not self._thread:
            self._join()

    # -- following

    def _follow(self) -> None:
        end: JobEnd | None = None
        try:
            end = self._ended()
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = self._failure or _explained(error)
        finally:
            self._queue.forget(self.number)
            self._held.close()
            if not self._is_kept and (self._base or container.is_orphan(self._owner())):
                self._clear()
            self._end = end or LOST
            self._over.release()

    def _owner(self) -> str:
        return str(self.parcel.order().get("owner", ""))

    def _clear(self) -> None:
        self.parcel.remove()
        if self._batch:  # the last of an array removes its folder
            for name in (str(self._task), f"{self._task}.out"):
                files.unlink(os.path.join(self._batch, name))
            with suppress(OSError):
                os.rmdir(self._batch)

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
            with suppress(queue.Empty):
                self._words.get(timeout=pause)
                if not self._wished:
                    self._wished = time.monotonic()
                    self._queue.hurry()

    def _look(self) -> bool:
        """Deliver what has come; go over to a new start of the job, if there is one."""
        try:
            moved = self._follower.deliver(self._deliver)
            if not moved and self._is_open() and self._follower.next_attempt():
                self._say("the job was started again by Slurm; what came before does not count")
                moved = True
        except OSError:
            return False  # the folder may come back: silence is measured
        if moved:
            self._heard = time.monotonic()
        return moved

    def _is_open(self) -> bool:
        """Say whether another start of the job may follow the one that we follow."""
        end = self._follower.end
        return end is None or (end["cause"] == "cancel" and not self._wished)

    def _say(self, text: str) -> None:
        self._deliver("stderr", f"repro: {text}\n".encode())

    # -- the end, as the job tells it

    def _judged(self) -> JobEnd | None:
        """Give the end that was told; None while Slurm has to say why it asked for it."""
        facts = self._follower.end or {}
        if facts["failed"]:
            self.parcel.distrust()
            raise Unreachable(
                f"the job could not be run on `{facts.get('host', 'its node')}`: {facts['failed']}",
                hints=["run again; it is sent anew"],
            )
        end = carrier.ended(facts)
        if end.cause == "cancel" and not self._wished:
            state = self._settled()
            if state is None:
                return None
            end = JobEnd(**{**_fields(end), "cause": CAUSES.get(state.word, "cancel")})
            self._say(MEANINGS.get(state.word, "it was asked to end, but not by repro"))
        elif end.cause == "exit" and end.code == KILLED and not self._wished:
            state = self._settled()
            if state is None:
                return None
            if state.word == "OUT_OF_MEMORY":
                self._say(MEANINGS[state.word])
        self._bring(facts.get("tree", ""))
        return end

    def _settled(self) -> State | None:
        """Give what Slurm says when that has come to rest."""
        state = self._queue.state(self.number)
        if state is None or not state.is_over:
            self._over_since = 0.0
            self._check_silence()
            return None
        self._over_since = self._over_since or time.monotonic()
        return state

    def _bring(self, tree: str) -> None:
        if not self._base or not tree:
            return
        carriage = self.parcel.carriage
        try:
            before = self._before or self._sent()
            carrier.bring(carriage, tree, before, self._base)
        except OSError as error:
            self._is_kept = True
            raise files.explained(error, "bringing back what a job made") from error

    def _sent(self) -> tuple[Entry, ...]:
        """Read what an earlier process has sent."""
        half = os.path.join(self.parcel.path, "sent~")
        self.parcel.carriage.get(self.parcel.order()["tree"], half)
        with open(half, "rb") as file:
            return tuple(unpacked(file.read()))

    # -- the end, as Slurm tells it

    def _given_up(self) -> JobEnd | None:
        """Give an end for a job that tells none, once it will not any more."""
        if self._settled() is None:
            return None
        has_begun = self._follower.has_begun
        patience = SETTLE if has_begun or not self._wished else 0.0
        if time.monotonic() - self._over_since < patience:
            return None
        state = self._queue.state(self.number)
        assert state is not None  # noqa: S101  (settled)
        if self._wished:
            return JobEnd(code=KILLED if has_begun else TERMINATED, cause="cancel")
        said = self._printed()
        if not has_begun and state.word in {"FAILED", "COMPLETED"}:
            raise Unreachable(
                f"the job could not begin: {said.splitlines()[-1] if said else state.reason}",
                hints=[
                    f"see that the nodes have `{self._backend.settings.python}` and the folder"
                    f" `{self._backend.depot.path}`"
                ],
            )
        if any(words in said.lower() for words in OUT_OF_MEMORY):
            state = State(word="OUT_OF_MEMORY")
        self._say(_meaning(state))
        if said:
            self._say(said)
        return JobEnd(code=KILLED, cause=CAUSES.get(state.word, "lost"))

    def _printed(self) -> str:
        """Give what the program on the node printed itself, as Slurm kept it."""
        if self._batch:
            return _tail(os.path.join(self._batch, f"{self._task}.out"))
        return _tail(os.path.join(self.parcel.path, slurmjob.OUTPUT))

    def _check_silence(self) -> None:
        """Raise Unreachable when for long neither Slurm nor the job has shown that they live."""
        now, patience = time.monotonic(), self._backend.settings.patience
        silence = now - max(self._queue.answered, self._heard)
        if silence > patience:
            self._is_kept = True
            raise Unreachable(
                f"slurm has not answered for {silence:.0f} s, and its job {self.number} is silent",
                hints=["the job may go on: look at it with `repro attach` when Slurm is back"],
            )

    # -- ending it

    def _pursue(self) -> None:
        """Ask the job to end, again and again; in the end have Slurm kill it."""
        now = time.monotonic()
        if now - self._asked < AGAIN:
            return
        self._asked = now
        orders = [("--state=PENDING",), ("--batch", "--signal=TERM")]
        if now - self._wished > self._grace + PATIENCE:
            orders = [()]
        for order in orders:
            with suppress(Down, UsageError):  # it has ended, or Slurm is asked again
                self._call("scancel", *order, self.number)
        self._queue.hurry()


def _readdressed(value: str, port: int, there: str) -> str:
    if value.startswith(("http://", "https://")):
        for local in container.LOOPBACK:
            value = value.replace(f"://{local}:{port}", f"://{there}", 1)
    return value


def _meaning(state: State) -> str:
    words = MEANINGS.get(state.word, f"it ended as {state.word}, and told nothing")
    return f"{words} ({state.reason})" if state.reason not in {"", state.word} else words


def _fields(end: JobEnd) -> dict[str, Any]:
    return {field: getattr(end, field) for field in JobEnd.__fields__}


def _explained(error: BaseException) -> BaseException:
    """Give the error to raise for one of the carriage."""
    if isinstance(error, carrier.Failed):
        return Unreachable(f"the job's result cannot be had: {error}", hints=["run again"])
    return error


def _tail(path: str) -> str:
    return (files.read(path) or b"")[-2000:].decode("utf-8", "replace").strip()

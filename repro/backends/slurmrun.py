"""A job of Slurm under way: its output, its end, and the ways in which there is none."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from repro.backends import container, slurmjob
from repro.backends.agent import carrier
from repro.backends.agent.trees import unpacked
from repro.backends.errand import GRACE_MS, KILLED, TERMINATED, Errand, with_cause
from repro.backends.slurmqueue import Down, State
from repro.errors import Unreachable, UsageError
from repro.ports import JobEnd
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.backends.agent.depot import Parcel
    from repro.backends.agent.trees import Entry
    from repro.backends.slurm import Slurm
    from repro.ports import Sink

SETTLE = 5.0  # seconds from a job's end, as Slurm sees it, to that of all that it told
AGAIN = 2.0  # seconds between two requests to end
PATIENCE = 30.0  # seconds beyond the grace after which Slurm is to kill
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


class Running(Errand):
    """A job under way, as `repro.ports.SubmittedJob` says."""

    again = "the job was started again by Slurm; what came before does not count"

    def __init__(self, backend: Slurm, parcel: Parcel, sink: Sink, base: str) -> None:
        """Prepare to give output to `sink`, and to bring outputs to `base` if there is one."""
        super().__init__(sink, parcel.carriage, base)
        self.parcel = parcel
        self._backend = backend
        self._queue, self._call = backend.queue, backend.commands.call
        self._before: tuple[Entry, ...] = ()
        self._batch, self._task = "", 0
        self._asked = self._over_since = 0.0

    # -- before it begins

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
        self._queue.watch(number)
        self._set_out()

    # -- following

    def _hurry(self) -> None:
        self._queue.hurry()

    def _leave(self) -> None:
        self._queue.forget(self.number)
        if not self._is_kept and (self._base or container.is_orphan(self._owner())):
            self._clear()

    def _owner(self) -> str:
        return str(self.parcel.order().get("owner", ""))

    def _clear(self) -> None:
        self.parcel.remove()
        if self._batch:  # the last of an array removes its folder
            for name in (str(self._task), f"{self._task}.out"):
                files.unlink(os.path.join(self._batch, name))
            with suppress(OSError):
                os.rmdir(self._batch)

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
            end = with_cause(end, CAUSES.get(state.word, "cancel"))
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

    def _sent(self) -> Iterable[Entry]:
        """Give what was sent, read again where an earlier process did it."""
        if self._before:
            return self._before
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


def _meaning(state: State) -> str:
    words = MEANINGS.get(state.word, f"it ended as {state.word}, and told nothing")
    return f"{words} ({state.reason})" if state.reason not in {"", state.word} else words


def _tail(path: str) -> str:
    return (files.read(path) or b"")[-2000:].decode("utf-8", "replace").strip()

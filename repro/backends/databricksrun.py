"""A run of Databricks under way: its output, its end, and the ways in which there is none."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from repro.backends import container
from repro.backends.agent import carrier
from repro.backends.agent.carriage import Failed
from repro.backends.agent.trees import unpacked
from repro.backends.databricksrest import Down, Refused
from repro.backends.errand import GRACE_MS, KILLED, TERMINATED, Errand, with_cause
from repro.errors import EnvironmentFailed, Unreachable
from repro.ports import JobEnd
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.backends.agent.depot import Parcel
    from repro.backends.agent.trees import Entry
    from repro.backends.databricks import Databricks
    from repro.backends.databrickscarriage import Remote
    from repro.ports import Sink

JOBS = "/api/2.1/jobs"
SETTLE = 5.0  # seconds from a run's end, as Databricks sees it, to that of all that it told
LOOKS = 4  # times that its last words are looked for in these, where the pauses allow it
AGAIN = 2.0  # seconds between two requests to end
PATIENCE = 60.0  # seconds beyond the grace after which Databricks is to end it
WAITING = 10.0  # seconds after which a job that has not begun says where to look
MISSES = 2  # answers without a run after which it is gone
GONE = "GONE"
OVER = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR", GONE)
CAUSES = {"CANCELED": "cancel", "TIMEDOUT": "timeout"}
MEANINGS = {
    "CANCELED": "it was cancelled in Databricks",
    "TIMEDOUT": "Databricks' time limit was over",
    "SKIPPED": "Databricks has skipped it",
    "INTERNAL_ERROR": "Databricks could not run it to its end",
    "MAXIMUM_CONCURRENT_RUNS_REACHED": "there are too many runs at the same time",
    GONE: "Databricks does not know it any more",
}
DIGEST = re.compile(r"`([0-9a-f]{64})`")


class State(Value):
    """What Databricks says of a run: the two words for where it is and how it ended, and why.

    `url` is its page; `task` the number of its one task's run.
    """

    life: str
    result: str = ""
    why: str = ""
    url: str = ""
    task: int = 0

    @property
    def is_over(self) -> bool:
        """Say whether it has ended."""
        return self.life in OVER

    @property
    def word(self) -> str:
        """Give the word that says most."""
        return self.result or self.life


class Running(Errand):
    """A run under way, as `repro.ports.SubmittedJob` says."""

    again = "the step was started again by Databricks; what came before does not count"

    def __init__(
        self, backend: Databricks, parcel: Parcel, remote: Remote, sink: Sink, base: str
    ) -> None:
        """Prepare to give output to `sink`, and to bring outputs to `base` if there is one."""
        super().__init__(sink, remote, base)
        self.parcel, self.remote = parcel, remote
        self._backend = backend
        self._before: tuple[Entry, ...] = ()
        self._state: State | None = None
        self._asked = self._over_since = self._begun = self._due = 0.0
        self._misses = 0
        self._is_told = False

    # -- before it begins

    def prepare(self, before: tuple[Entry, ...], grace_ms: int) -> None:
        """Know what was sent, and how long the command has to end."""
        self._before, self._grace = before, grace_ms / 1000

    def abandon(self) -> None:
        """Leave nothing behind of a job that was not submitted."""
        self._held.close()
        self._clear()

    def begin(self, number: int) -> None:
        """Follow the run of that number."""
        self.parcel.note(id=number)
        self.adopt(number, self.parcel.order())

    def adopt(self, number: int, order: Mapping[str, Any]) -> None:
        """Follow a run by what was noted of it."""
        self.number = number
        self._grace = order.get("grace_ms", GRACE_MS) / 1000
        self._begun = self.remote.answered = time.monotonic()
        self._set_out()

    # -- following

    def _look(self) -> bool:
        try:
            return super()._look()
        except Refused:
            self._is_kept = True  # the job goes on; who may look at it again can find it
            raise

    def _is_open(self) -> bool:
        return bool(self._over_since) and super()._is_open()

    def _listen(self, seconds: float) -> None:
        super()._listen(seconds * self._backend.settings.poll)

    def _hurry(self) -> None:
        self._due = 0.0

    def _leave(self) -> None:
        if not self._is_kept and (self._base or container.is_orphan(self._owner())):
            self._clear()

    def _owner(self) -> str:
        return str(self.parcel.order().get("owner", ""))

    def _clear(self) -> None:
        with suppress(Down, Refused):
            self.remote.remove()
        self.parcel.remove()

    # -- what Databricks says

    def _settled(self) -> State | None:
        """Give what Databricks says when that has come to rest; asked every now and then."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + min(self._backend.settings.poll, AGAIN if self._wished else 60.0)
            self._ask()
        state = self._state
        if state is None or not state.is_over:
            self._over_since = 0.0
            self._check_silence()
            return None
        self._over_since = self._over_since or now
        return state

    def _ask(self) -> None:
        try:
            self._state = read_state(self._call("GET", "runs/get", query={"run_id": self.number}))
            self._misses = 0
        except Down:
            return
        except Refused as error:
            if error.is_denied:
                self._is_kept = True
                raise
            self._misses += 1
            if self._misses >= MISSES:
                self._state = State(life=GONE)
        self.remote.answered = time.monotonic()

    def _call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        return self._backend.client.ask(method, f"{JOBS}/{path}", **fields)

    def _check_silence(self) -> None:
        """Raise Unreachable when Databricks has been away for long."""
        silence = time.monotonic() - self.remote.answered
        if silence > self._backend.settings.patience:
            self._is_kept = True
            raise Unreachable(
                f"databricks has not answered for {silence:.0f} s, and its run {self.number}"
                " is silent",
                hints=["the job may go on: look at it with `repro attach` when it is back"],
            )

    # -- the end, as the job tells it

    def _judged(self) -> JobEnd | None:
        """Give the end that was told; None while Databricks has to say why it asked for it."""
        facts = self._follower.end or {}
        if facts["failed"]:
            raise self._failed(facts)
        end = carrier.ended(facts)
        if end.cause == "cancel" and not self._wished:
            state = self._settled()
            if state is None:
                return None
            cause, meaning = self._blamed(state)
            end = with_cause(end, cause)
            self._say(meaning)
        self._bring(facts.get("tree", ""))
        return end

    def _blamed(self, state: State) -> tuple[str, str]:
        """Say who has ended the job, where that were not we: the cause, and its meaning."""
        if state.word in CAUSES:
            return CAUSES[state.word], MEANINGS[state.word]
        is_recalled = True
        with suppress(OSError, Refused):
            is_recalled = self.remote.recalled()
        if is_recalled:
            return "cancel", "it was asked to end, but not by this repro"
        return "lost", "something on its node has ended it"

    def _failed(self, facts: Mapping[str, Any]) -> Exception:
        if facts.get("stage") == "environment":
            return EnvironmentFailed(
                str(facts["failed"]),
                hints=[
                    "choose a `spark_version` with that Python, or that Python in the"
                    " `python_env`, and see that the cluster reaches the package index"
                ],
            )
        for digest in DIGEST.findall(facts["failed"]):
            with suppress(Down, Refused):
                self._backend.stock.distrust(digest)
        return Unreachable(
            f"the job could not be run on `{facts.get('host', 'its node')}`: {facts['failed']}",
            hints=["run again; what was missing is sent anew"],
        )

    def _sent(self) -> Iterable[Entry]:
        """Give what was sent, read again where an earlier process did it."""
        if self._before:
            return self._before
        half = os.path.join(self.parcel.path, "sent~")
        self.remote.get(self.parcel.order()["tree"], half)
        return tuple(unpacked(files.read(half) or b""))

    # -- the end, as Databricks tells it

    def _given_up(self) -> JobEnd | None:
        """Give an end for a job that tells none, once it will not any more."""
        state = self._settled()
        if state is None:
            self._point()
            return None
        has_begun = self._has_begun()
        patience = min(SETTLE, LOOKS * self._backend.settings.poll)
        if self._wished and not has_begun:
            patience = 0.0
        if time.monotonic() - self._over_since < patience:
            return None
        if self._wished:
            return JobEnd(code=KILLED if has_begun else TERMINATED, cause="cancel")
        if not has_begun and state.word not in CAUSES:
            raise Unreachable(
                f"the job could not begin: {self._why(state)}",
                hints=[f"see {state.url}"] if state.url else [],
            )
        self._say(self._meaning(state))
        code = KILLED if has_begun else TERMINATED
        return JobEnd(code=code, cause=CAUSES.get(state.word, "lost"))

    def _has_begun(self) -> bool:
        with suppress(OSError):
            return self._follower.has_begun
        return False

    def _point(self) -> None:
        """Say once where a job can be looked at that is long in beginning."""
        waits = time.monotonic() - self._begun > WAITING and not self._follower.told
        if waits and not self._is_told and self._state and self._state.url:
            self._is_told = True
            self._say(f"waiting for a cluster: {self._state.url}")

    def _meaning(self, state: State) -> str:
        words = MEANINGS.get(state.word, f"it ended as {state.word}, and told nothing")
        why = self._why(state)
        where = f"; see {state.url}" if state.url else ""
        return f"{words} ({why}){where}" if why != words else f"{words}{where}"

    def _why(self, state: State) -> str:
        """Give the reason in the words of Databricks: those of its output, or of the state."""
        said = ""
        if state.task:
            with suppress(Down, Refused):
                told = self._call("GET", "runs/get-output", query={"run_id": state.task})
                said = " ".join(str(told.get("error") or "").split())
        return said or state.why or MEANINGS.get(state.word, state.word)

    # -- ending it

    def _pursue(self) -> None:
        """Ask the job to end, again and again; have Databricks end it if it has not begun."""
        now = time.monotonic()
        if now - self._asked < AGAIN:
            return
        self._asked = now
        is_late = now - self._wished > self._grace + PATIENCE
        with suppress(Down, Refused):  # it has ended, or is asked again
            self.remote.recall()
        with suppress(Down, Refused, OSError, Failed):
            if is_late or not self._follower.has_begun:
                self._call("POST", "runs/cancel", body={"run_id": self.number})
        self._due = 0.0


def read_state(run: Mapping[str, Any]) -> State:
    """Read what `runs/get` answers."""
    state = run.get("state") or {}
    tasks = run.get("tasks") or [{}]
    inner = tasks[0].get("state") or {}
    why = inner.get("state_message") or state.get("state_message") or ""
    return State(
        life=str(state.get("life_cycle_state") or ""),
        result=str(state.get("result_state") or ""),
        why=" ".join(str(why).split()),
        url=str(run.get("run_page_url") or ""),
        task=int(tasks[0].get("run_id") or 0),
    )

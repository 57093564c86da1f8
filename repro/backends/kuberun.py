"""A Job of Kubernetes under way: its output, its end, and what keeps it from beginning."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress

from repro.backends import container, kubestate
from repro.backends.agent import carrier
from repro.backends.agent.trees import unpacked
from repro.backends.errand import GRACE_MS, KILLED, TERMINATED, Errand, with_cause
from repro.backends.kubeapi import MISSING, Down, Refused
from repro.backends.kubejob import GRACE, LEAVE_S, OWNER, TREE
from repro.errors import Unreachable
from repro.ports import JobEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from repro.backends.agent.carriage import Carriage
    from repro.backends.agent.depot import Parcel
    from repro.backends.agent.trees import Entry
    from repro.backends.kubernetes import Kubernetes
    from repro.backends.kubestate import State
    from repro.ports import Sink

    Object = dict[str, Any]

SETTLE = 5.0  # seconds from a job's end, as the cluster sees it, to that of all that it told
AGAIN = 2.0  # seconds between two requests to end
LATE = 5.0  # seconds after which what keeps a job waiting is said
MUTE = 30.0  # seconds after which a program that runs and tells nothing is wondered about
FORCED = 30.0  # seconds beyond a pod's grace after which it is removed without its node
SHORT = 1  # the grace, in seconds, of a pod whose program has not begun
PAUSE = 0.2  # seconds between two looks at what is about to go
CLEARING = 15.0  # seconds to try to remove what is over
BROKEN = frozenset(["StartError", "ContainerCannotRun", "Completed", "Failed"])
WORDS = {
    "Unschedulable": "no node takes the job yet",
    "SchedulingGated": "the job does not begin yet",
    "Suspended": "the job does not begin yet",
}


class Running(Errand):
    """A job under way, as `repro.ports.SubmittedJob` says."""

    again = "the job was started again by Kubernetes; what came before does not count"

    def __init__(
        self, backend: Kubernetes, carriage: Carriage, sink: Sink, base: str, parcel: Parcel | None
    ) -> None:
        """Prepare to give output to `sink`, and to bring outputs to `base` if there is one."""
        super().__init__(sink, carriage, base)
        self.parcel = parcel
        self.name = ""
        self._backend, self._api, self._lookout = backend, backend.api, backend.lookout
        self._before: tuple[Entry, ...] = ()
        self._notes: dict[str, str] = {}
        self._asked = self._over_since = self._began = self._stuck_since = 0.0
        self._trouble, self._trouble_since, self._trouble_words = "", 0.0, ""
        self._said: set[str] = set()
        self._asked_events = 0.0
        self._warning = "", ""

    # -- before it begins

    def prepare(self, before: tuple[Entry, ...]) -> None:
        """Know what was sent."""
        self._before = before

    def abandon(self) -> None:
        """Leave nothing behind of a job that was not submitted."""
        self._held.close()
        if self.name:
            self._lookout.forget(self.name, self.wake)
            self._remove(wait=False)
        if self.parcel:
            self.parcel.remove()

    def watch(self, name: str) -> None:
        """Hear of the Job of that name. Raises Down, Refused."""
        self._lookout.watch(name, self.wake)
        self.name = name

    def adopt(self, job: Object) -> None:
        """Follow a Job that the cluster has."""
        self._notes = job["metadata"].get("annotations") or {}
        self._grace = int(self._notes.get(GRACE, GRACE_MS)) / 1000
        self._lookout.seen(job)
        self._began = time.monotonic()
        self._set_out()

    # -- following

    def _leave(self) -> None:
        self._lookout.forget(self.name, self.wake)
        is_ours = self._base or container.is_orphan(self._notes.get(OWNER, ""))
        if self._is_kept or not (is_ours or self._wished):
            return
        if not self._remove(wait=bool(self._wished)):
            self._say(f"the cluster has not removed the job `{self.name}` yet")
        if self.parcel:
            self.parcel.remove()

    def _sent(self) -> Iterable[Entry]:
        if self._before:
            return self._before
        with tempfile.TemporaryDirectory(prefix="repro-") as folder:
            half = os.path.join(folder, "sent")
            self._carriage.get(self._notes[TREE], half)
            with open(half, "rb") as file:
                return tuple(unpacked(file.read()))

    # -- the end, as the job tells it

    def _judged(self) -> JobEnd | None:
        """Give the end that was told; None while the cluster has to say why it asked for it."""
        facts = self._follower.end or {}
        if facts["failed"]:
            if self.parcel:
                self.parcel.distrust()
            raise Unreachable(
                f"the job could not be run in `{facts.get('host', 'its pod')}`: {facts['failed']}",
                hints=["run again; it is sent anew"],
            )
        end = carrier.ended(facts)
        is_asked = end.cause == "cancel"
        if not self._wished and (is_asked or (end.cause == "exit" and end.code == KILLED)):
            state = self._settled()
            if state is None:
                return None
            if is_asked:
                end = with_cause(end, state.cause if state.cause != "exit" else "lost")
                self._say(state.words)
            elif state.word == kubestate.OUT_OF_MEMORY:
                self._say(state.words)
        self._bring(facts.get("tree", ""))
        return end

    # -- the end, as the cluster tells it

    def _settled(self) -> State | None:
        """Give what the cluster says when that has come to rest."""
        self._check_silence()
        state = self._lookout.state(self.name)
        if not (state.is_over or self._is_stuck(state)) or not self._is_sure(state):
            self._over_since = 0.0
            if not self._wished:
                self._watch_over(state)
            return None
        self._over_since = self._over_since or time.monotonic()
        return state

    def _is_sure(self, state: State) -> bool:
        """Ask for a Job that seems to be gone: what was told may be older than it is."""
        if not state.is_gone or self._over_since:
            return True
        try:
            self._lookout.seen(self._api.call("GET", self._backend.job_path(self.name)))
        except Refused as error:
            return error.status == MISSING
        except Down:
            pass
        return False

    def _is_stuck(self, state: State) -> bool:
        """Say whether a pod should have ended long ago: its node has nothing to say any more."""
        going = [
            pod["metadata"].get("deletionGracePeriodSeconds") or 0
            for pod in self._lookout.pods(self.name)
            if pod["metadata"].get("deletionTimestamp") and pod["metadata"]["name"] == state.pod
        ]
        if not going or state.is_over:
            self._stuck_since = 0.0
            return False
        now = time.monotonic()
        self._stuck_since = self._stuck_since or now
        return now - max(self._stuck_since, self._heard) > going[0] + FORCED

    def _given_up(self) -> JobEnd | None:
        """Give an end for a job that tells none, once it will not any more."""
        state = self._settled()
        if state is None:
            return None
        has_begun = self._has_begun()
        patience = SETTLE if has_begun or not self._wished else 0.0
        if time.monotonic() - self._over_since < patience:
            return None
        if self._wished:
            return JobEnd(code=KILLED if has_begun else TERMINATED, cause="cancel")
        if not state.is_over:
            state = kubestate.State(is_over=True, word="NodeLost", node=state.node)
        if not has_begun and state.word in BROKEN:
            raise self._could_not_begin(state)
        self._say(state.words)
        return JobEnd(code=KILLED, cause=state.cause)

    def _has_begun(self) -> bool:
        try:
            return self._follower.has_begun
        except OSError:
            return False

    def _could_not_begin(self, state: State) -> Unreachable:
        said = self._printed(state)
        why = said.splitlines()[-1] if said else state.reason or state.words
        python = self._backend.settings.python
        return Unreachable(
            f"the job could not begin: {why}",
            hints=[
                f"see that the image has `{python}`, Python 3.8 or newer, and that the pod reaches"
                f" {self._backend.way}"
            ],
        )

    def _printed(self, state: State) -> str:
        """Give what the program in the pod printed itself."""
        if not state.pod:
            return ""
        path = f"{self._backend.path('pods')}/{state.pod}/log"
        with suppress(Down, Refused):
            return self._api.text(path, {"tailLines": 20, "limitBytes": 4000}).strip()
        return ""

    def _check_silence(self) -> None:
        """Raise Unreachable when for long neither the cluster nor the job has shown that it lives.

        Raises what the cluster refuses, where it does not show us its jobs.
        """
        refusal, since = self._lookout.refusal, self._api.down_since
        if refusal is not None:
            self._is_kept = True
            raise refusal
        if not since:
            return
        silence = time.monotonic() - max(since, self._heard)
        if silence > self._backend.settings.patience:
            self._is_kept = True
            raise Unreachable(
                f"the cluster has not answered for {silence:.0f} s, and its job `{self.name}`"
                " is silent",
                hints=[
                    "the job may go on: look at it with `repro attach` when the cluster is back"
                ],
            )

    # -- what keeps it from beginning

    def _watch_over(self, state: State) -> None:
        """Say what a job waits for. Raises Unreachable for what lasts too long."""
        now = time.monotonic()
        word, reason = state.word, state.reason
        if state.is_running or (self._follower.told and not word):
            word, reason = self._silence(state, now)
        elif word in {"", "NoPod"}:
            word, reason = self._warned(state, now)
        group = "image" if word in kubestate.IMAGE else word
        if group != self._trouble:
            self._trouble, self._trouble_since, self._trouble_words = group, now, ""
        if word != "ImagePullBackOff" or not self._trouble_words:  # it hides why
            self._trouble_words = f"{word}: {reason}" if reason else word
        lasting = now - self._trouble_since
        if word and (group == "image" or lasting >= LATE):
            self._say_once(group)
        self._check_waiting(word, lasting, now)

    def _silence(self, state: State, now: float) -> tuple[str, str]:
        """Give what there is to say of a job that has begun, and tells nothing."""
        if now - self._heard < MUTE:
            return "", ""
        event = ": ".join(filter(None, self._warned(state, now)))
        return "Mute", event or f"its pod may not reach {self._backend.way}"

    def _warned(self, state: State, now: float) -> tuple[str, str]:
        """Give what the cluster warns of, of a job without a pod, or of a pod."""
        if now - max(self._began, self._asked_events) < LATE:
            return self._warning
        self._asked_events = now
        query = {"fieldSelector": f"involvedObject.name={state.pod or self.name}"}
        self._warning = "", ""
        with suppress(Down, Refused):
            found = self._api.call("GET", self._backend.path("events"), query=query)
            self._warning = kubestate.warning(found.get("items") or ())
        return self._warning

    def _say_once(self, group: str) -> None:
        what = self._trouble_words if group == "Mute" else group  # why may be learned later
        if what in self._said:
            return
        self._said.add(what)
        if group == "image":
            self._say(f"the image cannot be pulled: {self._trouble_words}")
        elif group == "Mute":
            why = self._trouble_words.partition(": ")[2]
            self._say(f"the job has told nothing for {MUTE:.0f} s: {why}")
        else:
            said = WORDS.get(group, "the job does not begin")
            self._say(f"{said}: {self._trouble_words}")

    def _check_waiting(self, word: str, lasting: float, now: float) -> None:
        """Raise Unreachable where waiting has no end, or too late a one."""
        given = self._backend.settings
        is_broken = word and word not in WORDS and word != "Mute" and not self._is_quota()
        if word in kubestate.HOPELESS or (is_broken and lasting > given.patience):
            what = "its image cannot be pulled" if self._trouble == "image" else "it cannot begin"
            raise Unreachable(
                f"the job was given up: {what}: {self._trouble_words}",
                hints=["correct that, and run again"],
            )
        if (
            given.pending_limit
            and now - self._began > given.pending_limit
            and not self._has_begun()
        ):
            why = f": {self._trouble_words}" if self._trouble_words else ""
            raise Unreachable(
                f"the job was given up: it has not begun in {given.pending_limit:g} s{why}",
                hints=["raise `pending-limit`, or run when the cluster has room"],
            )

    def _is_quota(self) -> bool:
        return "exceeded quota" in self._trouble_words

    # -- ending it

    def _pursue(self) -> None:
        """Delete the Job with its pods, again and again; in the end without their nodes."""
        now = time.monotonic()
        if now - self._asked < AGAIN:
            return
        self._asked = now
        with suppress(Down, Refused):
            self._delete(self._backend.job_path(self.name), propagationPolicy="Foreground")
        if now - self._wished > self._grace + LEAVE_S + FORCED:
            self._delete_pods(0)
        elif not self._has_begun():
            self._delete_pods(SHORT)

    def _delete_pods(self, grace: int) -> None:
        for pod in self._lookout.pods(self.name):
            path = f"{self._backend.path('pods')}/{pod['metadata']['name']}"
            with suppress(Down, Refused):
                self._delete(path, gracePeriodSeconds=grace)

    def _delete(self, path: str, **options: Any) -> None:
        """Delete an object, if it is there. Raises Down, Refused."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        try:
            self._api.call("DELETE", path, body)
        except Refused as error:
            if error.status != MISSING:
                raise

    def _remove(self, *, wait: bool) -> bool:
        """Remove the Job, its pods and its secret; with `wait`, return when they are gone.

        Says whether that was done in time; the cluster itself removes later what it was not.
        """
        policy = "Foreground" if wait else "Background"
        job = self._backend.job_path(self.name)
        end = time.monotonic() + CLEARING + (self._grace + LEAVE_S if wait else 0.0)
        while time.monotonic() < end:
            try:
                self._delete(f"{self._backend.path('secrets')}/{self.name}")
                self._delete(job, propagationPolicy=policy)
                if wait:
                    self._api.call("GET", job)
            except Down:
                pass
            except Refused:
                return True  # it is gone, or not ours to remove
            else:
                if not wait:
                    return True
            time.sleep(PAUSE)
        return False

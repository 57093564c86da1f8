"""The jobs and pods of a namespace as they change, told by the cluster and not asked for."""

from __future__ import annotations

import threading
import time

from repro.backends import kubestate
from repro.backends.kubeapi import FIRST_PAUSE, GONE, LONGEST_PAUSE, Down, Refused
from repro.backends.kubejob import JOB, RUN
from repro.backends.kubestate import DELETED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from repro.backends.kubeapi import Api
    from repro.backends.kubestate import State

    Object = dict[str, Any]
    Change = Callable[[], None]

ALL = {"labelSelector": RUN}


class Lookout:
    """What the cluster says of the jobs that are watched; two threads listen while there are any.

    After a break it goes on where it was, and where that is too long ago, it asks for everything.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        """Watch the jobs of ours in a namespace."""
        self.api = api
        self._paths = {
            "jobs": f"/apis/batch/v1/namespaces/{namespace}/jobs",
            "pods": f"/api/v1/namespaces/{namespace}/pods",
        }
        self._lock = threading.RLock()
        self._listeners: dict[str, list[Change]] = {}
        self._jobs: dict[str, Object] = {}
        self._pods: dict[str, dict[str, Object]] = {}
        self._listening: set[str] = set()
        self._versions = {"jobs": "", "pods": ""}
        self.refusal: Refused | None = None

    def watch(self, name: str, changed: Change) -> None:
        """Tell of changes of a job, from any thread. Raises Down, Refused if that cannot be."""
        with self._lock:
            self._listeners.setdefault(name, []).append(changed)
            idle = [kind for kind in self._paths if kind not in self._listening]
        try:
            for kind in idle:
                self._list(kind)
        except BaseException:
            self.forget(name, changed)
            raise
        with self._lock:
            self.refusal = None
            for kind in idle:
                if kind not in self._listening:
                    self._listening.add(kind)
                    threading.Thread(
                        target=self._listen, args=(kind,), name=f"repro-{kind}", daemon=True
                    ).start()

    def forget(self, name: str, changed: Change) -> None:
        """Tell no more of it."""
        with self._lock:
            listeners = self._listeners.get(name, [])
            if changed in listeners:
                listeners.remove(changed)
            if not listeners:
                for known in (self._listeners, self._jobs, self._pods):
                    known.pop(name, None)

    def seen(self, job: Object) -> None:
        """Know a job that the cluster has just given."""
        with self._lock:
            self._jobs[job["metadata"]["name"]] = job

    def gone(self, name: str) -> None:
        """Know that the cluster does not have a job."""
        with self._lock:
            self._jobs.pop(name, None)

    def state(self, name: str) -> State:
        """Give how a job stands, as far as it was told."""
        with self._lock:
            pods = list(self._pods.get(name, {}).values())
            return kubestate.read(self._jobs.get(name), pods)

    def pods(self, name: str) -> tuple[Object, ...]:
        """Give the pods of a job."""
        with self._lock:
            return tuple(self._pods.get(name, {}).values())

    # -- listening

    def _listen(self, kind: str) -> None:
        pause = FIRST_PAUSE
        while self._is_wanted(kind):
            try:
                self._follow(kind)
                pause = FIRST_PAUSE
            except Down as error:
                time.sleep(max(pause, error.pause))
                pause = min(pause * 2, LONGEST_PAUSE)
            except Refused as error:
                self._versions[kind] = ""
                if error.status != GONE:
                    self._refused(error)
                    time.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    def _is_wanted(self, kind: str) -> bool:
        """Say whether anybody listens; with the last of them, a thread ends."""
        with self._lock:
            if not self._listeners:
                self._listening.discard(kind)
                self._versions[kind] = ""
                (self._jobs if kind == "jobs" else self._pods).clear()
            return bool(self._listeners)

    def _follow(self, kind: str) -> None:
        if not self._versions[kind]:
            self._list(kind)
        for event in self.api.watch(self._paths[kind], self._versions[kind], ALL):
            one = event["object"]
            self._versions[kind] = one["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._take(kind, one, is_there=event["type"] != "DELETED")

    def _list(self, kind: str) -> None:
        found = self.api.call("GET", self._paths[kind], query=ALL)
        self.refusal = None
        there = {one["metadata"]["name"]: one for one in found.get("items") or ()}
        with self._lock:
            known = {one["metadata"]["name"]: one for one in self._all(kind)}
        for name, one in known.items():
            if name not in there:
                self._take(kind, one, is_there=False)
        for one in there.values():
            self._take(kind, one, is_there=True)
        self._versions[kind] = found["metadata"]["resourceVersion"]

    def _all(self, kind: str) -> list[Object]:
        if kind == "jobs":
            return list(self._jobs.values())
        return [pod for pods in self._pods.values() for pod in pods.values()]

    def _take(self, kind: str, one: Object, *, is_there: bool) -> None:
        """Know one more thing, and tell those who want to know."""
        name = _owner(kind, one)
        with self._lock:
            listeners = list(self._listeners.get(name, ()))
            if not listeners:
                return
            place = self._jobs if kind == "jobs" else self._pods.setdefault(name, {})
            if is_there:
                place[one["metadata"]["name"]] = one
            elif kind == "jobs":
                place.pop(one["metadata"]["name"], None)
            else:  # why it ended is still wanted
                place[one["metadata"]["name"]] = {**one, DELETED: True}
        for changed in listeners:
            changed()

    def _refused(self, error: Refused) -> None:
        with self._lock:
            self.refusal = error
            listeners = [one for found in self._listeners.values() for one in found]
        for changed in listeners:
            changed()


def _owner(kind: str, one: Object) -> str:
    """Name the job that it is, or belongs to."""
    head = one["metadata"]
    return str(head["name"] if kind == "jobs" else (head.get("labels") or {}).get(JOB, ""))


_LOOKOUTS: dict[tuple[Api, str], Lookout] = {}
_CHOOSING = threading.Lock()


def shared(api: Api, namespace: str) -> Lookout:
    """Give the one lookout of this process for a namespace of a cluster, whoever asks."""
    with _CHOOSING:
        key = (api, namespace)
        if key not in _LOOKOUTS:
            _LOOKOUTS[key] = Lookout(api, namespace)
        return _LOOKOUTS[key]

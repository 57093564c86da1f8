"""What a cluster's objects say about a job, in words. Nothing is asked here."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Object = Mapping[str, Any]

IMAGE = frozenset(
    [
        "ErrImagePull",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    ]
)
BEGINNING = frozenset(["", "ContainerCreating", "PodInitializing"])
HOPELESS = frozenset(["ErrImageNeverPull", "InvalidImageName"])
"""What no waiting helps against."""
MEANINGS = {
    "OOMKilled": "its memory was not enough, and the node ended it",
    "Evicted": "the node evicted it",
    "DeadlineExceeded": "the deadline that Kubernetes has for it was over",
    "NodeLost": "its node is gone",
    "Unknown": "its node was down, and does not know how it ended",
    "ContainerStatusUnknown": "its node was down, and does not know how it ended",
    "NodeShutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "PreemptionByScheduler": "another pod took its place",
    "Preempting": "another pod took its place",
    "DeletionByTaintManager": "its node does not take it any more",
    "EvictionByEvictionAPI": "its pod was evicted",
    "DeletionByPodGC": "its node is gone",
    "TerminationByKubelet": "its node ended it",
    "Deleted": "the job was deleted in the cluster",
    "PodDeleted": "its pod was deleted in the cluster",
}
TIMEOUTS = frozenset(["DeadlineExceeded"])
OUT_OF_MEMORY = "OOMKilled"
FINAL = ("Succeeded", "Failed")
DELETED = "repro.deleted"
"""Marks a pod that the cluster does not have any more."""


class State(Value):
    """How a job stands in the cluster.

    `word` and `reason` say why: Kubernetes' own word, or one of `MEANINGS`, and its message.
    `is_gone` is for a job that the cluster does not have any more. `pod` is the name of the last
    pod, `node` its node, `code` the exit code of its container, -1 before.
    """

    is_over: bool = False
    is_gone: bool = False
    is_running: bool = False
    word: str = ""
    reason: str = ""
    pod: str = ""
    node: str = ""
    code: int = -1

    @property
    def is_image(self) -> bool:
        """Say whether it is the image that keeps it from beginning."""
        return self.word in IMAGE

    @property
    def words(self) -> str:
        """Say why it ended."""
        known = MEANINGS.get(self.word)
        if known is None:
            known = f"it ended as {self.word or 'one that told nothing'}"
            if self.code >= 0:
                known += f" with exit code {self.code}"
        return f"{known} ({self.reason})" if self.reason else known

    @property
    def cause(self) -> str:
        """Give the cause of an end that the job itself did not tell."""
        if self.word in TIMEOUTS:
            return "timeout"
        return "exit" if self.word == OUT_OF_MEMORY else "lost"


def read(job: Object | None, pods: Iterable[Object]) -> State:
    """Read a Job, None where it is gone, and its pods; those that are gone are marked `DELETED`."""
    known = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    alive = [pod for pod in known if _phase(pod) not in FINAL and not pod.get(DELETED)]
    finished = _finished(job) if job else None
    if alive:
        return _under_way(job, alive[-1])
    if job is None or finished is not None or _is_going(job):
        return _over(job, finished, known[-1] if known else None)
    return _without_pod(job)


def _over(job: Object | None, finished: Object | None, last: Object | None) -> State:
    found = _ended(last) if last is not None else State()
    word, reason = found.word, found.reason
    if finished is not None and finished.get("reason") in TIMEOUTS:
        word, reason = finished["reason"], ""
    elif (job is None or _is_going(job)) and word not in MEANINGS:
        word, reason = "Deleted", ""
    elif last is None or (last.get(DELETED) and _phase(last) not in FINAL):
        word, reason = "PodDeleted", ""
    return State(
        is_over=True,
        is_gone=job is None,
        word=word,
        reason=reason,
        pod="" if last is None or last.get(DELETED) else found.pod,
        node=found.node,
        code=found.code,
    )


def _is_going(job: Object) -> bool:
    """Say whether a Job was deleted, and only waits for its pods to go."""
    return bool((job.get("metadata") or {}).get("deletionTimestamp"))


def _finished(job: Object) -> Object | None:
    """Give the condition that says that a Job is over."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") in {"Complete", "Failed"} and condition.get("status") == "True":
            found: Object = condition
            return found
    return None


def _without_pod(job: Object | None) -> State:
    if job and (job.get("spec") or {}).get("suspend"):
        return State(word="Suspended", reason="the job is suspended")
    return State(word="NoPod")


def _under_way(job: Object | None, pod: Object) -> State:
    """Read a pod that has not ended."""
    word, reason = _waiting(pod)
    status = pod.get("status") or {}
    return State(
        is_gone=job is None,
        is_running=any("running" in (one.get("state") or {}) for one in _containers(status)),
        word=word,
        reason=reason,
        pod=pod["metadata"]["name"],
        node=(pod.get("spec") or {}).get("nodeName", ""),
    )


def _waiting(pod: Object) -> tuple[str, str]:
    """Say what a pod waits for, or suffers from: Kubernetes' word, and its message."""
    status = pod.get("status") or {}
    for one in _containers(status):
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in BEGINNING:
            last = ((one.get("lastState") or {}).get("terminated") or {}).get("message", "")
            return waiting["reason"], _line(waiting.get("message", "") or last)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return condition.get("reason", "Unschedulable"), _line(condition.get("message", ""))
    return "", ""


def _containers(status: Object) -> list[Object]:
    first = status.get("initContainerStatuses") or []
    return [*first, *(status.get("containerStatuses") or [])]


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _ended(pod: Object) -> State:
    """Read a pod that has ended: what its node or the cluster did to it, else its program's end."""
    status = pod.get("status") or {}
    word, reason, code = status.get("reason", ""), status.get("message", ""), -1
    for one in _containers(status):
        ended = (one.get("state") or {}).get("terminated")
        if not ended:
            continue
        code = max(code, ended.get("exitCode", -1))
        if not word and ended.get("reason") not in {"Completed", "Error", None}:
            word, reason = ended["reason"], ended.get("message", "")
    for condition in status.get("conditions") or ():
        is_so = condition.get("status") == "True"
        if not word and condition.get("type") == "DisruptionTarget" and is_so:
            word, reason = condition.get("reason", ""), condition.get("message", "")
    return State(
        is_over=True,
        word=word or ("Completed" if code == 0 else "Failed"),
        reason=_line(reason),
        pod=pod["metadata"]["name"],
        node=(pod.get("spec") or {}).get("nodeName", ""),
        code=code,
    )


def warning(events: Iterable[Object]) -> tuple[str, str]:
    """Give the last of some events if it is a warning: Kubernetes' word, and its message.

    A warning that something good came after has no meaning any more.
    """
    last = max(events, key=lambda event: (_time(event), event.get("type") != "Warning"), default={})
    if last.get("type") != "Warning":
        return "", ""
    return str(last.get("reason", "")), _line(str(last.get("message", "")))


def _time(event: Object) -> str:
    last = (event.get("series") or {}).get("lastObservedTime")
    return str(last or event.get("lastTimestamp") or event.get("eventTime") or "")[:19]


def _line(text: str) -> str:
    return " ".join(text.split())[:500]

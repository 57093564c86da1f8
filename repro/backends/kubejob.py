"""A job as Kubernetes takes it: the settings, and the objects that they make. Nothing is asked."""

from __future__ import annotations

import base64
import copy
import os

from repro import digest, quantity
from repro.backends import configuration
from repro.decode import Document
from repro.errors import Problem, ProjectInvalid, UsageError
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.decode import Node
    from repro.ports import Job

    Object = dict[str, Any]

SCHEMA = "backend-kubernetes"
CODE = "job-template"
RUN, KEY, JOB, STEP = "repro.run", "repro.key", "repro.job", "repro.step"
OWNER, RUN_ID, TREE = "repro.owner", "repro.run-id", "repro.tree"
GRACE, PARCEL = "repro.grace-ms", "repro.parcel"
AGENT, SPEC = "agent", "spec.json"
ORDER, SCRATCH, VOLUME = "/repro/order", "/repro/scratch", "/repro/volume"
NOBODY = 65532
SPARE_S = 600
"""What a pod's deadline leaves for its image, its inputs and outputs."""
LEAVE_S = 30
"""What a pod has, beyond the grace of its command, to send what that has left."""
LONGEST_NAME, LONGEST_LABEL = 52, 63
LARGEST_SECRET = 1 << 20
ALNUM = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


class Settings(Value):
    """The settings of the backend, as `schemas/backend-kubernetes.schema.json` describes them.

    `memory` is in bytes, times are in seconds; what is empty, 0 or None is unsaid.
    """

    kube_context: str = ""
    repository_uri: str = ""
    kube_job_template_path: str = ""
    namespace: str = ""
    service_account: str = ""
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, Any], ...] = ()
    pull_secrets: tuple[str, ...] = ()
    cpus: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    volume: Mapping[str, str] = {}
    cache: str = ""
    python: str = "python3"
    uid: int | None = None
    gid: int | None = None
    backoff_limit: int | None = None
    pending_limit: float = 0.0
    patience: float = 300.0
    ttl: int | None = None
    advertise: str = ""
    pod: Mapping[str, Any] = {}


def settings(given: Mapping[str, Any] | str | None) -> Settings:
    """Read the settings: a mapping, the path of a JSON or YAML file, or JSON text.

    Raises ProjectInvalid with every mistake, and UsageError for containers in `pod`.
    """
    found = configuration.read(given, SCHEMA)
    if "containers" in found.get("pod", {}):
        raise UsageError(
            "the setting `pod` takes no `containers`",
            hints=["give them in a file that `kube-job-template-path` names"],
        )
    if "memory" in found:
        found["memory"] = quantity.size(found["memory"])
    if "volume" in found:
        found["volume"] = {"path": VOLUME, **found["volume"]}
    for name in ("tolerations", "pull-secrets"):
        if name in found:
            found[name] = tuple(found[name])
    return Settings(**{name.replace("-", "_"): value for name, value in found.items()})


# --- the template --------------------------------------------------------------------------


def template(path: str) -> Object:
    """Read a user's Job. Raises UsageError without a file, ProjectInvalid for what is no Job."""
    if not path:
        return {}
    data = files.read(os.path.expanduser(path))
    if data is None:
        raise UsageError(
            f"there is no file `{path}` with a job",
            hints=["correct `kube-job-template-path`, or leave it out: no template is needed"],
        )
    document = Document(path, data)
    root = document.root()
    problems = [
        Problem(code=CODE, message=message, where=document.where(node), hint=hint)
        for node, message, hint in _mistakes(root)
    ]
    if problems:
        raise ProjectInvalid(problems)
    return dict(root.plain())


def _mistakes(root: Node) -> list[tuple[Node, str, str]]:
    plain = root.plain()
    if not isinstance(plain, dict) or plain.get("kind") != "Job":
        kind = root.get("kind") if isinstance(plain, dict) else None
        return [(kind or root, "the template is no Job", "begin it with `kind: Job`")]
    found = [*_wrong_shapes(root)]
    containers = _inner(root, "spec", "template", "spec", "containers")
    first = containers.plain() if containers else None
    if not isinstance(first, list) or not first or not isinstance(first[0], dict):
        where = containers or _inner(root, "spec") or root
        hint = "it needs `spec.template.spec.containers` with one container"
        found.append((where, "the template has no container", hint))
    for name in ("completions", "parallelism"):
        node = _inner(root, "spec", name)
        if node and node.plain() not in {None, 0, 1}:
            found.append((node, f"a step is one pod, so `{name}` can only be 1", "leave it out"))
    return found


def _wrong_shapes(root: Node) -> list[tuple[Node, str, str]]:
    """Find what has to be a mapping, and is none."""
    paths = (
        ("metadata",),
        ("metadata", "labels"),
        ("metadata", "annotations"),
        ("spec",),
        ("spec", "template"),
        ("spec", "template", "metadata"),
        ("spec", "template", "metadata", "labels"),
        ("spec", "template", "spec"),
    )
    found = []
    for path in paths:
        node = _inner(root, *path)
        if node is not None and not isinstance(node.plain(), dict):
            found.append((node, f"`{'.'.join(path)}` is no mapping", "write `name: value` lines"))
    return found


def _inner(node: Node | None, *names: str) -> Node | None:
    for name in names:
        if node is None or not isinstance(node.plain(), dict):
            return None
        node = node.get(name)
    return node


# --- names ---------------------------------------------------------------------------------


def named(job: Job) -> str:
    """Give a name that no other job has, and that tells people which this is."""
    words = [job.labels.get("project", ""), job.labels.get("step", ""), job.run_id[:8]]
    plain = "-".join(filter(None, (_plain(word) for word in words))) or "repro"
    if not plain[0].isalpha():
        plain = f"repro-{plain}"
    tail = os.urandom(4).hex()
    return f"{plain[: LONGEST_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def _plain(text: str) -> str:
    letters = "".join(char if char in ALNUM else "-" for char in text.lower())
    return "-".join(filter(None, letters.split("-")))


def label(text: str) -> str:
    """Give a value that a label may have: the text itself where that is possible."""
    is_good = len(text) <= LONGEST_LABEL and all(
        char.lower() in ALNUM or char in "-_." for char in text
    )
    if is_good and (not text or (text[0].lower() in ALNUM and text[-1].lower() in ALNUM)):
        return text
    return digest.of_bytes(os.fsencode(text))[:LONGEST_LABEL]


# --- the objects ---------------------------------------------------------------------------


class Waybill(Value):
    """What of one submission is in its objects.

    `notes` are annotations, by which another process finds its way. `user` and `group` are those
    that the pod runs as by default.
    """

    name: str
    namespace: str
    image: str
    notes: Mapping[str, str]
    user: int = NOBODY
    group: int = NOBODY


def manifest(given: Settings, base: Mapping[str, Any], job: Job, waybill: Waybill) -> Object:
    """Make the Job, out of a template or of nothing."""
    made: Object = copy.deepcopy(dict(base))
    made.setdefault("apiVersion", "batch/v1")
    made["kind"] = "Job"
    made.pop("status", None)
    head = _mapping(made, "metadata")
    head.pop("generateName", None)
    head |= {"name": waybill.name, "namespace": waybill.namespace}
    head["labels"] = {**(head.get("labels") or {}), **labels(job, waybill.name)}
    head["annotations"] = {**(head.get("annotations") or {}), **waybill.notes}
    spec = _mapping(made, "spec")
    _told(spec, "backoffLimit", given.backoff_limit, 0)
    _told(spec, "ttlSecondsAfterFinished", given.ttl, 604_800)
    inner = _mapping(spec, "template")
    head = _mapping(inner, "metadata")
    head["labels"] = {**(head.get("labels") or {}), **labels(job, waybill.name)}
    inner["spec"] = merged(_pod(given, _mapping(inner, "spec"), job, waybill), given.pod)
    if base:
        _identified(inner["spec"], given)
    else:
        _secured(inner["spec"], given, waybill)
    return made


def _mapping(parent: Object, name: str) -> Object:
    found: Object = parent.get(name) or {}
    parent[name] = found
    return found


def _told(parent: Object, name: str, value: Any, usual: Any) -> None:
    """Put in what the settings say, else leave what is there, else what is usual."""
    if value is not None:
        parent[name] = value
    elif parent.get(name) is None:
        parent[name] = usual


def labels(job: Job, name: str) -> dict[str, str]:
    """Give the labels of the objects of a job."""
    found = {RUN: label(job.run_id), JOB: name}
    if job.labels.get("key"):
        found[KEY] = job.labels["key"][:LONGEST_LABEL]
    if job.labels.get("step"):
        found[STEP] = label(job.labels["step"])
    return found


def _pod(given: Settings, spec: Object, job: Job, waybill: Waybill) -> Object:
    _told(spec, "restartPolicy", None, "Never")
    grace = -(-job.grace_ms // 1000) + LEAVE_S
    spec["terminationGracePeriodSeconds"] = max(grace, spec.get("terminationGracePeriodSeconds", 0))
    _told(spec, "enableServiceLinks", None, False)  # noqa: FBT003  (a value of Kubernetes)
    if job.timeout_ms:
        limit = -(-(job.timeout_ms + job.grace_ms) // 1000) + SPARE_S
        _told(spec, "activeDeadlineSeconds", None, limit)
    if given.service_account:
        spec["serviceAccountName"] = given.service_account
    spec["volumes"] = [*(spec.get("volumes") or []), *_volumes(given, waybill.name)]
    containers = [*(spec.get("containers") or [{}])]
    containers[0] = _container(given, containers[0], job, waybill)
    spec["containers"] = containers
    more = {
        "nodeSelector": dict(given.node_selector),
        "tolerations": [dict(one) for one in given.tolerations],
        "imagePullSecrets": [{"name": name} for name in given.pull_secrets],
    }
    return merged(spec, {name: value for name, value in more.items() if value})


def _container(given: Settings, spec: Object, job: Job, waybill: Waybill) -> Object:
    """Give the container of the step; what starts in it is our program."""
    made = {**spec, "name": "step", "image": waybill.image}
    made.pop("args", None)
    made["command"] = [given.python, f"{ORDER}/{AGENT}", f"{ORDER}/{SPEC}"]
    mounts = [
        {"name": "repro-order", "mountPath": ORDER, "readOnly": True},
        {"name": "repro-scratch", "mountPath": SCRATCH},
    ]
    if given.volume:
        mounts.append({"name": "repro-volume", "mountPath": given.volume["path"]})
    made["volumeMounts"] = [*(spec.get("volumeMounts") or []), *mounts]
    asked = resources(given, job)
    if asked:
        made["resources"] = merged(
            made.get("resources") or {}, {"requests": asked, "limits": asked}
        )
    return made


def resources(given: Settings, job: Job) -> dict[str, str]:
    """Give what a job needs; its step comes before the settings."""
    asked = job.resources
    found = {
        "cpu": asked.cpus or given.cpus,
        "memory": asked.memory or given.memory,
        given.gpu_resource: asked.gpus or given.gpus,
    }
    return {name: str(value) for name, value in found.items() if value}


def _volumes(given: Settings, name: str) -> list[Object]:
    found: list[Object] = [
        {"name": "repro-order", "secret": {"secretName": name, "defaultMode": 0o444}},
        {"name": "repro-scratch", "emptyDir": {}},
    ]
    if given.volume:
        claim = {"claimName": given.volume["claim"]}
        found.append({"name": "repro-volume", "persistentVolumeClaim": claim})
    return found


def _secured(spec: Object, given: Settings, waybill: Waybill) -> None:
    """Ask for no right that a restricted namespace would refuse."""
    user = waybill.user if given.uid is None else given.uid
    group = waybill.group if given.gid is None else given.gid
    ours: Object = {"runAsUser": user, "runAsGroup": group}
    if user:
        ours["runAsNonRoot"] = True
    ours["seccompProfile"] = {"type": "RuntimeDefault"}
    spec["securityContext"] = merged(ours, spec.get("securityContext") or {})
    spec.setdefault("automountServiceAccountToken", bool(given.service_account))
    for container in spec["containers"]:
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def _identified(spec: Object, given: Settings) -> None:
    """Say who runs the pod of a template, where the settings do."""
    ours = {"runAsUser": given.uid, "runAsGroup": given.gid}
    said = {name: value for name, value in ours.items() if value is not None}
    if said:
        spec["securityContext"] = {**(spec.get("securityContext") or {}), **said}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> Object:
    """Merge mappings into mappings, append lists to lists, and replace all else."""
    made = dict(base)
    for name, value in more.items():
        old = made.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            made[name] = merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            made[name] = [*old, *value]
        else:
            made[name] = value
    return made


def secret(job: Job, owner: Mapping[str, Any], agent: bytes, spec: bytes) -> Object:
    """Make the Secret with which a Job's pod begins; it goes when `owner`, the Job, goes.

    Raises UsageError for one that the cluster would not take.
    """
    if len(agent) + len(spec) > LARGEST_SECRET - 4096:
        raise UsageError(
            f"the step's arguments and variables take {len(spec) >> 10} KiB, and a Kubernetes"
            " secret holds 1 MiB",
            hints=["give what is large as a file"],
        )
    name, head = owner["metadata"]["name"], owner["metadata"]
    reference = {
        "apiVersion": owner.get("apiVersion", "batch/v1"),
        "kind": "Job",
        "name": name,
        "uid": head["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": head["namespace"],
            "labels": labels(job, name),
            "ownerReferences": [reference],
        },
        "data": {
            AGENT: base64.b64encode(agent).decode(),
            SPEC: base64.b64encode(spec).decode(),
        },
    }

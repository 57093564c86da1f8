"""What the Kubernetes backend asks a cluster for, and how it reads what one says."""

import json
import os
import re

import pytest
from conftest import REPOSITORY

from repro import schemas
from repro.backends import kubeapi, kubeimage, kubejob, kubestate, webcache
from repro.backends.agent import carrier
from repro.backends.kubejob import Settings, Waybill
from repro.backends.kubernetes import Kubernetes, lacks
from repro.decode import Document
from repro.errors import ProjectInvalid, Unsupported, UsageError
from repro.ports import Job
from repro.spec import Resources
from repro.testing.contract import Output

PIN = f"sha256:{'0' * 64}"
LABELS = {"project": "My Project!", "step": "train", "key": "ab" * 32}
JOB = Job(
    run_id="0123456789abcdef",
    argv=("true",),
    variables={"SECRET": "in-no-job"},
    folder="/",
    image=f"r/x@{PIN}",
    labels=LABELS,
)
WAYBILL = Waybill(name="n-1", namespace="lab", image="r/x@" + PIN, notes={"repro.owner": "me"})
CONFIG = {
    "apiVersion": "v1",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "of-one"}},
        {"name": "two", "context": {"cluster": "c", "user": "u"}},
    ],
    "current-context": "one",
}


def like(job, **fields):
    return Job(**{**{name: getattr(job, name) for name in job.__fields__}, **fields})


@pytest.fixture
def known(tmp_path):
    """The variables of somebody who has a kubeconfig."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(CONFIG))
    return {"KUBECONFIG": str(path), "HOME": str(tmp_path)}


def made(config=None, job=JOB, base=None):
    return kubejob.manifest(kubejob.settings(config), base or {}, job, WAYBILL)


# --- the objects ---------------------------------------------------------------------------


def test_the_job_is_this():
    found = made(
        {
            "service-account": "robot",
            "node-selector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "pull-secrets": ["mine"],
            "memory": "4GiB",
            "gpus": 2,
            "volume": {"claim": "data", "folder": "/mnt/data"},
            "ttl": 60,
            "pod": {"priorityClassName": "low", "securityContext": {"fsGroup": 7}},
        },
        like(JOB, resources=Resources(cpus=3), timeout_ms=60_001, grace_ms=5001),
    )
    asked = {"cpu": "3", "memory": str(4 << 30), "nvidia.com/gpu": "2"}
    labels = {
        "repro.run": "0123456789abcdef",
        "repro.job": "n-1",
        "repro.key": ("ab" * 32)[:63],
        "repro.step": "train",
    }
    assert found == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "n-1",
            "namespace": "lab",
            "labels": labels,
            "annotations": {"repro.owner": "me"},
        },
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 60,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 36,
                    "activeDeadlineSeconds": 666,
                    "enableServiceLinks": False,
                    "serviceAccountName": "robot",
                    "automountServiceAccountToken": True,
                    "nodeSelector": {"disk": "ssd"},
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "imagePullSecrets": [{"name": "mine"}],
                    "priorityClassName": "low",
                    "securityContext": {
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        "fsGroup": 7,
                    },
                    "volumes": [
                        {
                            "name": "repro-order",
                            "secret": {"secretName": "n-1", "defaultMode": 292},
                        },
                        {"name": "repro-scratch", "emptyDir": {}},
                        {"name": "repro-volume", "persistentVolumeClaim": {"claimName": "data"}},
                    ],
                    "containers": [
                        {
                            "name": "step",
                            "image": f"r/x@{PIN}",
                            "command": ["python3", "/repro/order/agent", "/repro/order/spec.json"],
                            "resources": {"requests": asked, "limits": asked},
                            "volumeMounts": [
                                {
                                    "name": "repro-order",
                                    "mountPath": "/repro/order",
                                    "readOnly": True,
                                },
                                {"name": "repro-scratch", "mountPath": "/repro/scratch"},
                                {"name": "repro-volume", "mountPath": "/repro/volume"},
                            ],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    }


def test_no_value_of_a_variable_is_in_the_job():
    assert "in-no-job" not in json.dumps(made())


def test_root_is_asked_for_where_it_is_wanted():
    context = made({"uid": 0, "gid": 0})["spec"]["template"]["spec"]["securityContext"]
    assert (context["runAsUser"], "runAsNonRoot" in context) == (0, False)


def test_without_a_time_limit_there_is_no_deadline():
    assert "activeDeadlineSeconds" not in made()["spec"]["template"]["spec"]


def test_the_secret_goes_with_its_job_and_holds_what_the_pod_begins_with():
    owner = {**made(), "metadata": {**made()["metadata"], "uid": "u-1"}}
    found = kubejob.secret(JOB, owner, carrier.program(), b"{}")
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "n-1", "uid": "u-1"}
    ]
    assert set(found["data"]) == {"agent", "spec.json"}
    assert len(json.dumps(found)) < 200_000


def test_what_no_secret_can_hold_is_refused():
    owner = {**made(), "metadata": {**made()["metadata"], "uid": "u-1"}}
    with pytest.raises(UsageError, match="a Kubernetes secret holds 1 MiB"):
        kubejob.secret(JOB, owner, carrier.program(), b"x" * (1 << 20))


@pytest.mark.parametrize(
    ("project", "step", "run"),
    [
        ("My Project!", "train", "0123"),
        ("", "", ""),
        ("9lives", "_", "-"),
        ("äöü", "…", "x" * 300),
        ("x" * 80, "y" * 80, "z"),
        ("a--b", "-c-", "..d.."),
    ],
)
def test_any_name_becomes_that_of_a_job(project, step, run):
    job = like(JOB, run_id=run, labels={"project": project, "step": step})
    found = kubejob.named(job)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
    assert len(found) <= 52
    assert found != kubejob.named(job)


@pytest.mark.parametrize("text", ["abc", "a_b-c.D", "", "x" * 63])
def test_what_can_be_a_label_is_one(text):
    assert kubejob.label(text) == text


@pytest.mark.parametrize("text", ["-a", "a_", "x" * 64, "a b", "ä", "a/b"])
def test_what_cannot_be_a_label_has_a_digest_for_one(text):
    assert re.fullmatch("[0-9a-f]{63}", kubejob.label(text))


# --- templates -----------------------------------------------------------------------------

TEMPLATE = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: "{replaced with MLflow Project name}"
  namespace: mlflow
  labels: {team: vision}
spec:
  ttlSecondsAfterFinished: 100
  backoffLimit: 2
  template:
    metadata:
      annotations: {sidecar.istio.io/inject: "false"}
    spec:
      containers:
      - name: "{replaced with MLflow Project name}"
        image: "{replaced with URI of Docker image}"
        command: ["{replaced with MLflow Project entry point command}"]
        args: [left]
        env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}]
        resources: {limits: {memory: 512Mi, cpu: 100m}}
      - {name: sidecar, image: proxy}
      securityContext: {runAsUser: 5}
      restartPolicy: OnFailure
"""


def test_a_template_keeps_all_but_what_has_to_be_ours(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(TEMPLATE)
    found = made({"memory": "1GiB"}, base=kubejob.template(str(path)))
    assert found["metadata"]["labels"]["team"] == "vision"
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("n-1", "lab")
    assert found["spec"]["backoffLimit"] == 2
    assert found["spec"]["ttlSecondsAfterFinished"] == 100
    inner = found["spec"]["template"]
    assert inner["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert inner["spec"]["securityContext"] == {"runAsUser": 5}
    assert inner["spec"]["restartPolicy"] == "OnFailure"
    first, second = inner["spec"]["containers"]
    assert (first["image"], first["command"][0]) == (f"r/x@{PIN}", "python3")
    assert "args" not in first
    assert first["env"][0]["name"] == "TOKEN"
    assert first["resources"]["limits"] == {"memory": str(1 << 30), "cpu": "100m"}
    assert second == {"name": "sidecar", "image": "proxy"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kind: Pod\n", 1, "is no Job"),
        ("- 1\n", 1, "is no Job"),
        ("kind: Job\nspec:\n  template: {}\n", 3, "has no container"),
        (TEMPLATE.replace("backoffLimit: 2", "parallelism: 3"), 9, "`parallelism` can only be 1"),
        (TEMPLATE.replace("  labels: {team: vision}", "  labels: 7"), 6, "is no mapping"),
    ],
)
def test_a_template_that_is_none_is_refused_at_its_line(tmp_path, text, line, words):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ProjectInvalid, match=words) as raised:
        kubejob.template(str(path))
    where = raised.value.problems[0].where
    assert (where.file, where.line) == (str(path), line)


def test_a_template_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=f"no file `{tmp_path}/none`"):
        kubejob.template(f"{tmp_path}/none")


# --- the settings --------------------------------------------------------------------------

WRONG = """\
kube-contxt: x
namespace: UPPER
cpus: 0
memory: lots
volume: {claim: c}
node-selector: {a: 1}
cache: s3://bucket
pod: []
"""


def test_every_wrong_setting_is_named_with_its_line(tmp_path):
    path = tmp_path / "kubernetes.yaml"
    path.write_text(WRONG)
    with pytest.raises(ProjectInvalid) as raised:
        kubejob.settings(str(path))
    found = [(p.where.line, p.message) for p in raised.value.problems]
    assert [line for line, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found[0][1] == "unknown setting `kube-contxt`"
    assert raised.value.problems[0].hint == "did you mean `kube-context`?"


def test_containers_are_for_a_template():
    with pytest.raises(UsageError, match="takes no `containers`"):
        kubejob.settings({"pod": {"containers": []}})


def test_the_page_describes_every_setting_and_its_example_is_good(tmp_path):
    page = (REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md").read_text()
    example = page.split("`kubernetes.yaml`:\n\n```yaml\n")[1].split("```")[0]
    (tmp_path / "kubernetes.yaml").write_text(example)
    assert kubejob.settings(str(tmp_path / "kubernetes.yaml")).memory == 4 << 30
    described = set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE)))
    )
    names = set(schemas.load("backend-kubernetes")["properties"])
    assert names <= described
    assert {name.replace("-", "_") for name in names} == set(Settings.__fields__)


def test_the_role_of_the_page_is_what_is_asked_for():
    page = (REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md").read_text()
    text = next(t for t in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Role\n" in t)
    role = Document("role", text.partition("\n---")[0].encode()).root().plain()
    found = {kind: set(rule["verbs"]) for rule in role["rules"] for kind in rule["resources"]}
    assert found == {
        "jobs": {"create", "get", "list", "watch", "delete"},
        "pods": {"list", "watch", "delete"},
        "pods/log": {"get"},
        "secrets": {"create", "get", "delete"},
        "events": {"list"},
    }


# --- whom it asks --------------------------------------------------------------------------


def test_the_namespace_is_that_of_the_settings_the_template_or_the_context(known, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(TEMPLATE)
    template = {"kube-job-template-path": str(path)}
    for config, namespace in (
        ({}, "of-one"),
        ({"kube-context": "two"}, "default"),
        (template, "mlflow"),
        ({**template, "namespace": "mine"}, "mine"),
    ):
        assert Kubernetes(config, store="/", environ=known).namespace == namespace


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        (json.dumps(CONFIG), "three", "the context `three` of the kubeconfig cannot be used"),
        ("{", "", "the kubeconfig cannot be used"),
        ("{}", "", "the kubeconfig cannot be used"),
        ("[1]", "", "the kubeconfig cannot be used"),
    ],
)
def test_a_kubeconfig_that_leads_nowhere_is_explained(tmp_path, text, context, words):
    (tmp_path / "config").write_text(text)
    environ = {"KUBECONFIG": str(tmp_path / "config")}
    config = {"kube-context": context} if context else {}
    with pytest.raises(UsageError, match=words):
        Kubernetes(config, store="/", environ=environ)


def test_without_a_kubeconfig_it_says_so(tmp_path):
    environ = {"HOME": str(tmp_path)}
    assert lacks(environ) == "there is no kubeconfig"
    with pytest.raises(UsageError, match="there is no kubeconfig"):
        Kubernetes({}, store="/", environ=environ)


def test_nothing_is_lacking_where_there_is_a_kubeconfig(known):
    assert lacks(known) == ""


def test_what_a_pod_cannot_have_is_refused(known, tmp_path):
    backend = Kubernetes({"cache": "http://127.0.0.1:9"}, store="/", environ=known)
    for fields, error, words in (
        ({"image": ""}, Unsupported, "has none"),
        ({"binds": (("/data", "/d", "ro"),)}, UsageError, "does not see `/data`"),
        ({"container": (("gpus", "all"),)}, UsageError, "docker's option `gpus`"),
    ):
        with pytest.raises(error, match=words):
            backend.submit(like(JOB, folder=str(tmp_path), **fields), Output())


def test_without_a_way_for_files_it_says_so(known, tmp_path):
    with pytest.raises(UsageError, match="no way for files"):
        Kubernetes({}, store="/", environ=known).submit(like(JOB, folder=str(tmp_path)), Output())


def test_the_cache_of_the_store_is_used_where_it_is_on_the_web(known):
    for url, used in (("https://c/x", "https://c/x"), ("s3://b/x", ""), ("", "")):
        assert Kubernetes({}, store="/", environ={**known, "REPRO_REMOTE": url}).cache == used


def test_an_image_of_this_machine_needs_a_repository(known):
    assert kubeimage.reachable(f"r/x@{PIN}", "", known) == f"r/x@{PIN}"
    with pytest.raises(UsageError, match="on this machine alone") as raised:
        kubeimage.reachable(PIN, "", known)
    assert "`repository-uri`" in raised.value.hints[0]


# --- credentials of the cache --------------------------------------------------------------


def test_credentials_of_a_cache_are_headers_and_not_in_its_address():
    found = webcache.carriage("https://me:p%40ss@c.example.org/x/", {})
    assert found["url"] == "https://c.example.org/x"
    assert found["headers"] == {"Authorization": "Basic bWU6cEBzcw=="}
    found = webcache.carriage("https://c", {"REPRO_REMOTE_TOKEN": "tok"})
    assert found["headers"] == {"Authorization": "Bearer tok"}
    assert found["token"] != webcache.carriage("https://c", {})["token"]


def test_credentials_of_a_cache_do_not_travel_in_the_clear():
    with pytest.raises(UsageError, match="has no TLS") as raised:
        webcache.carriage("http://me:hidden@c.example.org", {})
    assert "hidden" not in raised.value.message
    assert webcache.carriage("http://me:x@127.0.0.1:1", {})["headers"]


@pytest.mark.parametrize("url", ["https://", "ftp://x", "https://x?q=1", "https://x:port", "x"])
def test_what_is_no_address_of_a_cache_is_refused(url):
    with pytest.raises(UsageError, match="no address of a cache"):
        webcache.carriage(url, {})


# --- what the cluster says -----------------------------------------------------------------


def pod(name="p", at="1", phase="Pending", **status):
    return {
        "metadata": {"name": name, "creationTimestamp": at},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, **status},
    }


def waiting(reason, message=""):
    state = {"waiting": {"reason": reason, "message": message}}
    return pod(containerStatuses=[{"state": state}])


def ended(code, reason="Error", message="", **more):
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return pod(phase="Failed", containerStatuses=[{"state": state}], **more)


def over(kind="Failed", reason="BackoffLimitExceeded"):
    return {"status": {"conditions": [{"type": kind, "status": "True", "reason": reason}]}}


UNSCHEDULABLE = pod(
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes",
        }
    ]
)
DISRUPTED = ended(
    143,
    conditions=[
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": "m",
        }
    ],
)


@pytest.mark.parametrize(
    ("job", "pods", "is_over", "word", "reason"),
    [
        ({}, [], False, "NoPod", ""),
        ({"spec": {"suspend": True}}, [], False, "Suspended", "the job is suspended"),
        ({}, [UNSCHEDULABLE], False, "Unschedulable", "0/1 nodes"),
        ({}, [waiting("ContainerCreating")], False, "", ""),
        ({}, [waiting("ErrImagePull", "not\nfound")], False, "ErrImagePull", "not found"),
        (
            {},
            [waiting("CreateContainerConfigError", "m")],
            False,
            "CreateContainerConfigError",
            "m",
        ),
        (over("Complete", ""), [ended(0, "Completed")], True, "Completed", ""),
        (over(), [ended(7)], True, "Failed", ""),
        (over(), [ended(137, "OOMKilled")], True, "OOMKilled", ""),
        (over(), [ended(128, "StartError", "no python3")], True, "StartError", "no python3"),
        (over(), [pod(phase="Failed", reason="Evicted", message="m")], True, "Evicted", "m"),
        (over(), [DISRUPTED], True, "PreemptionByScheduler", "m"),
        (over(reason="DeadlineExceeded"), [], True, "DeadlineExceeded", ""),
        (over(), [{**pod(), kubestate.DELETED: True}], True, "PodDeleted", ""),
        ({}, [{**pod(), kubestate.DELETED: True}], False, "NoPod", ""),
        (over(), [pod(phase="Running")], False, "", ""),
        (None, [pod(phase="Running")], False, "", ""),
        (None, [], True, "Deleted", ""),
        (None, [ended(143)], True, "Deleted", ""),
        (None, [ended(137, "OOMKilled")], True, "OOMKilled", ""),
        ({"metadata": {"deletionTimestamp": "t"}}, [ended(143)], True, "Deleted", ""),
        ({"metadata": {"deletionTimestamp": "t"}}, [pod(phase="Running")], False, "", ""),
        ({}, [ended(1), pod("q", at="2", phase="Running")], False, "", ""),
    ],
)
def test_a_job_and_its_pods_are_read(job, pods, is_over, word, reason):
    found = kubestate.read(job, pods)
    assert (found.is_over, found.word, found.reason) == (is_over, word, reason)


@pytest.mark.parametrize(
    ("word", "cause"),
    [("DeadlineExceeded", "timeout"), ("OOMKilled", "exit"), ("Evicted", "lost"), ("x", "lost")],
)
def test_the_cause_of_an_end_follows_from_its_word(word, cause):
    assert kubestate.State(word=word).cause == cause


def test_a_warning_counts_until_something_good_came_after():
    bad = {
        "type": "Warning",
        "reason": "FailedMount",
        "message": "m",
        "lastTimestamp": "2026-01-02",
    }
    good = {"type": "Normal", "reason": "Pulling", "lastTimestamp": "2026-01-02"}
    later = {**bad, "lastTimestamp": None, "series": {"lastObservedTime": "2026-01-03T0"}}
    assert kubestate.warning([]) == ("", "")
    assert kubestate.warning([bad]) == ("FailedMount", "m")
    assert kubestate.warning([bad, good]) == ("", "")
    assert kubestate.warning([good, later]) == ("FailedMount", "m")


def test_a_proxy_is_used_unless_the_cluster_is_excepted(known, monkeypatch):
    class Known:
        host, proxy, no_proxy, proxy_headers = "https://k.example.org", "http://p:1", "", None
        verify_ssl, ssl_ca_cert, cert_file, key_file = True, None, None, None
        assert_hostname, tls_server_name = None, "k"

    assert type(kubeapi._pool(Known)).__name__ == "ProxyManager"
    Known.no_proxy = ".example.org"
    assert type(kubeapi._pool(Known)).__name__ == "PoolManager"


def test_this_machine_s_user_runs_what_uses_a_volume(known, tmp_path):
    volume = {"claim": "c", "folder": str(tmp_path)}
    backend = Kubernetes({"volume": volume}, store="/", environ=known)
    found = backend._waybill(JOB, "i", "t", backend._way_for(JOB))
    assert found.user == (os.getuid() or 65532)
    assert found.notes["repro.parcel"] == "runs/0123456789abcdef"

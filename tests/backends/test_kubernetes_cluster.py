"""Jobs of a real Kubernetes of one node on loopback."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY
from support.docker_engine import docker_engine  # noqa: F401  (a fixture)
from support.kubernetes_double import blobs  # noqa: F401  (a fixture)
from support.kubernetes_engine import GATEWAY, kubernetes_engine  # noqa: F401  (a fixture)

from repro.backends import kubeimage
from repro.backends.kubernetes import Kubernetes
from repro.errors import Unreachable, UsageError
from repro.ports import Job
from repro.spec import Resources
from repro.testing.contract import BackendContract, Output

HOST = pathlib.Path(__file__).with_name("kubernetes_host.py")
LIVES = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
POD = {"hostNetwork": True}
PATH = "/usr/local/bin:/usr/bin:/bin"
ABSENT = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def cluster(kubernetes_engine):  # noqa: F811
    """The cluster, and a namespace of our own in it."""
    name = f"repro-{os.getpid()}"
    kubernetes_engine.kubectl("create", "namespace", name)
    kubernetes_engine.until(lambda: _has_account(kubernetes_engine, name))
    yield kubernetes_engine, name
    kubernetes_engine.kubectl("delete", "namespace", name, "--wait=false")


def _has_account(engine, namespace):
    return "default" in engine.kubectl("-n", namespace, "get", "sa", "-o", "name", check=False)


@pytest.fixture(scope="module")
def claim(cluster, tmp_path_factory):
    """A volume that pods and this machine share: (claim, folder)."""
    engine, namespace = cluster
    folder = tmp_path_factory.mktemp("volume")
    name = f"volume-{namespace}"
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    common = {"accessModes": modes, "storageClassName": ""}
    about = {**common, "capacity": size, "hostPath": {"path": str(folder)}}
    engine.create(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": about}
    )
    engine.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "shared", "namespace": namespace},
            "spec": {**common, "resources": {"requests": size}, "volumeName": name},
        }
    )
    form = "jsonpath={.status.phase}"
    words = ("-n", namespace, "get", "pvc", "shared", "-o", form)
    engine.until(lambda: engine.kubectl(*words) == "Bound")
    yield "shared", folder
    engine.kubectl("delete", "pv", name, "--wait=false")


class Site:
    """A namespace of the cluster, a cache, and jobs."""

    def __init__(self, cluster, cache, root):
        (self.engine, self.namespace), self.cache, self.root = cluster, cache, root
        self.count = 0

    def config(self, **config):
        way = {} if "volume" in config else {"cache": self.cache.url}
        return {**way, "namespace": self.namespace, "pod": POD, **config}

    def backend(self, environ=None, **config):
        environ = {**os.environ, **self.engine.environ, **(environ or {})}
        return Kubernetes(self.config(**config), store="/none", environ=environ)

    def job(self, text, **fields):
        self.count += 1
        base = self.root / f"job-{self.count}"
        (base / "work").mkdir(parents=True)
        given = {"image": self.engine.image, "run_id": f"{os.getpid()}-{id(self)}-{self.count}"}
        return Job(
            argv=("sh", "-c", text),
            variables={"PATH": PATH, **fields.pop("variables", {})},
            folder=str(base / "work"),
            base=str(base),
            **{**given, **fields},
        )

    def begun(self, text, until=b"ready", backend=None, **fields):
        output = Output()
        running = (backend or self.backend()).submit(self.job(text, **fields), output)
        assert not until or output.heard(until, 120), output.chunks
        return running, output

    def kubectl(self, *words, **options):
        return self.engine.kubectl("-n", self.namespace, *words, **options)

    def left(self):
        found = self.kubectl("get", "jobs,pods,secrets", "-o", "name").split()
        return [name for name in found if "token" not in name]


@pytest.fixture
def site(cluster, blobs, tmp_path):  # noqa: F811
    return Site(cluster, blobs, tmp_path)


class TestContractByCache(BackendContract):
    patience = 120.0

    @pytest.fixture(autouse=True)
    def _cluster(self, site):
        self.site = site

    def backend(self):
        return self.site.backend()

    def job(self, **fields):
        variables = {**fields.pop("variables"), "PATH": PATH}
        return Job(image=self.site.engine.image, variables=variables, **fields)


class TestContractByVolume(TestContractByCache):
    @pytest.fixture(autouse=True)
    def _volume(self, claim):
        self.claim = claim
        yield
        assert os.listdir(claim[1] / "runs") == []

    def backend(self):
        name, folder = self.claim
        return self.site.backend(volume={"claim": name, "folder": str(folder)})


# --- what a pod is -------------------------------------------------------------------------


def test_nobody_runs_it_and_it_has_no_rights(site):
    text = (
        "id -u; id -g; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status;"
        "ls /var/run/secrets; echo x >/etc/x"
    )
    running, output = site.begun(text, until=b"")
    assert running.wait().code == 1
    found = " ".join(output.out.decode().split())
    assert found == "65532 65532 CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"


def test_what_it_asks_for_is_asked_of_the_cluster(site):
    running, _ = site.begun(LIVES, resources=Resources(cpus=1, memory=64 << 20))
    pod = json.loads(site.kubectl("get", "pods", "-l", f"repro.job={running.name}", "-o", "json"))
    spec = pod["items"][0]["spec"]["containers"][0]["resources"]
    assert spec == {name: {"cpu": "1", "memory": str(64 << 20)} for name in ("limits", "requests")}
    running.cancel()


def test_the_role_of_the_page_is_enough(site, tmp_path):
    page = (REPOSITORY / "docs" / "how-to" / "run-on-kubernetes.md").read_text()
    text = next(t for t in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: Role\n" in t)
    text = text.replace("namespace: experiments", f"namespace: {site.namespace}")
    account = f"system:serviceaccount:{site.namespace}:alice"
    site.kubectl("create", "serviceaccount", "alice")
    site.kubectl("create", "-f", "-", stdin=text.replace("name: alice", f"name: {account}"))
    form = "jsonpath={.secrets[0].name}"
    site.engine.until(lambda: site.kubectl("get", "sa", "alice", "-o", form))
    secret = site.kubectl("get", "sa", "alice", "-o", form)
    token = site.kubectl(
        "get", "secret", secret, "-o", "go-template={{.data.token | base64decode}}"
    )
    config = json.loads(pathlib.Path(site.engine.kubeconfig).read_text())
    config["users"] = [{"name": "admin", "user": {"token": token}}]
    (tmp_path / "config").write_text(json.dumps(config))
    backend = site.backend({"KUBECONFIG": str(tmp_path / "config")})
    running, output = site.begun("echo ready; echo out >out; exit 3", backend=backend)
    assert (running.wait().code, output.err) == (3, b"")
    running, _ = site.begun(LIVES, backend=backend)
    backend.find("none")
    running.cancel()
    assert running.wait().cause == "cancel"
    mine = [name for name in site.left() if running.name in name]
    assert mine == []


def test_a_template_is_filled_in(site, tmp_path):
    template = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "x", "namespace": "none", "labels": {"team": "vision"}},
        "spec": {
            "template": {
                "spec": {
                    "hostNetwork": True,
                    "restartPolicy": "Never",
                    "containers": [
                        {"name": "x", "image": "x", "env": [{"name": "MINE", "value": "of it"}]}
                    ],
                }
            }
        },
    }
    (tmp_path / "job.json").write_text(json.dumps(template))
    backend = site.backend(**{"kube-job-template-path": str(tmp_path / "job.json"), "pod": {}})
    running, output = site.begun("echo $MINE; id -u; sleep 1", until=b"of it", backend=backend)
    assert "vision" in site.kubectl("get", "job", running.name, "-o", "json")
    assert running.wait().code == 0
    assert output.out == b"of it\n0\n"


# --- what it says no to --------------------------------------------------------------------


def test_what_the_cluster_refuses_is_said_in_its_words(site):
    for config, words in (
        ({"namespace": "no-such-namespace"}, 'namespaces "no-such-namespace" not found'),
        ({"kube-context": "limited"}, 'User "limited" cannot list resource "jobs"'),
        ({"pod": {"restartPolicy": "Sometimes"}}, "Sometimes"),
    ):
        before = site.kubectl("get", "jobs,secrets", "-o", "name")
        with pytest.raises(UsageError, match=words):
            site.begun("true", until=b"", backend=site.backend(**config))
        assert site.kubectl("get", "jobs,secrets", "-o", "name") == before


# --- what keeps it from beginning ----------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (f"127.0.0.1:1/none@{ABSENT}", "connection refused"),
        ("{registry}/none@" + ABSENT, "not found"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_given_up(site, image, words):
    image = image.format(registry=site.engine.registry)
    running, output = site.begun("true", until=b"", backend=site.backend(patience=3), image=image)
    with pytest.raises(Unreachable, match=f"its image cannot be pulled: ErrImagePull: .*{words}"):
        running.wait()
    assert output.err.startswith(b"repro: the image cannot be pulled: ErrImagePull: ")


def test_a_name_that_is_none_is_given_up_at_once(site):
    running, _ = site.begun("true", until=b"", image=f"UPPER@{ABSENT}")
    with pytest.raises(Unreachable, match="InvalidImageName"):
        running.wait()


def test_an_image_without_python_is_explained(site):
    running, _ = site.begun("true", until=b"", backend=site.backend(python="python9"))
    with pytest.raises(
        Unreachable, match='could not begin: .*"python9": executable file not found'
    ):
        running.wait()


def test_a_job_that_no_node_takes_waits_and_can_be_cancelled(site):
    running, output = site.begun("true", until=b"", resources=Resources(cpus=64))
    assert output.heard(b"no node takes the job yet: Unschedulable: 0/1 nodes", 60)
    running.cancel()
    assert (running.wait().cause, running.wait().code) == ("cancel", 143)
    assert [name for name in site.left() if running.name in name] == []


def test_a_quota_that_is_used_up_is_said_and_waited_for(site):
    site.kubectl("create", "quota", "none", "--hard=pods=0")
    try:
        running, output = site.begun("exit 4", until=b"")
        assert output.heard(b"exceeded quota", 60)
        assert b"the job does not begin: FailedCreate" in output.err
    finally:
        site.kubectl("delete", "quota", "none")
    assert running.wait().code == 4


def test_a_claim_that_is_not_there_is_given_up(site, tmp_path):
    volume = {"claim": "none", "folder": str(tmp_path)}
    backend = site.backend(volume=volume, **{"pending-limit": 8})
    running, _ = site.begun("true", until=b"", backend=backend)
    with pytest.raises(Unreachable, match='has not begun in 8 s: .*claim "none" not found'):
        running.wait()


# --- how it ends without its own word ------------------------------------------------------


def test_too_much_memory_is_explained(site):
    text = "echo ready; exec python3 -c 'x = bytearray(400_000_000); import time; time.sleep(60)'"
    running, output = site.begun(text, resources=Resources(memory=60 << 20))
    end = running.wait()
    assert (end.code, end.cause) == (137, "exit")
    assert b"its memory was not enough" in output.err


def again(site):
    """Give the text of a job that ends with 3 where it is started again."""
    mark = f"{site.cache.url}/cas/mark"
    return (
        f"[ ! -e in ] || exit 9; echo >in; wget -qO- {mark} && exit 3; echo ready; exec sleep 600"
    )


def is_lost_or_again(site, running, output):
    """Say whether a job was lost, or started again, as newer and older clusters do it."""
    end = running.wait()
    if end.cause == "lost":
        told = any(words in output.err for words in (b"its pod was", b"its node"))
        return told and output.out == b"ready\n"
    is_told = b"the job was started again by Kubernetes" in output.err
    return is_told and (end.code, output.out) == (3, b"ready\nx")


def pod_of(site, running):
    found = site.kubectl("get", "pods", "-l", f"repro.job={running.name}", "-o", "name")
    return found.strip().removeprefix("pod/")


def test_a_pod_that_is_deleted_is_lost_or_starts_again(site):
    running, output = site.begun(again(site))
    (site.cache.root / "cas-mark").write_text("x")
    site.kubectl("delete", "pod", pod_of(site, running), "--wait=false")
    assert is_lost_or_again(site, running, output), output.chunks


def test_a_job_that_is_deleted_behind_our_back_is_lost(site):
    running, output = site.begun(LIVES)
    site.kubectl("delete", "job", running.name)
    assert (running.wait().cause, output.out) == ("lost", b"ready\nbye\n")
    assert b"the job was deleted in the cluster" in output.err


def test_an_evicted_pod_starts_again(site):
    running, output = site.begun(again(site), backend=site.backend(**{"backoff-limit": 2}))
    (site.cache.root / "cas-mark").write_text("x")
    evict(site, pod_of(site, running))
    assert is_lost_or_again(site, running, output), output.chunks
    assert running.wait().code == 3


def evict(site, pod):
    document = {
        "apiVersion": "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": site.namespace},
    }
    path = f"/api/v1/namespaces/{site.namespace}/pods/{pod}/eviction"
    site.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(document))


def test_cancel_leaves_nothing_in_the_cluster(site):
    running, _ = site.begun(LIVES)
    assert len([name for name in site.left() if running.name in name]) == 3
    running.cancel()
    assert [name for name in site.left() if running.name in name] == []
    running.cancel()


# --- without us, and without the cluster ---------------------------------------------------


def submitted_by_another(site, text):
    job = site.job(text)
    asked = {
        "config": site.config(),
        "environ": site.engine.environ,
        "base": job.base,
        "text": text,
        "run": job.run_id,
        "image": job.image,
    }
    process = subprocess.Popen(
        [sys.executable, str(HOST)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()
    return job, process


def test_a_job_outlives_us_and_is_found_again_with_all_it_said(site):
    text = (
        f"echo one; until wget -qO- {site.cache.url}/cas/go; do sleep 0.1; done 2>/dev/null;"
        " echo two; echo out >out"
    )
    job, process = submitted_by_another(site, text)
    assert process.stdout.readline() == b"one\n"
    process.kill()
    process.communicate()
    backend = site.backend()
    assert backend.orphans() == (job.run_id,)
    output = Output()
    running = backend.find(job.run_id, output, job.base)
    assert output.heard(b"one\n", 60)
    (site.cache.root / "cas-go").touch()
    assert running.wait().code == 0
    assert output.out == b"one\ntwo\n"
    assert pathlib.Path(job.folder, "out").read_text() == "out\n"
    assert (backend.find(job.run_id), backend.orphans()) == (None, ())


def test_a_job_that_outlives_us_can_be_cancelled(site):
    job, process = submitted_by_another(site, LIVES)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    running = site.backend().find(job.run_id)
    running.cancel()
    assert running.wait().cause == "cancel"
    assert [name for name in site.left() if running.name in name] == []


def test_the_api_may_be_away_while_jobs_run_and_are_submitted(site):
    text = f"echo ready; until wget -qO- {site.cache.url}/cas/go; do sleep 0.1; done 2>&1; exit 5"
    running, _ = site.begun(text)
    deleted, _ = site.begun(LIVES)
    site.engine.stop_apiserver()
    try:
        later = []
        thread = threading.Thread(target=lambda: later.append(site.begun("exit 6", until=b"")[0]))
        thread.start()
        time.sleep(2)
        assert (running.poll(), later) == (None, [])
    finally:
        site.engine.start_apiserver()
    site.kubectl("delete", "job", deleted.name)
    (site.cache.root / "cas-go").touch()
    assert running.wait().code == 5
    assert deleted.wait().cause == "lost"
    thread.join(120)
    assert later[0].wait().code == 6


def test_a_job_whose_node_fails_is_lost_or_starts_again(site):
    running, output = site.begun(again(site))
    (site.cache.root / "cas-mark").write_text("x")
    words = ("get", "pod", pod_of(site, running), "-o", "jsonpath={.status.phase}")
    site.engine.until(lambda: site.kubectl(*words) == "Running")
    site.engine.lose_node()
    try:
        told = b"the job has told nothing for 30 s: NodeNotReady: "
        assert output.heard(told, 120), output.chunks
    finally:
        site.engine.start_node()
    assert is_lost_or_again(site, running, output), output.chunks


# --- images, and what a step logs ----------------------------------------------------------


def test_what_a_step_logs_reaches_us_at_an_advertised_address(site):
    (site.cache.root / "cas-hello").write_text("hello")
    variables = {"U": f"{site.cache.url}/cas/hello"}
    backend = site.backend(advertise=GATEWAY)
    running, output = site.begun(
        "wget -qO- $U; echo; echo $U", until=b"", backend=backend, variables=variables
    )
    assert running.wait().code == 0
    said, url = output.out.decode().split()
    assert said == "hello"
    assert url.startswith(f"http://{GATEWAY}:")


def test_an_image_of_this_machine_is_pushed_once_and_run(site, docker_engine):  # noqa: F811
    client = docker_engine.client()
    name = site.engine.image
    repository, _, pin = name.partition("@")
    client.api.pull(repository, tag=pin)
    image = client.api.inspect_image(name)["Id"]
    client.close()
    place = f"{site.engine.registry}/pushed/{os.getpid()}:mine"
    backend = site.backend(docker_engine.environ, **{"repository-uri": place})
    running, _ = site.begun("echo ready; exit 3", backend=backend, image=image)
    assert running.wait().code == 3
    environ = {**backend.environ, "DOCKER_HOST": "unix:///nobody"}
    kubeimage._PUSHED.clear()
    found = kubeimage.reachable(image, place, environ)  # without the engine: it is there
    assert found.startswith(place.removesuffix(":mine") + "@sha256:")

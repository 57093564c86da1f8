"""The Kubernetes that other tests use does what they rely on."""

import functools
import json
import pathlib
import threading
import uuid
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import kubernetes_engine as engines
from support.kubernetes_engine import kubernetes_engine  # noqa: F401  (a fixture)

SECONDS = "--timeout=120s"


class Jobs:
    """Makes jobs under names of its own, and removes them."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.label = f"test-{uuid.uuid4().hex}"
        self.count = 0

    def begin(self, *argv, image="", **pod):
        self.count += 1
        name = f"{self.label}-{self.count}"
        container = {"name": "job", "image": image or self.cluster.image, "command": argv}
        pod = {"restartPolicy": "Never", "hostNetwork": True, "containers": [container], **pod}
        about = {"name": name, "labels": {"test": self.label}}
        self.cluster.create(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": about,
                "spec": {"backoffLimit": 0, "template": {"metadata": about, "spec": pod}},
            }
        )
        return name

    def end(self, name, condition="complete"):
        """Wait for the end; give what the job has printed."""
        self.cluster.kubectl("wait", f"--for=condition={condition}", f"job/{name}", SECONDS)
        return self.cluster.kubectl("logs", f"job/{name}")

    def pods(self):
        listed = self.cluster.kubectl("get", "pods", "-l", f"test={self.label}", "-o", "json")
        return json.loads(listed)["items"]

    def until_running(self):
        """Wait until the one pod runs, and give it."""
        self.cluster.until(lambda: any(p["status"]["phase"] == "Running" for p in self.pods()))
        (pod,) = self.pods()
        return pod

    def is_running(self, pod):
        """Say whether that pod is said to run, still."""
        same = [p for p in self.pods() if p["metadata"]["uid"] == pod["metadata"]["uid"]]
        return any(p["status"]["phase"] == "Running" for p in same)

    def remove(self):
        self.cluster.kubectl("delete", "job,pod", "-l", f"test={self.label}", "--grace-period=1")


@pytest.fixture
def jobs(kubernetes_engine):  # noqa: F811
    made = Jobs(kubernetes_engine)
    yield made
    made.remove()


def test_a_job_in_the_base_image_has_a_shell_and_this_python(jobs):
    program = "import ctypes, hashlib, json, ssl, zlib; print('python', json.dumps(1))"
    name = jobs.begin("sh", "-c", f'echo shell | cat; exec python3 -c "{program}"')
    assert jobs.end(name) == "shell\npython 1\n"


def test_a_job_that_fails_tells_its_code_and_what_it_has_printed(jobs):
    name = jobs.begin("sh", "-c", "echo out; echo err >&2; exit 7")
    assert sorted(jobs.end(name, "failed").splitlines()) == ["err", "out"]
    (pod,) = jobs.pods()
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_an_image_made_here_is_pulled_by_digest(jobs, kubernetes_engine, tmp_path):  # noqa: F811
    layer = tmp_path / "layer.tar"
    layer.write_bytes(engines.hub.tarred({"text": (b"made here", 0o644)}, {}))
    layers = [kubernetes_engine.root / "system.tar", layer]
    image = kubernetes_engine.push(f"test/{jobs.label}", layers)
    assert "@sha256:" in image
    assert jobs.end(jobs.begin("cat", "/text", image=image)) == "made here"


@pytest.mark.parametrize(("host", "address"), [(True, "127.0.0.1"), (False, engines.GATEWAY)])
def test_a_pod_reaches_this_machine(jobs, host, address, tmp_path):
    (tmp_path / "text").write_text("from here")
    handler = functools.partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://{address}:{server.server_port}/text"
            assert jobs.end(jobs.begin("wget", "-qO-", url, hostNetwork=host)) == "from here"
        finally:
            server.shutdown()
            thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words):
        pass


def test_who_has_no_rights_is_refused(kubernetes_engine):  # noqa: F811
    said = kubernetes_engine.kubectl("get", "jobs", "-v=6", role="limited", check=False)
    assert "403 Forbidden" in said
    assert "jobs.batch is forbidden" in said


def test_jobs_go_on_while_the_api_is_away(jobs, kubernetes_engine, tmp_path):  # noqa: F811
    volume = {"name": "here", "hostPath": {"path": str(tmp_path)}}
    wait = "until [ -e /here/end ]; do sleep 0.1; done; echo ended > /here/said; echo ended"
    container = {"name": "job", "image": kubernetes_engine.image, "command": ["sh", "-c", wait]}
    container["volumeMounts"] = [{"name": "here", "mountPath": "/here"}]
    name = jobs.begin(containers=[container], volumes=[volume])
    jobs.until_running()
    kubernetes_engine.stop_apiserver()
    try:
        assert not kubernetes_engine.answers()
        (tmp_path / "end").touch()
        kubernetes_engine.until((tmp_path / "said").exists)
    finally:
        kubernetes_engine.start_apiserver()
    assert jobs.end(name) == "ended\n"


def test_a_lost_node_takes_its_pods_with_it_and_comes_back(jobs, kubernetes_engine):  # noqa: F811
    jobs.begin("sleep", "1000")
    lost = jobs.until_running()
    kubernetes_engine.lose_node()
    try:
        assert not any(is_sleeping(p) for p in pathlib.Path("/proc").glob("[0-9]*/cmdline"))
        kubernetes_engine.until(lambda: not kubernetes_engine.ready())
    finally:
        kubernetes_engine.start_node()
    kubernetes_engine.until(lambda: not jobs.is_running(lost))


def is_sleeping(file):
    try:
        return file.read_bytes() == b"sleep\x001000\x00"
    except OSError:
        return False

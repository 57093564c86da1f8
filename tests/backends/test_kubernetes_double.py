"""Jobs of a cluster that fails on command, over real HTTP."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest
from support.kubernetes_double import PYTHON, blobs, double  # noqa: F401  (fixtures)

from repro.backends import kubeapi, kuberun
from repro.backends.kubernetes import Kubernetes
from repro.errors import Unreachable, UsageError
from repro.ports import Job
from repro.testing.contract import BackendContract, Output

IMAGE = f"registry.example.org/x@sha256:{'0' * 64}"
HOST = pathlib.Path(__file__).with_name("kubernetes_host.py")
LIVES = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, double, blobs):  # noqa: F811
        self.double, self.blobs = double, blobs
        yield
        assert double.objects["jobs"] == double.objects["secrets"] == {}

    def backend(self):
        config = {"cache": self.blobs.url, "python": PYTHON}
        return Kubernetes(config, store="/none", environ=self.double.environ)

    def job(self, **fields):
        return Job(image=IMAGE, **fields)


class Site:
    """The stand-in, a cache, and jobs for it."""

    def __init__(self, api, cache, root):
        self.api, self.cache, self.root = api, cache, root
        self.count = 0

    def config(self, **config):
        return {"cache": self.cache.url, "python": PYTHON, **config}

    def backend(self, environ=None, **config):
        environ = {**self.api.environ, **(environ or {})}
        return Kubernetes(self.config(**config), store="/none", environ=environ)

    def job(self, text, **fields):
        self.count += 1
        base = self.root / f"job-{self.count}"
        (base / "work").mkdir(parents=True)
        return Job(
            run_id=f"run{self.count}",
            argv=("sh", "-c", text),
            variables=fields.pop("variables", {}),
            folder=str(base / "work"),
            base=str(base),
            image=IMAGE,
            **fields,
        )

    def begun(self, text, until=b"ready", backend=None, **fields):
        output = Output()
        running = (backend or self.backend()).submit(self.job(text, **fields), output)
        assert not until or output.heard(until, 60), output.chunks
        return running, output

    def left(self):
        return [*self.api.objects["jobs"], *self.api.objects["secrets"]]

    def stuck(self, backend=None, **status):
        """Begin a job whose pod does not come to run, and show it so."""
        self.api.holds = True
        running, output = self.begun("true", until=b"", backend=backend)
        pod = self.api.only("pods")["metadata"]["name"]
        self.api.change("pods", pod, status=status)
        return running, output, pod


@pytest.fixture
def site(double, blobs, tmp_path):  # noqa: F811
    return Site(double, blobs, tmp_path)


@pytest.fixture
def hasty(monkeypatch):
    """Be quicker with what takes seconds."""
    monkeypatch.setattr(kuberun, "LATE", 0.2)
    monkeypatch.setattr(kuberun, "SETTLE", 0.5)
    monkeypatch.setattr(kuberun, "CLEARING", 1.0)
    monkeypatch.setattr(kubeapi, "FIRST_PATIENCE", 1.0)


def waiting(reason, message):
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


# --- how it is submitted -------------------------------------------------------------------


def test_the_command_also_gets_the_variables_of_the_image(site):
    running, output = site.begun("env", until=b"", variables={"A": "1"})
    assert running.wait().code == 0
    found = set(output.out.decode().split("\n")) - {""}
    assert {line.partition("=")[0] for line in found} - {"PWD", "SHLVL", "_"} == {"A", "PATH"}


def test_nothing_of_the_job_shows_a_value(site):
    site.api.holds = True
    site.begun("true", until=b"", variables={"TOKEN": "hidden-value"})
    assert "hidden-value" not in json.dumps(site.api.only("jobs"))
    site.api.holds = False


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know who we are"),
        (403, "does not let us"),
        (404, "refuses"),
        (422, "refuses"),
    ],
)
def test_what_the_cluster_refuses_is_said_and_nothing_is_left(site, hasty, status, words):
    for method, kind in (("GET", "jobs"), ("GET", "pods"), ("POST", "jobs"), ("POST", "secrets")):
        site.api.fail(method, kind, status, watch=False if method == "GET" else None)
        with pytest.raises(UsageError, match=words) as raised:
            site.begun("true", until=b"")
        assert f"the double says {status}" in raised.value.message
        assert site.left() == []


def test_a_token_that_is_wrong_is_explained(site, tmp_path):
    path = pathlib.Path(site.api.environ["KUBECONFIG"])
    (tmp_path / "wrong").write_text(path.read_text().replace("secret-of-me", "other"))
    with pytest.raises(UsageError, match="does not know who we are"):
        site.begun("true", until=b"", backend=site.backend({"KUBECONFIG": str(tmp_path / "wrong")}))


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_what_fails_for_a_moment_is_tried_again(site, status):
    for method, kind in (("GET", "jobs"), ("POST", "jobs"), ("POST", "secrets")):
        site.api.fail(method, kind, status, times=2, watch=False if method == "GET" else None)
    running, output = site.begun("echo ready; exit 4")
    assert (running.wait().code, output.err) == (4, b"")


def test_a_job_whose_creation_was_not_answered_is_there_once(site):
    site.api.fail("POST", "jobs", 0, after=True)
    site.api.fail("POST", "secrets", 500, after=True)
    running, _ = site.begun("echo ready; exit 4")
    assert running.wait().code == 4
    assert len(site.api.processes) == 1


def test_a_pause_that_is_asked_for_is_made(site):
    site.api.fail("POST", "jobs", 429, headers={"Retry-After": "2"})
    before = time.monotonic()
    running, _ = site.begun("echo ready")
    assert time.monotonic() - before >= 2
    running.wait()


def test_nobody_who_answers_is_unreachable(site, hasty):
    environ = site.api.environ
    site.api.crash()
    with pytest.raises(Unreachable, match="does not answer"):
        Kubernetes(site.config(), store="/", environ=environ).submit(site.job("true"), Output())
    site.api.revive()


def test_a_cache_that_is_away_at_first_is_tried_again(site):
    site.cache.away = True
    threading.Timer(1.5, lambda: setattr(site.cache, "away", False)).start()
    running, _ = site.begun("echo ready; exit 3")
    assert running.wait().code == 3


def test_a_cache_gets_the_credentials_from_here_and_from_the_pod(site):
    running, _ = site.begun("echo ready", backend=site.backend({"REPRO_REMOTE_TOKEN": "letmein"}))
    assert running.wait().code == 0
    assert site.cache.proofs == {"Bearer letmein"}
    assert "letmein" not in json.dumps(site.api.calls)


# --- how it is watched ---------------------------------------------------------------------


def test_states_are_watched_and_not_asked_for(site):
    running, _ = site.begun("echo ready; sleep 3; exit 2")
    assert running.wait().code == 2
    lists = [call for call in site.api.asked("GET", "pods") if "watch" not in call[2]]
    assert len(lists) == 1


def test_one_watch_serves_all_jobs(site):
    backend = site.backend()
    begun = [site.begun("echo ready; sleep 1; exit 2", backend=backend)[0] for _ in range(5)]
    assert [running.wait().code for running in begun] == [2] * 5
    assert len([call for call in site.api.asked("GET", "pods") if "watch" in call[2]]) <= 2


def killed(site):
    """Begin a job whose program is killed when a file is there."""
    text = f"echo ready; until [ -e {site.root}/go ]; do sleep 0.05; done; kill -9 $PPID; sleep 60"
    return site.begun(text)


def test_a_watch_that_is_cut_goes_on_where_it_was(site, hasty):
    running, output = killed(site)
    for _ in range(3):
        site.api.drop()
        time.sleep(0.1)
    (site.root / "go").touch()
    assert (running.wait().cause, running.wait().code) == ("lost", 137)
    assert b"exit code 137" in output.err
    asked = [call[2] for call in site.api.asked("GET", "jobs")]
    assert len([query for query in asked if "watch" not in query]) == 1
    assert len({query["resourceVersion"] for query in asked if "watch" in query}) > 0


def test_a_watch_whose_version_is_too_old_asks_for_everything(site, hasty):
    running, _ = killed(site)
    site.api.forget()
    (site.root / "go").touch()
    assert running.wait().cause == "lost"
    asked = [call[2] for call in site.api.asked("GET", "jobs")]
    assert len([query for query in asked if "watch" not in query]) == 2


@pytest.mark.parametrize("status", [0, 410, 429, 500])
def test_a_watch_that_is_refused_for_a_while_is_tried_again(site, hasty, status):
    running, _ = killed(site)
    site.api.fail("GET", "jobs", status, times=3, watch=True)
    site.api.fail("GET", "pods", status, times=3, watch=True)
    site.api.drop()
    (site.root / "go").touch()
    assert running.wait().cause == "lost"


def test_a_right_that_is_taken_away_is_said_and_the_job_kept(site):
    running, _ = site.begun(LIVES)
    site.api.fail("GET", "pods", 403, times=1000)
    site.api.drop()
    with pytest.raises(UsageError, match="does not let us"):
        running.wait()
    assert len(site.left()) == 2


def test_the_cluster_may_be_away_while_a_job_runs(site):
    running, _ = site.begun(f"echo ready; until [ -e {site.root}/go ]; do sleep 0.05; done; exit 5")
    site.api.crash()
    time.sleep(1)
    assert running.poll() is None
    site.api.revive()
    (site.root / "go").touch()
    assert running.wait().code == 5


def test_a_job_may_end_while_the_cluster_is_away(site, hasty):
    running, output = site.begun("echo ready; sleep 1; exit 5")
    site.api.crash()
    assert running.wait().code == 5
    site.api.revive()
    assert (
        output.err == f"repro: the cluster has not removed the job `{running.name}` yet\n".encode()
    )


def test_the_cluster_may_not_be_away_for_ever(site, hasty):
    text = "echo ready; sleep 1; kill -STOP $PPID; exec sleep 600"
    running, _ = site.begun(text, backend=site.backend(patience=1))
    site.api.crash()
    with pytest.raises(Unreachable, match="has not answered for"):
        running.wait()
    site.api.revive()
    assert len(site.left()) == 2


# --- what keeps it from beginning ----------------------------------------------------------


def test_an_image_that_cannot_be_pulled_is_said_and_given_up(site, hasty):
    running, output, pod = site.stuck(
        site.backend(patience=1), **waiting("ErrImagePull", "x: not found")
    )
    assert output.heard(b"not found", 30)
    site.api.change("pods", pod, status=waiting("ImagePullBackOff", "Back-off pulling image"))
    with pytest.raises(
        Unreachable, match=r"its image cannot be pulled: ErrImagePull: x: not found"
    ):
        running.wait()
    assert output.err == b"repro: the image cannot be pulled: ErrImagePull: x: not found\n"
    assert site.left() == []


@pytest.mark.parametrize("word", ["InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_never_can_be_pulled_is_given_up_at_once(site, word):
    running, _, _ = site.stuck(**waiting(word, "m"))
    with pytest.raises(Unreachable, match=f"its image cannot be pulled: {word}: m"):
        running.wait()


def test_an_image_that_can_be_pulled_after_all_is_no_trouble(site):
    running, output, _ = site.stuck(**waiting("ErrImagePull", "timeout"))
    assert output.heard(b"timeout", 30)
    site.api.holds = False
    assert running.wait().code == 0


def test_a_container_that_cannot_be_made_is_given_up(site, hasty):
    running, _, _ = site.stuck(
        site.backend(patience=0.5), **waiting("CreateContainerConfigError", 'secret "s" not found')
    )
    with pytest.raises(
        Unreachable, match=r'it cannot begin: CreateContainerConfigError: secret "s"'
    ):
        running.wait()


UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        }
    ]
}


def test_a_job_that_no_node_takes_waits_and_says_why(site, hasty):
    running, output, _ = site.stuck(site.backend(patience=0.5), **UNSCHEDULABLE)
    assert output.heard(b"no node takes the job yet: Unschedulable: 0/3 nodes", 30)
    time.sleep(1)
    assert running.poll() is None
    site.api.holds = False
    assert running.wait().code == 0


def test_a_job_waits_no_longer_than_it_shall(site, hasty):
    running, _, _ = site.stuck(site.backend(**{"pending-limit": 1}), **UNSCHEDULABLE)
    with pytest.raises(Unreachable, match=r"not begun in 1 s: Unschedulable: 0/3 nodes"):
        running.wait()
    assert site.left() == []


@pytest.mark.parametrize(
    ("message", "given_up"),
    [('pods "x" is forbidden: exceeded quota: q', False), ("violates PodSecurity", True)],
)
def test_a_job_that_gets_no_pod_says_why(site, hasty, monkeypatch, message, given_up):
    monkeypatch.setattr(site.api, "_pod", lambda _: None)
    running, output = site.begun("true", until=b"", backend=site.backend(patience=1))
    site.api.warn(running.name, "FailedCreate", message)
    assert output.heard(f"the job does not begin: FailedCreate: {message}".encode(), 30)
    if given_up:
        with pytest.raises(Unreachable, match="it cannot begin: FailedCreate: violates"):
            running.wait()
    else:
        time.sleep(1.5)
        assert running.poll() is None
        running.cancel()


def test_a_volume_that_cannot_be_mounted_is_said(site, hasty):
    running, output, pod = site.stuck(**waiting("ContainerCreating", ""))
    site.api.warn(pod, "FailedMount", 'claim "c" not found')
    assert output.heard(b'the job does not begin: FailedMount: claim "c" not found', 30)
    running.cancel()


def test_a_program_that_does_not_reach_the_cache_is_said(site, hasty, monkeypatch):
    monkeypatch.setattr(kuberun, "MUTE", 0.2)
    state = {"containerStatuses": [{"state": {"running": {}}}], "phase": "Running"}
    running, output, _ = site.stuck(**state)
    assert output.heard(f"0 s: its pod may not reach the cache `{site.cache.url}`".encode(), 30)
    running.cancel()


def test_an_image_without_python_is_explained(site, hasty):
    running, _, pod = site.stuck()
    message = 'exec: "python3": executable file not found in $PATH'
    state = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message}}
    site.api.change(
        "pods", pod, status={"phase": "Failed", "containerStatuses": [{"state": state}]}
    )
    site.api.change(
        "jobs", running.name, status={"conditions": [{"type": "Failed", "status": "True"}]}
    )
    with pytest.raises(Unreachable, match="could not begin: exec:.*not found in") as raised:
        running.wait()
    assert "Python 3.8 or newer" in raised.value.hints[0]


def test_what_the_program_printed_before_it_could_begin_is_said(site, hasty, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first\necho it is too old >&2\nexit 1\n")
    python.chmod(0o755)
    running, _ = site.begun("true", until=b"", backend=site.backend(python=str(python)))
    with pytest.raises(Unreachable, match="could not begin: it is too old"):
        running.wait()
    assert site.left() == []


# --- how it ends without its own word ------------------------------------------------------


def ended(site, running, **status):
    pod = site.api.only("pods")["metadata"]["name"]
    site.api.change("pods", pod, status={"phase": "Failed", **status})
    site.api.processes[pod].terminate()
    assert running.wait()


def test_an_eviction_is_said(site, hasty):
    running, output = site.begun(LIVES)
    ended(site, running, reason="Evicted", message="The node was low on resource: memory.")
    assert (running.wait().cause, output.out) == ("lost", b"ready\nbye\n")
    assert b"the node evicted it (The node was low on resource: memory.)" in output.err


def test_a_deadline_of_the_cluster_is_a_timeout(site):
    running, output = site.begun(LIVES)
    ended(site, running, reason="DeadlineExceeded", message="")
    assert running.wait().cause == "timeout"
    assert b"the deadline that Kubernetes has for it was over" in output.err


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_job_that_is_deleted_behind_our_back_is_lost(site, policy):
    running, output = site.begun(LIVES)
    site.api.remove("jobs", running.name, {"propagationPolicy": policy})
    assert (running.wait().cause, output.out) == ("lost", b"ready\nbye\n")
    assert b"the job was deleted in the cluster" in output.err


def test_a_job_that_is_deleted_before_it_begins_is_lost(site, hasty):
    running, output, _ = site.stuck()
    site.api.remove("jobs", running.name, {})
    assert running.wait().cause == "lost"
    assert b"the job was deleted in the cluster" in output.err


def test_a_pod_on_a_node_that_is_gone_is_lost(site, hasty, monkeypatch):
    monkeypatch.setattr(kuberun, "FORCED", 0.5)
    running, output = site.begun("echo ready; sleep 1; kill -STOP $PPID; sleep 600")
    pod = site.api.only("pods")["metadata"]["name"]
    site.api.change(
        "pods", pod, metadata={"deletionTimestamp": "now", "deletionGracePeriodSeconds": 1}
    )
    assert running.wait().cause == "lost"
    assert b"its node is gone" in output.err


def test_a_pod_that_its_node_does_not_end_is_removed_by_force(site, hasty, monkeypatch):
    monkeypatch.setattr(kuberun, "FORCED", 0.0)
    monkeypatch.setattr(kuberun, "LEAVE_S", 0)
    running, _ = site.begun("echo ready; sleep 1; kill -STOP $PPID; sleep 600", grace_ms=100)
    running.cancel()
    assert running.wait().cause == "cancel"
    assert site.left() == []


# --- without us ----------------------------------------------------------------------------


def submitted_by_another(site, text):
    job = site.job(text)
    asked = {
        "config": site.config(),
        "environ": site.api.environ,
        "base": job.base,
        "text": text,
        "run": job.run_id,
        "image": IMAGE,
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
    text = f"echo one; until [ -e {site.root}/go ]; do sleep 0.05; done; echo two; echo out >out"
    job, process = submitted_by_another(site, text)
    assert process.stdout.readline() == b"one\n"
    assert site.backend().orphans() == ()
    process.kill()
    process.communicate()
    backend = site.backend()
    assert backend.orphans() == (job.run_id,)
    output = Output()
    running = backend.find(job.run_id, output, job.base)
    assert output.heard(b"one\n", 60)
    (site.root / "go").touch()
    assert running.wait().code == 0
    assert output.out == b"one\ntwo\n"
    assert pathlib.Path(job.folder, "out").read_text() == "out\n"
    assert (backend.find(job.run_id), backend.orphans(), site.left()) == (None, (), [])


def test_a_job_that_outlives_us_can_be_cancelled(site):
    job, process = submitted_by_another(site, LIVES)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    running = site.backend().find(job.run_id)
    running.cancel()
    running.cancel()
    assert running.wait().cause == "cancel"
    assert site.left() == []


def test_somebody_who_only_looks_takes_nothing_away(site):
    running, _ = site.begun(
        f"echo ready; until [ -e {site.root}/go ]; do sleep 0.05; done; echo >out"
    )
    output = Output()
    looking = site.backend().find("run1", output)
    assert output.heard(b"ready", 60)
    (site.root / "go").touch()
    assert (looking.wait().code, running.wait().code) == (0, 0)
    assert (site.root / "job-1" / "work" / "out").exists()


def test_a_run_that_nobody_knows_is_not_found(site):
    assert site.backend().find("other") is None


# --- what a step logs ----------------------------------------------------------------------


def test_a_step_that_cannot_reach_us_says_so(site):
    running, output = site.begun("true", until=b"", variables={"U": "http://127.0.0.1:1/"})
    assert running.wait().code == 0
    assert b"nothing that the step logs with MLflow is received" in output.err


def test_an_advertised_address_replaces_the_loopback_one(site):
    backend = site.backend(advertise="localhost")
    variables = {"U": f"{site.cache.url}/ac/none"}
    running, output = site.begun("echo $U", until=b"", backend=backend, variables=variables)
    assert running.wait().code == 0
    assert re.fullmatch(rb"http://localhost:\d+/ac/none\n", output.out)
    assert site.cache.url.rpartition(":")[2].encode() not in output.out


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("status", [0, 429, 500])
def test_a_job_is_cancelled_however_the_cluster_answers(site, status, after):
    site.api.fail("DELETE", "jobs", status, times=2, after=after)
    running, _ = site.begun("sleep 600", until=b"", grace_ms=500)
    running.cancel()
    assert (running.wait().cause, site.left()) == ("cancel", [])

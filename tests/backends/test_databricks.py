"""Jobs on a Databricks workspace of our own, which checks what it is asked."""

import functools
import hashlib
import json
import os
import pathlib
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import databricks_server as servers

from repro.backends.databricks import Databricks
from repro.errors import EnvironmentFailed, Unreachable, UsageError
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.ports import Job
from repro.spec import SparkJob
from repro.testing.contract import BackendContract, Output

HOST = pathlib.Path(__file__).with_name("databricks_host.py")
LIVES = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with servers.running(tmp_path_factory.mktemp("workspace")) as workspace:
        yield workspace


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _workspace(self, workspace, tmp_path):
        self.workspace, self.store = workspace, str(tmp_path)
        yield
        assert os.listdir(f"{self.store}/databricks/runs") == []
        assert os.listdir(workspace.dbfs / "repro" / "runs") == []

    def backend(self):
        config = {"new_cluster": CLUSTER, "poll": 0.2, "mount": str(self.workspace.dbfs)}
        return Databricks(config, store=self.store, environ=self.workspace.environ)


class Site:
    """A workspace with a store, and jobs for it."""

    def __init__(self, workspace, root):
        self.workspace, self.root = workspace, root
        self.store = str(root / "store")
        self.count = 0

    @property
    def config(self):
        return {"new_cluster": CLUSTER, "poll": 0.1, "mount": str(self.workspace.dbfs)}

    def backend(self, environ=None, **config):
        environ = {**self.workspace.environ, **(environ or {})}
        return Databricks({**self.config, **config}, store=self.store, environ=environ)

    def job(self, text, **fields):
        self.count += 1
        base = self.root / f"job-{self.count}"
        (base / "work").mkdir(parents=True)
        variables = {"PATH": os.environ["PATH"], **fields.pop("variables", {})}
        given = {"run_id": f"run{self.count}", "argv": ("sh", "-c", text), **fields}
        return Job(variables=variables, folder=str(base / "work"), base=str(base), **given)

    def begun(self, text, until=b"ready", backend=None, **fields):
        output = Output()
        running = (backend or self.backend()).submit(self.job(text, **fields), output)
        assert not until or output.heard(until, 60), output.chunks
        return running, output

    def done(self, text, backend=None, **fields):
        running, output = self.begun(text, until=b"", backend=backend, **fields)
        return running.wait(), output

    def left(self):
        folder = self.workspace.dbfs / "repro" / "runs"
        remote = os.listdir(folder) if folder.exists() else []
        return os.listdir(f"{self.store}/databricks/runs"), remote


NOTHING = ([], [])


@pytest.fixture
def site(tmp_path):
    (tmp_path / "workspace").mkdir()
    with servers.running(tmp_path / "workspace") as workspace:
        yield Site(workspace, tmp_path)


# --- what Databricks is told ---------------------------------------------------------------


def test_the_run_is_this(site):
    backend = site.backend(libraries=[{"pypi": {"package": "x==1"}}], timeout_seconds=60)
    labels = {"project": "digits", "step": "train"}
    end, _ = site.done("exit 0", backend, labels=labels)
    assert end.code == 0
    (asked,) = site.workspace.calls("runs/submit")
    (task,) = asked.pop("tasks")
    assert asked.pop("run_name").startswith("repro digits train ")
    assert len(asked.pop("idempotency_token")) == 64
    assert asked == {"timeout_seconds": 60}
    python = task.pop("spark_python_task")
    assert python["python_file"].startswith("dbfs:/repro/agents/")
    (spec,) = python["parameters"]
    assert spec.startswith(f"{site.workspace.dbfs}/repro/runs/run1-")
    expected = {"task_key": "step", "new_cluster": CLUSTER}
    assert task == {**expected, "libraries": [{"pypi": {"package": "x==1"}}]}


def test_what_several_jobs_need_is_sent_once(site):
    backend = site.backend()
    for _ in range(3):
        job = site.job("cat big | wc -c; cat small")
        pathlib.Path(job.folder, "big").write_bytes(b"0123456789" * 250_000)
        pathlib.Path(job.folder, "small").write_text("small")
        output = Output()
        assert backend.submit(job, output).wait().code == 0
        assert output.out == b"2500000\nsmall"
    assert len(site.workspace.calls("dbfs/create")) == 1
    assert len(site.workspace.calls("dbfs/add-block")) == 3
    puts = [what["path"] for what in site.workspace.calls("dbfs/put")]
    assert len([path for path in puts if "/agents/" in path]) == 1
    assert len([path for path in puts if "/blobs/" in path]) == 2  # the small one, and the tree
    assert site.left() == NOTHING


def test_what_was_sent_long_ago_is_sent_anew_and_what_is_older_goes(site):
    blobs = site.workspace.dbfs / "repro" / "blobs"
    site.done("true")
    (kept,) = blobs.iterdir()
    now = time.time()
    os.utime(kept, (now - 20 * 86_400,) * 2)
    (blobs / "old").touch()
    os.utime(blobs / "old", (now - 40 * 86_400,) * 2)
    site.done("true")
    assert [path.name for path in blobs.iterdir()] == [kept.name]
    assert kept.stat().st_mtime > now - 60


def test_output_that_is_big_comes_back_by_both_ways(site):
    text = "head -c 3000000 /dev/zero >out; head -c 1000000 /dev/zero >>out; chmod +x out"
    end, _ = site.done(text)
    assert end.code == 0
    made = site.root / "job-1" / "work" / "out"
    assert made.stat().st_size == 4_000_000
    assert made.stat().st_mode & 0o100


def test_a_volume_carries_jobs_too(site):
    (site.workspace.volumes / "main" / "lab" / "jobs").mkdir(parents=True)
    backend = site.backend(folder="/Volumes/main/lab/jobs/alice/repro")
    backend.disk.seen = f"{site.workspace.root}{backend.disk.root}"  # nothing is mounted here
    for code in (0, 3):
        job = site.job(f"cat a/in; echo out >out; echo done; exit {code}")
        pathlib.Path(job.folder, "a").mkdir()
        pathlib.Path(job.folder, "a", "in").write_text("in\n")
        pathlib.Path(job.folder, "empty").touch()
        output = Output()
        assert backend.submit(job, output).wait().code == code
        assert output.out == b"in\ndone\n"
        assert pathlib.Path(job.folder, "out").read_text() == "out\n"
    there = site.workspace.root / "Volumes/main/lab/jobs/alice/repro"
    assert os.listdir(there / "runs") == []
    assert len(os.listdir(there / "blobs")) == 3
    files = [what for method, _, what in site.workspace.asked if method == "PUT"]
    assert not site.workspace.calls("dbfs/put")
    assert files


# --- a workspace that does not serve -------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_submission_without_an_answer_starts_one_run(site, times):
    site.workspace.fail("runs/submit", None, times)
    end, output = site.done("echo once")
    assert (end.code, output.out) == (0, b"once\n")
    assert len(site.workspace.calls("runs/submit")) == 1 + times
    assert len(site.workspace.runs) == 1


def test_requests_that_are_too_many_wait_as_they_are_told(site):
    busy = servers.Answer(429, "REQUEST_LIMIT_EXCEEDED", "Too many.", {"Retry-After": "1"})
    site.workspace.fail("runs/submit", busy)
    begun = time.monotonic()
    assert site.done("exit 4")[0].code == 4
    assert time.monotonic() - begun > 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_errors_of_all_calls_are_survived(site, status):
    for where in ("dbfs/put", "dbfs/list", "dbfs/read", "runs/get", "dbfs/delete", "runs/submit"):
        site.workspace.fail(where, servers.Answer(status, "TEMPORARILY_UNAVAILABLE", "Later."))
    end, output = site.done("echo out; echo made >made; exit 5")
    assert (end.code, output.out) == (5, b"out\n")
    assert (site.root / "job-1" / "work" / "made").exists()
    assert site.left() == NOTHING


def test_a_piece_of_a_file_that_may_have_come_through_is_not_doubled(site):
    site.workspace.fail("dbfs/add-block", None)
    job = site.job("sha256sum big")
    data = os.urandom(2_500_000)
    pathlib.Path(job.folder, "big").write_bytes(data)
    output = Output()
    assert site.backend().submit(job, output).wait().code == 0
    assert output.out.decode().split()[0] == hashlib.sha256(data).hexdigest()


def test_a_workspace_that_does_not_serve_for_long_is_unreachable(site):
    site.workspace.fail("dbfs/list", servers.Answer(503, "", "Down."), 100)
    with pytest.raises(Unreachable, match=r"does not answer at `http://127.0.0.1:\d+`: down"):
        site.backend(patience=0.6).submit(site.job("true"), Output())
    assert site.left() == NOTHING


def test_nobody_there_is_unreachable(site):
    backend = site.backend({"DATABRICKS_HOST": "http://127.0.0.1:1"}, patience=0)
    with pytest.raises(Unreachable, match="ConnectionError"):
        backend.submit(site.job("true"), Output())


def test_databricks_says_in_its_words_what_it_refuses(site):
    cluster = {"spark_version": "15.4.x-scala2.12"}
    with pytest.raises(UsageError, match="refuses `jobs/runs/submit`: cluster validation error"):
        site.backend(new_cluster=cluster).submit(site.job("true"), Output())
    backend = site.backend(new_cluster={**CLUSTER, "nodes": 3})
    with pytest.raises(UsageError, match="'nodes' was unexpected"):
        backend.submit(site.job("true"), Output())
    assert site.left() == NOTHING


def test_a_token_that_is_not_taken_is_explained_and_never_shown(site):
    backend = site.backend({"DATABRICKS_TOKEN": "dapi-wrong"})
    with pytest.raises(UsageError, match="invalid access token") as raised:
        backend.submit(site.job("true"), Output())
    assert "`DATABRICKS_HOST`" in raised.value.hints[0]
    assert "dapi-wrong" not in f"{raised.value!r}{raised.value.hints}{backend.client.access!r}"
    answer = servers.Answer(400, "X", f"The token {servers.TOKEN} is odd.")
    site.workspace.fail("dbfs/list", answer)
    with pytest.raises(UsageError, match="the token … is odd"):
        site.backend().submit(site.job("true"), Output())


def test_credentials_do_not_follow_a_redirect(site):
    away = servers.Answer(302, "", "", {"Location": "http://127.0.0.1:1/"})
    site.workspace.fail("dbfs/list", away)
    with pytest.raises(UsageError, match="status 302"):
        site.backend().submit(site.job("true"), Output())


def test_no_token_is_left_in_the_store_or_sent_to_a_job(site):
    running, output = site.begun("env; cat /proc/$PPID/environ; echo ready; sleep 600")
    secret = servers.TOKEN.encode()
    for folder in (site.root / "store", site.workspace.dbfs):
        for path in folder.rglob("*"):
            assert not path.is_file() or secret not in path.read_bytes()
    running.cancel()
    assert secret not in output.out


# --- the ways in which it ends -------------------------------------------------------------


def test_a_pending_job_is_cancelled(site):
    site.workspace.holds.clear()
    running, _ = site.begun("true", until=b"")
    running.cancel()
    running.cancel()
    end = running.wait()
    assert (end.cause, end.code) == ("cancel", 143)
    assert [run.result for run in site.workspace.runs.values()] == ["CANCELED"]
    assert site.left() == NOTHING


def test_a_job_that_waits_for_its_cluster_says_once_where(site):
    site.workspace.holds.clear()
    running, output = site.begun("echo done", until=b"")
    running._begun -= 60
    assert output.heard(b"waiting for a cluster: https://dbc-1.cloud.databricks.com/?o=1#job", 60)
    site.workspace.holds.set()
    assert running.wait().code == 0
    assert output.err.count(b"\n") == 1


@pytest.mark.parametrize(
    ("result", "cause", "words"),
    [
        ("CANCELED", "cancel", b"it was cancelled in Databricks"),
        ("TIMEDOUT", "timeout", b"Databricks' time limit was over"),
    ],
)
def test_an_end_that_somebody_else_wants_is_told(site, result, cause, words):
    running, output = site.begun(LIVES)
    site.workspace.runs[running.number].end(result)
    end = running.wait()
    assert (end.cause, end.code) == (cause, 143)
    assert output.out == b"ready\nbye\n"
    assert words in output.err


def test_a_pending_job_that_somebody_else_cancels_is_cancelled(site):
    site.workspace.holds.clear()
    running, output = site.begun("true", until=b"")
    site.workspace.runs[running.number].end()
    assert (running.wait().cause, running.wait().code) == ("cancel", 143)
    assert b"it was cancelled in Databricks" in output.err


def test_a_cluster_that_does_not_start_is_explained(site):
    site.workspace.refused_cluster = "Cluster 12 was terminated. Reason: CLOUD_PROVIDER_LAUNCH"
    running, _ = site.begun("true", until=b"")
    with pytest.raises(Unreachable, match="could not begin: Cluster 12 was terminated") as raised:
        running.wait()
    assert "https://dbc-1" in raised.value.hints[0]
    assert site.left() == NOTHING


def test_a_program_that_does_not_start_is_explained_by_its_output(site):
    backend = site.backend(mount="/no/such/mount")
    running, _ = site.begun("true", until=b"", backend=backend)
    with pytest.raises(Unreachable, match=r"could not begin: .* No such file or directory"):
        running.wait()


def test_a_node_that_is_gone_is_a_lost_job(site):
    running, output = site.begun("echo ready; exec sleep 600")
    site.workspace.runs[running.number].kill()
    end = running.wait()
    assert (end.cause, end.code) == ("lost", 137)
    assert b"it ended as FAILED, and told nothing" in output.err


def test_a_run_that_databricks_has_forgotten_is_lost(site):
    running, output = site.begun("echo ready; exec sleep 600")
    site.workspace.runs.pop(running.number).kill()
    assert running.wait().cause == "lost"
    assert b"Databricks does not know it any more" in output.err


def test_a_job_that_does_not_listen_is_ended_by_databricks(site):
    text = "echo ready; sleep 1; kill -STOP $PPID; echo >../../stopped; sleep 600"
    running, _ = site.begun(text.replace("../..", str(site.root)), grace_ms=100)
    agents = servers.children(site.workspace.runs[running.number].process.pid)
    while not (site.root / "stopped").exists():
        time.sleep(0.02)
    running._grace = -59.0  # as if a minute had passed
    running.cancel()
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    assert (running.wait().cause, running.wait().code) == ("cancel", 137)
    assert site.workspace.calls("runs/cancel")


def test_a_damaged_blob_is_refused_and_sent_anew(site):
    job = site.job("cat in")
    pathlib.Path(job.folder, "in").write_text("input")
    blob = site.workspace.dbfs / "repro" / "blobs" / hashlib.sha256(b"input").hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_text("other")
    backend = site.backend()
    with pytest.raises(Unreachable, match="not those that its name promises"):
        backend.submit(job, Output()).wait()
    output = Output()
    assert backend.submit(job, output).wait().code == 0
    assert output.out == b"input"


def test_an_output_that_was_changed_on_its_way_is_not_believed(site):
    running, _ = site.begun(
        f"echo ready; echo out >out; until [ -e {site.root}/go ]; do sleep 0.02; done"
    )
    blobs = site.workspace.dbfs / "repro" / running.remote.folder / "blobs"
    blobs.mkdir()
    (blobs / hashlib.sha256(b"out\n").hexdigest()).write_text("bad\n")
    (site.root / "go").touch()
    with pytest.raises(Unreachable, match="cannot be had"):
        running.wait()
    assert not (site.root / "job-1" / "work" / "out").exists()


# --- without us ----------------------------------------------------------------------------


def submitted_by_another(site, text):
    job = site.job(text)
    asked = {"store": site.store, "base": job.base, "text": text, "run": job.run_id}
    process = subprocess.Popen(
        [sys.executable, str(HOST)],
        env={**os.environ, **site.workspace.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(json.dumps({**asked, "config": site.config}).encode() + b"\n")
    process.stdin.flush()
    return job, process


def test_a_job_outlives_us_and_is_found_again_with_all_it_said(site):
    text = f"echo one; until [ -e {site.root}/go ]; do sleep 0.02; done; echo two; echo out >out"
    job, process = submitted_by_another(site, text)
    assert process.stdout.readline() == b"one\n"
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
    assert (backend.find(job.run_id), backend.orphans(), site.left()) == (None, (), NOTHING)


def test_a_job_that_outlives_us_can_be_cancelled(site):
    job, process = submitted_by_another(site, LIVES)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    running = site.backend().find(job.run_id)
    running.cancel()
    assert running.wait().cause == "cancel"
    assert site.left() == NOTHING


def test_a_job_is_found_by_its_name_where_its_number_was_not_noted(site):
    for _ in range(5):
        site.done("true")
    running, _ = site.begun(LIVES)
    running.parcel.note(id=0)
    again = site.backend().find("run6")
    assert again.number == running.number
    running.cancel()
    again.wait()


def test_somebody_who_only_looks_takes_nothing_away(site):
    running, _ = site.begun("echo ready; sleep 1; echo out >out")
    output = Output()
    assert site.backend().find("run1", output).wait().code == 0
    assert running.wait().code == 0
    assert output.out == b"ready\n"
    assert (site.root / "job-1" / "work" / "out").exists()


def test_a_job_at_another_place_is_named_with_it(site):
    running, _ = site.begun(LIVES)
    with pytest.raises(UsageError, match="`/repro` at `http://127.0.0.1"):
        site.backend(folder="dbfs:/other").find("run1")
    running.cancel()


def test_a_job_goes_on_when_databricks_is_away_for_long(site):
    backend = site.backend(patience=0.5)
    running, _ = site.begun(LIVES, backend=backend)
    site.workspace.fail("GET ", servers.Answer(503, "", "Down."), 10**6)
    with pytest.raises(Unreachable, match="has not answered for"):
        running.wait()
    site.workspace.faults.clear()
    again = site.backend().find("run1")
    again.cancel()
    assert again.wait().cause == "cancel"


@pytest.mark.parametrize("status", [403, 503])
def test_what_cannot_be_brought_now_can_be_brought_later(site, status):
    backend = site.backend(patience=0.5)
    text = f"echo ready; echo out >out; until [ -e {site.root}/go ]; do sleep 0.02; done"
    running, _ = site.begun(text, backend=backend)
    site.workspace.fail("/blobs/", servers.Answer(status, "", "Down."), 10**6)
    (site.root / "go").touch()
    with pytest.raises(Unreachable, match="down while bringing back what a job made"):
        running.wait()
    site.workspace.faults.clear()
    again = site.backend().find("run1", base=str(site.root / "job-1"))
    assert again.wait().code == 0
    assert (site.root / "job-1" / "work" / "out").read_text() == "out\n"
    assert site.left() == NOTHING


def test_a_job_goes_on_when_we_may_not_look_any_more(site):
    running, _ = site.begun(LIVES)
    site.workspace.fail("GET ", servers.Answer(403, "", "Token expired."), 10**6)
    with pytest.raises(UsageError, match="token expired"):
        running.wait()
    site.workspace.faults.clear()
    again = site.backend().find("run1")
    again.cancel()
    assert again.wait().cause == "cancel"


def test_a_job_that_another_repro_cancels_is_cancelled(site):
    running, output = site.begun(LIVES)
    again = site.backend().find("run1", base=str(site.root / "other"))
    again.remote.recall()
    assert running.wait().cause == "cancel"
    assert b"it was asked to end, but not by this repro" in output.err
    again.cancel()


# --- environments on the node --------------------------------------------------------------


@pytest.fixture
def index(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield (
            f"http://127.0.0.1:{server.server_port}/",
            servers.wheel(tmp_path / "index" / "greeting"),
        )
        server.shutdown()
        thread.join()


def lock_of(offered, **fields):
    url, digest = offered
    given = {"name": "greeting", "version": "1.0", "kind": "wheel", "digest": digest, "index": url}
    version = fields.pop("python", platform.python_version())
    python = Interpreter(implementation="cpython", version=version, abi="", platform="linux-x86_64")
    artifact = Artifact(**{**given, **fields})
    return EnvironmentLock(
        kind="python", interpreter=python, artifacts=(artifact,), platform="linux-64"
    )


def test_the_environment_is_made_on_the_node_once(site, index):
    backend = site.backend(scratch=str(site.root / "scratch"))
    text = (
        "greet; command -v python; echo $VIRTUAL_ENV; python -c 'import greeting'; python -m pip -V"
    )
    for _ in range(2):
        end, output = site.done(text, backend, lock=lock_of(index))
        assert end.code == 1  # there is no pip: it is not in the lock
        hello, python, prefix = output.out.decode().split()
        assert (hello, python) == ("hello", f"{prefix}/bin/python")
        assert prefix.startswith(str(site.root / "scratch"))
        (site.root / "index" / "greeting" / "index.html").write_text("gone")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"digest": "0" * 64}, "DO NOT MATCH|hash|HASH|Expected"),
        ({"name": "absent"}, "No matching distribution found for absent==1.0"),
        ({"python": "3.11.99"}, r"there is no cpython 3.11.99, but cpython 3\."),
    ],
)
def test_an_environment_that_cannot_be_made_is_explained(site, index, fields, words):
    backend = site.backend(scratch=str(site.root / "scratch"))
    running, output = site.begun(
        "echo ran", until=b"", backend=backend, lock=lock_of(index, **fields)
    )
    with pytest.raises(EnvironmentFailed, match="could not be made on the node: ") as raised:
        running.wait()
    assert re.search(words, f"{raised.value.message}{output.err.decode()}")
    assert output.out == b""
    assert site.left() == NOTHING


def test_a_job_can_be_cancelled_while_its_environment_is_made(site, index):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        backend = site.backend(scratch=str(site.root / "scratch"))
        lock = lock_of(index, index=url)
        running, _ = site.begun("echo ran", until=b"", backend=backend, lock=lock)
        asked, _ = deaf.accept()  # pip gets no answer
        with asked:
            running.cancel()
    assert (running.wait().cause, running.wait().code) == ("cancel", 143)


def test_the_local_environment_is_that_of_the_cluster(site):
    end, output = site.done("command -v python3", lock=EnvironmentLock(kind="local"))
    assert end.code == 0
    assert output.out.decode().strip() == os.path.join(os.path.dirname(sys.executable), "python3")


def test_a_step_that_cannot_reach_our_receiver_says_so(site):
    end, output = site.done("true", variables={"U": "http://127.0.0.1:1/"})
    assert end.code == 0
    assert b"nothing that the step logs with MLflow is received" in output.err


# --- Spark jobs ----------------------------------------------------------------------------

SPARK = SparkJob(python_file="main.py")
WAITS = "import time\nprint('ready')\nwhile True:\n    time.sleep(0.02)\n"


def of_spark(site, text, command="python main.py", backend=None, spark=SPARK, **fields):
    """Begin a Spark job whose file has that text."""
    job = site.job("", argv=("bash", "-c", command), spark=spark, **fields)
    pathlib.Path(job.folder, "main.py").write_text(text)
    output = Output()
    return (backend or site.backend()).submit(job, output), output


def driver_of(site):
    (run,) = site.workspace.runs.values()
    return run.process.pid


def gone(pid):
    for _ in range(500):
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.02)
    return False


def test_the_file_of_a_spark_job_is_run_by_the_driver_itself(site):
    text = (
        "import os, sys\n"
        "import beside\n"
        "print(spark, os.getpid(), threaded())\n"
        "print(sys.argv, __name__, __file__)\n"
        "print(os.environ['GIVEN'], os.environ['SPARK_HOME'], os.path.basename(os.getcwd()))\n"
        "os.system('echo from a child')\n"
        "print('problem', file=sys.stderr)\n"
    ).replace("import beside\n", "from beside import threaded\n")
    job = site.job(
        "",
        argv=("bash", "-c", "python main.py 'a b' --c 1"),
        spark=SPARK,
        variables={"GIVEN": "ours"},
    )
    pathlib.Path(job.folder, "main.py").write_text(text)
    beside = "import threading\ndef threaded():\n    return threading.current_thread().name\n"
    pathlib.Path(job.folder, "beside.py").write_text(beside)
    output = Output()
    assert site.backend().submit(job, output).wait().code == 0
    pid = driver_of(site)
    first, second, third, fourth = output.out.decode().splitlines()
    assert first.startswith(f"session {pid} {pid} Thread-1")
    assert second == "['main.py', 'a b', '--c', '1'] __main__ main.py"
    assert (third, fourth) == ("ours /databricks/spark work", "from a child")
    assert output.err == b"problem\n"
    assert sorted(os.listdir(job.folder)) == ["beside.py", "main.py"]  # no __pycache__


def test_the_libraries_of_a_spark_job_come_after_those_of_the_settings(site):
    backend = site.backend(libraries=[{"jar": "dbfs:/a.jar"}])
    spark = SparkJob(python_file="main.py", python_libraries=("numpy==2", "x"))
    running, _ = of_spark(site, "", backend=backend, spark=spark)
    assert running.wait().code == 0
    (asked,) = site.workspace.calls("runs/submit")
    assert asked["tasks"][0]["libraries"] == [
        {"jar": "dbfs:/a.jar"},
        {"pypi": {"package": "numpy==2"}},
        {"pypi": {"package": "x"}},
    ]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 0, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit(256 + 4)", 4, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("1 +", 1, "SyntaxError: invalid syntax\n"),
        ("def f():\n    raise ValueError('no')\nf()", 1, "ValueError: no\n"),
    ],
)
def test_a_spark_job_ends_with_the_exit_code_of_its_file(site, text, code, said):
    running, output = of_spark(site, f"print('out'); {text}" if ";" in text else text)
    assert (running.wait().cause, running.wait().code) == ("exit", code)
    assert output.err.decode().endswith(said)
    assert bool(said) == bool(output.err)
    assert "driver.py" not in output.err.decode()
    assert site.left() == NOTHING


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python -c pass", "takes a file and its arguments only"),
        ("python", "takes a file and its arguments only"),
        ("python absent.py", "there is no file `absent.py`"),
    ],
)
def test_what_the_driver_cannot_run_is_said(site, command, words):
    running, output = of_spark(site, "", command)
    assert running.wait().code == 2
    assert words in output.err.decode()


def test_the_command_of_a_spark_job_is_one_of_the_shell(site):
    text = "import sys\nprint(spark[:7], *sys.argv[1:])\nglobals()['left'] = 1\n"
    command = "python main.py $WORD >out; python3 main.py two | tr a-z A-Z; exit 5"
    running, output = of_spark(site, text, command, variables={"WORD": "one"})
    assert running.wait().code == 5
    assert output.out == b"SESSION TWO\n"
    assert (site.root / "job-1" / "work" / "out").read_text() == "session one\n"


def test_the_driver_is_itself_again_when_a_file_has_ended(site):
    state = "[os.getcwd(), sys.argv, dict(os.environ), sys.path]"
    text = "import os, sys\nsys.path.append('x'); os.environ['NEW'] = '1'; os.chdir('/')\n"
    driver = servers.DRIVER.replace(
        "    try:\n        runpy", f"    before = repr({state})\n    try:\n        runpy"
    ).replace("ended.append(0)", f"assert before == repr({state}); ended.append(0)")
    assert driver.count("before") == 2
    site.workspace.driver = driver.replace("import io", "import io, os, sys")
    running, _ = of_spark(site, text)
    assert running.wait().code == 0
    (run,) = site.workspace.runs.values()
    run.thread.join(60)
    assert (run.error, run.result) == ("", "SUCCESS")


def test_the_output_of_a_spark_job_is_live_and_what_it_made_is_brought(site):
    go = site.root / "go"
    text = (
        "import os, pathlib, time\n"
        f"print('ready')\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.02)\n"
        "pathlib.Path('out').write_text('made'); os.unlink('main.py')\n"
    )
    running, output = of_spark(site, text)
    assert output.heard(b"ready", 60)
    go.touch()
    assert running.wait().code == 0
    work = site.root / "job-1" / "work"
    assert [(path.name, path.read_text()) for path in work.iterdir()] == [("out", "made")]


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_spark_job_is_asked_to_end(site, how):
    text = WAITS.replace("while", "import sys\ntry:\n  while").replace("    time", "      time")
    text += "finally:\n    print('bye')\n"
    running, output = of_spark(site, text, timeout_ms=1500 if how == "timeout" else 0)
    assert output.heard(b"ready", 60)
    if how == "cancel":
        running.cancel()
    assert (running.wait().cause, running.wait().code) == (how, 143)
    assert output.out == b"ready\nbye\n"
    assert output.err == b""
    assert gone(driver_of(site))
    assert site.left() == NOTHING


@pytest.mark.parametrize("how", ["timeout", "cancel"])
@pytest.mark.parametrize(
    "text",
    [
        WAITS.replace("0.02", "600"),
        WAITS.replace("    time", "  try:\n    time") + "  except BaseException:\n    pass\n",
    ],
)
def test_a_spark_job_that_does_not_listen_is_ended_with_its_driver(site, how, text):
    backend = site.backend(scratch=str(site.root / "scratch"))
    limit = 1500 if how == "timeout" else 0
    command = "command -v python; exec python main.py"
    running, output = of_spark(site, text, command, backend, timeout_ms=limit, grace_ms=300)
    assert output.heard(b"ready", 60)
    if how == "cancel":
        running.cancel()
    assert (running.wait().cause, running.wait().code) == (how, 137)
    assert gone(driver_of(site))
    assert site.left() == NOTHING
    assert os.listdir(site.root / "scratch") == []
    folder = pathlib.Path(output.out.decode().split()[0]).parents[1]
    assert folder.name.startswith("repro-agent-")
    assert not folder.exists()


def test_a_spark_job_that_ends_its_driver_is_lost(site):
    running, output = of_spark(site, "import os; os._exit(7)")
    assert running.wait().cause == "lost"
    assert b"something on its node has ended it" in output.err
    assert gone(driver_of(site))
    assert site.left() == NOTHING


def test_a_spark_job_that_databricks_cancels_is_cancelled(site):
    running, output = of_spark(site, WAITS)
    assert output.heard(b"ready", 60)
    site.workspace.runs[running.number].end()
    assert running.wait().cause == "cancel"
    assert b"it was cancelled in Databricks" in output.err
    assert site.left() == NOTHING

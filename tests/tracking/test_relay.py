"""Runs of projects as a real `mlflow server` shows them, and what becomes of them without one."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import REPOSITORY, interpreter_variables

from repro.machine import Machine
from repro.tracking.mirror import Mirror

LOGGING = """
import sys

import mlflow

with mlflow.start_run():
    mlflow.log_param("depth", 2)
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.set_tag("team", "blue")
    mlflow.log_text("words", "notes/text.txt")
    with mlflow.start_run(nested=True, run_name="fold"):
        mlflow.log_metric("score", 0.5)
        mlflow.log_text("child", "fold.txt")
"""

# What a client does, without the seconds that it takes to load one.
TALKING = """
import json
import os
import time
import urllib.request

URI, TOKEN = os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_TRACKING_TOKEN"]
RUN = os.environ["MLFLOW_RUN_ID"]


def ask(path, fields=None):
    request = urllib.request.Request(
        f"{URI}/api/2.0/mlflow/{path}",
        data=None if fields is None else json.dumps(fields).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    return json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request))


metric = {"key": "loss", "value": 0.25, "timestamp": 1700000000000, "step": 0}
ask("runs/log-metric", {"run_id": RUN, **metric})
folder = ask(f"runs/get?run_id={RUN}")["run"]["info"]["artifact_uri"].removeprefix("file://")
os.makedirs(folder, exist_ok=True)
with open(f"{folder}/note.txt", "w") as file:
    file.write("noted")
print(*sorted(f"{name}={value}" for name, value in os.environ.items()), sep=chr(10))
print("started", flush=True)
while not os.path.exists("GATE"):
    time.sleep(0.02)
"""

ECHO = "entry_points: {main: {parameters: {a: {default: x}}, command: 'echo {a} > out'}}\n"
LOCAL = ("--env-manager", "local")


class User:
    """Somebody with an empty home and a tracking server, at the command line."""

    def __init__(self, folder, uri):
        self.folder = folder
        (folder / "home").mkdir(parents=True)
        self.store, self.data = folder / "store", folder / "data"
        self.environ = {
            **interpreter_variables(),
            "HOME": str(folder / "home"),
            "REPRO_SANDBOX": "none",  # the gate of a step lies outside of its tree
            "USER": "ada",
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
            "REPRO_HOME": str(self.store),
            "REPRO_DATA": str(self.data),
            "MLFLOW_TRACKING_URI": uri,
        }
        self.processes = []

    def leave(self):
        """End what is still running, as after a test that failed."""
        for process in self.processes:
            process.kill()
            process.communicate()

    def project(self, files, name="project"):
        place = self.folder / name
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
        return place

    def start(self, *words, **env):
        process = subprocess.Popen(
            [sys.executable, "-m", "repro", *map(str, words)],
            cwd=self.folder,
            env={**self.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def call(self, *words, **env):
        """Call repro; give its exit status, what it printed and what it told."""
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        assert "internal error" not in err, err
        return process.returncode, out, err

    def run(self, *words, **env):
        """Run a step, which must work; give the record."""
        code, out, err = self.call("run", *words, *LOCAL, **env)
        assert code == 0, err
        return next(record for record in self.records() if record.run_id == out.strip())

    def records(self):
        machine = Machine(self.environ)
        try:
            return machine.history.find()
        finally:
            machine.close()

    def gated(self, name="gated"):
        """Make a project whose step logs something, and then waits until its gate is there."""
        gate = self.folder / f"{name}-gate"
        text = "entry_points: {main: {command: python step.py}}\n"
        step = TALKING.replace("GATE", str(gate))
        return self.project({"MLproject": text, "step.py": step}, name), gate

    def begin(self, folder):
        """Start a run and wait until its step is under way; give the process."""
        process = self.start("run", folder, *LOCAL)
        told = iter(process.stderr.readline, "")
        assert any("started" in line for line in told)
        return process

    def outbox(self):
        place = self.data / "outbox"
        return sorted(os.listdir(place)) if place.is_dir() else []

    def files_with(self, *texts):
        return [
            path
            for place in (self.store, self.data)
            for path in place.rglob("*")
            if path.is_file() and any(text in path.read_bytes() for text in texts)
        ]


@pytest.fixture
def user_of(tmp_path):
    """Make users by the address of their server."""
    users = []

    def make(uri, name="user"):
        users.append(User(tmp_path / name, uri))
        return users[-1]

    yield make
    for user in users:
        user.leave()


@pytest.fixture
def user(tracking_server, user_of):
    return user_of(tracking_server.uri)


@pytest.fixture
def mortal_server(tracking_server):
    """The server, for a test that kills it."""
    yield tracking_server
    if not tracking_server.answers():
        tracking_server.start()


class Shown:
    """A run as the server shows it."""

    def __init__(self, server, run_id):
        self.server, self.run_id = server, run_id
        run = server.run(run_id)
        self.info, self.tags, self.params = run["info"], run["tags"], run["params"]
        self.metrics, self.status = run["metrics"], run["info"]["status"]

    def history(self, key):
        path = f"/api/2.0/mlflow/metrics/get-history?run_id={self.run_id}&metric_key={key}"
        found = json.loads(self.server.get(path))["metrics"]
        return [(m["value"], m["step"], m["timestamp"]) for m in found]

    def artifact(self, path):
        place = self.info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        return self.server.get(f"/api/2.0/mlflow-artifacts/artifacts/{place}/{path}").decode()

    def children(self):
        wanted = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        return [Shown(self.server, run_id) for run_id in runs(self.server, wanted, self.info)]


def runs(server, wanted, info=None):
    experiment_id = info["experiment_id"] if info else "0"
    fields = {"experiment_ids": [experiment_id], "filter": wanted}
    found = ask(server, "runs/search", fields).get("runs", [])
    return [run["info"]["run_id"] for run in found]


def ask(server, path, fields):
    return Mirror(server.uri, environ={"HOME": "/nowhere"})._server.call("POST", path, fields)


def git(folder, *words):
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *names, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def nobody():
    """Give an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


# -- what is shown


class Session:
    """A step that logs with the real client, run and then answered from the store."""

    def __init__(self, server, folder):
        self.user = User(folder, server.uri)
        text = "entry_points: {main: {parameters: {text: str}, command: 'python step.py {text}'}}\n"
        self.folder = self.user.project({"MLproject": text, "step.py": LOGGING})
        git(self.folder, "init", "-q", "-b", "trunk")
        git(self.folder, "remote", "add", "origin", "https://bot:t0ken@example.org/team/p.git")
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", "first")
        self.commit = git(self.folder, "rev-parse", "HEAD")
        words = ("project", "-P", "text=a b", "--experiment-name", "weather")
        self.records = [self.user.run(*words, "--run-name", name) for name in ("one", "two")]
        self.executed, self.reused = (
            Shown(server, record.tracking["run_id"]) for record in self.records
        )


@pytest.fixture(scope="module")
def session(tracking_server, tmp_path_factory):
    return Session(tracking_server, tmp_path_factory.mktemp("session"))


def test_an_executed_run_is_shown_with_its_tags(session, tracking_server):
    first, shown = session.records[0], session.executed
    assert (first.cached, shown.status) == (False, "FINISHED")
    assert shown.tags == {
        "mlflow.user": "ada",
        "mlflow.runName": "one",
        "mlflow.source.name": str(session.folder),
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": "main",
        "mlflow.project.backend": "local",
        "mlflow.source.git.commit": session.commit,
        "mlflow.source.git.repoURL": "https://example.org/team/p.git",
        "repro.run": first.run_id,
        "repro.key": first.key,
        "repro.cache": "miss",
        "repro.environment": first.environment,
        "team": "blue",
    }
    assert shown.info["user_id"] == "ada"
    assert shown.info["start_time"] <= shown.info["end_time"] == first.ended_ns // 1_000_000
    assert first.tracking["server"] == tracking_server.uri
    assert first.tracking["experiment_id"] == shown.info["experiment_id"]


def test_a_reused_run_is_shown_as_a_run_of_its_own(session):
    first, second = session.records
    shown, tags = session.reused, session.executed.tags
    assert (second.cached, shown.status) == (True, "FINISHED")
    assert shown.run_id != session.executed.run_id
    assert shown.tags == {
        **tags,
        "mlflow.runName": "two",
        "repro.run": second.run_id,
        "repro.cache": "hit",
        "repro.origin_run": first.run_id,
    }
    assert shown.info["experiment_id"] == session.executed.info["experiment_id"]


@pytest.mark.parametrize("which", ["executed", "reused"])
def test_all_that_the_step_has_logged_is_shown(session, which):
    shown = getattr(session, which)
    assert shown.params == {"text": "a b", "depth": "2"}
    assert [(v, s) for v, s, _ in shown.history("loss")] == [(1.0, 0), (0.5, 1), (1 / 3, 2)]
    assert shown.history("loss") == session.executed.history("loss")
    assert shown.artifact("notes/text.txt") == "words"
    (fold,) = shown.children()
    assert (fold.status, fold.tags["mlflow.runName"]) == ("FINISHED", "fold")
    assert (fold.metrics, fold.artifact("fold.txt")) == ({"score": 0.5}, "child")


def test_a_branch_that_was_asked_for_is_shown(session, tracking_server):
    record = session.user.run(session.folder, "-v", "trunk", "-P", "text=a b")
    tags = Shown(tracking_server, record.tracking["run_id"]).tags
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.commit"] == session.commit
    assert tags["repro.cache"] == "hit"


def test_a_failed_run_is_shown_as_failed(user, tracking_server):
    folder = user.project({"MLproject": "entry_points: {main: {command: exit 3}}\n"})
    assert user.call("run", folder, *LOCAL)[0] == 1
    (record,) = user.records()
    shown = Shown(tracking_server, record.tracking["run_id"])
    assert (shown.status, shown.info["experiment_id"]) == ("FAILED", "0")


def test_a_run_that_is_ended_by_a_signal_is_shown_as_killed(user, tracking_server):
    folder, _gate = user.gated()
    process = user.begin(folder)
    (record,) = user.records()
    run_id = record.tracking["run_id"]
    assert Shown(tracking_server, run_id).status == record.status == "RUNNING"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    shown = Shown(tracking_server, run_id)
    assert (shown.status, shown.metrics) == ("KILLED", {"loss": 0.25})
    assert shown.artifact("note.txt") == "noted"


def test_a_run_inside_a_run_of_the_caller_is_shown_below_it(run_client, user, tracking_server):
    text = (
        "import json, mlflow, repro\nmlflow.set_experiment('parents')\n"
        "with mlflow.start_run() as run:\n"
        f"    child = repro.run({str(user.project({'MLproject': ECHO}))!r}, use_conda=False)\n"
        "open('report.json', 'w').write(json.dumps([run.info.run_id, child.record.tracking['run_id']]))\n"
    )
    process, report = run_client(text, user.environ)
    assert process.returncode == 0, process.stderr
    parent, child = (Shown(tracking_server, run_id) for run_id in report)
    assert [c.run_id for c in parent.children()] == [child.run_id]
    assert child.info["experiment_id"] == parent.info["experiment_id"]


def test_a_run_inside_a_step_is_shown_below_that_of_the_step(user, tracking_server):
    outer = (
        f"entry_points: {{main: {{env: {{PYTHONPATH: '{REPOSITORY}'}},"
        " command: 'python -m repro run inner --env-manager local -P a=deep'}}\n"
    )
    folder = user.project({"MLproject": outer, "inner/MLproject": ECHO})
    for _ in range(2):
        record = user.run(folder)
        (child,) = Shown(tracking_server, record.tracking["run_id"]).children()
        assert (child.params, child.status) == ({"a": "deep"}, "FINISHED")
    assert record.cached


# -- experiments


def test_an_experiment_is_chosen_by_name_or_id(user, tracking_server):
    folder = user.project({"MLproject": ECHO})
    made = user.run(folder, "--experiment-name", "new here").tracking["experiment_id"]
    fields = {"max_results": 1000}
    names = {
        e["experiment_id"]: e["name"]
        for e in ask(tracking_server, "experiments/search", fields)["experiments"]
    }
    assert names[made] == "new here"
    for words, env in (
        (("--experiment-name", "new here"), {}),
        (("--experiment-id", made), {}),
        ((), {"MLFLOW_EXPERIMENT_NAME": "new here"}),
        ((), {"MLFLOW_EXPERIMENT_ID": made}),
    ):
        record = user.run(folder, *words, **env)
        assert (record.experiment, record.tracking["experiment_id"]) == ("new here", made)
        shown = Shown(tracking_server, record.tracking["run_id"])
        assert shown.info["experiment_id"] == made


def test_an_experiment_that_is_not_there_is_wrong_use(user, tracking_server):
    folder, gate = user.gated()
    gate.touch()
    code, out, err = user.call("run", folder, *LOCAL, "--experiment-id", "987654")
    assert (code, out) == (2, "")
    assert "987654" in err
    assert "started" not in err
    assert user.records() == []


# -- without a server


def test_a_server_that_is_down_keeps_a_run_from_starting(user, nobody):
    folder = user.project({"MLproject": "entry_points: {main: {command: echo ran > ran}}\n"})
    code, out, err = user.call("run", folder, *LOCAL, MLFLOW_TRACKING_URI=nobody)
    assert (code, out) == (7, "")
    assert f"`{nobody}` cannot be reached: connection refused" in err
    assert "MLFLOW_TRACKING_URI" in err
    assert not (folder / "ran").exists()
    assert user.records() == []
    user.run(folder)
    code, out, err = user.call("run", folder, *LOCAL, MLFLOW_TRACKING_URI=nobody)
    assert (code, out, len(user.records())) == (7, "", 1)


def test_a_server_that_goes_down_costs_no_run_and_is_told_later(mortal_server, user_of):
    login = "user:hunter2-secret"
    secrets = (b"hunter2", base64.b64encode(login.encode()))
    with_secret = mortal_server.uri.replace("://", f"://{login}@")
    users = [user_of(with_secret, name) for name in ("a", "b", "full")]
    users[2].data.mkdir()
    (users[2].data / "outbox").write_text("in the way")
    projects = [user.gated() for user in users]
    processes = [user.begin(folder) for user, (folder, _gate) in zip(users, projects, strict=True)]
    mortal_server.kill()
    for _folder, gate in projects:
        gate.touch()
    told = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        told.append(out + err)
    assert all("does not show this run whole" in text for text in told)
    assert all("is kept and sent" in text for text in told[:2])
    assert "cannot be kept for later either" in told[2]
    records = [user.records()[0] for user in users]
    assert [record.status for record in records] == ["FINISHED"] * 3
    for user, record in zip(users[:2], records, strict=False):
        names = (f"{record.run_id}-files", f"{record.run_id}.json")
        assert [name for name in user.outbox() if name != ".lock"] == list(names)
        assert user.files_with(*secrets) == []
        code, out, _err = user.call("log", "--deliver")
        assert (code, out) == (7, "")
    assert not any("hunter2" in text for text in (*told, *map(repr, records)))

    mortal_server.start()
    _code, _out, err = users[0].call("run", projects[0][0], *LOCAL)
    assert "sent 1 earlier run to" in err
    assert "hunter2" not in err
    assert users[1].call("log", "--deliver")[:2] == (0, "1 run sent, 0 left\n")
    for user, record in zip(users[:2], records, strict=False):
        assert user.outbox() == [".lock"]
        shown = Shown(mortal_server, record.tracking["run_id"])
        assert (shown.status, shown.metrics) == ("FINISHED", {"loss": 0.25})
        assert shown.artifact("note.txt") == "noted"
        assert shown.info["end_time"] == record.ended_ns // 1_000_000
        assert user.files_with(*secrets) == []
    assert [record.cached for record in users[0].records()] == [True, False]


def test_a_run_that_was_deleted_there_is_not_kept_for_ever(user, tracking_server):
    folder, gate = user.gated()
    process = user.begin(folder)
    (record,) = user.records()
    ask(tracking_server, "runs/delete", {"run_id": record.tracking["run_id"]})
    gate.touch()
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "deleted" in err
    assert user.outbox() == []
    assert user.records()[0].status == "FINISHED"


@pytest.mark.parametrize("uri", ["sqlite:///tracking.db", "file:mlruns", "databricks", ""])
def test_an_address_that_is_no_server_is_left_alone(user_of, uri):
    user = user_of(uri)
    record = user.run(user.project({"MLproject": ECHO}))
    assert (record.status, record.tracking) == ("FINISHED", {})
    made = {path.name for place in (user.folder, user.folder / "home") for path in place.iterdir()}
    assert made == {"home", "store", "data", "project"}
    assert {p.name for p in (user.folder / "project").iterdir()} == {"MLproject", "out"}


def test_an_address_without_a_host_is_wrong_use(user_of):
    user = user_of("http://")
    code, _out, err = user.call("run", user.project({"MLproject": ECHO}), *LOCAL)
    assert code == 2
    assert "not the address of a server" in err
    assert user.records() == []

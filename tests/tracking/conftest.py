"""Receivers, and processes with the real MLflow client and server."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from repro.tracking import receiver

RUN_ID = "0123456789abcdef0123456789abcdef"
INHERITED = {
    "mlflow.user": "ada",
    "mlflow.runName": "step main",
    "mlflow.source.name": "file:///project",
    "mlflow.project.entryPoint": "main",
}


@pytest.fixture
def listening(tmp_path):
    """A receiver whose files go to `tmp_path`/logged."""
    started = receiver.start(
        RUN_ID, "7", "weather", str(tmp_path / "logged"), inherited_tags=INHERITED
    )
    yield started
    started.close()


@pytest.fixture
def ask(listening):
    """Send a request to the receiver as its step would; give the status and the reply."""

    def send(method, path, fields=None, *, raw=None, headers=None):
        variables = listening.variables
        request = urllib.request.Request(
            variables["MLFLOW_TRACKING_URI"] + path,
            data=raw
            if raw is not None
            else None
            if fields is None
            else json.dumps(fields).encode(),
            method=method,
            headers={
                "Authorization": f"Bearer {variables['MLFLOW_TRACKING_TOKEN']}",
                **(headers or {}),
            },
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return send


@pytest.fixture
def call(ask):
    """Call an endpoint that must not fail; give its reply."""

    def send(method, path, **fields):
        if method == "GET":
            query = "&".join(f"{key}={value}" for key, value in fields.items())
            status, reply = ask(method, f"/api/2.0/mlflow/{path}?{query}")
        else:
            status, reply = ask(method, f"/api/2.0/mlflow/{path}", fields)
        assert status == 200, reply
        return reply

    return send


def need_mlflow():
    missing = [name for name in ("mlflow", "sklearn") if not importlib.util.find_spec(name)]
    if missing:
        reason = f"no {missing[0]} in this environment: pip install '.[test]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def clean_environment(home):
    kept = ("PATH", "LANG", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    return {**variables, "HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="session")
def run_client(tmp_path_factory):
    """Run a script with the real MLflow client; give the process and what it reported."""
    need_mlflow()

    def run(script, variables, *arguments):
        home = tmp_path_factory.mktemp("client")
        (home / "script.py").write_text(script)
        process = subprocess.run(
            [sys.executable, "script.py", *arguments],
            cwd=home,
            env={**clean_environment(home), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        report = home / "report.json"
        return process, json.loads(report.read_text()) if report.exists() else None

    return run


class TrackingServer:
    """A real `mlflow server`, which can be killed and started again with what it knew."""

    def __init__(self, folder):
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        options = {
            "--backend-store-uri": f"sqlite:///{self.folder}/tracking.db",
            "--artifacts-destination": f"{self.folder}/artifacts",
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
        }
        words = [word for pair in options.items() for word in pair]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                cwd=self.folder,
                env={
                    **clean_environment(self.folder),
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(self.uri + path, timeout=10) as response:
            return response.read()

    def run(self, run_id):
        """Read a run back, with its lists of pairs as dictionaries."""
        run = json.loads(self.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}"))["run"]
        for kind in ("metrics", "params", "tags"):
            run[kind] = {item["key"]: item["value"] for item in run["data"].get(kind, [])}
        return run


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory):
    need_mlflow()
    server = TrackingServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()

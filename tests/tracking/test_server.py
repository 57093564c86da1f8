"""The mirror's HTTP: credentials, retries, and what is said when a server does not serve.

A receiver stands in for a server that wants a token; small ones misbehave on purpose.
"""

import http.server
import json
import os
import socket
import threading
import time

import pytest

from repro import errors
from repro.ports import Tracked
from repro.tracking import credentials, outbox
from repro.tracking.mirror import Mirror

SECRET = "s3cr3t-passw0rd"


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with what it was told, one after the other, and remembers who asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.server.bodies.append(body)
        answers = self.server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST  # noqa: N815  (http.server's names)

    def log_message(self, *args):
        pass


@pytest.fixture
def scripted():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.seen, server.bodies, server.answers = [], [], []
    server.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def answer(status=200, body=b"{}", **headers):
    return status, body, headers


def mirror_of(uri, **environ):
    return Mirror(uri, environ={"HOME": "/nowhere", **environ})


def test_the_right_token_passes_and_a_wrong_one_does_not(listening):
    uri = listening.variables["MLFLOW_TRACKING_URI"]
    token = listening.variables["MLFLOW_TRACKING_TOKEN"]
    mirror_of(uri, MLFLOW_TRACKING_TOKEN=token).check()
    for environ in ({}, {"MLFLOW_TRACKING_TOKEN": SECRET}):
        with pytest.raises(errors.Unreachable, match="refuses the credentials: HTTP 401") as caught:
            mirror_of(uri, **environ).check()
        assert "MLFLOW_TRACKING_USERNAME" in caught.value.hints[0]
        assert SECRET not in repr(caught.value)


def test_a_name_and_password_win_over_a_token(scripted):
    scripted.answers = [answer()]
    login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "é:x"}
    mirror_of(scripted.uri, MLFLOW_TRACKING_TOKEN="t", **login).check()
    mirror_of(scripted.uri, MLFLOW_TRACKING_TOKEN="t").check()
    mirror_of(scripted.uri.replace("://", "://bob:p%40ss@")).check()
    mirror_of(scripted.uri).check()
    assert [authorization for _, authorization in scripted.seen] == [
        "Basic YWRhOsOpOng=",
        "Bearer t",
        "Basic Ym9iOnBAc3M=",
        None,
    ]


def test_stored_credentials_are_read_where_mlflow_keeps_them(tmp_path):
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = 50%off\n"
    )
    found = credentials.read({"HOME": str(tmp_path)})
    assert (found.username, found.password) == ("ada", "50%off")
    found = credentials.read({"HOME": str(tmp_path), "MLFLOW_TRACKING_USERNAME": "bob"})
    assert (found.username, found.password) == ("bob", "50%off")
    assert "50%off" not in repr(found)


@pytest.mark.parametrize("text", ["not ini", "[other]\na = b\n", "[mlflow]\n[mlflow]\n", "\udcff"])
def test_stored_credentials_that_cannot_be_read_are_none(tmp_path, text):
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(text, errors="surrogateescape")
    assert credentials.read({"HOME": str(tmp_path)}) == credentials.Credentials()


@pytest.mark.parametrize(
    ("environ", "verify"),
    [
        ({}, True),
        ({"MLFLOW_TRACKING_INSECURE_TLS": "true"}, False),
        ({"MLFLOW_TRACKING_INSECURE_TLS": "false"}, True),
        ({"MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem"}, "/ca.pem"),
    ],
)
def test_whom_to_trust_is_what_mlflow_is_told(environ, verify):
    assert credentials.read({"HOME": "/nowhere", **environ}).verify == verify


@pytest.mark.parametrize(
    "uri", ["sqlite:///m.db", "./mlruns", "databricks", "http://", "http://[::1", "http://h:port/"]
)
def test_what_is_no_server_is_wrong_use(uri):
    with pytest.raises(errors.UsageError, match="not the address of a server"):
        mirror_of(uri)


def test_credentials_in_the_address_are_never_shown_or_stored():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mirror = mirror_of(f"http://ada:{SECRET}@127.0.0.1:{port}/base/")
    assert mirror.name == f"http://127.0.0.1:{port}/base"
    with pytest.raises(errors.Unreachable) as caught:
        mirror.check()
    shown = repr(caught.value) + repr(caught.value.hints) + repr(caught.value.__cause__)
    assert SECRET not in shown
    assert caught.value.message.endswith("cannot be reached: connection refused")


def test_a_server_that_is_overloaded_is_asked_again(scripted):
    scripted.answers = [answer(503), answer(429), answer()]
    mirror_of(scripted.uri).check()
    assert len(scripted.seen) == 3


def test_three_tries_are_all(scripted):
    scripted.answers = [answer(500)]
    with pytest.raises(errors.Unreachable, match="does not serve: HTTP 500") as caught:
        mirror_of(scripted.uri).check()
    assert len(scripted.seen) == 3
    assert caught.value.exit == errors.UNREACHABLE


def test_a_run_is_not_made_twice_because_an_answer_was_lost(scripted):
    scripted.answers = [answer(500)]
    run = {"id": "r", "experiment_id": "0", "started_ms": 1}
    with pytest.raises(errors.Unreachable):
        mirror_of(scripted.uri).begin(run)
    assert len(scripted.seen) == 1


def test_a_run_that_could_not_begin_whole_does_not_stay_running(scripted):
    made = answer(200, b'{"run": {"info": {"run_id": "r"}}}')
    scripted.answers = [made, answer(403), answer()]
    run = {"id": "r", "experiment_id": "0", "started_ms": 5, "parameters": {"a": "1"}}
    with pytest.raises(errors.Unreachable, match="HTTP 403"):
        mirror_of(scripted.uri).begin(run)
    assert json.loads(scripted.bodies[2]) == {"run_id": "r", "status": "FAILED", "end_time": 5}


def test_a_server_that_is_silent_is_waited_for_only_once():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mirror, times = mirror_of(f"http://127.0.0.1:{port}"), []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(errors.Unreachable):
            mirror.finish("r", "FINISHED", Tracked(), 1)
        times.append(time.monotonic() - began)
    assert 1.4 < times[0] < 10
    assert times[1] < 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(200, b"<html>"), "does not answer like an MLflow tracking server"),
        (answer(200, b"[]"), "does not answer like an MLflow tracking server"),
        (answer(404, b"<html>"), "does not answer like an MLflow tracking server"),
        (answer(302, Location="https://elsewhere/"), "has moved: HTTP 302"),
        (answer(403), "refuses the credentials: HTTP 403"),
        (
            answer(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "too\\n long"}'),
            "refuses: too long",
        ),
    ],
)
def test_a_server_that_answers_otherwise_is_explained_after_one_try(scripted, reply, words):
    scripted.answers = [reply]
    with pytest.raises(errors.Unreachable, match=words) as caught:
        mirror_of(scripted.uri).check()
    assert caught.value.hints
    assert len(scripted.seen) == 1


def test_a_stranger_that_is_asked_for_an_experiment_is_no_wrong_use(scripted):
    scripted.answers = [answer(404, b"<html>")]
    with pytest.raises(errors.Unreachable, match="does not answer like"):
        mirror_of(scripted.uri).experiment("n")


def test_an_experiment_that_somebody_else_makes_meanwhile_is_found(scripted):
    def refusal(code, status):
        return answer(status, json.dumps({"error_code": code, "message": "m"}).encode())

    found = b'{"experiment": {"experiment_id": "3", "name": "n", "lifecycle_stage": "active"}}'
    scripted.answers = [
        refusal("RESOURCE_DOES_NOT_EXIST", 404),
        refusal("RESOURCE_ALREADY_EXISTS", 400),
        answer(200, found),
    ]
    assert mirror_of(scripted.uri).experiment("n") == ("3", "n")


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("mlflow-artifacts:/1/r/artifacts", "{}/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts"),
        ("mlflow-artifacts://elsewhere:80/1/r/artifacts", ""),
        ("s3://bucket/1/r/artifacts", ""),
        ("/folder/1/r/artifacts", ""),
    ],
)
def test_credentials_go_to_no_other_host_with_an_artifact(scripted, uri, url):
    assert mirror_of(scripted.uri)._server.artifact_url(uri) == url.format(scripted.uri)


def answer_for_run(artifact_uri):
    info = {"run_id": "r", "experiment_id": "1", "artifact_uri": artifact_uri}
    return answer(200, json.dumps({"run": {"info": info, "data": {}}}).encode())


@pytest.fixture
def with_artifacts(tmp_path):
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "a.txt").write_text("a")
    (tmp_path / "art" / "b.txt").write_text("b")
    return Tracked(artifacts=str(tmp_path / "art"))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_artifacts_are_copied_where_the_server_keeps_them_on_this_machine(
    scripted, tmp_path, with_artifacts, scheme
):
    root = tmp_path / "server root"
    root.mkdir()
    uri = scheme + (str(root).replace(" ", "%20") if scheme else str(root))
    scripted.answers = [answer_for_run(f"{uri}/1/r/artifacts")]
    mirror_of(scripted.uri).finish("r", "FINISHED", with_artifacts, 1)
    assert (root / "1" / "r" / "artifacts" / "a.txt").read_text() == "a"


def test_artifacts_are_not_copied_to_a_folder_that_only_the_server_has(
    scripted, tmp_path, with_artifacts
):
    scripted.answers = [answer_for_run(f"{tmp_path}/no/such/root/1/r/artifacts")]
    mirror_of(scripted.uri).finish("r", "FINISHED", with_artifacts, 1)
    assert os.listdir(tmp_path) == ["art"]
    tag = {"key": "repro.artifacts", "value": "not-mirrored"}
    assert json.loads(scripted.bodies[1]) == {"run_id": "r", "tags": [tag]}


def test_an_artifact_that_is_refused_does_not_cost_the_others(scripted, with_artifacts):
    refusal = answer(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid path"}')
    scripted.answers = [answer_for_run("mlflow-artifacts:/1/r/artifacts"), refusal, answer()]
    mirror_of(scripted.uri).finish("r", "FINISHED", with_artifacts, 1)
    paths = [path for path, _ in scripted.seen]
    place = "/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts"
    assert paths[1:3] == [f"{place}/a.txt", f"{place}/b.txt"]
    assert scripted.bodies[1:3] == [b"a", b"b"]
    tag = {"key": "repro.refused", "value": "a.txt"}
    assert json.loads(scripted.bodies[3]) == {"run_id": "r", "tags": [tag]}


def pending(mirror, our_id, **more):
    fields = {"run": {"id": our_id}, "status": "FINISHED", "tracked": Tracked(), "ended_ms": 1}
    return outbox.Pending(server=mirror.name, **{**fields, **more})


def test_what_is_kept_holds_no_credentials_and_comes_back_equal(tmp_path):
    mirror = mirror_of(f"http://ada:{SECRET}@127.0.0.1:1")
    tracked = Tracked(metrics=(("k", "nan", 1, 2),), parameters={"\ud800": "é"})
    kept = pending(mirror, "r1", tracked=tracked)
    outbox.keep(str(tmp_path / "box"), kept)
    (file,) = (tmp_path / "box").iterdir()
    assert SECRET not in file.read_text()
    assert outbox._read(str(file)) == kept


def test_what_is_for_another_server_or_damaged_is_left(scripted, tmp_path):
    scripted.answers = [answer()]
    mirror = mirror_of(scripted.uri)
    outbox.keep(str(tmp_path), pending(mirror_of("http://elsewhere"), "r1"))
    (tmp_path / "r2.json").write_text('{"half')
    assert outbox.deliver(str(tmp_path), mirror) == (0, 1)
    assert sorted(os.listdir(tmp_path)) == [".lock", "r1.json", "r2.json"]
    assert scripted.seen == []


def test_a_run_that_was_deleted_there_is_forgotten_and_holds_up_no_other(scripted, tmp_path):
    missing = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "gone"}'
    info = {"run_id": "two", "experiment_id": "1", "artifact_uri": "s3://b"}
    there = json.dumps({"run": {"info": info, "data": {}}}).encode()
    scripted.answers = [answer(404, missing), answer(404, missing), answer(200, there), answer()]
    mirror = mirror_of(scripted.uri)
    outbox.keep(str(tmp_path), pending(mirror, "r1", run_id="one"))
    outbox.keep(str(tmp_path), pending(mirror, "r2", run_id="two"))
    assert outbox.deliver(str(tmp_path), mirror) == (1, 0)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_server_that_is_down_is_not_asked_for_every_run(scripted, tmp_path):
    scripted.answers = [answer(401)]
    mirror = mirror_of(scripted.uri)
    for number in range(5):
        outbox.keep(str(tmp_path), pending(mirror, f"r{number}", run_id=str(number)))
    assert outbox.deliver(str(tmp_path), mirror) == (0, 5)
    assert len(scripted.seen) == 2  # what the run shows, and the status that is always sent


def test_an_empty_outbox_is_no_folder(tmp_path):
    mirror = mirror_of("http://elsewhere")
    assert outbox.deliver(str(tmp_path / "none"), mirror) == (0, 0)
    assert os.listdir(tmp_path) == []


def test_two_processes_do_not_deliver_at_once(scripted, tmp_path):
    mirror = mirror_of(scripted.uri)
    outbox.keep(str(tmp_path), pending(mirror, "r1", run_id="one"))
    with outbox.files.Lock(str(tmp_path / ".lock")):
        assert outbox.deliver(str(tmp_path), mirror) == (0, 1)
    assert scripted.seen == []

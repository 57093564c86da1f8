"""The receiver as plain HTTP: who may speak, what is refused, and that nothing breaks it."""

import http.client
import json
import os
import socket
import threading
import urllib.error

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro.tracking import receiver
from repro.tracking.endpoints import ENDPOINTS

API = "/api/2.0/mlflow/"


def connection(listening):
    port = int(listening.variables["MLFLOW_TRACKING_URI"].rpartition(":")[2])
    return http.client.HTTPConnection("127.0.0.1", port, timeout=20)


def test_listens_on_loopback_only(listening):
    assert listening.variables["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:")


def test_variables_name_the_run_and_keep_the_clients_hands_off_proxies_and_networks(tmp_path):
    started = receiver.start("r1", "7", "weather", str(tmp_path), inherited_tags={})
    variables = started.variables
    started.close()
    assert (variables["MLFLOW_RUN_ID"], variables["MLFLOW_EXPERIMENT_ID"]) == ("r1", "7")
    assert variables["NO_PROXY"] == variables["no_proxy"] == "127.0.0.1,localhost"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == variables["DO_NOT_TRACK"] == "true"
    assert "MLFLOW_EXPERIMENT_NAME" not in variables


def test_every_receiver_has_its_own_token(listening, tmp_path):
    other = receiver.start("r2", "7", "weather", str(tmp_path), inherited_tags={})
    other.close()
    tokens = {r.variables["MLFLOW_TRACKING_TOKEN"] for r in (listening, other)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 43


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer wrong", "Basic YTpi", "Bearer é"])
def test_without_the_token_nothing_is_written(listening, ask, header):
    body = {"run_id": listening.variables["MLFLOW_RUN_ID"], "key": "k", "value": "v"}
    status, reply = ask(
        "POST",
        API + "runs/log-parameter",
        body,
        headers={"Authorization": header.encode("latin-1")},
    )
    assert (status, reply["error_code"]) == (401, "UNAUTHENTICATED")
    assert listening.close().parameters == {}


def test_a_large_body_of_a_stranger_is_not_waited_for(listening):
    client = connection(listening)
    client.putrequest("POST", API + "runs/log-batch")
    client.putheader("Content-Length", str(10**9))
    client.endheaders()
    client.send(b"x" * 65536)
    assert client.getresponse().status == 401
    client.close()


def test_unknown_endpoints_are_refused_as_mlflow_does_and_remembered(listening, ask):
    status, reply = ask("POST", API + "registered-models/create", {"name": "m"})
    assert (status, reply["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert ask("GET", "/version")[0] == 404
    assert ask("POST", "/runs/get", {})[0] == 404
    assert listening.unknown == (f"POST {API}registered-models/create", "POST /runs/get")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"run_id": 1e999999}',
        b'{"run_id": {}}',
    ],
)
def test_malformed_bodies_are_refused_and_the_connection_lives(listening, ask, body):
    status, reply = ask("POST", API + "runs/log-parameter", raw=body)
    assert (status, reply["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_the_size_of_a_request_has_a_limit(listening, ask):
    status, reply = ask("POST", API + "runs/log-batch", raw=b" " * (16 * 1024 * 1024 + 1))
    assert status == 413
    assert "16777216" in reply["message"]


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣"])
def test_a_request_must_say_its_length(listening, length):
    client = connection(listening)
    client.putrequest("POST", API + "runs/log-batch")
    client.putheader("Authorization", f"Bearer {listening.variables['MLFLOW_TRACKING_TOKEN']}")
    client.putheader("Content-Length", length.encode())
    client.endheaders()
    assert client.getresponse().status == 411
    client.close()


def test_a_length_beyond_every_number_is_too_large(listening):
    client = connection(listening)
    client.putrequest("POST", API + "runs/log-batch")
    client.putheader("Authorization", f"Bearer {listening.variables['MLFLOW_TRACKING_TOKEN']}")
    client.putheader("Content-Length", "9" * 5000)
    client.endheaders()
    client.sock.shutdown(socket.SHUT_WR)
    assert client.getresponse().status == 413
    client.close()


@pytest.mark.parametrize(
    "line", [b"nonsense\r\n\r\n", b"BREW /pot HTTP/1.1\r\n\r\n", b"GET " + b"x" * 70000 + b"\r\n"]
)
def test_what_is_not_http_gets_json_too(listening, line):
    port = int(listening.variables["MLFLOW_TRACKING_URI"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(line)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert json.loads(answer.rpartition(b"\r\n")[2])["error_code"] == "INVALID_PARAMETER_VALUE"


def test_one_connection_serves_many_requests_without_delay(listening):
    client = connection(listening)
    token = {"Authorization": f"Bearer {listening.variables['MLFLOW_TRACKING_TOKEN']}"}
    run_id = listening.variables["MLFLOW_RUN_ID"]
    for step in range(200):
        body = json.dumps(
            {"run_id": run_id, "key": "k", "value": step, "timestamp": 1, "step": step}
        )
        client.request("POST", API + "runs/log-metric", body, token)
        assert client.getresponse().read() == b"{}"
    client.close()
    assert [value for _, value, _, _ in listening.close().metrics] == [
        repr(float(step)) for step in range(200)
    ]


def test_threads_of_one_step_lose_nothing(listening, ask):
    run_id = listening.variables["MLFLOW_RUN_ID"]

    def log(worker):
        for step in range(25):
            body = {"run_id": run_id, "key": f"k{worker}", "value": step, "step": step}
            ask("POST", API + "runs/log-metric", body)

    workers = [threading.Thread(target=log, args=[n]) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(listening.close().metrics) == 200


def test_after_close_nobody_listens_and_an_open_connection_is_ended(listening, ask):
    client = connection(listening)
    client.request("GET", "/version", headers={"Authorization": "Bearer x"})
    client.getresponse().read()
    keeping = connection(listening)
    token = {"Authorization": f"Bearer {listening.variables['MLFLOW_TRACKING_TOKEN']}"}
    keeping.request("GET", "/version", headers=token)
    keeping.getresponse().read()
    before = listening.close()
    assert keeping.sock.recv(1) == b""
    with pytest.raises(urllib.error.URLError, match="refused"):
        ask("GET", "/version")
    assert listening.close() is before
    client.close()
    keeping.close()


def test_nothing_is_printed_and_no_thread_dies(listening, ask, capfd):
    ask("POST", API + "runs/log-batch", raw=b"{")
    ask("GET", "/version")
    port = int(listening.variables["MLFLOW_TRACKING_URI"].rpartition(":")[2])
    for half in (
        b"",
        b"POST / HTTP/1.1\r\nContent-Le",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(half)
    listening.close()
    assert capfd.readouterr() == ("", "")


def test_a_step_that_never_connects_leaves_no_folder(listening, tmp_path):
    tracked = listening.close()
    assert (tracked.metrics, tracked.tags, tracked.artifacts) == ((), {}, "")
    assert os.listdir(tmp_path) == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = [
    *("run_id", "experiment_id", "experiment_name", "name", "key", "value", "timestamp", "step"),
    *("metrics", "params", "tags", "datasets", "models", "model_id", "filter", "order_by"),
    *("experiment_ids", "max_results", "page_token", "status", "end_time", "model_json"),
]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(endpoint=st.sampled_from(sorted(ENDPOINTS)), data=st.data())
def test_no_request_whatsoever_makes_the_receiver_stumble(listening, ask, endpoint, data):
    known = st.sampled_from([listening.variables["MLFLOW_RUN_ID"], "7", "0", "k"])
    body = data.draw(st.dictionaries(st.sampled_from(fields), values | known, max_size=6))
    method, path = endpoint
    status, reply = ask("POST" if method == "GET" else method, API + path.replace("*", "k"), body)
    if method == "GET":
        query = "&".join(f"{key}=k" for key in body)
        status, reply = ask("GET", API + path.replace("*", "k") + "?" + query)
    assert status in {200, 400, 404}
    assert isinstance(reply, dict)

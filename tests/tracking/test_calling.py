"""How the code of a step asks for other steps over HTTP; what runs them is a stand-in."""

import os
import re

import pytest

from repro.errors import ParameterInvalid, UsageError
from repro.ports import Called
from repro.tracking import receiver

CALLED = "f" * 32


class Runner:
    """Runs nothing: a run is over when the test says so."""

    def __init__(self):
        self.asked = []
        self.cancelled = []
        self.over = None
        self.ended = None

    def begin(self, asked, ended):
        if asked.entry_point == "bad":
            raise ParameterInvalid("no value", hints=["give one"])
        self.asked.append(asked)
        self.ended = ended
        return Called(run_id=CALLED, status="RUNNING", entry_point=asked.entry_point)

    def wait(self, run_id, seconds):
        if run_id != CALLED:
            raise UsageError("not asked for")
        return self.over

    def cancel(self, run_id):
        self.cancelled.append(run_id)

    def write(self, called, folder):
        os.makedirs(folder)
        with open(os.path.join(folder, "model.txt"), "w") as file:
            file.write(called.artifacts)

    def end(self, **facts):
        over = Called(run_id=CALLED, entry_point="train", key="k", **facts)
        self.ended(over)
        self.over = over


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def listening(tmp_path, runner):
    started = receiver.start(
        "0" * 32, "7", "weather", str(tmp_path / "logged"), inherited_tags={}, calls=runner
    )
    yield started
    started.close()


RUNS = "/api/2.0/repro/runs"
GIVEN = {"uri": ".", "folder": "/work", "entry_point": "train", "parameters": {"a": "1", "b": None}}


def test_the_step_is_told_where_to_ask(listening):
    assert listening.variables["REPRO_CALLS"] == listening.variables["MLFLOW_TRACKING_URI"]
    assert re.fullmatch("[0-9a-f]{64}", listening.variables["REPRO_CALLS_TOKEN"])


def test_a_run_is_begun_waited_for_and_found_by_the_client(ask, call, runner, listening):
    status, begun = ask("POST", RUNS, {**GIVEN, "experiment_id": "7"})
    assert (status, begun["run_id"], begun["status"]) == (200, CALLED, "RUNNING")
    (asked,) = runner.asked
    assert (asked.parameters, asked.experiment_name) == ({"a": "1", "b": None}, "")
    shown = call("GET", "runs/get", run_id=CALLED)["run"]
    assert shown["info"]["status"] == "RUNNING"
    assert {"key": "mlflow.parentRunId", "value": "0" * 32} in shown["data"]["tags"]
    assert ask("GET", f"{RUNS}?run_id={CALLED}&seconds=0")[1]["status"] == "RUNNING"
    runner.end(status="FINISHED", metrics=(("m", "0.5", 1, 2),), artifacts="content")
    told = ask("GET", f"{RUNS}?run_id={CALLED}")[1]
    assert (told["status"], told["metrics"]) == ("FINISHED", {"m": "0.5"})
    run = call("GET", "runs/get", run_id=CALLED)["run"]
    assert (run["info"]["status"], run["data"]["metrics"][0]["value"]) == ("FINISHED", 0.5)
    with open(run["info"]["artifact_uri"].removeprefix("file://") + "/model.txt") as file:
        assert file.read() == "content"
    assert listening.close().children == ()  # it has a record of its own


def test_an_experiment_of_the_step_goes_on_by_its_name(ask, call, runner):
    made = call("POST", "experiments/create", name="side")["experiment_id"]
    ask("POST", RUNS, {**GIVEN, "experiment_id": made})
    assert runner.asked[0].experiment_name == "side"


def test_a_run_can_be_ended(ask, runner):
    ask("POST", RUNS, GIVEN)
    assert ask("POST", f"{RUNS}/cancel", {"run_id": CALLED})[0] == 200
    assert runner.cancelled == [CALLED]


def test_an_error_comes_with_its_code_and_hints(ask):
    status, reply = ask("POST", RUNS, {**GIVEN, "entry_point": "bad"})
    assert (status, reply["code"]) == (400, "parameter-invalid")
    assert (reply["message"], reply["hints"]) == ("no value", ["give one"])


@pytest.mark.parametrize(
    ("method", "path", "fields", "expected"),
    [
        ("POST", RUNS, {**GIVEN, "parameters": {"a": 1}}, 400),
        ("POST", RUNS, {**GIVEN, "parameters": ["a"]}, 400),
        ("POST", RUNS, {**GIVEN, "uri": 3}, 400),
        ("POST", RUNS, {**GIVEN, "experiment_id": "99"}, 404),
        ("POST", RUNS, {"entry_point": "train"}, 400),
        ("GET", RUNS, None, 400),
        ("GET", f"{RUNS}?run_id=other", None, 400),
        ("GET", f"{RUNS}?run_id={CALLED}&seconds=soon", None, 400),
        ("DELETE", RUNS, {}, 404),
    ],
)
def test_what_is_no_request_is_refused(ask, runner, method, path, fields, expected):
    assert ask(method, path, fields)[0] == expected
    assert runner.asked == []


def test_a_stranger_is_not_heard(ask, runner):
    status, _reply = ask("POST", RUNS, GIVEN, headers={"Authorization": "Bearer " + "0" * 64})
    assert status == 401
    assert runner.asked == []

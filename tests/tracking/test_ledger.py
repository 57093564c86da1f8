"""What is kept of what a step logs, and what the client reads back, without a client."""

import os

import pytest

from repro import errors
from repro.canonical import decode, encode
from repro.ports import ChildRun, Tracked
from repro.value import dump, load

RUN_ID = "0123456789abcdef0123456789abcdef"


def test_numbers_keep_their_order_and_every_bit(listening, call):
    given = [
        ("b", 0.1, 5, 2),
        ("a", "NaN", 6, 0),
        ("b", "-Infinity", 4, 1),
        ("b", 1e-320, "7", "0"),
    ]
    metrics = [dict(zip(("key", "value", "timestamp", "step"), m, strict=True)) for m in given]
    call("POST", "runs/log-batch", run_id=RUN_ID, metrics=metrics)
    call("POST", "runs/log-metric", run_uuid=RUN_ID, key="c", value="Infinity", timestamp=8)
    assert listening.close().metrics == (
        ("b", "0.1", 5, 2),
        ("a", "nan", 6, 0),
        ("b", "-inf", 4, 1),
        ("b", "1e-320", 7, 0),
        ("c", "inf", 8, 0),
    )


def test_the_current_value_is_that_of_the_highest_step(call):
    for step, value in ((2, 0.5), (1, 0.75), (2, 0.25)):
        call("POST", "runs/log-metric", run_id=RUN_ID, key="k", value=value, timestamp=9, step=step)
    metrics = call("GET", "runs/get", run_id=RUN_ID)["run"]["data"]["metrics"]
    assert [(m["value"], m["step"]) for m in metrics] == [(0.5, 2)]


def test_not_a_number_is_read_back_as_a_word(call):
    call("POST", "runs/log-metric", run_id=RUN_ID, key="k", value="NaN", timestamp=9)
    assert call("GET", "runs/get", run_id=RUN_ID)["run"]["data"]["metrics"][0]["value"] == "NaN"


def test_a_parameter_cannot_change_and_a_refused_batch_leaves_nothing(listening, ask, call):
    call("POST", "runs/log-parameter", run_id=RUN_ID, key="a", value="1")
    call("POST", "runs/log-parameter", run_id=RUN_ID, key="a", value="1")
    batch = {
        "run_id": RUN_ID,
        "params": [{"key": "b", "value": "1"}, {"key": "a", "value": "2"}],
        "tags": [{"key": "t", "value": "1"}],
        "metrics": [{"key": "m", "value": 1}],
    }
    status, reply = ask("POST", "/api/2.0/mlflow/runs/log-batch", batch)
    assert (status, reply["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert reply["message"].startswith("Changing param values is not allowed")
    tracked = listening.close()
    assert (tracked.parameters, tracked.tags, tracked.metrics) == ({"a": "1"}, {}, ())


def test_only_tags_that_the_code_has_set_are_kept(listening, call):
    tags = {
        "mine": "1",
        "mlflow.note.content": "a note",
        "mlflow.source.name": "train.py",
        "mlflow.user": "eve",
        "mlflow.project.entryPoint": "main",
    }
    for key, value in tags.items():
        call("POST", "runs/set-tag", run_id=RUN_ID, key=key, value=value)
    call("POST", "runs/set-tag", run_id=RUN_ID, key="gone", value="1")
    call("POST", "runs/delete-tag", run_id=RUN_ID, key="gone")
    assert listening.close().tags == {"mine": "1", "mlflow.note.content": "a note"}


def test_a_name_that_the_code_gives_its_run_is_kept(listening, call):
    call("POST", "runs/update", run_id=RUN_ID, status="RUNNING", run_name="better")
    assert call("GET", "runs/get", run_id=RUN_ID)["run"]["info"]["run_name"] == "better"
    assert listening.close().tags == {"mlflow.runName": "better"}


def test_the_client_sees_the_inherited_tags(call):
    run = call("GET", "runs/get", run_id=RUN_ID)["run"]
    assert {"key": "mlflow.project.entryPoint", "value": "main"} in run["data"]["tags"]
    assert run["info"]["run_name"] == "step main"
    assert run["info"]["user_id"] == "ada"
    assert run["info"]["status"] == "RUNNING"


def test_a_tag_that_is_not_there_cannot_be_removed(ask):
    path = "/api/2.0/mlflow/runs/delete-tag"
    status, reply = ask("POST", path, {"run_id": RUN_ID, "key": "t"})
    assert (status, reply["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("runs/log-parameter", {"run_id": "nobody", "key": "a", "value": "1"}),
        ("runs/create", {"experiment_id": "99"}),
        ("runs/log-metric", {"run_id": RUN_ID, "key": "a", "value": 1, "model_id": "m-1"}),
    ],
)
def test_what_is_not_there_is_named(ask, path, fields):
    status, reply = ask("POST", "/api/2.0/mlflow/" + path, fields)
    assert (status, reply["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    "metric",
    [
        {"key": "", "value": 1},
        {"key": "k" * 251, "value": 1},
        {"key": "k", "value": True},
        {"key": "k", "value": "much"},
        {"key": "k"},
        {"key": "k", "value": 1, "step": 1.5},
        {"key": "k", "value": 1, "step": 2**63},
        {"key": 3, "value": 1},
    ],
)
def test_a_number_that_is_none_is_refused(ask, metric):
    status, reply = ask("POST", "/api/2.0/mlflow/runs/log-metric", {"run_id": RUN_ID, **metric})
    assert (status, reply["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_children_keep_who_is_below_whom_whatever_their_ids(listening, call):
    def child(parent, name):
        tags = [{"key": "mlflow.parentRunId", "value": parent}]
        run = call("POST", "runs/create", experiment_id="7", run_name=name, start_time=5, tags=tags)
        return run["run"]["info"]["run_id"]

    first = child(RUN_ID, "first")
    hidden = child(RUN_ID, "hidden")
    second = child(first, "second")
    call("POST", "runs/delete", run_id=hidden)
    call("POST", "runs/log-parameter", run_id=second, key="depth", value="2")
    call("POST", "runs/update", run_id=second, status="FAILED", end_time=9)
    assert listening.close().children == (
        ChildRun(name="first", status="RUNNING", started_ms=5),
        ChildRun(
            name="second",
            status="FAILED",
            parent=0,
            started_ms=5,
            ended_ms=9,
            parameters={"depth": "2"},
        ),
    )


def test_an_experiment_of_another_name_is_made_and_the_run_follows_until_it_is_attached(ask, call):
    by_name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=other"
    assert ask("GET", by_name)[1]["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    made = call("POST", "experiments/create", name="other")["experiment_id"]
    assert made not in {"0", "7"}
    assert call("GET", "runs/get", run_id=RUN_ID)["run"]["info"]["experiment_id"] == made
    call("POST", "runs/update", run_id=RUN_ID, status="RUNNING")
    assert call("GET", "experiments/get-by-name", experiment_name="weather")["experiment"] == {
        **call("GET", "experiments/get", experiment_id="7")["experiment"]
    }
    assert call("GET", "runs/get", run_id=RUN_ID)["run"]["info"]["experiment_id"] == made
    again = ask("POST", "/api/2.0/mlflow/experiments/create", {"name": "other"})
    assert (again[0], again[1]["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")


def test_a_data_set_that_is_logged_twice_is_kept_once(listening, call):
    dataset = {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}}
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    for _ in range(2):
        call("POST", "runs/log-inputs", run_id=RUN_ID, datasets=[{**dataset, "tags": tags}])
    assert listening.close().datasets == ({**dataset, "tags": tags},)


def test_the_models_of_older_clients_are_kept_in_their_tag(listening, call):
    for name in ("a", "b"):
        call("POST", "runs/log-model", run_id=RUN_ID, model_json=f'{{"artifact_path": "{name}"}}')
    history = '[{"artifact_path": "a"}, {"artifact_path": "b"}]'
    assert listening.close().tags == {"mlflow.log-model.history": history}


def new_model(call, name, text):
    model = call("POST", "logged-models", experiment_id="7", name=name, source_run_id=RUN_ID)
    folder = model["model"]["info"]["artifact_uri"].removeprefix("file://")
    os.makedirs(folder)
    with open(os.path.join(folder, "MLmodel"), "w") as file:
        file.write(text)
    return model["model"]["info"]["model_id"]


def contents(folder):
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path) as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def test_models_end_up_in_the_artifacts_under_their_names_the_last_one_first(listening, call):
    for text in ("1", "2", "3"):
        new_model(call, "net", text)
    new_model(call, "net-1", "another")
    removed = new_model(call, "gone", "x")
    call("DELETE", f"logged-models/{removed}", model_id=removed)
    tracked = listening.close()
    assert contents(tracked.artifacts) == {
        "net/MLmodel": "3",
        "net-1/MLmodel": "another",
        "net-2/MLmodel": "1",
        "net-3/MLmodel": "2",
    }


def test_a_model_joins_the_files_that_were_logged_in_its_place(listening, call, tmp_path):
    place = tmp_path / "logged" / "artifacts" / "net"
    place.mkdir(parents=True)
    (place / "notes").write_text("mine")
    (place / "MLmodel").mkdir()
    new_model(call, "net", "model")
    tracked = listening.close()
    assert contents(tracked.artifacts) == {"net/notes": "mine", "net/MLmodel": "model"}


def test_a_link_in_place_of_a_folder_is_never_followed(listening, call, tmp_path):
    outside = tmp_path / "outside"
    (outside / "net").mkdir(parents=True)
    (tmp_path / "logged" / "artifacts").mkdir(parents=True)
    (tmp_path / "logged" / "artifacts" / "net").symlink_to(outside / "net")
    new_model(call, "net", "model")
    tracked = listening.close()
    assert contents(outside) == {}
    assert contents(tracked.artifacts) == {"net/MLmodel": "model"}


def test_artifacts_that_are_a_link_are_no_artifacts(listening, call, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "artifacts").symlink_to(outside)
    new_model(call, "net", "model")
    assert listening.close().artifacts == ""
    assert contents(outside) == {"secret": "s"}


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".", "a\0b", "\ud800", "é" * 101])
def test_a_models_name_must_do_as_the_name_of_a_folder(ask, name):
    fields = {"experiment_id": "7", "name": name, "source_run_id": RUN_ID}
    assert ask("POST", "/api/2.0/mlflow/logged-models", fields)[0] == 400


def test_files_that_cannot_be_kept_are_an_error_that_explains(listening, call, tmp_path):
    new_model(call, "net", "model")
    (tmp_path / "logged" / "artifacts").write_text("in the way")
    for _ in range(2):
        with pytest.raises(errors.OutputMissing, match="cannot be kept: file exists"):
            listening.close()
    (tmp_path / "logged" / "artifacts").unlink()
    assert contents(listening.close().artifacts) == {"net/MLmodel": "model"}


def test_what_was_logged_goes_into_the_store_and_comes_back(listening, call):
    call("POST", "runs/log-metric", run_id=RUN_ID, key="k", value="NaN", timestamp=1)
    call("POST", "runs/create", experiment_id="7", run_name="child", start_time=5)
    call("POST", "runs/set-tag", run_id=RUN_ID, key="\ud800", value="\n")
    tracked = listening.close()
    classes = {"Tracked": Tracked, "ChildRun": ChildRun}
    assert load(decode(encode(dump(tracked))), classes) == tracked

"""The unmodified MLflow client against the receiver; few processes, since it takes long to load."""

import os
import shutil

import pytest

from repro.tracking import receiver

LOGGING = """
import json
import os

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

report = {}


def refusal(action, *arguments):
    try:
        action(*arguments)
    except MlflowException as error:
        return [error.error_code, str(error)]


mlflow.set_experiment("weather")
with mlflow.start_run() as run:
    run_id = run.info.run_id
    report["attached"] = [run_id, run.info.experiment_id, mlflow.active_run().info.run_name]
    mlflow.log_param("alpha", 0.5)
    mlflow.log_params({"beta": "a b", "gamma": None})
    mlflow.log_param("alpha", 0.5)
    report["change"] = refusal(mlflow.log_param, "alpha", 0.6)
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": float("nan"), "inf": float("inf")}, step=7)
    mlflow.set_tags({"team": "blue", "mlflow.note.content": "note"})
    mlflow.set_tag("gone", 1)
    mlflow.delete_tag("gone")
    client = MlflowClient()
    client.log_batch(
        run_id,
        metrics=[mlflow.entities.Metric("batch", 1.5, 10, 1)],
        params=[mlflow.entities.Param("delta", "1")],
        tags=[mlflow.entities.RunTag("batch", "yes")],
    )
    os.makedirs("many/deep")
    for name in ("one.txt", "many/two.txt", "many/deep/three.txt"):
        with open(name, "w") as file:
            file.write(name)
    mlflow.log_artifact("one.txt", "single")
    mlflow.log_artifacts("many", "many")
    mlflow.log_text("text", "text.txt")
    mlflow.log_dict({"a": [1]}, "dict.json")
    mlflow.log_table({"x": [1, 2]}, "table.json")
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    mlflow.log_input(mlflow.data.from_pandas(frame, name="train"), context="training")
    with mlflow.start_run(nested=True, run_name="fold 1") as child:
        mlflow.log_metric("score", 0.9)
        mlflow.log_text("fold", "fold.txt")
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_param("depth", 2)
    found = mlflow.search_runs(filter_string="metrics.score > 0.5", order_by=["metrics.score DESC"])
    report["search"] = [found.run_id.tolist() == [child.info.run_id], found["metrics.score"][0]]
    report["history"] = [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")]
    report["listed"] = [(a.path, a.is_dir) for a in client.list_artifacts(run_id)]
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="many")
    report["downloaded"] = sorted(os.listdir(folder))
    report["loaded"] = mlflow.artifacts.load_dict(f"runs:/{run_id}/dict.json")
    data = mlflow.get_run(run_id).data
    report["read"] = [data.params["gamma"], data.metrics["loss"], data.tags["team"]]
    report["inputs"] = mlflow.get_run(run_id).inputs.dataset_inputs[0].dataset.name
report["ended"] = mlflow.get_run(run_id).info.status
report["experiments"] = sorted(e.name for e in mlflow.search_experiments())
report["registry"] = refusal(client.create_registered_model, "model")
os.environ["MLFLOW_TRACKING_TOKEN"] = "0" * 64
report["stranger"] = refusal(client.log_param, run_id, "stranger", 1)
with open("report.json", "w") as file:
    json.dump(report, file)
"""

LEARNING = """
import json

import mlflow
import numpy
from sklearn.linear_model import LogisticRegression

report = {}
points, labels = numpy.array([[0.0], [1.0], [2.0], [3.0]]), numpy.array([0, 0, 1, 1])
model = LogisticRegression().fit(points, labels)
mlflow.set_experiment("another")
with mlflow.start_run(run_name="learned") as run:
    logged = mlflow.sklearn.log_model(model, name="model", pip_requirements=[])
    loaded = mlflow.sklearn.load_model(logged.model_uri)
    report["by id"] = loaded.predict(points).tolist()
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    report["by run"] = loaded.predict(points).tolist()
    mlflow.log_metric("accuracy", 1.0, model_id=logged.model_id)
    mlflow.log_model_params({"kind": "linear"}, model_id=logged.model_id)
    mlflow.set_logged_model_tags(logged.model_id, {"stage": "test"})
    found = mlflow.search_logged_models(
        filter_string="name = 'model' AND metrics.accuracy > 0.5", output_format="list"
    )
    report["found"] = [
        (m.model_id == logged.model_id, m.params, m.tags["stage"], str(m.status)) for m in found
    ]
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    report["outputs"] = [m.model_id == logged.model_id for m in outputs]
mlflow.sklearn.autolog()
with mlflow.start_run(run_name="automatic"):
    LogisticRegression(C=2.0).fit(points, labels)


@mlflow.trace
def traced():
    return 1


report["traced"] = traced()
with open("report.json", "w") as file:
    json.dump(report, file)
"""

LOADING = """
import json
import sys

import mlflow

models = [mlflow.sklearn.load_model(folder) for folder in sys.argv[1:]]
with open("report.json", "w") as file:
    json.dump([model.predict([[0.0], [3.0]]).tolist() for model in models], file)
"""

RUN_ID = "fedcba9876543210fedcba9876543210"


class Session:
    """One step's code, run to its end: what it saw, and what the receiver has of it."""

    def __init__(self, run_client, folder, script):
        inherited = {"mlflow.runName": "step main", "mlflow.user": "ada"}
        started = receiver.start(RUN_ID, "7", "weather", str(folder), inherited_tags=inherited)
        self.process, self.seen = run_client(script, started.variables)
        self.tracked = started.close()
        self.unknown = started.unknown
        assert self.process.returncode == 0, self.process.stderr


@pytest.fixture(scope="module")
def logging(run_client, tmp_path_factory):
    return Session(run_client, tmp_path_factory.mktemp("logging"), LOGGING)


@pytest.fixture(scope="module")
def learning(run_client, tmp_path_factory):
    return Session(run_client, tmp_path_factory.mktemp("learning"), LEARNING)


def test_the_code_attaches_to_the_run_of_its_step(logging):
    assert logging.seen["attached"] == [RUN_ID, "7", "step main"]
    assert logging.seen["ended"] == "FINISHED"


def test_parameters_are_kept_as_text_and_cannot_change(logging):
    expected = {"alpha": "0.5", "beta": "a b", "gamma": "None", "delta": "1"}
    assert logging.tracked.parameters == expected
    code, message = logging.seen["change"]
    assert code == "INVALID_PARAMETER_VALUE"
    assert "Changing param values is not allowed" in message


def test_metrics_are_kept_in_order_with_their_steps(logging):
    assert [(key, value, step) for key, value, _, step in logging.tracked.metrics] == [
        ("loss", "1.0", 0),
        ("loss", "0.5", 1),
        ("loss", "0.3333333333333333", 2),
        ("nan", "nan", 7),
        ("inf", "inf", 7),
        ("batch", "1.5", 1),
    ]


def test_tags_of_the_code_are_kept_without_those_of_the_client(logging):
    table = logging.tracked.tags["mlflow.loggedArtifacts"]
    assert logging.tracked.tags == {
        "team": "blue",
        "mlflow.note.content": "note",
        "batch": "yes",
        "mlflow.loggedArtifacts": table,
    }


def test_artifacts_lie_in_the_folder_of_the_run(logging):
    files = {
        os.path.relpath(os.path.join(parent, name), logging.tracked.artifacts)
        for parent, _, names in os.walk(logging.tracked.artifacts)
        for name in names
    }
    assert files == {
        "single/one.txt",
        "many/two.txt",
        "many/deep/three.txt",
        "text.txt",
        "dict.json",
        "table.json",
    }


def test_data_sets_are_kept(logging):
    (dataset,) = logging.tracked.datasets
    assert dataset["dataset"]["name"] == logging.seen["inputs"] == "train"
    assert dataset["tags"] == [{"key": "mlflow.data.context", "value": "training"}]


def test_nested_runs_are_children(logging):
    fold, inner = logging.tracked.children
    assert (fold.name, fold.status, fold.parent) == ("fold 1", "FINISHED", -1)
    assert [(key, value) for key, value, _, _ in fold.metrics] == [("score", "0.9")]
    assert os.listdir(fold.artifacts) == ["fold.txt"]
    assert (inner.name, inner.parent, inner.parameters) == ("inner", 0, {"depth": "2"})
    assert (inner.tags, inner.artifacts) == ({}, "")


def test_the_code_can_read_back_what_it_has_logged(logging):
    seen = logging.seen
    assert seen["search"] == [True, 0.9]
    assert seen["history"] == [[0, 1.0], [1, 0.5], [2, 1 / 3]]
    assert ["many", True] in seen["listed"]
    assert ["text.txt", False] in seen["listed"]
    assert seen["downloaded"] == ["deep", "two.txt"]
    assert seen["loaded"] == {"a": [1]}
    assert seen["read"] == ["None", 1 / 3, "blue"]
    assert seen["experiments"] == ["Default", "weather"]


def test_what_is_not_there_is_said_and_remembered(logging):
    assert logging.seen["registry"][0] == "ENDPOINT_NOT_FOUND"
    assert logging.unknown == ("POST /api/2.0/mlflow/registered-models/create",)


def test_a_client_with_another_token_cannot_write(logging):
    assert "does not carry the token" in logging.seen["stranger"][1]
    assert "stranger" not in logging.tracked.parameters


def test_the_client_prints_no_addresses(logging):
    assert "127.0.0.1" not in logging.process.stdout + logging.process.stderr


def test_a_logged_model_is_found_and_loaded_while_the_step_runs(learning):
    assert learning.seen["by id"] == learning.seen["by run"] == [0, 0, 1, 1]
    assert learning.seen["found"] == [[True, {"kind": "linear"}, "test", "READY"]]
    assert learning.seen["outputs"] == [True]


def test_code_that_sets_another_experiment_still_logs_into_its_run(learning):
    assert [key for key, *_ in learning.tracked.metrics] == ["accuracy"]
    assert learning.tracked.tags == {"mlflow.runName": "learned"}
    assert learning.process.stderr.count("Traceback") == 0


def test_autolog_logs_parameters_metrics_and_the_model(learning):
    (automatic,) = learning.tracked.children
    assert automatic.name == "automatic"
    assert automatic.parameters["C"] == "2.0"
    assert "training_score" in [key for key, *_ in automatic.metrics]
    assert "estimator_name" in automatic.tags
    assert "MLmodel" in os.listdir(os.path.join(automatic.artifacts, "model"))


def test_traces_are_not_kept_and_do_no_harm(learning):
    assert learning.seen["traced"] == 1
    assert "POST /api/3.0/mlflow/traces" in learning.unknown


def test_models_can_be_loaded_from_what_is_kept(learning, run_client, tmp_path):
    for number, run in enumerate((learning.tracked, *learning.tracked.children)):
        shutil.copytree(run.artifacts, tmp_path / str(number))
    folders = [str(tmp_path / number / "model") for number in "01"]
    process, predictions = run_client(LOADING, {}, *folders)
    assert predictions == [[0, 1], [0, 1]], process.stderr

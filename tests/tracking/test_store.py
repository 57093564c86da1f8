"""Runs of a calling MLflow, shown through its own client on a real tracking server."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

STEP = """\
import json, os, sys, urllib.request

def tell(path, **fields):
    request = urllib.request.Request(
        os.environ["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/" + path,
        data=json.dumps({"run_id": os.environ["MLFLOW_RUN_ID"], **fields}).encode(),
        headers={
            "Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"],
            "Content-Type": "application/json",
        },
    )
    urllib.request.urlopen(request).close()

for step in range(2):
    tell("runs/log-metric", key="loss", value=1 / (step + 1), timestamp=step, step=step)
tell("runs/log-metric", key="none", value="NaN", timestamp=1, step=0)
tell("runs/set-tag", key="colour", value="red")
"""
PROJECT = """\
entry_points:
  main: {parameters: {text: string}, outputs: [o], command: "python step.py; echo {text} > o"}
"""
DRIVER = """\
import json, os, sys
import mlflow
from repro.mlflow_backend import project_backend_builder

with open("MLproject", "w") as file:
    file.write(sys.argv[1])
with open("step.py", "w") as file:
    file.write(sys.argv[2])
uri = mlflow.get_tracking_uri()
experiment = mlflow.set_experiment(sys.argv[3]).experiment_id
told = []
for _ in range(2):
    run = project_backend_builder().run(
        ".", "main", {"text": sys.argv[4]}, None, {"env_manager": "local"}, uri, experiment
    )
    told.append({"run_id": run.run_id, "good": run.wait(), "cached": run.repro.cached})
with open("report.json", "w") as file:
    json.dump(told, file)
"""


@pytest.fixture(scope="module")
def runs(run_client, tracking_server, tmp_path_factory):
    """Two runs of one step, as the server shows them, and what the caller was told."""
    folder = tmp_path_factory.mktemp("store")
    variables = {
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_TRACKING_URI": tracking_server.uri,
        "REPRO_HOME": str(folder / "store"),
        "REPRO_DATA": str(folder / "data"),
    }
    process, told = run_client(DRIVER, variables, PROJECT, STEP, "from-mlflow", "x" * 7000)
    assert process.returncode == 0, process.stderr
    return told, [tracking_server.run(one["run_id"]) for one in told]


def test_a_run_and_its_reuse_are_on_the_server(runs):
    told, shown = runs
    assert [(one["good"], one["cached"]) for one in told] == [(True, False), (True, True)]
    assert [run["info"]["status"] for run in shown] == ["FINISHED", "FINISHED"]
    assert [run["tags"]["repro.cache"] for run in shown] == ["miss", "hit"]
    assert [run["metrics"]["loss"] for run in shown] == [0.5, 0.5]
    assert [run["metrics"]["none"] for run in shown] == ["NaN", "NaN"]
    assert [run["tags"]["colour"] for run in shown] == ["red", "red"]


def test_what_the_server_shortens_is_named(runs):
    _told, shown = runs
    assert [len(run["params"]["text"]) for run in shown] == [6000, 6000]
    assert [run["tags"]["repro.truncated"] for run in shown] == ["text", "text"]

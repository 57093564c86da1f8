"""Unmodified drivers with the real MLflow: what they run is cached step by step."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil

import pytest
from conftest import REPOSITORY

STEPS = ("load_raw_data", "etl_data", "factorize", "train")


@pytest.fixture(scope="module", autouse=True)
def _mlflow():
    if not importlib.util.find_spec("mlflow"):
        reason = "no mlflow in this environment: pip install '.[test]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture
def multistep(tmp_path):
    folder = tmp_path / "multistep"
    shutil.copytree(REPOSITORY / "tests/projects/multistep", folder)
    return folder


def states(repro):
    """Which steps the last call has executed, and which it has reused."""
    runs = json.loads(repro("log", "-n", "0", "--json").out)["runs"]
    last = next(run for run in runs if run["entry_point"] == "main")
    below = [run for run in runs if run["parent_run"] == last["run_id"]]
    return last, {run["entry_point"]: "hit" if run["cached"] else "ok" for run in below}


def test_the_steps_of_an_mlflow_driver_are_steps(repro, multistep):
    words = ("run", multistep, "--env-manager", "local")
    first = repro(*words, timeout=600)
    assert first.code == 0, first.err
    assert "rows kept: 40 clean" in first.err
    assert "files: ['report.txt']" in first.err
    main, below = states(repro)
    assert below == dict.fromkeys(STEPS, "ok")
    assert float(main["metrics"]["error"]) > 0

    second = repro(*words)
    assert second.code == 0, second.err
    main, below = states(repro)
    assert main["cached"]
    assert below == dict.fromkeys(STEPS, "hit")
    assert "miss" not in second.err

    third = repro(*words, "-P", "rank=1", timeout=600)
    assert third.code == 0, third.err
    main, below = states(repro)
    assert not main["cached"]
    assert below == {"load_raw_data": "hit", "etl_data": "hit", "factorize": "ok", "train": "ok"}


DRIVER = """
import json
import os
import subprocess

import mlflow
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

told = {}
mlflow.set_experiment("calls")
with mlflow.start_run() as parent:
    submitted = mlflow.projects.run(
        os.path.join(os.getcwd(), "step"),
        "quick",
        parameters={"x": 1},
        run_name="by name",
        experiment_id=parent.info.experiment_id,
        synchronous=False,
    )
    told["kind"] = isinstance(submitted, mlflow.projects.SubmittedRun)
    told["good"] = submitted.wait()
    run = mlflow.get_run(submitted.run_id)
    told["run"] = [run.info.run_name, run.info.status, run.data.params, run.data.metrics]
    told["parent"] = run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for entry_point in ("fail", "nobody"):
        try:
            mlflow.run("step", entry_point)
        except ExecutionException as error:
            told[entry_point] = str(error).replace("'", "")
    found = mlflow.search_runs(filter_string="tags.mlflow.parentRunId != ''", output_format="list")
    told["found"] = sorted(run.info.status for run in found)
words = ["mlflow", "run", "step", "-e", "quick", "-P", "x=2", "--env-manager", "local"]
told["command"] = subprocess.run(words).returncode
print("told", json.dumps(told))
"""
STEP = """
entry_points:
  quick:
    parameters: {x: {type: int}}
    metrics: [m.json]
    command: "echo '{{\\"m\\": '{x}'}}' > m.json; echo quick {x}"
  fail: {command: "exit 3"}
"""


def test_what_a_driver_sees_of_mlflow(repro, project):
    text = "entry_points: {main: {command: 'python main.py'}}\n"
    folder = project({"MLproject": text, "main.py": DRIVER, "step/MLproject": STEP})
    answer = repro("run", folder, "--env-manager", "local", timeout=600)
    assert answer.code == 0, answer.err
    assert "quick 2" in answer.err
    (line,) = [line for line in answer.err.splitlines() if "│ told {" in line]
    told = json.loads(line[line.index("{") :])
    failed = told.pop("fail")
    assert failed.startswith("Run (ID ")
    assert failed.endswith(" failed: exit code 3")
    assert told.pop("nobody").startswith("no entry point `nobody` in `MLproject`")
    assert told == {
        "kind": True,
        "good": True,
        "run": ["by name", "FINISHED", {"x": "1"}, {"m": 1.0}],
        "parent": True,
        "found": ["FAILED", "FINISHED"],
        "command": 0,
    }

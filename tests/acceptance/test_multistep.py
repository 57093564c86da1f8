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

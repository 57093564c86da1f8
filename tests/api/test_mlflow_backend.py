"""`-b repro` in the real MLflow, from Python and on its command line.

Everything that is asked of MLflow from Python is asked in one process, since loading it takes
seconds; each test looks at a part of what that process has written down.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from conftest import REPOSITORY

PROJECT = """\
name: shown
entry_points:
  main:
    parameters: {rate: {type: float, default: 0.5}}
    outputs: [model.txt]
    command: "python log.py {rate}"
  quick:
    outputs: [quick.txt]
    command: "echo quick | tee quick.txt"
  broken:
    command: "echo cannot; exit 3"
  slow:
    command: "touch {mark}; sleep 60"
    parameters: {mark: string}
  first:
    outputs: [one.txt]
    command: "echo 1 > one.txt"
  last:
    inputs: [one.txt]
    outputs: [two.txt]
    command: "cat one.txt one.txt > two.txt"
  lost:
    outputs: [never.txt]
    command: "true"
"""
STEP = """\
import sys
import mlflow

rate = float(sys.argv[1])
for step in range(3):
    mlflow.log_metric("loss", rate / (step + 1), step=step)
mlflow.log_param("depth", 4)
mlflow.set_tag("colour", "red")
mlflow.log_text("kept", "notes/text.txt")
mlflow.log_input(mlflow.data.from_numpy(__import__("numpy").zeros(2), name="zeros"))
with mlflow.start_run(nested=True, run_name="fold"):
    mlflow.log_metric("score", 1.5)
open("model.txt", "w").write("fitted")
print("fitted with", rate)
"""
DRIVER = """\
import json, os, sys, time
import mlflow
from mlflow.exceptions import ExecutionException

told = {}
folder = sys.argv[1]
client = mlflow.MlflowClient()


def shown(run_id):
    run = client.get_run(run_id)
    files = [f.path for f in client.list_artifacts(run_id)]
    files += [f.path for name in files for f in client.list_artifacts(run_id, name)]
    loss = [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")]
    return {
        "status": run.info.status,
        "name": run.info.run_name,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": run.data.tags,
        "loss": sorted(loss),
        "files": sorted(files),
        "ended": run.info.end_time is not None,
        "inputs": [i.dataset.name for i in run.inputs.dataset_inputs],
    }


def below(run_id):
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.mlflow.parentRunId = '{run_id}'",
        output_format="list",
    )
    return {r.data.tags["mlflow.project.entryPoint" if e else "mlflow.runName"]: shown(r.info.run_id)
            for r in found for e in ["mlflow.project.entryPoint" in r.data.tags]}


def count():
    return len(mlflow.search_runs(search_all_experiments=True, output_format="list"))


def run(entry_point="main", backend_config=None, **more):
    more.setdefault("env_manager", "local")
    return mlflow.projects.run(
        folder, entry_point, backend="repro", backend_config=backend_config, **more
    )


def refused(*words, **more):
    before = count()
    try:
        run(*words, **more)
    except ExecutionException as error:
        return str(error), count() - before
    return "", count() - before


def one():
    first = run(parameters={"rate": "0.25"}, run_name="my run", experiment_name="theirs")
    told["kind"] = isinstance(first, mlflow.projects.SubmittedRun)
    told["first"] = shown(first.run_id)
    told["first below"] = below(first.run_id)
    with mlflow.start_run() as parent:
        second = run(parameters={"rate": 0.25})
    told["second"] = shown(second.run_id)
    told["second below"] = below(second.run_id)
    told["parent"] = parent.info.run_id
    told["ours"] = [first.repro.cached, second.repro.cached, first.repro.run_id]
    told["good"] = [second.wait(), second.get_status()]
    second.cancel()
    told["still"] = second.get_status()


def failures():
    told["broken"] = refused("broken")
    told["lost"] = refused("lost")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    told["failed"] = {
        r.data.tags["mlflow.project.entryPoint"]: shown(r.info.run_id)
        for r in runs if r.info.status == "FAILED"
    }
    told["typo"] = refused("quick", backend_config={"job": 2})
    told["place"] = refused("quick", backend_config={"backend": "moon"})
    told["sandbox"] = refused("quick", backend_config={"sandbox": "much"})
    told["absent"] = refused("absent")
    told["parameter"] = refused("slow")
    told["image"] = refused("quick", build_image=True)


def steps():
    done = run("last", backend_config={"jobs": 2, "no_cache": True})
    told["last"] = shown(done.run_id)
    told["last below"] = below(done.run_id)


def under_way():
    mark = os.path.join(os.path.dirname(folder), "mark")
    slow = run("slow", parameters={"mark": mark}, synchronous=False)
    while not os.path.exists(mark):
        time.sleep(0.05)
    told["under way"] = [slow.get_status(), client.get_run(slow.run_id).info.status]
    slow.cancel()
    told["cancelled"] = [slow.get_status(), slow.wait(), client.get_run(slow.run_id).info.status]


def in_files():
    mlflow.set_tracking_uri("file://" + os.path.join(os.path.dirname(folder), "runs"))
    global client
    client = mlflow.MlflowClient()
    told["in files"] = shown(run(parameters={"rate": 0.25}).run_id)


for part in (one, failures, steps, under_way, in_files):
    part()
with open(sys.argv[2], "w") as file:
    json.dump(told, file)
"""


def announce(folder):
    """Write what an installation of this checkout would tell Python about its entry points."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    place = folder / f"repro_projects-{project['version']}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Name: repro-projects\nVersion: {project['version']}\n")
    (place / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """Call Python in a folder of its own, in which MLflow knows of us and the project is."""
    if not importlib.util.find_spec("mlflow"):
        reason = "no mlflow in this environment: pip install '.[test]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    root = tmp_path_factory.mktemp("mlflow")
    announce(root / "site")
    (root / "project").mkdir()
    (root / "project/MLproject").write_text(PROJECT)
    (root / "project/log.py").write_text(STEP)
    environ = {
        "HOME": str(root),
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
        "PYTHONPATH": f"{root / 'site'}:{REPOSITORY}",
        "REPRO_HOME": str(root / "store"),
        "REPRO_DATA": str(root / "data"),
        "REPRO_SANDBOX": "none",
        "LC_ALL": "C.UTF-8",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root}/runs.db",
    }

    def start(*words):
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=root,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    start.root = root
    return start


@pytest.fixture(scope="module")
def told(mlflow):
    """What a program that uses MLflow has seen."""
    (mlflow.root / "drive.py").write_text(DRIVER)
    report = mlflow.root / "report.json"
    process = mlflow("drive.py", mlflow.root / "project", report)
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, printed + said
    return {"printed": printed, "said": said, **json.loads(report.read_text())}


def test_what_a_step_logs_is_in_the_run_of_mlflow(told):
    first = told["first"]
    assert told["kind"]
    assert (first["status"], first["ended"], first["name"]) == ("FINISHED", True, "my run")
    assert first["params"] == {"rate": "0.25", "depth": "4"}
    assert first["metrics"] == {"loss": 0.25 / 3}
    assert first["loss"] == [[step, 0.25 / (step + 1)] for step in range(3)]
    assert first["files"] == ["notes", "notes/text.txt"]
    assert first["inputs"] == ["zeros"]
    assert first["tags"]["colour"] == "red"
    assert told["first below"]["fold"]["metrics"] == {"score": 1.5}


def test_tags_say_where_a_run_comes_from(told):
    tags = told["first"]["tags"]
    assert tags["mlflow.project.backend"] == "repro"
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["mlflow.source.type"] == "PROJECT"
    assert tags["mlflow.source.name"].endswith("/project")
    assert (tags["repro.backend"], tags["repro.cache"]) == ("local", "miss")
    assert tags["repro.run"] == told["ours"][2]


def test_a_reused_result_shows_the_same_in_a_new_run(told):
    first, second = told["first"], told["second"]
    assert told["ours"][:2] == [False, True]
    for kind in ("status", "params", "metrics", "loss", "files", "inputs"):
        assert second[kind] == first[kind], kind
    assert second["tags"]["colour"] == "red"
    assert told["second below"]["fold"]["metrics"] == {"score": 1.5}
    assert second["tags"]["repro.cache"] == "hit"
    assert second["tags"]["repro.key"] == first["tags"]["repro.key"]
    assert second["tags"]["repro.origin_run"] == told["ours"][2]
    assert told["printed"].count("fitted with 0.25\n") == 3  # and once for the store of files


def test_an_open_run_is_the_parent(told):
    assert told["second"]["tags"]["mlflow.parentRunId"] == told["parent"]


def test_a_run_that_is_over_stays_as_it_is(told):
    assert told["good"] == [True, "FINISHED"]
    assert told["still"] == "FINISHED"


def test_a_failure_is_mlflows_exception_and_in_its_run(told):
    text, runs = told["broken"]
    assert text.startswith("Run (ID '")
    assert runs == 1
    assert told["failed"]["broken"]["ended"]
    assert "never.txt" in told["failed"]["lost"]["tags"]["repro.error"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("typo", "unknown setting `job`"),
        ("typo", "did you mean `jobs`"),
        ("place", "no backend `moon`"),
        ("sandbox", "sandbox: "),
        ("absent", "no entry point `absent`"),
        ("parameter", "mark"),
        ("image", "no `docker_env`"),
    ],
)
def test_what_cannot_run_leaves_no_run(told, case, words):
    text, runs = told[case]
    assert words in text
    assert runs == 0


def test_the_steps_of_a_pipeline_are_below_the_run(told):
    assert told["last"]["status"] == "FINISHED"
    assert {name: run["status"] for name, run in told["last below"].items()} == {
        "first": "FINISHED"
    }


def test_a_run_can_be_cancelled(told):
    assert told["under way"] == ["RUNNING", "RUNNING"]
    assert told["cancelled"] == ["KILLED", False, "KILLED"]


def test_a_store_of_files_shows_the_same(told):
    for kind in ("status", "params", "metrics", "loss", "files", "inputs"):
        assert told["in files"][kind] == told["first"][kind], kind


# -- the command line


def command(mlflow, *words):
    return mlflow("-m", "mlflow", "run", "project", "-b", "repro", "--env-manager", "local", *words)


def test_the_command_waits_and_prints(mlflow):
    (mlflow.root / "config.json").write_text('{"refresh": true}')
    process = command(mlflow, "-e", "quick", "-c", "config.json")
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (0, "quick\n"), said
    assert "=== quick runs: " in said
    assert "succeeded ===" in said


def test_the_command_fails_with_the_step(mlflow):
    process = command(mlflow, "-e", "broken")
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (1, "cannot\n"), said
    assert "failed with exit code 3" in said
    assert "Traceback" not in said


def test_the_command_ends_its_step_when_it_is_told_to_end(mlflow, tmp_path):
    mark = tmp_path / "mark"
    process = command(mlflow, "-e", "slow", "-P", f"mark={mark}")
    deadline = time.monotonic() + 120
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _printed, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    listed = mlflow("-m", "repro", "log", "--json").communicate(timeout=60)[0]
    last = next(run for run in json.loads(listed)["runs"] if run["entry_point"] == "slow")
    assert last["status"] == "KILLED"

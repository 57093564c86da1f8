"""The mirror against a real `mlflow server`, read back over its own REST interface."""

import json
import os
import shutil
import urllib.error

import pytest

from repro import errors
from repro.ports import ChildRun, Tracked
from repro.tracking import outbox
from repro.tracking.mirror import Mirror
from repro.value import replace

STARTED, ENDED = 1_700_000_000_000, 1_700_000_060_000


@pytest.fixture
def mirror(tracking_server):
    return Mirror(tracking_server.uri, environ={"HOME": "/nowhere"})


def a_run(mirror, run_id, **more):
    experiment_id, _ = mirror.experiment("weather")
    return {
        "id": run_id,
        "experiment_id": experiment_id,
        "name": "a name",
        "started_ms": STARTED,
        "user": "ada",
        "source": "https://example.org/project#sub",
        "entry_point": "train",
        "commit": "c" * 40,
        "repository": "https://example.org/project",
        "branch": "trunk",
        "environment": "virtualenv",
        "backend": "local",
        "parameters": {"alpha": "it's 'raw'", "empty": ""},
        "tags": {"repro.cache": "miss"},
        **more,
    }


@pytest.fixture
def logged(tmp_path):
    """What a step has logged: more than fits into one request, and everything that is odd."""
    (tmp_path / "art" / "deep down").mkdir(parents=True)
    (tmp_path / "art" / "deep down" / "é 1?%.txt").write_text("odd")
    (tmp_path / "art" / "empty").write_bytes(b"")
    (tmp_path / "art" / "link").symlink_to("/etc/hostname")
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "c.txt").write_text("child")
    dataset = {"name": "train", "digest": "1", "source_type": "local", "source": "{}"}
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    return Tracked(
        metrics=(
            *(("loss", repr(1 / (step + 1)), STARTED + step, step) for step in range(1500)),
            ("odd", "nan", STARTED, 0),
            ("odd", "inf", STARTED + 1, 1),
            ("bad;name", "1.0", STARTED, 0),
        ),
        parameters={"alpha": "0.5", **{f"p{n}": str(n) for n in range(250)}, "long": "x" * 6001},
        tags={"team": "blue", "odd": "\ud800\0", "wordy": "y" * 8001},
        artifacts=str(tmp_path / "art"),
        datasets=({"dataset": dataset, "tags": tags},),
        children=(
            ChildRun(
                name="fold",
                status="FAILED",
                started_ms=STARTED + 1,
                ended_ms=STARTED + 2,
                metrics=(("score", "0.5", STARTED, 0),),
                artifacts=str(tmp_path / "child"),
            ),
            ChildRun(name="inner", status="RUNNING", parent=0, started_ms=STARTED + 1),
        ),
    )


def history(server, run_id, key):
    path = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={key}"
    return [(m["value"], m["step"]) for m in json.loads(server.get(path))["metrics"]]


def artifact(server, run, path):
    place = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    return server.get(f"/api/2.0/mlflow-artifacts/artifacts/{place}/{path}").decode()


def children(server, mirror, run):
    fields = {
        "experiment_ids": [run["info"]["experiment_id"]],
        "filter": f"tags.`mlflow.parentRunId` = '{run['info']['run_id']}'",
    }
    runs = mirror._server.call("POST", "runs/search", fields).get("runs", [])
    return [server.run(run["info"]["run_id"]) for run in runs]


def test_a_server_that_is_there_passes_the_check(mirror):
    mirror.check()


def test_an_experiment_is_made_once_and_found_by_name_and_id(mirror):
    made = mirror.experiment("new one")
    assert mirror.experiment("new one") == made
    assert mirror.experiment(experiment_id=made[0]) == made
    assert made[1] == "new one"
    assert mirror.experiment() == ("0", "Default")


@pytest.mark.parametrize("experiment_id", ["987654", "not a number"])
def test_an_id_that_is_not_there_is_wrong_use(mirror, experiment_id):
    with pytest.raises(errors.UsageError) as caught:
        mirror.experiment(experiment_id=experiment_id)
    assert caught.value.exit == errors.USAGE
    assert caught.value.hints


def test_a_deleted_experiment_is_wrong_use(mirror):
    experiment_id, _ = mirror.experiment("deleted one")
    mirror._server.call("POST", "experiments/delete", {"experiment_id": experiment_id})
    with pytest.raises(errors.UsageError, match="`deleted one` is deleted"):
        mirror.experiment("deleted one")


def test_a_run_begins_with_raw_parameters_and_mlflows_tags(mirror, tracking_server):
    run = tracking_server.run(mirror.begin(a_run(mirror, "r1", parent="f" * 32)))
    assert run["params"] == {"alpha": "it's 'raw'", "empty": ""}
    assert run["info"]["status"] == "RUNNING"
    assert (run["info"]["start_time"], run["info"]["run_name"]) == (STARTED, "a name")
    assert run["info"]["user_id"] == "ada"
    assert run["tags"] == {
        "mlflow.user": "ada",
        "mlflow.runName": "a name",
        "mlflow.source.name": "https://example.org/project#sub",
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": "train",
        "mlflow.source.git.commit": "c" * 40,
        "mlflow.source.git.repoURL": "https://example.org/project",
        "mlflow.source.git.branch": "trunk",
        "mlflow.parentRunId": "f" * 32,
        "mlflow.project.env": "virtualenv",
        "mlflow.project.backend": "local",
        "repro.cache": "miss",
        "repro.run": "r1",
    }


def test_parameters_that_the_server_cannot_hold_are_cut_or_left_out_and_named(
    mirror, tracking_server
):
    given = {"long": "é" * 6001, "bad;key": "1", "good": "1"}
    run = tracking_server.run(mirror.begin(a_run(mirror, "r2", parameters=given)))
    assert run["params"] == {"long": "é" * 6000, "good": "1"}
    assert run["tags"]["repro.truncated"] == "long"
    assert run["tags"]["repro.refused"] == "bad;key"


def check_everything(server, mirror, run_id):
    run = server.run(run_id)
    assert (run["info"]["status"], run["info"]["end_time"]) == ("FINISHED", ENDED)
    assert history(server, run_id, "loss") == [(1 / (step + 1), step) for step in range(1500)]
    assert history(server, run_id, "odd")[0][0] == "NaN"
    assert run["params"]["alpha"] == "it's 'raw'"
    assert run["tags"]["repro.logged.alpha"] == "0.5"
    assert run["params"]["p249"] == "249"
    assert run["params"]["long"] == "x" * 6000
    assert (run["tags"]["team"], len(run["tags"]["wordy"])) == ("blue", 8000)
    assert run["tags"]["odd"] == "?\ufffd"
    assert run["tags"]["repro.truncated"] == "long, wordy"
    assert run["tags"]["repro.refused"] == "bad;name"
    assert run["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "train"
    assert artifact(server, run, "deep%20down/%C3%A9%201%3F%25.txt") == "odd"
    assert artifact(server, run, "empty") == ""
    with pytest.raises(urllib.error.HTTPError):
        artifact(server, run, "link")
    (fold,) = children(server, mirror, run)
    assert (fold["info"]["run_name"], fold["info"]["status"]) == ("fold", "FAILED")
    assert (fold["info"]["start_time"], fold["info"]["end_time"]) == (STARTED + 1, STARTED + 2)
    assert fold["metrics"] == {"score": 0.5}
    assert artifact(server, fold, "c.txt") == "child"
    (inner,) = children(server, mirror, fold)
    assert (inner["info"]["run_name"], inner["info"]["status"]) == ("inner", "FINISHED")


def test_a_run_ends_with_everything_that_was_logged_however_often_it_is_sent(
    mirror, tracking_server, logged
):
    run_id = mirror.begin(a_run(mirror, "r3"))
    for _ in range(2):
        mirror.finish(run_id, "FINISHED", logged, ENDED)
        check_everything(tracking_server, mirror, run_id)


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_final_status_is_ours_even_after_another_was_set(mirror, tracking_server, status):
    run_id = mirror.begin(a_run(mirror, "r4"))
    mirror._end(run_id, "FINISHED", ENDED)
    mirror.finish(run_id, status, Tracked(), ENDED + 1)
    assert tracking_server.run(run_id)["info"]["status"] == status


def test_artifacts_without_a_way_to_the_server_are_named(mirror, tracking_server, tmp_path):
    run_id = mirror.begin(a_run(mirror, "r5"))
    mirror.finish(run_id, "FINISHED", Tracked(artifacts=str(tmp_path / "gone")), ENDED)
    run = tracking_server.run(run_id)
    assert run["tags"]["repro.artifacts"] == "not-mirrored"
    assert run["info"]["status"] == "FINISHED"


def test_a_run_that_was_deleted_there_is_refused(mirror):
    run_id = mirror.begin(a_run(mirror, "r6"))
    mirror._server.call("POST", "runs/delete", {"run_id": run_id})
    with pytest.raises(errors.Unreachable, match="is deleted"):
        mirror.finish(run_id, "FINISHED", Tracked(), ENDED)


def test_a_server_that_goes_down_is_told_later(mirror, tracking_server, logged, tmp_path):
    box = str(tmp_path / "outbox")
    begun, unbegun = a_run(mirror, "r7"), a_run(mirror, "r8")
    run_id = mirror.begin(begun)
    shutil.copytree(logged.artifacts, tmp_path / "outbox" / "r7-files", symlinks=True)
    logged = replace(logged, artifacts=str(tmp_path / "outbox" / "r7-files"))
    tracking_server.kill()
    pending = outbox.Pending(
        server=mirror.name,
        run=begun,
        run_id=run_id,
        status="FINISHED",
        tracked=logged,
        ended_ms=ENDED,
    )
    with pytest.raises(errors.Unreachable, match="connection refused"):
        mirror.finish(run_id, "FINISHED", logged, ENDED)
    with pytest.raises(errors.Unreachable, match="connection refused"):
        mirror.begin(unbegun)
    outbox.keep(box, pending)
    second = {"run": unbegun, "run_id": "", "status": "FAILED", "tracked": Tracked()}
    outbox.keep(box, outbox.Pending(server=mirror.name, ended_ms=ENDED, **second))
    assert outbox.deliver(box, mirror) == (0, 2)

    tracking_server.start()
    assert outbox.deliver(box, mirror) == (2, 0)
    check_everything(tracking_server, mirror, run_id)
    late = tracking_server.run(mirror.find(unbegun))
    assert (late["info"]["status"], late["params"]["alpha"]) == ("FAILED", "it's 'raw'")
    assert os.listdir(box) == [".lock"]

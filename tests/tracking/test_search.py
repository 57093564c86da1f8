"""The search language over runs, as MLflow's documentation defines it."""

import time

import pytest

from repro.tracking import search
from repro.tracking.ledger import Ledger, Metric, Refused


@pytest.fixture
def runs(tmp_path):
    ledger = Ledger("a", "7", "weather", str(tmp_path), {"mlflow.runName": "alpha"})
    main = ledger.main
    ledger.log(main, [Metric(key="loss", value=0.5, timestamp_ms=1)], [("depth", "3")], {"t": "x"})
    for name, loss, parameters in (("beta", 0.25, [("depth", "10")]), ("gamma", None, [])):
        run = ledger.create_run("7", name=name, tags={}, started_ms=1000)
        metrics = [Metric(key="loss", value=loss, timestamp_ms=1)] if loss else []
        ledger.log(run, metrics, parameters, {"model name": name.upper()})
    ledger.update(main, status="FINISHED", ended_ms=0, name="")
    return list(ledger.runs.values())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "alpha beta gamma"),
        ("metrics.loss < 0.5", "beta"),
        ("metric.loss <= 5e-1 and params.depth = '3'", "alpha"),
        ("metrics.loss != 0.5", "beta"),
        ("params.depth != '3'", "beta"),
        ("parameters.depth LIKE '1%'", "beta"),
        ("params.depth IS NULL", "gamma"),
        ("params.depth IS NOT NULL", "alpha beta"),
        ("tags.`model name` ilike 'ga__a'", "gamma"),
        ('tag."model name" LIKE "%ET%"', "beta"),
        ("tags.t = 'x'", "alpha"),
        ("attributes.status = 'FINISHED'", "alpha"),
        ("status = 'RUNNING' AND run_name != 'beta'", "gamma"),
        ("attributes.run_id IN ('a', 'b')", "alpha"),
        ("run.run_name NOT IN ('alpha')", "beta gamma"),
        ("attributes.start_time = 1000", "beta gamma"),
        ("metrics.loss LIKE 'x'", ""),
        ("params.nobody = 'x'", ""),
    ],
)
def test_a_filter_lets_through(runs, text, names):
    assert " ".join(run.name for run in search.matching(runs, text)) == names


@pytest.mark.parametrize(
    "text",
    [
        "loss",
        "metrics.loss <",
        "metrics.loss < 1 params.a = 'b'",
        "AND metrics.loss < 1",
        "datasets.name = 'x'",
        "metrics.loss < 1 OR metrics.loss > 2",
        "params.a = 'b",
        "x" * 10_001,
    ],
)
def test_another_language_is_refused(runs, text):
    with pytest.raises(Refused):
        search.matching(runs, text)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ([], "gamma beta alpha"),
        (["metrics.loss"], "beta alpha gamma"),
        (["metrics.loss DESC"], "alpha beta gamma"),
        (["attributes.start_time asc", "run_name desc"], "gamma beta alpha"),
        (["params.`depth` ASC"], "beta alpha gamma"),
    ],
)
def test_results_are_ordered(runs, columns, names):
    assert " ".join(run.name for run in search.ordered(runs, columns)) == names


def test_an_order_that_is_none_is_refused(runs):
    with pytest.raises(Refused):
        search.ordered(runs, ["metrics.loss SIDEWAYS"])


def test_no_pattern_takes_long(runs):
    runs[0].parameters["long"] = "a" * 5000
    began = time.monotonic()
    assert search.matching(runs, f"params.long LIKE '{'%a' * 40}%b'") == []
    assert search.matching(runs, f"params.long LIKE '{'%a' * 40}%'") == runs[:1]
    assert time.monotonic() - began < 1


def test_pages_follow_each_other(call):
    for number in range(5):
        call("POST", "runs/create", experiment_id="7", run_name=f"r{number}", start_time=1)
    found, token = [], ""
    while token is not None:
        page = call(
            "POST", "runs/search", experiment_ids=["7"], max_results=2, page_token=token or None
        )
        found += [run["info"]["run_name"] for run in page["runs"]]
        token = page.get("next_page_token")
    assert found == ["r4", "r3", "r2", "r1", "r0", "step main"]


@pytest.mark.parametrize("token", ["x", "9" * 5000, "1.5"])
def test_a_page_that_is_none_is_refused(ask, token):
    fields = {"experiment_ids": ["7"], "page_token": token}
    assert ask("POST", "/api/2.0/mlflow/runs/search", fields)[0] == 400


def test_experiments_are_filtered_and_ordered(call):
    def names(**fields):
        found = call("POST", "experiments/search", **fields)["experiments"]
        return " ".join(experiment["name"] for experiment in found)

    call("POST", "experiments/set-experiment-tag", experiment_id="7", key="t", value="1")
    assert names(order_by=["name ASC"]) == "Default weather"
    assert names(filter="name LIKE 'wea%'") == "weather"
    assert names(filter="tags.t = '1'") == "weather"
    assert names(filter="params.t = '1'") == ""

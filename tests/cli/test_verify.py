"""`repro verify` as a user meets it: words, JSON, exit status, and what `log` and `show` tell."""

from __future__ import annotations

import json

import jsonschema
import pytest

from repro import schemas
from repro.store.blobs import Blobs
from repro.store.home import Home
from repro.store.results import Results
from repro.value import replace

STABLE = "entry_points:\n  main: {outputs: [out.txt], command: 'echo 1 > out.txt'}\n"
UNSTABLE = """
entry_points:
  main: {outputs: [a.txt, b.txt], command: "date +%s.%N > a.txt; echo $TZ > b.txt"}
"""


def valid(answer, name):
    document = json.loads(answer.out)
    jsonschema.validate(document, schemas.load(name))
    return document


@pytest.fixture
def ran(project, repro):
    def make(text):
        folder = project(MLproject=text)
        answer = repro("run", folder, "--env-manager", "local", "-q")
        assert answer.code == 0, answer.err
        return folder, answer.out.strip()

    return make


def test_a_result_that_is_the_same_ends_with_0(ran, repro):
    folder, run_id = ran(STABLE)
    answer = repro("verify", run_id)
    assert answer.code == 0
    assert "made again, 1 output the same to the bit" in answer.out
    assert f"verifying run {run_id[:8]}" in answer.err
    assert repro("verify", folder, "-q").code == 0


def test_an_attestation_of_something_else_is_found(ran, repro, environ):
    _folder, run_id = ran(STABLE)
    told = valid(repro("verify", run_id, "-q", "--json"), "verify")
    assert told["attestation"] == {"there": True, "faults": []}
    home = Home(environ["REPRO_HOME"]).open()
    results, blobs = Results(home), Blobs(home)
    result = results.get(told["key"])
    forged = blobs.get(result.provenance).replace(told["key"].encode(), b"0" * 64)
    results.put(replace(result, provenance=blobs.put(forged)))
    answer = repro("verify", run_id, "-q")
    assert answer.code == 5
    assert "it is about the key 000000000000" in answer.out
    assert "made again, and its attestation is about something else" in answer.out


def test_a_difference_ends_with_5_and_is_explained(ran, repro):
    _folder, run_id = ran(UNSTABLE)
    answer = repro("verify", run_id, "-q", "--vary", "timezone", "umask")
    assert answer.code == 5
    assert "a.txt  text" in answer.out
    assert "likely: the time" in answer.out
    assert "the result depends on the time zone (timezone)" in answer.out
    assert "(umask)" not in answer.out
    assert answer.err == ""


def test_the_document_fits_its_schema(ran, repro):
    _folder, run_id = ran(UNSTABLE)
    document = valid(
        repro("verify", run_id, "--json", "--times", "3", "--vary", "timezone"), "verify"
    )
    assert (document["state"], document["run_id"]) == ("different", run_id)
    assert document["unstable"] == ["a.txt"]
    assert len(document["repetitions"]) == 3
    (variation,) = document["variations"]
    assert (variation["name"], variation["state"]) == ("timezone", "changed")
    assert [one["path"] for one in variation["outputs"]] == ["b.txt"]


def test_log_and_show_tell_of_it_and_do_not_mistake_it_for_a_run(ran, repro):
    _folder, run_id = ran(STABLE)
    assert "verified" not in repro("log").out
    repro("verify", run_id, "-q")
    log = repro("log")
    assert "ok, verified" in log.out
    assert len(log.out.splitlines()) == 2
    more = valid(repro("log", "--verifications", "--json"), "log")
    assert [run["verifies"] for run in more["runs"]] == [run_id, None]
    assert ", by 1 execution: the same" in repro("show", run_id).out
    shown = repro("show", more["runs"][0]["run_id"])
    assert f"verifies     {run_id}" in shown.out
    valid(repro("show", more["runs"][0]["run_id"], "--json"), "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "deadbeef"], "no run begins with"),
        (["verify", ".", "--times", "none"], "is no number"),
        (["verify", ".", "--times", "0"], "is no number"),
        (["verify", ".", "--vary", "moon"], "no variation `moon`"),
    ],
)
def test_wrong_use_ends_with_2(project, repro, words, said):
    answer = repro(*words, cwd=project(MLproject=STABLE))
    assert answer.code == 2
    assert said in answer.err


def test_a_project_without_results_ends_with_2(project, repro):
    answer = repro("verify", project(MLproject=STABLE))
    assert answer.code == 2
    assert "no run of `main` in this project has a result" in answer.err

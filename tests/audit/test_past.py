"""What is known of runs: what they made beside their outputs, verifications, provenance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from audit.asking import asked, found, skipped

from repro import digest
from repro.audit import verdict
from repro.store.verdicts import Verdicts
from repro.verification.verdict import Compared, Trial, Verdict

STEP = "entry_points:\n  main: {outputs: [a.txt], command: 'echo 1 > a.txt; echo 2 > b.txt'}\n"


@pytest.fixture
def folder(project):
    return project({"MLproject": STEP})


def test_of_a_step_that_never_ran_it_is_said_once(machine, folder):
    facts = asked(machine, folder)
    assert found(facts, "R01", "R06") == {("R06", "main")}
    assert {"N01", "N05", "E05", "R02", "A03"} <= skipped(facts)


def test_files_beside_the_outputs(machine, folder, run):
    run(folder)
    facts = asked(machine, folder)
    assert facts.history[0].made == ("b.txt",)
    assert found(facts, "N05") == {("N05", "b.txt")}
    assert "N01" in skipped(facts)  # nobody has watched what it read


def test_they_are_those_of_the_run_whose_result_was_reused(machine, folder, run):
    first = run(folder)
    again = run(folder)
    assert again.record.cached
    step = asked(machine, folder).history[0]
    assert (step.last_good, step.made) == (first.run_id, ("b.txt",))


# -- verifications


def verdict_of(record, *, state="same", outputs=(), day=20_000):
    return Verdict(
        key=record.key,
        run_id=record.run_id,
        project=record.project,
        entry_point="main",
        at_ns=day * 86_400 * 10**9,
        compared=1,
        repetitions=(Trial(state=state, outputs=outputs),),
    )


@pytest.fixture
def done(folder, run):
    return run(folder).record


def test_a_result_that_was_made_again(machine, folder, done):
    assert found(asked(machine, folder), "R0") == {("R01", "main"), ("R05", "")}
    Verdicts(machine.history.root).put(verdict_of(done))
    facts = asked(machine, folder)
    assert (facts.history[0].verified, facts.history[0].differed) == ("2024-10-04", ())
    assert found(facts, "R0") == {("R05", "")}
    assert verdict.judge(facts).verified == "2024-10-04"
    assert "R02" not in skipped(facts)


def test_a_result_that_came_out_otherwise(machine, folder, done):
    other = Compared(path="a.txt", kind="output", state="different")
    Verdicts(machine.history.root).put(verdict_of(done, state="different", outputs=(other,)))
    facts = asked(machine, folder)
    assert facts.history[0].differed == ("a.txt",)
    assert found(facts, "R02") == {("R02", "main")}


def test_an_execution_that_failed_is_no_verification(machine, folder, done):
    Verdicts(machine.history.root).put(verdict_of(done, state="failed"))
    facts = asked(machine, folder)
    assert found(facts, "R01", "R02") == {("R01", "main")}
    Verdicts(machine.history.root).put(verdict_of(done, day=20_001))
    Verdicts(machine.history.root).put(verdict_of(done, state="failed", day=20_002))
    assert asked(machine, folder).history[0].verified == "2024-10-05"


# -- provenance


def test_the_statement_about_a_result_is_checked(machine, folder, done):
    facts = asked(machine, folder)
    assert [one.fault for one in facts.provenance] == [""]
    assert found(facts, "A03") == set()
    assert "A03" not in skipped(facts)
    result = machine.results.get(done.key)
    other = machine.blobs.put(machine.blobs.get(result.provenance).replace(b"a.txt", b"c.txt"))
    machine.results.put(type(result)(**{**vars_of(result), "provenance": other}))
    facts = asked(machine, folder)
    assert found(facts, "A03") == {("A03", done.run_id)}
    assert "does not name `a.txt`" in facts.provenance[0].fault


def vars_of(value):
    return {name: getattr(value, name) for name in value.__fields__}


def test_a_statement_that_was_lost(machine, folder, done):
    os.unlink(machine.blobs.path(machine.results.get(done.key).provenance))
    assert "not in the store" in asked(machine, folder).provenance[0].fault


@pytest.fixture
def keys(tmp_path):
    """Two keys, of which the first counts."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("there is no ssh-keygen")
    for name in ("good", "bad"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    public = (tmp_path / "good.pub").read_text().split()[:2]
    (tmp_path / "signers").write_text(f"ada {' '.join(public)}\n")
    return tmp_path


@pytest.fixture
def signed(machine, done, keys):
    """Keep a signature of the result, as one that came with it."""

    def sign(key):
        with open(machine.results.path(done.key), "rb") as file:
            record = file.read()
        command = ["ssh-keygen", "-Y", "sign", "-q", "-f", keys / key, "-n", "repro-result"]
        made = subprocess.run(command, input=record, capture_output=True, check=True)
        machine.memos.put("signature", digest.of_bytes(record), made.stdout.decode())

    return sign


@pytest.mark.parametrize(("key", "is_good"), [("good", True), ("bad", False)])
def test_the_signature_of_a_result_that_came_from_elsewhere(
    machine, folder, signed, keys, environ, key, is_good
):
    signed(key)
    assert asked(machine, folder).provenance[0].fault == ""  # nobody was named who counts
    environ["REPRO_REMOTE_SIGNERS"] = str(keys / "signers")
    fault = asked(machine, folder).provenance[0].fault
    assert fault == ("" if is_good else "its result is signed by no key that counts")


def test_a_signature_that_cannot_be_checked_is_not_believed(machine, folder, signed, keys, environ):
    signed("good")
    environ.update(REPRO_REMOTE_SIGNERS=str(keys / "signers"), PATH="/nothing")
    assert "cannot be checked" in asked(machine, folder).provenance[0].fault


def test_the_facts_of_runs_are_in_the_report_for_programs(folder, done, repro):
    document = json.loads(repro("audit", folder, "--json").out)
    assert "N05" in [finding["code"] for finding in document["findings"]]

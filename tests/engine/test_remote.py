"""A result that one machine made is a hit on another, and a remote's trouble is no run's."""

from __future__ import annotations

import pathlib

import pytest

STEP = "entry_points: {main: {inputs: [in.txt], outputs: [out.txt], command: 'echo ran; cat in.txt > out.txt'}}\n"


@pytest.fixture
def hosts(run, project, tmp_path):
    """Two machines with stores of their own and one shared folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    base = {**run.environ, "REPRO_REMOTE": f"file://{shared}"}

    def on(host, *, files=None, name=None, **variables):
        run.environ = {
            **base,
            "REPRO_HOME": str(tmp_path / f"{host}-store"),
            "REPRO_DATA": str(tmp_path / f"{host}-data"),
            **variables,
        }
        return run(project({"MLproject": STEP, "in.txt": "x", **(files or {})}, name=name or host))

    on.shared = shared
    return on


def test_a_result_made_on_one_machine_is_a_hit_on_another(hosts, run, tmp_path):
    first = hosts("one")
    assert not first.cached
    second = hosts("two")
    assert second.cached
    assert second.record.origin_run == first.run_id
    assert (tmp_path / "two" / "out.txt").read_text() == "x"
    assert hosts("two").cached
    assert "remote" not in " ".join(e.text for e in run.named("Progress"))  # the store has it now


def test_other_inputs_are_another_result(hosts):
    hosts("one")
    assert not hosts("two", files={"in.txt": "y"}).cached


def test_modes_and_offline_are_kept(hosts):
    hosts("one", REPRO_REMOTE_MODE="read")
    assert not hosts("two").cached
    assert not hosts("three", REPRO_REMOTE_MODE="write").cached
    assert not hosts("four", REPRO_REMOTE="").cached
    assert hosts("five").cached


def test_a_remote_that_is_not_there_costs_a_warning_and_no_run(hosts, run):
    found = hosts("one", REPRO_REMOTE="http://127.0.0.1:9/cache")
    assert found.wait()
    assert any("127.0.0.1:9" in e.text for e in run.named("Warned"))


def test_what_was_tampered_with_in_the_remote_is_not_served(hosts, run, tmp_path):
    hosts("one")
    for place in pathlib.Path(hosts.shared).rglob("*"):
        if place.is_file() and place.read_bytes() == b"x":
            place.chmod(0o644)
            place.write_bytes(b"y")
    found = hosts("two")
    assert found.wait()
    assert not found.cached
    assert (tmp_path / "two" / "out.txt").read_text() == "x"


def test_rot_in_the_store_is_healed_from_the_remote(hosts, run, tmp_path):
    first = hosts("one")
    blob = first.outputs["out.txt"].sha256
    place = tmp_path / "one-store" / "cas" / blob[:2] / blob[2:]
    place.chmod(0o644)
    place.write_bytes(b"rot")
    (tmp_path / "one" / "out.txt").unlink()
    again = hosts("one")
    assert again.cached
    assert "ran" not in [e.data for e in run.named("Output")]
    assert (tmp_path / "one" / "out.txt").read_text() == "x"


def test_a_result_made_without_a_sandbox_is_none_for_who_has_one(hosts):
    hosts("one", REPRO_SANDBOX="none")
    assert not hosts("two", REPRO_SANDBOX="mounts").cached
    assert hosts("three", REPRO_SANDBOX="mounts").cached  # `two` has published a better one
    assert hosts("four", REPRO_SANDBOX="none").cached

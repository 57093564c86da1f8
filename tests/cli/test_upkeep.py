"""`repro cache verify`, `prune`, `pin` and `unpin` as a user meets them."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest

from repro import digest, schemas

LOCAL = ("--env-manager", "local")


@pytest.fixture
def store(repro, project, environ):
    folder = project(
        MLproject="entry_points: {main: {parameters: {a: {default: 1}}, command: 'echo {a} > o'}}\n"
    )
    for value in (1, 2):
        assert repro("run", folder, *LOCAL, "-P", f"a={value}").code == 0
    return environ["REPRO_HOME"]


def document(answer, name):
    found = json.loads(answer.out)
    jsonschema.validate(found, schemas.load(name))
    assert found["schema"] == f"repro.{name}/1"
    return found


def runs(repro):
    return json.loads(repro("log", "--json").out)["runs"]


def output(store, text):
    name = digest.of_bytes(text)
    return os.path.join(store, "cas", name[:2], name[2:])


def flip(path):
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.write(b"!")


def test_a_sound_store(store, repro):
    answer = repro("cache", "verify")
    assert answer.code == 0
    assert "2 results" in answer.out
    assert answer.out.endswith("checked: sound\n")
    told = document(repro("cache", "verify", "--json"), "cache-verify")
    assert (told["results"], told["unattested"], told["bits"], told["findings"]) == (2, 0, 0, [])


def test_a_damage_is_said_then_repaired_then_gone(store, repro):
    flip(output(store, b"2\n"))
    answer = repro("cache", "verify")
    assert answer.code == 5
    assert "corrupt" in answer.out
    assert "--repair" in answer.err
    told = document(repro("cache", "verify", "--json"), "cache-verify")
    assert told["bits"] == 1
    assert told["counts"] == {"corrupt": 1, "missing": 1, "untrusted": 0, "unchecked": 0}
    repaired = repro("cache", "verify", "--repair", "--json", "-j", "1")
    assert repaired.code == 5
    done = [f["repair"] for f in document(repaired, "cache-verify")["findings"]]
    assert done == ["quarantined", "removed"]
    assert repro("cache", "verify").code == 0
    assert document(repro("cache", "size", "--json"), "cache-size")["results"] == 1


def test_a_pinned_result_survives_every_collection(store, repro):
    first, second = (run["run_id"] for run in runs(repro))
    assert repro("cache", "pin", first[:8]).code == 0
    pins = document(repro("cache", "pin", "--json"), "cache-pins")["pins"]
    assert len(pins) == 1
    assert pins[0]["key"] in repro("cache", "pin").out
    told = repro("cache", "prune", "--older-than", "0", "--max-size", "0")
    assert told.code == 0
    assert "1 result" in told.out
    assert "1 result pinned" in told.err
    assert document(repro("cache", "size", "--json"), "cache-size")["results"] == 1
    assert repro("cache", "unpin", pins[0]["key"]).code == 0
    repro("cache", "prune", "--older-than", "0")
    assert document(repro("cache", "size", "--json"), "cache-size")["results"] == 0
    assert repro("cache", "pin", second[:8]).code == 2


def test_prune_tells_what_of_which_kind(store, repro):
    os.makedirs(os.path.join(store, "wheels", "x.whl"))
    with open(os.path.join(store, "wheels", "x.whl", "file"), "wb") as file:
        file.write(b"x" * 100)
    dry = document(repro("cache", "prune", "--older-than", "0", "-n", "--json"), "cache-prune")
    assert (dry["results"], dry["dry_run"]) == (2, True)
    assert dry["parts"]["packages"] == {"count": 1, "bytes": 100}
    told = repro("cache", "prune", "--older-than", "0")
    assert "removed 2 results" in told.out
    assert "1 cached package, 100 B of it" in told.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("prune", "--max-size", "much"), "no size"),
        (("prune", "--older-than", "x"), "no number of days"),
        (("verify", "--jobs", "0"), "no number"),
        (("verify", "1a2b"), "takes no runs"),
        (("unpin", "0" * 64), "is not pinned"),
        (("pin", "0" * 64), "there is no result"),
    ],
)
def test_mistakes(store, repro, words, text):
    answer = repro("cache", *words)
    assert answer.code == 2
    assert text in answer.err

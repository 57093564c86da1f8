"""`repro cache verify`, `prune`, `pin` and `unpin` as a user meets them."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest
from support import cache_servers

from repro import canonical, digest, schemas
from repro.store import sealed

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


@pytest.fixture(params=["nginx", "folder"])
def remote(request, tmp_path):
    root = tmp_path / "remote"
    root.mkdir()
    with cache_servers.KINDS[request.param](root) as server:
        yield server


def repair(repro, remote, *words):
    answer = repro(
        "cache", "verify", "--repair", "--json", *words, env={"REPRO_REMOTE": remote.url}
    )
    return answer, document(answer, "cache-verify")


def result(store, repro, number):
    """Give the file of the result of a run, and what stands in it."""
    key = runs(repro)[number]["key"]
    path = os.path.join(store, "ac", key[:2], key[2:])
    with open(path, "rb") as file:
        return path, canonical.decode(sealed.unseal(file.read()))


def write(path, plain):
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(sealed.seal(canonical.encode(plain)))


def test_a_remote_heals_what_is_damaged_or_missing(store, repro, remote):
    assert repro("cache", "push", "--remote", remote.url).code == 0
    flip(output(store, b"1\n"))
    os.unlink(output(store, b"2\n"))
    answer, told = repair(repro, remote)
    assert answer.code == 5
    done = [(f["what"], f["fault"], f["repair"]) for f in told["findings"]]
    assert done[0] == ("blob", "corrupt", "fetched")
    assert done[1:] == [("result", "missing", "fetched")] * 2
    assert (told["healed"], told["bits"]) == (3, 1)
    assert len(os.listdir(os.path.join(store, "quarantine"))) == 1
    assert repro("cache", "verify").code == 0
    with open(output(store, b"2\n"), "rb") as file:
        assert file.read() == b"2\n"


def test_a_remote_heals_records_and_lists_of_files(store, repro, remote):
    assert repro("cache", "push", "--remote", remote.url).code == 0
    outputs = result(store, repro, 1)[1]["outputs"]
    os.unlink(os.path.join(store, "cas", outputs[:2], outputs[2:]))
    flip(result(store, repro, 0)[0])
    answer = repro("cache", "verify", "--repair", "--remote", remote.url)
    assert answer.code == 5
    assert answer.out.endswith("2 findings: 1 corrupt, 1 missing; 2 healed\n")
    assert repro("cache", "verify").code == 0
    assert document(repro("cache", "size", "--json"), "cache-size")["results"] == 2


def test_what_a_remote_has_not_or_has_wrongly_is_quarantined(store, repro, remote):
    assert repro("cache", "push", "--remote", remote.url).code == 0
    for data in (b"1\n", b"2\n"):
        flip(output(store, data))
    there = [p for p in remote.data.rglob("*") if p.is_file() and p.read_bytes() == b"1\n"]
    assert there
    for place in there:
        place.chmod(0o644)
        place.write_bytes(b"?\n")
    answer, told = repair(repro, remote)
    assert answer.code == 5
    repairs = sorted((f["what"], f["repair"]) for f in told["findings"])
    assert repairs == [
        ("blob", "fetched"),
        ("blob", "quarantined"),
        ("result", "fetched"),
        ("result", "removed"),
    ]
    assert told["healed"] == 2
    assert "has other bytes" in answer.err
    assert repro("cache", "verify").code == 0


def test_nobody_is_asked_offline_or_without_repair(store, repro, remote):
    assert repro("cache", "push", "--remote", remote.url).code == 0
    flip(output(store, b"2\n"))
    looked = repro("cache", "verify", "--json", env={"REPRO_REMOTE": remote.url})
    assert document(looked, "cache-verify")["healed"] == 0
    assert repro("cache", "verify").code == 5
    _answer, told = repair(repro, remote, "--offline")
    assert told["healed"] == 0
    assert [f["repair"] for f in told["findings"]] == ["quarantined", "removed"]


def test_a_remote_that_is_not_there_is_said_and_the_damage_taken_away(store, repro):
    flip(output(store, b"2\n"))
    away = "http://127.0.0.1:9/cache"
    answer = repro("cache", "verify", "--repair", env={"REPRO_REMOTE": away})
    assert answer.code == 5
    assert "127.0.0.1:9" in answer.err
    assert "quarantined" in answer.out
    assert repro("cache", "verify").code == 0


def test_kinds_of_findings_are_told_apart_by_bits(store, repro):
    def bits():
        return document(repro("cache", "verify", "--json"), "cache-verify")["bits"]

    (first, one), (second, two) = (result(store, repro, number) for number in (0, 1))
    write(first, {**one, "schema": "repro.result/9"})
    assert bits() == 4
    write(second, {**two, "provenance": one["provenance"]})
    assert bits() == 6
    flip(output(store, b"2\n"))
    assert bits() == 7
    assert repro("cache", "verify").code == 5


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

from __future__ import annotations

import os
import pathlib
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro import digest, manifest
from repro.manifest import Entry
from repro.step import key_of_parts
from repro.store.blobs import BlobMissing
from repro.store.results import Result, Results
from repro.system import files


def corrupt(path, position=0):
    os.chmod(path, 0o600)
    data = bytearray(pathlib.Path(path).read_bytes())
    data[position] ^= 0xFF
    pathlib.Path(path).write_bytes(data)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(st.binary(max_size=200_000))
def test_what_is_put_comes_back(machine, data):
    name = machine.blobs.put(data)
    assert name == digest.of_bytes(data)
    assert machine.blobs.get(name) == data
    assert machine.blobs.put(data) == name


def test_a_file_is_put_by_its_content(machine, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    name, size = machine.blobs.put_file(str(tmp_path / "f"))
    assert (name, size) == (digest.of_bytes(b"x" * 3_000_000), 3_000_000)
    assert os.stat(machine.blobs.path(name)).st_mode & 0o777 == 0o444


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_corrupt_blob_is_never_served(machine, tmp_path, position):
    name = machine.blobs.put(bytes(range(256)) * 10)
    corrupt(machine.blobs.path(name), position)
    with pytest.raises(BlobMissing, match="corrupt"):
        machine.blobs.copy(name, str(tmp_path / "out"), 0o644)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BlobMissing, match="missing"):
        machine.blobs.get(name)
    assert len(os.listdir(machine.home.path("quarantine"))) == 1
    assert machine.blobs.put(bytes(range(256)) * 10) == name
    assert machine.blobs.get(name)


def test_a_truncated_blob_is_never_served(machine):
    name = machine.blobs.put(b"x" * 100)
    os.chmod(machine.blobs.path(name), 0o600)
    os.truncate(machine.blobs.path(name), 10)
    with pytest.raises(BlobMissing):
        machine.blobs.get(name)


def result(**changes):
    parts = {"command": "x", "inputs": "0" * 64}
    given = {
        "key": key_of_parts(parts),
        "parts": parts,
        "run_id": "a" * 32,
        "outputs": "b" * 64,
        "artifacts": "c" * 64,
        "log": "d" * 64,
        "metrics": (("m", "0.1", 5, 0),),
    }
    return Result(**{**given, **changes})


def test_a_result_comes_back(machine):
    machine.results.put(result())
    assert machine.results.get(result().key) == result()


def test_every_damage_of_a_result_is_a_miss(machine):
    machine.results.put(result())
    path = machine.results.path(result().key)
    good = pathlib.Path(path).read_bytes()
    for position in range(len(good) - 1):
        bad = bytearray(good)
        bad[position] ^= 1
        with open(path, "wb") as file:
            file.write(bad)
        assert machine.results.get(result().key) is None, position
    for length in range(len(good) - 1):
        with open(path, "wb") as file:
            file.write(good[:length])
        assert machine.results.get(result().key) is None, length


def test_a_result_under_another_key_is_a_miss(machine):
    machine.results.put(result())
    other = "f" * 64
    os.makedirs(os.path.dirname(machine.results.path(other)), exist_ok=True)
    os.rename(machine.results.path(result().key), machine.results.path(other))
    assert machine.results.get(other) is None
    assert Results(machine.home).get(result().key) is None


paths = st.lists(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8).filter(
        lambda p: p not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)
entries = st.lists(
    st.builds(
        lambda p, k, c: Entry(path=p, kind=k, content=digest.of_bytes(c), size=len(c)),
        paths,
        st.sampled_from(["file", "exec"]),
        st.binary(max_size=5),
    ),
    unique_by=lambda e: e.path,
    max_size=10,
)


@given(entries)
def test_a_manifest_comes_back_sorted(found):
    data = manifest.encode(found)
    assert sorted(manifest.decode(data), key=lambda e: e.path) == sorted(
        found, key=lambda e: e.path
    )
    assert manifest.encode(reversed(found)) == data


@pytest.mark.parametrize(
    "entry",
    [
        Entry(path="/etc/passwd", kind="file", content="0" * 64),
        Entry(path="../x", kind="file", content="0" * 64),
        Entry(path="a/../../x", kind="file", content="0" * 64),
        Entry(path="a//b", kind="file", content="0" * 64),
        Entry(path="", kind="file", content="0" * 64),
        Entry(path="a\0b", kind="file", content="0" * 64),
        Entry(path="a", kind="file", content="nope"),
        Entry(path="a", kind="device", content="0" * 64),
        Entry(path="a", kind="link", content="/etc/passwd"),
        Entry(path="a/b", kind="link", content="../../x"),
        Entry(path="a", kind="link", content=""),
    ],
)
def test_a_manifest_that_could_leave_its_tree_is_refused(entry):
    with pytest.raises(manifest.NotAManifest):
        manifest.decode(manifest.encode([entry]))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        ("./a/", ["a", "a/b"], ["b"]),
        ("*.txt", ["x.txt"], ["d/x.txt", "x.txtx"]),
        ("**/*.txt", ["x.txt", "d/e/x.txt"], ["x.csv"]),
        ("data/**", ["data/a", "data/a/b"], ["data2/a"]),
        ("m?del.[ab]", ["model.a", "mxdel.b"], ["model.c", "m/del.a"]),
        ("[!x]", ["y"], ["x"]),
        ("a+b(c)", ["a+b(c)"], ["aab(c)"]),
        (".", ["anything", "a/b"], []),
        ("d*", ["data", "data/x/y"], ["x/data"]),
    ],
)
def test_patterns(pattern, yes, no):
    matches = manifest.matcher([pattern])
    assert all(map(matches, yes))
    assert not any(map(matches, no))


def test_a_blob_is_put_over_a_corrupt_one(machine, tmp_path):
    name = machine.blobs.put(b"right")
    corrupt(machine.blobs.path(name))
    assert machine.blobs.put(b"right") == name
    assert machine.blobs.get(name) == b"right"
    corrupt(machine.blobs.path(name))
    (tmp_path / "f").write_bytes(b"right")
    machine.blobs.put_file(str(tmp_path / "f"))
    assert machine.blobs.get(name) == b"right"


def test_a_blob_that_was_put_right_meanwhile_is_not_set_aside(machine):
    name = machine.blobs.put(b"right")
    machine.blobs.set_aside(name)
    assert machine.blobs.get(name) == b"right"
    assert os.listdir(machine.home.path("quarantine")) == []


def test_every_damage_of_a_memo_is_none(machine):
    machine.memos.put("x", "subject", {"command": "echo 1"})
    path = pathlib.Path(machine.memos.path("x", "subject"))
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        assert machine.memos.get("x", "subject") is None, position
        path.write_bytes(good[:position])
        assert machine.memos.get("x", "subject") is None, position
    path.write_bytes(good)
    assert machine.memos.get("x", "subject") == {"command": "echo 1"}


def test_folders_are_removed_by_many_at_once(tmp_path):
    folder = tmp_path / "big"
    for number in range(200):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "f").write_bytes(b"")
    threads = [threading.Thread(target=files.remove_tree, args=(str(folder),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not folder.exists()


def test_a_half_of_a_dead_process_goes_and_that_of_a_live_one_stays(machine, tmp_path):
    target = tmp_path / "project"
    target.mkdir()
    dead, alive, own = (
        target / name for name in (f".{'a' * 12}~repro", f".{'b' * 12}~repro", ".x")
    )
    for path in (dead, alive, own):
        path.write_bytes(b"half")
    entry = Entry(path="o", kind="file", content=machine.blobs.put(b"x"), size=1)
    with open(alive, "rb") as writer:
        files.hold(writer.fileno())
        time.sleep(1.1)
        machine.placement(str(target)).place([entry], "main", known={}, since_ns=0)
    assert sorted(os.listdir(target)) == sorted([alive.name, own.name, "o"])

"""Files that are known by their states: what is written to is read, what is not is not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from repro.environments import shape, states
from repro.environments.states import Record
from repro.system import files

LARGE = b"\1" * (states.LARGE + 5)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "package"
    (place / "lib").mkdir(parents=True)
    (place / "lib" / "small").write_bytes(b"small")
    (place / "lib" / "large").write_bytes(LARGE)
    (place / "empty").write_bytes(b"")
    (place / "run").write_bytes(b"#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("run")
    return place


@pytest.fixture
def record(folder, tmp_path):
    found = Record(str(tmp_path / "states" / "record.json"), str(folder), "of this")
    found.take()
    found.save()
    return found


def again(record, about="of this"):
    return Record(record.path, record.folder, about)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_every_file_is_read_and_cannot_be_written_to(record, folder):
    assert again(record).digests == {
        "lib/small": sha(b"small"),
        "lib/large": sha(LARGE),
        "empty": sha(b""),
        "run": sha(b"#!/bin/sh\n"),
        "link": "-> run",
    }
    assert [oct(os.lstat(folder / name).st_mode)[-3:] for name in ("empty", "run")] == [
        "444",
        "555",
    ]
    known = dict(zip(record.digests, record.states, strict=True))
    assert known["run"] == states.state_of(str(folder / "run"))


def test_what_has_its_state_is_not_read(record, opened):
    known = again(record)
    opened.clear()
    assert known.damaged() == []
    assert not [path for path in opened if "/package/" in path]


def test_a_link_made_by_us_is_no_reason_to_read(record, folder, tmp_path, opened):
    known = again(record)
    assert known.damaged() == []
    os.link(folder / "lib" / "large", tmp_path / "elsewhere")
    assert known.renew() == []
    known.save()
    opened.clear()
    assert again(known).damaged() == []
    assert not [path for path in opened if "/package/" in path]


def test_a_link_made_by_others_is_read_and_found_good(record, folder, tmp_path, opened):
    os.link(folder / "lib" / "large", tmp_path / "elsewhere")
    opened.clear()
    assert again(record).damaged() == []
    assert str(folder / "lib" / "large") in opened


def rewritten(path, data):
    """Write as one who does not want that to be seen: size, times and mode stay."""
    before = os.stat(path)
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(("name", "data"), [("small", b"smell"), ("large", LARGE[:-1] + b"\2")])
def test_a_change_that_hides_itself_is_found(record, folder, name, data):
    rewritten(folder / "lib" / name, data)
    assert again(record).damaged() == [f"lib/{name}"]


def test_a_change_through_another_name_is_found(record, folder, tmp_path):
    os.link(folder / "lib" / "small", tmp_path / "elsewhere")
    rewritten(tmp_path / "elsewhere", b"smell")
    assert again(record).damaged() == ["lib/small"]


def test_a_file_that_is_gone_or_a_link_that_leads_elsewhere_is_found(record, folder):
    (folder / "empty").unlink()
    (folder / "link").unlink()
    (folder / "link").symlink_to("lib/small")
    assert sorted(again(record).damaged()) == ["empty", "link"]


def test_a_write_while_links_are_made_is_found(record, folder):
    known = again(record)
    assert known.damaged() == []
    (folder / "lib" / "small").chmod(0o644)
    (folder / "lib" / "small").write_bytes(b"smell")
    assert known.renew() == ["lib/small"]


def linked(folder, place):
    """Another name for each file, as an environment has."""
    place.mkdir()
    for path in ("lib/small", "lib/large", "empty", "run"):
        os.link(folder / path, place / os.path.basename(path))


def test_links_that_are_removed_by_us_are_no_reason_to_read(record, folder, tmp_path, opened):
    linked(folder, tmp_path / "env")
    known = again(record)
    assert known.damaged() == []
    with states.unlinking([known]):
        files.remove_tree(str(tmp_path / "env"))
    opened.clear()
    assert again(record).damaged() == []
    assert not [path for path in opened if "/package/" in path]


@pytest.mark.parametrize("when", ["before", "meanwhile", "after"])
def test_a_change_is_found_although_links_are_removed(record, folder, tmp_path, when):
    linked(folder, tmp_path / "env")
    known = again(record)
    assert known.damaged() == []
    if when == "before":
        rewritten(folder / "lib" / "small", b"smell")
    with states.unlinking([known]):
        files.remove_tree(str(tmp_path / "env"))
        if when == "meanwhile":
            (folder / "lib" / "small").chmod(0o644)
            (folder / "lib" / "small").write_bytes(b"smell")
    if when == "after":
        rewritten(folder / "lib" / "small", b"smell")
    assert again(record).damaged() == ["lib/small"]


def test_numbers_that_are_too_large_are_read_each_time(record, folder, opened):
    huge = (1, 2**64 - 1, 5, -(2**70), 3, 4)
    record.states = [huge] * len(record.states)
    record.save()
    opened.clear()
    assert again(record).damaged() == []
    assert str(folder / "lib" / "small") in opened


def test_a_record_of_something_else_says_nothing(record):
    assert again(record, "of that").digests == {}
    assert again(record, "").digests
    whole = files.read(record.path)
    for text in (b"", b"{", b"[]", b'{"format": 99}', whole[:-1], whole[: len(whole) // 2]):
        files.replace(record.path, text)
        assert again(record).digests == {}


def test_after_a_boot_all_is_read(record, folder, opened):
    text = files.read(record.path)
    files.replace(record.path, text.replace(states.boot().encode(), b"an earlier one"))
    known = again(record)
    assert known.states == [states.UNKNOWN] * 5
    opened.clear()
    assert known.damaged() == []
    assert str(folder / "empty") in opened
    assert states.UNKNOWN not in known.states


def test_pipes_and_folders_have_no_digest(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    paths = [str(tmp_path / "pipe"), str(tmp_path), str(tmp_path / "nowhere")]
    assert states.digests(paths) == ["", "", ""]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_nobody_but_root_can_write_to_what_was_taken(record, folder):
    for path, _folders, names in os.walk(folder):
        for name in ("", *names):
            os.chown(os.path.join(path, name), 65534, 65534, follow_symlinks=False)
    code = "import os, sys; os.setuid(65534)\ntry: open(sys.argv[1], 'ab')\nexcept OSError: os._exit(7)"
    os.chmod(folder, 0o755)
    command = [sys.executable, "-I", "-c", code, "lib/small"]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 7


# -- the shape of an environment


@pytest.fixture
def prefix(tmp_path):
    place = tmp_path / "store" / "envs" / "key"
    (place / "lib" / "__pycache__").mkdir(parents=True)
    (place / "lib" / "one.py").write_text("1")
    (place / "lib" / "__pycache__" / "one.pyc").write_text("1")
    (place / "top").write_text("top")
    (place / "link").symlink_to("nowhere")
    return place


PATHS = ("top", "link", "lib/one.py", "lib/__pycache__/one.pyc")


def kept(prefix):
    return shape.keep(str(prefix), PATHS, {})


def test_an_environment_keeps_its_shape(prefix):
    noted = kept(prefix)
    assert shape.is_same(str(prefix), noted)
    (prefix / "lib" / "added.py").write_text("")
    (prefix / "lib" / "__pycache__" / "one.pyc").write_text("2")
    assert shape.is_same(str(prefix), noted)
    assert not shape.is_same(str(prefix), "")


def test_what_is_known_of_a_file_is_not_looked_up(prefix):
    marks = {path: shape.mark(os.lstat(prefix / path)) for path in PATHS}
    assert shape.keep(str(prefix), PATHS, marks) == kept(prefix)
    noted = shape.keep(str(prefix), PATHS, {**marks, "top": (1.0, 2)})
    assert not shape.is_same(str(prefix), noted)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "lib" / "one.py").write_text("2"),
        lambda p: (p / "lib" / "one.py").unlink(),
        lambda p: os.replace(p / "top", p / "lib" / "one.py"),
        lambda p: os.rename(p / "lib", p / "other"),
        lambda p: (p / "link").unlink() or (p / "link").symlink_to("elsewhere"),
        lambda p: os.unlink(shape.list_of(str(p))),
        lambda p: files.replace(shape.list_of(str(p)), b"[1"),
    ],
)
def test_every_change_is_another_shape(prefix, change):
    noted = kept(prefix)
    change(prefix)
    assert not shape.is_same(str(prefix), noted)


# -- one with more files than are looked at each time


@pytest.fixture
def large(prefix):
    """An environment whose shape was noted, with its files and what was noted."""
    paths = []
    for number in range(shape.FEW + 1):
        folder = f"lib/part{number % 20}"
        (prefix / folder).mkdir(exist_ok=True)
        (prefix / folder / f"{number}.py").write_text("")
        paths.append(f"{folder}/{number}.py")
    return prefix, paths, shape.keep(str(prefix), paths, {})


def aged(prefix, seconds):
    """Set the time at which all files were looked at."""
    then = os.stat(prefix).st_mtime - seconds
    os.utime(shape.list_of(str(prefix)), (then, then))


def times(prefix):
    return os.stat(shape.list_of(str(prefix))).st_mtime


@pytest.mark.parametrize("how", ["remove", "replace", "rename"])
def test_what_changes_a_folder_is_seen_at_once(large, how):
    prefix, paths, noted = large
    assert all(shape.is_same(str(prefix), noted) for _ in range(shape.PARTS * 4))
    target = prefix / paths[7]
    if how == "remove":
        target.unlink()
    elif how == "rename":
        target.rename(f"{target}.txt")
    else:
        (prefix / "new").write_text("")
        os.replace(prefix / "new", target)
    assert not shape.is_same(str(prefix), noted)


def test_what_is_written_in_place_is_seen_in_its_turn(large):
    prefix, paths, noted = large
    (prefix / paths[7]).write_text("changed")
    seen = [shape.is_same(str(prefix), noted) for _ in range(100)]
    assert set(seen) == {True, False}


@pytest.mark.parametrize("seconds", [3601, -60], ids=["long ago", "in the future"])
def test_all_is_looked_at_once_an_hour(large, seconds):
    prefix, paths, noted = large
    aged(prefix, seconds)
    before = times(prefix)
    assert shape.is_same(str(prefix), noted)
    assert times(prefix) != before, "noted that it was"
    aged(prefix, seconds)
    (prefix / paths[7]).write_text("changed")
    for _ in range(20):
        assert not shape.is_same(str(prefix), noted)

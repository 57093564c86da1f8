"""Folders of an environment that are made ahead, by a second process where they are many."""

from __future__ import annotations

import os

import pytest

from repro.environments.folders import MANY, Folders
from repro.environments.tools import session

GROUPS = [
    [f"{top}/{number}/file" for number in range(count)]
    for top, count in (("a", MANY), ("b/é", 1), ("a", 3), ("c", MANY))
]


@pytest.fixture
def work(tmp_path):
    with session(str(tmp_path / "home"), os.environ, "failed") as found:
        yield found


@pytest.fixture
def prefix(tmp_path):
    place = tmp_path / "prefix"
    place.mkdir()
    return place


def test_each_group_is_there_when_it_was_waited_for(prefix, work):
    folders = Folders(str(prefix))
    with folders.ahead(GROUPS, work):
        for group in GROUPS:
            folders.wait()
            assert all((prefix / path).parent.is_dir() for path in group)


def test_few_folders_are_made_when_they_are_needed(prefix, work):
    folders = Folders(str(prefix))
    with folders.ahead([["a/b/c"]], work):
        folders.wait()
        assert not (prefix / "a").exists()
        folders.hold(["a/b/c"])
    assert (prefix / "a" / "b").is_dir()


def test_what_could_not_be_made_ahead_is_made_or_said_when_it_is_needed(prefix, work):
    (prefix / "b").write_text("a file")
    folders = Folders(str(prefix))
    with folders.ahead(GROUPS, work):
        for group in GROUPS:
            folders.wait()
            if group[0].startswith("b"):
                with pytest.raises(NotADirectoryError):
                    folders.hold(group)
            else:
                folders.hold(group)
            assert group[0].startswith("b") or (prefix / group[-1]).parent.is_dir()

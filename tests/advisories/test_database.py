"""Copies of OSV: folders, archives, and archives from a server; read once, and kept honest."""

from __future__ import annotations

import json
import os
import time
import zipfile

import pytest
from advisories.conftest import document

from repro.advisories import database
from repro.errors import ReproError, Unreachable, Unsupported, UsageError

ALWAYS = [("introduced", "0"), ("fixed", "2.0")]
SETTLED_NS = 10**18


@pytest.fixture
def told():
    return []


@pytest.fixture
def load(home, told):
    def call(place, *, fetch=False):
        return database.load(str(place), home, fetch=fetch, progress=told.append)

    return call


def settle(folder):
    """Give all files a time that is long ago, so that what is learned of them is kept."""
    for file in folder.iterdir():
        os.utime(file, ns=(SETTLED_NS, SETTLED_NS))
    time.sleep(0.05)  # the change time cannot be set


def test_a_folder_and_its_archive_say_the_same(source, load, tmp_path):
    source.add(
        document("X-1", events=ALWAYS), document("X-2", "other", events=ALWAYS, modified="2027")
    )
    (source.folder / "README.md").write_text("no advisory")
    (source.folder / "2026" / "01").mkdir(parents=True)
    nested = document("X-3", "tiny", versions=["1.0"])
    (source.folder / "2026" / "01" / "X-3.json").write_text(json.dumps(nested))
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in source.folder.rglob("*.json"):
            zipped.write(file, file.relative_to(source.folder))
    packages = [("Tiny", "1.0"), ("unknown", "1"), ("other", "3.0")]
    for place in (source.folder, archive):
        found = load(place)
        assert (found.count, found.date, found.unreadable) == (3, "2027", ())
        assert [(m.package, m.id) for m in found.match(packages)] == [
            ("tiny", "X-1"),
            ("tiny", "X-3"),
        ]


def test_what_did_not_change_is_not_read_again(source, load, told, tmp_path):
    source.add(document("X-1", events=ALWAYS), document("X-2", "b", events=ALWAYS))
    settle(source.folder)
    archive = source.zipped(tmp_path / "all.zip")
    for place in (source.folder, archive):
        told.clear()
        load(place)
        load(place)
        assert told == ["reading 2 advisories"]
        assert [m.id for m in load(place).match([("tiny", "1")])] == ["X-1"]


def test_a_changed_file_is_read_again_and_a_removed_one_forgotten(source, load, told):
    source.add(document("X-1", events=ALWAYS), document("X-2", "b", events=ALWAYS))
    settle(source.folder)
    load(source.folder)
    source.add(document("X-2", "c", events=ALWAYS))
    told.clear()
    assert [m.id for m in load(source.folder).match([("b", "1"), ("c", "1")])] == ["X-2"]
    assert told == ["reading 1 advisories"]
    (source.folder / "X-1.json").unlink()
    assert load(source.folder).match([("tiny", "1")]) == ()


def test_a_damaged_index_costs_time_alone(source, load, home):
    source.add(document("X-1", events=ALWAYS))
    settle(source.folder)
    load(source.folder)
    (index,) = os.listdir(os.path.join(home, "memo"))
    for text in ("", "{", "[]", '{"format": 1, "rows": {"X-1.json": 5}}', '{"format": 99}'):
        with open(os.path.join(home, "memo", index), "w", encoding="utf-8") as file:
            file.write(text)
        assert len(load(source.folder).match([("tiny", "1")])) == 1


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"5",
    b'{"id": "X"}',
    b'{"id": "X", "modified": "m", "affected": 5}',
    b'{"id": "X", "modified": "m", "affected": [5]}',
    b'{"id": "X", "modified": "m", "affected": {"a": 1}}',
    b'{"id": "X", "modified": "m", "affected": [{"package": {"ecosystem": "PyPI"}}]}',
    b'{"id": "X", "modified": "m", "severity": 5, "affected": []}',
    b'{"id": "X", "modified": "m", "severity": [5], "affected": []}',
    b'{"id": "X", "modified": "m", "aliases": 5, "affected": []}',
    b'{"id": "X", "modified": "m", "affected": [{"package": {"ecosystem": "PyPI", "name": "a"}, '
    b'"ranges": [{"type": "ECOSYSTEM", "events": [5]}]}]}',
    b'{"id": "X", "modified": "m", "affected": [{"package": {"ecosystem": "PyPI", "name": "a"}, '
    b'"versions": 5}]}',
    b'{"a": ' * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_that_is_no_advisory_is_named_and_the_rest_still_counts(source, load, data):
    source.add(document("X-1", events=ALWAYS))
    (source.folder / "bad.json").write_bytes(data)
    found = load(source.folder)
    assert found.unreadable == ("bad.json",)
    assert [m.id for m in found.match([("tiny", "1"), ("a", "1")])] == ["X-1"]


def test_versions_of_no_known_form_are_not_guessed(source, load):
    events = [("introduced", "not a version"), ("fixed", "2")]
    source.add(document("X-1", events=events, versions=["odd-1"]))
    found = load(source.folder)
    assert [m.id for m in found.match([("tiny", "odd-1"), ("tiny", "odd-2"), ("tiny", "1")])] == [
        "X-1"
    ]


def test_a_place_without_advisories_is_said_so(tmp_path, load):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.zip").write_text("no archive")
    for place, words in (("gone", "no advisories"), ("empty", "no advisory"), ("no.zip", "no zip")):
        with pytest.raises(UsageError, match=words):
            load(tmp_path / place)


def test_an_archive_with_a_damaged_member_names_it(source, load, tmp_path):
    source.add(document("X-1", events=ALWAYS), document("X-2", events=ALWAYS))
    archive = source.zipped(tmp_path / "all.zip")
    data = bytearray(archive.read_bytes())
    at = data.index(b'"X-2"')
    data[at + 1] ^= 1
    archive.write_bytes(data)
    assert load(archive).unreadable == ("X-2.json",)


# -- from a server


@pytest.fixture
def server(source, serve, tmp_path):
    """A server of an archive with an ETag, and what it was asked."""
    asked = []

    def answer(_method, path, headers, _body):
        asked.append(headers.get("If-None-Match"))
        if path == "/html":
            return 200, {}, b"<html>"
        if path == "/broken":
            return 503, {}, b""
        body = source.zipped(tmp_path / "served.zip").read_bytes()
        tag = f'"{len(body)}"'
        if headers.get("If-None-Match") == tag:
            return 304, {}, b""
        return 200, {"ETag": tag}, body

    return serve(answer), asked


def test_an_archive_is_fetched_once_and_again_when_it_changed(source, load, server):
    url, asked = server
    source.add(document("X-1", events=ALWAYS))
    place = f"{url}/PyPI/all.zip"
    with pytest.raises(Unsupported, match="never fetched"):
        load(place)
    assert asked == []
    assert load(place, fetch=True).count == 1
    assert load(place, fetch=True).count == 1
    assert asked[0] is None
    assert asked[1] is not None
    source.add(document("X-2", events=ALWAYS))
    assert load(place).count == 1, "without leave nothing is asked"
    assert len(asked) == 2
    assert load(place, fetch=True).count == 2


def test_credentials_in_a_url_are_not_repeated(source, load, server):
    url, _asked = server
    source.add(document("X-1", events=ALWAYS))
    place = url.replace("http://", "http://me:hunter2@")
    assert "hunter2" not in load(place, fetch=True).source
    with pytest.raises(ReproError) as failed:
        load(f"{place}/broken", fetch=True)
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize(("path", "words"), [("/broken", "503"), ("/html", "no zip archive")])
def test_what_is_no_archive_replaces_nothing(source, load, server, home, path, words):
    with pytest.raises(Unreachable, match=words):
        load(server[0] + path, fetch=True)
    assert [name for name in os.listdir(os.path.join(home, "osv")) if "zip" in name] == []


def test_a_server_that_is_not_there_is_worth_a_retry(load):
    with pytest.raises(Unreachable):
        load("http://127.0.0.1:9/all.zip", fetch=True)

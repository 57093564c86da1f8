"""A remote that lies, stalls and breaks: never a wrong byte, and the run goes on."""

from __future__ import annotations

import os
import pathlib
import socket
import time

import pytest
from support import hostile_cache
from support.cache_hosts import LIMITS
from support.hostile_cache import HARMFUL, HARMLESS, UPLOADS, cache

from repro import canonical, digest, manifest
from repro.errors import Unreachable, UsageError
from repro.manifest import Entry
from repro.remote import envelope
from repro.step import key_of_parts
from repro.store.results import SCHEMA
from repro.value import replace

__all__ = ["cache"]
HASTY = replace(
    LIMITS, connect=1, answer=0.4, commit=0.6, stall=1.4, tries=2, longest_pause=2, redirects=3
)
LONGEST = 12


def connected(one, url):
    return one.share(url, limits=HASTY)


@pytest.fixture
def filled(cache, host):
    """A cache with two results, pushed while it behaved; and the first of them."""
    one = host()
    files = {"a": os.urandom(4000), "b": os.urandom(20), "big": os.urandom(1_200_000)}
    key = one.make("first", files)
    sharing = connected(one, cache.url)
    assert sharing.push([key, one.make("second")]).results == 2
    sharing.close()
    cache.good()
    return one, key, files


def is_sound(one):
    """Whether the store has nothing but right blobs and nothing half-written."""
    blobs = one.machine.blobs
    sound = all(blobs.get(name) is not None for name, _size in list(blobs.names()))
    halves = [p for p in pathlib.Path(one.machine.home.path("tmp")).rglob("*") if p.is_file()]
    return sound and not halves


@pytest.mark.parametrize("kinds", [("ac",), ("cas",)], ids="-".join)
@pytest.mark.parametrize("mood", HARMFUL, ids=lambda mood: mood.__name__)
def test_what_it_answers_is_never_believed(cache, filled, host, mood, kinds):
    _one, key, files = filled
    cache.mood, cache.kinds = mood, kinds
    other = host()
    began = time.monotonic()
    sharing = connected(other, cache.url)
    found = sharing.fetch_result(key)
    if found is not None:  # it was only rude
        assert other.read(key) == files
    else:
        assert other.machine.results.get(key) is None
        quiet = {"answers_404", "answers_410"}
        assert other.warnings or (mood.__name__ in quiet and kinds == ("ac",))
    mine = other.make("first", files)  # the step runs
    cache.mood = None
    sharing.offer(mine)
    sharing.close()
    assert time.monotonic() - began < LONGEST
    assert mine == key
    assert other.read(key) == files
    assert is_sound(other)
    assert not any(path == "/stolen" for _method, path, _headers in cache.seen)


def test_every_way_to_harm_is_counted():
    names = {mood.__name__ for mood in (*HARMFUL, *HARMLESS, *UPLOADS)}
    assert len(names) == len(HARMFUL) + len(HARMLESS) + len(UPLOADS)
    assert len(names) >= 25


@pytest.mark.parametrize("mood", HARMLESS, ids=lambda mood: mood.__name__)
def test_hiccups_are_got_over(cache, filled, host, mood):
    _one, key, files = filled
    cache.mood = mood
    other = host()
    sharing = connected(other, cache.url)
    assert sharing.fetch_result(key) is not None
    sharing.close()
    assert other.read(key) == files
    assert other.warnings == []


def test_a_download_goes_on_where_it_broke_off(cache, filled, host):
    _one, key, files = filled
    cache.mood = hostile_cache.cut_once_and_resumes
    big = f"/cas/{digest.of_bytes(files['big'])}"
    sharing = connected(host(), cache.url)
    assert sharing.fetch_result(key)
    sharing.close()
    ranges = [headers.get("Range") for _m, path, headers in cache.seen if path == big]
    assert ranges == [None, "bytes=600000-"]


@pytest.mark.parametrize("mood", UPLOADS, ids=lambda mood: mood.__name__)
def test_uploads_that_go_wrong_harm_nobody(cache, host, mood):
    one, other = host(), host()
    files = {"a": os.urandom(3000), "big": os.urandom(3_000_000)}
    key = one.make("first", files)
    cache.put_mood = mood
    began = time.monotonic()
    sharing = connected(one, cache.url)
    sharing.offer(key)
    sharing.close(bound_s=6)
    assert time.monotonic() - began < LONGEST
    assert one.read(key) == files
    cache.good()
    reader = connected(other, cache.url)
    found = reader.fetch_result(key)
    reader.close()
    assert found is None or other.read(key) == files
    assert is_sound(other)


def claims_to_have_it(h):
    h.send_response(200)
    h.end_headers()


def test_a_cache_that_claims_to_have_everything_gives_misses(cache, host):
    """It says yes to every question, so nothing is uploaded but the record."""
    one, other = host(), host()
    key = one.make("first", {"a": b"data"})
    cache.head_mood, cache.kinds = claims_to_have_it, ("cas",)
    sharing = connected(one, cache.url)
    sharing.offer(key)
    sharing.close()
    cache.good()
    reader = connected(other, cache.url)
    assert reader.fetch_result(key) is None
    assert "is not there" in other.warnings[0]
    reader.offer(other.make("first", {"a": b"data"}))
    reader.close()
    third = host()
    again = connected(third, cache.url)
    assert again.fetch_result(key)
    again.close()


def test_a_stale_list_is_no_trouble(cache, filled, host):
    _one, key, files = filled
    rows = [{"name": key}, {"name": "0" * 64}, {"name": "../../etc"}, "x", {"name": 5}, {}]
    listed = str(rows).replace("'", '"').encode()
    cache.mood = lambda h: h.reply(200, listed) if h.path == "/ac/" else h.serve()
    other = host()
    sharing = connected(other, cache.url)
    brought = sharing.pull()
    sharing.close()
    assert (brought.results, brought.failed) == (1, 1)
    assert other.read(key) == files


@pytest.mark.parametrize("mood", HARMFUL[::4], ids=lambda mood: mood.__name__)
def test_pulling_from_it_is_an_error_in_words(cache, filled, host, mood):
    cache.mood = mood
    other = host()
    sharing = connected(other, cache.url)
    try:
        assert sharing.pull([filled[1]]).failed == 1
    except Unreachable as error:
        assert "remote cache" in error.message
    try:
        sharing.pull()
    except Unreachable as error:
        assert "remote cache" in error.message
    sharing.close()
    assert is_sound(other)


def test_a_server_that_accepts_and_never_answers_costs_little(host):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        one = host()
        began = time.monotonic()
        sharing = connected(one, f"http://127.0.0.1:{deaf.getsockname()[1]}")
        for name in ("a", "b", "c", "d", "e"):
            assert sharing.fetch_result(one.make(name)) is None
        sharing.close()
        assert time.monotonic() - began < LONGEST
    assert len(one.warnings) <= 2


def test_credentials_stay_with_the_server_they_are_for(cache, filled, host):
    _one, key, _files = filled
    thief = hostile_cache.Cache()
    cache.mood = lambda h: h.reply(302, Location=f"https://127.0.0.1:{thief.server_port}{h.path}")
    other = host({"REPRO_REMOTE_TOKEN": "hush-hush"})
    sharing = connected(other, cache.url)
    assert sharing.fetch_result(key) is None
    sharing.close()
    thief.server_close()
    assert all(h["Authorization"] == "Bearer hush-hush" for _m, _p, h in cache.seen)
    assert not any("hush" in text for text in other.warnings)
    everything = pathlib.Path(other.machine.home.root).rglob("*")
    assert not any(b"hush-hush" in p.read_bytes() for p in everything if p.is_file())


def test_credentials_do_not_travel_in_the_clear(host):
    with pytest.raises(UsageError, match="no TLS"):
        host({"REPRO_REMOTE_TOKEN": "hush"}).share("http://cache.example.org")
    with pytest.raises(UsageError, match="no TLS"):
        host().share("http://me:hush@cache.example.org")


def test_nothing_is_asked_when_a_signal_has_come(cache, filled, host):
    other = host()
    sharing = connected(other, cache.url)
    sharing.stop()
    assert sharing.fetch_result(filled[1]) is None
    sharing.close()
    assert cache.seen == []


# -- results that are well-formed lies


def forged(cache, one, key, change):
    """Put a changed record of a result into the cache, with all its digests right."""
    path = one.machine.results.path(key)
    plain = canonical.decode(
        pathlib.Path(path).read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0]
    )
    change(plain)
    body = canonical.encode(plain).replace(str(HUGE).encode(), str(HUGE * 10).encode())
    record = body + b"\n" + digest.of_bytes(body).encode() + b"\n"
    cache.stored[f"/ac/{key}"] = envelope.encode(record, b"", {})


def listing(cache, *entries):
    data = manifest.encode(entries)
    cache.stored[f"/cas/{digest.of_bytes(data)}"] = data
    return digest.of_bytes(data)


HUGE = 2**63 - 1  # one digit is added below, past what we write ourselves
CONTENT = digest.of_bytes(b"evil")
LIES = {
    "schema": lambda p: p.update(schema="repro.result/2"),
    "another key": lambda p: p["parts"].update(command="rm"),
    "parts are no mapping": lambda p: p.update(parts="ab"),
    "parts are a number": lambda p: p.update(parts=5),
    "no parts": lambda p: p.pop("parts"),
    "more fields": lambda p: p.update(more=1),
    "deep": lambda p: p.update(origin=nested(200)),
    "a huge number": lambda p: p.update(origin={"a": HUGE}),
    "log is no digest": lambda p: p.update(log="../../etc/passwd"),
    "log is a number": lambda p: p.update(log=5),
    "outputs is a list": lambda p: p.update(outputs=["x"]),
    "run id is a path": lambda p: p.update(run_id="../../x"),
    "run id is a number": lambda p: p.update(run_id=7),
    "a failure": lambda p: p.update(exit_code=1),
    "a negative time": lambda p: p.update(wall_ns=-1),
    "true for a number": lambda p: p.update(wall_ns=True),
    "metrics of numbers": lambda p: p.update(metrics=[[1, 2, 3, 4]]),
    "metrics are short": lambda p: p.update(metrics=[["a"]]),
    "a metric is no number": lambda p: p.update(metrics=[["a", "x", 1, 1]]),
    "metrics are no list": lambda p: p.update(metrics=5),
    "tags of numbers": lambda p: p.update(tags={"a": 1}),
    "tags are a list": lambda p: p.update(tags=[]),
    "parameters of lists": lambda p: p.update(parameters={"a": []}),
    "datasets of texts": lambda p: p.update(datasets=["x"]),
    "a child is a text": lambda p: p.update(children=["x"]),
    "a child of another class": lambda p: p["children"][0].update({"": "Result"}),
    "a child's files are no digest": lambda p: p["children"][0].update(artifacts="/etc"),
    "a child's parent is a text": lambda p: p["children"][0].update(parent="x"),
    "origin is a text": lambda p: p.update(origin="x"),
}
PATHS = [
    [Entry(path="/etc/passwd", kind="file", content=CONTENT, size=4)],
    [Entry(path="../x", kind="file", content=CONTENT, size=4)],
    [Entry(path="a/../../x", kind="file", content=CONTENT, size=4)],
    [Entry(path=".git/hooks/pre-commit", kind="exec", content=CONTENT, size=4)],
    [Entry(path="sub/.GIT/config", kind="file", content=CONTENT, size=4)],
    [Entry(path="a", kind="link", content="/etc")],
    [Entry(path="a", kind="link", content="../../etc")],
    [Entry(path="a", kind="device", content=CONTENT, size=4)],
    [Entry(path="a", kind="file", content="x", size=4)],
    [Entry(path="a", kind="file", content=CONTENT, size=5)],
    [Entry(path="a", kind="file", content=CONTENT, size=-1)],
    [Entry(path="a", kind="file", content=CONTENT, size="4")],
    [Entry(path=5, kind="file", content=CONTENT, size=4)],
    [Entry(path=["a"], kind="file", content=CONTENT, size=4)],
    [Entry(path="a", kind="link", content=7)],
    [
        Entry(path="a", kind="link", content="b"),
        Entry(path="a/x", kind="file", content=CONTENT, size=4),
    ],
    [Entry(path="a", kind="file", content=CONTENT, size=4)] * 2,
    [
        Entry(path="a", kind="file", content=CONTENT, size=4),
        Entry(path="b", kind="file", content=CONTENT, size=9),
    ],
]


def nested(depth):
    found = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize("lie", LIES)
def test_a_result_of_another_shape_is_refused(cache, filled, host, lie):
    one, key, _files = filled
    forged(cache, one, key, LIES[lie])
    refused(cache, host(), key)


@pytest.mark.parametrize("entries", PATHS, ids=range(len(PATHS)))
@pytest.mark.parametrize("field", ["outputs", "artifacts"])
def test_a_list_of_files_that_no_step_could_make_is_refused(cache, filled, host, entries, field):
    one, key, _files = filled
    cache.stored[f"/cas/{CONTENT}"] = b"evil"
    forged(cache, one, key, lambda plain: plain.update({field: listing(cache, *entries)}))
    refused(cache, host(), key)


def test_a_log_that_is_none_is_refused(cache, filled, host):
    one, key, _files = filled
    for log in (b"plain text\n", b"[1]\n", b'["x","stdout","y"]\n', b'[1,"stdout",2]\n'):
        cache.stored[f"/cas/{digest.of_bytes(log)}"] = log
        forged(cache, one, key, lambda plain, log=log: plain.update(log=digest.of_bytes(log)))
        refused(cache, host(), key)


def test_outputs_that_the_step_does_not_declare_are_refused(cache, host):
    one = host()
    parts = {"command": "x", "inputs": "0" * 64, "outputs": ["model/**"]}
    key = one.make("x", {"model/a": b"good", "train.py": b"evil"}, parts=parts)
    assert key == key_of_parts(parts)
    sharing = connected(one, cache.url)
    sharing.push([key])
    sharing.close()
    refused(cache, host(), key)


def refused(cache, other, key):
    sharing = connected(other, cache.url)
    assert sharing.fetch_result(key) is None
    sharing.close()
    assert len(other.warnings) == 1
    assert other.machine.results.get(key) is None
    assert is_sound(other)


def test_a_good_record_passes_the_same_way(cache, filled, host):
    """What the refusals rest on: the unchanged record is taken."""
    one, key, files = filled
    assert SCHEMA
    forged(cache, one, key, lambda _plain: None)
    other = host()
    sharing = connected(other, cache.url)
    assert sharing.fetch_result(key)
    sharing.close()
    assert other.read(key) == files

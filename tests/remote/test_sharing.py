"""Machines that share results through every kind of remote."""

from __future__ import annotations

import os
import pathlib
import random

import pytest

from repro import digest, manifest
from repro.errors import Unreachable, UsageError
from repro.manifest import Entry
from repro.store.blobs import BlobMissing


def pushed(one, keys=None):
    sharing = one.share()
    sent = sharing.push(keys)
    sharing.close()
    return sent


def pulled(one, keys=None):
    sharing = one.share()
    brought = sharing.pull(keys)
    sharing.close()
    return brought


@pytest.fixture
def pair(server, host):
    """Two machines with one remote."""
    environ = {"REPRO_REMOTE": server.apart(), **server.environ}
    return host(environ), host(environ)


def unique():
    return os.urandom(8).hex()


def test_a_result_reaches_the_other_machine_whole(pair):
    one, other = pair
    files = {"a.txt": os.urandom(1000), "d/b.bin": os.urandom(1_500_000), "empty": b""}
    key = one.make(unique(), files, logged={"model/weights": os.urandom(50)})
    sent = pushed(one, [key])
    assert (sent.results, sent.failed) == (1, 0)
    sharing = other.share()
    found = sharing.fetch_result(key)
    sharing.close()
    assert found == one.machine.results.get(key) == other.machine.results.get(key)
    assert other.read(key) == files
    for name in (found.log, found.artifacts, found.children[0]["artifacts"]):
        assert other.machine.blobs.get(name) == one.machine.blobs.get(name)
    assert other.warnings == []


def test_what_nobody_pushed_is_a_miss(pair):
    sharing = pair[1].share()
    assert sharing.fetch_result("0" * 64) is None
    sharing.close()
    assert pair[1].warnings == []


def test_an_offered_result_is_there_when_the_run_has_ended(pair):
    one, other = pair
    sharing = one.share()
    keys = [one.make(unique()) for _ in range(3)]
    for key in keys:
        sharing.offer(key)
    sharing.close()
    assert sharing.outbox.waiting() == []
    again = other.share()
    assert all(again.fetch_result(key) for key in keys)
    again.close()


def test_all_is_pushed_and_pulled_once(pair):
    one, other = pair
    keys = {one.make(unique()) for _ in range(4)}
    assert (pushed(one).results, pushed(one).present) == (4, 4)
    first = pulled(other)
    assert (first.results, first.present, first.failed) == (4, 0, 0)
    assert all(other.machine.results.get(key) for key in keys)
    second = pulled(other)
    assert (second.results, second.present, second.failed) == (0, 4, 0)


def test_a_result_that_lacks_a_file_locally_is_not_pushed(pair):
    one, _other = pair
    key = one.make(unique(), {"f": os.urandom(20)})
    name = manifest.decode(one.machine.blobs.get(one.machine.results.get(key).outputs))[0].content
    os.unlink(one.machine.blobs.path(name))
    sent = pushed(one, [key])
    assert (sent.results, sent.failed) == (0, 1)
    assert pulled(pair[1], [key]).results == 0


def test_a_file_that_rotted_locally_is_not_pushed(pair):
    one, other = pair
    for size in (1000, 2_000_000):
        data = os.urandom(size)
        key = one.make(unique(), {"f": data})
        place = pathlib.Path(one.machine.blobs.path(digest.of_bytes(data)))
        place.chmod(0o600)
        place.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        assert pushed(one, [key]).failed == 1
        sharing = other.share()
        assert sharing.remote.has("cas", [digest.of_bytes(data)]) == {}
        sharing.close()


def test_a_damaged_blob_here_is_replaced_from_there(pair):
    one, _other = pair
    data = os.urandom(500)
    key = one.make(unique(), {"f": data})
    pushed(one, [key])
    place = pathlib.Path(one.machine.blobs.path(digest.of_bytes(data)))
    place.chmod(0o600)
    place.write_bytes(b"rotten")
    with pytest.raises(BlobMissing):
        one.read(key)
    sharing = one.share()
    assert sharing.fetch_result(key)
    sharing.close()
    assert one.read(key) == {"f": data}


# -- damage in the remote


def stored_files(server):
    return [p for p in server.data.rglob("*") if p.is_file() and p.stat().st_size]


@pytest.mark.parametrize("kind", ["nginx", "rclone", "registry", "folder"])
def test_no_damage_in_a_remote_is_ever_served(servers, host, kind):
    """Flip a bit, or cut, in any file that the server keeps, many times over."""
    server = servers(kind)
    environ = {"REPRO_REMOTE": server.url, **server.environ}
    one = host(environ)
    files = {"a": os.urandom(3000), "b": os.urandom(40)}
    before = set(stored_files(server))
    key = one.make(unique(), files)
    assert pushed(one, [key]).results == 1
    mine = sorted(set(stored_files(server)) - before)
    assert mine
    dice = random.Random(7)
    served = refused = 0
    rounds = 120 if kind == "folder" else 40
    for _ in range(rounds):
        victim = dice.choice(mine)
        good = victim.read_bytes()
        damage(victim, good, dice)
        other = host(environ)
        sharing = other.share()
        if sharing.fetch_result(key) is None:
            refused += 1
            assert other.read(key) is None
        else:  # what was damaged was not needed, such as a size in a manifest's list
            served += 1
            assert other.read(key) == files
            assert other.machine.results.get(key) == one.machine.results.get(key)
        sharing.close()
        rewrite(victim, good)
    assert refused
    assert served + refused == rounds


def damage(victim, good, dice):
    if dice.random() < 0.5:
        rewrite(victim, good[: dice.randrange(len(good))])
    else:
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        rewrite(victim, bytes(bad))


def rewrite(victim, data):
    victim.chmod(0o644)
    victim.write_bytes(data)


@pytest.mark.parametrize("kind", ["nginx", "rclone", "folder"])
def test_damage_that_was_found_is_mended_by_the_next_push(servers, host, kind):
    server = servers(kind)
    environ = {"REPRO_REMOTE": server.url, **server.environ}
    one, other, third = host(environ), host(environ), host(environ)
    data = os.urandom(700)
    key = one.make(unique(), {"f": data})
    pushed(one, [key])
    victim = next(p for p in stored_files(server) if p.name == digest.of_bytes(data))
    rewrite(victim, b"rotten")
    sharing = other.share()
    assert sharing.fetch_result(key) is None
    assert len(other.warnings) == 1
    other.machine.results.put(one.machine.results.get(key))  # as if the step had run there
    for name in one.machine.blobs.names():
        other.machine.blobs.put(one.machine.blobs.get(name[0]))
    sharing.offer(key)
    sharing.close()
    again = third.share()
    assert again.fetch_result(key)
    again.close()
    assert third.read(key) == {"f": data}


def test_a_result_whose_file_is_gone_from_the_remote_is_a_miss_and_then_mended(servers, host):
    server = servers("folder")
    environ = {"REPRO_REMOTE": server.url}
    one, other = host(environ), host(environ)
    data = os.urandom(700)
    key = one.make(unique(), {"f": data})
    pushed(one, [key])
    (server.data / "cas" / digest.of_bytes(data)).unlink()
    sharing = other.share()
    assert sharing.fetch_result(key) is None
    sharing.close()
    assert pushed(one, [key]).blobs == 1
    sharing = other.share()
    assert sharing.fetch_result(key)
    sharing.close()


# -- settings


def test_a_remote_can_be_read_only_or_write_only(servers, host):
    server = servers("folder")
    one, other = host({"REPRO_REMOTE": server.url}), host({"REPRO_REMOTE": server.url})
    key = one.make(unique())
    reading = one.share(REPRO_REMOTE_MODE="read")
    reading.offer(key)
    with pytest.raises(UsageError, match="only read"):
        reading.push()
    reading.close()
    assert reading.outbox.waiting() == []
    pushed(one, [key])
    third = host({"REPRO_REMOTE": server.url, "REPRO_REMOTE_MODE": "read"})
    assert pulled(third, [key]).results == 1
    writing = other.share(REPRO_REMOTE_MODE="write")
    assert writing.fetch_result(key) is None
    with pytest.raises(UsageError, match="only written"):
        writing.pull()
    writing.close()


def test_a_server_that_takes_no_uploads_is_told_once(servers, host):
    server = servers("nginx")
    one = host({"REPRO_REMOTE": f"{server.url}/readonly"})
    sharing = one.share()
    keys = [one.make(unique()) for _ in range(3)]
    for key in keys:
        sharing.offer(key)
    sharing.close()
    assert len([w for w in one.warnings if "405" in w or "takes no uploads" in w]) <= 2
    assert sorted(sharing.outbox.waiting()) == sorted(keys)
    again = one.share()
    with pytest.raises(Unreachable):
        again.push()
    again.close()


def test_a_server_may_ask_for_a_password(servers, host, tmp_path):
    server = servers("nginx")
    one = host({"REPRO_REMOTE": f"{server.url}/private"})
    writer = host({"REPRO_REMOTE": server.url})
    mine = writer.make(unique())
    pushed(writer, [mine])
    assert pulled_from(one, mine) is None
    assert "401" in one.warnings[0]
    host_and_port = server.url.removeprefix("http://")
    named = host({"REPRO_REMOTE": f"http://team:sesame77@{host_and_port}/private"})
    assert pulled_from(named, mine)
    assert "sesame" not in named.share().remote.name
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login team password sesame77\n")
    (tmp_path / "netrc").chmod(0o600)
    rc = host({"REPRO_REMOTE": f"{server.url}/private", "NETRC": str(tmp_path / "netrc")})
    assert pulled_from(rc, mine)


def pulled_from(one, key):
    sharing = one.share()
    found = sharing.fetch_result(key)
    sharing.close()
    return found


def test_a_dead_remote_is_asked_once_and_told_once(host):
    one = host({"REPRO_REMOTE": "http://127.0.0.1:9/"})
    sharing = one.share()
    keys = [one.make(unique()) for _ in range(3)]
    assert [sharing.fetch_result(key) for key in keys] == [None] * 3
    for key in keys:
        sharing.offer(key)
    sharing.close()
    assert len([w for w in one.warnings if "refused" in w]) == 1
    assert len([w for w in one.warnings if "not on" in w]) == 1
    assert sorted(sharing.outbox.waiting()) == sorted(keys)
    with pytest.raises(Unreachable):
        one.share().push()


def test_what_waits_is_sent_by_the_next_run(servers, host):
    server = servers("folder")
    one, other = host(), host({"REPRO_REMOTE": server.url})
    hidden = server.data.rename(server.data.with_name("away"))
    sharing = one.share(server.url)
    first = one.make(unique())
    sharing.offer(first)
    sharing.close()
    assert sharing.outbox.waiting() == [first]
    hidden.rename(server.data)
    sharing = one.share(server.url)
    second = one.make(unique())
    sharing.offer(second)
    sharing.close()
    assert sharing.outbox.waiting() == []
    assert pulled_from(other, first)
    assert pulled_from(other, second)


def test_pushing_all_clears_what_waits(servers, host):
    server = servers("folder")
    one = host({"REPRO_REMOTE": server.url})
    sharing = one.share()
    key = one.make(unique())
    sharing.outbox.add(key)
    sharing.outbox.add("0" * 64)  # its result was pruned
    sharing.push()
    assert sharing.outbox.waiting() == []
    sharing.close()


def test_a_store_that_cannot_be_written_is_a_warning(servers, host):
    server = servers("folder")
    one, other = (host({"REPRO_REMOTE": server.url}) for _ in range(2))
    key = one.make(unique())
    pushed(one, [key])
    other.machine.home.scratch()
    place = pathlib.Path(other.machine.home.path("cas"))
    place.rmdir()
    place.write_text("in the way")
    assert pulled_from(other, key) is None
    assert len(other.warnings) >= 1
    sharing = other.share()
    pathlib.Path(other.machine.home.path("outgoing")).write_text("in the way")
    sharing.offer(key)
    sharing.close()
    assert other.machine.results.get(key) is None


def test_no_remote_is_no_remote(host):
    assert host().share() is None


def test_results_with_the_same_files_send_them_once(servers, host):
    server = servers("folder")
    one = host({"REPRO_REMOTE": server.url})
    data = {"f": os.urandom(100)}
    keys = [one.make(unique(), data) for _ in range(3)]
    sharing = one.share()
    first = sharing.push(keys[:1])
    second = sharing.push(keys[1:])
    sharing.close()
    assert first.blobs > second.blobs == 2  # the two logs


def test_files_of_all_kinds_come_back(servers, host):
    server = servers("folder")
    one, other = (host({"REPRO_REMOTE": server.url}) for _ in range(2))
    blobs = one.machine.blobs
    script = blobs.put(b"#!/bin/sh\n")
    entries = [
        Entry(path="run.sh", kind="exec", content=script, size=10),
        Entry(path="to", kind="link", content="run.sh"),
        Entry(path="empty", kind="dir"),
        Entry(path="odd \udcff\n", kind="file", content=script, size=10),
    ]
    key = one.make(unique(), outputs=blobs.put(manifest.encode(entries)))
    pushed(one, [key])
    result = pulled_from(other, key)
    assert set(manifest.decode(other.machine.blobs.get(result.outputs))) == set(entries)


@pytest.mark.parametrize("kind", ["nginx", "folder"])
def test_a_file_that_is_cut_short_there_is_sent_again(servers, host, kind):
    """As a server leaves it that was killed in the middle of an upload."""
    server = servers(kind)
    url = server.apart()
    one, other = (host({"REPRO_REMOTE": url}) for _ in range(2))
    data = os.urandom(3000)
    key = one.make(unique(), {"f": data})
    pushed(one, [key])
    place = server.data / url.rpartition("/")[2] / "cas" / digest.of_bytes(data)
    rewrite(place, data[:1000])
    assert pushed(one, [key]).blobs == 1
    assert pulled_from(other, key)

"""What a collection takes, and what it must not take."""

from __future__ import annotations

import os
import time

import pytest
from faults.scene import Outputs, Scene

from repro.store import pruning
from repro.store.home import Home
from repro.store.pins import Pins
from repro.store.pruning import GRACE_NS, Limits

DAY_NS = 24 * GRACE_NS
LATER = 2 * GRACE_NS


@pytest.fixture
def place(tmp_path):
    made = Scene(tmp_path).open()
    yield made
    made.close()


def prune(place, *, older_ns=0, ahead_ns=LATER, max_bytes=None, dry_run=False):
    now = time.time_ns() + ahead_ns
    limits = Limits(before_ns=now - older_ns, now_ns=now, max_bytes=max_bytes, dry_run=dry_run)
    return pruning.prune(place.home, place.blobs, place.results, limits)


def counts(found):
    return {name: part.count for name, part in found.parts.items()}


def used_at(place, number, ns):
    os.utime(place.results.path(Outputs(number=number).key), ns=(ns, ns))


def published(place, count):
    for number in range(count):
        place.publish(number)
        used_at(place, number, time.time_ns() - (count - number) * DAY_NS)


def looks(place, count):
    return [place.look(number) for number in range(count)]


def test_old_results_go_with_what_only_they_name(place):
    published(place, 3)
    found = prune(place, older_ns=5 * DAY_NS // 2)
    assert looks(place, 3) == ["absent", "exact", "exact"]
    assert counts(found)["results"] == 1
    assert place.faults() == []


def test_a_dry_run_tells_the_same_and_removes_nothing(place):
    published(place, 3)
    told = prune(place, older_ns=2 * DAY_NS, dry_run=True)
    assert looks(place, 3) == ["exact"] * 3
    done = prune(place, older_ns=2 * DAY_NS)
    assert (counts(told), told.bytes) == (counts(done), done.bytes)


def test_what_is_younger_than_an_hour_stays(place):
    place.publish(0)
    found = prune(place, ahead_ns=GRACE_NS // 2)
    assert counts(found) == {"results": 1}
    assert len(list(place.blobs.names())) == 7


def test_by_size_the_longest_unused_go_first(place):
    published(place, 4)
    size = sum(size for _name, size in place.blobs.names())
    prune(place, older_ns=30 * DAY_NS, max_bytes=size - 1)
    assert looks(place, 4) == ["absent", "exact", "exact", "exact"]
    prune(place, older_ns=30 * DAY_NS, max_bytes=0)
    assert looks(place, 4) == ["absent"] * 4
    assert list(place.blobs.names()) == []


def test_what_no_result_names_stays_as_long_as_a_result_and_goes_last_by_size(place):
    place.publish(0)
    saved = place.blobs.put(b"the user's own")
    prune(place, older_ns=DAY_NS)
    assert place.blobs.has(saved)
    size = sum(size for _name, size in place.blobs.names())
    prune(place, older_ns=DAY_NS, max_bytes=size - 20)
    assert (place.look(0), place.blobs.has(saved)) == ("absent", True)
    prune(place, older_ns=DAY_NS, max_bytes=0)
    assert not place.blobs.has(saved)


def test_pinned_results_stay(place):
    published(place, 2)
    Pins(place.home).add(Outputs(number=0).key)
    found = prune(place, max_bytes=0)
    assert looks(place, 2) == ["exact", "absent"]
    assert found.pinned == 1
    assert Pins(place.home).drop(Outputs(number=0).key)
    assert not Pins(place.home).drop(Outputs(number=0).key)
    prune(place)
    assert place.look(0) == "absent"


def test_results_that_wait_for_a_remote_stay(place):
    place.publish(0)
    folder = place.home.path("outgoing", "remote")
    os.makedirs(folder)
    with open(os.path.join(folder, Outputs(number=0).key), "wb"):
        pass
    prune(place)
    assert place.look(0) == "exact"


def test_what_a_process_at_work_has_put_or_used_stays(place, tmp_path):
    place.publish(0)
    other = Home(str(tmp_path / "store"))
    folder = other.scratch()
    name = place.blobs.put(b"for a result that comes in three hours")
    place.results.touch(Outputs(number=0).key)
    prune(place, ahead_ns=4 * GRACE_NS)
    assert place.blobs.has(name)
    assert place.look(0) == "exact"
    assert os.path.isdir(folder)
    other.close()
    prune(place, ahead_ns=4 * GRACE_NS)
    assert not place.blobs.has(name)
    assert place.look(0) == "absent"


def test_what_is_relied_on_again_is_young_again(place):
    name = place.blobs.put(b"old")
    time.sleep(0.05)
    later = time.time_ns() + GRACE_NS - 20_000_000  # it is an hour old by then, but for a moment
    place.blobs.put(b"old")
    limits = Limits(before_ns=later, now_ns=later)
    pruning.prune(place.home, place.blobs, place.results, limits)
    assert place.blobs.has(name)


def test_folders_leases_and_halves_of_processes_that_died_go(place, tmp_path):
    other = Home(str(tmp_path / "store"))
    folder = other.scratch()
    with open(os.path.join(folder, "half"), "wb") as file:
        file.write(b"x" * 100)
    other._lease.free()  # as the kernel does on death
    half = place.home.path("memo", "x.1-2~")
    with open(half, "wb"):
        pass
    with place.home.lock("key-1"):
        pass
    found = prune(place)
    assert counts(found) == {"folders": 1, "leftovers": 1}
    assert found.parts["folders"].bytes == 100
    assert os.listdir(place.home.path("tmp")) == []
    assert os.listdir(place.home.path("leases")) == []
    assert not os.path.exists(half)
    assert not os.path.exists(place.home.path("locks", "key-1"))


def test_old_logs_advisories_and_damaged_files_go(place):
    names = ("logs/a.log", "osv/all.zip", "quarantine/x.1")
    for name in names:
        os.makedirs(os.path.dirname(place.home.path(name)), exist_ok=True)
        with open(place.home.path(name), "wb") as file:
            file.write(b"x" * 10)
    prune(place, older_ns=DAY_NS)
    assert all(os.path.exists(place.home.path(name)) for name in names)
    found = prune(place)
    assert counts(found) == {"quarantine": 1, "logs": 1, "advisories": 1}
    assert not any(os.path.exists(place.home.path(name)) for name in names)


def test_a_lock_that_its_holder_removed_is_not_held_by_who_waited(place):
    first, second, third = (place.home.lock("x") for _ in range(3))
    first.take()
    fd = os.open(first.path, os.O_RDWR)  # as one who is about to wait for it
    os.unlink(first.path)
    first.free()
    os.close(fd)
    assert second.take(wait=False)
    assert not third.take(wait=False)
    second.free()

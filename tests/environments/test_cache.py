"""Listing environments and removing them."""

from __future__ import annotations

import os
import pathlib

import pytest
from environments.conftest import locked

from repro.environments import cache

DAY = 86_400_000_000_000


@pytest.fixture
def lock(python, wheels):
    return locked(python(), wheels.request("alpha"), print)


def prune(home, *, older=None, everything=False, dry_run=False, now=0):
    return cache.prune(
        home, older_than_ns=older, everything=everything, dry_run=dry_run, now_ns=now
    )


def test_a_store_without_environments_lists_none(tmp_path):
    assert cache.environments(str(tmp_path)) == ()
    assert prune(str(tmp_path), everything=True) == ()


def test_an_environment_is_listed_with_what_it_is(python, lock, told, home):
    realized = python().realize(lock, told.append)
    (entry,) = cache.environments(home)
    assert entry.digest == lock.digest
    assert (entry.kind, entry.python, entry.packages) == ("python", str(lock.interpreter), 2)
    assert entry.bytes > 1000
    assert 0 < entry.built_ns <= entry.last_used_ns
    assert (entry.complete, entry.in_use) == (True, True)
    realized.release()
    assert not cache.environments(home)[0].in_use


def test_one_in_use_is_never_removed(python, lock, told, home):
    first = python().realize(lock, told.append)
    second = python().realize(lock, told.append)
    first.release()
    assert prune(home, everything=True) == ()
    second.release()
    assert [e.digest for e in prune(home, everything=True)] == [lock.digest]
    assert cache.environments(home) == ()
    assert os.listdir(os.path.join(home, "tmp")) == []


def test_age_counts_from_the_last_use(python, lock, told, home):
    maker = python()
    maker.realize(lock, told.append).release()
    used = cache.environments(home)[0].last_used_ns
    assert prune(home, older=DAY, now=used + DAY) == ()
    assert len(prune(home, older=DAY, now=used + DAY + 1, dry_run=True)) == 1
    marker = os.path.join(home, "envs", lock.digest[: cache.KEY_LENGTH], cache.MARKER)
    os.utime(marker, ns=(used - 2 * DAY, used - 2 * DAY))
    maker.realize(lock, told.append).release()
    assert prune(home, older=DAY, now=used + DAY) == ()
    assert len(prune(home, older=DAY, now=used + 10 * DAY)) == 1
    assert cache.environments(home) == ()


def test_a_dry_run_removes_nothing(python, lock, told, home):
    python().realize(lock, told.append).release()
    assert len(prune(home, everything=True, dry_run=True)) == 1
    assert len(cache.environments(home)) == 1


def test_an_incomplete_one_goes_however_young(home):
    rest = pathlib.Path(home, "envs", "0" * 32)
    rest.mkdir(parents=True)
    (rest / "file").write_text("12345")
    (entry,) = cache.environments(home)
    assert (entry.digest, entry.bytes) == ("0" * 32, 5)
    assert (entry.complete, entry.in_use) == (False, False)
    assert prune(home, older=DAY, now=0) == (entry,)
    assert not rest.exists()


def test_old_logs_of_failures_go_too(home):
    logs = pathlib.Path(home, "logs")
    logs.mkdir(parents=True)
    for name, days in (("env-old.log", 40), ("env-new.log", 1), ("other.log", 40)):
        (logs / name).write_text("")
        os.utime(logs / name, ns=((100 - days) * DAY, (100 - days) * DAY))
    prune(home, older=30 * DAY, now=100 * DAY, dry_run=True)
    assert len(list(logs.iterdir())) == 3
    prune(home, older=30 * DAY, now=100 * DAY)
    assert sorted(p.name for p in logs.iterdir()) == ["env-new.log", "other.log"]

"""Sizes where files are shared, and the removal of cached packages that nobody has a part of."""

from __future__ import annotations

import os
import time

import pytest

from repro.environments import disk
from repro.system import files


@pytest.fixture
def home(tmp_path):
    return tmp_path / "store"


def put(folder, name, size=100):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * size)
    return folder / name


def test_own_files_are_those_that_nothing_else_links_to(home):
    env = home / "envs" / "a"
    put(env, "alone", 10)
    cached = put(home / "pkgs" / "p", "shared", 1000)
    (env / "lib").mkdir()
    os.link(cached, env / "lib" / "shared")
    inner = put(env, "twice", 7)
    os.link(inner, env / "again")
    (env / "link").symlink_to("alone")
    found = disk.size(str(env))
    link = os.lstat(env / "link").st_size
    assert found == disk.Size(bytes=10 + 1000 + 7 + link, own=10 + 7 + link)
    assert disk.together([str(env), str(home / "pkgs")]) == 10 + 1000 + 7 + link
    assert disk.size(str(home / "gone")) == disk.Size()


def test_packages_go_that_no_environment_has_a_part_of(home):
    for name in ("old-1-0", "used-1-0"):
        put(home / "pkgs" / name, "file")
        put(home / "pkgs", f"{name}.lock", 0)
    put(home / "pkgs", "old-1-0.conda")
    put(home / "pkgs", ".cache.lock", 0)
    (home / "envs").mkdir()
    os.link(home / "pkgs/used-1-0/file", home / "envs/file")
    put(home / "wheels" / ("0" * 64), "wheel")
    before = after_now()
    put(home / "pkgs" / "new-1-0", "file")
    named = ["pkgs/old-1-0", "pkgs/old-1-0.conda", "wheels/" + "0" * 64]
    tried = disk.prune(str(home), before_ns=before, dry_run=True)
    assert [p.name for p in tried] == named
    assert len(os.listdir(home / "pkgs")) == 7
    removed = disk.prune(str(home), before_ns=before, dry_run=False)
    assert removed == tried
    assert sum(p.bytes for p in removed) == 300
    left = [".cache.lock", "new-1-0", "used-1-0", "used-1-0.lock"]
    assert sorted(os.listdir(home / "pkgs")) == left
    assert os.listdir(home / "wheels") == []


def test_a_package_is_used_until_the_last_environment_with_a_part_of_it_goes(home):
    put(home / "pkgs" / "used-1-0", "file")
    os.link(home / "pkgs/used-1-0/file", home / "other")
    before = after_now()
    os.unlink(home / "other")
    assert disk.prune(str(home), before_ns=before, dry_run=False) == ()
    assert len(disk.prune(str(home), before_ns=after_now(), dry_run=False)) == 1


def after_now():
    """A time that everything so far is older than, and everything from now on is not."""
    time.sleep(0.05)
    now = time.time_ns()
    time.sleep(0.05)
    return now


def test_a_package_that_links_within_itself_is_nobody_elses(home):
    file = put(home / "pkgs" / "git-1-0", "git")
    os.link(file, file.with_name("git-add"))
    assert [p.bytes for p in disk.prune(str(home), before_ns=2**62, dry_run=False)] == [100]


def test_read_only_packages_go_too(home):
    folder = home / "wheels" / ("1" * 64)
    put(folder, "file").chmod(0o444)
    folder.chmod(0o555)
    assert len(disk.prune(str(home), before_ns=2**62, dry_run=False)) == 1
    assert os.listdir(home / "wheels") == []


def test_nothing_is_removed_while_an_environment_is_built(home):
    put(home / "pkgs" / "p", "file")
    (home / "locks").mkdir()
    with files.Lock(str(home / "locks" / disk.LOCK), shared=True):
        assert disk.prune(str(home), before_ns=2**62, dry_run=False) == ()
    assert len(disk.prune(str(home), before_ns=2**62, dry_run=False)) == 1


def test_a_store_without_caches_has_none(home):
    assert disk.cached(str(home)) == ()
    assert disk.prune(str(home), before_ns=2**62, dry_run=False) == ()

"""Environments made from locks: once, whole or not at all, and only of what was locked."""

from __future__ import annotations

import os
import pathlib
import time

import pytest
from environments.conftest import local_package, locked, output

from repro import digest
from repro.environments import cache, records
from repro.errors import EnvironmentFailed, InterpreterMissing, NoSpace, Unreachable
from repro.lockfiles import pylock
from repro.system import files
from repro.value import replace

MAKING = "making an environment"


def made(told):
    return sum(text.startswith(MAKING) for text in told)


def environments_on_disk(home):
    return os.listdir(os.path.join(home, "envs"))


def installed(realized, pattern):
    (found,) = pathlib.Path(realized.variables["VIRTUAL_ENV"]).glob(
        f"lib/*/site-packages/{pattern}"
    )
    return found


def flip(path):
    """Change one byte of a file, and neither its size nor its time."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def lock(python, wheels):
    """The lock of alpha 2.0 and beta 1.5."""
    return locked(python(), wheels.request("alpha"), print)


def test_what_was_locked_can_be_imported_and_its_commands_run(python, lock, told):
    realized = python().realize(lock, told.append)
    try:
        assert (
            output(realized, "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "2.0 1.5"
        )
        assert (
            output(realized, "import sys; print(sys.prefix)") == realized.variables["VIRTUAL_ENV"]
        )
        assert os.access(os.path.join(realized.path[0], "alpha"), os.X_OK)
    finally:
        realized.release()


def test_the_second_time_nothing_is_made(python, lock, told):
    maker = python()
    first = maker.realize(lock, told.append)
    first.release()
    start = time.perf_counter()
    second = maker.realize(lock, told.append)
    assert time.perf_counter() - start < 0.1
    second.release()
    assert made(told) == 1
    assert second.path == first.path


def test_pip_makes_the_same_environment_and_refuses_other_bytes(python, lock, told, home):
    maker = python("pip")
    realized = maker.realize(lock, told.append)
    assert output(realized, "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "2.0 1.5"
    listing = "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"
    assert output(realized, listing) == "alpha beta"
    realized.release()
    wrong = replace(lock, artifacts=(replace(lock.artifacts[0], digest="0" * 64),))
    with pytest.raises(EnvironmentFailed, match="`alpha==2.0` is not what the lock says"):
        maker.realize(wrong, told.append)
    assert environments_on_disk(home) == [os.path.basename(realized.variables["VIRTUAL_ENV"])]


def test_an_environment_without_packages_is_made(python, wheels, told):
    maker = python()
    realized = maker.realize(locked(maker, wheels.request(), told.append), told.append)
    assert output(realized, "print(1)") == "1"
    realized.release()


def test_byte_code_is_there_before_the_first_import(python, lock, told):
    realized = python().realize(lock, told.append)
    assert installed(realized, "__pycache__/alpha.*.pyc").stat().st_size
    realized.release()


def test_a_local_package_is_built_from_its_files_as_they_are_now(python, wheels, told, tmp_path):
    part = local_package(tmp_path / "project" / "part")
    maker = python(root=str(tmp_path / "project"))
    for version in (1, 2):
        (part / "local_one.py").write_text(f"VERSION = {version}\n")
        digest = str(version) * 64
        lock = locked(maker, wheels.request(directories=(("part", digest),)), told.append)
        realized = maker.realize(lock, told.append)
        assert output(realized, "import local_one; print(local_one.VERSION)") == str(version)
        realized.release()


def test_eight_processes_at_once_make_each_of_three_once(agent, lock, home):
    """All three have beta: only one process at a time unpacks it."""
    alpha, beta = lock.artifacts
    wanted = [lock, replace(lock, artifacts=(alpha,)), replace(lock, artifacts=(beta,))]
    processes = [agent(wanted[number % 3]) for number in range(8)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert "".join(printed).count(MAKING) == 3
    assert len(environments_on_disk(home)) == 3
    assert len(os.listdir(os.path.join(home, "wheels"))) == 2
    assert os.listdir(os.path.join(home, "tmp")) == []


def test_a_builder_killed_at_any_moment_does_no_harm(agent, python, lock, told, home):
    process = agent(lock)
    process.stdout.readline()
    start = time.perf_counter()
    process.communicate(timeout=60)
    duration = time.perf_counter() - start
    incomplete = 0
    for moment in range(15):
        cache.prune(home, older_than_ns=None, everything=True, dry_run=False, now_ns=0)
        files.remove_tree(os.path.join(home, "wheels"))
        process = agent(lock)
        process.stdout.readline()
        time.sleep(duration * moment / 15)
        process.kill()
        process.communicate()
        incomplete += not all(entry.complete for entry in cache.environments(home))
        realized = python().realize(lock, told.append)
        assert output(realized, "import alpha; print(alpha.VERSION)") == "2.0"
        records.verify(realized.variables["VIRTUAL_ENV"], lock.artifacts)
        realized.release()
    assert incomplete


def test_a_wrong_hash_names_the_package_and_both_digests(python, lock, told, home):
    alpha, beta = lock.artifacts
    with pytest.raises(EnvironmentFailed, match="`beta==1.5` is not what the lock says") as failed:
        python().realize(
            replace(lock, artifacts=(alpha, replace(beta, digest="0" * 64))), told.append
        )
    assert f"expected {'0' * 64}" in failed.value.hints
    assert f"found    {beta.digest}" in failed.value.hints
    assert os.path.exists(failed.value.log)
    assert environments_on_disk(home) == []
    assert os.listdir(os.path.join(home, "tmp")) == []


def test_a_wheel_that_was_replaced_since_it_was_locked_is_refused(python, own_wheels, told, home):
    maker = python()
    lock = locked(maker, own_wheels.request("alpha"), told.append)
    own_wheels.wheel("alpha", "2.0", ["beta>=1"], body="raise SystemExit('tampered')\n")
    with pytest.raises(EnvironmentFailed, match="`alpha==2.0` is not what the lock says"):
        maker.realize(lock, told.append)
    assert environments_on_disk(home) == []


def test_a_lock_of_another_tool_is_bound_to_this_machine(python, own_wheels, told):
    here = locked(python(), own_wheels.request(), told.append).interpreter
    own_wheels.wheel("beta", "1.6", tag="py3-none-macosx_11_0_arm64")
    chosen = own_wheels.wheel("beta", "1.6", tag="py3-none-any")
    text = (
        'lock-version = "1.0"\ncreated-by = "other"\nrequires-python = ">=3.8"\n'
        "[[packages]]\nname = 'beta'\nversion = '1.6'\nwheels = [\n"
        + "".join(
            f"{{ url = 'file://{path}', hashes = {{ sha256 = '{digest.of_bytes(path.read_bytes())}' }} }},\n"
            for path in sorted(own_wheels.folder.glob("beta-1.6*"))
        )
        + "]\n[[packages]]\nname = 'gone'\nversion = '1'\nmarker = \"sys_platform == 'win32'\"\n"
        f"wheels = [{{ url = 'https://x.example/gone-1-py3-none-any.whl', hashes = {{ sha256 = '{'0' * 64}' }} }}]\n"
    )
    (foreign,) = pylock.decode("pylock.toml", text.encode()).locks
    maker = python()
    bound = maker.bound(foreign)
    assert (bound.interpreter, maker.bound(bound)) == (here, bound)
    assert [a.filename for a in bound.artifacts] == [chosen.name]
    assert maker.unmet(own_wheels.request("beta>1.5"), foreign) == ()
    assert [one.code for one in maker.unmet(own_wheels.request("beta<1.5"), foreign)] == ["D02"]
    realized = maker.realize(foreign, told.append)
    assert output(realized, "import beta; print(beta.VERSION)") == "1.6"
    realized.release()


def test_verification_finds_a_flipped_byte_and_a_missing_file(python, lock, told):
    realized = python().realize(lock, told.append)
    prefix = realized.variables["VIRTUAL_ENV"]
    records.verify(prefix, lock.artifacts)
    module = installed(realized, "beta.py")
    flip(module)
    with pytest.raises(EnvironmentFailed, match="files of `beta`") as failed:
        records.verify(prefix, lock.artifacts)
    assert any(str(module) in hint for hint in failed.value.hints)
    flip(module)
    records.verify(prefix, lock.artifacts)
    module.unlink()
    with pytest.raises(EnvironmentFailed, match="files of `beta`"):
        records.verify(prefix, lock.artifacts)
    realized.release()


def test_verification_finds_packages_too_many_and_too_few(python, lock, told):
    realized = python().realize(lock, told.append)
    prefix = realized.variables["VIRTUAL_ENV"]
    alpha, _beta = lock.artifacts
    with pytest.raises(EnvironmentFailed, match="not the locked ones") as failed:
        records.verify(prefix, [alpha])
    assert "`beta` was installed too" in failed.value.hints
    with pytest.raises(EnvironmentFailed) as failed:
        records.verify(prefix, [*lock.artifacts, replace(alpha, name="delta")])
    assert "`delta` was not installed" in failed.value.hints
    realized.release()


def test_a_python_that_is_gone_asks_for_a_new_lock(python, lock, told, home):
    gone = replace(lock, interpreter=replace(lock.interpreter, version="3.11.99"))
    with pytest.raises(InterpreterMissing, match=r"`cpython 3.11.99`.* is not here") as failed:
        python().realize(gone, told.append)
    assert any("lock again" in hint for hint in failed.value.hints)
    assert environments_on_disk(home) == []


def test_an_environment_whose_python_is_gone_is_made_again(python, lock, told):
    maker = python()
    realized = maker.realize(lock, told.append)
    link = os.path.join(realized.path[0], "python")
    os.unlink(link)
    os.symlink("/not/here", link)
    realized.release()
    maker.realize(lock, told.append).release()
    assert made(told) == 2


def test_an_unreadable_marker_is_none(python, lock, told):
    maker = python()
    realized = maker.realize(lock, told.append)
    pathlib.Path(realized.variables["VIRTUAL_ENV"], cache.MARKER).write_bytes(b'{"digest":')
    realized.release()
    maker.realize(lock, told.append).release()
    assert made(told) == 2


def test_a_file_that_cannot_be_fetched_is_worth_a_retry(python, lock, told, home):
    away = replace(lock.artifacts[0], url="http://127.0.0.1:9/alpha-2.0-py3-none-any.whl")
    with pytest.raises(Unreachable):
        python().realize(replace(lock, artifacts=(replace(away, digest="1" * 64),)), told.append)
    assert environments_on_disk(home) == []


def test_a_lock_of_another_tool_that_means_nothing_here_is_unmet(python, own_wheels, told):
    (foreign,) = pylock.decode(
        "pylock.toml",
        b'lock-version = "1.0"\ncreated-by = "other"\nrequires-python = ">=3.99"\npackages = []\n',
    ).locks
    (one,) = python().unmet(own_wheels.request(), foreign)
    assert (one.code, one.entry) == ("D07", "python >=3.99")
    with pytest.raises(InterpreterMissing):
        python().realize(foreign, told.append)


def fake_uv(folder, text):
    """A uv that does what `text` says, with the new prefix as its last argument."""
    path = folder / "fake-uv"
    path.write_text(f"#!/bin/sh\nfor prefix; do :; done\n{text}\n")
    path.chmod(0o755)
    return {"REPRO_UV": str(path)}


def test_a_full_disk_is_said_so_and_leaves_nothing(python, lock, told, home, tmp_path):
    full = 'mkdir -p "$prefix"; echo "error: No space left on device (os error 28)" >&2; exit 2'
    with pytest.raises(NoSpace):
        python(environ=fake_uv(tmp_path, full)).realize(lock, told.append)
    assert environments_on_disk(home) == []


def test_a_builder_that_outlives_its_starter_keeps_the_place(agent, lock, home, tmp_path):
    slow = 'mkdir -p "$prefix"; echo > "$prefix/begun"; sleep 1; echo > "$prefix/ended"'
    process = agent(lock, **fake_uv(tmp_path, slow))
    prefix = pathlib.Path(home, "envs", lock.digest[: cache.KEY_LENGTH])
    _wait((prefix / "begun").exists)
    process.kill()
    process.wait()
    (entry,) = cache.environments(home)
    assert (entry.in_use, entry.complete) == (True, False)
    everything = {"older_than_ns": None, "everything": True, "dry_run": False, "now_ns": 0}
    assert cache.prune(home, **everything) == ()
    _wait(lambda: not cache.environments(home)[0].in_use)
    assert (prefix / "ended").exists()
    assert [e.digest for e in cache.prune(home, **everything)] == [prefix.name]


def _wait(happened):
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)

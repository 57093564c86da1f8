"""The caller's own environment: what is installed in it, known without looking again."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import sysconfig
import time
import venv

import pytest
from environments.conftest import pretend, script

from repro.environments import memo
from repro.environments.bare import Local
from repro.ports import LockRequest
from repro.spec import PythonEnvironment

LOADED = """
import sys
from repro.environments.bare import Local
import os
Local({home!r}, dict(os.environ)).lock(None, None)
print(*sorted(sys.modules))
"""
HEAVY = {"re", "json", "subprocess", "pathlib", "typing", "dataclasses", "contextlib", "hashlib"}


@pytest.fixture
def place(tmp_path):
    """A virtual environment with one package, and its package folder."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    install(site, "alpha", "1.0")
    return site


def install(site, name, version, record="alpha.py,sha256=x,1\n"):
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "RECORD").write_text(record)
    return folder


@pytest.fixture
def local(tmp_path, home):
    def make(**variables):
        environ = {"PATH": str(tmp_path / "venv" / "bin"), "HOME": str(tmp_path), **variables}
        return Local(home, environ)

    return make


def lock(local):
    (found,) = local.lock(LockRequest(environment=PythonEnvironment()), print)
    return found


def test_the_lock_names_the_interpreter_and_every_distribution(local, place):
    found = lock(local())
    assert (found.kind, found.platform) == ("local", "")
    assert local().unmet(PythonEnvironment(requirements=("absent",)), found) == ()
    assert found.interpreter.version == ".".join(map(str, sys.version_info[:3]))
    assert [(a.name, a.version, a.kind) for a in found.artifacts] == [("alpha", "1.0", "wheel")]


def test_the_digest_stays_while_nothing_changes(local, place):
    first = lock(local())
    (place / "module.py").write_text("not installed by anything")
    assert lock(local()) == first
    assert lock(local()).digest == first.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda site: install(site, "beta", "2.0"),
        lambda site: install(site, "alpha", "1.0", "alpha.py,sha256=y,1\n"),
        lambda site: (site / "alpha-1.0.dist-info").rename(site / "alpha-1.1.dist-info"),
        lambda site: (site / "gamma-1.0-py3.11.egg-info").write_text("Name: gamma\n"),
        lambda site: (site / "editable.pth").write_text("/somewhere\n"),
        lambda site: (site / "old.egg-link").write_text("/somewhere\n"),
    ],
)
def test_the_digest_changes_with_what_is_installed(local, place, change):
    before = lock(local()).digest
    change(place)
    changed = lock(local()).digest
    assert changed != before
    assert lock(local()).digest == changed


def test_an_egg_info_counts_as_a_file_and_as_a_folder(local, place):
    (place / "one-1.0-py3.11.egg-info").write_text("Name: one\n")
    (place / "two-2.0-py3.11.egg-info").mkdir()
    (place / "two-2.0-py3.11.egg-info" / "PKG-INFO").write_text("Name: two\n")
    found = {a.name: a for a in lock(local()).artifacts}
    assert (found["one"].version, found["two"].version) == ("1.0", "2.0")
    assert len({found["one"].digest, found["two"].digest, found["alpha"].digest}) == 3
    assert found["one"].kind == "directory"


def test_pth_files_are_part_of_it_by_their_content(local, place):
    (place / "editable.pth").write_text("/somewhere\n")
    first = {a.name: a.digest for a in lock(local()).artifacts}
    (place / "editable.pth").write_text("/elsewhere\n")
    second = {a.name: a.digest for a in lock(local()).artifacts}
    assert first["editable.pth"] != second["editable.pth"]
    assert first["alpha"] == second["alpha"]


def test_the_second_time_no_process_is_started(local, place, processes):
    first = lock(local())
    assert processes
    processes.clear()
    assert lock(local()) == first
    assert processes == []


def test_a_file_is_not_read_again_once_its_time_can_be_trusted(local, opened):
    for record in glob.glob(os.path.join(sysconfig.get_path("purelib"), "*.dist-info", "RECORD")):
        while not memo.settled(memo.stamp(record)):
            time.sleep(0.1)  # these tests were installed just now
    caller = local(PATH=os.path.dirname(sys.executable))
    first = lock(caller)
    assert [path for path in opened if path.endswith("RECORD")]
    opened.clear()
    assert lock(caller) == first
    assert [path for path in opened if path.endswith("RECORD")] == []


def test_a_file_written_just_now_is_read_again(local, place, opened):
    lock(local())
    opened.clear()
    lock(local())
    assert [path for path in opened if path.endswith("RECORD")]
    assert memo.settled(memo.stamp(os.__file__))
    assert not memo.settled(memo.stamp(str(place / "alpha-1.0.dist-info" / "RECORD")))


def test_another_environment_is_another_digest_and_back_again(local, place, tmp_path):
    first = lock(local()).digest
    venv.create(tmp_path / "other", symlinks=True)
    other = lock(local(PATH=str(tmp_path / "other" / "bin"))).digest
    assert other != first
    assert lock(local()).digest == first


def test_without_a_python_there_is_still_a_lock(local, tmp_path):
    found = lock(local(PATH=str(tmp_path / "nothing")))
    assert (found.interpreter.implementation, found.interpreter.version) == ("none", "")
    assert found.artifacts == ()
    assert found.digest == lock(local(PATH="")).digest


def test_python_comes_before_python3_wherever_they_are(local, tmp_path):
    pretend(tmp_path / "first" / "python3", "3.97.1")
    pretend(tmp_path / "second" / "python", "3.98.1")
    path = f"{tmp_path / 'first'}:{tmp_path / 'second'}"
    assert lock(local(PATH=path)).interpreter.version == "3.98.1"


def test_it_is_entered_as_it_is(local, place, tmp_path):
    caller = local(
        PATH=f"{tmp_path / 'venv' / 'bin'}:relative::/usr/bin", VIRTUAL_ENV="/v", OTHER="x"
    )
    realized = caller.realize(lock(caller), print)
    assert realized.path == (str(tmp_path / "venv" / "bin"), "/usr/bin")
    assert realized.variables == {"VIRTUAL_ENV": "/v"}
    assert (realized.prefix, realized.image) == ("", "")
    realized.release()


def test_what_a_shim_chose_comes_first(local, tmp_path):
    root = tmp_path / "pyenv"
    real = pretend(root / "versions" / "3.98.1" / "bin" / "python", "3.98.1")
    script(root / "shims" / "python", f'exec {real} "$@"')
    caller = local(PATH=str(root / "shims"))
    assert caller.realize(lock(caller), print).path == (str(real.parent), str(root / "shims"))


def test_a_store_that_cannot_be_written_costs_time_only(place, tmp_path):
    (tmp_path / "file").write_text("")
    environ = {"PATH": str(tmp_path / "venv" / "bin")}
    caller = Local(str(tmp_path / "file" / "store"), environ)
    assert len(lock(caller).artifacts) == 1


def test_a_known_environment_needs_no_heavy_module(place, home, tmp_path):
    repository = os.path.dirname(os.path.dirname(os.path.dirname(memo.__file__)))
    environ = {"PATH": str(tmp_path / "venv" / "bin"), "PYTHONPATH": repository}
    command = [sys.executable, "-S", "-c", LOADED.format(home=home)]
    for _ in range(2):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
    assert "repro.environments.bare" in done.stdout.split()

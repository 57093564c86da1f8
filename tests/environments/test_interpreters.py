"""Finding Pythons."""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
from environments.conftest import pretend, script
from support.channel import Channel, Package

from repro.environments.interpreters import Interpreters
from repro.errors import InterpreterMissing
from repro.value import replace

RUNNING = ".".join(map(str, sys.version_info[:3]))
MINOR = ".".join(map(str, sys.version_info[:2]))
BASE = os.path.realpath(sys._base_executable)


def starts(path):
    log = path.with_name(f"{path.name}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def search(tmp_path, home):
    """Search for Pythons where only the running one and those of `tmp_path` are found."""

    def make(**variables):
        environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin"), **variables}
        return Interpreters(home, environ)

    return make


def test_the_running_interpreter_answers_for_its_own_version(search):
    for version in ("", RUNNING, MINOR):
        python = search().find(version)
        assert python.base == BASE
        assert python.identity.version == RUNNING
        assert python.identity.abi.startswith(sys.implementation.cache_tag)


def test_what_was_learned_starts_no_process_again(search, processes):
    first = search().find(MINOR)
    assert processes
    processes.clear()
    assert search().find(MINOR) == first
    assert search().fitting(first.identity) == first
    assert processes == []


def test_the_newest_patch_wins_and_then_the_order(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.98", "3.98.2")
    newest = pretend(tmp_path / ".pyenv" / "versions" / "3.98.10" / "bin" / "python3", "3.98.10")
    pretend(tmp_path / ".local/share/uv/python/cpython-3.98/bin/python3", "3.98.10")
    assert search().find("3.98").base == str(newest)
    assert search().find("3.98.2").identity.version == "3.98.2"


def test_a_release_is_preferred_to_its_candidates(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.98", "3.98.0rc2")
    assert search().find("3.98").identity.version == "3.98.0rc2"
    pretend(tmp_path / ".pyenv" / "versions" / "3.98.0" / "bin" / "python3", "3.98.0")
    assert search().find("3.98").identity.version == "3.98.0"


def test_a_prefix_ends_at_a_dot(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.9", "3.98.1")
    with pytest.raises(InterpreterMissing):
        search().find("3.9")


def test_what_does_not_start_is_passed_over(search, tmp_path):
    script(tmp_path / "bin" / "python3.98", "echo 'pyenv: python3.98: command not found'; exit 127")
    (tmp_path / "other").mkdir()
    good = pretend(tmp_path / "other" / "python3.98", "3.98.1")
    path = f"{tmp_path / 'bin'}:{tmp_path / 'other'}"
    assert search(PATH=path).find("3.98").base == str(good)


def test_a_variable_decides_alone(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.98", "3.98.9")
    named = pretend(tmp_path / "mine" / "python", "3.98.1")
    found = search(REPRO_PYTHON_3_98=str(named)).find("3.98")
    assert found.base == str(named)
    assert search(REPRO_PYTHON_3_98=str(named)).find("3.98.9").identity.version == "3.98.9"
    assert search(REPRO_PYTHON_3_98=str(named)).fitting(found.identity) == found


def test_a_variable_that_names_no_python_is_said_so(search, tmp_path):
    broken = script(tmp_path / "mine" / "python", "exit 1")
    with pytest.raises(InterpreterMissing, match="REPRO_PYTHON_3_98"):
        search(REPRO_PYTHON_3_98=str(broken)).find("3.98")


def test_versions_before_the_oldest_supported_do_not_count(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.7", "3.7.17")
    with pytest.raises(InterpreterMissing) as failed:
        search().find("3.7", "python_env.yaml")
    assert any("3.8 is the oldest" in hint for hint in failed.value.hints)
    assert "3.7.17" not in failed.value.hints[0]


def test_the_error_lists_what_was_found(search, tmp_path):
    other = pretend(tmp_path / "bin" / "python3.19", "3.19.4")
    with pytest.raises(InterpreterMissing) as failed:
        search().find("3.98", "python_env.yaml")
    found = failed.value.hints[0]
    assert f"{RUNNING} ({BASE})" in found
    assert f"3.19.4 ({other})" in found


def test_fitting_means_every_part_of_the_identity(search):
    identity = search().find("").identity
    assert search().fitting(identity).base == BASE
    for change in ({"abi": "other"}, {"platform": "other"}, {"implementation": "pypy"}):
        with pytest.raises(InterpreterMissing, match="of the lock"):
            search().fitting(replace(identity, **change))


def test_the_macos_that_a_python_was_built_for_does_not_matter(search, tmp_path):
    built = "macosx-14.4-arm64"
    path = pretend(tmp_path / "bin" / "python3.98", "3.98.1", platform=built)
    locked = replace(search().find("3.98").identity, platform="macosx-11.0-arm64")
    assert search().fitting(locked).base == str(path)
    with pytest.raises(InterpreterMissing):
        search().fitting(replace(locked, platform="macosx-10.9-x86_64"))
    pretend(path, "3.98.1", platform="macosx-10.13-universal2")
    assert search().fitting(locked).identity.platform == "macosx-10.13-universal2"


def test_of_a_range_the_running_python_is_taken_if_it_lies_in_it(search, tmp_path):
    pretend(tmp_path / "bin" / "python3.19", "3.19.4")
    pretend(tmp_path / ".pyenv" / "versions" / "3.18.2" / "bin" / "python3", "3.18.2")
    assert search().find(">=3.11").identity.version == RUNNING
    assert search().find(">=3.18,<4").identity.version == "3.19.4"
    assert search().find("~=3.18.0").identity.version == "3.18.2"
    for nothing in (">=3.98", ">=x"):
        with pytest.raises(InterpreterMissing, match="is not here") as failed:
            search().find(nothing, "pyproject.toml")
        assert any(f"uv python install '{nothing}'" in hint for hint in failed.value.hints)


def test_what_is_nearest_to_a_version_that_is_not_here(search, tmp_path):
    other = pretend(tmp_path / "bin" / "python3.98", "3.98.1")
    assert search().nearest("3.98.7").base == str(other)
    assert search().nearest("3.97.1").base == BASE


def test_a_conda_channel_is_a_way_out_that_is_not_taken_unasked(search):
    with pytest.raises(InterpreterMissing) as failed:
        search().find("3.98")
    assert any("REPRO_PYTHON_CHANNEL" in hint for hint in failed.value.hints)


FROM_CHANNEL = """\
#!/bin/sh
echo '{"implementation": "cpython", "version": "3.98.1", "abi": "a", "platform": "p",' \
    '"executable": "'"$0"'", "base": "'"$0"'", "sites": []}'
"""


def test_a_python_comes_from_the_conda_channel_that_is_named(tmp_path, home):
    package = Package("python", "3.98.1").add("bin/python", FROM_CHANNEL, mode=0o755)
    channel = Channel(tmp_path / "channel").add(package)
    environ = {"HOME": str(tmp_path), "PATH": "", "REPRO_PYTHON_CHANNEL": channel.url}
    found = Interpreters(home, environ, home).find("3.98")
    assert found.identity.version == "3.98.1"
    assert found.base.startswith(os.path.join(home, "envs"))
    assert Interpreters(home, environ, home).fitting(found.identity) == found
    with pytest.raises(InterpreterMissing):
        Interpreters(home, environ).find("3.98")


def test_a_replaced_python_is_asked_again(search, tmp_path):
    path = pretend(tmp_path / "bin" / "python3.98", "3.98.1")
    assert search().find("3.98").identity.version == "3.98.1"
    assert search().find("3.98").identity.version == "3.98.1"
    assert starts(path) == 1
    pretend(path, "3.98.22")
    assert search().find("3.98").identity.version == "3.98.22"


def test_a_wrapper_is_asked_every_time(search, tmp_path):
    real = pretend(tmp_path / "real" / "python", "3.98.1")
    script(tmp_path / "bin" / "python3.98", f'exec {real} "$@"')
    search().find("3.98")
    search().find("3.98")
    assert starts(real) == 2


def test_a_shim_of_pyenv_is_asked_again_when_its_choice_may_differ(search, tmp_path):
    root = tmp_path / "pyenv"
    real = pretend(root / "versions" / "3.98.1" / "bin" / "python", "3.98.1")
    script(root / "shims" / "python3.98", f'exec {real} "$@"')
    project = tmp_path / "project" / "inside"
    project.mkdir(parents=True)

    def find(**more):
        with contextlib.chdir(project):
            return search(PATH=str(root / "shims"), **more).find("3.98")

    find()
    find()
    assert starts(real) == 1
    (tmp_path / "project" / ".python-version").write_text("3.98.1\n")
    find()
    find()
    assert starts(real) == 2
    find(PYENV_VERSION="3.98.1")
    assert starts(real) == 2  # the same choice by another way
    find(PYENV_VERSION="other")
    assert starts(real) == 3


def test_code_of_the_current_folder_is_not_run(search, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('run')\n")
    with contextlib.chdir(tmp_path):
        assert search(PYTHONPATH=str(tmp_path)).find("").identity.version == RUNNING

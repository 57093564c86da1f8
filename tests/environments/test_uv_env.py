"""A uv project as the environment: what its pyproject.toml asks for, at the versions of uv.lock."""

from __future__ import annotations

import os
import subprocess

import pytest
from environments.conftest import local_package, locked, output

from repro import mlproject, schemas
from repro.digest import of_bytes
from repro.environments import uv
from repro.errors import EnvironmentFailed
from repro.value import replace

PYPROJECT = """
[project]
name = "whole"
version = "0.1"
requires-python = ">=3.11"
dependencies = ["alpha", "gamma; sys_platform == 'win32'"]
"""
INDEX = """
[[tool.uv.index]]
url = "{url}"
default = true
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def decoded(folder, line="uv_env:"):
    """The environment of a project that says `line`, and what is wrong with it."""
    (folder / "MLproject").write_text(f"{line}\nentry_points: {{main: {{command: x}}}}\n")

    def read(path):
        place = folder / path
        return place.read_bytes() if place.is_file() else None

    found = mlproject.decode("MLproject", read, schemas.load("mlproject"))
    return found.project.environment, found.errors


def environment(folder, line="uv_env:"):
    found, problems = decoded(folder, line)
    assert problems == ()
    return replace(found, directories=tuple((path, "d" * 64) for path, _ in found.directories))


def lock_with_uv(folder, settings):
    command = [uv.find(os.environ), "lock", "--no-python-downloads", "--project", folder]
    done = subprocess.run(command, check=False, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["uv_env:", "uv_env: .", "uv_env: pyproject.toml", "uv_env: null"])
def test_the_projects_own_pyproject_is_the_default(folder, line):
    (folder / "pyproject.toml").write_text(PYPROJECT)
    found = environment(folder, line)
    assert (found.uv_project, found.source, found.python) == (".", "pyproject.toml", ">=3.11")
    assert found.requirements == ("alpha", "gamma; sys_platform == 'win32'")
    assert (found.directories, found.pinned) == ((), ())


@pytest.mark.parametrize("line", ["uv_env: sub/one", "uv_env: ./sub/one/pyproject.toml"])
def test_another_folder_can_be_named(folder, line):
    (folder / "sub" / "one").mkdir(parents=True)
    text = PYPROJECT + '[build-system]\nrequires = []\nbuild-backend = "b"\n'
    (folder / "sub" / "one" / "pyproject.toml").write_text(text)
    (folder / "sub" / "one" / ".python-version").write_text("3.12\n")
    found = environment(folder, line)
    assert (found.uv_project, found.python) == ("sub/one", "3.12")
    assert found.directories == (("sub/one", "d" * 64),)


def test_default_groups_are_part_of_it(folder):
    groups = (
        '[dependency-groups]\ndev = ["beta", {include-group = "more"}]\nmore = ["delta"]\n'
        'other = ["not-asked"]\n'
    )
    (folder / "pyproject.toml").write_text(PYPROJECT + groups)
    assert environment(folder).requirements[2:] == ("beta", "delta")
    (folder / "pyproject.toml").write_text(
        PYPROJECT + groups + '[tool.uv]\ndefault-groups = ["other"]\n'
    )
    assert environment(folder).requirements[2:] == ("not-asked",)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        ("uv_env: absent", PYPROJECT, "there is no file `absent/pyproject.toml`"),
        ("uv_env: ../other", PYPROJECT, "lies outside of the project"),
        ("uv_env:", "[project", "cannot be used"),
        ("uv_env:", "[project]\ndependencies = 1", "is no list of texts"),
        ("uv_env:", "project = 1", "is no table"),
        ("uv_env:", PYPROJECT + "[dependency-groups]\ndev = 1", "is no list"),
        ("uv_env:", PYPROJECT + INDEX.format(url="https://x.example"), "needs a `uv.lock`"),
        ("uv_env:", PYPROJECT + "[tool.uv.sources]\nalpha = {path = 'a'}", "needs a `uv.lock`"),
        ("uv_env:", "a = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_what_cannot_be_used_is_told(folder, line, text, message):
    (folder / "pyproject.toml").write_text(text)
    _found, (problem, *_rest) = decoded(folder, line)
    assert message in problem.message
    assert problem.where.file


def test_without_a_uv_lock_its_dependencies_are_resolved(folder, python, wheels, told):
    (folder / "pyproject.toml").write_text(PYPROJECT)
    wanted = replace(environment(folder), options=wheels.options)
    lock = locked(python(root=str(folder)), wanted, told.append)
    assert {a.name: a.version for a in lock.artifacts} == {"alpha": "2.0", "beta": "1.5"}


def test_a_uv_lock_is_used_as_it_is(folder, python, own_wheels, index, settings, told):
    (folder / "pyproject.toml").write_text(
        PYPROJECT.replace('"alpha"', '"alpha", "more[plus]"')
        + '[dependency-groups]\ndev = ["gamma"]\n'
        + INDEX.format(url=index.url)
    )
    own_wheels.wheel("more", "1.0", ["delta; extra == 'plus'"], extras=("plus",))
    own_wheels.wheel("delta", "1.0")
    lock_with_uv(folder, settings)
    before = (folder / "uv.lock").read_bytes()
    own_wheels.wheel("alpha", "2.1", ["beta>=1"])
    own_wheels.wheel("beta", "1.1")
    wanted = environment(folder)
    assert wanted.pinned == (("uv.lock", of_bytes(before)),)
    maker = python(root=str(folder))
    lock = locked(maker, wanted, told.append)
    found = {a.name: a for a in lock.artifacts}
    versions = {"alpha": "2.0", "beta": "1.0", "gamma": "1.0", "more": "1.0", "delta": "1.0"}
    assert {name: a.version for name, a in found.items()} == versions
    assert (found["alpha"].depends, found["more"].extras) == (("beta",), ("plus",))
    assert found["beta"].index == index.url
    assert (folder / "uv.lock").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["MLproject", "pyproject.toml", "uv.lock"]
    assert maker.unmet(wanted, lock) == ()
    windows = locked(maker, wanted, told.append, platforms=("win-64",))
    assert {a.name: a.version for a in windows.artifacts} == {
        n: a.version for n, a in found.items()
    }


def test_a_newer_uv_lock_is_told(folder, python, own_wheels, index, settings, told):
    (folder / "pyproject.toml").write_text(PYPROJECT + INDEX.format(url=index.url))
    lock_with_uv(folder, settings)
    maker = python(root=str(folder))
    lock = locked(maker, environment(folder), told.append)
    text = (folder / "uv.lock").read_text()
    newer = text.replace('name = "alpha"\nversion = "2.0"', 'name = "alpha"\nversion = "3.0"')
    (folder / "uv.lock").write_text(newer)
    (one,) = maker.unmet(environment(folder), lock)
    assert (one.code, one.entry, one.why) == ("D02", "alpha==3.0", "alpha 2.0 is locked")


def test_local_packages_of_a_uv_project_are_installed(folder, python, index, settings, told):
    local_package(folder / "libs" / "local_one")
    package = folder / "libs" / "local_one" / "pyproject.toml"
    package.write_text('[project]\nname = "local_one"\nversion = "0.3"\n' + package.read_text())
    (folder / "pyproject.toml").write_text(
        PYPROJECT.replace('"alpha"', '"alpha", "local-one"')
        + '[tool.uv.sources]\nlocal-one = { path = "libs/local_one" }\n'
        + INDEX.format(url=index.url)
    )
    lock_with_uv(folder, settings)
    wanted = environment(folder)
    assert wanted.directories == (("libs/local_one", "d" * 64),)
    maker = python(root=str(folder))
    lock = locked(maker, wanted, told.append)
    assert maker.unmet(wanted, lock) == ()
    realized = maker.realize(lock, told.append)
    assert output(realized, "import local_one, alpha; print(alpha.VERSION)") == "2.0"
    realized.release()


def test_a_uv_lock_needs_its_folder_and_uv(folder, python, index, settings, told):
    (folder / "pyproject.toml").write_text(PYPROJECT + INDEX.format(url=index.url))
    lock_with_uv(folder, settings)
    wanted = environment(folder)
    with pytest.raises(EnvironmentFailed, match="in no folder"):
        locked(python(), wanted, told.append)
    with pytest.raises(EnvironmentFailed, match="uv alone"):
        locked(python("pip", root=str(folder)), wanted, told.append)

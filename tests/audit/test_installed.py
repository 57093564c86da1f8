"""Audits of environments that were really made: by uv from wheels, and from a conda channel."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from audit.asking import asked, found, skipped
from environments.conftest import Wheelhouse
from support.channel import Package, Server, here, populated, pure

from repro import locking
from repro.audit import verdict
from repro.environments import uv
from repro.environments.cache import Place
from repro.lockfiles import condalock
from repro.machine import Machine
from repro.plan import Request

STEP = "entry_points:\n  main: {command: 'true'}\n  dirty: {command: 'cp main.py \"$D\"'}\n"
FILES = {"main.py": "print()\n"}


@pytest.fixture
def opened(environ):
    machine = Machine(environ)
    yield machine
    machine.close()


@pytest.fixture
def lock_it(repro):
    """Lock the project in a folder."""

    def lock(folder, *options, **env):
        answer = repro("lock", folder, *options, env=env)
        assert answer.code == 0, answer.err

    return lock


def made(machine, folder):
    """Make the environment of a project; give its prefix."""
    tree = machine.tree(Request(uri=str(folder), caller="/"), lambda _text: None)
    loaded, _paths = machine.load(tree, lambda _event: None)
    (wanted,) = locking.wanted_of(loaded)
    lock = machine.lock(wanted, tree, lambda _text: None)
    machine.realize(lock, tree, lambda _text: None).release()
    return pathlib.Path(Place(machine.home.root, lock.digest).prefix)


def subjects(facts, *codes):
    return {(code, os.path.basename(subject)) for code, subject in found(facts, *codes)}


# -- a virtual environment


@pytest.fixture
def house(tmp_path):
    folder = Wheelhouse(tmp_path / "wheels")
    folder.wheel("alpha", "1.0", ["beta"])
    folder.wheel("alpha", "2.0", ["beta"])
    folder.wheel("beta", "1.0")
    return folder


@pytest.fixture
def virtual(project, house, lock_it):
    """A locked project with packages of the folder of wheels."""

    def make(demand="alpha==1.0"):
        lines = "".join(f"  - {line}\n" for line in (*house.options, demand))
        folder = project(
            {
                **FILES,
                "MLproject": f"python_env: python_env.yaml\n{STEP}",
                "python_env.yaml": f"python: '{sys.version_info[0]}.{sys.version_info[1]}'\ndependencies:\n{lines}",
            }
        )
        lock_it(folder)
        return folder

    return make


def test_nothing_is_found_in_an_environment_that_was_just_made(opened, virtual):
    folder = virtual()
    made(opened, folder)
    facts = asked(opened, folder, installed=True)
    assert len(facts.environments[0].prefixes) == 1
    assert found(facts, "I", "T", "X", "D", "L") == set()
    assert {one.name for one in facts.licences} == {"alpha", "beta"}
    assert not {"I01", "T01", "T05", "T06", "X01", "C01"} & skipped(facts)


def module(prefix, name):
    (path,) = prefix.glob(f"lib/python3*/site-packages/{name}.py")
    return path


def test_what_was_changed_is_found_in_the_environment_and_in_the_store(opened, virtual):
    folder = virtual()
    prefix = made(opened, folder)
    path = module(prefix, "alpha")
    path.chmod(0o644)
    path.write_text("EVIL = 1\n")  # a hard link: the store has it too
    facts = asked(opened, folder, installed=True)
    assert subjects(facts, "T") == {("T01", "alpha.py"), ("T05", "alpha.py")}


def test_the_cache_of_other_environments_is_no_change(opened, virtual, tmp_path):
    folder = virtual()
    prefix = made(opened, folder)
    os.link(module(prefix, "alpha"), tmp_path / "another")
    facts = asked(opened, folder, installed=True)
    assert subjects(facts, "T") == set()


def test_what_was_installed_by_hand_is_found(opened, virtual, house, environ):
    folder = virtual()
    prefix = made(opened, folder)
    house.wheel("gamma", "1.0")
    python = ["--python", str(prefix / "bin/python")]
    command = [uv.find(environ), "pip", "install", "-q", *python, "--offline", "--no-index"]
    subprocess.run([*command, "--find-links", house.folder, "gamma"], check=True, env=environ)
    facts = asked(opened, folder, installed=True)
    assert ("I02", "gamma") in subjects(facts, "I")


def test_a_step_that_writes_into_its_environment_is_named(opened, virtual, run):
    folder = virtual()
    prefix = made(opened, folder)
    mlproject = folder / "MLproject"
    mlproject.write_text(mlproject.read_text().replace("$D", f"{prefix}/lib/left.py"))
    run(folder, "main", env_manager="")
    run(folder, "dirty", env_manager="")
    facts = asked(opened, folder, installed=True)
    assert {s.step: s.altered for s in facts.history} == {"main": (), "dirty": ("lib/left.py",)}
    assert found(facts, "E05") == {("E05", "dirty")}
    assert "E05" in skipped(asked(opened, folder))


def test_a_lock_that_another_tool_wrote_is_bound_to_this_machine_first(opened, virtual):
    folder = virtual()
    path = folder / f"lockfiles/pylock.{here()}.toml"
    path.write_text(path.read_text().partition("\n[tool.repro]")[0].replace('"repro"', '"x"'))
    prefix = made(opened, folder)
    facts = asked(opened, folder, installed=True)
    assert facts.environments[0].locked[0][1].interpreter.implementation == ""
    assert [one.path for one in facts.environments[0].prefixes] == [str(prefix)]
    assert found(facts, "I", "T", "D", "L") == set()


def commit(folder, environ):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=folder, check=True, env=environ)


@pytest.mark.parametrize("committed", [False, True])
def test_a_licence_that_is_another_than_in_the_lock_before(
    opened, virtual, house, lock_it, environ, committed
):
    licence = "Metadata-Version: 2.4\nName: alpha\nVersion: {}\nLicense-Expression: {}\n"
    for version, text in (("1.0", "MIT"), ("2.0", "BUSL-1.1")):
        more = {f"alpha-{version}.dist-info/METADATA": licence.format(version, text)}
        house.wheel("alpha", version, more=more)
    folder = virtual("alpha==1.0")
    made(opened, folder)
    commit(folder, environ)
    requests = folder / "python_env.yaml"
    requests.write_text(requests.read_text().replace("alpha==1.0", "alpha==2.0"))
    lock_it(folder)
    if committed:
        commit(folder, environ)
    made(opened, folder)
    facts = asked(opened, folder, installed=True)
    assert {one.name: (one.before, one.text) for one in facts.licences} == {
        "alpha": ("MIT", "BUSL-1.1")
    }
    assert found(facts, "C03") == {("C03", "alpha")}


# -- a conda prefix


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """A channel with a package that pip could install too."""
    return populated(tmp_path_factory.mktemp("channel"), pure("extra", "1.0"))


@pytest.fixture
def served(channel):
    server = Server(channel)
    yield server
    server.close()


@pytest.fixture
def conda(project, served, lock_it):
    """A locked project with packages of the channel."""

    def make(*packages, more="", lock=True, url=""):
        lines = "".join(f"  - {json.dumps(package)}\n" for package in packages)
        text = f"channels: ['{url or served.url}']\ndependencies:\n{lines}{more}"
        mlproject = f"conda_env: environment.yml\n{STEP}"
        folder = project({**FILES, "MLproject": mlproject, "environment.yml": text})
        if lock:
            lock_it(folder)
        return folder

    return make


REQUEST = ("python", "tinyml", "cfgtool=1.2.3=h0_0")


def test_a_conda_project_without_a_lock(opened, conda):
    facts = asked(opened, conda("python=3", "tinyml", "tinymath==1.0.0", lock=False))
    assert found(facts, "P01", "L", "P04") >= {("L01", "conda"), ("P01", "tinyml")}
    assert ("P01", "tinymath") not in found(facts, "P01")


def test_a_locked_conda_project_has_nothing_wrong(opened, conda):
    facts = asked(opened, conda("python", "tinyml"))
    assert found(facts, "L", "D", "H", "U", "P", "M") == set()
    assert len(facts.environments[0].locked) == 1


def test_builds_in_an_environment_file_are_of_one_platform(opened, conda):
    assert found(asked(opened, conda(*REQUEST)), "M03") == {("M03", "environment.yml")}


def test_what_nothing_asks_for_any_more_is_found(opened, conda):
    folder = conda("python", "tinyml", "extra")
    request = folder / "environment.yml"
    request.write_text(request.read_text().replace('  - "extra"\n', ""))
    assert found(asked(opened, folder), "D") == {("D03", "extra")}


def test_another_channel_is_said_once(opened, conda, served):
    folder = conda("python", "tinyml")
    request = folder / "environment.yml"
    request.write_text(request.read_text().replace(served.url, "conda-forge"))
    assert {code for code, _subject in found(asked(opened, folder), "D", "U03")} == {"D05"}


def test_another_python_is_said_once_for_all_platforms(opened, project, channel, lock_it):
    text = f"channels: ['{channel.url}']\ndependencies: [python, tinyml]\n"
    mlproject = f"conda_env: environment.yml\n{STEP}"
    folder = project({**FILES, "MLproject": mlproject, "environment.yml": text})
    lock_it(folder, "--platform", "linux-64", "--platform", "osx-arm64")
    (folder / "environment.yml").write_text(text.replace("python,", "python=3.7,"))
    report = verdict.judge(asked(opened, folder))
    assert [f.subject for f in report.findings if f.code == "D07"] == ["python=3.7"]
    gaps = [gap for gap in asked(opened, folder).environments[0].gaps if gap.unmet.code == "D07"]
    assert len({gap.unmet.why for gap in gaps}) == 2


def test_a_secret_among_the_variables_of_a_conda_file(opened, conda):
    folder = conda("python", more="variables:\n  API_TOKEN: ghp_0123456789\n", lock=False)
    assert found(asked(opened, folder), "S03") == {("S03", "API_TOKEN")}


def test_a_conda_prefix_that_was_just_made(opened, conda):
    folder = conda("python", "tinyml", "cfgtool")
    made(opened, folder)
    facts = asked(opened, folder, installed=True)
    assert len(facts.environments[0].prefixes) == 1
    assert found(facts, "I", "T", "X") == set()
    assert {one.name: one.text for one in facts.licences}["cfgtool"] == "BSD-3-Clause"


def replaced(path):
    """Put another file in the place of one, which may have hard links elsewhere."""
    path.unlink()
    path.write_text("EVIL = 1\n")


def test_changes_of_a_conda_prefix_and_of_its_packages(opened, conda):
    folder = conda("python", "tinyml", "cfgtool")
    prefix = made(opened, folder)
    (module_,) = prefix.glob("lib/python3*/site-packages/tinyml/__init__.py")
    replaced(module_)
    (prefix / "bin/cfgtool").unlink()
    store = pathlib.Path(opened.home.root)
    (kept,) = store.glob("pkgs/tinymath-*/site-packages/tinymath/__init__.py")
    replaced(kept)
    facts = asked(opened, folder, installed=True)
    names = subjects(facts, "T")
    assert {("T01", "__init__.py"), ("T02", "cfgtool"), ("T05", "__init__.py")} <= names
    changed = [s for c, s in found(facts, "T05")]
    assert changed == [str(kept.relative_to(store))]


def test_a_package_that_its_channel_lists_no_more(opened, conda, environ, tmp_path):
    passing = Package("passing", "1.0", "0", subdir=here())
    channel = populated(tmp_path / "channel", passing)
    folder = conda("python", "passing", url=channel.url)
    facts = asked(opened, folder, online=True)
    assert found(facts, "P02") == set()
    assert {one.name: one.published for one in facts.releases}["passing"] == "2020-01-01T00:00:00Z"
    channel.remove(passing.stem)
    fresh = Machine({**environ, "REPRO_HOME": str(tmp_path / "fresh")})  # knows no old list
    try:
        assert found(asked(fresh, folder, online=True), "P02") == {("P02", "passing")}
    finally:
        fresh.close()


def test_a_channel_that_does_not_answer_is_told_of(conda, served, environ):
    events = []
    folder = conda("python", "tinyml")
    served.answer = lambda handler: handler.send_error(500) or True
    environ["REPRO_HOME"] += "-fresh"
    fresh = Machine(environ, events.append)
    try:
        facts = asked(fresh, folder, online=True)
    finally:
        fresh.close()
    assert facts.releases is None
    assert "no answer about the conda channels" in events[-1].text
    assert "P02" in skipped(facts)


def test_the_lock_of_these_tests_is_one_of_conda_lock(conda):
    path = "lockfiles/conda-lock.yml"
    file = condalock.decode(path, (conda("python", "tinyml") / path).read_bytes())
    assert [lock.platform for lock in file.locks] == [here()]

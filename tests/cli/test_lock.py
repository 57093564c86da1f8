"""`repro lock` and what runs do with a lock: kept, brought up to date, insisted on."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest
from conftest import REPOSITORY
from environments.conftest import Wheelhouse, fill

HERE = "pylock.linux-64.toml"


@pytest.fixture
def house(tmp_path):
    return fill(Wheelhouse(tmp_path / "house"))


@pytest.fixture
def locked(project, house):
    """A project with packages of a folder, not locked yet."""

    def make(*lines, name="project", command="python -c 'import beta; print(beta.VERSION)'"):
        wanted = json.dumps([*house.options, *lines])
        return project(
            {
                "MLproject": f"python_env: env.yaml\nentry_points: {{main: {{command: {json.dumps(command)}}}}}\n",
                "env.yaml": f"dependencies: {wanted}\n",
            },
            name=name,
        )

    return make


def versions(folder, file=HERE):
    packages = tomllib.loads((folder / "lockfiles" / file).read_text())["packages"]
    return {p["name"]: p["version"] for p in packages}


def test_a_lock_is_written_checked_and_used(locked, repro):
    folder = locked("alpha")
    assert repro("lock", folder, "--check").code == 3
    written = repro("lock", folder)
    assert written.code == 0
    assert f"wrote lockfiles/{HERE}" in written.out
    assert versions(folder) == {"alpha": "2.0", "beta": "1.5"}
    assert repro("lock", folder, "--check").code == 0
    again = repro("lock", folder)
    assert f"unchanged lockfiles/{HERE}" in again.out
    ran = repro("run", folder, "--locked")
    assert ran.code == 0
    assert "1.5" in ran.err
    assert "hit" in repro("run", folder, "--locked").err


def test_the_lock_is_the_same_bytes_in_another_home(locked, repro, tmp_path, environ):
    one, two = locked("alpha", name="one"), locked("alpha", name="two")
    repro("lock", one, "--platform", "linux-64", "--platform", "osx-arm64")
    other = {"REPRO_HOME": str(tmp_path / "other"), "HOME": str(tmp_path)}
    repro("lock", two, "--platform", "linux-64", "--platform", "osx-arm64", env=other)
    for name in (HERE, "pylock.osx-arm64.toml"):
        assert (one / "lockfiles" / name).read_bytes() == (two / "lockfiles" / name).read_bytes()


def test_a_new_version_moves_nothing_until_it_is_asked_for(locked, repro, house):
    folder = locked("alpha")
    repro("lock", folder)
    house.wheel("alpha", "3.0", ["beta>=1"])
    house.wheel("beta", "2.0")
    repro("lock", folder)
    assert versions(folder) == {"alpha": "2.0", "beta": "1.5"}
    told = repro("lock", folder, "--diff", "--upgrade", "beta")
    assert told.code == 3
    assert "~ beta 1.5 → 2.0" in told.out
    assert versions(folder)["beta"] == "1.5"
    repro("lock", folder, "--upgrade", "beta")
    assert versions(folder) == {"alpha": "2.0", "beta": "2.0"}
    repro("lock", folder, "--upgrade", "*")
    assert versions(folder) == {"alpha": "3.0", "beta": "2.0"}


def test_comments_and_order_are_no_drift_and_a_requirement_is(locked, repro, house):
    folder = locked("alpha", "beta")
    repro("lock", folder)
    env = folder / "env.yaml"
    env.write_text("# why\n" + env.read_text().replace('"alpha", "beta"', '"Beta", "alpha>=1"'))
    assert repro("lock", folder, "--check").code == 0
    env.write_text(env.read_text().replace("alpha>=1", "alpha<2"))
    checked = repro("lock", folder, "--check")
    assert checked.code == 3
    assert "alpha<2" in checked.out
    assert "2.0" in checked.out  # what is locked
    refused = repro("run", folder, "--locked")
    assert (refused.code, refused.out) == (3, "")
    assert "`repro lock`" in refused.err
    frozen = repro("run", folder, "--frozen")
    assert frozen.code == 0
    assert versions(folder)["alpha"] == "2.0"


def test_a_run_brings_the_lock_up_to_date_and_says_so(locked, repro):
    folder = locked("alpha")
    repro("lock", folder, "--platform", "linux-64", "--platform", "osx-arm64")
    env = folder / "env.yaml"
    env.write_text(env.read_text().replace('"alpha"', '"alpha<2", "gamma"'))
    ran = repro("run", folder)
    assert ran.code == 0
    assert "locking again" in ran.err
    assert versions(folder) == {"alpha": "1.0", "beta": "1.0", "gamma": "1.0"}
    assert repro("lock", folder, "--check").code == 0  # for the other platform too
    assert "hit" in repro("run", folder).err


def test_in_ci_a_lock_that_is_out_of_date_is_an_error_and_none_is_not(locked, repro):
    folder = locked("alpha")
    assert repro("run", folder, env={"CI": "true"}).code == 0
    assert not (folder / "lockfiles").exists()
    repro("lock", folder)
    env = folder / "env.yaml"
    env.write_text(env.read_text().replace('"alpha"', '"alpha<2"'))
    assert repro("run", folder, env={"CI": "true"}).code == 3
    assert repro("run", folder, env={"CI": "false"}).code == 0


def test_writing_a_lock_changes_no_key(locked, repro):
    folder = locked("alpha")
    first = repro("run", folder)
    assert "miss" in first.err
    repro("lock", folder)
    assert "hit" in repro("run", folder).err


def test_a_lock_that_another_version_wrote_or_that_is_broken_is_refused(locked, repro):
    folder = locked("alpha")
    repro("lock", folder)
    place = folder / "lockfiles" / HERE
    text = place.read_text()
    place.write_text(text.replace('lock-version = "1.0"', 'lock-version = "9.0"'))
    for command in (("run", folder), ("run", folder, "--locked"), ("lock", folder, "--check")):
        answer = repro(*command)
        assert answer.code in (2, 3)
        assert HERE in answer.text
        assert "9.0" in answer.text
        assert "Traceback" not in answer.text
    place.write_text(text[: len(text) // 2])
    refused = repro("run", folder)
    assert refused.code == 2
    assert "`repro lock`" in refused.err
    assert repro("lock", folder).code == 0
    assert place.read_text() == text


def test_a_link_is_not_written_through(locked, repro, tmp_path):
    folder = locked("alpha")
    (folder / "lockfiles").mkdir()
    target = tmp_path / "precious"
    target.write_text("mine")
    (folder / "lockfiles" / HERE).symlink_to(target)
    answer = repro("lock", folder)
    assert answer.code == 2
    assert target.read_text() == "mine"


def test_an_environment_of_an_entry_point_has_a_lock_of_its_own(project, house, repro):
    wanted = json.dumps([*house.options, "beta"])
    folder = project(
        {
            "MLproject": "entry_points:\n"
            "  main: {command: 'true'}\n"
            "  train: {python_env: train.yaml, command: 'python -c \"import beta\"'}\n",
            "train.yaml": f"dependencies: {wanted}\n",
        }
    )
    repro("lock", folder)
    assert versions(folder, "pylock.train-linux-64.toml") == {"beta": "1.5"}
    assert versions(folder) == {}
    assert repro("run", folder, "-e", "train", "--locked").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--platform", "amiga"), "amiga"),
        (("--exclude-newer", "yesterday"), "yesterday"),
        (("--engine", "pip"), "pip"),
    ],
)
def test_options_that_mean_nothing_are_refused(locked, repro, options, said):
    answer = repro("lock", locked("alpha"), *options)
    assert answer.code == 2
    assert said in answer.err


def test_the_flags_of_run_contradict_each_other(locked, repro):
    answer = repro("run", locked("alpha"), "--locked", "--relock")
    assert answer.code == 2
    assert "contradict" in answer.err


def test_documents_follow_their_schema(locked, repro, house):
    schema = json.loads((REPOSITORY / "schemas" / "lock.schema.json").read_text())
    folder = locked("alpha")
    checked = repro("lock", folder, "--check", "--json")
    written = repro("lock", folder, "--json")
    house.wheel("beta", "2.0")
    told = repro("lock", folder, "--diff", "--upgrade", "*", "--json")
    documents = [json.loads(answer.out) for answer in (checked, written, told)]
    for document in documents:
        jsonschema.validate(document, schema)
    assert [d["stale"] for d in documents] == [True, True, True]
    assert documents[0]["locks"][0]["reason"] == "there is no lock"
    assert documents[1]["written"] == [f"lockfiles/{HERE}"]
    assert documents[2]["written"] == []
    assert documents[2]["locks"][0]["changes"] == [
        {"name": "beta", "before": "1.5", "after": "2.0"}
    ]


def test_credentials_do_not_enter_a_lock(project, repro):
    index = "--index-url=http://user:s3cr3t@127.0.0.1:9/simple"
    folder = project(
        {
            "MLproject": "python_env: env.yaml\nentry_points: {main: {command: x}}\n",
            "env.yaml": f"dependencies: ['{index}', nothing]\n",
        }
    )
    answer = repro("lock", folder)
    assert answer.code in (6, 7)
    assert "s3cr3t" not in answer.text
    assert not (folder / "lockfiles").exists()

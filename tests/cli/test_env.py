"""`repro env`: what was made, what it holds, whether it still does, and how it goes away."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from conftest import REPOSITORY, interpreter_variables
from environments.realized import SITE, Maker, house

from repro import schemas
from repro.cli import env, parser
from repro.environments import cache
from repro.value import replace

EMPTY = {
    "MLproject": "python_env: env.yaml\nentry_points: {main: {command: 'python -V > out'}}\n",
    "env.yaml": "dependencies: []\n",
}
DAY = 86_400_000_000_000


@pytest.fixture
def make(environ, tmp_path):
    variables = {**environ, "UV_CACHE_DIR": str(tmp_path / "uv")}
    return Maker(environ["REPRO_HOME"], variables)


@pytest.fixture
def lock(make, tmp_path):
    wheels = house(tmp_path / "wheels")
    return make.lock(wheels.wheel("alpha", "1.0"), wheels.wheel("beta", "1.5"))


@pytest.fixture
def prefix(make, lock):
    return pathlib.Path(make(lock))


def document(answer, name):
    found = json.loads(answer.out)
    jsonschema.validate(found, schemas.load(name))
    assert found["schema"] == f"repro.{name}/1"
    return found


def tamper(prefix):
    place = prefix / SITE / "alpha.py"
    place.unlink()
    place.write_text("EVIL = 1\n")


def listed(repro):
    return document(repro("env", "list", "--json"), "environments")["environments"]


def test_what_is_there_is_listed_and_shown(prefix, lock, repro):
    answer = repro("env")
    header, row = (line.split("\t") for line in answer.out.splitlines())
    assert header[0] == "ENVIRONMENT"
    assert row[:4] == [lock.digest, "python", str(lock.interpreter), "2"]
    assert row[-1] == "ready"
    assert "1 environment" in answer.err
    told = document(repro("env", "--json"), "environments")
    assert told == document(repro("env", "--json", "list"), "environments")
    assert told["total_bytes"] == told["environments"][0]["bytes"] > 1000

    shown = repro("env", "show", lock.digest[:8]).out
    recorded = cache.marker(str(prefix))["tree"]
    for text in (lock.digest, str(prefix), recorded, "alpha\t1.0\twheel", lock.artifacts[0].url):
        assert text in shown
    told = document(repro("env", "show", lock.digest, "--json"), "environment")
    assert (told["state"], told["tree"]) == ("ready", recorded)
    assert [p["name"] for p in told["packages"]] == ["alpha", "beta"]
    assert repro("env", "path", lock.digest[:4]).out == f"{prefix}\n"


def test_an_environment_is_named_by_a_run_or_a_project(project, repro):
    folder = project(EMPTY)
    before = repro("env", "path", folder)
    assert before.code == 2
    assert "is not made" in before.err
    assert (
        document(repro("env", "show", folder, "--json"), "environment")["state"] == "not-made-yet"
    )
    run = repro("run", folder).out.strip()
    place = repro("env", "path", folder).out
    assert os.path.isdir(place.strip())
    assert repro("env", "path", cwd=folder).out == place
    assert repro("env", "path", run[:8]).out == place
    assert repro("env", "path", folder, "--env-manager", "local").code == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("show", "ffffffff"), "no environment begins with"),
        (("path", "/no/such/project"), "no project"),
        (("verify", "ffffffff"), "no environment begins with"),
        (("log",), "no environment failed"),
        (("prune", "--older-than", "x"), "no number of days"),
        (("prune", "--max-size", "much"), "no size"),
        (("prune", "--older"), "means nothing"),
        (("remove",), "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused(repro, words, text):
    answer = repro("env", *words)
    assert answer.code == 2
    assert text in answer.err


def test_a_beginning_that_several_have_is_refused(make, lock, repro):
    locks = [replace(lock, platform=str(n)) for n in range(60)]
    first, second = next(
        (a, b) for a in locks for b in locks if a is not b and a.digest[0] == b.digest[0]
    )
    for one in (first, second):
        make(one, lambda prefix, _lock: os.mkdir(prefix))
    # four digits are the least that may be given, and as many are hardly ever the same
    folders = pathlib.Path(make.home, "envs")
    (folders / (first.digest[:4] + "f" * 28)).mkdir()
    answer = repro("env", "show", first.digest[:4])
    assert (answer.code, "several environments" in answer.err) == (2, True)


# -- verify


def test_an_environment_as_it_was_built_is_good(prefix, lock, repro):
    answer = repro("env", "verify", lock.digest)
    assert answer.code == 0
    assert "as it was built" in answer.out
    told = document(repro("env", "verify", "--all", "--json"), "environment-check")
    assert [(e["good"], e["action"]) for e in told["environments"]] == [(True, "none")]


def test_a_changed_file_is_named_and_the_next_use_heals(prefix, lock, make, repro):
    tamper(prefix)
    answer = repro("env", "verify", lock.digest[:8])
    assert answer.code == 5
    assert f"{SITE}/alpha.py (of alpha) is changed" in answer.out
    assert [e["complete"] for e in listed(repro)] == [False]
    assert repro("env", "verify", lock.digest[:8]).code == 2
    make(lock)
    assert make.built == 2
    assert repro("env", "verify", lock.digest[:8]).code == 0


def test_a_run_makes_a_tampered_environment_anew(project, repro):
    folder = project(EMPTY)
    repro("run", folder)
    place = repro("env", "path", folder).out.strip()
    with open(os.path.join(place, "pyvenv.cfg"), "a", encoding="utf-8") as file:
        file.write("include-system-site-packages = true\n")
    told = document(repro("env", "verify", folder, "--json"), "environment-check")
    (found,) = told["environments"]
    assert [(d["kind"], d["path"]) for d in found["differences"]] == [("changed", "pyvenv.cfg")]
    assert found["action"] == "distrusted"
    assert "making an environment" in repro("run", folder, "--refresh").err
    assert repro("env", "verify", folder).code == 0


def test_repair_makes_anew_what_it_can(prefix, lock, make, repro):
    bound = replace(lock.artifacts[0], url="wheels/alpha.whl")
    local = replace(lock, platform="of a project", artifacts=(bound,))
    other = pathlib.Path(make(local, lambda prefix, _lock: make.install(prefix, lock)))
    tamper(prefix)
    tamper(other)
    told = document(repro("env", "verify", "--repair", "--all", "--json"), "environment-check")
    actions = {e["digest"]: e["action"] for e in told["environments"]}
    assert actions == {lock.digest: "rebuilt", local.digest: "removed"}
    assert not other.exists()
    assert repro("env", "verify", lock.digest).code == 0
    assert "VERSION = '1.0'" in (prefix / SITE / "alpha.py").read_text()


def test_repair_leaves_one_in_use_to_its_users(prefix, lock, make, repro):
    tamper(prefix)
    with cache.Place(make.home, lock.digest).lock(shared=True):
        answer = repro("env", "verify", "--repair", lock.digest[:8])
        assert answer.code == 5
        assert "the next use makes it anew" in answer.out
        assert (prefix / SITE / "alpha.py").exists()
    assert [e["complete"] for e in listed(repro)] == [False]


def test_notices_are_no_difference(make, lock, repro):
    def build(prefix, lock):
        make.install(prefix, lock)
        (pathlib.Path(prefix) / SITE / "start.pth").write_text("import this\n")

    make(lock, build)
    answer = repro("env", "verify", lock.digest)
    assert answer.code == 0
    assert "note:" in answer.out
    assert "start.pth runs code whenever Python starts" in answer.out


# -- shell


def test_a_command_runs_inside_with_a_clean_path(prefix, lock, repro):
    script = "import json, os, sys; print(json.dumps([sys.prefix, dict(os.environ)]))"
    dirty = {"PYTHONPATH": str(REPOSITORY), "PYTHONSTARTUP": "x", "CONDA_PREFIX": "/x", "OWN": "1"}
    answer = repro("env", "shell", lock.digest, "--", "python", "-c", script, env=dirty)
    assert answer.code == 0, answer.err
    inside, variables = json.loads(answer.out)
    assert inside == variables["VIRTUAL_ENV"] == str(prefix)
    assert variables["PATH"].split(":")[0] == f"{prefix}/bin"
    assert os.path.dirname(sys.executable) not in variables["PATH"]
    assert not {"PYTHONPATH", "PYTHONSTARTUP", "CONDA_PREFIX"} & variables.keys()
    assert variables["OWN"] == "1"
    assert repro("env", "shell", lock.digest, "--", "alpha").out == "1.0\n"


def test_its_exit_status_is_that_of_the_command(prefix, lock, repro):
    assert repro("env", "shell", lock.digest, "--", "sh", "-c", "exit 9").code == 9
    answer = repro("env", "shell", lock.digest, "--", "no-such-command")
    assert answer.code == 2
    assert "cannot be started" in answer.err


def test_without_a_command_it_is_the_shell_of_the_user_without_its_files(prefix, lock, repro):
    shell = prefix.parent.parent / "bash"
    shell.write_text('#!/bin/sh\necho "$0" "$@"\n')
    shell.chmod(0o755)
    answer = repro("env", "shell", lock.digest, env={"SHELL": str(shell)})
    assert answer.out == f"{shell} --norc --noprofile\n"


def test_an_environment_is_in_use_for_as_long_as_the_shell_lives(prefix, lock, environ, repro):
    command = [sys.executable, "-m", "repro", "env", "shell", lock.digest, "--"]
    process = subprocess.Popen(
        [*command, "sh", "-c", "echo in; exec sleep 60"],
        env={**environ, **interpreter_variables()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "in\n"
        assert [e["in_use"] for e in listed(repro)] == [True]
        assert "removed 0 environments" in repro("env", "prune", "--all").out
        assert prefix.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert "removed 1 environment " in repro("env", "prune", "--all").out
    assert not prefix.exists()


def test_a_shell_makes_what_is_not_there(project, repro):
    folder = project(EMPTY)
    answer = repro("env", "shell", "--", "x", cwd=folder)
    assert answer.code == 2, "the first word is the environment"
    answer = repro("env", "shell", ".", "--", "python", "-c", "print(1)", cwd=folder)
    assert answer.out == "1\n"
    assert "making an environment" in answer.err


# -- prune and log


def test_the_longest_unused_go_until_the_rest_fits(make, lock, repro):
    prefixes = []
    for number in range(3):

        def build(prefix, _lock):
            os.mkdir(prefix)
            pathlib.Path(prefix, "file").write_bytes(b"x" * 1000)

        prefix = make(replace(lock, platform=str(number)), build)
        then = time.time_ns() - (10 - number) * DAY
        os.utime(os.path.join(prefix, ".repro-env.json"), ns=(then, then))
        prefixes.append(prefix)
    told = document(repro("env", "prune", "--max-size", "2k", "-n", "--json"), "environments")
    assert told["dry_run"]
    assert [e["prefix"] for e in told["environments"]] == prefixes[:1]
    assert repro("env", "prune", "--max-size", "1100").code == 0
    assert [os.path.exists(p) for p in prefixes] == [False, False, True]
    assert repro("env", "prune", "--older-than", "5").code == 0
    assert not os.path.exists(prefixes[2])


def test_cached_packages_go_with_the_last_environment_that_had_them(make, lock, repro):
    package = pathlib.Path(make.home, "pkgs", "small-1-0")
    package.mkdir(parents=True)
    (package / "file").write_bytes(b"x" * 1000)

    def build(prefix, _lock):
        os.mkdir(prefix)
        os.link(package / "file", os.path.join(prefix, "file"))

    make(lock, build)
    (entry,) = listed(repro)
    assert entry["bytes"] - entry["own_bytes"] == 1000
    told = document(repro("env", "prune", "--all", "--json"), "environments")
    assert told["cached_packages"] == {"count": 1, "bytes": 1000}
    assert not package.exists()


def test_the_log_of_the_last_failure(make, repro):
    logs = pathlib.Path(make.home, "logs")
    logs.mkdir(parents=True)
    for name, when in (("env-a.log", 2), ("env-b.log", 1), ("run.log", 3)):
        (logs / name).write_text(f"said in {name}\n")
        os.utime(logs / name, (when, when))
    assert repro("env", "log").out == "said in env-a.log\n"
    assert document(repro("env", "log", "--json"), "environment-log")["text"].endswith("a.log\n")


# -- the reference


def test_every_action_has_help_and_every_option_is_in_the_reference(repro):
    page = (REPOSITORY / "docs/reference/cli.md").read_text(encoding="utf-8")
    part = page.partition("\n## `repro env`\n")[2].partition("\n## ")[0]
    described = set(re.findall(r"`([^`\n]+)`", part))
    for name, (_text, options) in env.ACTIONS.items():
        assert name in described
        assert {n for option in options for n in option.names} <= described, name
    assert "--older-than" in repro("env", "prune", "--help").out
    words = ["env", "shell", "--quiet", ".", "--", "python", "--json"]
    found = vars(parser.build().parse_args(words))
    assert (found["environment"], found["words"]) == (".", ["python", "--json"])
    assert (found["quiet"], found["json"]) == (1, False)

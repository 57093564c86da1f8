"""`repro audit` on the command line, and the hooks for pre-commit."""

from __future__ import annotations

import json
import re
import shlex
import sys
import xml.etree.ElementTree as ET

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY

from repro import cli, schemas
from repro.audit.rules.table import RULES
from repro.cli import audit, parser

START = """\
import sys
from repro import cli
if "audit" not in cli.COMMANDS:
    cli.COMMANDS = (*cli.COMMANDS, "audit")
sys.exit(cli.main(sys.argv[1:]))
"""
PROJECT = {
    "MLproject": "name: wine\npython_env: python_env.yaml\nentry_points:\n"
    "  main: {command: 'pip install x && python main.py'}\n",
    "python_env.yaml": "python: '3.11'\ndependencies: [numpy]\n",
}


@pytest.fixture
def call(repro):
    return lambda *words, **more: repro(
        "audit", *words, command=[sys.executable, "-c", START], **more
    )


def test_findings_end_with_four(call, project):
    folder = project(PROJECT)
    answer = call(folder)
    assert answer.code == 4
    assert "error[L01] python_env.yaml: " in answer.out
    assert "error[E01] MLproject:4: `main` changes its environment" in answer.out
    assert answer.out.splitlines()[-1].startswith("2 errors, ")


@pytest.mark.parametrize(
    ("level", "code"), [("error", 4), ("warning", 4), ("info", 4), ("never", 0)]
)
def test_the_threshold(call, project, level, code):
    assert call(project(PROJECT), "--fail-on", level).code == code


def test_warnings_alone_do_not_fail_unless_asked_to(call, project):
    folder = project({"MLproject": "docker_env: {image: 'x@sha256:" + "a" * 64 + "'}\nentry_points: {main: {command: 'echo $X'}}\n"})  # fmt: skip
    settings = folder / ".repro-audit.toml"
    settings.write_text('[[accept]]\ncode = "L01"\nreason = "a test"\nexpires = 2999-01-01\n')
    assert call(folder).code == 0
    assert call(folder, "--fail-on", "warning").code == 4


def test_json(call, project):
    for words in (("--json",), ("--format", "json")):
        answer = call(project(PROJECT), *words)
        assert answer.code == 4
        document = json.loads(answer.out)
        jsonschema.Draft202012Validator(schemas.load("audit")).validate(document)
        assert document["failed"] is True
        assert document["project"] == "wine"


@pytest.mark.parametrize(
    ("form", "check"),
    [
        ("sarif", lambda out: json.loads(out)["version"] == "2.1.0"),
        ("cyclonedx", lambda out: json.loads(out)["specVersion"] == "1.6"),
        ("junit", lambda out: ET.fromstring(out).tag == "testsuites"),
        ("md", lambda out: out.startswith("## Audit of wine: failed\n")),
    ],
)
def test_other_formats(call, project, form, check):
    answer = call(project(PROJECT), "--format", form)
    assert answer.code == 4
    assert check(answer.out)


def test_a_terminal_that_knows_no_unicode(call, project):
    answer = call(project(PROJECT), "--format", "md", env={"PYTHONIOENCODING": "ascii"})
    assert answer.out.isascii()


def test_a_profile_shows_its_checklist(call, project):
    answer = call(project(PROJECT), "--profile", "acm", "-q")
    assert "acm: Available" in answer.out
    assert "  no      May others use it: is there a licence?" in answer.out
    assert "info[" not in answer.out


def test_the_page_of_a_rule(call):
    answer = call("--explain", "l01")
    assert (answer.code, answer.out.splitlines()[0]) == (0, "# L01: an environment has no lock")
    wrong = call("--explain", "L0")
    assert wrong.code == 2
    assert "no rule `L0`" in wrong.err


def test_the_list_of_rules(call):
    lines = call("--list-rules").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["RULE", *(rule.code for rule in RULES)]
    document = json.loads(call("--list-rules", "--json").out)
    jsonschema.Draft202012Validator(schemas.load("rules")).validate(document)
    assert len(document["rules"]) == len(RULES)


def test_wrong_settings_end_with_two(call, project):
    folder = project({**PROJECT, ".repro-audit.toml": '[[accept]]\ncode = "L01"\n'})
    answer = call(folder)
    assert answer.code == 2
    assert "an acceptance has no `reason`" in answer.err
    assert ".repro-audit.toml:1" in answer.err


def test_a_folder_without_a_project_ends_with_two(call, tmp_path):
    (tmp_path / "empty").mkdir()
    answer = call(tmp_path / "empty")
    assert answer.code == 2
    assert "there is no MLproject file" in answer.err


def test_advisories_offline(call, project, tmp_path):
    answer = call(project(PROJECT), "--osv", "http://127.0.0.1:1/all.zip", "--offline")
    assert answer.code == 2
    answer = call(project(PROJECT), "--osv", tmp_path / "none")
    assert answer.code == 2
    assert "there are no advisories at" in answer.err


def test_every_option_has_help():
    assert all(option.help for option in audit.OPTIONS)
    assert audit.HELP
    assert audit.EPILOG


# -- pre-commit

HOOKS = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())


def test_the_hooks_are_whole():
    assert [hook["id"] for hook in HOOKS] == ["repro-lint", "repro-lock-check"]
    for hook in HOOKS:
        assert hook["language"] == "python"
        assert hook["pass_filenames"] is False
        assert hook["name"] == hook["entry"]
        assert hook["description"]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_the_hooks_call_what_there_is(hook):
    program, command, *rest = shlex.split(hook["entry"])
    assert program == "repro"
    assert command in cli.COMMANDS
    assert parser.build().parse_args([command, *rest]).command == command


@pytest.mark.parametrize(
    ("path", "lint", "lock"),
    [
        ("MLproject", True, True),
        ("sub/mlproject.yaml", True, True),
        ("python_env.yaml", True, True),
        ("conda.yaml", True, True),
        ("requirements-dev.txt", True, True),
        ("pyproject.toml", True, True),
        ("lockfiles/pylock.linux-64.toml", False, True),
        ("lockfiles/train.conda-lock.yml", False, True),
        ("conda-lock.yml", False, True),
        ("lockfiles/docker-lock.json", False, True),
        ("Dockerfile.gpu", False, True),
        ("train.py", False, False),
        ("docs/MLproject.md", False, False),
    ],
)
def test_the_hooks_look_at_the_files_that_matter(path, lint, lock):
    assert [bool(re.search(hook["files"], path)) for hook in HOOKS] == [lint, lock]

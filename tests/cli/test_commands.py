"""The command line as a user meets it: what it prints, where, and with which status."""

from __future__ import annotations

import ast
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

from repro import envvars, schemas
from repro.cli import COMMANDS
from repro.environments import downloads, indexes

MLPROJECT = """\
name: demo
entry_points:
  main:
    parameters:
      a: {type: float, default: 0.5}
    command: "sh step.sh {a}"
"""


@pytest.fixture
def demo(project):
    return project(
        MLproject=MLPROJECT, **{"step.sh": "echo out $1; echo '{\"m\": '$1'}' > m.json\n"}
    )


def masked(text):
    text = re.sub(r"\b[0-9a-f]{32}\b", "RUN", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "KEY", text)
    text = re.sub(r"run [0-9a-f]{8}\b", "run ID", text)
    return re.sub(r"\b[0-9.]+ (ms|s)\b", "TIME", text)


def document(answer, name):
    found = json.loads(answer.out)
    jsonschema.validate(found, schemas.load(name))
    assert found["schema"] == f"repro.{name}/1"
    assert next(iter(found)) == "schema"
    return found


LOCAL = ("--env-manager", "local")


def test_a_miss_then_a_hit(demo, repro):
    first = repro("run", demo, *LOCAL)
    assert first.code == 0
    assert masked(first.out) == "RUN\n"
    assert masked(first.err) == (
        "  main  miss KEY  first run of `main` in this project\n"
        "  main │ out 0.5\n"
        "✓ main  TIME → run ID · 1 output (11 B)\n"
    )
    second = repro("run", demo, *LOCAL)
    assert second.code == 0
    assert masked(second.err) == (
        "  main │ out 0.5\n✓ main  hit KEY  reused run ID (TIME ago, saved TIME)\n"
    )
    assert first.out.strip()[:8] in second.err


def test_a_miss_says_why_in_one_line(demo, repro):
    repro("run", demo, *LOCAL)
    again = repro("run", demo, *LOCAL, "-P", "a=1")
    assert "param a 0.5 → 1" in again.err


def test_quiet(demo, repro):
    assert (
        masked(repro("run", demo, *LOCAL, "-q").err) == "✓ main  TIME → run ID · 1 output (11 B)\n"
    )
    assert repro("run", demo, *LOCAL, "-q", "-q").err == ""


def test_a_failing_step(project, repro):
    folder = project(MLproject="entry_points: {main: {command: 'echo no >&2; exit 9'}}\n")
    answer = repro("run", folder, *LOCAL)
    assert answer.code == 1
    assert "failed with exit code 9" in answer.err
    assert "main │ no" in answer.err
    shown = repro("show", answer.out.strip(), "--stderr")
    assert shown.out == "no\n"


def test_every_document_fits_its_schema(demo, repro):
    run = document(repro("run", demo, *LOCAL, "--json"), "run")
    document(repro("run", demo, *LOCAL, "--json"), "run")
    assert len(document(repro("log", "--json"), "log")["runs"]) == 2
    assert document(repro("show", run["run_id"][:8], "--json"), "run") == run
    outputs = document(repro("outputs", run["run_id"], "--json"), "outputs")
    assert [o["path"] for o in outputs["outputs"]] == ["m.json"]
    assert document(repro("why", demo, *LOCAL, "--json"), "why")["decision"] == "hit"
    told = document(repro("why", demo, *LOCAL, "-P", "a=3", "--json"), "why")
    changed = {"part": "param", "name": "a", "before": "0.5", "after": "3", "lines": None}
    assert told["reasons"] == [changed]
    document(repro("why", run["run_id"][:10], "--json"), "why")
    document(repro("status", demo, *LOCAL, "--json"), "status")
    assert document(repro("validate", demo, "--json"), "validate")["valid"]
    document(repro("cache", "size", "--json"), "cache-size")
    document(repro("cache", "prune", "--json"), "cache-prune")
    document(repro("env", "list", "--json"), "environments")
    document(repro("env", "prune", "--json"), "environments")
    document(repro("config", "show", "--json"), "config")
    answer = repro("run", demo, "-e", "gone", *LOCAL, "--json")
    assert document(answer, "error")["error"]["exit"] == answer.code == 2


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schemas.load(name))


def test_the_older_form_of_the_schema(repro):
    older = json.loads(repro("schema", "mlproject", "--draft7").out)
    jsonschema.Draft7Validator.check_schema(older)
    good = {"entry_points": {"main": {"command": "x", "parameters": {"a": "str"}}}}
    jsonschema.validate(good, older, cls=jsonschema.Draft7Validator)
    bad = {"entry_points": {"main": {"command": 5}}, "docker_env": "x"}
    assert len(list(jsonschema.Draft7Validator(older).iter_errors(bad))) == 2


def test_log_and_show_for_people(demo, repro):
    run_id = repro("run", demo, *LOCAL).out.strip()
    repro("run", demo, *LOCAL)
    lines = repro("log").out.splitlines()
    assert lines[0].split("\t")[:3] == ["RUN", "STEP", "STATE"]
    assert [line.split("\t")[2] for line in lines[1:]] == ["hit", "ok"]
    shown = repro("show", run_id[:8]).out
    for text in (run_id, "a = 0.5", "m.json", "sh step.sh 0.5", "first run"):
        assert text in shown
    assert repro("show", run_id, "--log").out == "out 0.5\n"


def test_outputs_to_a_folder(demo, repro, tmp_path):
    run_id = repro("run", demo, *LOCAL).out.strip()
    assert repro("outputs", run_id, "--to", tmp_path / "o").code == 0
    assert (tmp_path / "o/m.json").read_text() == '{"m": 0.5}\n'
    assert repro("outputs", run_id, "--only", "*.txt").out == "PATH\tKIND\tSIZE\tSHA256\n"


def test_status_check_is_a_gate(demo, repro):
    assert repro("status", demo, *LOCAL, "--check").code == 3
    repro("run", demo, *LOCAL)
    fresh = repro("status", demo, *LOCAL, "--check")
    assert fresh.code == 0
    assert "fresh" in fresh.out
    (demo / "step.sh").write_text("echo other\n")
    stale = repro("status", demo, *LOCAL, "--check")
    assert stale.code == 3
    assert "file step.sh" in stale.out


def test_dry_run_runs_nothing(demo, repro):
    answer = repro("run", demo, *LOCAL, "--dry-run")
    assert answer.out.startswith("main  run  ")
    assert repro("log").out.count("\n") == 1


def test_validate(project, repro):
    bad = project(MLproject="entry_points:\n  main:\n    comand: x\n")
    answer = repro("validate", bad)
    assert answer.code == 4
    assert "MLproject:3:5" in answer.out
    assert "`command`" in answer.out
    odd = project(name="odd", MLproject="rocket: 1\nentry_points: {main: {command: x}}\n")
    assert repro("validate", odd).code == 0
    assert repro("validate", odd, "--strict").code == 4
    empty = project(name="empty")
    assert repro("validate", empty).code == 2


def test_validate_reads_the_environment_files_too(project, repro):
    text = "conda_env: c.yaml\nrocket: 1\nentry_points: {main: {command: x}}\n"
    folder = project({"MLproject": text, "c.yaml": "channels: x\ndependencies: [numpy >=]\n"})
    answer = repro("validate", folder)
    assert answer.code == 4
    assert "--> c.yaml:1:11" in answer.out
    assert "--> c.yaml:2:16" in answer.out
    assert answer.out.endswith("1 entry point, 2 errors, 1 warning\n")
    told = document(repro("validate", folder, "--json"), "validate")
    assert not told["valid"]
    assert [p["where"]["file"] for p in told["problems"]] == ["c.yaml", "c.yaml", "MLproject"]
    assert [p["level"] for p in told["problems"]] == ["error", "error", "warning"]


def test_cache_prune_keeps_the_history(demo, repro):
    run_id = repro("run", demo, *LOCAL).out.strip()
    assert "1 result" in repro("cache", "prune", "--older-than", "0", "--dry-run").out
    assert repro("why", demo, *LOCAL).out.startswith("main  would hit")
    repro("cache", "prune", "--older-than", "0")
    why = repro("why", demo, *LOCAL).out
    assert "would run" in why
    assert "not in the store any more" in why
    assert run_id in repro("log").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(repro, command):
    answer = repro(command, "--help")
    assert answer.code == 0
    assert "examples:" in answer.out
    assert repro("help", command).out == answer.out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("rnu",), "`run`"),
        (("run", ".", "--entrypoint", "x"), "`--entry-point`"),
        (("run", ".", "-P", "a"), "NAME=VALUE"),
        (("run", ".", "-P", "a=1", "-P", "a=2"), "twice"),
        (("run", ".", "--timeout", "soon"), "no time"),
        (("run", ".", "--experiment-name", "a", "--experiment-id", "1"), "not both"),
        (("run", ".", "--env-manager", "poetry"), "no environment manager"),
        (("run", ".", "-b", "nosuch"), "no backend"),
        (("run", "gone"), "no project at `gone`"),
        (("run", "MLproject"), "is not a folder"),
        (("show", "zzzz"), "no run id"),
        (("show", "abcd1234"), "no run begins with"),
        (("schema", "nope"), "schemas: "),
        (("help", "nope"), "topics"),
        (("run", ".", "-P", "a=notafloat"), "is not a float"),
        (("run", ".", "-v", "v1"), "only supported for Git"),
    ],
)
def test_wrong_use_is_explained(demo, repro, words, text):
    answer = repro(*words, cwd=demo)
    assert answer.code == 2
    assert text in answer.err
    assert answer.out == ""
    assert "error" in answer.err


def test_help_topics(repro):
    assert "70" in repro("help", "exit-codes").out
    told = repro("help", "environment").out
    for group in envvars.GROUPS.values():
        assert [name for name in group if f"\n  {name} " not in f"\n{told}"] == []


def constants(tree):
    """The texts that a module has names for."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            target = node.targets[0]
            pair = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            names = target.elts if pair else [target]
            values = node.value.elts if pair else [node.value]
            for name, value in zip(names, values, strict=True):
                if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                    found[name.id] = value.value
    return found


def looked_up(tree):
    """The names that a module looks up in an environment by `get` or in brackets."""
    known = constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get" and node.args:
            place, key = node.func.value, node.args[0]
        elif isinstance(node, ast.Subscript):
            place, key = node.value, node.slice
        else:
            continue
        if ast.unparse(place).endswith("environ"):
            name = known.get(getattr(key, "id", ""), getattr(key, "value", None))
            if isinstance(name, str):
                yield name


def test_the_variables_that_are_read_are_those_that_are_told():
    told = {name for group in envvars.GROUPS.values() for name in group}
    folder = pathlib.Path(envvars.__file__).parent
    files = [p for p in folder.rglob("*.py") if p.name != "envvars.py"]
    texts = [p.read_text() for p in files if "testing" not in p.parts]
    found = {name for text in texts for name in looked_up(ast.parse(text))} - {"HOME", "PATH"}
    assert {"REPRO_HOME", "REPRO_MIRRORS", "MLFLOW_TRACKING_USERNAME"} <= found
    assert found - told == set()
    own = {n for text in texts for n in re.findall(r"\bREPRO_[A-Z_]+[A-Z]\b(?!_)", text)}
    assert {n for n in own if n not in told and not n.startswith("REPRO_SECRET")} == set()
    assert {n for n in told if n.startswith("REPRO_")} <= own
    assert told >= {*indexes.VARIABLES, *downloads.CERTIFICATES}
    assert set(envvars.SECRETS) <= told


def test_config_tells_every_variable_and_no_secret(repro):
    given = {
        "REPRO_TOOL": "pip",
        "REPRO_MIRRORS": "https://a.org/=https://me:hidden1@b.org/c,https://d.org=https://e.org",
        "REPRO_CONDA_CHANNELS": "https://c.org/t/hidden2/main",
        "REPRO_REMOTE": "https://cache.org/x?sig=hidden3",
        "UV_INDEX": "own=https://hidden4@u.org/simple",
        "REPRO_PYTHON_3_9": "/opt/python3.9",
        **{name: f"hidden-{name}" for name in envvars.SECRETS},
    }
    told = document(repro("config", "--json", env=given), "config")["settings"]
    by_name = {one["name"]: one for one in told}
    assert by_name.keys() == {n for g in envvars.GROUPS.values() for n in g} | {"REPRO_PYTHON_3_9"}
    assert "hidden" not in str(told)
    assert {
        n for n, one in by_name.items() if n in given and one["source"] != "environment"
    } == set()
    mirrors = "https://a.org/=https://****@b.org/c,https://d.org=https://e.org"
    assert by_name["REPRO_MIRRORS"]["value"] == mirrors
    assert by_name["REPRO_TOOL"] == {
        "group": "environments",
        "name": "REPRO_TOOL",
        "value": "pip",
        "source": "environment",
    }
    assert by_name["REPRO_UV"]["source"] == "default"
    lines = repro("config", env=given).out.splitlines()
    assert lines[0].split("\t") == ["GROUP", "VARIABLE", "VALUE", "SOURCE"]
    assert len(lines) == 1 + len(told)
    assert "hidden" not in str(lines)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(repro, shell):
    script = repro("completion", shell).out
    for word in ("run", "--entry-point", "prune"):
        assert word.lstrip("-") in script
    if shell == "bash":
        complete = 'COMP_WORDS=(repro ru); COMP_CWORD=1; _repro; echo "${COMPREPLY[@]}"'
        done = subprocess.run(
            ["bash", "-c", script + complete], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "run"


def test_an_unknown_variable_of_ours_is_a_warning(demo, repro):
    answer = repro("run", demo, *LOCAL, env={"REPRO_HOEM": "x"})
    assert "REPRO_HOEM" in answer.err
    assert "`REPRO_HOME`" in answer.err


def test_output_that_nobody_reads_is_no_error(demo, environ):
    run_id = subprocess.run(
        f"{sys.executable} -m repro run {demo} --env-manager local | head -c 1; {sys.executable} -m repro log | true",
        shell=True,
        env={**environ, "PYTHONPATH": os.getcwd()},
        cwd=os.getcwd(),
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in run_id.stderr
    assert b"Exception" not in run_id.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(demo, environ, closed):
    done = subprocess.run(
        f"{sys.executable} -m repro run {demo} --env-manager local {closed}",
        shell=True,
        env={**environ, "PYTHONPATH": os.getcwd()},
        cwd=os.getcwd(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_control_characters_of_a_step_do_not_reach_our_lines(project, repro):
    text = "entry_points: {main: {parameters: {a: str}, command: 'true {a}'}}\n"
    folder = project(MLproject=text)
    answer = repro("run", folder, *LOCAL, "-P", "a=\x1b]0;owned\x07\nforged line")
    assert answer.code == 0
    again = repro("run", folder, *LOCAL, "-P", "a=\x1b]0;other\x07")
    assert "\x1b" not in again.err
    assert "forged line\n" not in again.err
    assert "\x1b" not in repro("log").out


SLOW = (
    "entry_points: {main: {command: 'trap \"\" TERM INT; echo started; sleep 300 & sleep 300'}}\n"
)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_a_signal_ends_the_whole_tree_and_leaves_a_record(project, environ, repro, number, code):
    folder = project(MLproject=SLOW)
    process = under_way(folder, environ, "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert json.loads(out)["error"]["exit"] == code
    (run,) = json.loads(repro("log", "--json").out)["runs"]
    assert run["status"] == "KILLED"
    assert not left_over(run["run_id"])


def test_a_second_signal_leaves_at_once(project, environ, repro):
    folder = project(MLproject=SLOW)
    process = under_way(folder, environ)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=3)
    assert process.returncode == 143
    (run,) = json.loads(repro("log", "--json").out)["runs"]
    assert run["status"] == "KILLED"
    assert gone_soon(run["run_id"])


def test_a_killed_repro_leaves_no_run_running(project, environ, repro):
    folder = project(MLproject=SLOW)
    process = under_way(folder, environ)
    process.kill()
    process.communicate(timeout=5)
    (run,) = json.loads(repro("log", "--json").out)["runs"]
    assert (run["status"], run["cause"]) == ("KILLED", "lost")
    assert gone_soon(run["run_id"])
    assert repro("cache", "prune").code == 0


def under_way(folder, environ, *more):
    """Start a run in a process of its own; give it when its step has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "repro", "run", str(folder), "--env-manager", "local", *more],
        env={**environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert b"miss" in process.stderr.readline()
    assert b"started" in process.stderr.readline()
    return process


def gone_soon(run_id):
    """Say whether, within ten seconds, no process of a run is left."""
    deadline = time.monotonic() + 10
    while left_over(run_id) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not left_over(run_id)


def left_over(run_id):
    """Processes that carry the run's id in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if f"REPRO_RUN_ID={run_id}".encode() in file.read():
                        found.append(name)
            except OSError:
                pass
    return found


def test_cancel_ends_a_run_of_another_process(project, repro, environ):
    folder = project(MLproject="entry_points: {main: {command: sleep 60}}\n")
    command = [sys.executable, "-m", "repro", "run", str(folder), *LOCAL]
    from conftest import interpreter_variables

    running = subprocess.Popen(
        command, env={**interpreter_variables(), **environ}, stdout=subprocess.DEVNULL
    )
    while True:
        rows = repro("log").out.splitlines()[1:]
        if rows and "running" in rows[0].lower():
            break
        time.sleep(0.1)
    run_id = rows[0].split()[0]
    answer = repro("cancel", run_id[:12])
    assert answer.code == 0
    assert running.wait(timeout=60) == 128 + signal.SIGTERM
    assert "killed" in repro("log").out
    again = repro("cancel", run_id)
    assert again.code == 2
    assert "not under way" in again.err

"""The mirror of `mlflow.projects`: what a program sees that calls repro instead."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import interpreter_variables

import repro
from repro.errors import ParameterInvalid, Unreachable, Unsupported, UsageError
from repro.machine import Machine

ECHO = "entry_points: {main: {parameters: {a: {default: x}}, command: 'echo {a} > out'}}\n"
FAIL = "entry_points: {main: {command: 'echo half > out; exit 3'}}\n"
SLOW = "entry_points: {main: {command: 'echo started; setsid sleep 300 & sleep 300'}}\n"


@pytest.fixture
def user(environ, monkeypatch, tmp_path):
    """Let this very process be one of a user with an empty home."""
    for name in [n for n in os.environ if n.startswith(("MLFLOW_", "REPRO_"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def records(environ):
    """Read the history of all runs, the latest first, as the next process would."""

    def read():
        machine = Machine(environ)
        try:
            return machine.history.find()
        finally:
            machine.close()

    return read


@pytest.fixture
def program(environ, tmp_path):
    """Start a program that uses repro as a library."""
    started = []

    def start(text, *arguments, env=None, **options):
        path = tmp_path / f"program{len(started)}.py"
        path.write_text(text)
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, arguments)],
            cwd=tmp_path,
            env={**interpreter_variables(), **environ, **(env or {})},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def gated(project, tmp_path):
    """A project whose step goes on only when it may."""
    gate = tmp_path / "gate"
    command = f"echo started; while ! test -e {gate}; do sleep 0.02; done; echo made > out"
    return project(MLproject=f"entry_points: {{main: {{command: '{command}'}}}}\n"), gate


def call(folder, **options):
    return repro.run(str(folder), env_manager="local", **options)


def together(*actions):
    """Do things at the same time, in a thread each; give what came of them."""
    found = []

    def do(action):
        try:
            found.append(action())
        except Exception as error:  # noqa: BLE001
            found.append(error)

    threads = [threading.Thread(target=do, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return found


def wait_until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def left_over(run_id):
    """Give the processes that carry the run's id in their environment."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit():
                with open(f"/proc/{name}/environ", "rb") as file:
                    if f"REPRO_RUN_ID={run_id}".encode() in file.read():
                        found.append(name)
    return found


# -- names


def test_there_is_one_function_with_the_signature_of_mlflow():
    assert repro.run is repro.projects.run
    parameters = inspect.signature(repro.run).parameters.values()
    assert {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} == {
        "uri": inspect.Parameter.empty,
        "entry_point": "main",
        "version": None,
        "parameters": None,
        "docker_args": None,
        "experiment_name": None,
        "experiment_id": None,
        "backend": "local",
        "backend_config": None,
        "use_conda": True,
        "storage_dir": None,
        "synchronous": True,
        "run_id": None,
    }
    assert [p.name for p in parameters][:13] == [
        *("uri", "entry_point", "version", "parameters", "docker_args", "experiment_name"),
        *("experiment_id", "backend", "backend_config", "use_conda", "storage_dir"),
        *("synchronous", "run_id"),
    ]
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == {
        "run_name": None,
        "env_manager": None,
        "build_image": False,
        "docker_auth": None,
    }


def test_the_public_names():
    names = ["ExecutionException", "ReproError", "SubmittedRun", "projects", "run"]
    assert sorted(repro.__all__) == names
    assert dir(repro) == sorted([*names, "__version__"])
    assert set(repro.projects.__all__) == {"ExecutionException", "SubmittedRun", "run"}
    for name in repro.projects.__all__:
        assert getattr(repro.projects, name) is getattr(repro, name)
    assert issubclass(repro.ExecutionException, repro.ReproError)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = repro.nothing


def test_importing_loads_next_to_nothing(program):
    text = (
        "import sys\nbefore = set(sys.modules)\nimport repro\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "repro.run\nprint(*sorted(set(sys.modules) - before))\n"
    )
    out, _ = program(text).communicate(timeout=20)
    first, second = (line.split() for line in out.decode().splitlines())
    assert set(first) <= {"repro", "__future__"}
    heavy = {"requests", "yaml", "jsonschema", "sqlite3", "subprocess", "logging", "threading"}
    assert heavy.isdisjoint(second)
    assert "repro.projects" in second


# -- synchronous runs


def test_a_run_that_succeeds(user, project):
    run = call(project(MLproject=ECHO), parameters={"a": "hello"})
    assert isinstance(run, repro.SubmittedRun)
    assert (run.get_status(), run.wait(), run.exit_code, run.cached) == ("FINISHED", True, 0, False)
    assert (len(run.run_id), run.parameters) == (32, {"a": "hello"})
    assert run.blob(run.outputs["out"].sha256) == b"hello\n"
    run.cancel()
    assert (run.get_status(), run.wait()) == ("FINISHED", True)


@pytest.mark.parametrize("again", [{"env_manager": "local"}, {"use_conda": False}])
def test_without_conda_means_the_callers_own_environment(user, project, again):
    folder = project(MLproject=ECHO)
    first = repro.run(str(folder), use_conda=False)
    assert first.record.environment_kind == "local"
    assert repro.run(str(folder), **again).record.origin_run == first.run_id


def test_a_run_that_fails_raises_and_can_be_looked_into(user, project, records):
    with pytest.raises(repro.ExecutionException) as caught:
        call(project(MLproject=FAIL))
    error, run = caught.value, caught.value.run
    assert isinstance(error, repro.ReproError)
    assert run.run_id in str(error)
    assert "failed" in str(error)
    assert "exit code 3" in str(error)
    assert run.run_id[:8] in error.hints[0]
    assert (run.get_status(), run.exit_code, run.wait()) == ("FAILED", 3, False)
    assert [(r.run_id, r.status) for r in records()] == [(run.run_id, "FAILED")]


def test_values_become_text_as_str_makes_it(user, project, tmp_path):
    text = "entry_points: {main: {parameters: {i: int, f: float, b: bool}, command: 'echo {i} {f} {b} > out'}}\n"
    given = {"i": 1, "f": 1e-05, "b": True, "extra": tmp_path}
    run = call(project(MLproject=text), parameters=given)
    assert run.parameters == {"i": "1", "f": "1e-05", "b": "True", "extra": str(tmp_path)}
    assert run.blob(run.outputs["out"].sha256) == f"1 1e-05 True --extra {tmp_path}\n".encode()
    assert given == {"i": 1, "f": 1e-05, "b": True, "extra": tmp_path}


def test_paths_start_from_the_callers_folder_and_may_be_objects(user, project, tmp_path):
    text = "entry_points: {main: {parameters: {d: path}, command: 'cat {d} > out'}}\n"
    folder = project(MLproject=text)
    (tmp_path / "table.csv").write_text("1")
    for uri in ("project", folder, folder.relative_to(tmp_path)):
        run = repro.run(uri, parameters={"d": "table.csv"}, use_conda=False)
        assert run.record.project == str(folder)
    with pytest.raises(ParameterInvalid):
        repro.run(folder, parameters={"d": "gone"}, use_conda=False)


def test_the_run_id_that_is_given_is_used(user, project):
    text = "entry_points: {main: {command: 'echo $MLFLOW_RUN_ID $REPRO_RUN_ID > out'}}\n"
    run_id = "0123456789abcdef" * 2
    run = call(project(MLproject=text), run_id=run_id)
    assert (run.run_id, run.record.run_id) == (run_id, run_id)
    assert run.blob(run.outputs["out"].sha256).decode() == f"{run_id} {run_id}\n"


@pytest.mark.parametrize("run_id", ["../../../escape", "abc", "A" * 32, "g" * 32, "0" * 33])
def test_what_is_no_run_id_is_refused(user, project, records, run_id):
    with pytest.raises(UsageError, match="is no run id"):
        call(project(MLproject=ECHO), run_id=run_id)
    assert records() == []


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"experiment_name": "a", "experiment_id": "1"},
            UsageError,
            "Specify only one of 'experiment_name' or 'experiment_id'",
        ),
        ({"backend": "nowhere"}, Unsupported, "nowhere"),
        ({"docker_args": {"gpus": "all"}}, UsageError, "docker_env"),
        ({"build_image": True}, UsageError, "docker_env"),
        ({"docker_auth": {"username": "u"}}, UsageError, "`docker_auth` needs `password`"),
        ({"env_manager": "poetry"}, UsageError, "poetry"),
        ({"entry_point": "gone"}, UsageError, "gone"),
        ({"version": "v1"}, UsageError, "version"),
    ],
)
@pytest.mark.parametrize("synchronous", [True, False])
def test_what_cannot_be_done_is_refused_before_anything_is_recorded(
    user, project, records, options, error, text, synchronous
):
    options = {"env_manager": "local", **options}
    with pytest.raises(error) as caught:
        repro.run(str(project(MLproject=ECHO)), synchronous=synchronous, **options)
    assert text in str(caught.value)
    assert caught.value.exit == 2
    assert records() == []


def test_an_unknown_backend_is_told_what_there_is(user, project):
    with pytest.raises(repro.ReproError) as caught:
        call(project(MLproject=ECHO), backend="cluster")
    assert "there is `local`" in caught.value.hints
    assert any(hint.startswith("there is `slurm`") for hint in caught.value.hints)


def test_a_step_knows_whose_part_it_is(user, project):
    user.setenv("REPRO_RUN_ID", "f" * 32)
    assert call(project(MLproject=ECHO)).record.parent_run == "f" * 32


# -- asynchronous runs


def test_an_async_run_is_given_back_at_once(user, gated):
    folder, gate = gated
    run = call(folder, synchronous=False, parameters=None)
    assert run.get_status() == "RUNNING"
    assert (run.exit_code, run.outputs, run.metrics, run.why) == (None, {}, {}, "")
    gate.touch()
    assert together(run.wait, run.wait, run.wait) == [True] * 3
    assert (run.get_status(), run.exit_code) == ("FINISHED", 0)
    assert (folder / "out").read_text() == "made\n"


def test_an_async_run_that_fails_says_so_without_raising(user, project):
    run = call(project(MLproject=FAIL), synchronous=False)
    assert (run.wait(), run.get_status(), run.exit_code) == (False, "FAILED", 3)


def test_what_keeps_an_async_run_from_running_is_raised_to_whoever_waits(user, project, records):
    with socket.create_server(("127.0.0.1", 0)) as free:
        user.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    run = call(project(MLproject=ECHO), synchronous=False)
    errors = together(run.wait, run.wait)
    assert [type(e).__mro__[-4] for e in errors] == [repro.ReproError] * 2
    assert all(isinstance(e, Unreachable) for e in errors)
    with pytest.raises(Unreachable, match="connection refused"):
        run.wait()
    assert run.get_status() == "FAILED"
    assert records() == []


def test_a_run_is_cancelled_by_any_number_of_threads(user, project, records):
    run = call(project(MLproject=SLOW), synchronous=False)
    wait_until(lambda: left_over(run.run_id))
    assert together(run.wait, run.cancel, run.wait, run.cancel, run.cancel).count(False) == 2
    run.cancel()
    assert (run.get_status(), run.wait()) == ("KILLED", False)
    assert not left_over(run.run_id)
    assert [(r.run_id, r.status, r.cause) for r in records()] == [(run.run_id, "KILLED", "cancel")]


def test_async_runs_go_on_side_by_side_with_outputs_of_their_own(user, project, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    meet = f"touch {here}/{{a}}; until test $(ls {here} | wc -l) = 4; do sleep 0.02; done"
    text = (
        "entry_points: {main: {timeout: 20s, parameters: {a: str},"
        f" command: '{meet}; echo {{a}} > out'}}}}\n"
    )
    folders = [project(name=f"p{n}", MLproject=text) for n in range(4)]
    runs = [call(f, parameters={"a": n}, synchronous=False) for n, f in enumerate(folders)]
    assert [run.wait() for run in runs] == [True] * 4
    assert [run.blob(run.outputs["out"].sha256) for run in runs] == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert [(f / "out").read_text() for f in folders] == ["0\n", "1\n", "2\n", "3\n"]
    assert len({run.run_id for run in runs}) == 4


def test_nothing_else_needs_to_be_on_the_path(user, project):
    user.setenv("PATH", "/usr/bin:/bin")
    folder = project(MLproject=ECHO)
    assert call(folder, synchronous=False, parameters={"a": 1}).wait()
    assert call(folder, parameters={"a": 2}).wait()


LEAVING = """\
import sys
import repro
run = repro.run(sys.argv[1], use_conda=False, synchronous=False)
print(run.run_id, flush=True)
"""


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2),
    reason="this Python starts no thread once the main one has ended: use 3.12.2 or later",
)
def test_the_interpreter_waits_for_an_async_run_before_it_exits(program, gated, records):
    folder, gate = gated
    process = program(LEAVING, folder)
    lines = [process.stdout.readline().decode().strip() for _ in range(2)]
    assert process.poll() is None
    gate.touch()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""
    (record,) = records()
    assert (record.status, record.run_id in lines) == ("FINISHED", True)
    assert (folder / "out").exists()


def test_a_run_whose_process_was_killed_is_recorded_as_killed(program, project, records):
    process = program(f"{LEAVING}run.wait()\n", project(MLproject=SLOW))
    lines = {process.stdout.readline().decode().strip() for _ in range(2)}
    assert [r.status for r in records()] == ["RUNNING"]
    process.kill()
    process.wait(20)
    (record,) = records()
    assert (record.status, record.cause, record.run_id in lines) == ("KILLED", "lost", True)
    wait_until(lambda: not left_over(record.run_id))


def test_ctrl_c_ends_a_synchronous_run_and_all_that_it_started(program, project, records):
    folder = project(MLproject=SLOW)
    text = f"import repro\nrepro.run({str(folder)!r}, use_conda=False)\nprint('went on')\n"
    process = program(text)
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == b""
    assert err.splitlines()[-1] == b"KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT
    (record,) = records()
    assert (record.status, record.cause) == ("KILLED", "cancel")
    assert not left_over(record.run_id)


# -- what is printed

PRINTING = {
    "MLproject": "entry_points: {main: {command: sh step.sh}}\n",
    "step.sh": r"printf 'caf\303'; sleep 0.2; printf '\251\n\377\n'; printf 'no\303\251\n' >&2",
}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_output_of_a_step_goes_to_the_callers_streams_byte_by_byte(program, project, encoding):
    text = f"import repro\nprint('a')\nrepro.run({str(project(PRINTING))!r}, use_conda=False)\nprint('z')\n"
    process = program(text, env={"PYTHONIOENCODING": encoding})
    out, err = process.communicate(timeout=20)
    assert out == b"a\ncaf\xc3\xa9\n\xff\nz\n"
    assert err == b"no\xc3\xa9\n"
    assert process.returncode == 0


def test_output_goes_to_streams_that_take_text_alone(user, project):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        call(project(PRINTING))
    assert out.getvalue() == "café\n\ufffd\n"
    assert err.getvalue() == "noé\n"


@pytest.mark.parametrize("how", ["sys.stdout.close()", "sys.stdout = None", "os.close(1)"])
def test_a_run_outlives_the_streams_of_its_caller(program, project, records, how):
    folder = project(MLproject="entry_points: {main: {command: echo said}}\n")
    text = (
        f"import os, sys, repro\n{how}\nrun = repro.run({str(folder)!r}, use_conda=False)\n"
        "sys.stderr.write(run.get_status())\nsys.stderr.flush()\nos._exit(0)\n"
    )
    _, err = program(text).communicate(timeout=20)
    assert err == b"FINISHED"
    (record,) = records()
    assert record.log_size == len("said\n")


def test_a_run_outlives_the_reader_of_its_output(program, project, records):
    folder = project(MLproject="entry_points: {main: {command: 'echo 1; sleep 0.3; echo 2'}}\n")
    text = f"import os, repro\nrepro.run({str(folder)!r}, use_conda=False)\nos._exit(0)\n"
    process = program(text)
    assert process.stdout.readline() == b"1\n"
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""
    assert [(r.status, r.log_size) for r in records()] == [("FINISHED", 4)]


def test_warnings_go_to_the_log_of_the_program(user, project, caplog):
    text = "entry_points: {main: {outputs: [a], command: touch a b}}\n"
    call(project(MLproject=text))
    ((name, _level, message),) = caplog.record_tuples
    assert name == "repro"
    assert message.startswith("not kept, since `outputs:` does not name them: b (")


def test_a_notebook_shows_a_run_whatever_its_state(user, project, gated):
    done = call(project(name="done", MLproject=ECHO), parameters={"a": "<b>bold</b>"})
    assert "FINISHED" in done._repr_html_()
    assert "&lt;b&gt;bold&lt;/b&gt;" in done._repr_html_()
    assert "<b>bold</b>" not in done._repr_html_()
    again = call(project(name="done", MLproject=ECHO), parameters={"a": "<b>bold</b>"})
    assert "FINISHED (reused)" in again._repr_html_()
    assert f"reused run {done.run_id}" in again._repr_html_()
    folder, gate = gated
    under_way = call(folder, synchronous=False)
    assert "RUNNING" in under_way._repr_html_()
    gate.touch()
    under_way.wait()
    failed = call(project(name="fail", MLproject=FAIL), synchronous=False)
    failed.wait()
    assert "FAILED" in failed._repr_html_()
    assert repr(failed) == f"<SubmittedRun {failed.run_id[:8]} main FAILED>"

"""Steps whose code runs other steps: each is a step of its own, reused and recorded as such."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from repro import foresight
from repro.machine import Machine
from repro.plan import Request

MLPROJECT = """
entry_points:
  main:
    parameters: {word: {default: one}}
    command: "echo main >> MARKS; python main.py {word}"
  load:
    parameters: {word: {default: one}}
    command: "echo load >> MARKS; echo {word} > raw.txt"
  count:
    command: "echo count >> MARKS; wc -c < raw.txt > count.txt"
"""
MAIN = """
import sys
import repro

repro.projects.run(".", "load", parameters={"word": sys.argv[1]})
repro.projects.run(".", "count")
with open("count.txt") as file:
    print("counted", file.read().strip())
"""


@pytest.fixture
def marks(tmp_path):
    """Give which steps were executed since the last time."""
    path = tmp_path / "marks"

    def executed():
        found = path.read_text().split() if path.exists() else []
        path.write_text("")
        return found

    executed.path = path
    return executed


@pytest.fixture
def driver(project, marks):
    """Make a project that has a driver and the steps that it calls."""

    def make(main=MAIN, mlproject=MLPROJECT, **more):
        text = mlproject.replace("MARKS", str(marks.path))
        return project({"MLproject": text, "main.py": main}, **more)

    return make


@pytest.fixture
def records(environ):
    """Read all runs, the first one first."""

    def read():
        machine = Machine(environ)
        try:
            return machine.history.find()[::-1]
        finally:
            machine.close()

    return read


def test_each_call_is_a_step_below_the_one_that_calls(driver, run, marks, records):
    folder = driver()
    first = run(folder, sandbox="none")
    assert first.get_status() == "FINISHED", run.events
    assert marks() == ["main", "load", "count"]
    assert "counted 4" in run.printed
    assert (folder / "count.txt").read_text().strip() == "4"
    found = {r.entry_point: r for r in records()}
    assert found["load"].parent_run == found["count"].parent_run == first.run_id
    assert len({r.key for r in found.values()}) == 3


def called(records, entry_point):
    return [r for r in records() if r.entry_point == entry_point]


def again_hit(run, folder, marks, **options):
    """Run once more and see that nothing at all is executed."""
    marks()
    second = run(folder, sandbox="none", **options)
    assert second.cached, [e for e in run.events if type(e).__name__ == "Missed"]
    assert marks() == []
    return second


def test_an_unchanged_driver_is_reused_whole_with_what_it_called(driver, run, marks, records):
    folder = driver()
    first = run(folder, sandbox="none")
    (folder / "count.txt").unlink()
    (folder / "raw.txt").unlink()
    second = again_hit(run, folder, marks)
    assert (folder / "raw.txt").read_text() == "one\n"
    assert (folder / "count.txt").exists()
    below = [r for r in records() if r.parent_run == second.run_id]
    assert [(r.entry_point, r.cached) for r in below] == [("load", True), ("count", True)]
    assert {r.origin_run for r in below} == {
        r.run_id for r in records() if r.parent_run == first.run_id
    }


DECLARED = MLPROJECT.replace("  load:\n", "  load:\n    inputs: []\n").replace(
    "  count:\n", "  count:\n    inputs: [raw.txt]\n"
)


def test_calls_are_reused_when_only_the_driver_has_changed(driver, run, marks):
    folder = driver(mlproject=DECLARED)
    assert run(folder, sandbox="none").wait()
    (folder / "main.py").write_text(MAIN + "# changed\n")
    marks()
    assert run(folder, sandbox="none").wait()
    assert marks() == ["main"]
    assert [e.step for e in run.named("Reused")] == ["load", "count"]


def test_a_call_and_a_user_ask_for_the_same_step(driver, run, marks):
    folder = driver()
    outside = run(folder, "load", sandbox="none")
    (folder / "raw.txt").unlink()
    assert run(folder, sandbox="none").wait()
    assert marks() == ["load", "main", "count"]
    assert run.named("Reused")[0].record.key == outside.key


def test_other_parameters_run_what_depends_on_them(driver, run, marks):
    folder = driver()
    assert run(folder, sandbox="none").wait()
    marks()
    assert run(folder, sandbox="none", parameters={"word": "three"}).wait()
    assert marks() == ["main", "load", "count"]
    assert "counted 6" in run.printed
    again_hit(run, folder, marks)
    assert (folder / "count.txt").read_text().strip() == "4"


def test_a_called_step_that_fails_fails_as_in_mlflow(driver, run, records):
    folder = driver(
        main="""
import repro
from repro.projects import ExecutionException

try:
    repro.projects.run(".", "fail")
except ExecutionException as error:
    print("told", error.run.run_id, error.run.get_status(), error)
try:
    repro.projects.run(".", "nobody")
except repro.ReproError as error:
    print("code", error.code)
""",
        mlproject="entry_points: {main: {command: 'python main.py'}, fail: {command: 'exit 3'}}\n",
    )
    first = run(folder)
    assert first.wait()
    (failed,) = called(records, "fail")
    assert (failed.status, failed.exit_code, failed.parent_run) == ("FAILED", 3, first.run_id)
    assert (
        f"told {failed.run_id} FAILED Run (ID '{failed.run_id}') failed: exit code 3" in run.printed
    )
    assert "code entry-point-unknown" in run.printed
    assert (
        "not kept for reuse: the called run of `fail` did not succeed"
        in run.named("Warned")[0].text
    )
    assert not run(folder).cached


def test_an_error_that_nobody_catches_fails_the_driver(driver, run):
    folder = driver(
        main="import repro; repro.projects.run('.', 'fail')",
        mlproject="entry_points: {main: {command: 'python main.py'}, fail: {command: 'exit 3'}}\n",
    )
    assert run(folder).get_status() == "FAILED"
    assert "ExecutionException" in run.printed


def test_a_driver_that_calls_itself_is_refused(driver, run):
    folder = driver(
        main="import repro; repro.projects.run('.')",
        mlproject="entry_points: {main: {command: 'python main.py'}}\n",
    )
    assert run(folder).get_status() == "FAILED"
    assert "`main` calls itself, with the same parameters" in run.printed


RECURSIVE = """
import sys
import repro

number = int(sys.argv[1])
if number != 0:
    repro.projects.run(".", parameters={"number": number - 1})
print("at", number)
"""


@pytest.mark.parametrize(("number", "good"), [(2, True), (-1, False)])
def test_recursion_comes_to_an_end_or_is_refused(driver, run, number, good):
    folder = driver(
        main=RECURSIVE,
        mlproject="entry_points: {main: {parameters: {number: {}}, command: 'python main.py {number}'}}\n",
    )
    assert run(folder, parameters={"number": number}).wait() is good
    assert ("at 0" in run.printed) is good
    assert ("16 deep" in run.printed) is not good


PARALLEL = """
from concurrent.futures import ThreadPoolExecutor
import repro

def call(word):
    return repro.projects.run(".", "wait", parameters={"word": word})

with ThreadPoolExecutor() as pool:
    print([r.get_status() for r in pool.map(call, ["a", "b"])])
begun = [repro.projects.run(".", "wait", {}, {"word": w}, synchronous=False) for w in "cd"]
print([b.get_status() for b in begun], [b.wait() for b in begun])
repro.projects.run(".", "late", synchronous=False)
"""


def test_calls_at_the_same_time_and_in_the_background(driver, run, marks, records, tmp_path):
    wait = (
        "touch HERE.{word}; for i in $(seq 500); do "
        "[ $(ls HERE.* | wc -l) -ge 2 ] && exit 0; sleep 0.02; done; exit 1"
    ).replace("HERE", str(tmp_path / "here"))
    folder = driver(
        main=PARALLEL.replace('"wait", {}, {"word": w}', '"wait", None, {"word": w}'),
        mlproject=f"""
entry_points:
  main: {{command: "python main.py"}}
  wait: {{parameters: {{word: {{}}}}, command: "{wait}"}}
  late: {{command: "echo late >> MARKS"}}
""",
    )
    assert run(folder, sandbox="none").wait(), run.printed
    assert "['FINISHED', 'FINISHED']" in run.printed
    assert "['RUNNING', 'RUNNING'] [True, True]" in run.printed
    assert marks() == ["late"]
    again_hit(run, folder, marks)
    assert len([r for r in records() if r.cached and r.entry_point == "wait"]) == 4


def test_the_end_of_a_driver_is_that_of_what_it_called(driver, run, records):
    folder = driver(
        main="import repro; repro.projects.run('.', 'slow')",
        mlproject="entry_points: {main: {command: 'python main.py'}, slow: {command: 'echo on; sleep 300'}}\n",
    )
    submitted = run(folder, synchronous=False)
    deadline = time.monotonic() + 30
    while b"on\n" not in [e.data for e in run.named("Output")]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    submitted.cancel()
    assert submitted.get_status() == "KILLED"
    assert {r.entry_point: r.status for r in records()} == {"main": "KILLED", "slow": "KILLED"}
    assert [t for t in threading.enumerate() if t.name == "repro-call"] == []


def test_a_driver_can_end_what_it_has_begun(driver, run, records):
    folder = driver(
        main="""
import repro

begun = repro.projects.run(".", "slow", synchronous=False)
print(begun.get_status(), begun.run_id)
begun.cancel()
print(begun.get_status(), begun.wait())
""",
        mlproject="entry_points: {main: {command: 'python main.py'}, slow: {command: 'sleep 300'}}\n",
    )
    assert run(folder).wait(), run.printed
    (slow,) = called(records, "slow")
    assert run.printed == f"RUNNING {slow.run_id}\nKILLED False\n"
    assert slow.status == "KILLED"


def test_what_a_failed_driver_has_begun_is_ended(driver, run, records):
    folder = driver(
        main="import repro; repro.projects.run('.', 'slow', synchronous=False); raise SystemExit(4)",
        mlproject="entry_points: {main: {command: 'python main.py'}, slow: {command: 'sleep 300'}}\n",
    )
    assert run(folder).exit_code == 4
    assert called(records, "slow")[0].status == "KILLED"


FILES = """
import json, os, tempfile
import repro

config = os.path.abspath("config.json")
with open(config, "w") as file:
    json.dump({"depth": 3}, file)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "data.csv")
    with open(path, "w") as file:
        file.write("1,2,3")
    parameters = {"config": config, "data": path, "own": os.path.abspath("own.txt")}
    repro.projects.run(os.getcwd(), "train", parameters=parameters)
"""


def test_files_of_the_driver_are_known_by_their_content(driver, run, marks):
    folder = driver(
        main=FILES,
        mlproject="""
entry_points:
  main: {command: "echo main >> MARKS; python main.py"}
  train:
    parameters: {config: string, data: path, own: string}
    inputs: [own.txt]
    command: "echo train >> MARKS; cat {config} {data} {own}; echo; echo {own}"
""",
    )
    (folder / "own.txt").write_text("mine")
    assert run(folder, sandbox="none").wait(), run.printed
    assert '{"depth": 3}1,2,3mine\nown.txt\n' in run.printed
    again_hit(run, folder, marks)
    (folder / "main.py").write_text(FILES + "\n# changed\n")
    assert run(folder, sandbox="none").wait()
    assert marks() == ["main"]
    (folder / "main.py").write_text(FILES.replace("1,2,3", "1,2,4"))
    assert run(folder, sandbox="none").wait()
    assert marks() == ["main", "train"]


CONFINED = """
import repro

with open("/tmp/data.csv", "w") as file:
    file.write("1,2,3")
called = repro.projects.run(".", "train", parameters={"text": "x=/tmp/data.csv", "path": "/tmp/data.csv"})
print("cached", called.cached)
"""


def test_files_of_a_confined_driver_are_found_where_they_are(driver, run, machine):
    if machine.isolation.level("") == "none":
        pytest.skip("there is no sandbox on this machine")
    text = """
entry_points:
  main: {command: "python main.py"}
  train:
    parameters: {text: string, path: path}
    inputs: [MLproject]
    command: "text={text}; cat ${text#x=} {path}; echo"
"""
    folder = driver(main=CONFINED, mlproject=text.replace("${text#x=}", "$(echo $text | cut -c3-)"))
    assert run(folder).wait(), run.printed
    assert "1,2,31,2,3\ncached False" in run.printed
    (folder / "main.py").write_text(CONFINED + "# changed\n")
    assert run(folder).wait(), run.printed
    assert "cached True" in run.printed


def test_a_changed_project_elsewhere_runs_the_driver_again(driver, project, run, marks, tmp_path):
    other = project(
        {"MLproject": "entry_points: {main: {command: 'cat x'}}\n", "x": "old\n"}, name="other"
    )
    folder = driver(
        main=f"import repro; repro.projects.run({str(other)!r})",
        mlproject="entry_points: {main: {command: 'echo main >> MARKS; python main.py'}}\n",
    )
    assert run(folder, sandbox="none").wait()
    again_hit(run, folder, marks)
    (other / "x").write_text("new\n")
    assert run(folder, sandbox="none").wait()
    assert marks() == ["main"]
    assert "`main`, which it calls, would run: " in run.reason
    assert "new" in run.printed


def test_a_folder_of_the_project_is_a_project_of_its_own(driver, run, marks, records):
    folder = driver(
        main="import os, repro; repro.run(os.path.join(os.getcwd(), 'steps', 'a')); repro.run('steps/b')\nprint(open('steps/a/out').read())",
        mlproject="entry_points: {main: {command: 'echo main >> MARKS; python main.py'}}\n",
    )
    for name in "ab":
        (folder / "steps" / name).mkdir(parents=True)
        text = f"entry_points: {{main: {{command: 'echo {name} >> {marks.path}; echo {name} > out'}}}}\n"
        (folder / "steps" / name / "MLproject").write_text(text)
    assert run(folder, sandbox="none").wait(), run.printed
    assert marks() == ["main", "a", "b"]
    assert (folder / "steps/b/out").read_text() == "b\n"
    assert {r.project for r in records()} == {
        str(folder.resolve()),
        str(folder.resolve() / "steps/a"),
        str(folder.resolve() / "steps/b"),
    }
    again_hit(run, folder, marks)


def test_variables_that_a_driver_sets_reach_steps_that_ask_for_them(driver, run, marks):
    main = "import os, repro; os.environ['GROUP'] = 'blue'; os.environ['OTHER'] = 'x'; repro.run('.', 'show')"
    folder = driver(
        main=main,
        mlproject="""
entry_points:
  main: {command: "python main.py"}
  show: {pass_env: [GROUP], command: "echo show >> MARKS; echo [$GROUP] [$OTHER]"}
""",
    )
    assert run(folder, sandbox="none").wait()
    assert "[blue] []" in run.printed
    again_hit(run, folder, marks)
    (folder / "main.py").write_text(main.replace("blue", "red"))
    assert run(folder, sandbox="none").wait()
    assert marks() == ["show"]


def test_declared_outputs_of_a_driver_are_its_own(driver, run, marks):
    folder = driver(mlproject=MLPROJECT.replace("  load:", "    outputs: [count.txt]\n  load:", 1))
    first = run(folder, sandbox="none")
    assert set(first.outputs) == {"count.txt"}
    assert run.named("Warned") == []
    again_hit(run, folder, marks)


def test_a_secret_that_is_passed_on_is_not_kept(driver, run, environ):
    folder = driver(
        main="import repro; repro.run('.', 'login', parameters={'token': 'hunter2'})",
        mlproject="""
entry_points:
  main: {command: "python main.py"}
  login: {parameters: {token: {type: string, secret: true}}, command: "echo {token}"}
""",
    )
    assert run(folder).wait()
    assert "that of `login`, which it calls, is not kept" in run.named("Warned")[-1].text
    import pathlib

    for root in (environ["REPRO_HOME"], environ["REPRO_DATA"]):
        for path in pathlib.Path(root).rglob("*"):
            assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def git(folder, *words):
    names = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    return subprocess.run(
        ["git", *names, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_driver_from_a_repository_calls_steps_of_its_own_version(driver, run, marks, records):
    folder = driver()
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "MLproject").write_text("entry_points: {}\n")
    (folder / "main.py").write_text("raise SystemExit(1)")
    assert run(folder, sandbox="none", version="trunk").wait(), run.printed
    assert marks() == ["main", "load", "count"]
    assert "counted 4" in run.printed
    assert {r.commit for r in records()} == {commit}
    again_hit(run, folder, marks, version=commit)
    assert git(folder, "status", "--porcelain", "-uno") == "M MLproject\n M main.py"


def test_a_plan_says_what_would_come_of_a_driver(driver, run, machine, marks):
    folder = driver(mlproject=DECLARED)
    request = Request(uri=str(folder), env_manager="local", sandbox="none", caller="/")
    assert foresight.foresee(request, machine).state == "run"
    assert run(folder, sandbox="none").wait()
    assert foresight.foresee(request, machine).state == "hit"
    machine.results.drop(next(e.record.key for e in run.named("Ended") if e.step == "count"))
    told = foresight.foresee(request, machine)
    assert (told.state, told.summary[:36]) == ("run", "`count`, which it calls, would run: ")
    marks()
    assert run(folder, sandbox="none").wait()
    assert marks() == ["main", "count"]


def test_a_driver_among_several_steps_is_looked_at_each_time(driver, run, marks):
    folder = driver(
        mlproject=DECLARED.replace("  load:", "    outputs: [count.txt]\n  load:", 1)
        + '  report: {inputs: [count.txt], command: "echo report >> MARKS; cat count.txt"}\n'
    )
    assert run(folder, "report", sandbox="none").wait()
    assert marks() == ["main", "load", "count", "report"]
    for _ in range(2):
        assert all(r.cached for r in run(folder, "report", sandbox="none").records)
    (folder / "MLproject").write_text((folder / "MLproject").read_text().replace("wc -c", "wc -l"))
    assert run(folder, "report", sandbox="none").wait()
    assert marks() == ["main", "count", "report"]


FAKE = {
    "mlflow/__init__.py": "from mlflow.projects import run\n",
    "mlflow/projects/__init__.py": """
class ExecutionException(Exception): pass
class SubmittedRun: pass
def run(uri, entry_point="main", version=None, parameters=None, backend="local", synchronous=True, env_manager=None):
    print("not routed", backend)
""",
    "lib/sitecustomize.py": "print('theirs')\n",
}
ROUTED = """
import os, sys
import mlflow

for backend in ("local", "cluster"):
    print("given", mlflow.run(".", "say", parameters={"n": 1}, backend=backend))
try:
    mlflow.projects.run(".", "fail", env_manager="local")
except mlflow.projects.ExecutionException as error:
    print("raised", error)
print("first", os.path.relpath(sys.path[1]))
"""
CALLING = """
entry_points:
  main: {env: {PYTHONPATH: lib}, command: "python main.py"}
  say: {parameters: {n: {type: int}}, command: "echo said {n}"}
  fail: {command: "exit 5"}
"""


@pytest.fixture
def routed(driver):
    folder = driver(main=ROUTED, mlproject=CALLING)
    for name, text in FAKE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_mlflow_runs_in_a_step_is_a_step(routed, run):
    assert run(routed).wait(), run.printed
    assert "said 1" in run.printed
    assert "given <_repro_calls.CalledRun object" in run.printed
    assert "not routed cluster\ngiven None" in run.printed
    assert "failed: exit code 5" in run.printed
    assert "theirs" in run.printed
    assert "first lib" in run.printed


def test_mlflow_can_be_left_alone(routed, run, environ):
    environ["REPRO_MLFLOW_CALLS"] = "0"
    assert run(routed).wait(), run.printed
    assert "not routed local" in run.printed
    assert "said 1" not in run.printed


def test_repro_can_be_imported_where_it_is_not_installed(driver, run):
    folder = driver(
        main="""
import sys
sys.path[:] = [path for path in sys.path if "packages" not in path and not path.endswith("main")]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import repro.projects
print(repro.__file__.rpartition("calls/")[2], repro.projects.run is repro.run)
print(repro.run(".", "say", parameters={"n": 2}).wait())
""",
        mlproject=CALLING,
    )
    assert run(folder).wait(), run.printed
    assert "late/repro.py True" in run.printed
    assert "said 2" in run.printed


def test_the_environment_of_the_driver_is_that_of_local_calls(driver, run, records, environ):
    folder = driver(
        main="import repro; repro.run('.', 'say', env_manager='local', parameters={'n': 3})",
        mlproject=CALLING,
    )
    (folder / "python_env.yaml").write_text(
        f"python: '{sys.version_info[0]}.{sys.version_info[1]}'\n"
    )
    assert run(folder, env_manager="").wait(), run.printed
    found = {r.entry_point: r.environment for r in records()}
    assert found["say"] == found["main"]

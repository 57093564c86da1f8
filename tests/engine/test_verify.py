"""A result made again: from its commit, in another room, compared, and under other conditions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from repro import repeating
from repro.conditions import VARIATIONS
from repro.errors import UsageError
from repro.plan import Request
from repro.repeating import Verifier
from repro.store.verdicts import Verdicts
from repro.system import surroundings
from repro.varying import chosen
from repro.verifying import verify

EMPTY = "entry_points:\n  main: {outputs: [out.txt], command: 'cat in.txt > out.txt'}\n"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and affinity are Linux's")


def git(folder, *words):
    identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def commit(folder, message="all"):
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


class Again:
    """Verifies runs in this process and keeps the events."""

    def __init__(self, environ):
        self.environ = environ
        self.events = []

    def __call__(self, run, **options):
        run_id = run if isinstance(run, str) else run.run_id
        with_machine = Verifier(self.environ, self.events.append)
        try:
            found = repeating.of_run(run_id, with_machine)
            return verify(found, with_machine, self.events.append, **options)
        finally:
            with_machine.close()


@pytest.fixture
def again(environ):
    return Again(environ)


# -- the same again


def test_a_result_that_comes_about_again_is_the_same(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    first = run(folder)
    found = again(first, times=2)
    assert (found.state, found.good, found.compared) == ("same", True, 1)
    assert [trial.state for trial in found.repetitions] == ["same", "same"]
    assert found.source == "the folder as it is"
    assert len({trial.run_id for trial in found.repetitions} | {first.run_id}) == 3


def test_a_result_that_does_not_is_different_with_where_and_why(project, run, again):
    command = "python3 -c 'import random; print(random.random())' > out.txt; date +%s > when.txt"
    folder = project(
        MLproject=f"entry_points:\n  main: {{command: {command!r}}}\n".replace("\\'", "''")
    )
    found = again(run(folder))
    (trial,) = found.repetitions
    assert (found.state, trial.state, found.differed[0]) == ("different", "different", "out.txt")
    one = trial.outputs[0]
    assert (one.format, one.count, one.details[0].place) == ("text", 1, "line 1")
    assert one.causes == ("random",)


def test_nothing_of_it_is_published_placed_or_mistaken_for_a_run(project, run, again, machine):
    folder = project(
        MLproject="entry_points:\n  main: {outputs: [out.txt], command: 'date +%s.%N > out.txt'}\n"
    )
    first = run(folder)
    (folder / "out.txt").unlink()
    before = machine.results.get(first.key)
    found = again(first)
    assert found.state == "different"
    assert not (folder / "out.txt").exists()
    assert machine.results.get(first.key) == before
    assert [r.run_id for r in machine.history.find()] == [first.run_id]
    record = machine.history.get(found.repetitions[0].run_id)
    assert (record.verifies, record.key) == (first.run_id, first.key)
    assert record.reason.startswith(f"verification of run {first.run_id[:8]}")
    listed = machine.history.find(verifications=True)
    assert {r.run_id for r in listed} == {first.run_id, record.run_id}
    latest = machine.history.latest(str(folder), "main")
    assert latest is not None
    assert latest.run_id == first.run_id
    assert run(folder).cached


def test_the_rules_of_compare_are_in_force(project, run, again):
    folder = project(
        MLproject="""
entry_points:
  main:
    outputs: [score.json, log.txt]
    compare: {score.json: {rtol: 0.5}, log.txt: ignore}
    command: 'echo "{{\\"at\\": 1.$RANDOM}}" > score.json; date +%N > log.txt'
"""
    )
    found = again(run(folder))
    assert found.state == "equal"
    assert {one.rule for one in found.repetitions[0].outputs} == {"rtol 0.5", "ignore"}


def test_a_step_that_fails_when_it_is_made_again_is_no_good(project, run, again, tmp_path):
    mark = tmp_path / "mark"
    folder = project(
        MLproject=f"""
entry_points:
  main: {{sandbox: none, command: "echo 1 > out.txt; mkdir {mark}"}}
"""
    )
    found = again(run(folder), vary=("umask",))
    assert (found.state, found.variations) == ("failed", ())
    assert found.repetitions[0].why == "it failed with exit code 1"


def test_the_verdict_is_kept_for_the_key(project, run, again, environ):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    first = run(folder)
    found = again(first)
    assert Verdicts(environ["REPRO_DATA"]).get(first.key) == (found,)


# -- which run, and from where


def test_a_hit_stands_for_the_run_that_it_reused(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    first = run(folder)
    assert again(run(folder)).run_id == first.run_id
    assert again(again(first).repetitions[0].run_id).run_id == first.run_id


def test_a_run_without_a_result_is_refused(project, run, again):
    folder = project(MLproject="entry_points:\n  main: {command: 'exit 3'}\n")
    with pytest.raises(UsageError, match="is failed: there is no result"):
        again(run(folder))


def test_the_files_are_those_of_the_commit_and_not_of_the_folder(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n", ".gitignore": "out.txt\n"})
    commit(folder)
    first = run(folder)
    (folder / "in.txt").write_text("2\n")
    (folder / "more.txt").write_text("more\n")
    found = again(first)
    assert found.state == "same"
    assert found.source.startswith("commit ")
    commit(folder, "later")
    assert again(first).state == "same"


def test_a_result_that_was_committed_is_no_input_of_its_step(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    commit(folder)
    run(folder)
    commit(folder, "with the result")
    (folder / "in.txt").write_text("2\n")
    commit(folder, "another input")
    second = run(folder)
    assert not second.cached
    assert again(second).source.startswith("commit ")


def test_ignored_inputs_are_taken_from_the_folder(project, run, again):
    text = EMPTY.replace("{outputs", "{inputs: [in.txt], outputs")
    folder = project(MLproject=text, **{"in.txt": "1\n", ".gitignore": "*.txt\n"})
    commit(folder)
    found = again(run(folder))
    assert (found.state, found.source) == ("same", "the folder as it is")


def test_what_differs_is_said_where_the_step_is_not_the_same_any_more(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    first = run(folder)
    (folder / "in.txt").write_text("2\n")
    with pytest.raises(UsageError, match=r"cannot be made again: file in.txt \w+ → \w+"):
        again(first)


def test_a_project_that_is_gone_is_said(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    first = run(folder)
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="there is no project at"):
        again(first)


def test_parameters_are_those_that_were_given(project, run, again):
    folder = project(
        MLproject="""
entry_points:
  main:
    parameters: {a: {default: one}, b: {type: path}, c: {flag: true}}
    command: "echo {a} $(cat {b}) > out.txt"
""",
        **{"data.txt": "inside"},
    )
    given = {"a": "it's $HOME; {b}", "b": str(folder / "data.txt"), "c": "true", "extra": "x y"}
    first = run(folder, parameters=given)
    assert first.wait()
    assert again(first).state == "same"


def test_secrets_have_to_be_there_again(project, run, again, environ):
    folder = project(
        MLproject="""
entry_points:
  main:
    parameters: {pass-word: {secret: true}}
    secrets: [TOKEN]
    command: "test {pass-word} = correct && test $TOKEN = horse && echo good > out.txt"
"""
    )
    environ["TOKEN"] = "horse"
    first = run(folder, parameters={"pass-word": "correct"})
    assert first.wait()
    with pytest.raises(UsageError, match="secret parameter `pass-word`"):
        again(first)
    environ["PASS_WORD"] = "correct"
    assert again(first).state == "same"
    environ["PASS_WORD"] = "another"
    with pytest.raises(UsageError, match="cannot be made again: param pass-word"):
        again(first)
    environ["PASS_WORD"] = "correct"
    del environ["TOKEN"]
    with pytest.raises(UsageError, match="needs the secret `TOKEN`"):
        again(first)


def test_the_latest_result_of_a_step_is_found_by_its_project(project, run, machine):
    folder = project(
        MLproject="entry_points:\n  main: {parameters: {a: {default: 1}}, command: 'echo {a} > o'}\n"
    )
    one, two = run(folder), run(folder, parameters={"a": "2"})
    request = Request(uri=str(folder))
    assert repeating.of_step(request, machine).run_id == two.run_id
    asked = Request(uri=str(folder), parameters={"a": "1"})
    assert repeating.of_step(asked, machine).run_id == one.run_id
    with pytest.raises(UsageError, match="no run of `main` in this project has a result with"):
        repeating.of_step(Request(uri=str(folder), parameters={"a": "3"}), machine)


# -- several steps

PIPELINE = """
entry_points:
  make:
    inputs: [in.txt]
    outputs: [made.txt]
    command: "cat in.txt > made.txt; {more}"
  main:
    inputs: [made.txt]
    outputs: [end.txt]
    command: "cat made.txt > end.txt"
"""


@pytest.fixture
def pipeline(project, run):
    def make(more):
        folder = project(MLproject=PIPELINE.replace("{more}", more), **{"in.txt": "1\n"})
        done = run(folder)
        assert done.wait()
        return folder, done

    return make


def test_what_other_steps_made_is_taken_from_the_inputs_of_the_run(pipeline, run, again, machine):
    _folder, done = pipeline("date +%N >> made.txt")
    machine.results.drop(done.records[0].key)  # made again, it would be another file
    assert again(done).state == "same"
    listed = machine.history.find(verifications=True)
    assert [r.entry_point for r in listed if r.verifies] == ["main"]


def test_other_steps_are_run_where_what_they_made_is_gone(pipeline, again, machine):
    _folder, done = pipeline("true")
    made = machine.tree_of(done.records[0].outputs)
    machine.results.drop(done.records[0].key)
    os.unlink(machine.blobs.path(done.records[0].parts["inputs"]))
    os.unlink(machine.blobs.path(done.record.parts["inputs"]))
    assert again(done).state == "same"
    assert made is not None
    listed = [r for r in machine.history.find(verifications=True) if r.verifies]
    assert sorted(r.entry_point for r in listed) == ["main", "make"]


# -- environments


@pytest.mark.network
def test_the_environment_is_made_anew_and_thrown_away(project, run, again, environ, network):
    environ |= network
    folder = project(
        MLproject="""
python_env: python_env.yaml
entry_points:
  main: {command: "python -c 'import iniconfig; print(iniconfig.__name__)' > out.txt"}
""",
        **{"python_env.yaml": "dependencies: [iniconfig==2.0.0]\n"},
    )
    first = run(folder, env_manager="")
    assert first.wait()
    (prefix,) = os.scandir(os.path.join(environ["REPRO_HOME"], "envs"))
    for place in (prefix.path, *(e.path for e in os.scandir(os.path.join(prefix.path, "lib")))):
        assert os.path.isdir(place)
    shutil.rmtree(os.path.join(prefix.path, "lib"))  # nobody may look at that one
    found = again(first)
    assert found.state == "same"
    assert found.environment.startswith("python, made anew")
    assert os.listdir(os.path.join(environ["REPRO_HOME"], "tmp")) == []


# -- under other conditions

PLANTED = {
    "path": "basename $PWD > out.txt",
    "home": "basename $(dirname $HOME) > out.txt",
    "user": "id -u > out.txt",
    "umask": "touch new; stat -c %a new > out.txt",
    "timezone": "date -d @86400 +%c > out.txt",
    "locale": "echo $LC_ALL > out.txt",
    "hashseed": "python3 -c 'print(set(\"abcdefghijkl\"))' > out.txt",
    "cpus": "python3 -c 'import os; print(len(os.sched_getaffinity(0)))' > out.txt",
    "threads": "echo threads $OMP_NUM_THREADS > out.txt",
    "fileorder": "ls -U data > out.txt",
    "environment": r"tr '\0' '\n' < /proc/$$/environ | cut -d= -f1 | grep -nx -e TZ -e LANG > out.txt",
    "hostname": "uname -n > out.txt",
    "clock": "echo $(($(date +%s) / 86400)) > out.txt",  # no date: that differs between zones
}


def needed(name):
    """Say what a variation needs that this machine has not."""
    if name == "clock" and not surroundings.faketime():
        return "apt-get install faketime"
    if name == "cpus" and len(surroundings.processors()) < 2:
        return "a second processor"
    if name in ("user", "hostname"):
        options = ["--user", "--map-user=1"] if name == "user" else ["--uts"]
        return surroundings.fault([surroundings.program("unshare") or "unshare", *options, "true"])
    return ""


def planted(project, name, **more):
    folder = project(
        {f"data/{letter}": letter for letter in "abcdefgh"},
        MLproject="entry_points:\n  main:\n    outputs: [out.txt]\n    command: |\n      "
        + PLANTED[name],
        **more,
    )
    commit(folder)
    return folder


@LINUX
@pytest.mark.parametrize("name", VARIATIONS)
def test_what_depends_on_one_condition_is_blamed_on_that_alone(project, run, again, name):
    missing = needed(name)
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    first = run(planted(project, name))
    assert first.wait()
    found = again(first, vary=tuple(VARIATIONS))
    assert found.dependences == (name,)
    assert (found.state, found.unstable) == ("different", ())
    (blamed,) = [trial for trial in found.variations if trial.name == name]
    assert blamed.outputs[0].path == "out.txt"


@LINUX
def test_what_depends_on_nothing_is_the_same_under_all_conditions(project, run, again):
    folder = project(MLproject=EMPTY, **{"in.txt": "1\n"})
    found = again(run(folder), vary=tuple(VARIATIONS))
    assert found.state == "same"
    assert {trial.name for trial in found.variations} == set(VARIATIONS)
    assert {trial.state for trial in found.variations} <= {"same", "skipped"}


def test_what_differs_by_itself_is_blamed_on_no_condition(project, run, again):
    folder = project(
        MLproject="""
entry_points:
  main: {command: "echo $RANDOM$RANDOM > random.txt; umask > mask.txt"}
"""
    )
    found = again(run(folder), vary=("timezone", "umask"))
    assert found.unstable == ("random.txt",)
    assert found.dependences == ("umask",)
    (mask,) = (trial for trial in found.variations if trial.name == "umask")
    assert [one.path for one in mask.outputs] == ["mask.txt"]


def test_what_changes_now_and_then_is_blamed_on_no_condition(project, run, again):
    """The second of two executions under the same conditions may still agree by chance."""
    folder = project(
        MLproject="""
entry_points:
  main: {command: "date +%s > second.txt; sleep 0.4; umask > mask.txt"}
"""
    )
    found = again(run(folder), vary=("home", "timezone", "umask", "environment"))
    assert found.dependences == ("umask",)
    assert set(found.unstable) <= {"second.txt"}


def test_where_everything_differs_by_itself_no_condition_is_tried(project, run, again):
    folder = project(
        MLproject="entry_points:\n  main: {command: 'echo $RANDOM$RANDOM > out.txt'}\n"
    )
    found = again(run(folder), vary=("umask",))
    assert [(t.name, t.state) for t in found.variations] == [("umask", "skipped")]


@LINUX
@pytest.mark.parametrize("waits", ["pass", "time.sleep(0.01)", "threading.Event().wait(0.01)"])
def test_the_clock_stands_still_to_be_told_from_what_is_random(project, run, again, waits):
    if needed("clock"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(needed("clock"))
    script = f"import threading, time\n{waits}\nprint(time.time_ns())\n"
    folder = project(
        {"now.py": script},
        MLproject="entry_points:\n  main: {command: 'python3 now.py > now.txt; umask > mask.txt; echo $RANDOM$RANDOM > random.txt'}\n",
    )
    found = again(run(folder), vary=("umask", "clock"))
    assert found.dependences == ("clock", "umask")
    assert found.unstable == ("random.txt",)
    (clock,) = (trial for trial in found.variations if trial.name == "clock")
    assert [one.path for one in clock.outputs] == ["now.txt"]


def test_what_the_project_fixes_is_not_changed(project, run, again):
    folder = project(
        MLproject="""
entry_points:
  main: {env: {TZ: Asia/Tokyo, PYTHONHASHSEED: "7"}, command: "echo $TZ $PYTHONHASHSEED > out.txt"}
"""
    )
    found = again(run(folder), vary=("timezone", "hashseed"))
    assert found.state == "same"
    assert [trial.why for trial in found.variations] == [
        "the project sets `TZ`",
        "the project sets `PYTHONHASHSEED`",
    ]


def test_a_step_that_fails_under_a_condition_depends_on_it(project, run, again):
    folder = project(
        MLproject="entry_points:\n  main: {command: 'test $TZ = UTC && echo 1 > out.txt'}\n"
    )
    found = again(run(folder), vary=("umask", "timezone"))
    assert (found.state, found.dependences) == ("different", ("timezone",))


def test_variations_are_chosen_by_name():
    assert chosen([]) == tuple(VARIATIONS)
    assert chosen(["clock,path", "umask"]) == ("path", "umask", "clock")
    with pytest.raises(UsageError, match="no variation `pat`"):
        chosen(["pat"])

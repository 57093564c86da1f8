"""Several steps of one run: in order, at once, cut off early, and gone on with after a failure."""

from __future__ import annotations

import threading
import time

import pytest

from repro import foresight
from repro.errors import GraphInvalid, ParameterInvalid, SourceUnusable, UsageError
from repro.plan import Course, Request

PIPELINE = """
entry_points:
  fetch:
    inputs: [source.txt]
    outputs: [data/raw.txt]
    command: "echo fetch >> COUNT; mkdir -p data; cat source.txt > data/raw.txt"
  clean:
    inputs: [data/raw.txt]
    outputs: [data/clean.txt]
    command: "echo clean >> COUNT; sort -u data/raw.txt > data/clean.txt"
  count:
    inputs: [data/clean.txt]
    outputs: [count.txt]
    command: "echo count >> COUNT; wc -l < data/clean.txt > count.txt"
  main:
    inputs: [data/clean.txt, count.txt]
    outputs: [report.txt]
    command: "echo main >> COUNT; cat count.txt data/clean.txt > report.txt"
"""


@pytest.fixture
def pipeline(project, tmp_path):
    marks = tmp_path / "marks"
    folder = project(
        {"MLproject": PIPELINE.replace("COUNT", str(marks)), "source.txt": "b\na\nb\n"}
    )

    def executed():
        found = marks.read_text().split() if marks.exists() else []
        marks.write_text("")
        return found

    return folder, executed


@pytest.mark.parametrize("jobs", [1, 4])
def test_what_a_step_needs_runs_first_and_everything_is_reused_afterwards(pipeline, run, jobs):
    folder, executed = pipeline
    first = run(folder, course=Course(jobs=jobs))
    assert first.wait()
    assert executed() == ["fetch", "clean", "count", "main"]
    assert (folder / "report.txt").read_text() == "2\na\nb\n"
    assert [r.entry_point for r in first.records] == ["fetch", "clean", "count", "main"]
    assert {r.parent_run for r in first.records[:-1]} == {first.run_id}
    second = run(folder, course=Course(jobs=jobs))
    assert second.wait()
    assert executed() == []
    assert all(r.cached for r in second.records)


def test_only_what_a_change_reaches_runs_again(pipeline, run):
    folder, executed = pipeline
    run(folder)
    executed()
    (folder / "source.txt").write_text("c\na\n")
    run(folder)
    # the number of lines is the same, but `main` sees the lines themselves too
    assert executed() == ["fetch", "clean", "count", "main"]
    assert (folder / "report.txt").read_text() == "2\na\nc\n"


def test_an_unchanged_intermediate_result_stops_the_rebuild_there(pipeline, run):
    folder, executed = pipeline
    run(folder)
    executed()
    (folder / "source.txt").write_text("a\nb\n")  # sorts to the same
    last = run(folder)
    assert executed() == ["fetch", "clean"]
    assert [r.cached for r in last.records] == [False, False, True, True]


def test_an_intermediate_output_that_somebody_edited_is_not_believed(pipeline, run):
    folder, executed = pipeline
    run(folder)
    executed()
    (folder / "data/clean.txt").write_text("tampered\n")
    (folder / "report.txt").unlink()
    assert run(folder).wait()
    assert executed() == []
    assert (folder / "report.txt").read_text() == "2\na\nb\n"
    assert (folder / "data/clean.txt").read_text() == "a\nb\n"


def test_a_stale_file_of_an_earlier_run_is_not_taken_for_an_output(project, run):
    folder = project(
        MLproject="""
entry_points:
  split:
    inputs: [names.txt]
    outputs: ["parts/*"]
    command: "mkdir -p parts; for n in $(cat names.txt); do echo $n > parts/$n; done"
  main:
    inputs: ["parts/*"]
    outputs: [all.txt]
    command: "cat parts/* > all.txt"
""",
        **{"names.txt": "a b c"},
    )
    run(folder)
    assert (folder / "all.txt").read_text() == "a\nb\nc\n"
    (folder / "names.txt").write_text("a c")
    run(folder)
    assert (folder / "all.txt").read_text() == "a\nc\n"


def test_undeclared_outputs_of_a_needed_step_are_seen_and_not_stale(project, run):
    folder = project(
        MLproject="""
entry_points:
  make: {command: "cat in.txt > made.txt"}
  main: {needs: [make], command: "cat made.txt > end.txt"}
""",
        **{"in.txt": "one"},
    )
    assert run(folder).wait()
    (folder / "in.txt").write_text("two")
    assert run(folder).wait()
    assert (folder / "end.txt").read_text() == "two"
    assert [r.cached for r in run(folder).records] == [True, True]


def test_the_same_result_by_way_of_needs_and_of_files_that_were_committed(pipeline, run):
    folder, executed = pipeline
    run(folder)
    executed()
    alone = project_of(folder, without=("fetch", "clean", "count"))
    again = run(alone)
    assert again.cached  # the step saw the same files, wherever they came from
    assert executed() == []


def project_of(folder, without):
    import shutil

    import yaml

    other = folder.with_name("other")
    shutil.copytree(folder, other)
    text = yaml.safe_load((other / "MLproject").read_text())
    for name in without:
        del text["entry_points"][name]
    (other / "MLproject").write_text(yaml.safe_dump(text))
    (other / "report.txt").unlink()
    return other


def test_parameters_of_a_needed_step_come_from_those_of_the_caller(project, run):
    folder = project(
        MLproject="""
entry_points:
  train:
    parameters: {lr: float, seed: {default: 1}}
    outputs: [model.txt]
    command: "echo {lr} {seed} > model.txt"
  main:
    parameters: {rate: {type: float, default: 0.1}}
    needs: [{step: train, parameters: {lr: "{rate}"}}]
    inputs: [model.txt]
    outputs: [out.txt]
    command: "cat model.txt > out.txt"
"""
    )
    run(folder, parameters={"rate": "0.5"})
    assert (folder / "out.txt").read_text() == "0.5 1\n"
    run(folder)
    assert (folder / "out.txt").read_text() == "0.1 1\n"
    assert all(r.cached for r in run(folder, parameters={"rate": "0.5"}).records)


# --- failures ------------------------------------------------------------------------------

BROKEN = """
entry_points:
  good: {inputs: [], outputs: [good.txt], command: "echo good >> COUNT; sleep 0.1; echo > good.txt"}
  bad: {inputs: [flag], outputs: [bad.txt], command: "echo bad >> COUNT; test -s flag && echo > bad.txt"}
  after: {inputs: [bad.txt], outputs: [after.txt], command: "echo after >> COUNT; echo > after.txt"}
  other: {inputs: [good.txt], outputs: [other.txt], command: "echo other >> COUNT; echo > other.txt"}
  main: {needs: [bad, good, after, other], inputs: [], command: "echo main >> COUNT"}
"""


@pytest.fixture
def broken(project, tmp_path):
    marks = tmp_path / "marks"
    folder = project({"MLproject": BROKEN.replace("COUNT", str(marks)), "flag": ""})

    def executed():
        found = marks.read_text().split() if marks.exists() else []
        marks.write_text("")
        return sorted(found)

    return folder, executed


def test_a_failure_stops_the_run_and_the_target_says_which_step_it_was(broken, run):
    folder, executed = broken
    failed = run(folder)
    assert not failed.wait()
    assert executed() == ["bad"]
    assert failed.record.entry_point == "main"
    assert failed.record.status == "FAILED"
    assert failed.record.error == "not started: the step `bad`, which it needs, failed"
    assert failed.record.exit_code is None


@pytest.mark.parametrize("jobs", [1, 3])
def test_keep_going_runs_all_that_does_not_need_it(broken, run, jobs):
    folder, executed = broken
    assert not run(folder, course=Course(keep_going=True, jobs=jobs)).wait()
    assert executed() == ["bad", "good", "other"]


def test_the_next_run_goes_on_where_the_last_one_failed(broken, run):
    folder, executed = broken
    run(folder, course=Course(keep_going=True))
    executed()
    (folder / "flag").write_text("x")
    assert run(folder).wait()
    assert executed() == ["after", "bad", "main"]


def test_from_runs_a_step_and_all_after_it_again(pipeline, run):
    folder, executed = pipeline
    run(folder)
    executed()
    run(folder, course=Course(again=("count",)))
    assert executed() == ["count", "main"]
    with pytest.raises(UsageError, match="`nothing` is no step of this run"):
        run(folder, course=Course(again=("nothing",)))


def test_mistakes_in_any_step_are_told_before_one_has_run(project, run, tmp_path):
    marks = tmp_path / "marks"

    def refused(error, match, second, **options):
        text = (
            "entry_points:\n"
            f"  first: {{inputs: [], outputs: [x], command: 'touch {marks} x'}}\n"
            f"  main: {{inputs: [x], {second}}}\n"
        )
        with pytest.raises(error, match=match):
            run(project(MLproject=text), **options)
        assert not marks.exists()

    refused(ParameterInvalid, "`p`", "parameters: {p: string}, command: 'echo {p}'")
    refused(UsageError, "`TOKEN`", "secrets: [TOKEN], command: 'true'")
    refused(GraphInvalid, "both declare", "outputs: [x], needs: [first], command: 'true'")


def test_an_input_that_nobody_makes_is_told_before_anything_runs(project, run, tmp_path):
    marks = tmp_path / "marks"
    text = (
        "entry_points:\n"
        f"  first: {{inputs: [], outputs: [x], command: 'touch {marks} x'}}\n"
        "  main: {inputs: [x, data/missing.csv], command: 'true'}\n"
    )
    with pytest.raises(SourceUnusable, match=r"`data/missing.csv` of step `main` is not there"):
        run(project(MLproject=text))
    assert not marks.exists()


# --- at the same time ----------------------------------------------------------------------


def wide(width, sleep=0.0):
    steps = "".join(
        f"  s{i}: {{inputs: [], outputs: [out/{i}], command: 'echo line {i}; sleep {sleep}; mkdir -p out; echo {i} > out/{i}'}}\n"
        for i in range(width)
    )
    needs = ", ".join(f"s{i}" for i in range(width))
    return f"entry_points:\n{steps}  main: {{needs: [{needs}], inputs: [out], outputs: [sum], command: 'cat out/* > sum'}}\n"


def test_steps_run_at_the_same_time_and_their_output_is_kept_apart(project, run):
    folder = project(MLproject=wide(8, 0.3))
    started = run(folder, course=Course(jobs=8))
    assert started.wait()
    begun = [
        (e.step, type(e).__name__) for e in run.events if type(e).__name__ in ("Started", "Ended")
    ]
    kinds = [kind for _step, kind in begun]
    assert kinds[:3] == ["Started"] * 3  # at least three before the first one ended
    for i in range(8):
        said = b"".join(e.data for e in run.named("Output") if e.step == f"s{i}")
        assert said == f"line {i}\n".encode()
    assert (folder / "sum").read_text().split() == [str(i) for i in range(8)]
    assert all(r.cached for r in run(folder).records)


def test_steps_that_ask_for_all_processors_run_one_after_the_other(project, run):
    text = wide(3, 0.1).replace("{inputs: [], ", "{resources: {cpus: 1000}, inputs: [], ")
    run(project(MLproject=text), course=Course(jobs=3))
    order = [type(e).__name__ for e in run.events if type(e).__name__ in ("Started", "Ended")]
    assert order == ["Started", "Ended"] * 4


@pytest.mark.parametrize("jobs", [1, 4])
def test_cancel_ends_all_steps_and_starts_no_other(project, run, jobs):
    folder = project(MLproject=wide(4, 60))
    submitted = run(folder, course=Course(jobs=jobs), synchronous=False)
    while len([e for e in run.events if type(e).__name__ == "Started"]) < jobs:
        time.sleep(0.02)
    submitted.cancel()
    assert submitted.get_status() == "KILLED"
    assert not [t for t in threading.enumerate() if t.name.startswith("repro-")]
    killed = run.named("Ended")
    assert len(killed) <= jobs + 1  # and the target, which was never begun
    assert {e.record.status for e in killed} <= {"KILLED"}


# --- foreseeing ----------------------------------------------------------------------------


def foreseen(folder, machine, **options):
    request = Request(uri=str(folder), env_manager="local", caller="/", **options)
    return {one.step: one for one in foresight.foresee_all(request, machine)}


def test_the_plan_says_what_is_reused_what_runs_and_what_depends_on_that(pipeline, run, machine):
    folder, _executed = pipeline
    states = {name: one.state for name, one in foreseen(folder, machine).items()}
    assert states == {"fetch": "run", "clean": "depends", "count": "depends", "main": "depends"}
    run(folder)
    assert {one.state for one in foreseen(folder, machine).values()} == {"hit"}
    text = (folder / "MLproject").read_text().replace("wc -l", "wc -c")
    (folder / "MLproject").write_text(text)
    found = foreseen(folder, machine)
    assert [one.state for one in found.values()] == ["hit", "hit", "run", "depends"]
    assert "command" in found["count"].summary
    assert "if `count` makes" in found["main"].summary
    assert found["main"].needs == ("clean", "count")


UNNAMED = """
entry_points:
  a: {outputs: [a.txt], command: "echo TAG > a.txt"}
  b: {outputs: [b.txt], command: "echo b >> COUNT; echo b > b.txt"}
  c: {needs: [a], outputs: [c.txt], command: "echo c > c.txt"}
  main: {needs: [b, c], outputs: [end.txt], command: "cat b.txt c.txt > end.txt"}
"""


def test_what_a_step_does_not_need_is_no_input_of_it_whatever_stands_there(project, run, tmp_path):
    folder = project(MLproject=UNNAMED.replace("TAG", "1").replace("COUNT", str(tmp_path / "n")))
    assert run(folder).wait()
    assert all(r.cached for r in run(folder).records)
    text = (folder / "MLproject").read_text()
    (folder / "MLproject").write_text(text.replace("echo 1", "echo 2"))
    assert run(folder).wait()  # `a.txt` is written anew while `b` is prepared
    assert all(r.cached for r in run(folder).records)


def test_a_folder_for_the_outputs_changes_nothing_for_the_steps_before(project, run, tmp_path):
    steps = """
entry_points:
  a: {command: "echo 1 > a.txt"}
  main: {needs: [a], inputs: [a.txt], outputs: [b.txt], command: "cp a.txt b.txt"}
"""
    folder = project(MLproject=steps)
    assert run(folder).wait()
    again = run(folder, output=str(tmp_path / "elsewhere"))
    assert again.wait()
    assert all(record.cached for record in again.records)
    assert (tmp_path / "elsewhere" / "b.txt").read_text() == "1\n"
    assert not (tmp_path / "elsewhere" / "a.txt").exists()

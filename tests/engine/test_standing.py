"""A run with nothing to do is known by one look, and by that look only as long as it is true."""

from __future__ import annotations

import os
import subprocess

import pytest

from repro.plan import Course

PIPELINE = """
entry_points:
  one: {inputs: [a.txt], outputs: [build/one.txt], command: "mkdir -p build; cat a.txt > build/one.txt"}
  main:
    parameters: {p: {default: x}}
    inputs: [build/one.txt]
    outputs: [two.txt]
    pass_env: [WORD]
    command: "echo {p} $WORD $(cat build/one.txt) > two.txt"
"""


@pytest.fixture
def standing(project, run):
    """A project whose next run has nothing to do, and knows it."""
    folder = project({"MLproject": PIPELINE, "a.txt": "a"})
    run(folder)
    run(folder)
    assert looked(run(folder), run)
    return folder


def looked(submitted, run):
    """Say whether a run was answered by one look."""
    reused = run.named("Reused")
    return submitted.cached and len(reused) == 1 and reused[0].steps == 2


def test_the_answer_is_that_of_the_steps(standing, run):
    found = run(standing)
    assert looked(found, run)
    assert found.wait()
    assert found.record.entry_point == "main"
    assert found.parameters == {"p": "x"}
    assert found.outputs["two.txt"].size == len("x a\n")
    assert found.placed
    assert found.name == "main"
    ids = {run(standing).run_id for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "a.txt").write_text("b"),
        lambda f: (f / "MLproject").write_text(PIPELINE.replace("default: x", "default: y")),
        lambda f: (f / "two.txt").write_text("tampered"),
        lambda f: (f / "two.txt").unlink(),
        lambda f: (f / "build/one.txt").write_text("tampered"),
        lambda f: (f / "build/one.txt").chmod(0o755),
        lambda f: os.replace(f / "build", f / "elsewhere"),
    ],
)
def test_whatever_changes_is_noticed_and_put_right(standing, run, change):
    change(standing)
    found = run(standing)
    assert not looked(found, run)
    assert found.wait()
    text = (standing / "a.txt").read_text()
    default = "y" if "default: y" in (standing / "MLproject").read_text() else "x"
    assert (standing / "two.txt").read_text() == f"{default} {text}\n"
    assert (standing / "build/one.txt").read_text() == text


def test_tampering_behind_the_back_of_git_is_noticed(standing, run):
    subprocess.run(["git", "init", "-q", standing], check=True)
    (standing / ".gitignore").write_text("build/\ntwo.txt\n")
    for _ in range(3):
        run(standing)
    before = os.stat(standing / "build/one.txt")
    (standing / "build/one.txt").write_text("b")
    os.utime(standing / "build/one.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not looked(run(standing), run)
    assert (standing / "build/one.txt").read_text() == "a"


def test_another_parameter_variable_or_level_is_another_question(standing, run):
    assert not looked(run(standing, parameters={"p": "z"}), run)
    assert (standing / "two.txt").read_text() == "z a\n"
    run.environ = {**run.environ, "WORD": "word"}
    assert not looked(run(standing), run)
    assert (standing / "two.txt").read_text() == "x word a\n"
    run(standing)
    assert looked(run(standing), run)
    run.environ = {**run.environ, "REPRO_SANDBOX": "mounts"}
    assert not run(standing).cached  # what was made without a sandbox does not serve


def test_who_asks_for_execution_gets_it(standing, run):
    assert not run(standing, course=Course(again=("main",))).cached
    run(standing)
    assert not run(standing, use_results=False).cached


def test_a_store_that_lost_a_result_is_noticed(standing, run, machine):
    key = run(standing).record.key
    machine.results.drop(key)
    assert not looked(run(standing), run)


def test_an_input_that_git_ignores_is_no_reason_to_look_away(project, run):
    text = PIPELINE.replace("inputs: [a.txt]", "inputs: [data/a.txt]").replace(
        "cat a.txt", "cat data/a.txt"
    )
    folder = project({"MLproject": text, "data/a.txt": "a", ".gitignore": "data/\n"})
    subprocess.run(["git", "init", "-q", folder], check=True)
    for _ in range(3):
        run(folder)
    (folder / "data/a.txt").write_text("b")
    run(folder)
    assert (folder / "build/one.txt").read_text() == "b"


def test_secrets_and_files_elsewhere_are_looked_at_each_time(project, run, tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("one")
    text = PIPELINE.replace("p: {default: x}", "p: path").replace("echo {p}", "cat {p} >")
    folder = project(
        {"MLproject": text.replace("$WORD $(cat build/one.txt) > two.txt", "two.txt"), "a.txt": "a"}
    )
    for _ in range(3):
        run(folder, parameters={"p": str(data)})
    data.write_text("two")
    assert not run(folder, parameters={"p": str(data)}).cached
    assert (folder / "two.txt").read_text() == "two"

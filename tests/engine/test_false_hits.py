"""No run gives an old answer, however a project, its variables and its environment change.

Short histories, and the proof that they find what they must; `faults/deep.py` plays a thousand.
"""

from __future__ import annotations

from faults.forms import short, watches

HALF = ".0123456789ab~repro"


@watches
def test_histories_of_changing_projects_agree_with_a_model():
    short("histories")


@watches
def test_planted_faults_of_the_cache_are_found_by_histories():
    short("history-mutants")


def test_what_a_killed_run_left_half_written_is_no_input(project, run):
    folder = project(MLproject="entry_points: {main: {command: 'ls -A > o'}}\n")
    assert run(folder).wait()
    (folder / HALF).write_text("ha")
    assert run(folder).cached
    assert HALF not in (folder / "o").read_text()


def test_what_a_killed_run_left_half_written_is_no_output(project, run):
    text = f"entry_points: {{main: {{command: 'echo 1 > o; echo ha > {HALF}'}}}}\n"
    assert list(run(project(MLproject=text)).outputs) == ["o"]

"""A step sees what it declares, at the level that is in force, and the result says at which."""

from __future__ import annotations

import pytest

from repro.errors import ProjectInvalid, Unsupported, UsageError
from repro.isolation import Isolation
from repro.plan import LEVELS


@pytest.fixture
def confined(run):
    """Runs with the sandbox that is there by default."""
    run.environ = {**run.environ, "REPRO_SANDBOX": "auto"}
    return run


@pytest.fixture
def outside(tmp_path):
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret.txt").write_text("hush")
    return place


def test_an_undeclared_file_is_not_there_and_the_hint_says_how_to_declare_it(
    project, confined, outside
):
    folder = project(
        MLproject=f"entry_points: {{main: {{inputs: [], command: cat {outside}/secret.txt}}}}\n"
    )
    failed = confined(folder)
    assert failed.record.status == "FAILED"
    assert failed.record.sandbox == "mounts"
    assert failed.record.means
    assert "hush" not in confined.printed
    (warned,) = confined.named("Warned")
    assert f"`{outside}/secret.txt`" in warned.text
    assert f"`- {outside}/secret.txt` to `mounts:`" in warned.hint
    declared = f"entry_points: {{main: {{inputs: [], mounts: [{outside}/secret.txt], command: cat {outside}/secret.txt}}}}\n"
    (folder / "MLproject").write_text(declared)
    assert confined(folder).wait()
    assert confined.printed == "hush"
    (outside / "secret.txt").write_text("other")
    assert not confined(folder).cached
    assert confined.printed == "other"


def test_a_file_of_the_project_that_is_no_input_is_named_for_the_inputs(project, confined):
    folder = project(
        MLproject="entry_points: {main: {inputs: [a.txt], command: cat a.txt data/b.txt}}\n",
        **{"a.txt": "a", "data/b.txt": "b"},
    )
    assert not confined(folder).wait()
    (warned,) = confined.named("Warned")
    assert "`- data/b.txt` to `inputs:`" in warned.hint


def test_writing_outside_fails_and_changes_nothing(project, confined, outside):
    text = f"entry_points: {{main: {{inputs: [], command: 'echo x > {outside}/new; rm -f {outside}/secret.txt; true'}}}}\n"
    confined(project(MLproject=text))
    assert [p.name for p in outside.iterdir()] == ["secret.txt"]


def test_a_path_parameter_can_be_read(project, confined, outside):
    text = "entry_points: {main: {parameters: {data: path}, inputs: [], command: 'cat {data}'}}\n"
    assert confined(
        project(MLproject=text), parameters={"data": str(outside / "secret.txt")}
    ).wait()
    assert confined.printed == "hush"


def test_without_a_network_nothing_is_reached_but_the_receiver(project, confined):
    import socket

    script = (
        "(: < /dev/tcp/127.0.0.1/$1) 2> /dev/null && echo reached || echo not\n"
        "port=${MLFLOW_TRACKING_URI##*:}; (: < /dev/tcp/127.0.0.1/${port%%/*}) && echo receiver\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for network, said in (("true", "reached"), ("false", "not")):
            text = f"entry_points: {{main: {{inputs: [knock.sh], network: {network}, command: bash knock.sh {port}}}}}\n"
            confined(project({"MLproject": text, "knock.sh": script}))
            assert confined.printed.split() == [said, "receiver"]
            assert not confined.named("Warned")


# --- results -------------------------------------------------------------------------------


def test_a_result_serves_at_its_own_level_and_below(project, run):
    folder = project(MLproject="entry_points: {main: {inputs: [], command: echo x}}\n")

    def cached(level):
        run.environ = {**run.environ, "REPRO_SANDBOX": level}
        return run(folder).cached

    assert not cached("none")
    assert cached("none")
    assert not cached("mounts")
    assert "made at sandbox level `none`" in run.reason
    assert cached("mounts")
    assert cached("none")
    assert cached("auto")
    assert not cached("hermetic")
    assert cached("hermetic")
    assert cached("auto")


def test_the_level_can_be_asked_for_in_three_places(project, run):
    folder = project(
        MLproject="entry_points: {main: {inputs: [], sandbox: hermetic, command: echo x}}\n"
    )
    assert run(folder).record.sandbox == "hermetic"
    assert run(folder, sandbox="none", use_results=False).record.sandbox == "none"
    with pytest.raises(UsageError, match="no sandbox level `iron`"):
        run(folder, sandbox="iron")
    with pytest.raises((UsageError, ProjectInvalid)):
        run(project(MLproject="entry_points: {main: {sandbox: iron, command: x}}\n"))


class Nothing:
    """A machine that can confine nothing."""

    def __init__(self):
        self.means = {}
        self.reasons = {"landlock": "this kernel has none"}

    def means_for(self, level):
        raise Unsupported(f"the sandbox level `{level}` is not available on this machine")


def test_where_there_is_no_sandbox_it_is_said_and_a_level_by_name_is_refused(environ, machine):
    isolation = Isolation({**environ, "REPRO_SANDBOX": "auto"}, machine.memos)
    isolation._found = Nothing()
    assert isolation.level(isolation.asked("", "")) == "none"
    assert isolation.missing() == "landlock: this kernel has none"
    assert isolation.accepts("none", "")
    assert not isolation.accepts("none", "mounts")
    with pytest.raises(Unsupported, match="`mounts` is not available"):
        isolation.level("mounts")


@pytest.mark.parametrize("made", [*LEVELS, "", "unheard of"])
def test_the_levels_are_in_one_order(environ, machine, made):
    isolation = Isolation(environ, machine.memos)
    rank = LEVELS.index(made) if made in LEVELS else 0
    for asked in LEVELS:
        assert isolation.accepts(made, asked) == (rank >= LEVELS.index(asked))


def test_a_failed_step_without_a_missing_file_gets_no_hint(project, confined):
    assert not confined(project(MLproject="entry_points: {main: {command: 'exit 3'}}\n")).wait()
    assert confined.named("Warned") == []

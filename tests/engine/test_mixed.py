"""Steps of one run in different places, and environments of every kind in containers."""

from __future__ import annotations

import pytest
from support import channel as channels

from repro.errors import Unsupported, UsageError

GRAPH = """\
entry_points:
  prepare:
    inputs: [in.txt]
    outputs: [made.txt]
    command: tr a-z A-Z < in.txt > made.txt
  main:
    needs: [prepare]
    inputs: [made.txt]
    outputs: [out.txt]
    {more}
    command: "cat made.txt made.txt > out.txt"
"""
POLL = {"poll": 0.5}


def places(found):
    return {r.entry_point: r.backend for r in found.records}


@pytest.fixture
def cluster(slurm_engine, run):
    run.environ = {**run.environ, **slurm_engine.environ}


def test_one_step_runs_on_a_cluster_and_the_other_here(cluster, run, project):
    folder = project({"MLproject": GRAPH.replace("{more}", ""), "in.txt": "word "})
    found = run(folder, backends={"main": "slurm"}, configs={"slurm": POLL})
    assert places(found) == {"prepare": "local", "main": "slurm"}
    assert (folder / "out.txt").read_text() == "WORD WORD "
    assert run(folder).cached  # where it was made is no part of the key


def test_an_entry_point_says_where_it_runs_unless_the_caller_does(cluster, run, project):
    text = GRAPH.replace("{more}", "backend: slurm")
    folder = project({"MLproject": text, "in.txt": "word "})
    assert places(run(folder, config=POLL)) == {"prepare": "local", "main": "slurm"}
    (folder / "in.txt").write_text("other ")
    assert places(run(folder, backend="local")) == {"prepare": "local", "main": "local"}
    (folder / "in.txt").write_text("third ")
    found = run(folder, backends={"prepare": "slurm", "main": "local"}, config=POLL)
    assert places(found) == {"prepare": "slurm", "main": "local"}


def test_a_backend_for_no_step_and_one_that_there_is_not_are_refused(run, project):
    folder = project({"MLproject": GRAPH.replace("{more}", ""), "in.txt": "word "})
    with pytest.raises(UsageError, match="given for `mian`, which is no step of this run"):
        run(folder, backends={"mian": "slurm"})
    with pytest.raises(UsageError, match="docker backend has no settings"):
        run(folder, backend="docker", config={"poll": 1})
    with pytest.raises(Unsupported, match="no backend `slrum`"):
        run(folder, backends={"main": "slrum"})
    assert not list((folder.parent / "data").glob("history*"))


# --- environments of files in containers ---------------------------------------------------

CODE = "command: 'python -c \"import sys; print(sys.prefix)\" > out.txt'"


@pytest.fixture
def contained(hub, run):
    python = channels.full()
    if python is None:
        pytest.skip("this Python is part of the system: run with one of pyenv or uv")
    run.environ = {**run.environ, "REPRO_BASE_IMAGE": "docker.io/library/debian:12-slim"}
    return python


def test_a_conda_environment_runs_in_a_container_and_is_a_hit_here(
    contained, run, project, tmp_path
):
    channel = channels.Channel(tmp_path / "channel").add(contained, *channels.toys())
    text = f"conda_env: conda.yml\nentry_points: {{main: {{inputs: [], outputs: [out.txt], {CODE}}}}}\n"
    wanted = f"channels: ['{channel.url}']\ndependencies: [python, tinyml]\n"
    folder = project({"MLproject": text, "conda.yml": wanted})
    first = run(folder, backend="docker", env_manager="")
    assert first.wait()
    assert (first.record.backend, first.record.environment_kind) == ("docker", "conda")
    assert (folder / "out.txt").read_text() == "/opt/repro/env\n"
    assert run(folder, env_manager="").cached


def test_a_python_environment_runs_in_a_container_with_options_of_docker(contained, run, project):
    text = (
        f"python_env: env.yml\nentry_points: {{main: {{inputs: [], outputs: [out.txt], {CODE}}}}}\n"
    )
    folder = project({"MLproject": text, "env.yml": "dependencies: []\n"})
    found = run(folder, backend="docker", env_manager="", container={"memory": "512m"})
    assert found.wait()
    assert (folder / "out.txt").read_text() == "/opt/repro/env\n"


def test_the_callers_own_environment_is_not_taken_into_a_container(hub, run, project):
    folder = project(MLproject="entry_points: {main: {command: 'true'}}\n")
    with pytest.raises(Unsupported, match="own environment cannot be taken into a container"):
        run(folder, backend="docker")


def test_a_project_is_put_into_its_image(hub, run, project):
    text = (
        "name: Put It In\ndocker_env: {image: 'debian:12-slim'}\n"
        "entry_points: {main: {inputs: [in.txt], outputs: [out.txt], command: "
        "'ls /mlflow/projects/code; cat /mlflow/projects/code/in.txt > out.txt'}}\n"
    )
    folder = project({"MLproject": text, "in.txt": "words", "other.txt": "no input"})
    first = run(folder, env_manager="", build_image=True)
    assert first.wait()
    assert run.printed == "in.txt\n"
    assert (folder / "out.txt").read_text() == "words"
    assert run(folder, env_manager="").cached  # the files are in the key either way

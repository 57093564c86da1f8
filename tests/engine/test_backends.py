"""A project runs in docker and on Slurm as it does here, and its result serves everywhere."""

from __future__ import annotations

import pytest

from repro.errors import Unsupported, UsageError

STEP = "{inputs: [in.txt], outputs: [out.txt], command: 'echo said; tr a-z A-Z < in.txt > out.txt'}"


# --- docker --------------------------------------------------------------------------------


def test_a_docker_project_runs_in_its_image_and_is_a_hit_without_it(hub, run, project):
    text = f"docker_env: {{image: 'debian:12-slim'}}\nentry_points: {{main: {STEP}}}\n"
    folder = project({"MLproject": text, "in.txt": "words"})
    first = run(folder, env_manager="")
    assert first.wait()
    assert run.printed == "said\n"
    assert (folder / "out.txt").read_text() == "WORDS"
    assert (first.record.backend, first.record.sandbox) == ("docker", "mounts")
    assert first.record.environment_kind == "docker"
    run.environ = {**run.environ, "DOCKER_HOST": "unix:///not/here"}
    assert run(folder, env_manager="").cached  # nothing is asked of the engine


def test_volumes_variables_and_options_of_docker(hub, run, project, tmp_path):
    data = tmp_path / "volume"
    data.mkdir()
    (data / "x").write_text("in the volume")
    text = (
        f"docker_env: {{image: 'debian:12-slim', volumes: ['{data}:/data:ro'],"
        " environment: [[GIVEN, pair], COPIED]}\n"
        "entry_points: {main: {inputs: [], command: 'cat /data/x; echo; echo $GIVEN $COPIED'}}\n"
    )
    folder = project(MLproject=text)
    with pytest.raises(UsageError, match="`COPIED`, which is not set"):
        run(folder, env_manager="")
    run.environ = {**run.environ, "COPIED": "from here"}
    assert run(folder, env_manager="").wait()
    assert run.printed == "in the volume\npair from here\n"
    assert run(folder, env_manager="").cached
    (data / "x").write_text("other")
    assert not run(folder, env_manager="").cached
    assert not run(folder, env_manager="", container={"memory": "64m"}).cached
    with pytest.raises(UsageError, match="no-such-option"):
        run(folder, env_manager="", container={"no-such-option": None})


def test_hermetic_takes_the_network_of_a_container_away(hub, run, project):
    text = (
        "docker_env: {image: 'debian:12-slim'}\n"
        "entry_points: {main: {inputs: [], command: 'ls /sys/class/net'}}\n"
    )
    found = run(project(MLproject=text), env_manager="", sandbox="hermetic")
    assert found.record.sandbox == "hermetic"
    assert run.printed.split() == ["lo"]


# --- slurm ---------------------------------------------------------------------------------


def test_a_step_runs_on_slurm_and_its_result_is_a_hit_here(slurm_engine, run, project):
    run.environ = {**run.environ, **slurm_engine.environ}
    folder = project({"MLproject": f"entry_points: {{main: {STEP}}}\n", "in.txt": "words"})
    first = run(folder, backend="slurm", config={"poll": 1})
    assert first.wait()
    assert run.printed == "said\n"
    assert (folder / "out.txt").read_text() == "WORDS"
    assert first.record.backend == "slurm"
    assert run(folder, backend="slurm", config={"poll": 1}).cached
    assert run(folder).cached
    with pytest.raises(Unsupported, match="`slurm` has no sandbox"):
        run(folder, backend="slurm", sandbox="mounts")

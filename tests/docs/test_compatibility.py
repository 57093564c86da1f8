"""Rows of the compatibility page that no other test holds."""

from __future__ import annotations

import contextlib
import zipfile

import pytest
from support.docker_engine import docker_engine  # noqa: F401

from repro.errors import UsageError

STEP = (
    "entry_points: {main: {parameters: {d: {type: path, default: MLproject}}, command: 'true'}}\n"
)


def test_a_zip_archive_has_no_versions(run, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("MLproject", STEP)
    with pytest.raises(UsageError, match="no versions"):
        run(tmp_path / "p.zip", version="v1")


@pytest.mark.parametrize("address", ["s3://bucket/key", "gs://b/k", "dbfs:/x", "runs:/id/model"])
def test_a_path_parameter_is_not_fetched_from_elsewhere(project, run, machine, address):
    with pytest.raises(UsageError):
        run(project(MLproject=STEP), parameters={"d": address})
    assert machine.history.find() == []


def test_a_python_env_is_not_made_with_conda(project, run, machine):
    folder = project({"MLproject": STEP, "python_env.yaml": "dependencies: []\n"})
    with pytest.raises(UsageError, match="cannot be run with conda"):
        run(folder, env_manager="conda")
    assert machine.history.find() == []


def test_a_conda_file_gives_its_python_part_when_asked(project, run):
    text = "entry_points: {main: {command: python -c 'pass'}}\n"
    folder = project({"MLproject": text, "conda.yaml": "dependencies: [numpy, pip: []]\n"})
    done = run(folder, env_manager="virtualenv")
    assert (done.get_status(), done.record.environment_kind) == ("FINISHED", "python")


def test_options_that_are_not_there(project, repro):
    answer = repro("run", project(MLproject=STEP), "--run-id", "x")
    assert answer.code == 2
    assert "`--run-id` means nothing here" in answer.err


def test_folders_that_mlflow_is_told_to_use_stay_empty(project, repro, tmp_path):
    names = ("MLFLOW_TMP_DIR", "MLFLOW_ENV_ROOT", "MLFLOW_CONDA_HOME")
    folders = {name: tmp_path / name for name in names}
    text = "entry_points: {main: {command: python -c 'pass'}}\n"
    answer = repro("run", project(MLproject=text), env={n: str(f) for n, f in folders.items()})
    assert answer.code == 0, answer.err
    assert not any(folder.exists() for folder in folders.values())


# -- docker


@pytest.fixture
def in_image(project, run, docker_engine):  # noqa: F811
    """A project whose steps run in the base image of the tests; more lines of its `docker_env`."""
    run.environ = {**run.environ, **docker_engine.environ}

    def make(command, *lines):
        environment = "\n".join(
            ["docker_env:", f"  image: {docker_engine.tag}", *(f"  {line}" for line in lines)]
        )
        text = f"{environment}\nentry_points: {{main: {{outputs: [o], command: '{command}'}}}}\n"
        return project(MLproject=text)

    return make


def test_a_docker_project_runs_in_its_image(in_image, run, docker_engine):  # noqa: F811
    done = run(in_image("pwd > o; cat MLproject >> o"), env_manager="")
    assert done.get_status() == "FINISHED", run.printed
    assert (done.record.backend, done.record.environment_kind) == ("docker", "docker")
    made = done.blob(done.outputs["o"].sha256).decode()
    assert made.startswith("/repro/work\ndocker_env:")
    with contextlib.closing(docker_engine.client()) as client:
        assert not [c for c in client.containers.list(all=True) if done.run_id in str(c.labels)]


def test_a_docker_project_stays_one_with_another_manager(in_image, run):
    folder = in_image("pwd > o")
    for manager in ("local", "virtualenv", "conda"):
        assert run(folder, env_manager=manager).record.environment_kind == "docker"


def test_variables_of_an_image_are_copied_or_set(in_image, run):
    folder = in_image("echo $A $B > o", 'environment: [A, ["B", "two"]]')
    with pytest.raises(UsageError, match="passes on the variable `A`, which is not set"):
        run(folder)
    run.environ = {**run.environ, "A": "one"}
    done = run(folder)
    assert done.blob(done.outputs["o"].sha256) == b"one two\n"
    run.environ = {**run.environ, "A": "three"}
    assert not run(folder).cached


def test_volumes_count_by_their_content(in_image, run, tmp_path):
    data = tmp_path / "measured"
    data.mkdir()
    (data / "x").write_text("1")
    folder = in_image("cat /data/x > o", f"volumes: [{data}:/data:ro]")
    assert not run(folder).cached
    assert run(folder).cached
    (data / "x").write_text("2")
    done = run(folder)
    assert not done.cached
    assert done.blob(done.outputs["o"].sha256) == b"2"

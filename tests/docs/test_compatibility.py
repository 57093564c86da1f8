"""Rows of the compatibility page that no other test holds."""

from __future__ import annotations

import zipfile

import pytest

from repro.errors import Unsupported, UsageError

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
    for manager in ("", "conda"):
        with pytest.raises(Unsupported, match="conda environment"):
            run(folder, env_manager=manager)
    done = run(folder, env_manager="virtualenv")
    assert (done.get_status(), done.record.environment_kind) == ("FINISHED", "python")


@pytest.mark.parametrize("option", ["-A", "--docker-args", "--build-image", "--run-id"])
def test_options_that_are_not_there(project, repro, option):
    answer = repro("run", project(MLproject=STEP), option, "x")
    assert answer.code == 2
    assert f"`{option}` means nothing here" in answer.err


def test_folders_that_mlflow_is_told_to_use_stay_empty(project, repro, tmp_path):
    names = ("MLFLOW_TMP_DIR", "MLFLOW_ENV_ROOT", "MLFLOW_CONDA_HOME")
    folders = {name: tmp_path / name for name in names}
    text = "entry_points: {main: {command: python -c 'pass'}}\n"
    answer = repro("run", project(MLproject=text), env={n: str(f) for n, f in folders.items()})
    assert answer.code == 0, answer.err
    assert not any(folder.exists() for folder in folders.values())

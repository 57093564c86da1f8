"""A step in an environment of its own, from the request to the run, without a network."""

from __future__ import annotations

import pathlib

import pytest

from repro import foresight
from repro.errors import InterpreterMissing, Unsupported
from repro.machine import Machine
from repro.plan import Request

SETUP = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "mine"
version = "1.0"
"""
BACKEND = """\
import base64, hashlib, pathlib, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "mine-1.0-py3-none-any.whl"
    body = pathlib.Path("mine.py").read_bytes()
    files = {
        "mine.py": body,
        "mine-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n",
        "mine-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\\n"
    files["mine-1.0.dist-info/RECORD"] = (record + "mine-1.0.dist-info/RECORD,,\\n").encode()
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
    return name
"""


@pytest.fixture
def packaged(project):
    return project(
        {
            "MLproject": "python_env: env.yaml\nentry_points: {main: {command: 'python -c \"import mine; print(mine.WORD)\"'}}\n",
            "env.yaml": "dependencies: ['--no-index', './lib']\n",
            "lib/pyproject.toml": SETUP,
            "lib/backend.py": BACKEND,
            "lib/mine.py": "WORD = 'one'\n",
        }
    )


def test_an_empty_environment_is_made_once_and_shared(project, run, machine):
    text = "entry_points: {main: {parameters: {a: str}, command: 'python -c \"import sys; print(sys.prefix)\"'}}\n"
    folder = project(MLproject=text)
    first = run(folder, env_manager="", parameters={"a": 1})
    assert first.get_status() == "FINISHED"
    prefix = pathlib.Path(run.printed.strip())
    assert prefix.parent == pathlib.Path(machine.home.path("envs"))
    assert run(folder, env_manager="", parameters={"a": 1}).cached
    run(folder, env_manager="", parameters={"a": 2})
    assert run.printed.strip() == str(prefix)
    assert len(list(prefix.parent.iterdir())) == 1


def test_a_package_of_the_project_is_part_of_its_environment(packaged, run):
    assert run(packaged, env_manager="").get_status() == "FINISHED"
    assert run.printed == "one\n"
    assert run(packaged, env_manager="").cached
    (packaged / "lib/mine.py").write_text("WORD = 'two'\n")
    assert run(packaged, env_manager="").get_status() == "FINISHED"
    assert run.printed == "two\n"


def test_looking_never_builds_a_package_of_the_project(packaged, environ, tmp_path):
    canary = tmp_path / "canary"
    backend = packaged / "lib/backend.py"
    backend.write_text(f"open({str(canary)!r}, 'w')\n" + backend.read_text())
    machine = Machine(environ, looks_only=True)
    request = Request(uri=str(packaged), caller="/")
    with pytest.raises(Unsupported, match="only a run"):
        foresight.foresee(request, machine)
    assert [s.state for s in foresight.states(request, machine)] == ["stale"]
    machine.close()
    assert not canary.exists()


def test_a_zip_with_a_package_of_its_own(packaged, run, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in packaged.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(packaged))
    assert run(tmp_path / "p.zip", env_manager="").get_status() == "FINISHED"
    assert run.printed == "one\n"


def test_a_python_that_is_not_here(project, run, machine):
    folder = project(
        {"MLproject": "entry_points: {main: {command: x}}\n", "python_env.yaml": "python: '3.99'\n"}
    )
    with pytest.raises(InterpreterMissing, match="3.99") as caught:
        run(folder, env_manager="")
    assert caught.value.exit == 6
    assert any("found" in hint.lower() for hint in caught.value.hints)
    assert machine.history.find() == []


def test_the_python_part_of_a_conda_file(project, run):
    import sys

    version = ".".join(map(str, sys.version_info[:2]))
    folder = project(
        {
            "MLproject": "conda_env: c.yaml\nentry_points: {main: {command: python --version}}\n",
            "c.yaml": f"dependencies: [python={version}, cudatoolkit, {{pip: []}}]\n",
        }
    )
    run(folder, env_manager="virtualenv")
    assert f"Python {version}" in run.printed

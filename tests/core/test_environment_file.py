"""The environment that the project itself is tested in is the one that it declares."""

from __future__ import annotations

import tomllib

import yaml
from conftest import REPOSITORY


def test_the_locked_environment_has_what_the_package_declares():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = yaml.safe_load((REPOSITORY / ".ci" / "python_env.yaml").read_text())["dependencies"]
    assert sorted(wanted) == sorted({*project["dependencies"], *extras["test"], *extras["conda"]})

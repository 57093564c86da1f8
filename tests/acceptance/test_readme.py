"""The commands of the README, as a new user would type them."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import REPOSITORY


@pytest.mark.network
def test_the_example_of_the_readme(repro, tmp_path, network):
    shutil.copytree(REPOSITORY / "examples/diabetes", tmp_path / "diabetes")
    first = repro("run", "diabetes", cwd=tmp_path, timeout=600, env=network)
    assert first.code == 0, first.err
    assert (tmp_path / "diabetes/predictions.csv").exists()
    assert "r2=" in first.err
    again = repro("run", "diabetes", cwd=tmp_path)
    assert "hit" in again.err
    assert "r2=" in again.err
    changed = repro("run", "diabetes", "-P", "alpha=0.01", cwd=tmp_path, env=network)
    assert "param alpha 0.001 → 0.01" in changed.err


def test_an_example_without_any_package(repro, tmp_path):
    shutil.copytree(REPOSITORY / "examples/hello", tmp_path / "hello")
    first = repro("run", "hello", "-P", "name=you", "--json", cwd=tmp_path, timeout=300)
    assert first.code == 0, first.err
    assert json.loads(first.out)["environment"]["kind"] == "python"
    assert (tmp_path / "hello/greeting.txt").read_text() == "hello, you\n"
    assert "hit" in repro("run", "hello", "-P", "name=you", cwd=tmp_path).err


@pytest.mark.parametrize(
    "example", sorted(p.name for p in (REPOSITORY / "examples").iterdir() if p.is_dir())
)
def test_every_example_is_valid_without_a_warning(repro, example):
    answer = repro("validate", REPOSITORY / "examples" / example, "--strict")
    assert answer.code == 0, answer.text

"""Conda environment files: what they ask for, and what is wrong with them, by its place."""

from __future__ import annotations

import pytest

from repro import condafile
from repro.errors import ProjectInvalid
from repro.spec import CondaEnvironment

FILES = {"requirements.txt": b"requests>=2  # for the web\n-r more.txt\n", "more.txt": b"six\n"}


def filled(text, read=FILES.get):
    return condafile.fill(CondaEnvironment(file="conda.yaml", text=text), read)


def problems(text, read=FILES.get):
    with pytest.raises(ProjectInvalid) as failed:
        condafile.check(filled(text, read))
    return failed.value.problems


def test_what_a_file_asks_for():
    text = """
name: tutorial
channels:
  - conda-forge
  - defaults
dependencies:
  - python=3.11.*
  - conda-forge::numpy>=1.26,<2
  - pip
  - pip:
    - mlflow>=2
    - -r requirements.txt
    - --extra-index-url https://example.org/simple
    - ./package
variables:
  LEVEL: 3
  NAME: some text
prefix: /home/me/envs/tutorial
"""
    found = filled(text)
    condafile.check(found)
    assert found.channels == ("conda-forge", "defaults")
    assert found.packages == ("python=3.11.*", "conda-forge::numpy>=1.26,<2", "pip")
    assert found.variables == (("LEVEL", "3"), ("NAME", "some text"))
    assert found.dropped == ("conda-forge::numpy>=1.26,<2",)
    assert found.python.python == "3.11"
    assert found.python.requirements == ("mlflow>=2", "requests>=2", "six")
    assert found.python.options == ("--extra-index-url https://example.org/simple",)
    assert found.python.directories == (("package", ""),)
    assert found.text == text


@pytest.mark.parametrize(
    "text", ["name: empty\n", "channels:\ndependencies:\nvariables:\n", "dependencies: [python]\n"]
)
def test_parts_that_are_missing_are_empty(text):
    found = filled(text)
    condafile.check(found)
    assert (found.channels, found.variables) == ((), ())


WRONG = [
    ("[numpy]\n", 1, "it is no mapping"),
    ("channels: conda-forge\n", 1, "`channels` is no list"),
    ("channels:\n- 3.8\n", 2, "`3.8` is no name"),
    ("dependencies: numpy\n", 1, "`dependencies` is no list"),
    ("dependencies:\n- numpy: 1.26\n", 2, "`numpy` is followed by a colon"),
    ("dependencies:\n- python\n- 3.11\n", 3, "`3.11` is no name"),
    ("dependencies:\n- null\n", 2, "is no name"),
    ("dependencies:\n- [numpy]\n", 2, "`a sequence` is no name"),
    ("dependencies:\n- numpy >=\n", 2, "`numpy >=` asks for no package"),
    ("dependencies:\n- numpy 1 2 3\n", 2, "asks for no package"),
    (
        "dependencies:\n- https://a.org/numpy-1-0.conda\n",
        2,
        "a package is asked for by its name, not by a URL",
    ),
    ("dependencies:\n- pip: requests\n", 2, "`pip` is no list"),
    ("dependencies:\n- pip:\n  - requests: 2\n", 3, "is no name"),
    ("dependencies:\n- pip:\n  - -r absent.txt\n", 3, "there is no file `absent.txt`"),
    ("dependencies:\n- pip:\n  - -e ../outside\n", 3, "lies outside of the project"),
    ("variables: [A]\n", 1, "`variables` is no mapping"),
    ("variables:\n  A: [1]\n", 2, "the variable `A` has no text as its value"),
    ("dependencies: [python\n", 2, "is not valid YAML"),
]


@pytest.mark.parametrize(("text", "line", "why"), WRONG)
def test_what_is_wrong_is_told_with_its_place(text, line, why):
    (one,) = problems(text)
    assert (one.where.file, one.where.line) == ("conda.yaml", line)
    assert why in one.message


def test_everything_that_is_wrong_is_told_at_once():
    found = problems("channels: x\ndependencies:\n- numpy: 1\n- scipy==\n- pip: a\nvariables: 1\n")
    assert [p.where.line for p in found] == [1, 3, 4, 5, 6]
    assert found[1].hint == "write `numpy=1`; only `pip:` has a list of its own"


def test_a_mistake_in_the_conda_part_leaves_the_python_part():
    found = filled("dependencies:\n- python=3.11\n- numpy: 1\n- pip: [requests]\n")
    assert found.python.python == "3.11"
    assert found.python.requirements == ("requests",)


def test_a_pip_part_that_cannot_be_known_is_none():
    assert filled("dependencies:\n- pip: [-r absent.txt]\n").python is None

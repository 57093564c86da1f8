"""What is wrong in environment files, told with its place before anything needs them."""

from __future__ import annotations

import pytest

from repro import environmentfiles, mlproject, schemas

SCHEMA = schemas.load("mlproject")
STEPS = "entry_points:\n  main:\n    command: x\n"


def found(text, **files):
    known = {"MLproject": text.encode()}
    known |= {
        name.replace("__", "."): data if isinstance(data, bytes) else data.encode()
        for name, data in files.items()
    }
    decoded = mlproject.decode("MLproject", known.get, SCHEMA)
    more = environmentfiles.problems(decoded.project, known.get, known.keys())
    return list(dict.fromkeys((*decoded.problems, *more)))


def places(problems):
    return [(p.code, str(p.where)) for p in problems]


def test_files_without_mistakes_have_none():
    good = (
        "dependencies:\n- numpy>=1.26,<2\n- python\n- pip:\n"
        "  - six>=1; python_version > '3'\n  - -r r.txt\n  - --pre\n  - ./wheels/a-1.0.whl\n"
        "  - git+https://example.org/a\n  - https://example.org/a-1.0-py3-none-any.whl\n"
    )
    lines = (
        "a[b]==1 --hash=sha256:00 \\\n  --hash=sha256:01\nb @ https://e.org/b.zip # it\n-e .\n"
        "-c c.txt\n"
    )
    files = {"r__txt": lines, "c__txt": "six<2\n"}
    assert found("conda_env: conda.yaml\n" + STEPS, conda__yaml=good, **files) == []
    env = "dependencies: [six, -r r.txt]\n"
    assert found("python_env: p.yaml\n" + STEPS, p__yaml=env, **files) == []


def test_every_mistake_of_a_conda_file_is_told_with_its_place():
    text = "channels: x\ndependencies:\n- numpy: 1\n- pip:\n  - -r gone.txt\n  - -r here.txt\n"
    problems = found("conda_env: c.yaml\n" + STEPS, c__yaml=text, here__txt="six\nnum py\n")
    assert places(problems) == [
        ("conda-env", "c.yaml:1:11"),
        ("conda-env", "c.yaml:3:3"),
        ("environment-file", "c.yaml:5:5"),
        ("requirement", "here.txt:2"),
    ]
    assert [p.level for p in problems] == ["error", "error", "error", "warning"]


def test_a_file_that_is_no_yaml_does_not_hide_the_others():
    text = f"python_env: p.yaml\n{STEPS}  b:\n    command: x\n    conda_env: c.yaml\n"
    problems = found(text, p__yaml="dependencies: [six\n", c__yaml="dependencies: {\n")
    assert places(problems) == [("yaml", "p.yaml:2:1"), ("yaml", "c.yaml:2:1")]


@pytest.mark.parametrize("data", ["s\N{NULL}ix".encode(), "six\n".encode("utf-16"), b"\xff\xfe"])
def test_a_requirements_file_that_is_no_text(data):
    files = {"p__yaml": "dependencies: [-r r.txt]\n", "r__txt": data}
    assert places(found("python_env: p.yaml\n" + STEPS, **files)) == [("not-text", "r.txt")]


def test_a_dockerfile_that_is_not_there_is_told_where_it_is_named():
    text = (
        f"docker_env: {{dockerfile: Dockerfile}}\n{STEPS}    docker_env:\n      dockerfile: own\n"
    )
    problems = found(text)
    assert places(problems) == [
        ("environment-file", "MLproject:1:26"),
        ("environment-file", "MLproject:6:19"),
    ]
    assert found(text, Dockerfile="FROM x\n", own="FROM y\n") == []


def test_a_file_that_several_steps_name_is_told_once():
    text = f"conda_env: c.yaml\n{STEPS}    conda_env: c.yaml\n"
    assert len(found(text, c__yaml="channels: x\n")) == 1

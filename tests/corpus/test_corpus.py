"""Every command of real MLproject files expands as MLflow expands it; all it chokes on is said."""

from __future__ import annotations

import json
import pathlib

import pytest

from repro import mlproject, params, schemas
from repro.errors import ProjectInvalid

CORPUS = pathlib.Path(__file__).parents[3] / "shared" / "corpus"
SCHEMA = schemas.load("mlproject")
WELL_TYPED = {"bool": "True", "boolean": "True", "int": "7", "float": "7.5", "number": "7.5"}

if not (CORPUS / "expected.json").exists():
    pytest.skip(f"the corpus is not at {CORPUS}", allow_module_level=True)

EXPECTED = json.loads((CORPUS / "expected.json").read_text())
COMMANDS = [
    pytest.param(path, name, id=f"{path}:{name}")
    for path, facts in EXPECTED.items()
    for name, entry in facts.get("entry_points", {}).items()
    if "expanded" in entry
]


def decoded(path):
    folder, name = (CORPUS / path).parent, (CORPUS / path).name

    def read(inner):
        if (folder / inner).is_file():
            return (folder / inner).read_bytes()
        # the environment files were left out when the expectations were made
        stubs = {"yaml": b"dependencies: []\n", "yml": b"dependencies: []\n", "txt": b""}
        return stubs.get(inner.rpartition(".")[2]) if inner != name else None

    return mlproject.decode(name, read, SCHEMA)


@pytest.mark.parametrize(("path", "name"), COMMANDS)
def test_a_command_expands_as_mlflow_expands_it(path, name):
    facts = EXPECTED[path]["entry_points"][name]
    entry = decoded(path).project.entry_point(name)
    assert entry.command == facts["command"]
    for parameter in entry.parameters:
        expected = facts["params"][parameter.name]
        assert parameter.type == expected["type"]
        default = expected["default"]
        assert parameter.default == (None if default is None else str(default))
    # the expectations were made with one word for every required value, whatever its type
    given = {
        p.name: WELL_TYPED.get(p.type, facts["given"][p.name])
        if facts["given"][p.name] == "VALUE"
        else facts["given"][p.name]
        for p in entry.parameters
        if p.name in facts["given"]
    }
    expected = facts["expanded"]
    got = params.expand(params.parse(entry.command), params.bind(entry, given))
    if given != facts["given"]:
        for value in set(given.values()) - set(facts["given"].values()):
            got = got.replace(value, "VALUE")
    assert got == expected


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, facts in EXPECTED.items()
        if "yaml_error" in facts
        or "load_error" in facts
        or any("expand_error" in e for e in facts.get("entry_points", {}).values())
    ],
)
def test_what_mlflow_chokes_on_is_explained(path):
    if path.endswith("MLproject_dockerfile"):
        assert not decoded(path).errors  # an extension: an image may be built from a Dockerfile
        return
    try:
        problems = decoded(path).errors
    except ProjectInvalid as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.message
        assert "\n" not in problem.message
        assert problem.hint or problem.where.line


def test_no_other_file_is_refused():
    for path, facts in EXPECTED.items():
        bad = any(key in facts for key in ("yaml_error", "load_error"))
        bad |= any("expand_error" in e for e in facts.get("entry_points", {}).values())
        if not bad:
            assert not decoded(path).errors, path

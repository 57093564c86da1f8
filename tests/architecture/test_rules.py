"""Rules of the code base that a reader would otherwise have to remember."""

from __future__ import annotations

import ast
import os
import pathlib
import statistics
import subprocess
import sys

import pytest
from conftest import REPOSITORY

FILES = sorted((REPOSITORY / "repro").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
BANNED_CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "shelve.open",
    "tempfile.mktemp",
    "zipfile.ZipFile.extractall",
}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dataclasses"}


def calls():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def test_nothing_runs_text_as_code():
    """No eval, no pickle, no shell of ours, no extraction by somebody else's rules."""
    found = [
        f"{path.name}:{node.lineno} {name}"
        for path, node, name in calls()
        if name in BANNED_CALLS or name.endswith((".extractall", ".extract"))
    ]
    found += [
        f"{path.name}:{node.lineno} shell=True"
        for path, node, _name in calls()
        if any(
            k.arg == "shell" and not (isinstance(k.value, ast.Constant) and not k.value.value)
            for k in node.keywords
            if k.arg == "shell" and _name.startswith("subprocess")
        )
    ]
    assert found == []


def test_no_module_imports_what_is_banned():
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.name}: {n}" for n in names if n.partition(".")[0] in BANNED_MODULES]
    assert found == []


def test_only_the_command_line_prints():
    found = [
        f"{path.name}:{node.lineno}"
        for path, node, name in calls()
        if name == "print" and "cli" not in path.parts
    ]
    assert found == []


def test_only_digest_hashes():
    """What others have hashed is checked in environments/; the contract suite stands alone."""
    found = [
        f"{path.name}:{node.lineno}"
        for path, tree in TREES.items()
        if path.name != "digest.py" and not {"environments", "testing", "agent"} & set(path.parts)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "hashlib" in ast.unparse(node)
    ]
    assert found == []


def functions():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body
                if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                    body = body[1:]
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}", length


def test_functions_are_short():
    lengths = dict(functions())
    ordered = sorted(lengths.values())
    assert [name for name, length in lengths.items() if length > 60] == []
    assert ordered[int(len(ordered) * 0.95)] <= 30
    assert statistics.median(ordered) <= 9


def test_files_are_short():
    assert [p.name for p in FILES if len(p.read_text().splitlines()) > 520] == []


def test_imports_run_one_way():
    command = pathlib.Path(sys.executable).parent / "lint-imports"
    if not command.exists():
        if os.environ.get("CI"):
            pytest.fail("import-linter is not installed")
        pytest.skip("pip install '.[test]'")
    done = subprocess.run(
        [command, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_version_is_said_once():
    import tomllib

    import repro

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == repro.__version__


def test_every_error_has_a_code_of_its_own():
    from repro import errors

    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.ReproError)
    ]
    codes = [error.code for error in found]
    assert len(set(codes)) == len(codes)
    exits = {code for code, _meaning in errors.EXIT_MEANINGS}
    assert {error.exit for error in found} <= exits
    for error in found:
        assert error.__name__ in errors.__doc__

"""A cache hit is a product of its own: what it may import, start and cost is counted here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.cli import options, parser
from repro.cli.run import OPTIONS, scan

MOST_MODULES = 120
HEAVY = {
    "yaml",
    "jsonschema",
    "git",
    "docker",
    "requests",
    "kubernetes",
    "conda_lock",
    "rich",
    "asyncio",
    "logging",
    "importlib.metadata",
    "dataclasses",
    "typing",
    "argparse",
    "subprocess",
    "sqlite3",
    "pathlib",
    "threading",
}
COUNT = """
import sys
from repro.cli import main
code = main(sys.argv[1:])
names = sorted(sys.modules)
import json
with open({path!r}, "w") as file:
    file.write(json.dumps(names))
sys.exit(code)
"""


@pytest.fixture
def hit(project, repro):
    """A project in a Git work tree whose next run is a hit."""
    folder = project(
        MLproject="entry_points: {main: {outputs: [o], command: 'echo hi > o'}}\n",
        **{"python_env.yaml": "dependencies: []\n"},
    )
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    assert repro("run", folder, "--env-manager", "local").code == 0
    return folder


def test_modules_on_a_hit(hit, repro, tmp_path):
    names = tmp_path / "names.json"
    script = tmp_path / "count.py"
    script.write_text(COUNT.format(path=str(names)))
    answer = repro("run", hit, "--env-manager", "local", command=[sys.executable, str(script)])
    assert "hit" in answer.err
    loaded = set(json.loads(names.read_text()))
    assert len(loaded) <= MOST_MODULES, sorted(loaded)
    assert sorted(loaded & HEAVY) == []


def test_processes_on_a_hit(hit, repro, tmp_path):
    """The state of the files says all: not even Git is started."""
    if not shutil.which("strace"):
        if os.environ.get("CI"):
            pytest.fail("strace is not installed: apt-get install strace")
        pytest.skip("apt-get install strace")
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=execve,fork,vfork,clone,clone3",
        "-o",
        str(trace),
    ]
    command += [sys.executable, "-m", "repro"]
    answer = repro("run", hit, "--env-manager", "local", command=command)
    assert "hit" in answer.err
    calls = [
        line
        for line in trace.read_text().splitlines()
        if "execve" in line or "fork" in line or "clone" in line
    ]
    assert len(calls) == 1, calls  # the command itself


def test_importing_the_package_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import repro; print(len(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=os.getcwd()
    )
    assert int(done.stdout) <= 3


words = st.one_of(
    st.sampled_from([name for option in (*OPTIONS, *options.COMMON) for name in option.names]),
    st.sampled_from(
        ["--", "-h", "--nope", "-x", "-eX", "-", "--param-list=a=b", "--quiet=1", "--entry", "-qq"]
    ),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5),
    st.sampled_from(["a=b", "x=-1", ".", "dir", "-1", "always", "never"]),
)


@settings(deadline=None)
@given(st.lists(words, max_size=7))
def test_the_quick_scan_agrees_with_argparse_or_leaves_it_to_it(argv):
    quick = scan(argv)
    if quick is None:
        return
    full = vars(parser.build().parse_args(["run", *argv]))
    full.pop("command")
    assert quick.values == {k: full[k] for k in quick.values}
    assert set(full) == set(quick.values)


def test_the_quick_scan_takes_the_usual_forms():
    quick = scan(["proj", "-e", "train", "-P", "a=1", "--param-list=b=2", "-q", "-q", "--json"])
    assert quick.text("uri") == "proj"
    assert quick.list("param_list") == ["a=1", "b=2"]
    assert quick.count("quiet") == 2
    assert quick.flag("json")

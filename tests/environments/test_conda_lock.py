"""Together with the real conda-lock: it reads what repro writes, repro reads what it writes.

It has a stand-in for conda, which is not on any package index.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml
from support import channel as channels
from support.channel import here, populated

from repro import condafile
from repro.environments.conda import Conda, CondaLock
from repro.errors import EnvironmentFailed, Unsupported
from repro.lockfiles import condalock
from repro.ports import LockRequest
from repro.spec import CondaEnvironment

STANDIN = pathlib.Path(__file__).parents[1] / "support" / "standin_conda.py"
ROUND_TRIP = """
import pathlib, sys
from conda_lock.lockfile import parse_conda_lock_file, write_conda_lock_file
from conda_lock.lockfile.v1.models import Lockfile
import yaml
path = pathlib.Path(sys.argv[1])
Lockfile.model_validate(yaml.safe_load(path.read_text()))
content = parse_conda_lock_file(path)
write_conda_lock_file(content, pathlib.Path(sys.argv[2]), metadata_choices=None, include_help_text=False)
print(" ".join(p.name for p in content.package if p.platform == sys.argv[3]))
"""


@pytest.fixture(scope="session")
def tool():
    """The command; where it is missing, these tests are skipped, but not in a CI."""
    beside = os.path.join(os.path.dirname(sys.executable), "conda-lock")
    found = os.environ.get("REPRO_CONDA_LOCK") or shutil.which(beside) or shutil.which("conda-lock")
    if not found:
        told = (
            "conda-lock is not here: `pip install '.[test]'`, or set REPRO_CONDA_LOCK to its path"
        )
        pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
    return found


@pytest.fixture(scope="session")
def channel(tmp_path_factory):
    return populated(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def standin(tmp_path):
    path = tmp_path / "conda"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{STANDIN}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def variables(environ, tool, standin):
    return {**environ, "REPRO_CONDA_LOCK": tool, "CONDA_LOCK_CONDA": standin}


def asked(channel, *packages, pip=()):
    lines = [f"channels: [{channel.url}]", "dependencies:", *(f"- {p}" for p in packages)]
    lines += ["- pip:", *(f"  - {line}" for line in pip)] if pip else []
    wanted = CondaEnvironment(file="environment.yml", text="\n".join(lines) + "\n")
    return condafile.fill(wanted, lambda _path: None)


def silent(_text):
    """Take no interest."""


def test_conda_lock_reads_what_repro_writes_and_writes_it_again(environ, tool, channel, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    channels.wheel(wheels, "helper", "0.1")
    wanted = asked(
        channel, "tinyml", "cfgtool", pip=["--no-index", f"--find-links {wheels}", "helper"]
    )
    names = channels.PLATFORMS
    locks = Conda(environ["REPRO_HOME"], environ).lock(
        LockRequest(environment=wanted, platforms=names, exclude_newer="2025-06-01"), silent
    )
    path, again = tmp_path / "conda-lock.yml", tmp_path / "again.yml"
    path.write_bytes(condalock.encode(locks, {"source": "environment.yml"}))
    python = os.path.join(os.path.dirname(os.path.realpath(tool)), "python")
    done = subprocess.run(
        [python, "-c", ROUND_TRIP, path, again, here()], capture_output=True, text=True, check=True
    )
    order = done.stdout.split()
    assert order.index("tinymath") < order.index("tinyml")  # it has understood what needs what
    assert "helper" in order
    assert yaml.safe_load(again.read_text()) == yaml.safe_load(path.read_text())
    found = condalock.decode("conda-lock.yml", again.read_bytes())
    assert (found.edited, found.maker) == (False, "repro")
    assert found.locks == tuple(sorted(locks, key=lambda k: k.platform))


def test_conda_lock_installs_what_repro_writes(variables, tool, standin, channel, tmp_path):
    wanted = asked(channel, "tinyml", "cfgtool")
    locks = Conda(variables["REPRO_HOME"], variables).lock(LockRequest(environment=wanted), silent)
    path, prefix = tmp_path / "conda-lock.yml", tmp_path / "prefix"
    path.write_bytes(condalock.encode(locks, {}))
    command = [tool, "install", "--conda", standin, "--prefix", str(prefix), str(path)]
    subprocess.run(command, check=True, capture_output=True, env=variables)
    done = subprocess.run([prefix / "bin" / "tinyml"], check=True, capture_output=True, text=True)
    assert done.stdout == "tinyml 42\n"


def test_repro_makes_what_conda_lock_locks(variables, channel, tmp_path):
    conda = CondaLock(variables["REPRO_HOME"], variables)
    wanted = asked(channel, "tinyml", "cfgtool")
    names = (here(), *(p for p in channels.PLATFORMS if p != here()))
    told = []
    locks = conda.lock(LockRequest(environment=wanted, platforms=names), told.append)
    assert told == [f"conda-lock is solving for {', '.join(names)}"]
    assert [lock.platform for lock in locks] == list(names)
    assert locks[0].tool.startswith("conda-lock ")
    assert conda.unmet(wanted, locks[0]) == ()
    made = conda.realize(locks[0], silent)
    done = subprocess.run(
        [os.path.join(made.prefix, "bin", "tinyml")], check=True, capture_output=True, text=True
    )
    made.release()
    assert done.stdout == "tinyml 42\n"
    own = Conda(variables["REPRO_HOME"], variables).lock(
        LockRequest(environment=wanted, platforms=names), silent
    )
    assert [lock.digest for lock in own] == [lock.digest for lock in locks]


def test_what_conda_lock_cannot_solve_is_told_with_its_reason(variables, channel):
    conda = CondaLock(variables["REPRO_HOME"], variables)
    with pytest.raises(EnvironmentFailed) as failed:
        conda.lock(LockRequest(environment=asked(channel, "tinyml=0.3", "tinymath=2")), silent)
    assert failed.value.message == "conda-lock cannot resolve the packages of `environment.yml`"
    assert "tinymath" in " ".join(failed.value.hints)
    assert os.path.exists(failed.value.log)


def test_conda_lock_knows_no_dates(variables, channel):
    conda = CondaLock(variables["REPRO_HOME"], variables)
    with pytest.raises(Unsupported):
        conda.lock(
            LockRequest(environment=asked(channel, "cfgtool"), exclude_newer="2025-01-01"), silent
        )


def test_a_conda_lock_that_is_not_here_is_told(environ, channel, tmp_path):
    missing = str(tmp_path / "missing")
    conda = CondaLock(environ["REPRO_HOME"], {**environ, "REPRO_CONDA_LOCK": missing})
    with pytest.raises(EnvironmentFailed, match="cannot be started"):
        conda.lock(LockRequest(environment=asked(channel, "cfgtool")), silent)

"""Makers of environments that are killed at any moment, and many that want the same at once."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from environments.conftest import Wheelhouse, fill
from support.channel import populated

from repro import canonical, condafile, value
from repro.environments import cache, inspection
from repro.environments.conda import Conda
from repro.environments.python import Python
from repro.ports import LockRequest
from repro.spec import CondaEnvironment
from repro.system import files
from repro.value import replace

KILLS = 25
SEED = 20_26
AGENT = """
import os, sys
from repro import canonical, errors, lock, value
from repro.environments.conda import Conda
from repro.environments.python import Python
kind, home, *files = sys.argv[1:]
maker = {"conda": Conda, "python": Python}[kind](home, os.environ)
locks = [value.load(canonical.decode(open(file, "rb").read()), lock.CLASSES) for file in files]
print("ready", flush=True)
for wanted in locks:
    maker.realize(wanted, lambda text: print(text, flush=True)).release()
"""


@pytest.fixture
def settings(environ, tmp_path):
    return {**environ, "UV_CACHE_DIR": str(tmp_path / "uv"), "PIP_CONFIG_FILE": os.devnull}


class Kind:
    """One kind of environments: its maker, and locks of different ones that share packages."""

    def __init__(self, name, folder, environ):
        self.name = name
        self.folder = folder
        self.home = str(folder / "store")
        self.environ = environ
        make = {"conda": Conda, "python": Python}[name]
        self.maker = make(self.home, environ)
        self.files = []

    def lock(self, environment):
        (found,) = self.maker.lock(LockRequest(environment=environment), print)
        return found

    def start(self, *locks):
        """Start a process that makes environments one after the other."""
        paths = []
        for lock in locks:
            self.files.append(self.folder / f"lock-{len(self.files)}.json")
            self.files[-1].write_bytes(canonical.encode(value.dump(lock)))
            paths.append(str(self.files[-1]))
        return subprocess.Popen(
            [sys.executable, "-c", AGENT, self.name, self.home, *paths],
            env={**self.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            text=True,
        )

    def forget(self):
        """Forget the environments, and the packages too."""
        for name in ("envs", "pkgs", "wheels", "memo"):
            files.remove_tree(os.path.join(self.home, name))


@pytest.fixture
def conda(tmp_path, settings):
    found = Kind("conda", tmp_path, settings)
    url = populated(tmp_path / "channel").url

    def environment(*packages):
        wanted = "".join(f"- {package}\n" for package in packages)
        text = f"channels: ['{url}']\ndependencies:\n{wanted}"
        return condafile.fill(CondaEnvironment(file="environment.yml", text=text), lambda _p: None)

    chosen = [
        *(("tinyml=0.4", "cfgtool", "pip"), ("tinyml=0.4",), ("tinymath=2.0",), ("cfgtool",)),
        *(("tinymath=1.0", "pip"), ("tinyml=0.3", "cfgtool"), ("pip",), ("cfgtool", "pip")),
    ]
    found.locks = [found.lock(environment(*packages)) for packages in chosen]
    return found


@pytest.fixture
def python(tmp_path, settings):
    found = Kind("python", tmp_path, settings)
    house = fill(Wheelhouse(tmp_path / "wheels"))
    for number in range(4):
        house.wheel(f"part{number}", "1.0", ["beta"])
    alpha = found.lock(house.request("alpha", "part0", "part1", "part2", "part3"))
    found.locks = [
        replace(alpha, artifacts=tuple(a for a in alpha.artifacts if a not in left_out))
        for size in (0, 1, 2)
        for left_out in itertools.combinations(alpha.artifacts, size)
    ]
    return found


@pytest.fixture(params=["conda", "python"])
def kind(request):
    return request.getfixturevalue(request.param)


def is_right(prefix, lock):
    return inspection.inspect(prefix, lock).differences == ()


def test_a_maker_that_is_killed_at_any_moment_does_no_harm(kind):
    """Each time from nothing, and the next one has to make all of it right."""
    dice = random.Random(SEED)
    lock = kind.locks[0]
    start = time.perf_counter()
    first = kind.start(lock)
    assert first.communicate(timeout=60)[0].startswith("ready")
    took = time.perf_counter() - start
    interrupted = 0
    for _ in range(KILLS):
        kind.forget()
        process = kind.start(lock)
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, took))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        realized = kind.maker.realize(lock, lambda _text: None)
        assert is_right(realized.prefix, lock)
        realized.release()
        (entry,) = cache.environments(kind.home)
        assert entry.complete
    assert interrupted > KILLS // 3


def test_sixteen_processes_that_want_eight_environments_make_each_once(kind):
    dice = random.Random(SEED)
    locks = kind.locks[:8]
    assert len({lock.digest for lock in locks}) == 8
    processes = [kind.start(*dice.sample(locks, 8)) for _ in range(16)]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 16
    made = sum(line.startswith("making ") for text in told for line in text.splitlines())
    assert made == 8
    entries = {entry.digest: entry for entry in cache.environments(kind.home)}
    assert entries.keys() == {lock.digest for lock in locks}
    for lock in locks:
        assert entries[lock.digest].complete
        assert is_right(entries[lock.digest].prefix, lock)
    assert os.listdir(os.path.join(kind.home, "tmp")) == []
    assert not list(pathlib.Path(kind.home).glob("envs/*~"))

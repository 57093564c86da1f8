"""A package index on disk, made of little wheels, and environments made from it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest
from environments.served import Index

from repro import canonical, value
from repro.environments.python import Python
from repro.ports import LockRequest
from repro.spec import PythonEnvironment

AGENT = """
import os, sys
from repro import canonical, errors, lock, value
from repro.environments.python import Python
home, file = sys.argv[1:]
wanted = value.load(canonical.decode(open(file, "rb").read()), lock.CLASSES)
print("ready", flush=True)
try:
    Python(home, os.environ).realize(wanted, lambda text: print(text, flush=True)).release()
except errors.ReproError as error:
    sys.exit(error.exit)
"""
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
BACKEND = """
import zipfile

NAME, REQUIRES = {name!r}, {requires!r}


def build_wheel(folder, config_settings=None, metadata_directory=None):
    described, file = f"{{NAME}}-0.3.dist-info", f"{{NAME}}-0.3-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: 0.3\\n"
    metadata += "".join(f"Requires-Dist: {{line}}\\n" for line in REQUIRES)
    with zipfile.ZipFile(f"{{folder}}/{{file}}", "w") as wheel:
        wheel.write(f"{{NAME}}.py")
        wheel.writestr(f"{{described}}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{{described}}/WHEEL", tags)
        wheel.writestr(f"{{described}}/RECORD", "")
    return file
"""


class Wheelhouse:
    """A folder of packages, for `--find-links`."""

    def __init__(self, folder):
        self.folder = folder
        self.options = ("--no-index", f"--find-links {folder}")
        folder.mkdir(parents=True, exist_ok=True)

    def wheel(
        self, name, version, requires=(), tag="py3-none-any", body=None, extras=(), more=None
    ):
        described = f"{name}-{version}.dist-info"
        metadata = METADATA.format(name=name, version=version)
        metadata += "".join(f"Provides-Extra: {extra}\n" for extra in extras)
        metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
        files = {
            f"{name}.py": body or f"VERSION = {version!r}\n\n\ndef main():\n    print(VERSION)\n",
            f"{described}/METADATA": metadata,
            f"{described}/WHEEL": WHEEL.format(tag=tag),
            f"{described}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
            **(more or {}),
        }
        record = "".join(
            f"{path},sha256={_hash(text)},{len(text)}\n" for path, text in files.items()
        )
        files[f"{described}/RECORD"] = f"{record}{described}/RECORD,,\n"
        path = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for inside, text in files.items():
                wheel.writestr(zipfile.ZipInfo(inside), text)
        return path

    def sdist(self, name, version):
        top = f"{name}-{version}"
        with tarfile.open(self.folder / f"{top}.tar.gz", "w:gz") as archive:
            data = METADATA.format(name=name, version=version).replace("2.1", "2.2").encode()
            member = tarfile.TarInfo(f"{top}/PKG-INFO")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

    def request(self, *requirements, **more):
        """Ask for packages of this folder alone."""
        more = {"options": self.options, "source": "python_env.yaml", **more}
        return PythonEnvironment(requirements=requirements, **more)


def _hash(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def fill(house):
    """Put in the packages that most tests take."""
    house.wheel("alpha", "1.0", ["beta>=1"])
    house.wheel("alpha", "2.0", ["beta>=1"])
    house.wheel("beta", "1.0")
    house.wheel("beta", "1.5")
    house.wheel("gamma", "1.0", ["beta<1.2"])
    house.sdist("source_only", "1.0")
    return house


def local_package(folder, name="local_one", requires=()):
    """Make a package that builds itself, without any build tool."""
    folder.mkdir(parents=True)
    (folder / f"{name}.py").write_text("VERSION = 1\n")
    (folder / "backend.py").write_text(BACKEND.format(name=name, requires=requires))
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return folder


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def pretend(path, version, platform="p", abi="a", base=None):
    """A Python that says it is another one, and notes when it is started."""
    told = (
        f'{{"implementation": "cpython", "version": "{version}", "abi": "{abi}", '
        f'"platform": "{platform}", "executable": "{path}", "base": "{base or path}", "sites": []}}'
    )
    return script(path, f"echo started >> {path}.log\necho '{told}'")


class Audited(list):
    """What this process does, as far as `wanted` names it; a hook can never be taken away."""

    def __init__(self, wanted):
        self.wanted = wanted
        sys.addaudithook(self.note)

    def note(self, event, arguments):
        if event == self.wanted:
            self.append(str(arguments[0]))


@pytest.fixture
def processes():
    """The processes that were started."""
    audited = Audited("subprocess.Popen")
    yield audited
    audited.wanted = ""


@pytest.fixture
def opened():
    """The files that were opened."""
    audited = Audited("open")
    yield audited
    audited.wanted = ""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """The packages that most tests take. Not to be changed."""
    return fill(Wheelhouse(tmp_path_factory.mktemp("wheels")))


@pytest.fixture
def own_wheels(tmp_path):
    """The same for a test that changes them."""
    return fill(Wheelhouse(tmp_path / "wheels"))


@pytest.fixture
def index(own_wheels):
    """An index with those packages."""
    with Index(own_wheels.folder).running() as served:
        yield served


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("uv")


@pytest.fixture
def settings(environ, uv_cache):
    """The caller's variables: one cache for all tests, and no patience with servers."""
    return {
        **environ,
        "UV_CACHE_DIR": str(uv_cache),
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }


@pytest.fixture
def home(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def python(home, settings):
    """Make the virtual environments of a store."""

    def make(tool="uv", **options):
        environ = {**settings, **options.pop("environ", {})}
        return Python(options.pop("home", home), environ, tool=tool, **options)

    return make


@pytest.fixture
def told():
    """What was told while working."""
    return []


@pytest.fixture
def agent(tmp_path, home, settings):
    """Start a process that makes the environment of a lock."""
    started = []

    def start(lock, home=home, **environ):
        file = tmp_path / f"lock-{len(started)}.json"
        file.write_bytes(canonical.encode(value.dump(lock)))
        repository = os.path.dirname(os.path.dirname(canonical.__file__))
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(home), str(file)],
            env={**settings, "PYTHONPATH": repository, **environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def locked(maker, environment, tell=print, **how):
    """The lock of an environment for one platform, by default this machine's."""
    (lock,) = maker.lock(LockRequest(environment=environment, **how), tell)
    return lock


def output(realized, code):
    """Run Python code in an environment."""
    interpreter = os.path.join(realized.path[0], "python")
    environ = {**realized.variables, "PATH": realized.path[0]}
    done = subprocess.run(
        [interpreter, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

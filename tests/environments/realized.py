"""Environments in a store, made of little wheels by uv alone, and a conda prefix made by hand."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

from environments.conftest import Wheelhouse

from repro import digest
from repro.environments import cache, uv
from repro.environments.interpreters import Interpreters
from repro.lock import Artifact, EnvironmentLock

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def artifact(wheel, **more):
    """Lock a wheel on disk."""
    name, version = wheel.name.split("-")[:2]
    found = digest.of_bytes(wheel.read_bytes())
    return Artifact(
        name=name,
        version=version,
        kind="wheel",
        digest=found,
        filename=wheel.name,
        url=wheel.as_uri(),
        **more,
    )


class Maker:
    """Makes environments below one store, each once."""

    def __init__(self, home, environ):
        self.home = str(home)
        self.environ = environ
        self.built = 0
        self.interpreter = Interpreters(os.path.join(self.home, "memo"), environ).find("").identity

    def lock(self, *wheels):
        artifacts = tuple(artifact(wheel) for wheel in wheels)
        return EnvironmentLock(
            kind="python", interpreter=self.interpreter, artifacts=artifacts, tool="uv"
        )

    def __call__(self, lock, build=None):
        """Give the prefix of the environment of a lock; nobody uses it then."""

        def counted(prefix, _held):
            self.built += 1
            (build or self.install)(prefix, lock)
            return cache.Built(about={"tool": "uv"})

        prefix, held = cache.enter(
            self.home, lock, fits=lambda _prefix: True, build=counted, progress=print
        )
        held.free()
        return prefix

    def install(self, prefix, lock):
        binary = uv.find(self.environ)
        run = {"env": self.environ, "capture_output": True}
        create = [binary, "venv", "-q", "--python", sys.executable, prefix]
        subprocess.run(create, check=True, **run)
        files = [a.url.removeprefix("file://") for a in lock.artifacts]
        target = ["--python", f"{prefix}/bin/python"]
        options = ["--offline", "--no-index", "--no-deps", "--link-mode=copy"]
        if files:
            install = [binary, "pip", "install", *target, *options, *files]
            subprocess.run(install, check=True, **run)


def house(folder):
    """A folder of wheels."""
    return Wheelhouse(folder)


# -- conda, by hand


def conda_package(prefix, name, version, files, *, build="h0_0", digest_="", links=(), **more):
    """Put a package into a conda prefix as an installer does; files are texts or bytes by path."""
    paths = []
    for path, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        place = os.path.join(prefix, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(data)
        found = hashlib.sha256(data).hexdigest()
        paths.append({"_path": path, "path_type": "hardlink", "sha256_in_prefix": found})
    for path, target in links:
        os.symlink(target, os.path.join(prefix, path))
        noted = hashlib.sha256(target.encode()).hexdigest()
        paths.append({"_path": path, "path_type": "softlink", "sha256_in_prefix": noted})
    record = {
        "name": name,
        "version": version,
        "build": build,
        "sha256": digest_ or hashlib.sha256(name.encode()).hexdigest(),
        "paths_data": {"paths": paths, "paths_version": 1},
        **more,
    }
    os.makedirs(os.path.join(prefix, "conda-meta"), exist_ok=True)
    with open(os.path.join(prefix, "conda-meta", f"{name}-{version}-{build}.json"), "w") as file:
        json.dump(record, file)
    return Artifact(name=name, version=version, kind="conda", build=build, digest=record["sha256"])


def distribution(site, name, version, **fields):
    """Give the files of a Python package, below a folder of packages."""
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    lines += [f"{key.replace('_', '-')}: {text}" for key, text in fields.items()]
    return {
        f"{site}/{name}.py": f"VERSION = {version!r}\n",
        f"{site}/{name}-{version}.dist-info/METADATA": "\n".join(lines) + "\n",
    }


def conda_prefix(prefix):
    """Make a conda prefix of three packages; give its lock."""
    site = "lib/python3.11/site-packages"
    artifacts = (
        conda_package(
            prefix,
            "python",
            "3.11.7",
            {"bin/python3.11": b"\x7fELF binary", "lib/python3.11/os.py": "# os\n"},
            links=[("bin/python", "python3.11")],
            license="PSF-2.0",
        ),
        conda_package(
            prefix,
            "py-tiny",
            "1.0",
            {
                **distribution(site, "tiny", "1.0"),
                "bin/.py-tiny-post-link.sh": "#!/bin/sh\n",
            },
            license="MIT",
        ),
        conda_package(prefix, "libsmall", "2.1", {"lib/libsmall.so": b"\0\1"}, license="GPL-3.0"),
    )
    return EnvironmentLock(kind="conda", artifacts=artifacts, platform="linux-64")

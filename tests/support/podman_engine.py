"""Podman's service for Docker's protocol for tests, in a private folder, gone when the tests end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from support import docker_engine as engines
from support.slurm_engine import command_line, processes

COMMAND = "sudo apt-get install -y --no-install-recommends podman"
SETTINGS = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{root}/tmp"
runtime = "limited"
[engine.runtimes]
limited = ["{root}/limited"]
"""
STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{root}/root"\nrunroot = "{root}/run"\n'
# Podman wants a million open files for each container, more than a root in a container may allow.
RUNTIME = """\
#!{python} -IS
import json, os, sys
words = sys.argv[1:]
path = ""
for option, file in (("--bundle", "/config.json"), ("--process", "")):
    if option in words:
        path = words[words.index(option) + 1] + file
if path:
    with open(path) as file:
        config = json.load(file)
    process = config.get("process", config)
    process["rlimits"] = [one for one in process.get("rlimits", []) if one["hard"] == 0]
    with open(path, "w") as file:
        json.dump(config, file)
os.execvp("runc", ["runc", *words])
"""


class Missing(Exception):
    """What is needed is not on this machine."""


class Engine:
    """A service with the base image in it; `host` and `environ` say how to reach it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.host = f"unix://{root}/podman.sock"
        self.environ = {"DOCKER_HOST": self.host}
        self._variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "CONTAINERS_CONF": f"{root}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{root}/storage.conf",
        }
        self._service = None

    def client(self):
        """Give a client of the docker SDK; close it."""
        return engines.docker.DockerClient(base_url=self.host)

    def start(self):
        """Start the service."""
        (self.root / "containers.conf").write_text(SETTINGS.format(root=self.root))
        (self.root / "limited").write_text(RUNTIME.format(python=sys.executable))
        (self.root / "limited").chmod(0o755)
        (self.root / "storage.conf").write_text(STORAGE.format(root=self.root))
        with (self.root / "log").open("ab") as log:
            self._service = subprocess.Popen(
                ["podman", "system", "service", "--time=0", self.host],
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not engines.answers(self.host):
            if time.monotonic() > end or self._service.poll() is not None:
                said = (self.root / "log").read_text(errors="replace")[-2000:]
                msg = f"podman cannot be started here: {said}"
                raise Missing(msg)
            time.sleep(0.05)

    def kill(self):
        """Let the service die; containers go on without it."""
        self._service.kill()
        self._service.wait()

    def load(self):
        """Load the base image."""
        with contextlib.closing(self.client()) as client:
            (loaded,) = client.images.load(engines.base_archive())
            self.image = loaded.id

    def stop(self):
        """Leave nothing of it running, nor mounted."""
        if self._service is None:
            return
        self._ignored("podman", "rm", "--all", "--force", "--time=0")
        self._service.send_signal(signal.SIGTERM)
        try:
            self._service.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        for pid in processes():  # some wait five minutes for whoever may ask how they ended
            if f"{self.root}/" in command_line(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for path in (self.root / "root" / "overlay", self.root / "root"):
            self._ignored("umount", str(path))

    def _ignored(self, *argv):
        subprocess.run(argv, env=self._variables, capture_output=True, check=False, timeout=120)


@contextlib.contextmanager
def running():
    """A Podman of its own. Raises Missing."""
    if not shutil.which("podman"):
        msg = f"there is no podman; install it with: {COMMAND}"
        raise Missing(msg)
    if os.getuid() != 0:
        msg = "only root can start this Podman"
        raise Missing(msg)
    root = tempfile.mkdtemp(prefix="repro-podman-")
    engine = Engine(root)
    try:
        engine.start()
        engine.load()
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def podman_engine():
    """A Podman with the base image in it, for the whole session."""
    try:
        with running() as engine:
            yield engine
    except Missing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))

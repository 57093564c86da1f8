"""A step submitted on one machine is a hit on another one, which shares nothing but a cache."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from conftest import interpreter_variables
from support import cache_servers

from repro.backends.sandbox.relay import Relay

NAME = "repro-other"
HERE, THERE = "10.213.7.1", "10.213.7.2"
COMMAND = "sudo apt-get install -y --no-install-recommends iproute2, and run as root"
STEP = (
    "entry_points: {main: {inputs: [in.txt], outputs: [out.txt], "
    "command: 'uname -n; tr a-z A-Z < in.txt > out.txt'}}\n"
)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Other:
    """A machine of its own name, network, processes and temporary files, joined by a cable."""

    def __enter__(self):
        self.leave()
        ip("netns", "add", NAME)
        ip("link", "add", "reprohere", "type", "veth", "peer", "name", "reprothere", "netns", NAME)
        ip("addr", "add", f"{HERE}/30", "dev", "reprohere")
        ip("link", "set", "reprohere", "up")
        for words in (
            ("addr", "add", f"{THERE}/30", "dev", "reprothere"),
            ("link", "set", "reprothere", "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", NAME, *words)
        return self

    @staticmethod
    def leave(*_):
        for words in (("link", "del", "reprohere"), ("netns", "del", NAME)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*words)

    __exit__ = leave

    def run(self, hidden, argv, environ):
        """Run a command there; it does not see the folder `hidden` of this machine."""
        script = f'hostname {NAME}; mount -t tmpfs none "$0" && exec "$@"'
        inside = ["unshare", "--uts", "--mount", "--pid", "--fork", "sh", "-c", script, hidden]
        return subprocess.run(
            ["ip", "netns", "exec", NAME, *inside, *argv],
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def other():
    try:
        with Other() as machine:
            yield machine
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{error}: {COMMAND}")


@pytest.fixture
def cache(tmp_path_factory):
    """A web server with a cache, as both machines reach it."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(cache_servers.nginx(tmp_path_factory.mktemp("cache")))
        scheme, _, rest = server.apart().partition("://")
        port = int(rest.partition("/")[0].rpartition(":")[2])
        door = socket.create_server((HERE, 0))
        held.callback(Relay(door, port).close)
        yield f"{scheme}://{HERE}:{door.getsockname()[1]}/{rest.partition('/')[2]}"


def test_a_job_of_a_cluster_is_a_hit_on_a_machine_that_has_none(
    other, cache, slurm_engine, run, project, tmp_path, tmp_path_factory
):
    run.environ = {**run.environ, **slurm_engine.environ, "REPRO_REMOTE": cache}
    folder = project({"MLproject": STEP, "in.txt": "words"})
    made = run(folder, backend="slurm", config={"poll": 1})
    assert made.wait()
    assert made.record.backend == "slurm"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(folder, elsewhere / "project")
    (elsewhere / "project" / "out.txt").unlink()
    (elsewhere / "home").mkdir()
    environ = {
        **interpreter_variables(),
        "PATH": run.environ["PATH"],
        "HOME": str(elsewhere / "home"),
        "LC_ALL": "C.UTF-8",
        "REPRO_REMOTE": cache,
        "REPRO_SANDBOX": "none",
    }
    words = ["run", str(elsewhere / "project"), "--env-manager", "local", "--json"]
    done = other.run(str(tmp_path), [sys.executable, "-m", "repro", *words], environ)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["cached"], told["origin_run"]) == (True, made.run_id)
    assert (elsewhere / "project" / "out.txt").read_text() == "WORDS"

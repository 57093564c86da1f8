"""What goes wrong elsewhere ends a run with a clear word, and leaves nothing behind or open."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from conftest import interpreter_variables
from support.docker_engine import Line

from repro.machine import Machine

MEGABYTES = int(os.environ.get("REPRO_TEST_LOG_MB", "100"))  # 1024 for the deep form
WAITS = "echo ready; sleep 600"
DOCKER = "docker_env: {image: 'debian:12-slim'}\n"
MEASURED = """
import os, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Place:
    """Somewhere to run projects, and a look behind the back of repro."""

    def __init__(self, environ, project, config=""):
        self.environ, self._project = environ, project
        self._words = ["--backend", self.name, *(["--backend-config", config] if config else [])]

    def project(self, command, **keys):
        keys = {"inputs": "[]", "outputs": "['out*']", **keys, "command": json.dumps(command)}
        text = "".join(f"    {name}: {value}\n" for name, value in keys.items())
        entry = f"entry_points:\n  main:\n{text}"
        return str(self._project({"MLproject": self.head + entry}))

    def argv(self, folder, *words):
        return [sys.executable, "-m", "repro", "run", folder, *self._words, *words]

    @property
    def variables(self):
        return {**interpreter_variables(), **self.environ}

    def run(self, folder, *words, **more):
        done = subprocess.run(
            self.argv(folder, *words),
            env={**self.variables, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextlib.contextmanager
    def begun(self, folder, *words, **more):
        """Start a run, and wait until its step says that it is ready."""
        with subprocess.Popen(
            self.argv(folder, *words),
            env={**self.variables, **more},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            timer = threading.Timer(120, process.kill)
            timer.start()
            for line in process.stderr:
                if "│ ready" in line:
                    break
            yield process
            process.said = process.stderr.read()
            process.wait()
            timer.cancel()
        assert "Traceback" not in process.said

    def statuses(self):
        with contextlib.closing(Machine(self.environ)) as machine:
            return [record.status for record in machine.history.find()]


class InDocker(Place):
    name, head, deleted = "docker", DOCKER, 1

    def __init__(self, engine, *others):
        self.engine = engine
        super().__init__(*others)

    def jobs(self):
        with contextlib.closing(self.engine.client()) as client:
            found = client.api.containers(all=True, filters={"label": "repro.run"})
        ours = os.path.dirname(self.environ["REPRO_HOME"])
        return [c["Id"] for c in found if any(m["Source"].startswith(ours) for m in c["Mounts"])]

    def told(self):
        """All that others can read of jobs, but for their variables."""
        with contextlib.closing(self.engine.client()) as client:
            found = [client.api.inspect_container(identity) for identity in self.jobs()]
        for one in found:
            assert "s3cr3t" in str(one["Config"].pop("Env"))
        return str(found)

    def delete(self):
        with contextlib.closing(self.engine.client()) as client:
            for identity in self.jobs():
                client.api.remove_container(identity, force=True)


class OnSlurm(Place):
    name, head, deleted = "slurm", "", 1

    def __init__(self, cluster, *others):
        self.cluster = cluster
        super().__init__(*others)

    def argv(self, folder, *words):
        return super().argv(folder, "--env-manager", "local", *words)

    def jobs(self):
        return self.cluster.call("squeue", "-h", "-o", "%A").split()

    def told(self):
        text = self.cluster.call("squeue", "-o", "%all") + self.cluster.call(
            "scontrol", "show", "job"
        )
        scripts = pathlib.Path(self.environ["REPRO_HOME"]).rglob("job.sh")
        words = pathlib.Path("/proc").glob("[0-9]*/cmdline")
        for path in (*scripts, *words):
            with contextlib.suppress(OSError):
                text += path.read_text(errors="replace")
        for job in self.jobs():
            text += self.cluster.call("scontrol", "write", "batch_script", job, "-")
        return text

    def delete(self):
        self.cluster.call("scancel", *self.jobs())


@pytest.fixture
def docker(hub, run, project):
    return InDocker(hub, run.environ, project)


@pytest.fixture
def slurm(slurm_engine, environ, project):
    variables = {**environ, "SLURM_CONF": slurm_engine.environ["SLURM_CONF"]}
    return OnSlurm(slurm_engine, variables, project, '{"poll": 0.5}')


@pytest.fixture(params=["docker", "slurm"])
def place(request):
    return request.getfixturevalue(request.param)


# --- anywhere ------------------------------------------------------------------------------


def test_a_job_deleted_behind_our_back_fails_the_run(place):
    with place.begun(place.project(WAITS)) as process:
        place.delete()
    assert process.returncode == place.deleted, process.said
    assert place.statuses() == ["KILLED"]
    assert place.jobs() == []


def test_a_run_that_is_interrupted_leaves_nothing(place):
    with place.begun(place.project(WAITS)) as process:
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130, process.said
    assert place.statuses() == ["KILLED"]
    assert place.jobs() == []


def test_secrets_are_in_nothing_that_others_can_read(place):
    keys = {"secrets": "[TOKEN]", "parameters": "{p: {secret: true}}"}
    folder = place.project(f"echo {{p}} $TOKEN; {WAITS}", **keys)
    with place.begun(folder, "-P", "p=s3cr3t-parameter", TOKEN="s3cr3t-variable") as process:
        # our own command line was the tester's to write
        assert "s3cr3t" not in place.told().replace("p=s3cr3t-parameter", "")
        process.send_signal(signal.SIGINT)
    assert "s3cr3t" not in process.said
    for path in pathlib.Path(place.environ["REPRO_HOME"]).rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes(), path


def test_a_long_log_takes_no_memory(place):
    """REPRO_TEST_LOG_MB=1024 makes it a gigabyte."""
    took = []
    for size in (1000, MEGABYTES << 20):
        folder = place.project(f"(yes 0123456789 || :) 2>/dev/null | head -c {size}; echo >out")
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *place.argv(folder)],
            env=place.variables,
            capture_output=True,
            text=True,
            timeout=MEGABYTES + 100,
            check=True,
        )
        code, kilobytes = map(int, done.stdout.split())
        assert code == 0
        took.append(kilobytes >> 10)
    assert took[1] - took[0] < 60, took


# --- docker --------------------------------------------------------------------------------


def test_a_daemon_that_ends_half_way_fails_the_run(docker):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        line = Line(folder, docker.engine.host)
        away = {"DOCKER_HOST": f"unix://{line.path}"}
        with docker.begun(docker.project(WAITS), **away) as process:
            line.cut()
    assert process.returncode == 1
    assert "or the docker daemon" in process.said
    assert docker.statuses() == ["KILLED"]
    docker.delete()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"REPRO_MIRRORS": "docker.io=127.0.0.1:9"}, 7, "127.0.0.1:9"),
        ({"REPRO_MIRRORS": "docker.io={registry}/none"}, 6, "debian"),
        ({"DOCKER_HOST": "unix:///no/such/socket"}, 7, "/no/such/socket"),
    ],
)
def test_an_image_that_cannot_be_had_is_said_before_a_run_begins(docker, change, code, words):
    change = {name: text.format(registry=docker.engine.registry) for name, text in change.items()}
    done = docker.run(docker.project("true"), **change)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert [status for status in docker.statuses() if status != "FAILED"] == []


# --- slurm ---------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path):
    """The disk of a node, too small for much."""
    place = tmp_path / "scratch"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", place],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"only root can mount: {error}")
    yield str(place)
    subprocess.run(["umount", place], check=True)


def configured(slurm, **config):
    return OnSlurm(
        slurm.cluster, slurm.environ, slurm._project, json.dumps({"poll": 0.5, **config})
    )


def test_inputs_that_do_not_fit_on_the_node_are_said(slurm, full):
    here = configured(slurm, scratch=full)
    folder = here.project("true", inputs="[big]")
    pathlib.Path(folder, "big").write_bytes(os.urandom(4 << 20))
    done = here.run(folder)
    assert done.returncode == 7, done.stderr
    assert "No space left" in done.stderr
    assert here.statuses() == ["FAILED"]
    assert os.listdir(full) == []


def test_a_step_that_fills_the_disk_of_the_node_fails(slurm, full):
    here = configured(slurm, scratch=full)
    done = here.run(here.project("head -c 4000000 /dev/zero >out"))
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr
    assert here.statuses() == ["FAILED"]
    assert os.listdir(full) == []


@pytest.mark.parametrize("hours", ["+1h", "-1h"])
def test_a_node_whose_clock_is_wrong_does_no_harm(slurm, tmp_path, hours):
    if not shutil.which("faketime"):
        assert os.environ.get("CI") != "true"
        pytest.skip("install it with: sudo apt-get install faketime")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec faketime -f "{hours}" {sys.executable} "$@"\n')
    python.chmod(0o755)
    here = configured(slurm, python=str(python))
    folder = here.project("sleep 1; echo made >out; echo said")
    done = here.run(folder)
    assert (done.returncode, "said" in done.stderr) == (0, True), done.stderr
    assert pathlib.Path(folder, "out").read_text() == "made\n"
    with contextlib.closing(Machine(here.environ)) as machine:
        (record,) = machine.history.find()
    assert 1 <= record.wall_ns / 1e9 < 60
    assert 1 <= (record.ended_ns - record.started_ns) / 1e9 < 110
    assert "reused run" in here.run(folder).stderr

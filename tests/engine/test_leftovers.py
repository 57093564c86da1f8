"""A run whose process was killed while its job goes on: found again, and brought to its end."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jsonschema
import pytest
from conftest import interpreter_variables

from repro import attaching, leftovers, schemas
from repro.errors import UsageError
from repro.repeating import Recalling

HOST = pathlib.Path(__file__).with_name("left_host.py")
SLOW = (
    "entry_points: {main: {inputs: [in.txt], outputs: [out.txt], command: "
    "'echo ready; sleep 3; echo later; tr a-z A-Z < in.txt > out.txt'}}\n"
)
SLURM = '{"poll": 1}'


class Left:
    """A project on a backend, and a run of it that was left behind."""

    def __init__(self, folder, backend, environ, config):
        self.folder, self.backend, self.environ, self.config = folder, backend, environ, config

    def kill_one(self):
        """Start a run whose process is killed; give its id."""
        done = subprocess.run(
            [sys.executable, HOST, self.folder, self.backend, self.config],
            env={**self.environ, **interpreter_variables()},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == -9, done.stderr
        return done.stdout.strip()

    def machine(self, emit=None):
        return Recalling(self.environ, emit)


@pytest.fixture(params=["docker", "slurm"])
def left(request, run, project):
    # an environment of its own: that of these tests has MLflow, whose calls nobody would hear
    environment = "python_env: env.yml\n"
    if request.param == "docker":
        request.getfixturevalue("hub")
        environment = "docker_env: {image: 'debian:12-slim'}\n"
    else:
        cluster = request.getfixturevalue("slurm_engine")
        run.environ = {**run.environ, **cluster.environ}
    texts = {"MLproject": environment + SLOW, "in.txt": "words", "env.yml": "dependencies: []\n"}
    folder = project(texts)
    config = SLURM if request.param == "slurm" else ""
    return Left(folder, request.param, run.environ, config)


def test_a_run_is_attached_to_and_its_result_serves(left, run):
    run_id = left.kill_one()
    heard = []
    machine = left.machine(heard.append)
    assert leftovers.is_left(machine.history.get(run_id), machine)
    done = attaching.attach(run_id[:8], machine, machine.emit)
    said = b"".join(e.data for e in heard if type(e).__name__ == "Output")
    assert (done.run_id, done.status, done.exit_code) == (run_id, "FINISHED", 0)
    assert said == b"ready\nlater\n"
    assert (left.folder / "out.txt").read_text() == "WORDS"
    assert machine.history.get(run_id).status == "FINISHED"
    with pytest.raises(UsageError, match="has left no job"):
        attaching.attach(run_id, machine, machine.emit)
    machine.close()
    again = run(left.folder, env_manager="")
    assert (again.cached, again.record.origin_run) == (True, run_id)


def test_the_next_run_of_the_step_goes_on_with_the_job(left, run):
    run_id = left.kill_one()
    config = left.config or None
    found = run(left.folder, backend=left.backend, env_manager="", config=config)
    assert (found.cached, found.record.origin_run) == (True, run_id)
    assert any("going on with run" in e.text for e in run.named("Progress"))
    assert (left.folder / "out.txt").read_text() == "WORDS"


def test_a_job_that_is_gone_too_is_not_waited_for(left, run):
    run_id = left.kill_one()
    machine = left.machine()
    leftovers.job(machine.history.get(run_id), machine).cancel()
    machine.close()
    config = left.config or None
    found = run(left.folder, backend=left.backend, env_manager="", config=config)
    assert (found.cached, found.get_status()) == (False, "FINISHED")


@pytest.mark.parametrize("how", ["run", "left"])
def test_cancel_ends_the_job_that_was_left(left, repro, how):
    run_id = left.kill_one()
    machine = left.machine()
    words = ["--left", "--json"] if how == "left" else [run_id[:12]]
    answer = repro("cancel", *words, env=left.environ)
    assert answer.code == 0, answer.text
    if how == "left":
        told = json.loads(answer.out)
        jsonschema.validate(told, schemas.load("cancel"))
        assert told["runs"] == [{"run_id": run_id, "asked": False}]
    assert not leftovers.has_job(machine.history.get(run_id), machine)
    assert not leftovers.is_left(machine.history.get(run_id), machine)
    machine.close()


def test_a_run_under_way_and_one_that_has_ended_are_not_attached_to(run, project):
    folder = project({"MLproject": SLOW.replace("sleep 3; ", ""), "in.txt": "words"})
    done = run(folder)
    machine = Recalling(run.environ)
    with pytest.raises(UsageError, match="has left no job"):
        attaching.attach(done.run_id, machine, machine.emit)
    lease = machine.history.lease(done.run_id)
    with pytest.raises(UsageError, match="is under way in process"):
        attaching.attach(done.run_id, machine, machine.emit)
    machine.history.release(lease)
    machine.close()

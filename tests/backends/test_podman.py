"""The docker backend with Podman's service in the place of the daemon."""

import contextlib
import gc
import os

import pytest
from support.podman_engine import podman_engine  # noqa: F401  (a fixture)

from repro.backends.docker import Docker
from repro.errors import EnvironmentFailed, Unreachable
from repro.ports import Job
from repro.testing.contract import BackendContract, Output


class TestPodman(BackendContract):
    @pytest.fixture(autouse=True)
    def _engine(self, podman_engine):  # noqa: F811
        self.engine = podman_engine
        yield
        with contextlib.closing(podman_engine.client()) as client:
            left = client.api.containers(all=True, filters={"label": "repro.run"})
        assert left == []

    def backend(self):
        return Docker(self.engine.environ)

    def job(self, **fields):
        return Job(image=self.engine.image, **fields)


@pytest.fixture
def room(podman_engine, tmp_path_factory):  # noqa: F811
    """Folders for jobs, and the backend."""
    made = Room(podman_engine, tmp_path_factory.mktemp("room"))
    yield made
    with contextlib.closing(podman_engine.client()) as client:
        assert client.api.containers(all=True, filters={"label": "repro.run"}) == []


class Room:
    def __init__(self, engine, base):
        self.engine, self.base = engine, base
        self.backend = Docker(engine.environ)
        (base / "work").mkdir()

    def job(self, text, **fields):
        given = {"image": self.engine.image, "run_id": os.urandom(4).hex(), **fields}
        variables = {"PATH": "/bin:/usr/bin", "TERM": "mine"}
        folder = str(self.base / "work")
        return Job(
            argv=("sh", "-c", text),
            variables=variables,
            folder=folder,
            base=str(self.base),
            **given,
        )

    def begun(self, text, **fields):
        output = Output()
        running = self.backend.submit(self.job(text, **fields), output)
        assert output.heard(b"ready", 60)
        return running, output


def test_a_variable_that_podman_sets_too_is_the_jobs(room):
    output = Output()
    assert room.backend.submit(room.job("echo $TERM ${container-none}"), output).wait().code == 0
    assert output.out == b"mine none\n"


def test_an_image_that_is_not_there_is_explained(room):
    with pytest.raises(EnvironmentFailed, match="no image `sha256:000"):
        room.backend.submit(room.job("true", image="sha256:" + "0" * 64), Output())


def test_a_job_is_found_with_all_it_said_and_cancelled(room):
    running, _ = room.begun("echo ready; sleep 600", run_id="found", grace_ms=200)
    output = Output()
    found = room.backend.find("found", output)
    assert output.heard(b"ready\n", 60)
    found.cancel()
    assert found.wait().cause == "cancel"
    assert running.wait().code in (143, 137)


def test_a_container_deleted_behind_our_back_has_ended(room):
    running, _ = room.begun("echo ready; sleep 600", run_id="deleted")
    with contextlib.closing(room.engine.client()) as client:
        (one,) = client.api.containers(filters={"label": "repro.run=deleted"})
        client.api.remove_container(one["Id"], force=True)
    assert running.wait().code == 137


def test_a_service_that_dies_is_said_and_its_container_found_by_the_next(room):
    running, output = room.begun("echo ready; sleep 600", run_id="left", grace_ms=200)
    room.engine.kill()
    assert running.wait().cause == "lost"
    assert b"the docker daemon" in output.err
    with pytest.raises(Unreachable, match="no docker daemon answers"):
        room.backend.find("left")
    room.engine.start()
    room.backend.find("left").cancel()
    assert room.backend.find("left") is None
    gc.collect()

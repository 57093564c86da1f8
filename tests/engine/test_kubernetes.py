"""A project runs on a real Kubernetes, and its result is a hit where there is none."""

from __future__ import annotations

import json
import os

import pytest
from engine.test_leftovers import Left
from support.kubernetes_double import blobs  # noqa: F401  (a fixture)
from support.kubernetes_engine import kubernetes_engine  # noqa: F401  (a fixture)

from repro import attaching
from repro.errors import Unsupported

STEP = (
    "docker_env: {{image: '{image}'}}\n"
    "entry_points: {{main: {{inputs: [in.txt], outputs: [out.txt], "
    "command: '{before}echo later; tr a-z A-Z < in.txt > out.txt'}}}}\n"
)


@pytest.fixture
def there(kubernetes_engine, blobs, run, project):  # noqa: F811
    """A project whose image is in the cluster's registry, and the settings for it."""
    run.environ = {**run.environ, **kubernetes_engine.environ}

    def make(before=""):
        text = STEP.format(image=kubernetes_engine.image, before=before)
        return project({"MLproject": text, "in.txt": "words"})

    make.config = {"cache": blobs.url, "pod": {"hostNetwork": True}}
    make.jobs = lambda: kubernetes_engine.kubectl("get", "jobs", "-o", "name").split()
    return make


def test_a_step_is_a_job_of_the_cluster_and_its_result_is_a_hit_here(there, run):
    folder = there()
    before = there.jobs()
    first = run(folder, backend="kubernetes", env_manager="", config=there.config)
    assert first.wait()
    assert run.printed == "later\n"
    assert (folder / "out.txt").read_text() == "WORDS"
    assert (first.record.backend, first.record.sandbox) == ("kubernetes", "mounts")
    assert there.jobs() == before
    run.environ = {**run.environ, "KUBECONFIG": "/not/here"}
    assert run(folder, env_manager="").cached
    assert run(folder, backend="kubernetes", env_manager="", config=there.config).cached
    with pytest.raises(Unsupported, match="cannot take the network away"):
        run(folder, backend="kubernetes", env_manager="", sandbox="hermetic")


def test_a_job_that_outlives_its_repro_is_attached_to(there, run):
    folder = there(before="echo ready; sleep 3; ")
    left = Left(folder, "kubernetes", run.environ, json.dumps(there.config))
    run_id = left.kill_one()
    machine = left.machine()
    done = attaching.attach(run_id, machine, machine.emit)
    machine.close()
    assert (done.run_id, done.status) == (run_id, "FINISHED")
    assert (folder / "out.txt").read_text() == "WORDS"
    assert os.listdir(os.path.join(run.environ["REPRO_HOME"], "jobs")) == []

"""`repro env image`: the same image from the same lock, which runs what was locked."""

from __future__ import annotations

import json
import shutil

import jsonschema
import pytest
from support import channel as channels
from support import docker_engine as engines
from support import images as little

from repro import schemas
from repro.images import daemon

docker_engine = engines.docker_engine
images = little.images

PROJECT = """\
name: image
conda_env: conda.yml
entry_points:
  main: {command: "python -c 'print(1)' > out"}
"""


@pytest.fixture(scope="session")
def channel(tmp_path_factory):
    """A channel whose Python stands on its own."""
    python = channels.full()
    if python is None:
        pytest.skip("this Python is part of the system: run with one of pyenv or uv")
    return channels.Channel(tmp_path_factory.mktemp("channel")).add(python, *channels.toys())


@pytest.fixture
def project(project, channel):
    wanted = f"channels: ['{channel.url}']\ndependencies: [python, tinyml, cfgtool]\n"
    return project({"MLproject": PROJECT, "conda.yml": wanted, "train.py": "print('trained')\n"})


@pytest.fixture
def bake(repro, images, tmp_path):
    """Call the command with an engine, and forget its images afterwards."""

    def call(*words, home="one", **more):
        folder = tmp_path / home
        variables = {**images.environ, "REPRO_HOME": str(folder), "REPRO_DATA": f"{folder}-data"}
        done = repro("env", "image", *words, env={**variables, **more}, timeout=240)
        if done.code == 0:
            told = json.loads(done.out) if "--json" in words else {"image": done.out.strip()}
            images.made.add(told["image"])
        return done

    yield call
    with daemon.connected(images.environ) as engine:
        for image in list(images.made):
            names = (engine.inspect(image) or {}).get("RepoTags") or ()
            images.made.update(names)


def run(images, image, *argv):
    with daemon.connected(images.environ) as engine:
        return engine.run(image, list(argv))


def document(done):
    found = json.loads(done.out)
    jsonschema.validate(found, schemas.load("environment-image"))
    return found


def test_two_stores_bake_one_image_that_runs_what_was_locked(bake, images, project):
    base = images.engine.digest
    first = bake(project, "--base", base)
    assert first.code == 0, first.err
    image = first.out.strip()
    assert run(images, image, "tinyml") == "tinyml 42\n"
    assert run(images, image, "cfgtool") == "prefix=/opt/repro/env\n"
    code = "import sys, tinyml; print(sys.prefix, tinyml.__version__)"
    assert run(images, image, "python", "-c", code) == "/opt/repro/env 0.4.0\n"
    images.drop(image, *names(images, image))
    other = "elsewhere/with/a/name/that/is/longer"
    told = document(bake(project, "--base", base, "--json", home=other))
    assert told["image"] == image
    assert (told["base"]["id"], told["with_project"]) == (images.engine.image, False)
    assert told["base"]["manifest"] == images.engine.digest.partition("@")[2]


def names(images, image):
    with daemon.connected(images.environ) as engine:
        return engine.inspect(image)["RepoTags"]


def test_the_project_goes_on_top_and_all_of_it_to_a_registry(bake, images, project):
    name = f"{images.name}:1"
    words = ("--base", images.engine.digest, "--with-project", "--push", name, "--json")
    told = document(bake(project, *words))
    assert run(images, told["image"], "python", "train.py") == "trained\n"
    assert told["with_project"]
    pushed, _, pin = told["pushed"].partition("@")
    assert (pushed, len(pin)) == (name, 71)
    assert document(bake(project, *words))["image"] == told["image"]
    (project / "train.py").write_text("print('changed')\n")
    assert document(bake(project, *words))["image"] != told["image"]
    images.drop(name)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--base", "UPPER/case"), "names no image"),
        (("--base", "127.0.0.1:9/none"), "127.0.0.1:9"),
        (("--push", "a@sha256:" + "0" * 64), "takes a name with a tag"),
        (("--push", "UPPER"), "names no image"),
    ],
)
def test_what_cannot_be_is_said(bake, images, project, words, told):
    given = words if "--base" in words else ("--base", images.engine.digest, *words)
    answer = bake(project, *given)
    assert answer.code not in (0, 70)
    assert told in answer.err


def test_an_environment_without_its_project_has_no_files_to_add(bake, images, project):
    told = document(bake(project, "--base", images.engine.digest, "--json"))
    words = (told["environment"], "--base", images.engine.digest)
    assert bake(*words).out.strip() == told["image"]
    answer = bake(*words, "--with-project")
    assert answer.code == 2
    assert "needs a project" in answer.err


def test_without_an_engine_it_is_said_how_to_start_one(bake, project, tmp_path, images):
    answer = bake(project, "--base", images.engine.digest, DOCKER_HOST=f"unix://{tmp_path}/none")
    assert answer.code not in (0, 70)
    assert "does not answer" in answer.err
    shutil.rmtree(tmp_path / "one", ignore_errors=True)

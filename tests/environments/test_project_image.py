"""A project on top of its image, and logins that a caller gives for the registry of that."""

from __future__ import annotations

import base64

import pytest
import requests
from support import docker_engine as engines
from support import fake_registry
from support import images as little

from repro import digest
from repro.environments import project_image
from repro.environments.docker import Docker
from repro.errors import EnvironmentFailed
from repro.images import daemon, logins
from repro.manifest import Entry
from repro.ports import LockRequest
from repro.spec import DockerEnvironment

docker_engine = engines.docker_engine
images = little.images
fake = fake_registry.fake
KEPT = ("Content-Type", "Docker-Content-Digest", "WWW-Authenticate")


def quiet(_text):
    pass


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("wine", "wine"),
        ("My Project_2", "my-project-2"),
        ("../x:y@z", "x-y-z"),
        ("", "repro-project"),
        ("日本", "repro-project"),
    ],
)
def test_the_name_of_a_project_as_that_of_an_image(name, repository):
    assert project_image.repository(name) == repository


def test_a_project_is_put_on_its_image_once(images, tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    text = b"echo trained in $PWD\n"
    (root / "train.sh").write_bytes(text)
    (root / "other").write_text("not among the entries")
    entry = Entry(path="train.sh", kind="exec", content=digest.of_bytes(text), size=len(text))
    options = {
        "home": str(tmp_path / "store"),
        "environ": images.environ,
        "name": images.repository,
    }
    with daemon.connected(images.environ) as engine:
        base = images.engine.image
        made = project_image.with_project(base, str(root), [entry], engine=engine, **options)
        tag = f"{images.repository}:{made.removeprefix('sha256:')[:12]}"
        images.made |= {tag, made}
        assert engine.run(made, ["sh", "train.sh"]) == "trained in /mlflow/projects/code\n"
        assert engine.run(made, ["ls"]) == "train.sh\n"
        assert engine.inspect(tag)["Id"] == made
        again = project_image.with_project(base, str(root), [entry], engine=engine, **options)
        assert again == made
        with pytest.raises(EnvironmentFailed, match="not in the engine"):
            project_image.with_project("none:1", str(root), [entry], engine=engine, **options)


def test_an_image_of_a_private_registry_is_fetched_with_the_login_that_is_told(
    images, fake, tmp_path
):
    made, _pin = images.push("private", engines.WORD)
    secret = base64.b64encode(b"me:geheim").decode()

    def guarded(asked):
        if asked.headers.get("Authorization") != f"Basic {secret}":
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}"
        url = f"http://{images.engine.registry}{asked.path}"
        accept = {"Accept": ", ".join(asked.headers.get_all("Accept", []))}
        found = requests.request(asked.method, url, headers=accept, timeout=10)
        kept = {name: found.headers[name] for name in KEPT if name in found.headers}
        length = found.headers.get("Content-Length", str(len(found.content)))
        return found.status_code, {**kept, "Content-Length": length}, found.content

    fake.answers = {"/": guarded}
    name = f"{fake.host}/{images.repository}:1"
    images.made.add(name)
    told = logins.given({"username": "me", "password": "geheim", "registry": fake.host})
    request = LockRequest(environment=DockerEnvironment(image=name))
    adapter = Docker(str(tmp_path / "store"), images.environ, told=told)
    (lock,) = adapter.lock(request, quiet)
    assert lock.image.id == made
    assert "geheim" not in repr(lock)
    assert not images.has(made)
    with pytest.raises(EnvironmentFailed, match="no longer in its registry"):
        Docker(str(tmp_path / "store"), images.environ).realize(lock, quiet)
    assert adapter.realize(lock, quiet).image == made

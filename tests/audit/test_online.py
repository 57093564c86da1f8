"""What indexes and registries say of locked things: asked of real servers, on loopback."""

from __future__ import annotations

import base64
import json
import socket

import pytest
from audit.asking import asked, found, skipped
from environments.conftest import Wheelhouse, fill
from environments.served import Index
from support import docker_engine as engines
from support import images as little
from support.fake_registry import FakeRegistry, config, manifest, pin

from repro import digest, locking
from repro.images.manifests import INDEXES
from repro.lock import Artifact, EnvironmentLock, Image, Interpreter
from repro.lockfiles import dockerlock, pylock
from repro.machine import Machine

PYTHON = Interpreter(
    implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
)
docker_engine = engines.docker_engine
images = little.images
MLPROJECT = "python_env: python_env.yaml\nentry_points:\n  main: {command: python main.py}\n"


class Telling(Index):
    """An index that says more of its files: `told` by the name of a file."""

    def __init__(self, folder):
        super().__init__(folder)
        self.told = {}

    def page(self, name):
        page = super().page(name)
        for file in page["files"] if page else ():
            file.update(self.told.get(file["filename"], {}))
        return page


@pytest.fixture
def index(tmp_path):
    house = fill(Wheelhouse(tmp_path / "wheels"))
    with Telling(house.folder).running() as served:
        yield served


@pytest.fixture
def events():
    return []


@pytest.fixture
def machine(environ, events):
    opened = Machine(environ, events.append, looks_only=True)
    yield opened
    opened.close()


def artifact(index, name, version):
    filename = f"{name}-{version}-py3-none-any.whl"
    path = index.folder / filename
    return Artifact(
        name=name,
        version=version,
        kind="wheel",
        digest=digest.of_bytes(path.read_bytes()) if path.exists() else "f" * 64,
        filename=filename,
        url=f"http://{index.host}/files/{filename}",
        index=index.url,
    )


@pytest.fixture
def locked(project, index):
    """A project with packages of the index in its lock."""

    def make(*packages, settings="", exclude_newer=""):
        lock = EnvironmentLock(
            kind="python",
            platform=locking.here(),
            interpreter=PYTHON,
            artifacts=tuple(artifact(index, *package) for package in packages),
            exclude_newer=exclude_newer,
        )
        lines = "".join(f"  - {name}\n" for name, _version in packages)
        return project(
            {
                "MLproject": MLPROJECT,
                "python_env.yaml": f"python: '3.11'\ndependencies:\n  - -i {index.url}\n{lines}",
                f"lockfiles/pylock.{locking.here()}.toml": pylock.encode((lock,), {}).decode(),
                ".repro-audit.toml": settings,
            }
        )

    return make


ALPHA = ("alpha", "2.0")
BETA = ("beta", "1.5")


def test_nothing_is_asked_unless_told_to(machine, locked, index):
    facts = asked(machine, locked(ALPHA))
    assert index.requests == []
    assert {"P02", "P03", "A01", "A02"} <= skipped(facts)


def test_each_package_is_asked_about_once(machine, locked, index):
    facts = asked(machine, locked(ALPHA, BETA), online=True)
    assert sorted(index.requests) == ["/simple/alpha/", "/simple/beta/"]
    assert found(facts, "P02", "P03") == set()
    assert not {"P02", "P03"} & skipped(facts)


@pytest.mark.parametrize("said", ["wrong numbers", True])
def test_a_version_that_was_yanked(machine, locked, index, said):
    index.told["alpha-2.0-py3-none-any.whl"] = {"yanked": said}
    index.told["beta-1.5-py3-none-any.whl"] = {"yanked": False}
    facts = asked(machine, locked(ALPHA, BETA), online=True)
    assert found(facts, "P02") == {("P02", "alpha")}
    assert facts.releases[0].yanked == (said if isinstance(said, str) else "")


def test_a_file_that_the_index_has_no_more(machine, locked):
    facts = asked(machine, locked(("alpha", "3.0"), ("nothing", "1.0"), BETA), online=True)
    assert found(facts, "P02") == {("P02", "alpha"), ("P02", "nothing")}


def test_a_file_that_is_newer_than_the_limit(machine, locked, index):
    index.uploaded = {
        "alpha-2.0-py3-none-any.whl": "2025-06-02T00:00:00Z",
        "beta-1.5-py3-none-any.whl": "2025-06-01T23:00:00Z",
    }
    folder = locked(ALPHA, BETA, exclude_newer="2025-06-01")
    assert found(asked(machine, folder, online=True), "P03") == {("P03", "alpha")}


def statement(name, sha256):
    subject = [{"name": name, "digest": {"sha256": sha256}}]
    text = base64.b64encode(json.dumps({"subject": subject}).encode()).decode()
    attestation = {"version": 1, "envelope": {"statement": text, "signature": ""}}
    return {"version": 1, "attestation_bundles": [{"attestations": [attestation]}]}


def test_attestations_are_about_a_file_or_are_none(machine, locked, index):
    house = Wheelhouse(index.folder)
    names = {n: f"{n}-1.0-py3-none-any.whl" for n in ("good", "bad", "other", "none", "untold")}
    for name, filename in names.items():
        path = house.wheel(name, "1.0")
        about = {
            "good": statement(filename, digest.of_bytes(path.read_bytes())),
            "bad": statement(filename, "0" * 64),
            "other": statement("x.whl", "0" * 64),
        }.get(name)
        if about:
            (index.folder / f"{name}.provenance").write_text(json.dumps(about))
            place = f"http://{index.host}/files/{name}.provenance"
            index.told[filename] = {"provenance": place}
    index.told[names["none"]] = {"provenance": None}
    facts = asked(machine, locked(*((name, "1.0") for name in names)), online=True)
    assert {one.name: one.state for one in facts.attestations} == {
        "good": "good",
        "bad": "bad",
        "other": "bad",
        "none": "absent",
    }
    assert found(facts, "A0") == {("A01", "none"), ("A02", "bad"), ("A02", "other")}


def test_an_index_that_says_nothing_of_attestations_was_not_looked_at(machine, locked):
    facts = asked(machine, locked(ALPHA, settings="require-attestations = true\n"), online=True)
    assert {"A01", "A02"} <= skipped(facts)
    assert found(facts, "A0") == set()


def test_an_index_that_does_not_answer_is_told_of_and_not_waited_for(
    machine, locked, index, events
):
    folder = locked(ALPHA, BETA)
    path = folder / f"lockfiles/pylock.{locking.here()}.toml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        path.write_text(path.read_text().replace(index.url, place))
        facts = asked(machine, folder, online=True, seconds=0.3)
    assert facts.releases is None
    assert {"P02", "A01"} <= skipped(facts)
    assert "no answer about alpha, beta" in events[-1].text


def test_a_login_is_given_to_the_index_that_it_is_for(machine, locked, index, environ):
    index.login = base64.b64encode(b"me:secret").decode()
    assert asked(machine, locked(ALPHA), online=True).releases is None
    environ["UV_INDEX_URL"] = f"http://me:secret@{index.host}/simple"
    assert asked(machine, locked(ALPHA), online=True).releases


def test_pages_come_from_the_mirror_of_the_index(machine, locked, index, environ):
    folder = locked(ALPHA)
    path = folder / f"lockfiles/pylock.{locking.here()}.toml"
    path.write_text(path.read_text().replace(index.url, "https://pypi.invalid/simple"))
    environ["REPRO_MIRRORS"] = f"https://pypi.invalid/simple={index.url}"
    assert asked(machine, folder, online=True).releases
    assert index.requests == ["/simple/alpha/"]


def test_a_project_without_packages_has_nothing_to_ask(machine, project):
    facts = asked(machine, project({"MLproject": "entry_points: {main: {command: 'true'}}\n"}))
    assert not {"P02", "A01", "K02", "K04"} & skipped(facts)


# -- images


@pytest.fixture
def registry():
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def imaged(project, registry, environ):
    """A project that runs in an image of the registry, with no engine on its machine."""
    environ["DOCKER_HOST"] = "unix:///nothing"

    def make(data=None, **more):
        data = data or config()
        name = f"{registry.host}/x:1"
        image = {"manifest": pin(manifest(data)), **more}
        lock = EnvironmentLock(
            kind="docker",
            platform="linux-64",
            image=Image(reference=name, id=pin(data), **image),
        )
        return project(
            {
                "MLproject": f"docker_env: {{image: '{name}'}}\nentry_points: {{main: {{command: 'true'}}}}\n",
                "lockfiles/docker-lock.json": dockerlock.encode((lock,), {}).decode(),
            }
        )

    return make


needs_linux_64 = pytest.mark.skipif(locking.here() != "linux-64", reason="images are of linux-64")


def test_without_an_engine_and_offline_images_are_not_looked_at(machine, imaged, registry):
    facts = asked(machine, imaged())
    assert registry.asked == []
    if locking.here() == "linux-64":
        assert {"K02", "K03", "K04", "K05"} <= skipped(facts)


@needs_linux_64
def test_an_image_that_is_there_as_it_was_locked(machine, imaged, registry):
    registry.serve()
    facts = asked(machine, imaged(), online=True)
    assert found(facts, "K") == set()
    assert not {"K02", "K03", "K04"} & skipped(facts)


@needs_linux_64
def test_a_tag_that_has_moved(machine, imaged, registry):
    other = json.dumps({**json.loads(config()), "created": "2026-01-01T00:00:00Z"}).encode()
    registry.serve(data=config())
    registry.serve(data=other)
    facts = asked(machine, imaged(), online=True)
    assert {code for code, _subject in found(facts, "K")} == {"K02"}


@needs_linux_64
def test_an_image_that_was_removed_from_its_registry(machine, imaged, registry):
    other = json.dumps({**json.loads(config()), "created": "2026-01-01T00:00:00Z"}).encode()
    registry.serve(data=other)
    facts = asked(machine, imaged(), online=True)
    assert {code for code, _subject in found(facts, "K")} == {"K02", "K04"}


@needs_linux_64
def test_an_index_in_a_registry_is_followed(machine, imaged, registry):
    registry.serve(tag="inner")
    text = manifest(config())
    entry = {"digest": pin(text), "size": len(text)}
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    document = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    registry.put("/v2/x/manifests/1", document, Content_Type=INDEXES[0])
    facts = asked(machine, imaged(), online=True)
    assert facts.images[0].manifest == pin(text)
    assert found(facts, "K") == set()


@needs_linux_64
def test_an_image_of_another_architecture(machine, imaged, registry):
    registry.serve(data=config("arm64"))
    facts = asked(machine, imaged(config("arm64")), online=True)
    assert {code for code, _subject in found(facts, "K")} == {"K03"}


@needs_linux_64
def test_a_registry_that_fails_leaves_images_not_looked_at(machine, imaged, registry):
    registry.put("/v2/", b"", status=500)
    facts = asked(machine, imaged(), online=True)
    assert facts.images is None


# -- with a container engine


@needs_linux_64
def test_images_that_the_engine_has_and_has_not(machine, images, environ, project):
    environ.update(images.environ)
    identity, manifest_ = images.push("one")
    written = images.load("two")

    def facts(**more):
        image = Image(reference=f"{images.name}:1", **more)
        locks = (EnvironmentLock(kind="docker", platform="linux-64", image=image),)
        mlproject = f"docker_env: {{image: '{image.reference}'}}\nentry_points: {{main: {{command: 'true'}}}}\n"
        text = dockerlock.encode(locks, {}).decode()
        return asked(machine, project({"MLproject": mlproject, "lockfiles/docker-lock.json": text}))

    absent = facts(id=identity, manifest=manifest_)
    assert absent.images[0].present is False
    assert found(absent, "K") == set()  # it can be fetched
    assert "K02" in skipped(absent)
    assert found(facts(id=identity), "K") == {("K04", f"{images.name}:1")}
    there = facts(id=written)
    assert (there.images[0].present, there.images[0].architecture) == (True, "linux/amd64")
    assert found(there, "K") == set()

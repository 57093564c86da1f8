from __future__ import annotations

import base64
import http.server
import json
import os
import socketserver
import threading
import uuid

import pytest
from support import docker_engine as engines
from support import fake_registry
from support import images as little

from repro import digest, manifest
from repro.environments.docker import Docker
from repro.errors import EnvironmentFailed, Unreachable, Unsupported, UsageError
from repro.images import daemon
from repro.lock import EnvironmentLock, Image
from repro.lockfiles import dockerlock
from repro.manifest import Entry
from repro.platforms import named
from repro.ports import LockRequest
from repro.spec import DockerEnvironment, PythonEnvironment
from repro.value import replace

docker_engine = engines.docker_engine
images = little.images
fake = fake_registry.fake

HERE = "linux-64" if engines.WORD == "linux/amd64" else "linux-aarch64"
THERE = "linux-aarch64" if engines.WORD == "linux/amd64" else "linux-64"
WORD, OTHER_WORD = engines.WORD, named(THERE).docker


def quiet(_text):
    pass


@pytest.fixture
def docker(images, tmp_path):
    def make(**options):
        environ = {**images.environ, **options.pop("environ", {})}
        return Docker(str(tmp_path / "store"), environ, **options)

    return make


def lock(adapter, image, *platforms, **more):
    wanted = DockerEnvironment(image=image)
    request = LockRequest(environment=wanted, platforms=platforms or (HERE,), **more)
    return adapter.lock(request, quiet)


# -- locking


def test_a_tag_is_locked_to_what_it_means_now(docker, images):
    made, pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    assert (found.kind, found.platform) == ("docker", HERE)
    assert (found.image.id, found.image.manifest) == (made, pin)
    assert found.image.reference == f"{images.name}:1"
    assert dockerlock.decode("x", dockerlock.encode((found,), {})).locks == (found,)


def test_a_moved_tag_moves_no_lock_until_it_is_upgraded(docker, images):
    made, _pin = images.push("one", WORD)
    old = lock(docker(), f"{images.name}:1")
    moved, _pin = images.push("two", WORD)
    assert lock(docker(), f"{images.name}:1", keep=old) == old
    for names in (("*",), (f"{images.name}:1",)):
        (new,) = lock(docker(), f"{images.name}:1", keep=old, upgrade=names)
        assert new.image.id == moved
    assert lock(docker(), f"{images.name}:1", keep=old, upgrade=("other",)) == old
    assert docker().realize(old[0], quiet).image == made
    images.drop(made)


def test_equal_requests_of_two_homes_give_equal_bytes(docker, images, tmp_path):
    images.push("one", WORD)
    here = lock(docker(), f"{images.name}:1")
    there = lock(docker(environ={"HOME": str(tmp_path)}), f"{images.name}:1")
    assert dockerlock.encode(here, {}) == dockerlock.encode(there, {})


def test_an_image_that_the_engine_alone_has_is_locked_by_its_id(docker, images):
    tag = f"{images.name}:local"
    made = images.load("mine", WORD, tag)
    told = []
    request = LockRequest(environment=DockerEnvironment(image=tag), platforms=(HERE,))
    (found,) = docker().lock(request, told.append)
    assert (found.image.id, found.image.manifest) == (made, "")
    assert found.image.layers
    assert any("locked by its id" in text for text in told)
    assert docker().realize(found, quiet).image == made
    images.drop(tag, made)
    with pytest.raises(EnvironmentFailed, match="by its id alone, and is not here") as caught:
        docker().realize(found, quiet)
    assert made in caught.value.hints[0]


def test_a_local_image_for_another_platform_is_refused(docker, images):
    images.load("mine", WORD, f"{images.name}:local")
    with pytest.raises(EnvironmentFailed, match=f"not for {OTHER_WORD}"):
        lock(docker(), f"{images.name}:local", THERE)


def test_an_image_that_came_from_a_registry_is_not_locked_without_it(docker, images):
    made, pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    docker().realize(found, quiet)
    with daemon.connected(images.environ) as engine:
        engine.tag(made, images.name, "1")
    images.forget(pin)
    with pytest.raises(EnvironmentFailed, match="has no"):
        lock(docker(), f"{images.name}:1")
    images.drop(f"{images.name}:1", f"{images.name}@{pin}")


def test_several_platforms_are_locked_in_the_order_asked_for(docker, fake):
    entries = []
    for word in (WORD, OTHER_WORD):
        system, _, architecture = word.partition("/")
        data = fake_registry.config(architecture)
        fake.serve(tag=architecture, data=data)
        text = fake_registry.manifest(data)
        platform = {"os": system, "architecture": architecture}
        entries.append({"digest": fake_registry.pin(text), "size": len(text), "platform": platform})
    fake.put("/v2/x/manifests/1", json.dumps({"manifests": entries}).encode())
    found = lock(docker(), f"{fake.host}/x:1", THERE, HERE)
    assert [one.platform for one in found] == [THERE, HERE]
    assert len({one.image.id for one in found}) == 2


@pytest.mark.parametrize("text", ["Not A Name", "me:word@host.io/x", "http://host.io/x"])
def test_a_text_that_names_no_image_is_refused(docker, text):
    with pytest.raises(EnvironmentFailed, match="names no image"):
        lock(docker(), text)


def test_other_environments_and_platforms_are_refused(docker):
    with pytest.raises(Unsupported):
        docker().lock(LockRequest(environment=PythonEnvironment()), quiet)
    with pytest.raises(Unsupported, match="beos"):
        lock(docker(), "x", "beos")


def test_credentials_stand_in_no_lock_and_no_message(docker, fake, tmp_path):
    name = fake.serve()
    secret = base64.b64encode(b"me:geheim").decode()
    served = dict(fake.answers)

    def guarded(asked):
        if asked.headers.get("Authorization") == f"Basic {secret}":
            path = max((p for p in served if asked.path.startswith(p)), key=len)
            return served[path](asked)
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""

    fake.answers = {"/": guarded}
    home = tmp_path / "with login"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(
        json.dumps({"auths": {fake.host: {"auth": secret}}})
    )
    told = []
    request = LockRequest(environment=DockerEnvironment(image=name), platforms=("linux-64",))
    found = docker(environ={"HOME": str(home)}).lock(request, told.append)
    written = dockerlock.encode(found, {}).decode() + repr(found) + "".join(told)
    assert "geheim" not in written
    assert secret not in written
    with pytest.raises(EnvironmentFailed, match="HTTP 401") as caught:
        docker(environ={"HOME": str(tmp_path)}).lock(request, quiet)
    assert secret not in f"{caught.value}{caught.value.hints}"


# -- comparing


LOCK = EnvironmentLock(
    kind="docker",
    platform="linux-64",
    image=Image(reference="a:1", id="sha256:" + "1" * 64, dockerfile="", context=""),
)
BUILT = replace(
    LOCK, image=Image(reference="D", id="sha256:" + "1" * 64, dockerfile="D", context="c")
)


@pytest.mark.parametrize(
    ("wanted", "locked", "codes"),
    [
        (DockerEnvironment(image="a:1"), LOCK, []),
        (DockerEnvironment(image="a:1", volumes=("/x:/x",)), LOCK, []),
        (DockerEnvironment(image="a:2"), LOCK, ["D02"]),
        (DockerEnvironment(image="a:1"), replace(LOCK, image=None), ["D01"]),
        (DockerEnvironment(image="a:1"), replace(LOCK, platform="beos"), ["D01"]),
        (DockerEnvironment(image="a:1"), replace(LOCK, kind="conda"), ["D01"]),
        (DockerEnvironment(dockerfile="D", context="c"), BUILT, []),
        (DockerEnvironment(dockerfile="D", context="other"), BUILT, ["D02"]),
        (DockerEnvironment(dockerfile="E", context="c"), BUILT, ["D02", "D02"]),
        (DockerEnvironment(image="D"), BUILT, ["D02", "D02"]),
    ],
)
def test_what_a_lock_does_not_give_is_named(wanted, locked, codes):
    found = Docker("/nowhere", {}).unmet(wanted, locked)
    assert [one.code for one in found] == codes
    assert all(one.why and one.entry for one in found)


# -- fetching


def test_an_image_is_fetched_by_its_digest_and_runs_by_its_id(docker, images):
    made, pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    told = []
    realized = docker().realize(found, told.append)
    assert (realized.image, realized.path, realized.prefix) == (made, (), "")
    assert dict(realized.variables) == {}
    realized.release()
    assert any(pin in text for text in told)
    assert not images.has(f"{images.name}:1")
    again = []
    assert docker().realize(found, again.append).image == made
    assert again == []
    images.drop(made)


def test_what_is_here_needs_no_registry(docker, images):
    made, _pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    docker().realize(found, quiet)
    gone = replace(found, image=replace(found.image, reference="127.0.0.1:1/x:1"))
    assert docker().realize(gone, quiet).image == made
    images.drop(made)


def test_a_digest_that_is_gone_says_so(docker, images):
    _made, pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    images.forget(pin)
    with pytest.raises(EnvironmentFailed, match="no longer in its registry") as caught:
        docker().realize(found, quiet)
    assert any("repro lock" in hint for hint in caught.value.hints)


def test_a_registry_that_is_down_is_unreachable(docker, images):
    images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    down = replace(found, image=replace(found.image, reference="127.0.0.1:1/x:1"))
    with pytest.raises(Unreachable, match="cannot be fetched now"):
        docker().realize(down, quiet)
    with pytest.raises(Unreachable, match="cannot be reached"):
        lock(docker(), "127.0.0.1:1/x:1")


def test_another_architecture_is_refused_before_anything_is_fetched(docker, images):
    images.push("one", OTHER_WORD)
    (found,) = lock(docker(), f"{images.name}:1", THERE)
    with pytest.raises(EnvironmentFailed, match=f"locked for {OTHER_WORD}"):
        docker().realize(found, quiet)
    with pytest.raises(EnvironmentFailed, match=f"not for {WORD}"):
        lock(docker(), f"{images.name}:1")
    assert not images.has(found.image.id)


def test_a_lock_that_lies_about_the_architecture_is_refused(docker, images):
    images.push("one", OTHER_WORD)
    (found,) = lock(docker(), f"{images.name}:1", THERE)
    with pytest.raises(EnvironmentFailed):
        docker().realize(replace(found, platform=HERE), quiet)
    images.drop(found.image.id)


def test_another_image_than_the_locked_one_is_refused(docker, images):
    made, _pin = images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    other = replace(found.image, id="sha256:" + "0" * 64)
    with pytest.raises(EnvironmentFailed, match="not the locked one") as caught:
        docker().realize(replace(found, image=other), quiet)
    assert f"found  {made}" in caught.value.hints
    images.drop(made)


# -- the engine


def test_an_engine_that_is_down_is_unreachable(docker, images, tmp_path):
    images.push("one", WORD)
    (found,) = lock(docker(), f"{images.name}:1")
    down = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with pytest.raises(Unreachable, match="does not answer") as caught:
        docker(environ=down).realize(found, quiet)
    assert any("DOCKER_HOST" in hint for hint in caught.value.hints)


def test_locking_needs_no_engine(docker, images, tmp_path):
    made, _pin = images.push("one", WORD)
    down = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    assert lock(docker(environ=down), f"{images.name}:1")[0].image.id == made


class Versioned(http.server.BaseHTTPRequestHandler):
    version = "1.12"

    def do_GET(self):
        body = json.dumps(
            {"ApiVersion": self.version, "Version": "old", "Os": "linux", "Arch": "amd64"}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("version", ["1.12", "1.39"])
def test_an_engine_that_is_too_old_says_so(tmp_path, version):
    path = str(tmp_path / "engine.sock")
    handler = type("Handler", (Versioned,), {"version": version})
    with socketserver.ThreadingUnixStreamServer(path, handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        adapter = Docker(str(tmp_path), {"DOCKER_HOST": f"unix://{path}", "HOME": str(tmp_path)})
        with pytest.raises(EnvironmentFailed, match="too old"):
            adapter.realize(LOCK, quiet)
        server.shutdown()


class Broken(Versioned):
    """An engine that has no image, and dies while it fetches one."""

    protocol_version = "HTTP/1.1"
    version = "1.41"

    def do_GET(self):
        if "/images/" not in self.path:
            super().do_GET()
            return
        body = b'{"message": "No such image: x"}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b'20\r\n{"status": ')
        self.close_connection = True


def test_an_engine_that_dies_half_way_is_unreachable(tmp_path):
    path = str(tmp_path / "engine.sock")
    pinned = replace(LOCK, image=replace(LOCK.image, manifest="sha256:" + "2" * 64))
    with socketserver.ThreadingUnixStreamServer(path, Broken) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        adapter = Docker(str(tmp_path), {"DOCKER_HOST": f"unix://{path}", "HOME": str(tmp_path)})
        with pytest.raises(Unreachable, match="does not answer"):
            adapter.realize(pinned, quiet)
        server.shutdown()


@pytest.mark.parametrize("host", ["nonsense://x", "unix://", "tcp://127.0.0.1:1", ""])
def test_an_engine_that_cannot_be_is_unreachable(tmp_path, host):
    environ = {"DOCKER_HOST": host or f"unix://{tmp_path}/none", "HOME": str(tmp_path)}
    with pytest.raises(Unreachable):
        Docker(str(tmp_path), environ).realize(LOCK, quiet)


# -- building


def recipe(folder, files):
    """Write a project; give its entries."""
    entries = []
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        entries.append(
            Entry(path=path, kind="file", content=digest.of_bytes(text.encode()), size=len(text))
        )
    return tuple(entries)


def locked_build(adapter, context, *, dockerfile="Dockerfile", **more):
    wanted = DockerEnvironment(dockerfile=dockerfile, context=context)
    (found,) = adapter.lock(LockRequest(environment=wanted, platforms=(HERE,), **more), quiet)
    return wanted, found


@pytest.fixture
def project(images, tmp_path):
    """Two copies of a project, in two places and written at two times."""

    def make(name, **more):
        files = {
            "Dockerfile": f"FROM {images.engine.tag}\nCOPY . /work\nRUN cat /work/a > /b && date > /dev/null\n",
            "a": uuid.uuid5(uuid.NAMESPACE_URL, images.name).hex,
            "lockfiles/docker-lock.json": f"of {name}",
            **more,
        }
        entries = recipe(tmp_path / name, files)
        (tmp_path / name / "untracked").write_text("not to be seen")
        seen = [entry for entry in entries if "lock" not in entry.path]
        return str(tmp_path / name), entries, manifest.of(seen)

    return make


def needs_buildah():
    import shutil

    if not shutil.which("buildah"):
        if os.environ.get("CI") == "true":
            pytest.fail("buildah is not installed")
        pytest.skip("install it with: sudo apt-get install buildah")


def test_buildah_builds_the_same_image_in_two_places(docker, images, project):
    needs_buildah()
    results = set()
    for name in ("one", "two"):
        root, entries, context = project(name)
        adapter = docker(root=root, entries=lambda entries=entries: entries, builder="buildah")
        wanted, found = locked_build(adapter, context)
        assert found.image.context == context
        assert found.tool.startswith("buildah ")
        assert adapter.unmet(wanted, found) == ()
        assert dockerlock.decode("x", dockerlock.encode((found,), {})).locks == (found,)
        results.add((found.image.id, found.image.layers))
        with daemon.connected(images.environ) as engine:
            listed = engine.run(found.image.id, ["sh", "-c", "ls /work; cat /b"])
        images.drop(found.image.id)
        again = adapter.realize(found, quiet)  # made anew, for a machine without it
        assert again.image == found.image.id
        images.drop(found.image.id)
    assert len(results) == 1
    assert listed.split() == ["Dockerfile", "a", uuid.uuid5(uuid.NAMESPACE_URL, images.name).hex]


def test_docker_builds_where_buildah_is_not(docker, images, project):
    stages = f"FROM {images.engine.tag} AS first\nFROM {images.engine.tag}\nCOPY a /\n"
    root, entries, context = project("one", Dockerfile=stages)
    adapter = docker(root=root, entries=lambda: entries, builder="docker")
    wanted, found = locked_build(adapter, context)
    assert found.tool.startswith("docker ")
    assert adapter.realize(found, quiet).image == found.image.id
    with daemon.connected(images.environ) as engine:
        assert engine.run(found.image.id, ["cat", "/a"])
    kept = locked_build(adapter, context, keep=(found,))
    assert kept == (wanted, found)
    images.drop(found.image.id)
    with pytest.raises(EnvironmentFailed, match="another image than the locked one") as caught:
        adapter.realize(replace(found, image=replace(found.image, id="sha256:" + "0" * 64)), quiet)
    assert any("buildah" in hint for hint in caught.value.hints)
    images.drop(*(hint.split()[1] for hint in caught.value.hints if hint.startswith("built")))


@pytest.mark.parametrize("builder", ["docker", "buildah"])
def test_a_build_that_fails_says_why(docker, images, project, builder):
    if builder == "buildah":
        needs_buildah()
    root, entries, context = project("one", Dockerfile=f"FROM {images.engine.tag}\nCOPY none /\n")
    with pytest.raises(EnvironmentFailed, match="cannot be built") as caught:
        locked_build(docker(root=root, entries=lambda: entries, builder=builder), context)
    assert any("none" in hint for hint in caught.value.hints)


def test_a_project_that_changed_is_not_built(docker, project, tmp_path):
    root, entries, context = project("one")
    adapter = docker(root=root, entries=lambda: entries, builder="docker")
    with pytest.raises(EnvironmentFailed, match="changed"):
        locked_build(adapter, "0" * 64)
    (tmp_path / "one" / "a").write_text("other")
    with pytest.raises(EnvironmentFailed, match="`a` changed"):
        locked_build(adapter, context)
    with pytest.raises(EnvironmentFailed, match="without the project's files"):
        locked_build(docker(), context)
    bare = docker(root=root, entries=lambda: entries[:1], builder="docker")
    with pytest.raises(EnvironmentFailed, match="not among the files"):
        locked_build(bare, manifest.of(entries[:1]), dockerfile="untracked")


def test_builders_are_known_by_name(docker, project):
    root, entries, context = project("one")
    with pytest.raises(UsageError, match="kaniko"):
        locked_build(docker(root=root, entries=lambda: entries, builder="kaniko"), context)
    nowhere = docker(
        root=root, entries=lambda: entries, builder="buildah", environ={"PATH": "/none"}
    )
    with pytest.raises(EnvironmentFailed, match="buildah is not here"):
        locked_build(nowhere, context)

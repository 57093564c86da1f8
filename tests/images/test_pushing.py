from __future__ import annotations

import pytest
from support.fake_registry import LAYER

from repro.errors import EnvironmentFailed, Unreachable
from repro.images import archive, daemon, layers, pushing
from repro.images.archive import Base, Part
from repro.images.pushing import Origin
from repro.images.registry import Absent, Registry
from repro.images.resolution import resolve
from repro.lockfiles.references import parse


@pytest.fixture
def server(images):
    with Registry(images.engine.registry, images.environ) as opened:
        yield opened


def test_what_was_pushed_is_found(images, server):
    made, pin = images.push("hello")
    found = resolve(server, parse(f"{images.name}:1"), "asked", "linux/amd64")
    assert (found.image.id, found.image.manifest) == (made, pin)


def test_the_engine_agrees_on_the_id(images):
    made, pin = images.push("hello")
    with daemon.connected(images.environ) as engine:
        engine.pull(images.name, pin, "linux/amd64", None, lambda _text: None)
        assert engine.inspect(f"{images.name}@{pin}")["Id"] == made
    images.drop(f"{images.name}@{pin}")


def test_pushing_again_gives_the_same(images):
    assert images.push("hello") == images.push("hello", tag="2")


def test_an_image_on_a_base_of_another_repository_is_whole(images, server):
    base = parse(images.engine.tag)
    resolved = resolve(server, base, "base", "linux/amd64")
    on = Base(
        id=resolved.image.id,
        platform="linux/amd64",
        layers=resolved.image.layers,
        settings=resolved.config.settings,
    )
    part = images.write("on top").parts[0]
    written = archive.image(on, [part], {"Cmd": ["cat", "/text"]})
    reference = parse(f"{images.name}:on")
    origin = Origin(server, base.repository, resolved)
    pin = pushing.push(server, reference, written, str(images.folder), origin)
    images.made.add(f"{images.name}@{pin}")
    with daemon.connected(images.environ) as engine:
        engine.pull(images.name, pin, "linux/amd64", None, lambda _text: None)
        assert engine.run(written.id, ["cat", "/text"]) == "on top"


def test_a_base_that_is_nowhere_is_an_error(images, server):
    on = Base(id="x", platform="linux/amd64", layers=("sha256:" + "1" * 64,))
    written = archive.image(on, [], {})
    with pytest.raises(EnvironmentFailed, match="in no registry"):
        pushing.push(server, parse(f"{images.name}:1"), written, str(images.folder), None)


def test_a_registry_that_goes_down_half_way_keeps_the_old_tag(fake, registry, tmp_path):
    fake.put("/v2/x/blobs/", b"", status=404)
    fake.put("/v2/x/blobs/uploads/", b"", status=202, Location="/v2/x/upload/1")
    fake.answers["/v2/x/upload/1"] = lambda _asked: None  # hangs up
    path = tmp_path / "layer.tar"
    with path.open("wb") as out:
        layer = layers.write(out, [layers.of_bytes("x", LAYER)])
    part = Part(digest=layer.digest, path=str(path), size=layer.size)
    written = archive.image(Base(id="", platform="linux/amd64", layers=()), [part], {})
    with pytest.raises(Unreachable):
        pushing.push(registry, parse(f"{fake.host}/x:1"), written, str(tmp_path), None)
    assert not any("/manifests/" in path for path in fake.paths)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layer.tar"]


def test_what_the_registry_lacks_is_absent(images, server):
    with pytest.raises(Absent):
        resolve(server, parse(f"{images.name}:none"), "asked", "linux/amd64")


def test_a_layer_is_compressed_alike_each_time(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"text" * 100_000)
    found = set()
    for _again in range(2):
        with (tmp_path / "z").open("wb") as out:
            found.add(pushing._compress(str(path), out))
    assert len(found) == 1

"""Little images in a registry and an engine, gone after the test."""

from __future__ import annotations

import contextlib
import os
import uuid

import pytest
import requests

from repro.images import archive, daemon, layers, pushing
from repro.images.archive import Base, Part
from repro.images.registry import Registry
from repro.lockfiles.references import parse


class Images:
    """Makes images; `name` is a repository of its own in the registry of `engine`."""

    def __init__(self, engine, folder):
        self.engine = engine
        self.folder = folder
        self.repository = f"test-{uuid.uuid4().hex}"
        self.name = f"{engine.registry}/{self.repository}"
        self.environ = {
            **engine.environ,
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "CONTAINERS_STORAGE_CONF": self._storage(),
        }
        self.made = set()

    def _storage(self):
        """A place of its own for buildah, which would otherwise keep images in the user's."""
        path = self.folder / "storage.conf"
        place = self.folder / "buildah"
        path.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{place}/root"\nrunroot = "{place}/run"\n'
        )
        return str(path)

    def write(self, text, platform="linux/amd64"):
        """Write an image that holds one file."""
        path = self.folder / f"{uuid.uuid4().hex}.tar"
        with path.open("wb") as out:
            layer = layers.write(out, [layers.of_bytes("text", text.encode())])
        part = Part(digest=layer.digest, path=str(path), size=layer.size, about="text")
        base = Base(id="", platform=platform, layers=())
        written = archive.image(base, [part], {"Cmd": ["/text"]})
        self.made.add(written.id)
        return written

    def push(self, text, platform="linux/amd64", tag="1"):
        """Put an image into the registry; give its id and the digest of its manifest."""
        written = self.write(text, platform)
        reference = parse(f"{self.name}:{tag}")
        with Registry(self.engine.registry, self.environ) as registry:
            pin = pushing.push(registry, reference, written, str(self.folder), None)
        return written.id, pin

    def load(self, text, platform="linux/amd64", tag=""):
        """Put an image into the engine alone."""
        written = self.write(text, platform)
        path = self.folder / "archive.tar"
        with path.open("wb") as out:
            archive.write(out, written, tag)
        with path.open("rb") as file, daemon.connected(self.environ) as engine:
            engine.load(file)
        self.made.add(tag or written.id)
        return written.id

    def forget(self, pin):
        """Remove a manifest from the registry."""
        url = f"http://{self.engine.registry}/v2/{self.repository}/manifests/{pin}"
        requests.delete(url, timeout=10).raise_for_status()

    def drop(self, *names):
        """Remove images from the engine."""
        with contextlib.closing(self.engine.client()) as client:
            for name in names:
                with contextlib.suppress(Exception):
                    client.images.remove(name, force=True)

    def has(self, name):
        with daemon.connected(self.environ) as engine:
            return engine.inspect(name) is not None


@pytest.fixture
def images(docker_engine, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    made = Images(docker_engine, folder)
    yield made
    made.drop(*made.made)

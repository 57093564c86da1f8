"""Puts a written image into a registry, without any engine; what is there is not sent again."""

from __future__ import annotations

import contextlib
import io
import os
import zlib

from repro import digest
from repro.errors import EnvironmentFailed
from repro.images import manifests
from repro.images.layers import content
from repro.images.manifests import Descriptor, Manifest
from repro.system.files import unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from repro.images.archive import Part, Written
    from repro.images.registry import Registry
    from repro.images.resolution import Resolved
    from repro.lockfiles.references import Reference

LEVEL = 6
GZIP = 31  # zlib's word for a gzip header, without name or time


class Origin:
    """Where the layers of a base come from: an image in the same or another registry."""

    def __init__(self, registry: Registry, repository: str, resolved: Resolved) -> None:
        """Take the registry, the repository in it, and what was found there."""
        self.registry = registry
        self.repository = repository
        self.resolved = resolved


def push(
    registry: Registry, reference: Reference, image: Written, scratch: str, origin: Origin | None
) -> str:
    """Put `image` into `registry` under the tag of `reference`; give the manifest's digest.

    `origin` has the base's layers; None where the base has none, or the repository holds them.
    Compressed layers pass through the folder `scratch`. When it fails half-way no tag has moved.
    Raises Unreachable and EnvironmentFailed.
    """
    layers = list(_base_layers(registry, reference.repository, image, scratch, origin))
    layers += [_sent(registry, reference.repository, part, scratch) for part in image.parts]
    config = Descriptor(digest=image.id, size=len(image.config))
    registry.upload(reference.repository, config, lambda: io.BytesIO(image.config))
    data = manifests.encode(Manifest(config=config, layers=tuple(layers)))
    name = reference.tag or f"sha256:{digest.of_bytes(data)}"
    return registry.put_manifest(reference.repository, name, data)


def _base_layers(
    registry: Registry, repository: str, image: Written, scratch: str, origin: Origin | None
) -> Iterator[Descriptor]:
    if not image.base.layers:
        return
    if origin is None or origin.resolved.config.layers != image.base.layers:
        raise EnvironmentFailed(
            "the layers of the base image are in no registry that is known",
            hints=["push the base image, and lock it by its name there"],
        )
    for layer in origin.resolved.manifest.layers:
        if not registry.has_blob(repository, layer.digest):
            _copy(registry, repository, layer, scratch, origin)
        yield layer


def _copy(
    registry: Registry, repository: str, layer: Descriptor, scratch: str, origin: Origin
) -> None:
    """Bring a layer from where the base is, through a file: it is checked before it is sent."""
    same = origin.registry.host == registry.host
    if same and registry.mount(repository, layer.digest, origin.repository):
        return
    with _scratch(scratch) as path:
        with open(path, "wb") as file:
            file.writelines(origin.registry.chunks(origin.repository, layer))
        registry.upload(repository, layer, _opened(path))


def _sent(registry: Registry, repository: str, part: Part, scratch: str) -> Descriptor:
    """Compress and send one layer."""
    with _scratch(scratch) as path:
        with open(path, "wb") as file:
            described = _compress(part.path, file)
        registry.upload(repository, described, _opened(path))
    return described


def _compress(source: str, out: BinaryIO) -> Descriptor:
    """Compress without a date; other versions of zlib may give other bytes, and so digests."""
    hasher, size = digest.stream(), 0
    for piece in _deflated(source):
        hasher.update(piece)
        size += len(piece)
        out.write(piece)
    return Descriptor(digest=f"sha256:{hasher.hexdigest()}", size=size)


def _deflated(source: str) -> Iterator[bytes]:
    squeeze = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    for piece in content(source):
        yield squeeze.compress(piece)
    yield squeeze.flush()


def _opened(path: str) -> Callable[[], BinaryIO]:
    return lambda: open(path, "rb")


@contextlib.contextmanager
def _scratch(folder: str) -> Iterator[str]:
    """Give the path of a file of its own in a folder, which is gone afterwards."""
    path = os.path.join(folder, f"layer-{os.getpid():x}-{os.urandom(6).hex()}")
    try:
        yield path
    finally:
        unlink(path)

"""What a registry tells of an image: indexes, manifests and configurations, read strictly.

Those of docker (schema 2) and of OCI differ in their media types alone.
"""

from __future__ import annotations

import json

from repro.lockfiles.references import is_pin
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
LARGEST = 4 << 20
MOST = 10_000
PLAIN_VARIANTS = ("", "v1", "v8")
"""Those of amd64 and arm64 that every such machine runs."""


class Malformed(ValueError):
    """Bytes that describe no image; the message says why."""


class Descriptor(Value):
    """Names bytes in a registry by their digest and size."""

    digest: str
    size: int
    media_type: str = ""


class Manifest(Value):
    """An image for one platform: its configuration, and its layers from the lowest up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(Value):
    """An image for several platforms, each `os/architecture[/variant]` with its manifest."""

    manifests: tuple[tuple[str, Descriptor], ...]

    def of(self, platform: str) -> Descriptor | None:
        """Give the manifest for `os/architecture`, the variant that runs anywhere first."""
        wanted = [f"{platform}/{variant}".rstrip("/") for variant in PLAIN_VARIANTS]
        found = dict(reversed(self.manifests))  # the first of two counts, as for docker
        return next((found[name] for name in wanted if name in found), None)


class Config(Value):
    """The configuration of an image, whose digest is the image's id.

    `platform` is `os/architecture`. `layers` are the diff ids. `settings` is what a container is
    started with: `Env`, `Cmd` and the like.
    """

    platform: str
    layers: tuple[str, ...]
    settings: dict[str, Any]


def read(data: bytes) -> Manifest | Index:
    """Read a manifest or an index. Raises Malformed."""
    document = _json(data)
    if "manifests" in document:
        entries = _list(document["manifests"], "manifests")
        return Index(manifests=tuple((_platform(e), _descriptor(e)) for e in entries))
    if document.get("schemaVersion") != 2 or "config" not in document:  # noqa: PLR2004
        raise Malformed("its manifest is of a form that docker gave up in 2019")
    layers = _list(document.get("layers"), "layers")
    return Manifest(
        config=_descriptor(document["config"]), layers=tuple(_descriptor(e) for e in layers)
    )


def read_config(data: bytes) -> Config:
    """Read a configuration. Raises Malformed."""
    document = _json(data)
    rootfs = document.get("rootfs")
    layers = _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, "diff_ids")
    if not all(is_pin(layer) for layer in layers):
        raise Malformed("a diff id is no digest")
    settings = document.get("config") or {}
    if not isinstance(settings, dict) or not isinstance(settings.get("Labels") or {}, dict):
        raise Malformed("its configuration is no object")
    if not all(isinstance(word, str) for word in _list(settings.get("Env") or [], "Env")):
        raise Malformed("its variables are no texts")
    return Config(
        platform=f"{_text(document, 'os')}/{_text(document, 'architecture')}",
        layers=tuple(layers),
        settings=settings,
    )


def encode(manifest: Manifest) -> bytes:
    """Write a manifest in OCI's form."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFESTS[0],
        "config": _plain(manifest.config, CONFIG_TYPE),
        "layers": [_plain(layer, LAYER_TYPE) for layer in manifest.layers],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _plain(descriptor: Descriptor, media_type: str) -> dict[str, Any]:
    kind = descriptor.media_type or media_type
    return {"mediaType": kind, "digest": descriptor.digest, "size": descriptor.size}


def _json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("it is no JSON") from None
    if not isinstance(document, dict):
        raise Malformed("it is no JSON object")
    return document


def _list(part: Any, name: str) -> list[Any]:
    if not isinstance(part, list) or len(part) > MOST:
        raise Malformed(f"its `{name}` are no list, or too many")
    return part


def _descriptor(part: Any) -> Descriptor:
    if not isinstance(part, dict):
        raise Malformed("a part of it is described by no object")
    name, size = part.get("digest"), part.get("size")
    if not is_pin(name) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Malformed("a part of it has no SHA-256 digest, or no size")
    kind = part.get("mediaType")
    return Descriptor(digest=str(name), size=size, media_type=kind if isinstance(kind, str) else "")


def _platform(part: Any) -> str:
    told = part.get("platform") if isinstance(part, dict) else None
    if not isinstance(told, dict):
        return ""
    words = [_text(told, "os"), _text(told, "architecture"), _text(told, "variant")]
    return "/".join(words).rstrip("/")


def _text(part: dict[str, Any], name: str) -> str:
    found = part.get(name, "")
    if not isinstance(found, str):
        raise Malformed(f"its `{name}` is no text")
    return found

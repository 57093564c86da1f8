"""Images as `docker load` takes them, and the configurations that name them."""

from __future__ import annotations

import json
import tarfile

from repro import digest
from repro.errors import EnvironmentFailed
from repro.images.layers import CREATED, END, Member, content, framed, of_bytes
from repro.system.files import CHUNK
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, BinaryIO

BUILDER_LABEL = "io.buildah.version"
KEPT = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "OnBuild", "Shell"),
    *("StopSignal", "User", "Volumes", "WorkingDir"),
)
"""The settings of a base that are ours too; engines add others of their own."""


class Base(Value):
    """The image that another is built on.

    `platform` is `os/architecture`, `layers` the diff ids, `settings` what the engine or the
    configuration says a container is started with.
    """

    id: str
    platform: str
    layers: tuple[str, ...]
    settings: Mapping[str, Any] = {}


class Part(Value):
    """One layer on top of a base: its diff id, its tar file on this machine, and its size."""

    digest: str
    path: str
    size: int
    about: str = ""


class Written(Value):
    """An image in full: `config` is what its `id` is the digest of."""

    base: Base
    parts: tuple[Part, ...]
    config: bytes

    @property
    def id(self) -> str:
        """Give the id of the image."""
        return f"sha256:{digest.of_bytes(self.config)}"


def image(base: Base, parts: Iterable[Part], settings: Mapping[str, Any]) -> Written:
    """Put layers on a base; `settings` go over the base's own, those of None are dropped.

    The same base and layers give the same id on every machine, whenever.
    """
    parts = tuple(parts)
    system, _, architecture = base.platform.partition("/")
    inherited = {name: base.settings[name] for name in KEPT if base.settings.get(name)}
    merged = {name: part for name, part in {**inherited, **settings}.items() if part is not None}
    history = [{"created": CREATED, "created_by": "base"}] * len(base.layers)
    history += [{"created": CREATED, "created_by": f"repro {part.about}"} for part in parts]
    document = {
        "architecture": architecture,
        "config": merged,
        "created": CREATED,
        "history": history,
        "os": system,
        "rootfs": {"type": "layers", "diff_ids": [*base.layers, *(p.digest for p in parts)]},
    }
    config = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    return Written(base=base, parts=parts, config=config)


def variables(base: Base, changes: Mapping[str, str], path: str = "") -> list[str]:
    """Give the `Env` of an image: the base's with `changes`, and `path` put before its `PATH`."""
    known = dict(word.partition("=")[::2] for word in base.settings.get("Env") or [])
    known.update(changes)
    if path:
        usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        known["PATH"] = f"{path}:{known.get('PATH') or usual}"
    return [f"{name}={text}" for name, text in known.items()]


def write(out: BinaryIO, image: Written, tag: str = "") -> None:
    """Write the archive of an image whose base the engine has: its layers are left out.

    An engine skips layers that it knows, so that only what is new is sent.
    """
    known = [f"{name.removeprefix('sha256:')}.tar" for name in image.base.layers]
    new = {f"{part.digest.removeprefix('sha256:')}.tar": part for part in image.parts}
    config = f"{image.id.removeprefix('sha256:')}.json"
    layers = [*known, *(f"{part.digest.removeprefix('sha256:')}.tar" for part in image.parts)]
    about = [{"Config": config, "RepoTags": [tag] if tag else None, "Layers": layers}]
    members = [_member(name, part) for name, part in new.items()]
    members.append(of_bytes(config, image.config))
    members.append(of_bytes("manifest.json", json.dumps(about, sort_keys=True).encode("ascii")))
    for member in members:
        out.writelines(framed(member))
    out.write(END)


def rewrite(source: str, out: BinaryIO) -> str:
    """Write the image of another builder's archive anew, without what chance has put into it.

    Builders note the container and the host that they worked in. Gives the id of the image.
    Raises EnvironmentFailed for what is no archive of one image.
    """
    try:
        with tarfile.open(source) as tar:
            about = json.loads(_inside(tar, "manifest.json"))[0]
            config = _rewritten(json.loads(_inside(tar, about["Config"])))
            layers = [str(name) for name in about["Layers"]]
            name = digest.of_bytes(config)
            about = [{"Config": f"{name}.json", "RepoTags": None, "Layers": layers}]
            for layer in dict.fromkeys(layers):
                out.writelines(framed(_copied(tar, layer)))
            out.writelines(framed(of_bytes(f"{name}.json", config)))
            out.writelines(framed(of_bytes("manifest.json", json.dumps(about).encode("ascii"))))
            out.write(END)
    except (tarfile.TarError, ValueError, KeyError, IndexError, TypeError) as error:
        raise EnvironmentFailed(f"a builder has written no image: {error}") from None
    return f"sha256:{name}"


def _rewritten(config: dict[str, Any]) -> bytes:
    settings = config.get("config") or {}
    labels = {k: v for k, v in (settings.get("Labels") or {}).items() if k != BUILDER_LABEL}
    kept = {name: settings[name] for name in (*KEPT, "Healthcheck") if settings.get(name)}
    kept = {**kept, "Labels": labels} if labels else {k: kept[k] for k in kept if k != "Labels"}
    parts = ("architecture", "history", "os", "rootfs", "variant")
    document = {name: config[name] for name in parts if name in config}
    document |= {"created": CREATED, "config": kept}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _inside(tar: tarfile.TarFile, name: str) -> bytes:
    return b"".join(_chunks(tar, name))


def _copied(tar: tarfile.TarFile, name: str) -> Member:
    size = tar.getmember(name).size
    return Member(path=name, kind="file", size=size, open=lambda: _chunks(tar, name))


def _chunks(tar: tarfile.TarFile, name: str) -> Iterator[bytes]:
    file = tar.extractfile(name)
    while file is not None and (piece := file.read(CHUNK)):
        yield piece


def _member(name: str, part: Part) -> Member:
    return Member(path=name, kind="file", size=part.size, open=lambda: content(part.path))

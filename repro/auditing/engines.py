"""Locked images, as this machine's container engine and their registries know them."""

from __future__ import annotations

from repro import platforms
from repro.audit.facts import ImageFacts
from repro.errors import ReproError
from repro.lockfiles import references
from repro.mirrors import Mirrors
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.images.daemon import Daemon
    from repro.images.registry import Registry
    from repro.lock import EnvironmentLock, Image
    from repro.lockfiles.references import Reference

    Environ = Mapping[str, str]

SECONDS = 10.0
"""How long an engine or a registry may think about one answer."""


class Wanted(Value):
    """A locked image, and its platform as in `linux/amd64`."""

    image: Image
    platform: str


def images(
    locks: tuple[EnvironmentLock, ...], environ: Environ, *, online: bool
) -> tuple[ImageFacts, ...] | None:
    """Give what is known of each locked image, None where nobody answers.

    The engine is asked, and with `online` each registry too.
    """
    wanted = tuple(_wanted(lock.image, lock.platform) for lock in locks if lock.image)
    here = _of_engine(wanted, environ)
    there = {one: _of_registry(one, environ) for one in wanted} if online else {}
    found = tuple(
        _joined(one, None if here is None else here[one], there.get(one))
        for one in wanted
        if here is not None or there.get(one)
    )
    return found or None


def _wanted(image: Image, platform: str) -> Wanted:
    known = platforms.named(platform)
    return Wanted(image=image, platform=known.docker if known else "")


def _joined(one: Wanted, here: ImageFacts | None, there: ImageFacts | None) -> ImageFacts:
    """Put together what engine and registry say; of the architecture, the engine knows best."""
    known = here or ImageFacts(reference=one.image.reference)
    if there is None:
        return known
    return replace(
        known,
        manifest=there.manifest,
        offered=there.offered,
        architecture=known.architecture or there.architecture,
    )


# -- the engine


def _of_engine(wanted: tuple[Wanted, ...], environ: Environ) -> dict[Wanted, ImageFacts] | None:
    from repro.images import daemon

    try:
        with daemon.connected(environ, SECONDS) as engine:
            return {one: _inspected(engine, one.image) for one in wanted}
    except ReproError:  # none is there, or none that we know how to ask
        return None


def _inspected(engine: Daemon, image: Image) -> ImageFacts:
    from repro.images import daemon

    locked = engine.inspect(image.id) or _by_manifest(engine, image)
    named = _by_name(engine, image)
    found = locked or named
    # engines that keep manifests call an image by other ids, but its layers are the same
    is_same = bool(named and image.layers and daemon.layers_of(named) == image.layers)
    return ImageFacts(
        reference=image.reference,
        present=locked is not None or is_same,
        architecture=daemon.platform_of(found) if found else "",
        id=image.id if is_same else str(named["Id"]) if named else "",
    )


def _by_manifest(engine: Daemon, image: Image) -> dict[str, Any] | None:
    """Look for an image as engines know it that keep manifests."""
    name = _parsed(image.reference)
    return engine.inspect(f"{name.name}@{image.manifest}") if name and image.manifest else None


def _by_name(engine: Daemon, image: Image) -> dict[str, Any] | None:
    """Give what now has the name of an image; one that is built need not have any."""
    return engine.inspect(image.reference) if _parsed(image.reference) else None


def _parsed(text: str) -> Reference | None:
    try:
        return references.parse(text)
    except references.NotAReference:
        return None


# -- the registry


def _of_registry(one: Wanted, environ: Environ) -> ImageFacts | None:
    """Ask what the name of an image means now; None where that cannot be known."""
    from repro.images.registry import Absent, Registry

    reference = _place(one.image.reference, environ)
    if reference is None or not one.image.manifest:
        return None
    asked = ImageFacts(reference=one.image.reference, offered=True)
    with Registry(reference.registry, environ, (SECONDS, SECONDS)) as registry:
        try:
            now = _now(registry, reference, one, asked)
        except Absent:
            now = asked
        except ReproError:
            return None
        if now.manifest == one.image.manifest:
            return now
        try:
            registry.manifest(reference, one.image.manifest)
        except Absent:
            return replace(now, offered=False)
        except ReproError:
            return None
        return now


def _now(registry: Registry, reference: Reference, one: Wanted, asked: ImageFacts) -> ImageFacts:
    """Say what the tag stands for, for the locked platform; nothing if that has none any more."""
    from repro.images import manifests

    answer = registry.manifest(reference)
    try:
        document = manifests.read(answer.data)
        if isinstance(document, manifests.Index):
            chosen = document.of(one.platform)
            return replace(asked, manifest=chosen.digest) if chosen else asked
        config = registry.config(reference.repository, document.config)
        platform = manifests.read_config(config).platform
    except manifests.Malformed:
        return asked
    return replace(asked, manifest=answer.digest, architecture=platform)


def _place(asked: str, environ: Environ) -> Reference | None:
    """Give where to ask about an image: by its name, or at the mirror of its registry."""
    reference = _parsed(asked)
    if reference is None:
        return None
    name = _parsed(Mirrors(environ).of(reference.name))
    if name is None or name.name == reference.name:
        return reference
    return replace(reference, registry=name.registry, repository=name.repository)

"""K: whether a container image is the one that was meant."""

from __future__ import annotations

from repro import platforms
from repro.audit.rules import places
from repro.audit.rules.rule import Hit
from repro.errors import Where
from repro.spec import DockerEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import EnvironmentFacts, Facts, ImageFacts
    from repro.lock import Image


def unpinned(facts: Facts) -> Iterator[Hit]:
    """K01: an image is named by a tag."""
    for env in facts.environments:
        request = env.request
        if not isinstance(request, DockerEnvironment) or not request.image or request.dockerfile:
            continue
        if "@sha256:" not in request.image and not _images(env):
            yield Hit(
                message=f"the image `{request.image}` is named by a tag, which moves",
                where=places.requested(facts, env, request.image),
                subject=request.image,
                fix="`repro lock`, or write `image: NAME@sha256:…`",
            )


def _images(env: EnvironmentFacts) -> list[tuple[str, str, Image]]:
    """Give the locked images with the path of their lock and their platform."""
    return [
        (file.path, lock.platform, lock.image)
        for file, lock in env.locked
        if lock.image is not None
    ]


def _known(facts: Facts) -> Iterator[tuple[EnvironmentFacts, str, Image, ImageFacts]]:
    """Give each image locked for this machine with what is known of it now."""
    found = {one.reference: one for one in facts.images or ()}
    for env in facts.environments:
        for path, platform, image in _images(env):
            if platform in ("", facts.platform) and image.reference in found:
                yield env, path, image, found[image.reference]


def moved(facts: Facts) -> Iterator[Hit]:
    """K02: a tag stands for another image now."""
    for _env, path, image, now in _known(facts):
        if image.manifest and now.manifest and image.manifest != now.manifest:
            yield Hit(
                message=f"the tag `{image.reference}` stands for another image now than "
                f"when it was locked ({_short(now.manifest)}, not {_short(image.manifest)})",
                where=Where(file=path),
                subject=image.reference,
                fix="nothing, to stay with the locked one; `repro lock --upgrade` takes the new",
                extra={"locked": image.manifest, "now": now.manifest},
            )


def architecture(facts: Facts) -> Iterator[Hit]:
    """K03: an image is for another architecture."""
    platform = platforms.named(facts.platform)
    for _env, path, image, now in _known(facts):
        if platform and now.architecture and now.architecture != platform.docker:
            yield Hit(
                message=f"`{image.reference}` is for {now.architecture}, "
                f"and this machine is {platform.docker}",
                where=Where(file=path),
                subject=image.reference,
                fix="choose an image for this architecture; emulation may round otherwise",
            )


def absent(facts: Facts) -> Iterator[Hit]:
    """K04: an image cannot be had. One that the project builds can be built again."""
    for _env, path, image, now in _known(facts):
        if now.present or image.dockerfile:
            continue
        if not image.manifest:
            yield Hit(
                message=f"`{image.reference}` is in no registry, and not on this machine",
                where=Where(file=path),
                subject=image.reference,
                fix="`docker load` a copy; push it to a registry, so that others can have it",
            )
        elif now.offered is False:
            yield Hit(
                message=f"`{image.reference}` as it was locked is not on this machine, "
                "and its registry does not give it",
                where=Where(file=path),
                subject=image.reference,
                fix="`docker load` a copy, or `repro lock --upgrade`, which takes another image",
                extra={"locked": image.manifest},
            )


def built(facts: Facts) -> Iterator[Hit]:
    """K05: a built image is not the locked one."""
    for env, path, image, now in _known(facts):
        request = env.request
        is_built = isinstance(request, DockerEnvironment) and bool(request.dockerfile)
        if is_built and now.id and now.id != image.id:
            yield Hit(
                message=f"the image built here is {_short(now.id)}, not {_short(image.id)} "
                "as locked",
                where=Where(file=path),
                subject=image.reference,
                fix="find what the build takes from outside, such as `apt-get`, or lock again",
                extra={"locked": image.id, "now": now.id},
            )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]

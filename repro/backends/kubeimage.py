"""The image of a job, where a cluster can pull it."""

from __future__ import annotations

import threading

from repro.errors import EnvironmentFailed, UsageError
from repro.images import daemon, logins, manifests
from repro.images.registry import Absent, Registry
from repro.lockfiles import references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.lockfiles.references import Reference

DIGITS = 16
_PUSHED: dict[tuple[str, str], str] = {}
_PUSHING = threading.Lock()


def reachable(image: str, repository: str, environ: Mapping[str, str]) -> str:
    """Give the name by digest under which the cluster gets an image.

    One of this machine, named by its id, is pushed to `repository` unless it is there. Raises
    UsageError without a repository, EnvironmentFailed and Unreachable as pushing does.
    """
    if not references.is_pin(image):
        return image
    if not repository:
        raise UsageError(
            "the step's image is on this machine alone, where the cluster cannot get it",
            hints=["name in `repository-uri` where it can be pushed to"],
        )
    with _PUSHING:
        key = (image, repository)
        if key not in _PUSHED:
            _PUSHED[key] = _pushed(image, repository, environ)
        return _PUSHED[key]


def _pushed(image: str, repository: str, environ: Mapping[str, str]) -> str:
    place = _place(image, repository)
    found = _found(image, place, environ)
    if not found:
        login = logins.of(place.registry, environ)
        with daemon.connected(environ) as engine:
            if engine.inspect(image) is None:
                raise EnvironmentFailed(
                    f"the engine of this machine has no image `{image}`", hints=["run again"]
                )
            engine.tag(image, place.name, place.tag)
            found = engine.push(place.name, place.tag, login)
    return f"{place.name}@{found}"


def _place(image: str, repository: str) -> Reference:
    """Name the image in the repository by its own id, so that it is known again there."""
    try:
        named = references.parse(repository)
    except references.NotAReference as error:
        raise UsageError(f"`repository-uri: {repository}` names no image: {error}") from None
    said = f"{named.tag}-" if named.tag not in {"", references.LATEST} else ""
    tag = f"{said}{image.removeprefix(references.SHA256)[:DIGITS]}"
    return references.Reference(registry=named.registry, repository=named.repository, tag=tag)


def _found(image: str, place: Reference, environ: Mapping[str, str]) -> str:
    """Give the digest that the image has in the registry; nothing where it is not there."""
    try:
        with Registry(place.registry, environ) as registry:
            answer = registry.manifest(place)
        known = manifests.read(answer.data)
    except (Absent, manifests.Malformed):
        return ""
    is_it = isinstance(known, manifests.Manifest) and known.config.digest == image
    return answer.digest if is_it else ""

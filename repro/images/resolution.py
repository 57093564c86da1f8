"""From the name of an image to the one that it means for a platform, nothing but that fetched."""

from __future__ import annotations

from repro.errors import EnvironmentFailed
from repro.images import manifests
from repro.lock import Image
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.images.registry import Registry
    from repro.lockfiles.references import Reference


class Resolved(Value):
    """An image in a registry, and what its manifest and configuration say."""

    image: Image
    manifest: manifests.Manifest
    config: manifests.Config


def resolve(registry: Registry, reference: Reference, asked: str, platform: str) -> Resolved:
    """Find what `reference` means on `platform`, written as `linux/amd64`; `asked` is its text.

    Raises Absent, Unreachable, and EnvironmentFailed for an image that is not for the platform
    or whose description is not what its digests say.
    """
    try:
        return _resolved(registry, reference, asked, platform)
    except manifests.Malformed as fault:
        message = f"registry `{registry.host}` describes `{asked}` wrongly: {fault}"
        raise EnvironmentFailed(message) from None


def _resolved(registry: Registry, reference: Reference, asked: str, platform: str) -> Resolved:
    answer = registry.manifest(reference)
    document = manifests.read(answer.data)
    if isinstance(document, manifests.Index):
        chosen = document.of(platform)
        if chosen is None:
            raise _foreign(asked, platform, [name for name, _one in document.manifests])
        answer = registry.manifest(reference, chosen.digest)
        document = manifests.read(answer.data)
    if isinstance(document, manifests.Index):
        raise manifests.Malformed("its index holds an index")
    config = manifests.read_config(registry.config(reference.repository, document.config))
    if config.platform != platform:
        raise _foreign(asked, platform, [config.platform])
    image = Image(
        reference=asked,
        id=document.config.digest,
        manifest=answer.digest,
        layers=config.layers,
    )
    return Resolved(image=image, manifest=document, config=config)


def _foreign(asked: str, platform: str, offered: list[str]) -> EnvironmentFailed:
    known = sorted({name for name in offered if name and not name.startswith("unknown")})
    return EnvironmentFailed(
        f"the image `{asked}` is not for {platform}",
        hints=[f"it is for {', '.join(known) or 'nothing'}", "lock for one of these platforms"],
    )

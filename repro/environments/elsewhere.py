"""Environments for backends that do not see the files of this machine."""

from __future__ import annotations

import os
import sys

from repro import platforms
from repro.environments.docker import Container
from repro.errors import EnvironmentFailed, Unsupported
from repro.lockfiles import references
from repro.ports import LockRequest
from repro.spec import DockerEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.images.daemon import Daemon
    from repro.lock import EnvironmentLock, Image
    from repro.ports import Environments, Progress

BASE = "debian:12-slim"
"""The image that an environment is put on, unless `REPRO_BASE_IMAGE` names another."""


def base_name(environ: Mapping[str, str]) -> str:
    """Name the image that environments are put on."""
    return environ.get("REPRO_BASE_IMAGE") or BASE


def not_here() -> Container:
    """Give what stands for an environment that is made where its job runs."""
    return Container("")


def in_registry(image: Image) -> Container | None:
    """Give an image by the digest that its registry knows it by; None for one of this machine."""
    if not image.manifest:
        return None
    return Container(f"{references.parse(image.reference).name}@{image.manifest}")


def base(name: str, platform: str, images: Environments, progress: Progress) -> Image:
    """Find out which image a name means for a platform, and see that the engine has it.

    `platform` is conda's name, empty for this machine's. Raises EnvironmentFailed and Unreachable.
    """
    here = platforms.of_machine(sys.platform, os.uname().machine)
    request = LockRequest(environment=DockerEnvironment(image=name), platforms=(platform or here,))
    (found,) = images.lock(request, progress)
    images.realize(found, progress).release()
    if found.image is None:
        raise EnvironmentFailed(f"`{name}` names no image")
    return found.image


def as_image(
    lock: EnvironmentLock,
    kind: Environments,
    images: Environments,
    *,
    home: str,
    environ: Mapping[str, str],
    progress: Progress,
) -> Container:
    """Put an environment, made by `kind` if need be, on the base image; give it to run in.

    `images` is the kind of those. Raises Unsupported for the caller's own environment, and what
    `baking.bake` raises.
    """
    from repro.images import daemon

    if lock.kind == "local":
        raise Unsupported(
            "the caller's own environment cannot be taken into a container",
            hints=["leave out `--env-manager local`", "or run it here, with `-b local`"],
        )
    with daemon.connected(environ) as engine:
        name = base_name(environ)
        known = engine.inspect(name)
        identity = str(known["Id"]) if known else ""
        if not identity:
            identity = base(name, lock.platform, images, progress).id
        return Container(baked(lock, kind, identity, engine, home, environ, progress))


def baked(
    lock: EnvironmentLock,
    kind: Environments,
    base_id: str,
    engine: Daemon,
    home: str,
    environ: Mapping[str, str],
    progress: Progress,
) -> str:
    """Make an environment, put it on an image of the engine, and give the new image's id."""
    from repro.environments import baking

    realized = kind.realize(lock, progress)
    try:
        progress("putting the environment into an image")
        return baking.bake(
            realized.prefix, lock, base_id, engine=engine, home=home, environ=environ
        )
    finally:
        realized.release()

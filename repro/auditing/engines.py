"""Locked images, as this machine's container engine and their registries know them."""

from __future__ import annotations

import contextlib

from repro import platforms
from repro.audit.facts import ImageFacts
from repro.errors import EnvironmentFailed, ReproError, Unreachable
from repro.lockfiles import references
from repro.mirrors import Mirrors
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.auditing.collecting import Locks
    from repro.images.daemon import Daemon
    from repro.images.registry import Registry
    from repro.lock import EnvironmentLock, Image
    from repro.lockfiles.references import Reference

SECONDS = 10
"""How long an engine or a registry may think about one answer."""


class Place(Value):
    """Where a registry has an image; `reference` may name a mirror."""

    reference: Reference
    platform: str


def images(locks: Locks, environ: Mapping[str, str], *, online: bool) -> tuple[ImageFacts, ...]:
    """Give what is known of each locked image, None where nobody could be asked."""
    known = _of_engine(locks, environ)
    if not online:
        return known
    return ()

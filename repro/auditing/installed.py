"""Environments that were made of locks, inspected with what they were made from."""

from __future__ import annotations

from repro.audit.facts import Found, Prefix
from repro.auditing import caches
from repro.errors import ReproError
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.machine import Machine


class Installed(Value):
    """What was found in an environment; `digest` is that of the lock that it was made of."""

    digest: str
    prefix: Prefix


def look(machine: Machine, wanted: Wanted, lock: EnvironmentLock) -> Installed | None:
    """Inspect the environment of a lock, and its packages in the store; None where there is none.

    Everything in it is read, and nothing of it is run. Raises Unreachable for what cannot be read.
    """
    from repro.environments.cache import Place

    try:
        lock = machine.supply.bound(wanted, lock)
    except ReproError:  # there is no such Python here, and so no environment of it
        return None
    place = Place(machine.home.root, lock.digest)
    if not place.marker():
        return None
    try:
        found = (*_inside(place.prefix, lock), *caches.changed(machine.home.root, lock))
    except OSError as error:
        raise files.explained(error, f"inspecting `{place.prefix}`") from None
    return Installed(
        digest=lock.digest,
        prefix=Prefix(path=place.prefix, platform=lock.platform, found=found),
    )


def _inside(prefix: str, lock: EnvironmentLock) -> Iterator[Found]:
    from repro.environments import inspection

    for one in inspection.inspect(prefix, lock).findings:
        yield Found(
            kind=one.kind,
            path=one.path,
            package=one.package,
            expected=one.expected,
            found=one.found,
        )

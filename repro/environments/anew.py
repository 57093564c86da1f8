"""A store for environments that are made anew: empty, but for the packages of another store."""

from __future__ import annotations

import os

from repro.environments import disk
from repro.store.home import Home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.lock import EnvironmentLock

SHARED = (*disk.CACHES, "repodata", "logs")
WHEEL = 32
"""How much of its digest names the lock of a wheel."""


def store(home: Home, folder: str, lock: EnvironmentLock) -> Home:
    """Give a store in `folder` that can make the environment of `lock`, once.

    It shares the package caches of `home`, with the locks that guard them, so that nothing is
    fetched twice; the environment itself has to be made.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in SHARED:
        os.makedirs(home.path(name), mode=0o700, exist_ok=True)
        _link(home.path(name), os.path.join(folder, name))
    made = Home(folder).open()
    wheels = [f"wheel-{artifact.digest[:WHEEL]}" for artifact in lock.artifacts]
    for name in (disk.LOCK, *wheels):
        _link(home.path("locks", name), made.path("locks", name))
    return made


def _link(target: str, path: str) -> None:
    if not os.path.lexists(path):
        os.symlink(target, path)

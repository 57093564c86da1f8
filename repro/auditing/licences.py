"""Licences of what is installed, and of what the lock before this one named."""

from __future__ import annotations

import glob
import os

from repro import locking
from repro.audit.facts import Licence
from repro.errors import LockInvalid
from repro.lockfiles import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.auditing.collecting import Locks
    from repro.lock import Artifact, EnvironmentLock
    from repro.ports import Tree

    Known = Mapping[tuple[str, str], str]

COMMITS = 20
"""How many commits of a lock file are looked at to find another state of it."""


def of(prefixes: Iterable[str], before: Known) -> tuple[Licence, ...]:
    """Give the licences in some environments; `before` is what `earlier` gives."""
    from repro.environments.licences import licences

    return tuple(
        Licence(
            name=one.package,
            version=one.version,
            text=one.expression,
            before=before.get((one.manager, one.package)),
        )
        for prefix in prefixes
        for one in licences(prefix)
    )


def earlier(home: str, tree: Tree, locks: Locks, platform: str) -> Known:
    """Give the licences that packages had in the lock before, by manager and name.

    That lock is the last committed state of its file that differs from the present one. Known are
    the licences of packages that lie unpacked in the store, and only packages that were replaced
    since are looked for.
    """
    root = tree.source.root
    if not root:
        return {}
    now = {(_manager(a), a.name): a.digest for lock in locks for a in lock.artifacts}
    found: dict[tuple[str, str], str] = {}
    for path in (e.path for e in tree.entries() if names.is_lock(e.path)):
        for lock in _before(root, path, tree.read(path) or b""):
            for one in lock.artifacts if lock.platform in ("", platform) else ():
                key = (_manager(one), one.name)
                if now.get(key, one.digest) != one.digest:
                    text = _unpacked(home, one)
                    found |= {} if text is None else {key: text}
    return found


def _manager(one: Artifact) -> str:
    return "conda" if one.kind == "conda" else "python"


def _before(root: str, path: str, now: bytes) -> tuple[EnvironmentLock, ...]:
    """Give the locks of the last committed state of a file that is not the present one."""
    from repro.fetch import listing

    told = listing.run(root, "log", f"--max-count={COMMITS}", "--format=%H", "--", path) or b""
    for commit in told.decode("ascii", "replace").split():
        data = listing.run(root, "show", "--no-textconv", f"{commit}:./{path}")
        if data and data != now:
            try:
                return locking.decode(_kind(path), path, data).locks
            except LockInvalid:
                return ()
    return ()


def _kind(path: str) -> str:
    plain = path.rpartition("/")[2]
    if plain == names.DOCKER:
        return "docker"
    return "conda" if plain.endswith(names.CONDA) else "python"


def _unpacked(home: str, one: Artifact) -> str | None:
    """Give the licence of a package by what lies of it in the store, None if nothing does."""
    from repro.environments import packages
    from repro.environments.licences import of_metadata

    if one.kind == "conda":
        folder = os.path.join(home, "pkgs", f"{one.name}-{one.version}-{one.build}")
        about = packages.record(os.path.join(folder, "info", "index.json"))
        return str(about.get("license") or "") if about else None
    site = os.path.join(glob.escape(os.path.join(home, "wheels", one.digest)), "*", "site")
    found = sorted(glob.glob(os.path.join(site, "*.dist-info")))
    return of_metadata(packages.header(found[0]))[0] if found else None

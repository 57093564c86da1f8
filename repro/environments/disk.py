"""How much space environments and package caches take, where files are shared by hard links."""

from __future__ import annotations

import contextlib
import os

from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CACHES = ("pkgs", "wheels")
"""Folders of a store that hold unpacked packages: of conda, and wheels."""

STATES = ".states"
"""The folder of a cache in which the states of the files of its packages are recorded."""

LOCK = "packages"
"""Shared by whoever builds an environment, exclusive for whoever removes cached packages."""


class Size(Value):
    """The size of a folder. `own` counts the files of which no other folder has a hard link."""

    bytes: int = 0
    own: int = 0

    @property
    def is_shared(self) -> bool:
        """Say whether another folder has links to its files."""
        return self.own < self.bytes


class Cached(Value):
    """One package in a cache: `name` is relative to the store. `linked` ones are in use.

    `used_ns` is when the last environment linked it, or was removed: both change its link counts.
    """

    name: str
    bytes: int
    used_ns: int
    linked: bool


def size(path: str) -> Size:
    """Measure what lies at `path`; nothing where there is nothing."""
    return _measured(_files(path))


def _measured(found: Iterable[os.stat_result]) -> Size:
    """Count every file once, by however many names it is there."""
    total, own = 0, 0
    names: dict[tuple[int, int], int] = {}
    for status in found:
        key = status.st_dev, status.st_ino
        names[key] = names.get(key, 0) + 1
        total += status.st_size if names[key] == 1 else 0
        own += status.st_size if names[key] == status.st_nlink else 0
    return Size(bytes=total, own=own)


def together(paths: Iterable[str]) -> int:
    """Measure several folders, what they share counted once."""
    inodes = {(s.st_dev, s.st_ino): s.st_size for path in paths for s in _files(path)}
    return sum(inodes.values())


def cached(home: str) -> tuple[Cached, ...]:
    """Give the packages in the caches of the store `home`."""
    found = []
    for cache in CACHES:
        with contextlib.suppress(FileNotFoundError):
            names = sorted(os.listdir(os.path.join(home, cache)))
            real = (n for n in names if not n.startswith(".") and not n.endswith(".lock"))
            found += [_cached(home, f"{cache}/{name}") for name in real]
    return tuple(found)


def _cached(home: str, name: str) -> Cached:
    path = os.path.join(home, name)
    found = list(_files(path)) or [os.lstat(path)]
    measured = _measured(found)
    return Cached(
        name=name,
        bytes=measured.bytes,
        used_ns=max(status.st_ctime_ns for status in found),
        linked=measured.own < measured.bytes,
    )


def prune(home: str, *, before_ns: int, dry_run: bool) -> tuple[Cached, ...]:
    """Remove cached packages that no environment has a part of, unless used since `before_ns`.

    Nothing is removed while anybody builds an environment.
    """
    os.makedirs(os.path.join(home, "locks"), mode=0o700, exist_ok=True)
    alone = files.Lock(os.path.join(home, "locks", LOCK))
    if not alone.take(wait=False):
        return ()
    try:
        old = tuple(c for c in cached(home) if not c.linked and c.used_ns < before_ns)
        for package in () if dry_run else old:
            _remove(os.path.join(home, package.name))
    finally:
        alone.free()
    return old


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            files.remove_tree(path)
        else:
            files.unlink(path)
        files.unlink(f"{path}.lock")
        files.unlink(os.path.join(os.path.dirname(path), STATES, f"{os.path.basename(path)}.json"))
    except OSError as error:
        raise files.explained(error, f"removing `{path}`") from None


def _files(path: str) -> Iterator[os.stat_result]:
    """Give the state of every file at or below `path`."""
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        with contextlib.suppress(FileNotFoundError):
                            yield entry.stat(follow_symlinks=False)
        except NotADirectoryError:
            yield os.lstat(path)
        except FileNotFoundError:
            continue

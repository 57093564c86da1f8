"""Environments on disk: each built once, trusted by its marker alone, kept while it is in use.

    envs/<key>/                  the environment, built where it stays
    envs/<key>/.repro-env.json   the marker: written last, so what has one is complete
    locks/env-<key>              shared by those who use it, exclusive for who builds or removes it

The key is the beginning of the environment's digest: the paths of interpreters have limits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from repro import canonical, value
from repro.environments.tools import LOG_PREFIX
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from repro.lock import EnvironmentLock
    from repro.ports import Progress

    Fits = Callable[[str], bool]
    Build = Callable[[str, files.Lock], Mapping[str, Any]]

FORMAT = 1
KEY_LENGTH = 32
MARKER = ".repro-env.json"


class EnvironmentEntry(Value):
    """One environment on disk.

    `digest` is only its beginning for one that is not complete. Times are in nanoseconds since
    1970, 0 where unknown; an environment is used when a step enters it. `in_use` also covers
    one that is being built.
    """

    digest: str
    kind: str = ""
    python: str = ""
    packages: int = 0
    bytes: int = 0
    built_ns: int = 0
    last_used_ns: int = 0
    complete: bool = False
    in_use: bool = False


class Place:
    """Where the environment of one lock stands below the store `home`."""

    def __init__(self, home: str, key: str) -> None:
        """Name the place; `key` is a digest or its beginning."""
        self.key = key[:KEY_LENGTH]
        self.prefix = os.path.join(home, "envs", self.key)
        self._home = home

    def lock(self, *, shared: bool) -> files.Lock:
        """Give the lock of the environment, not yet taken."""
        return files.Lock(os.path.join(self._home, "locks", f"env-{self.key}"), shared=shared)

    def marker(self) -> dict[str, Any]:
        """Read the marker; empty where there is none that can be read."""
        try:
            found = canonical.decode(files.read(os.path.join(self.prefix, MARKER)) or b"{}")
        except canonical.NotCanonical:
            return {}
        return found if isinstance(found, dict) and found.get("format") == FORMAT else {}

    def commit(self, about: Mapping[str, Any]) -> None:
        """Declare the environment complete: all that it consists of is durable first."""
        _sync_file_system(self.prefix)
        marker = canonical.encode({**about, "format": FORMAT})
        files.replace(os.path.join(self.prefix, MARKER), marker)

    def touch(self) -> None:
        """Note that it is used now."""
        with contextlib.suppress(OSError):  # a read-only store still serves
            os.utime(os.path.join(self.prefix, MARKER))

    def discard(self) -> None:
        """Remove the environment, whole or not. It is out of the way at once."""
        if not os.path.lexists(self.prefix):
            return
        name = f"env-{self.key[:8]}-{os.getpid():x}-{os.urandom(4).hex()}"
        trash = os.path.join(self._home, "tmp", name)
        os.makedirs(os.path.dirname(trash), mode=0o700, exist_ok=True)
        os.rename(self.prefix, trash)
        files.remove_tree(trash)


def enter(
    home: str, lock: EnvironmentLock, *, fits: Fits, build: Build, progress: Progress
) -> tuple[str, files.Lock]:
    """Give the prefix of the environment of `lock`, and the shared lock to free after its use.

    `fits(prefix)` says whether a complete one can still be used here. `build(prefix, held)`
    makes a new one and gives what the marker shall tell of it. Whoever else asks meanwhile,
    in this process or another, waits and gets the same.
    """
    place = Place(home, lock.digest)
    for part in ("envs", "locks"):
        os.makedirs(os.path.join(home, part), mode=0o700, exist_ok=True)
    while True:
        shared = place.lock(shared=True)
        _take(shared, progress)
        ready = False
        try:
            ready = _ready(place, lock, fits)
        finally:
            if not ready:
                shared.free()
        if ready:
            place.touch()
            return place.prefix, shared
        with _exclusive(place, progress) as held:
            if not _ready(place, lock, fits):
                _make(place, lock, build, held)


def environments(home: str) -> tuple[EnvironmentEntry, ...]:
    """List all environments below the store `home`, the last used first."""
    found = []
    for place in _places(home):
        with _unused(place) as unused:
            found.append(_entry(place, in_use=not unused))
    return tuple(sorted(found, key=lambda e: (-e.last_used_ns, e.digest)))


def prune(
    home: str,
    *,
    older_than_ns: int | None,
    everything: bool,
    dry_run: bool,
    now_ns: int,
) -> tuple[EnvironmentEntry, ...]:
    """Remove environments that nobody uses; give them.

    Incomplete ones always go, complete ones when not used for `older_than_ns`, or all with
    `everything`. None that is in use or being built is touched. With `dry_run`, nothing is.
    """
    before_ns = 0 if older_than_ns is None else now_ns - older_than_ns
    removed = []
    for place in _places(home):
        with _unused(place) as unused:
            entry = _entry(place, in_use=not unused)
            old = not entry.complete or entry.last_used_ns < before_ns
            if unused and (everything or old):
                removed.append(entry)
                if not dry_run:
                    _discard(place)
    if not dry_run:
        _drop_logs(home, before_ns)
    return tuple(removed)


def _ready(place: Place, lock: EnvironmentLock, fits: Fits) -> bool:
    return place.marker().get("digest") == lock.digest and fits(place.prefix)


def _make(place: Place, lock: EnvironmentLock, build: Build, held: files.Lock) -> None:
    """Build, and leave either all of it or nothing."""
    try:
        place.discard()
        about = build(place.prefix, held)
        place.commit(
            {
                **about,
                "digest": lock.digest,
                "lock": value.dump(lock),
                "bytes": _size(place.prefix),
                "built_ns": time.time_ns(),
            }
        )
    except BaseException as error:
        with contextlib.suppress(OSError):
            place.discard()
        if isinstance(error, OSError):
            raise files.explained(error, "making an environment") from None
        raise


def _discard(place: Place) -> None:
    try:
        place.discard()
    except OSError as error:
        raise files.explained(error, f"removing `{place.prefix}`") from None


def _take(lock: files.Lock, progress: Progress) -> None:
    if not lock.take(wait=False):
        progress(f"waiting for {lock.holder()} to make the environment")
        lock.take()


@contextlib.contextmanager
def _exclusive(place: Place, progress: Progress) -> Iterator[files.Lock]:
    held = place.lock(shared=False)
    _take(held, progress)
    try:
        yield held
    finally:
        with contextlib.suppress(OSError):  # a file system without locks
            # Explicitly: what a build left running in the background has inherited the lock.
            fcntl.flock(held.fd, fcntl.LOCK_UN)
        held.free()


@contextlib.contextmanager
def _unused(place: Place) -> Iterator[bool]:
    """Hold an environment so that nobody can enter it, unless somebody has."""
    held = place.lock(shared=False)
    taken = held.take(wait=False)
    try:
        yield taken
    finally:
        held.free()


def _places(home: str) -> Iterator[Place]:
    try:
        names = sorted(os.listdir(os.path.join(home, "envs")))
    except FileNotFoundError:
        return
    os.makedirs(os.path.join(home, "locks"), mode=0o700, exist_ok=True)
    for name in names:
        yield Place(home, name)


def _entry(place: Place, *, in_use: bool) -> EnvironmentEntry:
    marker = place.marker()
    if not marker:
        return EnvironmentEntry(digest=place.key, bytes=_size(place.prefix), in_use=in_use)
    python = marker["lock"]["interpreter"]
    return EnvironmentEntry(
        digest=marker["digest"],
        kind=marker["lock"]["kind"],
        python=f"{python['implementation']} {python['version']}",
        packages=len(marker["lock"]["artifacts"]),
        bytes=marker["bytes"],
        built_ns=marker["built_ns"],
        last_used_ns=os.stat(os.path.join(place.prefix, MARKER)).st_mtime_ns,
        complete=True,
        in_use=in_use,
    )


def _drop_logs(home: str, before_ns: int) -> None:
    """Remove the logs of failures from before `before_ns`."""
    folder = os.path.join(home, "logs")
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(LOG_PREFIX) and entry.stat().st_mtime_ns < before_ns:
                files.unlink(entry.path)


def _size(path: str) -> int:
    """Sum up the sizes of the files below `path`."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                total += _size(entry.path)
            else:
                total += entry.stat(follow_symlinks=False).st_size
    return total


def _sync_file_system(path: str) -> None:
    """Make all that was written durable; file by file would take ten times as long."""
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # macOS
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        if syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(fd)

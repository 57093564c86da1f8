"""Environments on disk: each built once, trusted by its marker alone, kept while it is in use.

    envs/<key>/                  the environment, built where it stays
    envs/<key>/.repro-env.json   the marker: written last, so what has one is complete
    memo/environment-<key>.json  its files with their digests, when it was built
    memo/shape-<key>             the names and states of those that are looked at when it is entered
    locks/env-<key>              shared by those who use it, exclusive for who builds or removes it
    locks/packages               shared by who builds, exclusive for who removes cached packages

The key is the beginning of the environment's digest: the paths of interpreters have limits.

Nothing is waited for to be on disk: that took as long as all the rest, and waits for the files of
others too. A marker says in which boot it was written. In another one, what the power may have
taken is looked for first: every file is read, once, and compared with the list.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import time

from repro import canonical, value
from repro.environments import disk, shape, states, treehash
from repro.environments.memo import Memo, settled, stamp
from repro.environments.tools import LOG_PREFIX
from repro.environments.treehash import MARKER
from repro.errors import EnvironmentFailed
from repro.lock import CLASSES, EnvironmentLock
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any

    from repro.environments.treehash import Mark, Seen, Tree
    from repro.ports import Progress

    Stock = Sequence[tuple[str, str, str]]
    Fits = Callable[[str], bool]
    Build = Callable[[str, files.Lock], "Built"]

FORMAT = 3
KEY_LENGTH = 32


class Built(Value):
    """What was built: what the marker shall tell of it, and what is known of its files.

    `known` are the files that were linked from packages, by their paths; `others` are the paths
    of all others, where they need not be looked for. `stock` are those packages: the record of
    their files, their folder, and the lock to hold, relative to the store.
    `check` takes all files as they are now, and raises EnvironmentFailed for other ones than the
    locked.
    """

    about: Mapping[str, Any]
    known: Mapping[str, tuple[Mark, Seen]] = treehash.NOTHING
    others: Collection[str] | None = None
    stock: Stock = ()
    check: Callable[[Tree], None] | None = None


class EnvironmentEntry(Value):
    """One environment on disk.

    `digest` is only its beginning for one that is not complete. `bytes` is the size of its files,
    `own_bytes` of those that no other environment and no package cache shares. Times are in
    nanoseconds since 1970, 0 where unknown; an environment is used when a step enters it.
    `in_use` also covers one that is being built.
    """

    digest: str
    prefix: str = ""
    kind: str = ""
    python: str = ""
    packages: int = 0
    bytes: int = 0
    own_bytes: int = 0
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

    def packages(self) -> files.Lock:
        """Give the lock that keeps cached packages from being removed, not yet taken."""
        return files.Lock(os.path.join(self._home, "locks", disk.LOCK), shared=True)

    def marker(self) -> dict[str, Any]:
        """Read the marker; empty where there is none that can be read."""
        return marker(self.prefix)

    def commit(self, about: Mapping[str, Any]) -> None:
        """Declare the environment complete, as far as this boot is concerned."""
        boot = states.boot()
        if not boot:  # macOS
            os.sync()
        self._mark({**about, "format": FORMAT, "boot": boot}, durable=not boot)

    def base(self) -> dict[str, str]:
        """Give the digests of the interpreter it stands on, read once while it is the same."""
        memo = Memo(os.path.join(self._home, "memo", "bases.json"))
        found = {}
        for path in treehash.base_files(self.prefix):
            mark = stamp(path)
            found[path] = memo.get(path, mark) or treehash.content_of(path)
            if settled(mark):
                memo.put(path, mark, found[path])
        memo.save(only_used=True)
        return found

    def is_whole(self, told: Mapping[str, Any]) -> bool:
        """Say whether all its files are there as they were put there, by what the marker told."""
        if not shape.is_same(self.prefix, told["shape"]):
            return False
        if told["boot"] in ("", states.boot()):
            return True
        known = treehash.kept(self.prefix, told["files"])
        seen = treehash.scan(self.prefix) if known else {}
        if not known or any(seen[p][:2] != known[p] for p in known if p in seen):
            return False
        with contextlib.suppress(OSError):  # a read-only store still serves
            self._mark({**told, "boot": ""}, durable=True)  # it was read from the disk
        return True

    def _mark(self, about: Mapping[str, Any], *, durable: bool) -> None:
        path = os.path.join(self.prefix, MARKER)
        files.replace(path, canonical.encode(about), durable=durable)

    def distrust(self) -> None:
        """Take the marker away: whoever is in it stays, and the next use makes it anew."""
        try:
            files.unlink(os.path.join(self.prefix, MARKER))
        except OSError as error:
            raise files.explained(error, f"giving up `{self.prefix}`") from None

    def touch(self) -> None:
        """Note that it is used now."""
        now = time.time_ns()  # the kernel's own stamp may lie before `built_ns`
        with contextlib.suppress(OSError):  # a read-only store still serves
            os.utime(os.path.join(self.prefix, MARKER), ns=(now, now))

    def discard(self) -> None:
        """Remove the environment, whole or not. It is out of the way at once."""
        if not os.path.lexists(self.prefix):
            return
        name = f"env-{self.key[:8]}-{os.getpid():x}-{os.urandom(4).hex()}"
        trash = os.path.join(self._home, "tmp", name)
        os.makedirs(os.path.dirname(trash), mode=0o700, exist_ok=True)
        stock = self.marker().get("stock", ())
        os.rename(self.prefix, trash)
        files.unlink(treehash.list_of(self.prefix))
        files.unlink(shape.list_of(self.prefix))
        with self._unlinking(stock):
            files.remove_tree(trash)

    @contextlib.contextmanager
    def _unlinking(self, stock: Stock) -> Iterator[None]:
        """Know as much of the packages after their links were removed, unless one is at work."""
        with contextlib.ExitStack() as held:
            records = []
            for record, folder, lock in stock:
                if not lock or self._is_taken(lock, held):
                    places = (os.path.join(self._home, part) for part in (record, folder))
                    records.append(states.Record(*places))
            with states.unlinking(records):
                yield

    def _is_taken(self, lock: str, held: contextlib.ExitStack) -> bool:
        """Take the lock of a package, if that can be done at once, for as long as `held` lasts."""
        alone = files.Lock(os.path.join(self._home, lock))
        held.callback(alone.free)
        with contextlib.suppress(OSError):  # a full disk: what to remove must not depend on it
            return alone.take(wait=False)
        return False


def marker(prefix: str) -> dict[str, Any]:
    """Read the marker of the environment at `prefix`; empty where there is none to be read."""
    try:
        found = canonical.decode(files.read(os.path.join(prefix, MARKER)) or b"{}")
    except canonical.NotCanonical:
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


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
        with _exclusive(place, progress) as held, _uncollected():
            if not _ready(place, lock, fits):
                _make(place, lock, build, held)


def environments(home: str) -> tuple[EnvironmentEntry, ...]:
    """List all environments below the store `home`, the last used first."""
    found = []
    for place in _places(home):
        with _unused(place) as unused:
            found.append(_entry(place, in_use=not unused))
    return tuple(sorted(found, key=lambda e: (-e.last_used_ns, e.digest)))


def find(home: str, digest: str) -> tuple[EnvironmentEntry, ...]:
    """Give the environments below the store `home` whose digest begins with `digest`."""
    found = []
    for place in _places(home):
        if place.key.startswith(digest[:KEY_LENGTH]):
            with _unused(place) as unused:
                found.append(_entry(place, in_use=not unused))
    return tuple(e for e in found if e.digest.startswith(digest) or not e.complete)


def lock_of(home: str, key: str) -> EnvironmentLock | None:
    """Give the lock that a complete environment was made from; None where there is no such one.

    `key` is its digest, or the beginning of one that names its folder.
    """
    try:
        found = value.load(Place(home, key).marker()["lock"], CLASSES)
    except (KeyError, TypeError):  # not there, or written by another version
        return None
    return found if isinstance(found, EnvironmentLock) else None


@contextlib.contextmanager
def held(home: str, key: str) -> Iterator[str]:
    """Keep an environment from being removed while it is looked at; give its prefix.

    Raises EnvironmentFailed where it is just being made or removed.
    """
    place = Place(home, key)
    shared = place.lock(shared=True)
    if not shared.take(wait=False):
        raise EnvironmentFailed(
            f"the environment {key[:12]} is being made by {shared.holder()}",
            hints=["wait until that has ended"],
        )
    try:
        yield place.prefix
    finally:
        shared.free()


def discard(home: str, key: str) -> bool:
    """Remove an environment if nobody uses it; say whether that was so.

    One in use is not trusted any more: its users stay in it, and the next use makes it anew.
    """
    place = Place(home, key)
    with _unused(place) as unused:
        if unused:
            _discard(place)
        else:
            place.distrust()
    return unused


def prune(
    home: str,
    *,
    older_than_ns: int | None,
    everything: bool,
    dry_run: bool,
    now_ns: int,
    max_bytes: int | None = None,
) -> tuple[EnvironmentEntry, ...]:
    """Remove environments that nobody uses; give them.

    Incomplete ones always go, complete ones when not used for `older_than_ns`, or all with
    `everything`; then the longest unused until the rest is no larger than `max_bytes`. None
    that is in use or being built is touched. With `dry_run`, nothing is.
    """
    before_ns = 0 if older_than_ns is None else now_ns - older_than_ns
    found = environments(home)
    old = [e for e in found if everything or not e.complete or e.last_used_ns < before_ns]
    removed = {e.prefix: e for e in old if _gone(home, e, dry_run=dry_run)}
    size = sum(e.own_bytes for e in found if e.prefix not in removed)
    for entry in reversed(found):
        if max_bytes is None or size <= max_bytes:
            break
        if entry.prefix not in removed and _gone(home, entry, dry_run=dry_run):
            removed[entry.prefix] = entry
            size -= entry.own_bytes
    if not dry_run:
        _drop_logs(home, before_ns)
    return tuple(removed.values())


def _gone(home: str, entry: EnvironmentEntry, *, dry_run: bool) -> bool:
    """Remove one environment, unless somebody uses it, or it was used since it was listed."""
    place = Place(home, os.path.basename(entry.prefix))
    with _unused(place) as unused:
        if not unused or _used_ns(place) != entry.last_used_ns:
            return False
        if not dry_run:
            _discard(place)
    return True


def _ready(place: Place, lock: EnvironmentLock, fits: Fits) -> bool:
    told = place.marker()
    return told.get("digest") == lock.digest and fits(place.prefix) and place.is_whole(told)


def _make(place: Place, lock: EnvironmentLock, build: Build, held: files.Lock) -> None:
    """Build, and leave either all of it or nothing."""
    try:
        place.discard()
        with place.packages():
            built = build(place.prefix, held)
        if built.others is None:
            tree = treehash.scan(place.prefix, built.known)
        else:
            tree = treehash.listed(place.prefix, built.others, built.known)
        if built.check:
            built.check(tree)
        linked = {p: m for p, (m, seen) in built.known.items() if tree.get(p) is seen}
        place.commit(
            {
                **built.about,
                **treehash.keep(place.prefix, tree),
                "shape": shape.keep(place.prefix, tree, linked),
                "stock": built.stock,
                "base": place.base(),
                "digest": lock.digest,
                "lock": value.dump(lock),
                "bytes": sum(size for _kind, _digest, _normal, size in tree.values()),
                "linked": bool(linked) or disk.size(place.prefix).is_shared,
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
def _uncollected() -> Iterator[None]:
    """Look for no garbage: of all the little that is remembered of each file, nothing is any."""
    if not gc.isenabled():  # for the caller, or another thread, to decide
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
    told = place.marker()
    if not told:
        size = disk.size(place.prefix)
        return EnvironmentEntry(
            digest=place.key,
            prefix=place.prefix,
            bytes=size.bytes,
            own_bytes=size.own,
            in_use=in_use,
        )
    total = told["bytes"]
    alone = disk.Size(bytes=total, own=total)
    size = disk.size(place.prefix) if told.get("linked") else alone
    return EnvironmentEntry(
        digest=told["digest"],
        prefix=place.prefix,
        kind=told["lock"]["kind"],
        python=_python(told["lock"]),
        packages=len(told["lock"]["artifacts"]),
        bytes=size.bytes,
        own_bytes=size.own,
        built_ns=told["built_ns"],
        last_used_ns=_used_ns(place),
        complete=True,
        in_use=in_use,
    )


def _python(lock: Mapping[str, Any]) -> str:
    """Name the Python of an environment; that of a conda environment is one of its packages."""
    python = lock["interpreter"]
    if python["version"]:
        return f"{python['implementation']} {python['version']}"
    versions = [a["version"] for a in lock["artifacts"] if a["name"] == "python"]
    return f"cpython {versions[0]}" if versions else ""


def _used_ns(place: Place) -> int:
    try:
        return os.stat(os.path.join(place.prefix, MARKER)).st_mtime_ns
    except FileNotFoundError:
        return 0


def last_log(home: str) -> str:
    """Give the path of the log of the last environment that could not be made, or nothing."""
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(home, "logs")) as found:
        logs = [(e.stat().st_mtime_ns, e.path) for e in found if e.name.startswith(LOG_PREFIX)]
        return max(logs, default=(0, ""))[1]
    return ""


def _drop_logs(home: str, before_ns: int) -> None:
    """Remove the logs of failures from before `before_ns`."""
    folder = os.path.join(home, "logs")
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith(LOG_PREFIX) and entry.stat().st_mtime_ns < before_ns:
                files.unlink(entry.path)

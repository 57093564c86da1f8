"""What is removed from a store: what nobody used for long, and what nothing names any more.

Nothing that a process at work has put, relied on or used is touched, see `Blobs.keeps` and
`Home.since`. What is taken away from under a look-up makes a miss, and never a wrong answer.
"""

from __future__ import annotations

import os

from repro import digest
from repro.store import collection
from repro.store.blobs import COLLECTION
from repro.store.pins import Pins
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.results import Results

GRACE_NS = 3_600_000_000_000
"""What is younger than an hour may belong to a result that is being published."""

BATCH = 64
"""How many blobs are removed while those wait who are about to rely on one."""

HALVES = ("memo", "lockfiles", "pins", "ac", "outgoing")
FOLDED = ("ac", "outgoing")
"""Folders whose entries are folders."""


class Limits(Value):
    """What may stay: what was used since `before_ns`, and of that no more than `max_bytes`.

    Times are in nanoseconds since 1970 UTC. `max_bytes` counts the files of results, logs and
    sources; without it, all may stay. With `dry_run`, nothing is removed.
    """

    before_ns: int
    now_ns: int
    max_bytes: int | None = None
    dry_run: bool = False


class Part(Value):
    """How many of one kind, and their size."""

    count: int = 0
    bytes: int = 0

    def plus(self, size: int) -> Part:
        """Give the sum with one more."""
        return Part(count=self.count + 1, bytes=self.bytes + size)


class Pruned(Value):
    """What was removed, or would be, by kind; how many results stay because they are pinned.

    Kinds are `results`, `blobs`, `folders` (of processes that are gone), `quarantine`, `logs`,
    `advisories` and `leftovers` (files that were never finished, and locks of nobody).
    """

    parts: Mapping[str, Part]
    pinned: int = 0

    @property
    def bytes(self) -> int:
        """Give the size of everything."""
        return sum(part.bytes for part in self.parts.values())


def prune(home: Home, blobs: Blobs, results: Results, limits: Limits) -> Pruned:
    """Remove what `limits` do not let stay. One process prunes at a time, the others wait.

    Pinned results stay, and those that wait to be sent to a remote cache.
    """
    with home.lock("prune"):
        return _Pruning(home, blobs, results, limits).run()


class _Pruning:
    """One pruning while it is under way."""

    def __init__(self, home: Home, blobs: Blobs, results: Results, limits: Limits) -> None:
        self.home, self.blobs, self.results, self.limits = home, blobs, results, limits
        self.parts: dict[str, Part] = {}
        self.pinned = set(Pins(home).keys())
        self.spared = self.pinned | set(_waiting(home))
        self.since = home.since(limits.now_ns)
        self.young = min(self.since, limits.now_ns - GRACE_NS)
        self.named: dict[str, frozenset[str]] = {}
        self.gone: set[str] = set()
        self.released: set[str] = set()

    def run(self) -> Pruned:
        known = dict(self.results.keys())
        old = [key for key, used in known.items() if used < self.limits.before_ns]
        for key in old:
            self._drop(key, known[key])
        orphans = self._orphans()
        if self.limits.max_bytes is not None:
            orphans = self._to_size(known, orphans)
        self._remove(orphans)
        self._folders()
        self._files("quarantine", "quarantine", self.limits.before_ns)
        self._files("logs", "logs", self.limits.before_ns)
        self._files("advisories", "osv", self.limits.before_ns)
        self._leftovers()
        return Pruned(parts=self.parts, pinned=len(self.pinned & known.keys()))

    def _count(self, kind: str, size: int) -> None:
        self.parts[kind] = self.parts.get(kind, Part()).plus(size)

    # -- results

    def _drop(self, key: str, used_ns: int) -> bool:
        """Remove a result, unless it is kept, was used meanwhile, or is being made again."""
        if key in self.spared or used_ns >= self.since:
            return False
        names = self._names(key)
        state = files.state_of(self.results.path(key))
        if not self.limits.dry_run:
            making = self.home.lock(f"key-{key[:32]}")
            if not making.take(wait=False):
                return False
            try:
                if self.results.used(key) != used_ns:
                    return False
                self.results.drop(key)
            finally:
                making.free()
        self._count("results", state[2] if state else 0)
        self.gone.add(key)
        self.released |= names
        return True

    def _names(self, key: str) -> frozenset[str]:
        if key not in self.named:
            result = self.results.get(key)
            names = collection.named(self.blobs, result) if result else frozenset()
            self.named[key] = names
        return self.named[key]

    def _to_size(self, known: Mapping[str, int], orphans: set[str]) -> set[str]:
        """Drop results, those first that were not used for longest, until what stays is small."""
        sizes = dict(self.blobs.names())
        uses: dict[str, int] = {}
        for key in known.keys() - self.gone:
            for name in self._names(key):
                uses[name] = uses.get(name, 0) + 1
        size = sum(sizes.values()) - sum(sizes.get(name, 0) for name in orphans)
        for key in sorted(known.keys() - self.gone, key=lambda key: known[key]):
            if size <= (self.limits.max_bytes or 0):
                return orphans
            if not self._drop(key, known[key]):
                continue
            for name in self._names(key):
                uses[name] -= 1
                if not uses[name] and name not in orphans and self._is_old(name, self.young):
                    orphans.add(name)
                    size -= sizes.get(name, 0)
        others = [name for name in sizes if not uses.get(name) and name not in orphans]
        for name in sorted(others, key=self._changed):
            if size > (self.limits.max_bytes or 0) and self._is_old(name, self.young):
                orphans.add(name)
                size -= sizes[name]
        return orphans

    # -- blobs

    def _orphans(self) -> set[str]:
        """Give the blobs that nothing names and nobody is about to use.

        What no result has named, such as the log of a run that failed, stays as long as a result.
        """
        stays: set[str] = set()
        gone = self.gone if self.limits.dry_run else set()
        for key in dict(self.results.keys()).keys() - gone:
            stays |= self._names(key)
        found = set()
        for name, _size in self.blobs.names():
            before = self.young
            if name not in self.released:
                before = min(before, self.limits.before_ns)
            if name not in stays and self._is_old(name, before):
                found.add(name)
        return found

    def _changed(self, name: str) -> int:
        """Give the time at which a blob was put, or relied on, last."""
        state = files.state_of(self.blobs.path(name))
        return state[4] if state else self.limits.now_ns

    def _is_old(self, name: str, before_ns: int) -> bool:
        return self._changed(name) < before_ns

    def _remove(self, names: Iterable[str]) -> None:
        for batch in _batches(sorted(names)):
            alone = self.home.lock(COLLECTION)
            alone.take()
            try:
                for name in batch:
                    state = files.state_of(self.blobs.path(name))
                    if state and state[4] < self.young:
                        self._count("blobs", state[2])
                        self._unlink(self.blobs.path(name))
            finally:
                alone.free()

    def _unlink(self, path: str) -> None:
        if not self.limits.dry_run:
            files.unlink(path)

    # -- all else

    def _folders(self) -> None:
        """Remove the private folders of processes that are gone, with their leases."""
        for folder in self.home.abandoned():
            self._count("folders", collection.size_of(folder))
            if not self.limits.dry_run:
                files.remove_tree(folder)
        if not self.limits.dry_run:
            for lease in _files(self.home.path("leases")):
                name = os.path.basename(lease).removeprefix("tmp-")
                if not os.path.exists(self.home.path("tmp", name)):
                    self._free(lease)

    def _free(self, path: str) -> bool:
        """Remove a lock that nobody holds."""
        if files.is_held(path):
            return False
        lock = files.Lock(path)
        taken = lock.take(wait=False)
        if taken:
            files.unlink(path)
            lock.free()
        return taken

    def _files(self, kind: str, folder: str, before_ns: int) -> None:
        """Remove the files of a folder that did not change for long."""
        for path in _files(self.home.path(folder)):
            state = files.state_of(path)
            if state and state[4] < min(before_ns, self.since):
                self._count(kind, state[2])
                if not self.limits.dry_run:
                    files.remove_tree(path)

    def _leftovers(self) -> None:
        """Remove what was never finished, and the locks of steps that nobody makes."""
        folders = [self.home.root]
        for name in HALVES:
            top = self.home.path(name)
            folders += [*_files(top)] if name in FOLDED else [top]
        for path in (path for folder in folders for path in _files(folder)):
            state = files.state_of(path)
            if path.endswith("~") and state and state[4] < self.young:
                self._count("leftovers", state[2])
                self._unlink(path)
        for path in _files(self.home.path("locks")):
            state = files.state_of(path)
            is_key = os.path.basename(path).startswith("key-")
            if is_key and state and state[3] < self.young and not self.limits.dry_run:
                self._free(path)


def _files(folder: str) -> list[str]:
    """Give the paths of what is in a folder, if there is one."""
    return [os.path.join(folder, name) for name in files.names(folder)]


def _waiting(home: Home) -> Iterator[str]:
    """Give the keys of results that a remote cache has yet to get."""
    for folder in _files(home.path("outgoing")):
        for path in _files(folder):
            if digest.is_digest(os.path.basename(path)):
                yield os.path.basename(path)


def _batches(names: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), BATCH):
        yield names[at : at + BATCH]

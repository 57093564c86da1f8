"""From a remote into the store: records, lists of files, files; each checked before the next."""

from __future__ import annotations

import os

from repro import digest
from repro.remote import envelope, validation
from repro.remote.arrival import Arrival
from repro.remote.crew import TROUBLE
from repro.remote.port import AC, CAS, Unfit
from repro.store.blobs import BlobMissing, Blobs
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from repro.remote.crew import Crew
    from repro.remote.damage import Damage
    from repro.remote.port import Remote
    from repro.store.home import Home
    from repro.store.memos import Memos
    from repro.store.results import Result, Results

    Want = tuple[str, int | None, int]

LARGEST_RECORD = 64 << 20
LARGEST_LIST = 256 << 20
LARGEST_SIGNATURE = 16 << 10
LOG_GROWTH = 40
"""A log is never larger than so many times the output in it."""
MANY = 1 << 20


class Brought(Value):
    """What became of keys: their results, or what kept them away; neither for an absent one."""

    results: Mapping[str, Result] = {}
    failed: Mapping[str, Exception] = {}
    blobs: int = 0
    bytes: int = 0


class Incoming:
    """Brings results from one remote. Any thread may ask."""

    def __init__(
        self,
        remote: Remote,
        store: tuple[Home, Results, Memos],
        crew: Crew,
        damage: Damage,
        check: Callable[[bytes, bytes], None],
    ) -> None:
        """Bring from `remote` into the store; `check` raises for a record that is not trusted."""
        self.remote = remote
        self.home, self.results, self.memos = store
        self.crew = crew
        self.damage = damage
        self.check = check

    def bring(self, keys: Iterable[str], tell: Callable[[str], None], *, own: bool) -> Brought:
        """Bring results with all that they name.

        With `own`, the keys are those of steps of ours, and outputs that they do not declare are
        refused.
        """
        return _Delivery(self, tell, own=own).bring(list(keys))

    def blob(self, want: Want, blobs: Blobs) -> int:
        """Fetch a blob into the store; give its size. Raises Unfit for what must not be used."""
        name, size, most = want
        arrival = Arrival(blobs, name, size=size, most=most)
        try:
            there = self.remote.get(CAS, name, self.crew.sink(arrival.write))
            arrival.keep(there=there)
        except Unfit:
            self.damage.note(CAS, name)
            raise
        finally:
            arrival.close()
        return arrival.arrived

    def record(self, key: str) -> Result | None:
        """Give the result that the remote has for a key, if it may be believed. Raises Unfit."""
        pieces: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > LARGEST_RECORD:
                raise Unfit(f"the result {key[:12]} is refused: it is too large to be one")
            pieces.append(data)

        try:
            if not self.remote.get(AC, key, self.crew.sink(take)):
                return None
            return self._judged(key, b"".join(pieces))
        except Unfit:
            self.damage.note(AC, key)
            raise

    def _judged(self, key: str, data: bytes) -> Result:
        record, signature = envelope.decode(data)
        result = validation.result_of(key, record, self.home.scratch())
        if len(signature) > LARGEST_SIGNATURE:
            raise Unfit(f"the result {key[:12]} is refused: its signature is none")
        self.check(record, signature)
        if signature:
            text = signature.decode("ascii", "replace")
            self.memos.put("signature", digest.of_bytes(record), text)
        return result


class _Delivery:
    """Some results on their way, all at the same stage."""

    def __init__(self, incoming: Incoming, tell: Callable[[str], None], *, own: bool) -> None:
        self.incoming = incoming
        self.tell = tell
        self.own = own
        self.blobs = Blobs(incoming.home)
        self.failed: dict[str, Exception] = {}
        self.lost: dict[str, Exception] = {}
        self.count = 0
        self.bytes = 0

    def bring(self, keys: list[str]) -> Brought:
        self.incoming.home.scratch()  # made before threads ask for it
        found = self._records(keys)
        self._fetch(_once(want for result in found.values() for want in _lists(result)))
        wanted = {key: self._files(key, result) for key, result in found.items()}
        self._fetch(_once(want for wants in wanted.values() for want in wants))
        self.blobs.sync()
        brought = {}
        for key, result in found.items():
            names = [name for name, _size, _most in (*_lists(result), *wanted[key])]
            if self._is_whole(key, names):
                self.incoming.results.put(result)
                brought[key] = result
        return Brought(results=brought, failed=self.failed, blobs=self.count, bytes=self.bytes)

    def _records(self, keys: list[str]) -> dict[str, Result]:
        outcomes = self.incoming.crew.each(self.incoming.record, keys)
        found = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.failed[key] = outcome
            elif outcome is not None:
                found[key] = outcome
        return found

    def _fetch(self, wants: list[Want]) -> None:
        """Fetch what is not in the store yet; note what could not be had."""
        missing = [want for want in wants if not self._is_there(want)]
        total = sum(size or 0 for _name, size, _most in missing)
        if total > MANY:
            self.tell(f"fetching {len(missing)} files, {total / 1e6:.0f} MB")
        outcomes = self.incoming.crew.each(
            lambda want: self.incoming.blob(want, self.blobs), missing
        )
        for (name, _size, _most), outcome in zip(missing, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.lost[name] = outcome
            else:
                self.count += 1
                self.bytes += outcome

    def _is_there(self, want: Want) -> bool:
        """Say whether a blob is in the store; lists and logs are read, since we read them next."""
        name, size, _most = want
        if size is not None:
            return self.blobs.keeps(name) and os.stat(self.blobs.path(name)).st_size == size
        try:
            self.blobs.get(name)
        except BlobMissing:
            return False
        return True

    def _files(self, key: str, result: Result) -> list[Want]:
        """Give the files that a result names; none if its lists are not what they must be."""
        try:
            wants: list[Want] = []
            for name in _trees(result):
                if name in self.lost:
                    raise self.lost[name]
                entries = validation.entries_of(self.blobs.get(name))
                if self.own and name == result.outputs:
                    validation.check_declared(result.parts, entries)
                files = [e for e in entries if e.kind in ("file", "exec")]
                wants += [(entry.content, entry.size, entry.size) for entry in files]
            if result.log not in self.lost:
                validation.check_log(self.blobs.get(result.log))
            if result.provenance and result.provenance not in self.lost:
                statement = self.blobs.get(result.provenance)
                validation.check_statement(statement, key, self.blobs.get(result.outputs))
        except TROUBLE as error:
            self._refuse(key, error)
            return []
        return wants

    def _is_whole(self, key: str, names: list[str]) -> bool:
        for name in names:
            if name in self.lost and key not in self.failed:
                self._refuse(key, self.lost[name])
        return key not in self.failed

    def _refuse(self, key: str, error: Exception) -> None:
        self.failed[key] = error
        if isinstance(error, Unfit):
            self.incoming.damage.note(AC, key)


def _trees(result: Result) -> list[str]:
    """Give the lists of files that a result names."""
    return [result.outputs, result.artifacts, *(str(c["artifacts"]) for c in result.children)]


def _lists(result: Result) -> list[Want]:
    """Give what must be read before the files of a result are known, and its log."""
    log = result.log_size * LOG_GROWTH + 1024
    others = [*_trees(result), *filter(None, (result.provenance,))]
    return [*((name, None, LARGEST_LIST) for name in others), (result.log, None, log)]


def _once(wants: Iterable[Want]) -> list[Want]:
    """Name every blob once; of sizes that differ, one is wrong and will be noticed."""
    named: Mapping[str, Want] = {want[0]: want for want in wants}
    return list(named.values())

"""From the store to a remote: blobs first, then the records that name them."""

from __future__ import annotations

import os

from repro import digest
from repro.remote import envelope
from repro.remote.crew import TROUBLE
from repro.remote.port import AC, CAS, Bytes, File
from repro.store import collection
from repro.store.blobs import BlobMissing
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from repro.remote.crew import Crew
    from repro.remote.damage import Damage
    from repro.remote.port import Remote, Source
    from repro.store.blobs import Blobs
    from repro.store.memos import Memos
    from repro.store.results import Result, Results

SMALL = 1 << 20
SLICE = 16


class Parcel(Value):
    """A result as it is sent: its record, and the sizes of the blobs that it names."""

    key: str
    record: bytes
    blobs: Mapping[str, int]


class Sent(Value):
    """What became of results. `present` were there already; `failed` says why for others."""

    arrived: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    failed: Mapping[str, Exception] = {}
    blobs: int = 0
    bytes: int = 0


class Outgoing:
    """Sends results to one remote. Any thread may ask."""

    def __init__(
        self,
        remote: Remote,
        store: tuple[Blobs, Results, Memos],
        crew: Crew,
        damage: Damage,
        sign: Callable[[bytes], bytes],
    ) -> None:
        """Send from the store to `remote`; `sign` gives the signature of a record."""
        self.remote = remote
        self.blobs, self.results, self.memos = store
        self.crew = crew
        self.damage = damage
        self.sign = sign
        self.known: set[str] = set()
        """Blobs that the remote is known to have."""

    def send(self, keys: Iterable[str], *, thorough: bool) -> Sent:
        """Send results with all that they name, as far as the remote lacks it.

        A result that the remote has is left alone, except with `thorough`, which looks for each
        of its blobs.
        """
        return _Dispatch(self).send(list(keys), thorough=thorough)

    def parcel(self, key: str) -> Parcel | None:
        """Pack a result; None if it is not in the store any more. Raises BlobMissing."""
        result = self.results.get(key)
        record = files.read(self.results.path(key))
        if result is None or record is None:
            return None
        return Parcel(key=key, record=record, blobs=self._named(result))

    def _named(self, result: Result) -> dict[str, int]:
        sizes = {}
        lists = [result.outputs, result.artifacts, *(c["artifacts"] for c in result.children)]
        names = {*lists, result.log, *filter(None, (result.provenance,))}
        for name in lists:
            self.blobs.get(name)
            names |= collection.contents(self.blobs, name)
        for name in names:
            try:
                sizes[name] = os.stat(self.blobs.path(name)).st_size
            except FileNotFoundError:
                raise BlobMissing(name) from None
        return sizes

    def upload(self, name: str, *, over: bool) -> int:
        """Send a blob whose bytes were checked just before. Raises BlobMissing."""
        self.remote.put(CAS, name, self.crew.source(self._checked(name)), over=over)
        self.damage.mended(CAS, name)
        return os.stat(self.blobs.path(name)).st_size

    def _checked(self, name: str) -> Source:
        try:
            fd = os.open(self.blobs.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(name) from None
        try:
            size = os.fstat(fd).st_size
            if size <= SMALL:
                return Bytes(self.blobs.get(name))
            if digest.of_chunks(files.chunks(fd)) != name:
                raise self.blobs.set_aside(name)
        finally:
            os.close(fd)
        return File(self.blobs.path(name), size)

    def post(self, parcel: Parcel) -> None:
        """Send the record of a result, all of whose blobs are there; a good one there stays."""
        over = self.damage.has(AC, parcel.key)
        if not over and self.remote.has(AC, [parcel.key]):
            return
        kept = self.memos.get("signature", digest.of_bytes(parcel.record))
        signature = kept.encode() if isinstance(kept, str) else self.sign(parcel.record)
        data = envelope.encode(parcel.record, signature, parcel.blobs)
        self.remote.put(AC, parcel.key, Bytes(data), over=over)
        self.damage.mended(AC, parcel.key)


class _Dispatch:
    """Some results on their way, all at the same stage."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.failed: dict[str, Exception] = {}
        self.lost: dict[str, Exception] = {}
        self.sizes: Mapping[str, int] = {}
        self.blobs = 0
        self.bytes = 0

    def send(self, keys: list[str], *, thorough: bool) -> Sent:
        present = set() if thorough else self._present(keys)
        left = [key for key in keys if key not in present and key not in self.failed]
        parcels, gone = self._packed(left)
        self._upload({n: size for parcel in parcels for n, size in parcel.blobs.items()})
        whole = [parcel for parcel in parcels if self._is_whole(parcel)]
        for parcel, outcome in self._each(self.outgoing.post, whole):
            if outcome is not None:
                self.failed[parcel.key] = outcome
        return Sent(
            arrived=tuple(p.key for p in whole if p.key not in self.failed),
            present=tuple(sorted(present)),
            gone=tuple(gone),
            failed=self.failed,
            blobs=self.blobs,
            bytes=self.bytes,
        )

    def _present(self, keys: list[str]) -> set[str]:
        def look(part: list[str]) -> dict[str, int | None]:
            return self.outgoing.remote.has(AC, part)

        found: set[str] = set()
        for part, outcome in self._each(look, self._sliced(keys)):
            if isinstance(outcome, Exception):
                self.failed |= dict.fromkeys(part, outcome)
            else:
                found |= outcome.keys()
        return {key for key in found if not self.outgoing.damage.has(AC, key)}

    def _packed(self, keys: list[str]) -> tuple[list[Parcel], list[str]]:
        parcels, gone = [], []
        for key in keys:
            try:
                parcel = self.outgoing.parcel(key)
            except (BlobMissing, OSError) as error:
                self.failed[key] = error
                continue
            if parcel is None:
                gone.append(key)
            else:
                parcels.append(parcel)
        return parcels, gone

    def _upload(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        fresh = sorted(sizes.keys() - self.outgoing.known)
        for part, outcome in self._each(self._part, self._sliced(fresh)):
            if isinstance(outcome, Exception):
                self.lost |= dict.fromkeys(part, outcome)
                continue
            lost, blobs, size = outcome
            self.lost |= lost
            self.outgoing.known |= set(part) - lost.keys()
            self.blobs += blobs
            self.bytes += size

    def _part(self, names: list[str]) -> tuple[dict[str, Exception], int, int]:
        """Ask which of some blobs are there, and send those that are not, or not whole."""
        outgoing = self.outgoing
        doubtful = {name for name in names if outgoing.damage.has(CAS, name)}
        there = outgoing.remote.has(CAS, [name for name in names if name not in doubtful])
        doubtful |= {n for n, size in there.items() if size not in (None, self.sizes[n])}
        lost: dict[str, Exception] = {}
        blobs, size = 0, 0
        for name in names:
            if name in there and name not in doubtful:
                continue
            try:
                size += outgoing.upload(name, over=name in doubtful)
                blobs += 1
            except TROUBLE as error:
                lost[name] = error
        return lost, blobs, size

    def _is_whole(self, parcel: Parcel) -> bool:
        for name in parcel.blobs:
            if name in self.lost:
                self.failed[parcel.key] = self.lost[name]
                return False
        return True

    def _sliced(self, names: list[str]) -> list[list[str]]:
        size = min(SLICE, -(-len(names) // self.outgoing.crew.threads)) or 1
        return [names[at : at + size] for at in range(0, len(names), size)]

    def _each(self, work: Callable[[Any], Any], items: list[Any]) -> list[tuple[Any, Any]]:
        return list(zip(items, self.outgoing.crew.each(work, items), strict=True))

"""A copy of an OSV database: a folder, a zip archive, or the URL of such an archive.

What each of its files is about is kept in the store, so that asking for a few packages reads a few
files of many thousands. A file that changed is read again, and no other.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib

from repro import digest, location
from repro.advisories import osv
from repro.errors import Unreachable, Unsupported, UsageError
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    from repro.advisories.osv import Match
    from repro.ports import Progress

    class Holder(Protocol):
        """What holds documents by name."""

        def states(self) -> Mapping[str, str]:
            """Give the names, each with a text that changes with its content; empty: unsettled."""

        def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
            """Give documents with their names; no bytes for one that cannot be read."""


FORMAT = 1
LARGEST = 16 << 20
"""No advisory has so many bytes; an archive may claim to."""

DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, KeyError, OSError)
SECONDS = (10, 120)
HINT = (
    "OSV publishes all of PyPI as https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
)


class Folder:
    """Documents in a folder and the folders below it."""

    def __init__(self, path: str) -> None:
        """Name the folder."""
        self._path = path

    def states(self) -> dict[str, str]:
        """Give the names with size, times and inode."""
        return {name: self._state(name) for name in sorted(self._names())}

    def _names(self) -> Iterator[str]:
        for base, folders, names in os.walk(self._path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(base, self._path)
            for name in names:
                if name.endswith(".json"):
                    yield name if inside == "." else os.path.join(inside, name)

    def _state(self, name: str) -> str:
        import time

        known = files.state_of(os.path.join(self._path, name))
        if not known or files.is_racy(known, time.time_ns()):
            return ""
        return " ".join(map(str, known))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Give documents with their names; no bytes for one that cannot be read."""
        for name in names:
            known = files.state_of(os.path.join(self._path, name))
            small = bool(known) and known[2] <= LARGEST
            yield name, (files.read(os.path.join(self._path, name)) or b"") if small else b""


class Archive:
    """Documents in a zip archive; none is ever written to disk."""

    def __init__(self, path: str) -> None:
        """Name the archive."""
        self._path = path

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError) as error:
            reason = str(error) or "it cannot be read"
            raise UsageError(f"`{self._path}` is no zip archive: {reason.lower()}") from None

    def states(self) -> dict[str, str]:
        """Give the names with size and checksum."""
        with self._open() as archive:
            return {
                item.filename: f"{item.file_size} {item.CRC:08x}"
                for item in archive.infolist()
                if item.filename.endswith(".json")
            }

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Give documents with their names; no bytes for one that cannot be read."""
        with self._open() as archive:
            for name in names:
                yield name, self._read(archive, name)

    @staticmethod
    def _read(archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            with archive.open(name) as file:
                data = file.read(LARGEST + 1)
        except DAMAGED:
            return b""
        return data if len(data) <= LARGEST else b""


class Row(Value):
    """What is known of one document: the packages it is about, and when it was changed last."""

    state: str
    packages: tuple[str, ...] = ()
    modified: str = ""
    good: bool = True


class Database:
    """What a copy of OSV says of Python packages."""

    def __init__(self, source: str, holder: Holder, rows: Mapping[str, Row]) -> None:
        """Take the documents with what is known of them; `load` is what makes one."""
        self.source = source
        self._holder = holder
        self._rows = rows
        self._about: dict[str, list[str]] = {}
        for name, row in rows.items():
            for package in row.packages:
                self._about.setdefault(package, []).append(name)

    @property
    def count(self) -> int:
        """Count the documents."""
        return len(self._rows)

    @property
    def date(self) -> str:
        """Give the time of the youngest document (RFC 3339): how old the copy is at least."""
        return max((row.modified for row in self._rows.values()), default="")

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Name the files that are no OSV documents: what they say is not known."""
        return tuple(name for name, row in self._rows.items() if not row.good)

    def match(self, packages: Iterable[tuple[str, str]]) -> tuple[Match, ...]:
        """Give what is known of packages, named as (name, version) on the Python package index."""
        wanted = [(osv.normalised(name), version) for name, version in packages]
        names = sorted({one for name, _version in wanted for one in self._about.get(name, ())})
        try:
            known = {one: json.loads(data) for one, data in self._holder.read(names)}
        except ValueError:
            raise Unreachable(
                f"the advisories in `{self.source}` changed while they were read",
                hints=["try it again"],
            ) from None
        return tuple(
            match
            for name, version in wanted
            for match in osv.match([known[one] for one in self._about.get(name, ())], name, version)
        )


def load(place: str, home: str, *, fetch: bool, progress: Progress) -> Database:
    """Open a copy of OSV: a folder of JSON files, a zip archive of them, or the URL of one.

    `home` is the store, which keeps what was learned, and the archive that was fetched. A URL is
    asked only with `fetch`; without, the archive that was fetched last serves. Raises UsageError
    for a place without advisories, Unreachable, or Unsupported where nothing was fetched yet.
    """
    path = place
    if place.startswith(("https://", "http://")):
        path = fetched(place, home, progress) if fetch else _kept(place, home)
    source = location.without_credentials(place)
    holder: Holder
    if os.path.isdir(path):
        holder = Folder(path)
    elif os.path.isfile(path):
        holder = Archive(path)
    else:
        raise UsageError(f"there are no advisories at `{source}`", hints=[HINT])
    index = os.path.join(home, "memo", _name("advisories", os.path.abspath(path)))
    rows = _indexed(holder, index, progress)
    if not any(row.good for row in rows.values()):
        raise UsageError(
            f"`{source}` holds no advisory in OSV's JSON",
            hints=["the YAML of the PyPA's repository is not read", HINT],
        )
    return Database(source, holder, rows)


def fetched(url: str, home: str, progress: Progress) -> str:
    """Fetch an archive of advisories, if it is another than the last time; give its path.

    Raises Unreachable.
    """
    import requests

    path = _place(url, home)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    tag = (files.read(f"{path}.tag") or b"").decode("ascii", "replace")
    known = {"If-None-Match": tag} if tag and os.path.isfile(path) else {}
    public = location.without_credentials(url)
    progress(f"asking {public} for advisories")
    try:
        with requests.get(url, headers=known, stream=True, timeout=SECONDS) as answer:
            if answer.status_code == requests.codes.not_modified:
                return path
            answer.raise_for_status()
            _written(path, public, answer.iter_content(files.CHUNK))
            tag = answer.headers.get("ETag", "")
    except requests.RequestException as error:
        status = getattr(error.response, "status_code", "")
        reason = f"status {status}" if status else type(error).__name__
        raise Unreachable(
            f"`{public}` gave no advisories: {reason}",
            hints=["a copy on disk serves without a network: name its folder or zip archive"],
        ) from None
    files.replace(f"{path}.tag", tag.encode("ascii", "ignore"))
    return path


def _written(path: str, public: str, pieces: Iterable[bytes]) -> None:
    half = f"{path}.{os.getpid():x}~"
    try:
        with open(half, "wb") as file:
            file.writelines(pieces)
        if not zipfile.is_zipfile(half):
            raise Unreachable(
                f"`{public}` gave something that is no zip archive of advisories", hints=[HINT]
            )
        os.replace(half, path)
    except OSError as error:
        raise files.explained(error, "keeping advisories") from None
    finally:
        files.unlink(half)


def _kept(url: str, home: str) -> str:
    path = _place(url, home)
    if not os.path.isfile(path):
        raise Unsupported(
            f"the advisories of `{location.without_credentials(url)}` were never fetched",
            hints=["allow it once, or name a folder or zip archive on disk"],
        )
    return path


def _place(url: str, home: str) -> str:
    return os.path.join(home, "osv", _name("fetched", url).removesuffix(".json") + ".zip")


def _name(kind: str, subject: str) -> str:
    return f"{kind}-{digest.of_value('repro/advisories', subject)[:16]}.json"


def _indexed(holder: Holder, index: str, progress: Progress) -> dict[str, Row]:
    """Say what every document is about, reading those alone that changed since the last time."""
    states = holder.states()
    known = _remembered(index)
    rows = {n: known[n] for n, state in states.items() if n in known and known[n].state == state}
    new = [name for name in states if name not in rows]
    if new:
        progress(f"reading {len(new)} advisories")
        rows |= {name: _row(data, states[name]) for name, data in holder.read(new)}
    if new or len(known) > len(rows):
        _remember(index, rows)
    return rows


def _row(data: bytes, state: str) -> Row:
    try:
        document = json.loads(data)
        osv.check(document)
        packages = tuple(osv.subjects(document))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Row(state=state, good=False)
    return Row(state=state, packages=packages, modified=str(document["modified"]))


def _remembered(index: str) -> dict[str, Row]:
    try:
        told = json.loads(files.read(index) or b"{}")
        if told["format"] != FORMAT:
            return {}
        return {
            name: Row(state=state, packages=tuple(packages), modified=modified, good=good)
            for name, (state, packages, modified, good) in told["rows"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(index: str, rows: Mapping[str, Row]) -> None:
    """Keep what was learned of files that cannot have changed since; a loss costs time alone."""
    kept = {n: [r.state, r.packages, r.modified, r.good] for n, r in rows.items() if r.state}
    data = json.dumps({"format": FORMAT, "rows": kept}).encode()
    try:
        os.makedirs(os.path.dirname(index), mode=0o700, exist_ok=True)
        files.replace(index, data, durable=False)
    except OSError:
        return

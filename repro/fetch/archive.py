"""Zip archives, local or over HTTP; their members go into the store, never to a path of theirs."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib

from repro.errors import SourceUnusable, Unreachable, UsageError
from repro.fetch.stored import keep
from repro.manifest import Entry
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro.location import Location
    from repro.store.blobs import Blobs
    from repro.store.home import Home

MAX_MEMBERS = 100_000
MAX_BYTES = 20 << 30
MAX_RATIO = 200
SMALL = 64 << 20
"""What any archive may unpack to, however small it is."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others of Python unpack a few bytes to gigabytes in memory before one can stop them."""
TIMEOUT = (10, 60)


def fetch(place: Location, home: Home, blobs: Blobs, progress: Callable[[str], None]) -> str:
    """Give the manifest digest of an archive, whose files are then all in the store.

    Raises SourceUnusable for an archive that is damaged, hostile or absurd, Unreachable where it
    cannot be had.
    """
    if "://" in place.address:
        path = _download(place, home, progress)
    else:
        path = place.address
        if not os.path.isfile(path):
            raise UsageError(f"there is no archive `{path}`")
    try:
        with _opened(path) as archive:
            return keep(_members(archive, home, blobs), blobs)
    except zipfile.BadZipFile as error:
        raise SourceUnusable(f"`{place.public}` is not a zip archive to use: {error}") from None


def _opened(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise zipfile.BadZipFile((error.strerror or str(error)).lower()) from None
    except (NotImplementedError, ValueError, struct.error) as error:
        raise zipfile.BadZipFile(str(error)) from None


def _download(place: Location, home: Home, progress: Callable[[str], None]) -> str:
    import requests

    progress(f"fetching {place.public}")
    path = os.path.join(home.scratch(), f"{os.urandom(8).hex()}.zip")
    try:
        with (
            requests.get(place.address, stream=True, timeout=TIMEOUT) as answer,
            open(path, "xb") as file,
        ):
            if not answer.ok:
                code = f"{answer.status_code} {answer.reason}"
                raise Unreachable(f"cannot fetch `{place.public}`: the server answers {code}")
            total = 0
            for piece in answer.iter_content(files.CHUNK):
                total += len(piece)
                if total > MAX_BYTES:
                    raise SourceUnusable(f"`{place.public}` has more than {MAX_BYTES:,} bytes")
                file.write(piece)
    except requests.RequestException as error:
        kind = type(error).__name__
        raise Unreachable(
            f"cannot fetch `{place.public}`: {kind}",
            hints=["check the address and the network, and run again"],
        ) from None
    return path


def _members(archive: zipfile.ZipFile, home: Home, blobs: Blobs) -> list[Entry]:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise SourceUnusable(f"the archive has {len(infos):,} members; at most {MAX_MEMBERS:,}")
    size = os.stat(str(archive.filename)).st_size
    most = min(MAX_BYTES, max(SMALL, size * MAX_RATIO))
    if sum(info.file_size for info in infos) > most:
        raise SourceUnusable(
            f"the archive has {size:,} bytes and unpacks to more than {most:,}: "
            "that is refused as a zip bomb"
        )
    entries = []
    for info in infos:
        _refuse(info)
        if not info.filename.endswith("/"):
            entries.append(_entry(archive, info, home, blobs))
    return entries


def _refuse(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise SourceUnusable(f"the archive's member `{info.filename}` is encrypted")
    if info.compress_type not in METHODS:
        raise SourceUnusable(
            f"the archive's member `{info.filename}` is packed by an unusual method",
            hints=["pack it again with `zip`, or `python -m zipfile`"],
        )


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, home: Home, blobs: Blobs) -> Entry:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        what = "a link" if stat.S_ISLNK(mode) else "a special file"
        raise SourceUnusable(f"the archive's member `{info.filename}` is {what}")
    path = os.path.join(home.scratch(), os.urandom(8).hex())
    with open(path, "xb") as target:
        target.writelines(_pieces(archive, info))
    name, size = blobs.put_file(path)
    os.unlink(path)
    kind = "exec" if mode & 0o100 else "file"
    return Entry(path=info.filename, kind=kind, content=name, size=size)


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Unpack a member, never to more bytes than it declares. Raises BadZipFile."""
    try:
        with archive.open(info) as source:
            while piece := source.read(files.CHUNK):
                yield piece
    except (OSError, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        why = str(error) or "its end is missing"
        raise zipfile.BadZipFile(f"{info.filename!r} cannot be unpacked: {why}") from None

"""Archives as they are compared: the members by name, with their facts and contents."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 64 << 20
"""Archives that unpack to more bytes are compared as plain bytes."""
MANY = 10_000
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
    *(OSError, EOFError, ValueError, KeyError, RuntimeError),
)
"""What reading an archive raises that is none, or is damaged, encrypted or of an unknown kind."""


class Member(Value):
    """One file of an archive. `facts` are its time, mode and the like, as texts."""

    facts: Mapping[str, str]
    data: bytes


class Archive(Value):
    """A zip or tar archive, its members in their order."""

    kind: str
    members: Mapping[str, Member]


def members(data: bytes) -> Archive | None:
    """Read an archive; None for anything else, and for one that is damaged or too large."""
    try:
        if data.startswith(b"PK\x03\x04"):
            return _zip(data)
        if data[257:262] == b"ustar":
            return _tar(data)
    except DAMAGED:
        return None
    return None


def _zip(data: bytes) -> Archive | None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if len(infos) > MANY or sum(info.file_size for info in infos) > LIMIT:
            return None
        return Archive(
            kind="zip",
            members={
                info.filename: Member(facts=_zip_facts(info), data=archive.read(info))
                for info in infos
            },
        )


def _zip_facts(info: zipfile.ZipInfo) -> dict[str, str]:
    year, month, day, hour, minute, second = info.date_time
    return {
        "time": f"{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}",
        "mode": oct(info.external_attr >> 16),
        "compression": str(info.compress_type),
        "made by": f"system {info.create_system}",
        "extra fields": info.extra.hex(),
    }


def _tar(data: bytes) -> Archive | None:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            content = file.read() if file is not None else b""
            found[info.name] = Member(facts=_tar_facts(info), data=content)
            if len(found) > MANY:
                return None
    return Archive(kind="tar", members=found)


def _tar_facts(info: tarfile.TarInfo) -> dict[str, str]:
    return {
        "time": str(info.mtime),
        "mode": oct(info.mode),
        "owner": f"{info.uid}:{info.gid} {info.uname}:{info.gname}",
        "type": info.type.decode("latin-1"),
        "link": info.linkname,
    }

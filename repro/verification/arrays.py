"""Arrays as numpy writes them (`.npy`, `.npz`), read without numpy and without running anything."""

from __future__ import annotations

import array
import ast
import io
import sys
import zipfile

from repro.value import Value
from repro.verification.archives import DAMAGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"\x93NUMPY"
CODES = {"f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
CODES |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
BOTH = {"<": "little", ">": "big", "|": sys.byteorder}
LIMIT = 64 << 20


class Array(Value):
    """One array: its header, its bytes, and its numbers where they are plain ones."""

    header: str
    data: bytes
    values: Sequence[float] | None = None


def arrays(data: bytes) -> dict[str, Array] | None:
    """Give the arrays of a file by name; that of a single one is empty. None for other files."""
    if data.startswith(MAGIC):
        one = _array(data)
        return None if one is None else {"": one}
    if not data.startswith(b"PK\x03\x04"):
        return None
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > LIMIT:
                return None
            for name in archive.namelist():
                one = _array(archive.read(name))
                if one is None:
                    return None
                found[name] = one
    except DAMAGED:
        return None
    return found


def _array(data: bytes) -> Array | None:
    """Read one array: magic, version, length of the header, a literal of Python, the numbers."""
    if not data.startswith(MAGIC):
        return None
    wide = data[6:7] > b"\x01"
    begin = 12 if wide else 10
    end = begin + int.from_bytes(data[8:begin], "little")
    header = data[begin:end].decode("latin-1").strip()
    try:
        kind = ast.literal_eval(header)["descr"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return None
    body = data[end:]
    return Array(header=header, data=body, values=_numbers(str(kind), body))


def _numbers(kind: str, body: bytes) -> Sequence[float] | None:
    code = CODES.get(kind[1:])
    if code is None or kind[:1] not in BOTH:
        return None
    found = array.array(code)
    if len(body) % found.itemsize:
        return None
    found.frombytes(body)
    if BOTH[kind[:1]] != sys.byteorder:
        found.byteswap()
    return found

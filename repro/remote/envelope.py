"""A result as it travels: a REAPI `ActionResult` that names every blob and carries the record.

Servers of Bazel's protocol check it, answer with it only while all blobs are there, and keep
those alive. Its `stdout_raw` holds our record, with its signature if there is one.
"""

from __future__ import annotations

from repro import digest
from repro.remote.port import Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OUTPUT_FILE = 2
STDOUT_RAW = 5
PATH = 1
DIGEST = 2
HASH = 1
SIZE = 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MARK = b"-----BEGIN SSH SIGNATURE-----\n"
LONGEST_NUMBER = 10


def encode(record: bytes, signature: bytes, blobs: Mapping[str, int]) -> bytes:
    """Write a record with its signature, and the sizes of the blobs that it needs."""
    files = b"".join(_field(OUTPUT_FILE, _file(name, blobs[name])) for name in sorted(blobs))
    return files + _field(STDOUT_RAW, record + signature)


def decode(data: bytes) -> tuple[bytes, bytes]:
    """Give record and signature. Raises Unfit for what is no such message."""
    record = next((value for number, value in _fields(data) if number == STDOUT_RAW), None)
    if not isinstance(record, bytes):
        raise Unfit("what is there is no result of repro")
    body, mark, rest = record.partition(MARK)
    return body, mark + rest


def blobs_of(data: bytes) -> dict[str, int]:
    """Give the blobs that a message names, with their sizes. Raises Unfit."""
    found = {}
    for number, value in _fields(data):
        if number == OUTPUT_FILE and isinstance(value, bytes):
            inner = dict(_fields(dict(_fields(value)).get(DIGEST, b"")))
            name = inner.get(HASH, b"")
            size = inner.get(SIZE, 0)
            if isinstance(name, bytes) and isinstance(size, int):
                found[name.decode("ascii", "replace")] = size
    return {name: size for name, size in found.items() if digest.is_digest(name)}


def _file(name: str, size: int) -> bytes:
    inner = _field(HASH, name.encode()) + (_key(SIZE, VARINT) + _number(size) if size else b"")
    return _field(PATH, name.encode()) + _field(DIGEST, inner)


def _field(number: int, value: bytes) -> bytes:
    return _key(number, BYTES) + _number(len(value)) + value


def _key(number: int, kind: int) -> bytes:
    return _number(number << 3 | kind)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004  (seven bits a byte)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: object) -> Iterator[tuple[int, bytes | int]]:
    """Read a message field by field. Raises Unfit where it ends too early or is none."""
    if not isinstance(data, bytes):
        raise Unfit("what is there is no result of repro")
    at = 0
    while at < len(data):
        key, at = _read_number(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_number(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, at = _read_number(data, at)
        else:
            length = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if not 0 <= length <= len(data) - at:
            raise Unfit("what is there is no result of repro")
        yield key >> 3, data[at : at + length]
        at += length


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(LONGEST_NUMBER):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004  (the last byte has no eighth bit)
            return value, at + index + 1
    raise Unfit("what is there is no result of repro")

"""The stream of what a job tells: output, heartbeats, and last its end, in numbered frames."""

from __future__ import annotations

import struct
import zlib

CHUNK = 1 << 16
"""The most that one frame holds, in bytes."""
OUT, ERR, BEAT, END = 1, 2, 3, 4
HEADER = struct.Struct(">QBII")  # number, kind, size, CRC-32 of all the rest


def frame(number: int, kind: int, data: bytes) -> bytes:
    """Pack one frame."""
    return HEADER.pack(number, kind, len(data), _check(number, kind, data)) + data


def frames(data: bytes, number: int) -> tuple[list[tuple[int, bytes]], int]:
    """Read the frames from `number` on; give them and how many bytes they took.

    What is cut off or damaged, and all that follows it, is not there yet.
    """
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(data) - at >= HEADER.size:
        got, kind, size, check = HEADER.unpack_from(data, at)
        payload = data[at + HEADER.size : at + HEADER.size + size]
        is_whole = got == number + len(found) and len(payload) == size
        if not is_whole or _check(got, kind, payload) != check:
            break
        found.append((kind, payload))
        at += HEADER.size + size
    return found, at


def _check(number: int, kind: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(HEADER.pack(number, kind, len(data), 0)))

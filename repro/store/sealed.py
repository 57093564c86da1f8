"""Bytes that carry their own digest, so that whatever happened to them is noticed."""

from __future__ import annotations

from repro import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 16
LENGTH = len(digest.EMPTY) + 2


def seal(body: bytes) -> bytes:
    """Give what to write to a file."""
    return body + _end(body)


def unseal(data: bytes | None) -> bytes | None:
    """Give what was sealed, None for anything else."""
    if data is None:
        return None
    body = data[:-LENGTH]
    return body if data[-LENGTH:] == _end(body) else None


def line_of(body: bytes) -> bytes:
    """Give what to append, in one write, to a file of many; no line break may be in it.

    The line break in front ends what another process could not write to its end.
    """
    return b"\n" + _check(body) + b" " + body + b"\n"


def bodies_of(data: bytes) -> Iterator[bytes]:
    """Give what was appended to a file, without what is cut off or damaged."""
    for line in data.split(b"\n"):
        check, _, body = line.partition(b" ")
        if body and check == _check(body):
            yield body


def _check(body: bytes) -> bytes:
    return digest.of_bytes(body)[:SHORT].encode()


def _end(body: bytes) -> bytes:
    return f"\n{digest.of_bytes(body)}\n".encode()

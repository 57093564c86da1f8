"""Bytes that end with their own digest, so that whatever happened to them is noticed."""

from __future__ import annotations

from repro import digest

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


def _end(body: bytes) -> bytes:
    return f"\n{digest.of_bytes(body)}\n".encode()

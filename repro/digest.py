"""The only hashing there is: SHA-256, written as 64 lower-case hexadecimal digits."""

from __future__ import annotations

from repro import canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Hasher(Protocol):
        """What takes bytes piece by piece and gives their digest at the end."""

        def update(self, data: bytes, /) -> None:
            """Take the next piece."""

        def hexdigest(self) -> str:
            """Give the digest of all pieces."""


try:  # compiled into the interpreter; loading OpenSSL for a few hundred bytes costs 2 ms
    from _sha2 import sha256 as _small
except ImportError:
    try:
        from _sha256 import sha256 as _small  # Python 3.11
    except ImportError:
        from hashlib import sha256 as _small

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SMALL = 1 << 16
DIGITS = frozenset("0123456789abcdef")


def of_bytes(data: bytes) -> str:
    """Digest `data`."""
    if len(data) > SMALL:
        hasher = stream()
        hasher.update(data)
        return hasher.hexdigest()
    return str(_small(data).hexdigest())


def of_value(tag: str, value: Any) -> str:
    """Digest plain data under `tag`, so that equal data of two kinds never meet.

    Raises canonical.NotCanonical for data that has no canonical form.
    """
    return of_bytes(canonical.encode([tag, value]))


def of_chunks(chunks: Iterable[bytes]) -> str:
    """Digest the concatenation of `chunks` without holding it."""
    hasher = stream()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def stream() -> Hasher:
    """Give a hasher for data of any size; it uses the processor's own instructions."""
    from hashlib import sha256

    return sha256()


def keyed(secret: bytes, text: str) -> str:
    """Digest `text` so that only a holder of `secret` can test a guess (HMAC-SHA-256)."""
    import hmac

    return hmac.new(secret, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def is_digest(text: object) -> bool:
    """Say whether `text` is written as a digest."""
    return isinstance(text, str) and len(text) == len(EMPTY) and set(text) <= DIGITS

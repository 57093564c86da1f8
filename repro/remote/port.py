"""The one port of remote caches: two kinds of things by digest, got, put and asked for."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    Sink = Callable[[bytes], None]

AC = "ac"
CAS = "cas"
CHUNK = 1 << 18
MOST_PAGES = 1000
"""How often a list may go on: a million results, and no list without an end."""


class RemoteFailed(Exception):
    """A remote did not do what was asked; the text says why. A warning at most, never a failure."""


class Unanswered(RemoteFailed):
    """Nobody answered in time, or not to the end: worth trying again, and later not at all.

    `pause_s` is how long the remote asks to be left alone. `dead` where nobody can be there.
    """

    def __init__(self, reason: str, *, pause_s: float = 0.0, dead: bool = False) -> None:
        """Keep the reason in words."""
        super().__init__(reason)
        self.pause_s = pause_s
        self.dead = dead


class Denied(RemoteFailed):
    """The remote answers, and will not do this for us; with `always`, nothing of the kind."""

    def __init__(self, reason: str, *, always: bool = False) -> None:
        """Keep the reason in words."""
        super().__init__(reason)
        self.always = always


class Unfit(RemoteFailed):
    """The remote gave something that must not be used: other bytes, or a result that is none."""


class Limits(Value):
    """How patient one is with a remote. Times are in seconds.

    `stall` is the longest time in which nothing at all arrives. `longest_pause` is the longest
    that a remote may ask us to wait. `part` is the size in bytes of the parts of a large upload.
    """

    connect: float = 3.0
    answer: float = 10.0
    commit: float = 120.0
    stall: float = 15.0
    tries: int = 4
    first_pause: float = 0.2
    longest_pause: float = 10.0
    redirects: int = 4
    threads: int = 16
    part: int = 16 << 20


if TYPE_CHECKING:

    class Source(Protocol):
        """Bytes to be sent, as often as it takes."""

        size: int

        def pieces(self, start: int = 0, end: int | None = None) -> Iterable[bytes]:
            """Give the bytes from `start` to `end`, a piece at a time, again with every call."""

    class Remote(Protocol):
        """One remote cache. Any thread may call any method at any time.

        `kind` is `ac` (results by step key) or `cas` (blobs by SHA-256). `name` is the address as
        it may be shown, without credentials. Every method raises RemoteFailed and nothing else
        of the remote's making; what a sink raises passes through.
        """

        name: str
        read_only: bool

        def get(self, kind: str, digest: str, sink: Sink) -> bool:
            """Hand the bytes to `sink`, each once and in order; say whether there are any.

            What arrives is whatever the remote has: the caller hashes it.
            """

        def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
            """Store bytes, whole or not at all. What is there may stay, except with `over`."""

        def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
            """Say which of `digests` are there, with their sizes where the remote tells them."""

        def keys(self) -> Iterable[str]:
            """List the keys of all results. Raises Denied where the remote cannot list."""

        def close(self) -> None:
            """Close connections."""


class Bytes:
    """A source in memory."""

    def __init__(self, data: bytes) -> None:
        """Take the bytes."""
        self.data = data
        self.size = len(data)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterable[bytes]:
        """Give them, or a part of them."""
        return [self.data[start:end]]


class File:
    """A source on disk."""

    def __init__(self, path: str, size: int) -> None:
        """Name the file; it is opened when it is read."""
        self.path = path
        self.size = size

    def pieces(self, start: int = 0, end: int | None = None) -> Iterable[bytes]:
        """Read a part of the file."""
        left = (self.size if end is None else end) - start
        with open(self.path, "rb") as file:
            file.seek(start)
            while left > 0 and (piece := file.read(min(CHUNK, left))):
                yield piece
                left -= len(piece)


class Part:
    """A part of another source."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        """Take the bytes from `start` to `end`."""
        self.source = source
        self.start = start
        self.size = end - start

    def pieces(self, start: int = 0, end: int | None = None) -> Iterable[bytes]:
        """Give them, or a part of them."""
        last = self.size if end is None else end
        return self.source.pieces(self.start + start, self.start + last)

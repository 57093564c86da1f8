"""A remote that is given up for the rest of a run once it is known not to answer."""

from __future__ import annotations

from repro.remote.port import Denied, Unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from repro.remote.port import Remote, Sink, Source

    T = TypeVar("T")

MOST_FAILURES = 3


class Fuse:
    """Stands before a remote. Where nobody is there, it is asked once; where it fails, thrice.

    A remote that does not take uploads becomes read-only. `blown` says why it is not asked any
    more, empty while it is.
    """

    def __init__(self, remote: Remote) -> None:
        """Stand before `remote`."""
        self.remote = remote
        self.name = remote.name
        self.read_only = remote.read_only
        self.blown = ""
        self._failures = 0

    def get(self, kind: str, digest: str, sink: Sink) -> bool:
        """Get, if the remote is still asked."""
        return self._ask(lambda: self.remote.get(kind, digest, sink))

    def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
        """Put, if the remote is still asked and takes anything."""
        if self.read_only:
            raise Denied("takes no uploads")
        try:
            self._guarded(lambda: self.remote.put(kind, digest, source, over=over))
        except Denied as error:
            self.read_only = self.read_only or error.always
            raise

    def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Look, if the remote is still asked."""
        return self._ask(lambda: self.remote.has(kind, digests))

    def keys(self) -> list[str]:
        """List, if the remote is still asked."""
        return self._ask(lambda: list(self.remote.keys()))

    def close(self) -> None:
        """Close the remote."""
        self.remote.close()

    def blow(self, reason: str) -> None:
        """Ask no more."""
        self.blown = self.blown or reason

    def _ask(self, action: Callable[[], T]) -> T:
        """Read; where nothing may be read, nothing more is asked."""
        try:
            return self._guarded(action)
        except Denied as error:
            if error.always:
                self.blow(str(error))
            raise

    def _guarded(self, action: Callable[[], T]) -> T:
        if self.blown:
            raise Unanswered(self.blown, dead=True)
        try:
            found = action()
        except Unanswered as error:
            self._failures += 1
            if error.dead or self._failures >= MOST_FAILURES:
                self.blow(str(error))
            raise
        self._failures = 0
        return found

"""Paths as the code of a step names them, and where they are on this machine."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.conditions import Room

CONTAINER = "/repro"
TEMPORARY = "/tmp"  # noqa: S108  (where a confined step sees its own folder)
ENDS = frozenset("\"' \t\n,;|)]}>&")
NAMES = frozenset("._-~")


class Places:
    """The private folders of one step, under the names that it may have for them."""

    def __init__(self, room: Room, *, image: bool = False) -> None:
        """Take the folders; a step in an image sees them at another place."""
        self.work = os.path.realpath(room.work)
        self.base = base = os.path.realpath(room.base)
        self._names = [(base, base), (room.base, base)]
        if image:
            self._names.append((CONTAINER, base))
        self._names.append((TEMPORARY, os.path.realpath(room.temporary)))

    def here(self, path: str) -> str:
        """Give the place of a path, which is the path itself for one that is not private."""
        for name, place in self._names:
            if path == name or path.startswith(f"{name}/"):
                found = place + path[len(name) :]
                if name != TEMPORARY or os.path.lexists(found):
                    return found
        return path

    def is_private(self, path: str) -> bool:
        """Say whether a place of this machine is in the private folders."""
        return path.startswith(f"{self.base}/")

    def inside(self, path: str) -> str | None:
        """Give a path relative to the step's tree, empty for the tree itself, None if outside."""
        real = os.path.realpath(path)
        if real == self.work:
            return ""
        return os.path.relpath(real, self.work) if real.startswith(f"{self.work}/") else None

    def mentions(self, text: str) -> Iterator[tuple[str, str]]:
        """Give the private paths in a text that are there: as they are written, and the place."""
        at = 0
        while at < len(text):
            end = self._end(text, at)
            if end:
                yield text[at:end], self.here(text[at:end])
            at = end or at + 1

    def _end(self, text: str, at: int) -> int:
        """Give the end of a private path that begins at a position, 0 where none does."""
        begins = text[at] == "/" and not (at and (text[at - 1].isalnum() or text[at - 1] in NAMES))
        if not begins:
            return 0
        word = next((i for i in range(at, len(text)) if text[i] in ENDS), len(text))
        for end in (len(text), word):
            place = self.here(text[at:end])
            if self.is_private(place) and os.path.exists(place):
                return end
        return 0

"""Files that hold the path of the folder they were installed in, as they are in another folder.

In a text the old path is replaced. In other files it is part of strings that end with a zero
byte and cannot move: the new path must not be longer, and the string is filled up with zeros, as
conda does. An environment that was made in two places comes out the same for a third.
"""

from __future__ import annotations

import mmap
import os

from repro.errors import EnvironmentFailed
from repro.images.layers import Member, of_file, of_link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Spans = list[tuple[int, int, bytes]]

PIECE = 1 << 20
ENDS = frozenset(b"/\0\"': \t\r\n;,=)]}>#&|%$\\")
"""What may follow a path: a longer name that begins like it is another path."""


def moved(path: str, source: str, old: str, new: str) -> Member:
    """Give the file at `source` as it is when `old`, the folder it was made for, is `new`.

    Raises EnvironmentFailed for a binary file with no room for the new path.
    """
    if os.path.islink(source):
        return of_link(path, _relinked(os.readlink(source), old, new))
    plain = of_file(path, source)
    if plain.kind == "dir" or not plain.size:
        return plain
    before, after = os.fsencode(old), os.fsencode(new)
    spans = _spans(source, before, after)
    if not spans:
        return plain
    size = plain.size + sum(len(text) - (end - start) for start, end, text in spans)
    return Member(path=path, kind=plain.kind, size=size, open=lambda: _edited(source, spans))


def names(source: str, old: str) -> bool:
    """Say whether the file at `source` holds the path `old`."""
    return bool(os.path.getsize(source)) and _holds(source, os.fsencode(old))


def _relinked(target: str, old: str, new: str) -> str:
    inside = target == old or target.startswith(f"{old}/")
    return new + target[len(old) :] if inside else target


def _holds(source: str, before: bytes) -> bool:
    with open(source, "rb") as file, _mapped(file.fileno()) as data:
        return next(_occurrences(data, before), None) is not None


def _spans(source: str, before: bytes, after: bytes) -> Spans:
    """Find what to replace: (start, end, replacement), in order."""
    with open(source, "rb") as file, _mapped(file.fileno()) as data:
        found = list(_occurrences(data, before))
        if not found:
            return []
        if data.find(b"\0") < 0:
            return [(at, at + len(before), after) for at in found]
        if len(after) > len(before):
            raise EnvironmentFailed(
                f"`{source}` has no room for a path as long as `{os.fsdecode(after)}`",
                hints=["keep the store in a folder with a longer name: set `REPRO_HOME`"],
            )
        return _padded(data, found, before, after)


def _padded(data: mmap.mmap, found: list[int], before: bytes, after: bytes) -> Spans:
    """Replace whole strings, from the first old path in each to the zero byte at its end."""
    spans: Spans = []
    for at in found:
        if spans and at < spans[-1][1]:
            continue  # part of the string before
        end = data.find(b"\0", at)
        end = len(data) if end < 0 else end
        text = data[at:end]
        pieces = [i - at for i in found if at <= i < end]
        new = b"".join(
            after + text[start + len(before) : stop]
            for start, stop in zip(pieces, [*pieces[1:], len(text)], strict=True)
        )
        spans.append((at, end, new + bytes(len(text) - len(new))))
    return spans


def _occurrences(data: mmap.mmap, before: bytes) -> Iterator[int]:
    at = data.find(before)
    while at >= 0:
        end = at + len(before)
        if end == len(data) or data[end] in ENDS:
            yield at
        at = data.find(before, end)


def _mapped(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)


def _edited(source: str, spans: Spans) -> Iterator[bytes]:
    with open(source, "rb") as file:
        for start, end, text in spans:
            yield from _up_to(file.fileno(), start)
            yield text
            os.lseek(file.fileno(), end, os.SEEK_SET)
        yield from _rest(file.fileno())


def _up_to(fd: int, end: int) -> Iterator[bytes]:
    left = end - os.lseek(fd, 0, os.SEEK_CUR)
    while left > 0 and (piece := os.read(fd, min(left, PIECE))):
        left -= len(piece)
        yield piece


def _rest(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, PIECE):
        yield piece

"""A folder as a list of what is in it, by content."""

from __future__ import annotations

import json
import os
import stat

from repro.backends.agent.carriage import READ, Failed, hasher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Entry = tuple[str, str, str, int]
    Get = Callable[[str, str], None]

SCHEMA = "repro.job-tree/1"


def scan(root: str, known: Mapping[str, tuple[Any, Entry]] | None = None) -> list[Entry]:
    """List everything below a folder, as (path, kind, content, size).

    A kind is `file`, `exec`, `link`, `dir` (an empty folder) or `odd` (a pipe, socket or device).
    Content is a digest, or the target of a link. A file whose state is still the `known` one is
    not read again.
    """
    found: list[Entry] = []
    for base, folders, names in os.walk(root, onerror=_raised):
        inside = os.path.relpath(base, root)
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        if not folders and not names and inside != ".":
            found.append((inside, "dir", "", 0))
        for name in sorted([*names, *links]):
            path = name if inside == "." else os.path.join(inside, name)
            found.append(_entry(root, path, known or {}))
    return found


def _raised(error: OSError) -> None:
    raise error


def _entry(root: str, path: str, known: Mapping[str, tuple[Any, Entry]]) -> Entry:
    place = os.path.join(root, path)
    status = os.lstat(place)
    if stat.S_ISLNK(status.st_mode):
        return (path, "link", os.readlink(place), 0)
    if not stat.S_ISREG(status.st_mode):
        return (path, "odd", "", 0)
    before = known.get(path)
    if before and before[0] == state(place):
        return before[1]
    kind = "exec" if status.st_mode & stat.S_IXUSR else "file"
    return (path, kind, digest_of(place), status.st_size)


def state(place: str) -> tuple[int, ...]:
    """Give what changes when a file does."""
    found = os.lstat(place)
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)


def digest_of(place: str) -> str:
    """Give the SHA-256 of a file."""
    taken = hasher()
    with open(place, "rb") as file:
        for piece in iter(lambda: file.read(READ), b""):
            taken.update(piece)
    return str(taken.hexdigest())


def lay(entries: Iterable[Entry], root: str, get: Get) -> None:
    """Make what a tree says; `get(digest, path)` writes a blob to a new file."""
    for path, kind, content, _size in entries:
        place = os.path.join(root, path)
        os.makedirs(place if kind == "dir" else os.path.dirname(place), exist_ok=True)
        if kind == "link":
            os.symlink(content, place)
        elif kind == "odd":
            os.mkfifo(place)
        elif kind in ("file", "exec"):
            get(content, place)
            os.chmod(place, 0o755 if kind == "exec" else 0o644)


def packed(entries: Iterable[Entry]) -> bytes:
    """Write a tree; equal trees give equal bytes."""
    text = json.dumps([SCHEMA, sorted(entries)], separators=(",", ":"))
    return text.encode("ascii")


def unpacked(data: bytes) -> list[Entry]:
    """Read a tree. Raises Failed for what is none."""
    try:
        name, entries = json.loads(data)
        found = [(str(p), str(k), str(c), int(s)) for p, k, c, s in entries]
    except (ValueError, TypeError) as error:
        raise Failed("what should be a tree is none") from error
    if name != SCHEMA:
        raise Failed("the tree is of another version")
    return found

"""Whether the files of an environment are those that it was made of, by a look at their states.

Environments share files with packages in the store, and so with each other: whoever writes to one
of them, as only root can without changing its mode, writes to all. This is looked at whenever an
environment is entered. A folder's time tells of files that were removed, replaced or renamed, so
the times of all folders are compared each time. Writing in place changes the file's own time
alone: all files are looked at where they are few, or once an hour, and a part of them meanwhile.

What was added does no harm, and byte-code is left out: whoever imports may write that.
"""

from __future__ import annotations

import json
import os
import time
from array import array
from operator import attrgetter

from repro import digest
from repro.environments.treehash import BYTECODE
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.environments.treehash import Mark

FEW = 1000
PARTS = 4
WHOLE_NS = 3600 * files.SECOND_NS
CHANGING = -1.0
"""The time of a folder that we write to ourselves: its files are looked at each time."""

mark = attrgetter("st_mtime", "st_ino")


def keep(prefix: str, paths: Iterable[str], known: Mapping[str, Mark]) -> str:
    """Note which files make up the environment at `prefix`; give what `is_same` shall be told.

    `known` are time and inode of files that need not be looked at.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        if not path.endswith(BYTECODE):
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(name)
    marks: list[Mark] = []
    for folder, names in folders.items():
        above = f"{folder}/" if folder else ""
        found = (above + name for name in names)
        marks += [known.get(path) or mark(os.lstat(f"{prefix}/{path}")) for path in found]
    times = array("d", [_time(prefix, folder) for folder in folders])
    times.extend(at for at, _inode in marks)
    inodes = array("Q", [inode for _at, inode in marks])
    data = json.dumps([*folders.items()], separators=(",", ":")).encode() + b"\n"
    data += times.tobytes() + inodes.tobytes()
    place = list_of(prefix)
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    files.replace(place, data, durable=False)
    return digest.of_bytes(data)


def is_same(prefix: str, noted: str) -> bool:
    """Say whether the files are those of which `keep` gave `noted`, as far as it is looked at."""
    place = list_of(prefix)
    try:
        data = files.read(place) or b""
        return digest.of_bytes(data) == noted and _is_same(prefix, data, place)
    except OSError:
        return False


def list_of(prefix: str) -> str:
    """Give the place of the note: outside of the environment, so that it is only its own."""
    folder, key = os.path.split(os.path.abspath(prefix))
    return os.path.join(os.path.dirname(folder), "memo", f"shape-{key}")


def _is_same(prefix: str, data: bytes, place: str) -> bool:
    head, _, body = data.partition(b"\n")
    folders = json.loads(head)
    times, inodes = array("d"), array("Q")
    count = len(body) - len(folders) * times.itemsize
    count //= times.itemsize + inodes.itemsize
    start = (len(folders) + count) * times.itemsize
    times.frombytes(body[:start])
    inodes.frombytes(body[start:])
    expected = list(zip(times[len(folders) :], inodes, strict=True))
    turn = -1 if count <= FEW or not _is_recent(place) else os.urandom(1)[0] % PARTS
    at = 0
    for number, (folder, names) in enumerate(folders):
        end = at + len(names)
        same = _time(prefix, folder) == times[number] != CHANGING
        looked = turn < 0 or not same or number % PARTS == turn
        if looked and _marks(f"{prefix}/{folder}", names) != expected[at:end]:
            return False
        at = end
    if turn < 0 and count > FEW:
        _touch(place)
    return True


def _time(prefix: str, folder: str) -> float:
    return os.lstat(f"{prefix}/{folder}").st_mtime if folder else CHANGING


def _marks(folder: str, names: Iterable[str]) -> list[Mark]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [mark(os.lstat(name, dir_fd=fd)) for name in names]
    finally:
        os.close(fd)


def _is_recent(place: str) -> bool:
    """Say whether all files were looked at within the last hour: this is noted there then."""
    return 0 <= time.time_ns() - os.stat(place).st_mtime_ns < WHOLE_NS


def _touch(place: str) -> None:
    try:
        os.utime(place)
    except OSError:  # a read-only store: all are looked at each time
        return

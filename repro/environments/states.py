"""Folders of files that were read once, and are known from then on by the states of the files.

A state holds the change time, which no program can set back: whatever writes to a file, through
whichever of its names, leaves it with another one. So a file whose state is the recorded one has
the recorded content, and does not have to be read again. A link that is made or removed changes it
too: such a file is read, unless it was known when we made the link ourselves.

A record counts for one boot: what was not on disk yet when the power failed may be gone, with the
states still there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from typing import Any

    Inode = tuple[int, int]

FORMAT = 1
LARGE = 1 << 18
THREADS = 2
BOOT = "/proc/sys/kernel/random/boot_id"
SAME = 4  # parts of a state that a link leaves as they are: device, inode, size, time of writing


def boot() -> str:
    """Name the time since this machine was started; nothing where that cannot be known."""
    return (files.read(BOOT) or b"").decode("ascii", "replace").strip()


def digests(paths: Sequence[str]) -> list[str]:
    """Read files and give their digests; nothing for what is no regular file.

    Large ones are read by threads meanwhile.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS) as pool:
        found = [_digest(path, pool) for path in paths]
        return [one.result() if isinstance(one, Future) else one for one in found]


def _digest(path: str, pool: ThreadPoolExecutor) -> str | Future[str]:
    """Digest a small file, and let the pool do that for a large one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return ""
        if status.st_size > LARGE:
            return pool.submit(_of_large, path)
        # the one of `digest` for little data makes no use of the processor's own instructions
        return hashlib.sha256(_all(fd, status.st_size)).hexdigest()
    finally:
        os.close(fd)


def _all(fd: int, size: int) -> bytes:
    data = os.read(fd, size + 1)
    return data if len(data) == size else data + b"".join(files.chunks(fd))


def _of_large(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


class Record:
    """What the file `path` says of the files below `folder`; `about` is what they were made of.

    `files` gives the digest of each (of a link: its target), and its state when that was known.
    """

    def __init__(self, path: str, folder: str, about: str) -> None:
        """Read what is there; `files` is empty where that is nothing, or of something else."""
        self.files: dict[str, tuple[str, list[int]]] = {}
        self._path = path
        self._folder = folder
        self._about = about
        found = _parsed(files.read(path))
        if found.get("about") == about and found.get("format") == FORMAT:
            same = found["boot"] == boot() != ""
            self.files = {p: (d, state if same else []) for p, d, *state in found["files"]}

    def take(self) -> None:
        """Read all files, which nobody can write to from then on."""
        paths = sorted(_below(self._folder, ""))
        for path in paths:
            _protect(f"{self._folder}/{path}")
        before = [files.state_of(f"{self._folder}/{path}") for path in paths]
        found = self._read(paths)
        self.files = {p: (d, s) for p, d, s in zip(paths, found, before, strict=True)}

    def damaged(self) -> list[str]:
        """Give the files that are not what they were; the states of all others are known then."""
        now = {path: files.state_of(f"{self._folder}/{path}") for path in self.files}
        doubtful = [path for path, (_digest, state) in self.files.items() if now[path] != state]
        found = dict(zip(doubtful, self._read(doubtful), strict=True))
        changed = [path for path in doubtful if found[path] != self.files[path][0]]
        self.files = {path: (d, now[path]) for path, (d, _state) in self.files.items()}
        return changed

    def renew(self) -> list[str]:
        """Take the states again after links were made; give the files that were written to.

        Between `damaged` and this, the change times say nothing: only the times of writing do.
        """
        now = {path: files.state_of(f"{self._folder}/{path}") for path in self.files}
        changed = [p for p, (_d, state) in self.files.items() if now[p][:SAME] != state[:SAME]]
        self.files = {path: (d, now[path]) for path, (d, _state) in self.files.items()}
        return changed

    def inodes(self) -> Iterator[tuple[Inode, str]]:
        """Give the digest of each file by what all its names lead to."""
        for found, state in self.files.values():
            if state and stat.S_ISREG(state[-1]):
                yield (state[0], state[1]), found

    def save(self) -> None:
        """Write it down."""
        rows = [[path, found, *state] for path, (found, state) in self.files.items()]
        about = {"format": FORMAT, "about": self._about, "boot": boot(), "files": rows}
        data = json.dumps(about, separators=(",", ":")).encode()
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        files.replace(self._path, data, durable=False)

    def _read(self, paths: Iterable[str]) -> list[str]:
        places = [f"{self._folder}/{path}" for path in paths]
        return [f or _target(p) for f, p in zip(digests(places), places, strict=True)]


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _below(folder: str, base: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, f"{base}{entry.name}/")
        else:
            yield base + entry.name


def _protect(path: str) -> None:
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode) and mode & 0o222:
        os.chmod(path, 0o555 if mode & 0o111 else 0o444)


def _target(path: str) -> str:
    """Give where a link leads, nothing for anything else."""
    try:
        return f"-> {os.readlink(path)}"
    except OSError:
        return ""

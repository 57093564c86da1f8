"""Folders of files that were read once, and are known from then on by the states of the files.

A state holds the change time, which no program can set back: whatever writes to a file, through
whichever of its names, leaves it with another one. So a file whose state is the recorded one has
the recorded content, and does not have to be read again. A link that is made or removed changes it
too: such a file is read, unless it was known when we made the link ourselves.

A record counts for one boot: what was not on disk yet when the power failed may be gone, with the
states still there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from array import array
from operator import attrgetter

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from typing import Any

    State = tuple[int, ...]

FORMAT = 2
LARGE = 1 << 18
THREADS = 2
BOOT = "/proc/sys/kernel/random/boot_id"
PARTS = 6
SAME = 4  # parts of a state that a link leaves as they are: device, inode, size, time of writing
UNKNOWN: State = ()
NOTHING: Mapping[str, Any] = {}

state = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns", "st_mode")


@functools.cache
def boot() -> str:
    """Name the time since this machine was started; nothing where that cannot be known."""
    return (files.read(BOOT) or b"").decode("ascii", "replace").strip()


@contextlib.contextmanager
def opened(folder: str) -> Iterator[int]:
    """Open a folder: to look up paths from there takes less than to look up whole ones."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def digests(paths: Sequence[str]) -> list[str]:
    """Read files and give their digests; nothing for what is no regular file.

    Large ones are read by threads meanwhile.
    """
    if not paths:
        return []
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

    `digests` gives the digest of each (of a link: its target), and is empty where the file says
    nothing, or is about something else. `states` are theirs, in the same order, some UNKNOWN.
    `notes` is what else was written down. `doubtful` are the files that `damaged` had to read.
    """

    def __init__(self, path: str, folder: str, about: str = "") -> None:
        """Read what is there; without `about`, whatever it is about."""
        self.path = path
        self.folder = folder
        self.digests: dict[str, str] = {}
        self.states: list[State] = []
        self.notes: Mapping[str, Any] = NOTHING
        self.doubtful: list[str] = []
        self._about = about
        self._head = b""
        self._parse(files.read(path) or b"")

    def _parse(self, data: bytes) -> None:
        head, _, rest = data.partition(b"\n")
        started, _, body = rest.partition(b"\n")
        found = _parsed(head)
        is_it = found.get("about") == self._about or not self._about
        if not is_it or found.get("format") != FORMAT:
            return
        numbers = array("q")
        count = len(found["digests"])
        if len(body) != count * PARTS * numbers.itemsize:
            return
        self._head, self.digests, self.notes = head, found["digests"], found["notes"]
        self.states = [UNKNOWN] * count
        if started.decode("ascii", "replace") == boot() != "":
            numbers.frombytes(body)
            self.states = list(zip(*(numbers[part::PARTS] for part in range(PARTS)), strict=True))

    def take(self, notes: Mapping[str, Any] = NOTHING) -> None:
        """Read all files, which nobody can write to from then on."""
        paths = sorted(_below(self.folder, ""))
        for path in paths:
            _protect(f"{self.folder}/{path}")
        before = self._seen(paths)
        self._adopt(dict(zip(paths, self._read(paths), strict=True)), before, notes)

    def adopt(self, digests: dict[str, str], notes: Mapping[str, Any] = NOTHING) -> None:
        """Believe the caller, who has just written the files."""
        self._adopt(digests, self._seen(digests), notes)

    def _adopt(
        self, digests: dict[str, str], states: list[State], notes: Mapping[str, Any]
    ) -> None:
        self.digests, self.states, self.notes = digests, states, notes
        self._head = b""

    def damaged(self) -> list[str]:
        """Give the files that are not what they were; the states of all others are known then."""
        before, self.states = self.states, self._seen(self.digests)
        rows = zip(self.digests, before, self.states, strict=True)
        self.doubtful = [path for path, known, now in rows if now != known]
        found = zip(self.doubtful, self._read(self.doubtful), strict=True)
        return [path for path, content in found if content != self.digests[path]]

    def renew(self) -> list[str]:
        """Take the states again after links were made; give the files that were written to.

        Between `damaged` and this, the change times say nothing: only the times of writing do.
        """
        before, self.states = self.states, self._seen(self.digests)
        rows = zip(self.digests, before, self.states, strict=True)
        return [path for path, known, now in rows if now[:SAME] != known[:SAME]]

    def look_again(self, paths: Iterable[str]) -> None:
        """Take the states of some files again, of which the caller has set mode and times."""
        chosen = {*paths}
        rows = zip(self.digests, self.states, strict=True)
        self.states = [
            state_of(f"{self.folder}/{path}") if path in chosen else known for path, known in rows
        ]

    def doubt(self) -> None:
        """Know nothing of the states that are not what they were; nothing is read."""
        now = self._seen(self.digests)
        rows = zip(self.states, now, strict=True)
        self.states = [known if known == seen else UNKNOWN for known, seen in rows]

    def save(self) -> None:
        """Write it down."""
        if not self._head:
            about = {"format": FORMAT, "about": self._about, "notes": self.notes}
            text = json.dumps({**about, "digests": self.digests}, separators=(",", ":"))
            self._head = text.encode()
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        data = b"\n".join((self._head, boot().encode(), _packed(self.states)))
        files.replace(self.path, data, durable=False)

    def _seen(self, paths: Iterable[str]) -> list[State]:
        look = os.lstat
        try:
            with opened(self.folder) as fd:
                return [state(look(path, dir_fd=fd)) for path in paths]
        except OSError:  # one of them is gone
            return [state_of(f"{self.folder}/{path}") for path in paths]

    def _read(self, paths: Iterable[str]) -> list[str]:
        places = [f"{self.folder}/{path}" for path in paths]
        return [f or _target(p) for f, p in zip(digests(places), places, strict=True)]


@contextlib.contextmanager
def unlinking(records: Sequence[Record]) -> Iterator[None]:
    """Know as much as before when links to the files have been removed, which changes states."""
    known = [record for record in records if record.digests]
    for record in known:
        record.doubt()
    yield
    for record in known:
        doubted = [state == UNKNOWN for state in record.states]
        written = {*record.renew()}
        rows = zip(record.digests, record.states, doubted, strict=True)
        record.states = [UNKNOWN if d or p in written else now for p, now, d in rows]
        with contextlib.suppress(OSError):  # a full disk: the files will be read
            record.save()


def state_of(path: str) -> State:
    """Give the state of a file or link, UNKNOWN where there is none."""
    try:
        return state(os.lstat(path))
    except OSError:
        return UNKNOWN


def _packed(states: Iterable[State]) -> bytes:
    flat = [number for known in states for number in known or (0,) * PARTS]
    try:
        return array("q", flat).tobytes()
    except OverflowError:  # such a file is read each time
        return array("q", [number & files.NUMBER for number in flat]).tobytes()


def _parsed(data: bytes) -> dict[str, Any]:
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

"""A shared folder as a remote cache: `cas/` and `ac/`, as a web server could serve them."""

from __future__ import annotations

import errno
import os
import stat
import time

from repro import digest
from repro.remote.port import AC, CAS, CHUNK, Denied, Unanswered, Unfit
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.remote.address import Address
    from repro.remote.port import Sink, Source

HALVES = "tmp"
DAY = 86_400
ABSENT = (errno.ENOENT, errno.ENOTDIR)
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)


class Folder:
    """A folder that several machines see. The umask of the writer decides who may read."""

    def __init__(self, address: Address, *, read_only: bool = False) -> None:
        """Name the folder; it must be there, so that a missing mount is noticed."""
        self.name = address.public
        self.root = address.base
        self.read_only = read_only
        self._ready = False

    def path(self, kind: str, name: str) -> str:
        """Give the place of a thing."""
        return os.path.join(self.root, kind, name)

    def get(self, kind: str, digest: str, sink: Sink) -> bool:
        """Read a file, if it is a regular one: others may write here too."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.path(kind, digest), flags)
        except OSError as error:
            return self._absent(error)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unfit("what stands there is no file")
            while piece := self._read(fd):
                sink(piece)
        finally:
            os.close(fd)
        return True

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, CHUNK)
        except OSError as error:
            raise Unanswered(_words(error)) from None

    def _absent(self, error: OSError) -> bool:
        if error.errno in ABSENT and os.path.isdir(self.root):
            return False
        if error.errno == errno.ELOOP:
            raise Unfit("what stands there is a link") from None
        raise Unanswered(_words(error), dead=error.errno in ABSENT) from None

    def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Look for files."""
        if not os.path.isdir(self.root):
            raise Unanswered("there is no such folder", dead=True)
        found: dict[str, int | None] = {}
        for name in digests:
            try:
                found[name] = os.lstat(self.path(kind, name)).st_size
            except OSError as error:
                self._absent(error)
        return found

    def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
        """Write a file beside its place, make it durable, and put it there at once."""
        half = os.path.join(self.root, HALVES, f"{digest[:16]}-{os.urandom(8).hex()}")
        try:
            self._prepare()
            try:
                self._write(half, source)
                self._publish(half, self.path(kind, digest), over=over)
            finally:
                files.unlink(half)
        except OSError as error:
            if error.errno in (*files.UNWRITABLE, *files.FULL):
                raise Denied(_words(error), always=True) from None
            raise Unanswered(_words(error), dead=error.errno in ABSENT) from None

    @staticmethod
    def _write(half: str, source: Source) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(half, flags, 0o444)
        try:
            for piece in source.pieces():
                files.write_all(fd, piece)
            os.fsync(fd)
        finally:
            os.close(fd)

    @staticmethod
    def _publish(half: str, target: str, *, over: bool) -> None:
        try:
            if over:
                os.replace(half, target)
            else:
                os.link(half, target)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.replace(half, target)
        files.sync_folder(os.path.dirname(target))

    def _prepare(self) -> None:
        """Make the folders below the root, and remove what killed writers left a day ago."""
        if self._ready:
            return
        if not os.path.isdir(self.root):
            raise Unanswered("there is no such folder", dead=True)
        for kind in (AC, CAS, HALVES):
            os.makedirs(self.path(kind, ""), exist_ok=True)
        for entry in os.scandir(self.path(HALVES, "")):
            try:
                if entry.stat(follow_symlinks=False).st_mtime < time.time() - DAY:
                    files.unlink(entry.path)
            except OSError:
                pass  # somebody else's, or gone
        self._ready = True

    def keys(self) -> Iterable[str]:
        """List the results."""
        try:
            names = os.listdir(self.path(AC, ""))
        except OSError as error:
            self._absent(error)
            return []
        return sorted(name for name in names if digest.is_digest(name))

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

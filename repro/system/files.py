"""Files that appear whole or not at all, and locks that die with their holder."""

from __future__ import annotations

import errno
import fcntl
import os

from repro.errors import NoSpace, ReproError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

CHUNK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
DAMAGED = (errno.EIO, errno.EBADMSG, errno.ESTALE, getattr(errno, "EUCLEAN", errno.EIO))
"""What a disk or a file system says about a file that it cannot give any more."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
FICLONE = 0x40049409
SECOND_NS = 1_000_000_000
TICK_NS = 20_000_000
"""Two ticks of the coarsest kernel clock: a file may change again within it, unnoticed."""
DAY_NS = 86_400 * SECOND_NS
NUMBER = 2**63 - 1
"""What fits into a memo; some file systems have larger inode numbers, some files later dates."""


def explained(error: OSError, doing: str) -> ReproError:
    """Give the error to raise for a failed system call while `doing` something."""
    if error.errno in FULL:
        where = f" on the file system of `{error.filename}`" if error.filename else ""
        return NoSpace(
            f"no space left{where} while {doing}",
            hints=["free some space, for example with `repro cache prune`, and run again"],
        )
    reason = (error.strerror or str(error)).lower()
    named = f" `{error.filename}`" if error.filename else ""
    hints = ["choose another place with the variable `REPRO_HOME`"]
    hints = hints if error.errno in UNWRITABLE else []
    return Unreachable(f"{reason}{named} while {doing}", hints=hints)


def read(path: str) -> bytes | None:
    """Give the bytes of a file, None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        size = os.fstat(fd).st_size
        pieces = []
        while piece := os.read(fd, max(size, 1) + 1):
            pieces.append(piece)
            size = CHUNK
        return b"".join(pieces)
    except IsADirectoryError:
        return None
    finally:
        os.close(fd)


def state(status: os.stat_result) -> list[int]:
    """Give what changes whenever a file's content or mode does, short of a lying clock.

    The change time is part of it: no program can set it back.
    """
    return [
        status.st_dev & NUMBER,
        status.st_ino & NUMBER,
        status.st_size,
        status.st_mtime_ns & NUMBER,
        status.st_ctime_ns & NUMBER,
        status.st_mode,
    ]


def is_racy(known: list[int], seen_ns: int) -> bool:
    """Say whether a file may have changed after `seen_ns` without another time stamp.

    `known` is its state, of which the times are used.
    """
    latest = max(known[3], known[4])
    coarse = latest % SECOND_NS == 0  # a file system that keeps whole seconds
    return latest >= seen_ns - (2 * SECOND_NS if coarse else TICK_NS)


def state_of(path: str) -> list[int]:
    """Give the state of a file or link, nothing where there is none."""
    try:
        return state(os.lstat(path))
    except OSError:
        return []


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`: a single write may be short."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace(path: str, data: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Put `data` at `path` at once, over what is there; its folder must exist."""
    half = f"{path}.{os.getpid():x}-{os.urandom(4).hex()}~"
    try:
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(half, path)
    except BaseException:
        unlink(half)
        raise
    if durable:
        sync_folder(os.path.dirname(path))


def touch(path: str) -> None:
    """Let an empty file be there; where that cannot be, there is none."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        pass


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def names(folder: str) -> list[str]:
    """Give the names in a folder in their order, none where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def make_folder(path: str) -> None:
    """Make a private folder, with those above it, each of them durable in the one it is in."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folder(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    sync_folder(above)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def chunks(fd: int) -> Iterator[bytes]:
    """Read a file to its end, a piece at a time."""
    while piece := os.read(fd, CHUNK):
        yield piece


def clone(source: int, target: int) -> bool:
    """Share the blocks of one open file with another, where the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def remove_tree(path: str) -> None:
    """Remove a folder and all below it, also read-only parts; never follows a link.

    What another process removes meanwhile is none of our business.
    """
    import shutil

    def retry(function: object, name: str, error: tuple[object, object, object]) -> None:
        if isinstance(error[1], FileNotFoundError):
            return
        os.chmod(os.path.dirname(name), 0o700)
        if os.path.isdir(name) and not os.path.islink(name):
            os.chmod(name, 0o700)
            shutil.rmtree(name, ignore_errors=True)
        else:
            unlink(name)
        del function

    if os.path.lexists(path):
        shutil.rmtree(path, onerror=retry)


def hold(fd: int) -> None:
    """Lock an open file that nobody else can want, until it is closed; see `is_held`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass  # a file system without locks, or somebody who is just looking whether it is held


def is_held(path: str) -> bool:
    """Say whether a process holds the lock at `path`, without taking or making it.

    Where nobody can tell it counts as held; on a file system without locks, for a day.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        import time

        return time.time_ns() - os.fstat(fd).st_mtime_ns < DAY_NS
    finally:
        os.close(fd)
    return False


class Lock:
    """An advisory lock on a file, held while the context lasts or the process lives.

    The kernel frees it on death, so there is nothing to clean up. The holder writes who it is
    into the file, for messages.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        """Name the lock file, which is made when needed. Only who holds it may remove it."""
        self.path = path
        self.kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.fd = -1

    def take(self, *, wait: bool = True) -> bool:
        """Take the lock; without `wait`, say whether that was possible at once."""
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                taken = self._lock(fd, wait=wait)
                if not taken or self._is_there(fd):
                    break
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last holder has removed it: another one counts now
        if not taken:
            os.close(fd)
            return False
        self.fd = fd
        if self.kind == fcntl.LOCK_EX:
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
            except OSError:
                pass  # a full disk: who holds it is told less well, and it is held
        return True

    def _lock(self, fd: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(fd, self.kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            # a file system without locks: work may be done twice, never wrongly
        return True

    def _is_there(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def holder(self) -> str:
        """Say who holds the lock, as `process 123 on host`."""
        words = (read(self.path) or b"").decode("utf-8", "replace").split()
        return f"process {words[0]} on {words[1]}" if len(words) > 1 else "another process"

    def free(self) -> None:
        """Give the lock back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Lock:
        """Take the lock, waiting for it."""
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        self.free()

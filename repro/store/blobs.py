"""Bytes by their SHA-256: written once, verified whenever they are read."""

from __future__ import annotations

import errno
import os

from repro import digest
from repro.errors import ReproError, SourceUnusable
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repro.manifest import Entry
    from repro.store.home import Home


COLLECTION = "blobs"
"""Held by who removes blobs; shared, for a moment, by who is about to rely on one."""

UNREADABLE = (*files.DAMAGED, errno.ELOOP, errno.EISDIR)


class BlobMissing(ReproError):
    """A blob that a result names is not there, or its bytes are wrong; never shown to a user."""

    code = "blob-missing"

    def __init__(self, name: str, *, corrupt: bool = False) -> None:
        """Name the blob and say whether it was there."""
        super().__init__(f"blob {name[:12]} is {'corrupt' if corrupt else 'missing'}")
        self.name = name
        self.corrupt = corrupt


class Blobs:
    """The blobs of one store. Any number of processes may write at once: same name, same bytes."""

    def __init__(self, home: Home) -> None:
        """Work below `home`."""
        self.home = home
        self._unsynced: set[str] = set()
        self._new: set[str] = set()
        self._durable: set[str] = set()

    def path(self, name: str) -> str:
        """Give the place of a blob."""
        return self.home.path("cas", name[:2], name[2:])

    def has(self, name: str) -> bool:
        """Say whether a blob is there; its bytes are checked when they are read."""
        return os.path.exists(self.path(name))

    def keeps(self, name: str) -> bool:
        """Say whether the right bytes of a blob are there, and keep them as if they were put now.

        A collection that is under way does not take them any more. Corrupt ones are set aside.
        """
        path = self.path(name)
        if not os.path.exists(path):
            return False
        with self.home.lock(COLLECTION, shared=True):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
            except PermissionError:
                pass  # it belongs to another user of the store
        self._note(name)
        return self.is_sound(name)

    def _note(self, name: str) -> None:
        """Remember to make a name durable, whoever gave it, unless we did so already."""
        if name not in self._durable:
            self._new.add(name)
            self._unsynced.add(os.path.dirname(self.path(name)))

    def is_sound(self, name: str) -> bool:
        """Say whether a blob is there with the right bytes; a corrupt one is set aside."""
        try:
            found = digest_at(self.path(name))
        except FileNotFoundError:
            return False
        if found != name:
            self.set_aside(name)
        return found == name

    def put(self, data: bytes) -> str:
        """Keep `data` and give its name."""
        name = digest.of_bytes(data)
        if not self.keeps(name):
            with _Half(self.home) as half:
                files.write_all(half.fd, data)
                self._publish(half, name)
        return name

    def put_file(self, path: str) -> tuple[str, int]:
        """Keep the bytes of a file; give their name and number.

        Raises SourceUnusable if the file changes while it is read.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            before = os.fstat(fd)
            with _Half(self.home) as half:
                hasher = digest.stream()
                for piece in files.chunks(fd):
                    hasher.update(piece)
                    files.write_all(half.fd, piece)
                after = os.fstat(fd)
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise SourceUnusable(f"`{path}` changed while it was read")
                name = hasher.hexdigest()
                if not self.keeps(name):
                    self._publish(half, name)
            return name, before.st_size
        finally:
            os.close(fd)

    def get(self, name: str) -> bytes:
        """Give the bytes of a blob. Raises BlobMissing; a corrupt blob is set aside."""
        try:
            data = files.read(self.path(name))
        except OSError as error:
            if error.errno not in files.DAMAGED:
                raise
            raise self.set_aside(name) from None
        if data is None:
            raise BlobMissing(name)
        if digest.of_bytes(data) != name:
            raise self.set_aside(name)
        return data

    def copy(self, name: str, target: str, mode: int) -> None:
        """Write a blob to the new file `target`, hashing every byte on the way.

        The file is locked until all is written, which tells it from what a dead process left.
        Raises BlobMissing and leaves no file if the bytes are wrong.
        """
        try:
            source = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(name) from None
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            right = False
            try:
                files.hold(fd)
                right = self._copy(source, fd, name) == name
            finally:
                os.close(fd)
                if not right:
                    files.unlink(target)
            if not right:
                raise self.set_aside(name)
        finally:
            os.close(source)

    def write(self, entries: Iterable[Entry], folder: str) -> None:
        """Write the files of a tree below `folder`, where none of them must be yet.

        Links come last, so that nothing is ever written through one. Raises BlobMissing.
        """
        for entry in sorted(entries, key=lambda entry: entry.kind == "link"):
            target = os.path.join(folder, entry.path)
            os.makedirs(target if entry.kind == "dir" else os.path.dirname(target), exist_ok=True)
            if entry.kind == "link":
                os.symlink(entry.content, target)
            elif entry.kind != "dir":
                self.copy(entry.content, target, 0o755 if entry.kind == "exec" else 0o644)

    def _copy(self, source: int, target: int, name: str) -> str:
        shared = files.clone(source, target)
        hasher = digest.stream()
        for piece in self._pieces(source, name):
            hasher.update(piece)
            if not shared:
                files.write_all(target, piece)
        return hasher.hexdigest()

    def _pieces(self, source: int, name: str) -> Iterator[bytes]:
        """Read an open blob; what the disk cannot give is as corrupt as what is wrong."""
        try:
            yield from files.chunks(source)
        except OSError as error:
            if error.errno not in files.DAMAGED:
                raise
            raise self.set_aside(name) from None

    def set_aside(self, name: str) -> BlobMissing:
        """Move a corrupt blob into quarantine, so that it is never served again."""
        path = self.path(name)
        aside = self.home.path("quarantine", f"{name}.{os.urandom(4).hex()}")
        try:
            os.rename(path, aside)
            if digest_at(aside) == name:  # another process has put it right meanwhile
                os.link(aside, path)
                os.unlink(aside)
        except OSError:
            pass  # gone already, or a read-only store: it will be checked again next time
        return BlobMissing(name, corrupt=True)

    def sync(self) -> None:
        """Make the names of all blobs put since the last call durable."""
        for folder in sorted(self._unsynced):
            files.sync_folder(folder)
        self._unsynced.clear()
        self._durable |= self._new
        self._new.clear()

    def names(self) -> Iterator[tuple[str, int]]:
        """Give every blob with its size."""
        for name in self.home.digests("cas"):
            state = files.state_of(self.path(name))
            if state:
                yield name, state[2]

    def _publish(self, half: _Half, name: str) -> None:
        os.fchmod(half.fd, 0o444)
        os.fsync(half.fd)
        target = self.path(name)
        folder = os.path.dirname(target)
        for attempt in range(2):
            try:
                os.link(half.path, target)
                break
            except FileExistsError:
                break
            except FileNotFoundError:
                if attempt:
                    raise
                os.makedirs(folder, mode=0o700, exist_ok=True)
                self._unsynced.add(os.path.dirname(folder))
            except OSError as error:  # a file system without links
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise
                os.rename(half.path, target)
                break
        self._durable.discard(name)
        self._note(name)


def digest_at(path: str) -> str:
    """Give the digest of what is at `path`; nothing where that cannot be read as a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in UNREADABLE:
            return ""
        raise
    try:
        return digest.of_chunks(files.chunks(fd))
    except OSError as error:
        if error.errno in UNREADABLE:
            return ""
        raise
    finally:
        os.close(fd)


class _Half:
    """A file that is being written in the process's private folder, gone unless published."""

    def __init__(self, home: Home) -> None:
        self.path = os.path.join(home.scratch(), f"blob-{os.urandom(8).hex()}")
        self.fd = -1

    def __enter__(self) -> _Half:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.fd = os.open(self.path, flags, 0o600)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.fd)
        files.unlink(self.path)

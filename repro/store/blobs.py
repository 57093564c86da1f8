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

    def path(self, name: str) -> str:
        """Give the place of a blob."""
        return self.home.path("cas", name[:2], name[2:])

    def has(self, name: str) -> bool:
        """Say whether a blob is there; its bytes are checked when they are read."""
        return os.path.exists(self.path(name))

    def put(self, data: bytes) -> str:
        """Keep `data` and give its name."""
        name = digest.of_bytes(data)
        if not self.has(name):
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
                if not self.has(name):
                    self._publish(half, name)
            return name, before.st_size
        finally:
            os.close(fd)

    def get(self, name: str) -> bytes:
        """Give the bytes of a blob. Raises BlobMissing; a corrupt blob is set aside."""
        data = files.read(self.path(name))
        if data is None:
            raise BlobMissing(name)
        if digest.of_bytes(data) != name:
            raise self.set_aside(name)
        return data

    def copy(self, name: str, target: str, mode: int) -> None:
        """Write a blob to the new file `target`, hashing every byte on the way.

        Raises BlobMissing and leaves no file if the bytes are wrong.
        """
        try:
            source = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(name) from None
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                right = self._copy(source, fd) == name
            finally:
                os.close(fd)
            if not right:
                os.unlink(target)
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

    @staticmethod
    def _copy(source: int, target: int) -> str:
        shared = files.clone(source, target)
        hasher = digest.stream()
        for piece in files.chunks(source):
            hasher.update(piece)
            if not shared:
                files.write_all(target, piece)
        return hasher.hexdigest()

    def set_aside(self, name: str) -> BlobMissing:
        """Move a corrupt blob into quarantine, so that it is never served again."""
        try:
            os.rename(
                self.path(name), self.home.path("quarantine", f"{name}.{os.urandom(4).hex()}")
            )
        except OSError:
            pass  # gone already, or a read-only store: it will be checked again next time
        return BlobMissing(name, corrupt=True)

    def sync(self) -> None:
        """Make the names of all blobs put since the last call durable."""
        for folder in sorted(self._unsynced):
            files.sync_folder(folder)
        self._unsynced.clear()

    def names(self) -> Iterator[tuple[str, int]]:
        """Give every blob with its size."""
        root = self.home.path("cas")
        for head in sorted(os.listdir(root)):
            for entry in os.scandir(os.path.join(root, head)):
                yield head + entry.name, entry.stat(follow_symlinks=False).st_size

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
        self._unsynced.add(folder)


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

"""How a job's inputs, its output and its end travel; both sides use this code."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Carriage(Protocol):
        """Blobs by SHA-256, and for each attempt at the job a stream of bytes.

        Raises OSError for what may work later, Failed for what will not.
        """

        def claim(self) -> int:
            """Begin an attempt; give its number."""

        def is_taken(self, attempt: int) -> bool:
            """Say whether an attempt has begun."""

        def append(self, attempt: int, data: bytes) -> None:
            """Add to the stream; what is small may be held back until `flush`."""

        def flush(self) -> None:
            """See to it that the other side can read what was added."""

        def read(self, attempt: int, position: int) -> bytes:
            """Read from a position on, as much as is handy; nothing where there is no more yet."""

        def after(self, position: int, used: int) -> int:
            """Give the position behind so many bytes of what was read."""

        def get(self, digest: str, target: str) -> None:
            """Write a blob to a new file. Raises Failed where it is not there, or damaged."""

        def put(self, digest: str, source: str) -> None:
            """Store a file as a blob, whole or not at all."""

        def recalled(self) -> bool:
            """Say whether the other side has asked us to end, where it can by this way."""


CHUNK = 1 << 16
READ = 1 << 22
PATIENCE = 600.0  # seconds with a carriage that does not carry
PAUSE, LONGEST_PAUSE = 0.01, 10.0
HOPELESS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT),
)


class Failed(Exception):
    """What cannot be done, and trying again would not help; the text says why."""


class Folder:
    """Carriage through a folder that both sides see. Files are opened anew for each look.

    That is what makes a network file system show what the other side wrote.
    """

    def __init__(self, path: str) -> None:
        """Name the folder of the job."""
        self.path = path
        self._size = self._flushed = 0
        self._fd = -1

    def claim(self) -> int:
        """Begin an attempt; give its number."""
        for attempt in range(1 << 16):
            try:
                os.mkdir(self._place(f"{attempt}.taken"))
            except FileExistsError:
                continue
            return attempt
        raise Failed("it was started too often")

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return os.path.isdir(self._place(f"{attempt}.taken"))

    def append(self, attempt: int, data: bytes) -> None:
        """Add to the stream, over what an append that failed has left."""
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self._place(f"{attempt}.frames"), flags, 0o600)
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], self._size + done)
        self._size += len(data)

    def flush(self) -> None:
        """See to it that the other side can read what was added."""
        if self._flushed < self._size:
            os.fsync(self._fd)
            self._flushed = self._size

    def read(self, attempt: int, position: int) -> bytes:
        """Read the stream from a position on, as far as it goes or as much as is handy."""
        try:
            with open(self._place(f"{attempt}.frames"), "rb", buffering=0) as file:
                file.seek(position)
                return file.read(READ) or b""
        except FileNotFoundError:
            return b""

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used."""
        return position + used

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        try:
            with open(self._place("blobs", digest), "rb") as source:
                take(digest, source.read, target)
        except FileNotFoundError:
            raise Failed(f"`{digest}` is not in the shared folder") from None

    def put(self, digest: str, source: str) -> None:
        """Store a file as a blob, whole or not at all."""
        place = self._place("blobs", digest)
        if not os.path.exists(place):
            half = f"{place}.{os.urandom(6).hex()}~"
            shutil.copyfile(source, half)
            os.replace(half, place)

    @staticmethod
    def recalled() -> bool:
        """Say no: here the engine sends a signal."""
        return False

    def _place(self, *names: str) -> str:
        return os.path.join(self.path, *names)


def connect(carriage: Mapping[str, Any]) -> Carriage:
    """Give the carriage that a specification names."""
    if carriage["kind"] == "folder":
        return Folder(carriage["path"])
    if carriage["kind"] == "parts":
        from repro.backends.agent.parts import Parts

        return Parts(carriage["path"], carriage["blobs"])
    from repro.backends.agent.web import Http  # not at the top: it takes long to load

    return Http(carriage["url"], carriage["token"], carriage["headers"])


def patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call what may fail for a while. Raises Failed when that was too long."""
    end, pause = time.monotonic() + PATIENCE, PAUSE
    while True:
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno in HOPELESS or time.monotonic() + pause > end:
                raise Failed(words(error)) from error
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def take(digest: str, read: Callable[[int], bytes], target: str) -> None:
    """Write what `read` gives to a new file. Raises Failed for other bytes than promised."""
    taken = hasher()
    with open(target, "wb") as file:
        while True:
            piece = read(CHUNK)
            if not piece:
                break
            taken.update(piece)
            file.write(piece)
    if taken.hexdigest() != digest:
        os.unlink(target)
        raise Failed(f"the bytes of `{digest}` are not those that its name promises")


def hasher() -> Any:
    """Give what takes bytes and gives their SHA-256."""
    return hashlib.sha256()


def words(error: Exception) -> str:
    """Say what an error says, in a line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__

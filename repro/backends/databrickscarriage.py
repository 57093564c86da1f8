"""How jobs travel to a cluster of Databricks and back: the submitting side of `agent.parts`."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from repro.backends.agent.carriage import Failed
from repro.backends.agent.parts import STOP, opened, part, taken
from repro.backends.agent.trees import digest_of
from repro.backends.databricksrest import Down, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future

    from repro.backends.databricksdisk import Disk

BLOBS = "blobs"
DAY_MS = 86_400_000
RENEWED, FORGOTTEN = 15 * DAY_MS, 30 * DAY_MS
"""A blob that is used is written anew before it is old enough to be removed under a job."""
KNOWN_S = 600.0
TOGETHER = 8
REMOVED = 100  # old blobs that one look removes


class Remote:
    """The carriage of one job, read through the REST API. Raises OSError where that is away."""

    def __init__(self, disk: Disk, folder: str) -> None:
        """Name the folder of the job, below the disk's root."""
        self._disk, self.folder = disk, folder
        self.answered = 0.0

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return self._read(taken(attempt)) is not None

    def read(self, attempt: int, position: int) -> bytes:
        """Read the part of the stream at a position, nothing if it is not there yet."""
        return opened(self._read(part(attempt, position)) or b"")

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used, which is a whole part or nothing."""
        return position + bool(used)

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        if not self._found(digest, target):
            _unlink(target)
            raise Failed(f"`{digest}` is not there")
        if digest_of(target) != digest:
            _unlink(target)
            raise Failed(f"the bytes of `{digest}` are not those that its name promises")

    def _found(self, digest: str, target: str) -> bool:
        try:
            return any(
                self._disk.download(f"{folder}/{digest}", target)
                for folder in (f"{self.folder}/{BLOBS}", BLOBS)
            )
        except (Down, Refused) as error:  # what was made is still there
            raise OSError(error.message) from None

    def recalled(self) -> bool:
        """Say whether somebody has asked the job to end."""
        return self._read(STOP) is not None

    def _read(self, name: str) -> bytes | None:
        try:
            found = self._disk.read(f"{self.folder}/{name}")
        except Down as error:
            raise OSError(error.message) from None
        self.answered = time.monotonic()
        return found

    # -- what only the node does

    def claim(self) -> int:
        """Refuse."""
        raise NotImplementedError

    def append(self, attempt: int, data: bytes) -> None:
        """Refuse."""
        raise NotImplementedError

    def flush(self) -> None:
        """Refuse."""
        raise NotImplementedError

    def put(self, digest: str, source: str) -> None:
        """Refuse."""
        raise NotImplementedError

    def recall(self) -> None:
        """Ask the job to end."""
        self._disk.write(f"{self.folder}/{STOP}", b"stop")

    def remove(self) -> None:
        """Remove the folder of the job."""
        self._disk.remove(self.folder)


class Stock:
    """The blobs of all jobs, each there once."""

    def __init__(self, disk: Disk) -> None:
        """Keep them on that disk."""
        self._disk = disk
        self._there: dict[str, int] = {}
        self._looked = float("-inf")
        self._lock = threading.Lock()

    def load(self) -> Load:
        """Begin to bring what a job needs."""
        with self._lock:
            if time.monotonic() - self._looked > KNOWN_S:
                self._look()
        return Load(self)

    def _look(self) -> None:
        now = time.time() * 1000
        found = self._disk.files(BLOBS)
        self._there = {name: size for name, (size, at) in found.items() if at > now - RENEWED}
        self._looked = time.monotonic()
        old = [name for name, (_, at) in found.items() if at < now - FORGOTTEN]
        for name in old[:REMOVED]:
            self._disk.discard(f"{BLOBS}/{name}")

    def has(self, digest: str, size: int) -> bool:
        """Say whether a blob is there."""
        return self._there.get(digest) == size

    def bring(self, digest: str, source: str) -> None:
        """Write a blob there."""
        self._disk.upload(f"{BLOBS}/{digest}", source)
        self._there[digest] = os.path.getsize(source)

    def distrust(self, digest: str) -> None:
        """Remove a blob: it is damaged."""
        self._there.pop(digest, None)
        self._disk.discard(f"{BLOBS}/{digest}")


class Load:
    """Blobs on their way, several at a time."""

    def __init__(self, stock: Stock) -> None:
        """Begin with none."""
        self._stock = stock
        self._pool = ThreadPoolExecutor(TOGETHER, thread_name_prefix="repro-upload")
        self._under_way: dict[str, Future[None]] = {}

    def put(self, digest: str, source: str) -> None:
        """Bring a file that stays until `finish`, unless it is there."""
        if digest not in self._under_way and not self._stock.has(digest, os.path.getsize(source)):
            self._under_way[digest] = self._pool.submit(self._stock.bring, digest, source)

    def put_now(self, digest: str, source: str) -> None:
        """Bring a file that goes at once."""
        self.put(digest, source)
        if digest in self._under_way:
            self._under_way[digest].result()

    def finish(self) -> None:
        """Wait until all is there. Raises what kept one from it."""
        for future in self._under_way.values():
            future.result()

    def close(self) -> None:
        """Leave what has not begun."""
        self._pool.shutdown(cancel_futures=True)


def _unlink(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)

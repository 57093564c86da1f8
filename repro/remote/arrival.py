"""One blob on its way from a remote into the store: hashed as it comes, kept only if right."""

from __future__ import annotations

import os

from repro import digest
from repro.remote.port import Unfit
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.blobs import Blobs

SMALL = 1 << 20


class Arrival:
    """A sink for the bytes of the blob `name`; small ones stay in memory until they are whole.

    `size` is how many there must be, if that is known; `most` how many there may be at most.
    """

    def __init__(self, blobs: Blobs, name: str, *, size: int | None = None, most: int = 0) -> None:
        """Begin; nothing is written before there is much to write."""
        self.blobs = blobs
        self.name = name
        self.size = size
        self.most = most if size is None else size
        self.arrived = 0
        self._pieces: list[bytes] = []
        self._hasher = digest.stream()
        self._half = ""
        self._fd = -1

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises Unfit as soon as there are too many."""
        self.arrived += len(data)
        if self.arrived > self.most:
            raise Unfit(f"blob {self.name[:12]} is larger than it may be")
        self._hasher.update(data)
        if self._fd < 0 and self.arrived <= SMALL:
            self._pieces.append(data)
            return
        if self._fd < 0:
            self._open()
        files.write_all(self._fd, data)

    def _open(self) -> None:
        self._half = os.path.join(self.blobs.home.scratch(), f"arrival-{os.urandom(8).hex()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self._half, flags, 0o600)
        files.write_all(self._fd, b"".join(self._pieces))
        self._pieces.clear()

    def keep(self, *, there: bool = True) -> None:
        """Put the blob into the store. Raises Unfit unless it is there and what was asked for."""
        if not there:
            raise Unfit(f"blob {self.name[:12]} is not there")
        if self.size not in (None, self.arrived) or self._hasher.hexdigest() != self.name:
            raise Unfit(f"blob {self.name[:12]} has other bytes than its name says")
        if self._fd < 0:
            self.blobs.put(b"".join(self._pieces))
        else:
            self._publish()

    def _publish(self) -> None:
        os.fchmod(self._fd, 0o444)
        os.fsync(self._fd)
        target = self.blobs.path(self.name)
        folder = os.path.dirname(target)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.replace(self._half, target)  # over the same bytes, if another process was faster
        files.sync_folder(folder)
        files.sync_folder(os.path.dirname(folder))

    def close(self) -> None:
        """Leave nothing half-written behind."""
        if self._fd >= 0:
            os.close(self._fd)
            files.unlink(self._half)
            self._fd = -1

"""The results that a remote has yet to get: one empty file each, gone when it has arrived."""

from __future__ import annotations

import os

from repro import digest
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.home import Home


class Outbox:
    """What waits for one remote. The results themselves are in the store."""

    def __init__(self, home: Home, remote: str) -> None:
        """Work below `home`, for the remote of that name."""
        self.name = digest.of_value("repro/remote", remote)[:16]
        self.folder = home.path("outgoing", self.name)
        self.lock = home.lock(f"outgoing-{self.name}")

    def add(self, key: str) -> None:
        """Note durably that a result is to be sent."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        files.replace(os.path.join(self.folder, key), b"")

    def drop(self, key: str) -> None:
        """Note that a result has arrived, or is not there any more."""
        files.unlink(os.path.join(self.folder, key))

    def waiting(self) -> list[str]:
        """List what waits."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if digest.is_digest(name))

"""Results that are never collected, since somebody said so: an empty file for each."""

from __future__ import annotations

import os

from repro import digest
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.home import Home


class Pins:
    """The pins of one store."""

    def __init__(self, home: Home) -> None:
        """Work below `home`."""
        self.folder = home.path("pins")

    def add(self, key: str) -> None:
        """Keep the result of `key`, whenever it was used last. Raises NoSpace or Unreachable."""
        try:
            files.make_folder(self.folder)
            files.replace(os.path.join(self.folder, key), b"")
        except OSError as error:
            raise files.explained(error, "pinning a result") from None

    def drop(self, key: str) -> bool:
        """Let a result be collected again; say whether it was pinned."""
        try:
            os.unlink(os.path.join(self.folder, key))
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> dict[str, int]:
        """Give the keys that are pinned, with the time since which they are, in nanoseconds."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return {}
        states = {n: files.state_of(os.path.join(self.folder, n)) for n in names}
        return {n: state[3] for n, state in states.items() if state and digest.is_digest(n)}

"""What a remote was found to hold wrongly, so that the next upload puts it right."""

from __future__ import annotations

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.memos import Memos

KIND = "damaged"


class Damage:
    """The damaged entries of one remote. Forgetting one costs a miss, never a wrong byte."""

    def __init__(self, memos: Memos, remote: str) -> None:
        """Work for the remote of that name."""
        self.memos = memos
        self.remote = remote

    def note(self, kind: str, name: str) -> None:
        """Note that an entry is wrong or incomplete there."""
        self.memos.put(KIND, self._subject(kind, name), value=True)

    def has(self, kind: str, name: str) -> bool:
        """Say whether an entry was found wrong."""
        return self.memos.get(KIND, self._subject(kind, name)) is True

    def mended(self, kind: str, name: str) -> None:
        """Note that an entry is right again."""
        files.unlink(self.memos.path(KIND, self._subject(kind, name)))

    def _subject(self, kind: str, name: str) -> str:
        return f"{self.remote} {kind}/{name}"

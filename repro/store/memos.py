"""Things that are known already and can always be found out again: small canonical files."""

from __future__ import annotations

import os

from repro import canonical, digest
from repro.store.sealed import bodies_of, line_of, seal, unseal
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.store.home import Home


APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Memos:
    """Memos of one store, by kind and subject. A memo that cannot be read or written is none."""

    def __init__(self, home: Home) -> None:
        """Work below `home`."""
        self.home = home

    def path(self, kind: str, subject: str) -> str:
        """Give the place of a memo; subjects of any text are named by their digest."""
        name = subject if digest.is_digest(subject) else digest.of_value("repro/memo", subject)
        return self.home.path("memo", f"{kind}-{name}")

    def get(self, kind: str, subject: str) -> Any:
        """Give what is remembered, or None."""
        try:
            body = unseal(files.read(self.path(kind, subject)))
            return None if body is None else canonical.decode(body)
        except (OSError, canonical.NotCanonical):
            return None

    def put(self, kind: str, subject: str, value: Any) -> bool:
        """Remember plain data, and say whether that was possible.

        Losing it later costs time and nothing else.
        """
        try:
            data = seal(canonical.encode(value))
            files.replace(self.path(kind, subject), data, durable=False)
        except (OSError, canonical.NotCanonical):
            return False
        return True

    def add(self, kind: str, subject: str, value: Any) -> int:
        """Remember more beside a memo, for little whatever its size; give the size of all that.

        Who adds and who calls `drop_added` must agree on a lock.
        """
        try:
            fd = os.open(self._added(kind, subject), APPEND, 0o600)
            try:
                files.write_all(fd, line_of(canonical.encode(value)))
                return os.fstat(fd).st_size
            finally:
                os.close(fd)
        except (OSError, canonical.NotCanonical):
            return 0

    def added(self, kind: str, subject: str) -> list[Any]:
        """Give what was added, in order; what was not written to its end is left out."""
        try:
            data = files.read(self._added(kind, subject)) or b""
        except OSError:
            return []
        return [canonical.decode(body) for body in bodies_of(data)]

    def drop_added(self, kind: str, subject: str) -> None:
        """Forget what was added."""
        try:
            files.unlink(self._added(kind, subject))
        except OSError:
            pass  # a read-only store: it is in the memo as well, or nowhere

    def _added(self, kind: str, subject: str) -> str:
        return f"{self.path(kind, subject)}.more"

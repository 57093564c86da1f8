"""Things that are known already and can always be found out again: small canonical files."""

from __future__ import annotations

from repro import canonical, digest
from repro.store.sealed import seal, unseal
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.store.home import Home


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

    def put(self, kind: str, subject: str, value: Any) -> None:
        """Remember plain data; losing it later costs time and nothing else."""
        try:
            data = seal(canonical.encode(value))
            files.replace(self.path(kind, subject), data, durable=False)
        except (OSError, canonical.NotCanonical):
            pass

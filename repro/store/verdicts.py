"""What verifications found, by step key: kept beside the history, since it is no cache."""

from __future__ import annotations

import os

from repro import canonical, digest
from repro.store.sealed import seal, unseal
from repro.system import files
from repro.value import dump, load
from repro.verification.verdict import CLASSES, Verdict

FORMAT = 1
KEPT = 10


class Verdicts:
    """The verdicts of a user on this machine: the last ones for each key."""

    def __init__(self, root: str) -> None:
        """Name the folder of the history."""
        self.root = root

    def path(self, key: str) -> str:
        """Give the place of the verdicts about a key."""
        return os.path.join(self.root, "verdicts", key[:2], key[2:])

    def get(self, key: str) -> tuple[Verdict, ...]:
        """Give the verdicts about a key, the latest first; those that can be read."""
        if not digest.is_digest(key):
            return ()
        try:
            plain = canonical.decode(unseal(files.read(self.path(key))) or b"{}")
            found = load(plain["verdicts"], CLASSES) if plain["format"] == FORMAT else ()
        except (OSError, canonical.NotCanonical, KeyError, TypeError):
            return ()
        return tuple(one for one in found if isinstance(one, Verdict))

    def put(self, verdict: Verdict) -> None:
        """Keep a verdict as the latest about its key. Raises NoSpace or Unreachable."""
        path = self.path(verdict.key)
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with files.Lock(os.path.join(self.root, "verdicts", "lock")):
                found = (verdict, *self.get(verdict.key))[:KEPT]
                document = {"format": FORMAT, "verdicts": dump(found)}
                files.replace(path, seal(canonical.encode(document)))
        except OSError as error:
            raise files.explained(error, "keeping a verdict") from None

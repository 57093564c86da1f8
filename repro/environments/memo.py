"""What was learned about files, kept while they stay the same, in one small file."""

from __future__ import annotations

import os
import time

from repro import canonical
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
SETTLING_NS = 2_000_000_000
"""Two writes closer than this may get the same time on a coarse file system."""


def stamp(path: str) -> str:
    """Give a text that differs once the file behind `path` is another or was written to.

    Raises OSError when there is none.
    """
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def settled(mark: str) -> bool:
    """Say whether a stamp is old enough for the next write to the file to change it."""
    return time.time_ns() - int(mark.split()[2]) > SETTLING_NS


class Memo:
    """Facts by key, each believed only under the stamp that it was learned with.

    It only saves time: a file that cannot be read is an empty memo, and one that cannot be
    written is left alone. Of two processes that save at once, one wins.
    """

    def __init__(self, path: str) -> None:
        """Read the memo at `path`; nothing is written before `save`."""
        self._path = path
        self._known = _read(path)
        self._used: set[str] = set()
        self._changed = False

    def get(self, key: str, mark: str) -> Any:
        """Give the fact that was put under `key` and the stamp `mark`, or None."""
        known = self._known.get(key)
        if known is None or known[0] != mark:
            return None
        self._used.add(key)
        return known[1]

    def put(self, key: str, mark: str, fact: Any) -> None:
        """Keep `fact`, which is not None and has a canonical form."""
        self._known[key] = [mark, fact]
        self._used.add(key)
        self._changed = True

    def save(self, *, only_used: bool = False) -> None:
        """Write what changed; with `only_used`, forget what nobody asked for since reading."""
        keep = self._known
        if only_used:
            keep = {key: keep[key] for key in keep if key in self._used}
        if self._changed or len(keep) < len(self._known):
            _write(self._path, canonical.encode({"format": FORMAT, "known": keep}))
            self._changed = False


def _read(path: str) -> dict[str, Any]:
    try:
        content = canonical.decode(files.read(path) or b"{}")
        return dict(content["known"]) if content["format"] == FORMAT else {}
    except (OSError, canonical.NotCanonical, KeyError, TypeError, ValueError):
        return {}


def _write(path: str, data: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files.replace(path, data, durable=False)
    except OSError:  # contextlib would cost a cache hit its import
        return

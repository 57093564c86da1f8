"""The folders of an environment; where there are many, a second process makes them ahead.

A file system that has just removed files may take longer for a folder than for ten links.
"""

from __future__ import annotations

import contextlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repro.environments.tools import Session

MANY = 200
"""Below, they are there before another process has started."""

PROGRAM = """
import os, sys
os.chdir(sys.argv[1])
with open(sys.argv[2], "rb") as listed:
    folders = listed.read().split(b"\\0")
for folder in folders:
    if not folder:
        print(flush=True)
        continue
    try:
        os.mkdir(folder)
    except FileExistsError:
        pass
    except OSError:
        break
"""


class Folders:
    """The folders of the environment at `prefix`, each made when it is needed."""

    def __init__(self, prefix: str) -> None:
        """Make none yet."""
        self.prefix = prefix
        self._made: set[str] = {""}
        self._ahead: Iterator[list[str]] = iter(())

    def hold(self, places: Iterable[str]) -> None:
        """Make the folders of files."""
        for folder in sorted(self._missing(places)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.prefix}/{folder}")
            self._made.add(folder)

    @contextlib.contextmanager
    def ahead(self, groups: Iterable[Iterable[str]], session: Session) -> Iterator[None]:
        """Make the folders of groups of files while the caller is at work; see `wait`."""
        missing: list[list[str]] = []
        told: set[str] = set()
        for places in groups:
            found = self._missing(places) - told
            told |= found
            missing.append(sorted(found))
        if len(told) < MANY or os.cpu_count() == 1 or not sys.executable:
            yield
            return
        words = [word for folders in missing for word in (*folders, "")]
        listed = os.path.join(session.folder, "folders")
        with open(listed, "wb") as file:
            file.write(os.fsencode("\0".join(words)))
        program = ("-I", "-S", "-c", PROGRAM, self.prefix, listed)
        with session.running(sys.executable, *program) as tool:
            self._ahead = (folders if tool.line() else [] for folders in missing)
            yield
            self._ahead = iter(())

    def wait(self) -> None:
        """Let the folders of the next group be there, as far as they could be made ahead."""
        self._made.update(next(self._ahead, ()))

    def _missing(self, places: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for folder in {place.rpartition("/")[0] for place in places}:
            above = folder
            while above not in found and above not in self._made:
                found.add(above)
                above = above.rpartition("/")[0]
        return found

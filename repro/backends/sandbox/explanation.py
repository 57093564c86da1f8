"""Finds, in what a failed step said, the files that it looked for and was not shown."""

from __future__ import annotations

import os
import re

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.backends.sandbox.plan import View
    from repro.ports import Confinement

TAIL = 16 << 10  # bytes; an error is said last
MOST = 3
LONGEST = 1024
# What C, and all that follows it, says of ENOENT, EACCES and EROFS; then what other runtimes say.
SYMPTOM = re.compile(
    r"no such file|permission denied|read-only file system|cannot (?:open|access|find|stat)"
    r"|not found|does not exist|filenotfound|could not (?:open|find)|failed to open|unable to open",
    re.IGNORECASE,
)
QUOTED = re.compile(r"['\"`\u2018]([^'\"`\u2018\u2019\n]{1,1024})['\"`\u2019]")
BARE = re.compile(r"(?<![\w./~-])(?:~|\.{0,2})/?[\w.@+~%-]+(?:/[\w.@+~%-]+)*")


class Undeclared(Value):
    """A file that is on this machine and that the step did not see.

    `declare` is the line that shows it to the step, `under` the key of the MLproject file that it
    belongs to.
    """

    path: str
    under: str
    declare: str

    @property
    def hint(self) -> str:
        """Say what to do."""
        return f"to show it to the step, add `{self.declare}` to `{self.under}:`"


def undeclared(
    said: bytes, confinement: Confinement, seen: View, folder: str, project: str = ""
) -> tuple[Undeclared, ...]:
    """Give what a failed step missed, going by the end of what it `said`; at most three files.

    `folder` is where it ran, `project` the local folder that its inputs were taken from, if any.
    Files that it could have seen, and those that are not there, are not its problem.
    """
    if confinement.level == "none":
        return ()
    found: dict[str, Undeclared] = {}
    for path in _candidates(said[-TAIL:].decode("utf-8", "replace")):
        missed = _missed(path, seen, folder, project)
        if missed is not None:
            found.setdefault(missed.path, missed)
        if len(found) == MOST:
            break
    return tuple(found.values())


def _candidates(text: str) -> Iterator[str]:
    """Give what may be a path in each line with a symptom, the last line first."""
    for line in reversed(text.splitlines()):
        if SYMPTOM.search(line, len(line) - LONGEST):
            yield from QUOTED.findall(line, len(line) - LONGEST)
            yield from (word.rstrip(".:,;)") for word in BARE.findall(line, len(line) - LONGEST))


def _missed(path: str, seen: View, folder: str, project: str) -> Undeclared | None:
    if "\0" in path:
        return None
    place = os.path.normpath(os.path.join(folder, path))
    inside = os.path.relpath(place, folder)
    if not inside.startswith(".."):
        return _missed_input(inside, place, project)
    real = os.path.realpath(place)
    if not os.path.isabs(path) or seen.shows(real) or not os.path.lexists(real):
        return None
    if project and _lies_in(place, project):
        return _missed_input(os.path.relpath(place, project), "", project)
    return Undeclared(path=place, under="mounts", declare=f"- {place}")


def _missed_input(inside: str, place: str, project: str) -> Undeclared | None:
    """Say that a file of the project is no input, if it is none; `place` is where it would be."""
    if not project or inside == "." or (place and os.path.lexists(place)):
        return None
    if not os.path.lexists(os.path.join(project, inside)):
        return None
    return Undeclared(path=inside, under="inputs", declare=f"- {inside}")


def _lies_in(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")

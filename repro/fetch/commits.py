"""What Git knows of the way from one state of a project to another."""

from __future__ import annotations

from repro.fetch import listing
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = 3


class Way(Value):
    """The way from a commit to the work tree: commits between, and lines by file.

    `count` is the number of commits from `before` to `after`. `lines` are (added, removed) of text
    files, also of what is not committed yet.
    """

    before: str
    after: str
    count: int
    lines: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        """Say which commits lie between, empty where there are none."""
        if self.before == self.after:
            return ""
        plural = "" if self.count == 1 else "s"
        return f"{self.before[:12]}..{self.after[:12]} ({self.count} commit{plural})"


def way(root: str, before: str, after: str) -> Way | None:
    """Give the way from the commit `before` to the work tree at `root`, whose commit is `after`.

    None where Git does not know it, as after a history was rewritten.
    """
    if not before or not after:
        return None
    counted = listing.run(root, "rev-list", "--count", f"{before}..{after}")
    options = ("--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "--no-renames", "-z")
    told = listing.unfiltered(root, "diff", "--numstat", "--relative", *options, before, "--", ".")
    if counted is None or told is None or not counted.strip().isdigit():
        return None
    return Way(before=before, after=after, count=int(counted), lines=_numbers(told))


def _numbers(told: bytes) -> dict[str, tuple[int, int]]:
    found = {}
    for row in told.split(b"\0"):
        columns = row.split(b"\t", COLUMNS - 1)
        if len(columns) == COLUMNS and columns[0].isdigit() and columns[1].isdigit():
            path = columns[2].decode("utf-8", "surrogateescape")
            found[path] = (int(columns[0]), int(columns[1]))
    return found

"""Tables for people: aligned on a terminal, tabs between whole values elsewhere."""

from __future__ import annotations

import sys

from repro.cli.render import Terminal, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def show(header: Sequence[str], rows: Iterable[Sequence[str]], colour: str = "auto") -> None:
    """Print a table to stdout."""
    terminal = Terminal(colour, sys.stdout)
    cells = [[clean(cell) for cell in row] for row in rows]
    if not terminal.is_terminal:
        for row in [list(header), *cells]:
            terminal.line("\t".join(row))
        return
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    for index, row in enumerate([list(header), *cells]):
        text = "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        terminal.line(terminal.paint(text, "bold") if index == 0 else text)

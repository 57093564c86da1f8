"""Parts of a report that several commands write, each its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def put(path: Path, name: str, text: str) -> None:
    """Write one part of a report; the others stay."""
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    part = f"{begin}{text.strip()}\n{end}"
    before, found, rest = known.partition(begin)
    after = rest.partition(end)[2] if found else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    glue = "" if found or not before else "\n"
    path.write_text(before + glue + part + after, encoding="utf-8")

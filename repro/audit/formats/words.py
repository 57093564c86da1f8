"""Texts of others inside of ours."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.audit.findings import Finding, Report


def visible(text: str) -> str:
    """Write control characters visibly, on one line: no text of a project moves a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plural(count: int, word: str) -> str:
    """Write a number with its word."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def counts(report: Report) -> str:
    """Write how many findings there are: `2 errors, 1 warning, 0 notes`."""
    return ", ".join(
        plural(report.count(level), word)
        for level, word in (("error", "error"), ("warning", "warning"), ("info", "note"))
    )


def place(finding: Finding) -> str:
    """Write where a finding is, empty for nowhere."""
    return visible(str(finding.where)) if finding.where else ""


def ranges(codes: Iterable[str]) -> str:
    """Write codes in a row as ranges: `I01-I04 T02`."""
    runs: list[list[str]] = []
    for code in codes:
        last = runs[-1][-1] if runs else ""
        if last and last[0] == code[0] and int(code[1:]) == int(last[1:]) + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

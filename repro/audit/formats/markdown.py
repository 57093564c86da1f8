"""The report as Markdown, for a comment or the summary of a job."""

from __future__ import annotations

from repro.audit.formats.words import counts, place, plural, ranges, visible
from repro.audit.rules.table import help_uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.findings import Report

SIGNS = {"error": "🔴 error", "warning": "🟡 warning", "info": "🔵 note"}


def write(report: Report) -> str:
    """Give the report as one text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    verdict = "failed" if report.failed else "passed"
    yield f"## Audit of {_cell(report.project)}: {verdict}"
    yield ""
    packages = plural(report.packages, "locked package")
    yield f"{counts(report)} · {packages} · last verified {report.verified or 'never'}"
    if report.findings:
        yield from ("", "| level | rule | where | what | fix |", "|---|---|---|---|---|")
        for one in report.findings:
            rule = f"[{one.code}]({help_uri(one.code)})"
            cells = (SIGNS[one.level], rule, _code(place(one)), _cell(one.message), _cell(one.fix))
            yield f"| {' | '.join(cells)} |"
    if report.accepted:
        yield from ("", "| accepted | until | because |", "|---|---|---|")
        for accepted in report.accepted:
            said = f"{accepted.finding.code}: {accepted.finding.message}"
            yield f"| {_cell(said)} | {accepted.expires} | {_cell(accepted.reason)} |"
    if report.checklist:
        yield from ("", f"| {report.profile} | question | answer | because |", "|---|---|---|---|")
        for row in report.checklist:
            answered = (row.group, row.question, f"**{row.answer}**", _cell(row.because))
            yield f"| {' | '.join(answered)} |"
    if report.skipped:
        yield ""
        for skipped in report.skipped:
            yield f"- not looked at: {ranges(skipped.codes)}; needs {_cell(skipped.needs)}"


def _cell(text: str) -> str:
    """Write a text so that it stays in its cell, and stays text."""
    shown = visible(text).replace("\\", "\\\\").replace("|", "\\|")
    return shown.replace("<", "&lt;").replace("![", "!\\[").replace("](", "]\\(")


def _code(text: str) -> str:
    return f"`{text.replace('`', '').replace('|', '')}`" if text else ""

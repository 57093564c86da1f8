"""The report for people, line by line."""

from __future__ import annotations

from repro.audit.formats.words import counts, place, plural, ranges, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro.audit.findings import Finding, Report

    Paint = Callable[[str, str], str]

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
ANSWERS = {"yes": "green", "partly": "yellow", "no": "red", "unknown": "dim"}


def plain(text: str, _colour: str) -> str:
    """Give a text as it is: for where there are no colours."""
    return text


def lines(report: Report, paint: Paint = plain, *, brief: bool = False) -> Iterator[str]:
    """Give the lines of the report; `paint` colours a text, `brief` leaves the notes out."""
    for finding in report.findings:
        if not (brief and finding.level == "info"):
            yield from _finding(finding, paint)
    for one in report.accepted:
        said = f"{one.finding.code} {visible(one.finding.subject)}".rstrip()
        yield paint(f"accepted {said} until {one.expires}: {visible(one.reason)}", "dim")
    if not brief:
        for skipped in report.skipped:
            yield paint(f"not looked at: {ranges(skipped.codes)}; needs {skipped.needs}", "dim")
    yield from _checklist(report, paint)
    yield _summary(report)


def _finding(finding: Finding, paint: Paint) -> Iterator[str]:
    head = paint(f"{finding.level}[{finding.code}]", COLOURS[finding.level])
    where = place(finding)
    yield f"{head} {where}{': ' if where else ''}{visible(finding.message)}"
    if finding.fix:
        yield f"  {paint('fix', 'cyan')}: {visible(finding.fix)}"


def _checklist(report: Report, paint: Paint) -> Iterator[str]:
    group = ""
    for one in report.checklist:
        if one.group != group:
            group = one.group
            yield paint(f"{report.profile}: {group}", "bold")
        answer = paint(one.answer.ljust(7), ANSWERS[one.answer])
        because = f" ({visible(one.because)})" if one.because else ""
        yield f"  {answer} {one.question}{because}"


def _summary(report: Report) -> str:
    accepted = f", {len(report.accepted)} accepted" if report.accepted else ""
    verified = f"last verified {report.verified or 'never'}"
    return f"{counts(report)}{accepted} · {plural(report.packages, 'locked package')} · {verified}"

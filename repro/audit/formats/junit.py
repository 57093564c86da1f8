"""The report as JUnit XML, for servers that show tests: one case for each rule."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from repro.audit.findings import fails
from repro.audit.formats.words import place, visible
from repro.audit.rules.table import BY_CODE, RULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.findings import Finding, Report
    from repro.audit.rules.rule import Rule


def write(report: Report) -> str:
    """Give the report as one text. A rule fails where a finding reaches the threshold."""
    failed = {f.code for f in report.findings if fails(f.level, report.fail_on)}
    skipped = {code: one.needs for one in report.skipped for code in one.codes}
    rules = [r for r in RULES if report.profile or not r.code.startswith("B")]
    out = ['<?xml version="1.0" encoding="UTF-8"?>']
    out.append(
        f"<testsuites><testsuite name={_quoted(f'repro audit {report.project}')} "
        f'tests="{len(rules)}" failures="{len(failed)}" errors="0" skipped="{len(skipped)}">'
    )
    for rule in rules:
        out += _case(rule, report, skipped.get(rule.code, ""))
    out.append("</testsuite></testsuites>")
    return "\n".join(out) + "\n"


def _case(rule: Rule, report: Report, missing: str) -> Iterator[str]:
    found = [finding for finding in report.findings if finding.code == rule.code]
    excused = [one for one in report.accepted if one.finding.code == rule.code]
    name = f"{rule.code} {BY_CODE[rule.code].title}"
    yield f'<testcase classname="repro.audit.{rule.code[0]}" name={_quoted(name)}>'
    if missing:
        yield f"<skipped message={_quoted(f'needs {missing}')}/>"
    failing = [finding for finding in found if fails(finding.level, report.fail_on)]
    if failing:
        text = "\n".join(_line(finding) for finding in failing)
        yield f"<failure message={_quoted(failing[0].message)} type={_quoted(failing[0].level)}>"
        yield f"{escape(text)}</failure>"
    rest = [_line(finding) for finding in found if finding not in failing]
    rest += [f"accepted ({visible(one.reason)}): {_line(one.finding)}" for one in excused]
    if rest:
        yield f"<system-out>{escape(chr(10).join(rest))}</system-out>"
    yield "</testcase>"


def _line(finding: Finding) -> str:
    where = place(finding)
    fix = f" (fix: {visible(finding.fix)})" if finding.fix else ""
    return f"{where}{': ' if where else ''}{visible(finding.message)}{fix}"


def _quoted(text: str) -> str:
    return quoteattr(visible(text))

"""The report for programs, as `repro.audit/1`."""

from __future__ import annotations

from repro.audit.rules.table import BY_CODE, help_uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.audit.findings import Accepted, Answer, Finding, Report


def document(report: Report) -> dict[str, Any]:
    """Give the report as data."""
    return {
        "schema": "repro.audit/1",
        "project": report.project,
        "failed": report.failed,
        "fail_on": report.fail_on,
        "counts": {level: report.count(level) for level in ("error", "warning", "info")},
        "packages": report.packages,
        "verified": report.verified or None,
        "findings": [_finding(finding) for finding in report.findings],
        "accepted": [_accepted(one) for one in report.accepted],
        "skipped": [{"rules": list(one.codes), "needs": one.needs} for one in report.skipped],
        "profile": report.profile or None,
        "checklist": [_answer(one) for one in report.checklist],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    where = finding.where
    return {
        "code": finding.code,
        "level": finding.level,
        "title": BY_CODE[finding.code].title,
        "message": finding.message,
        "subject": finding.subject or None,
        "where": None
        if where is None
        else {
            "file": where.file,
            "line": where.line,
            "column": where.column,
        },
        "fix": finding.fix or None,
        "extra": dict(finding.extra),
        "fingerprint": finding.fingerprint,
        "help": help_uri(finding.code),
    }


def _accepted(one: Accepted) -> dict[str, Any]:
    return {"finding": _finding(one.finding), "reason": one.reason, "expires": one.expires}


def _answer(one: Answer) -> dict[str, Any]:
    return {
        "group": one.group,
        "question": one.question,
        "answer": one.answer,
        "because": one.because or None,
        "rules": list(one.codes),
    }

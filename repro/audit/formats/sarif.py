"""The report as SARIF 2.1.0, for code scanners that show findings at their lines."""

from __future__ import annotations

from urllib.parse import quote

from repro import __version__
from repro.audit.rules.table import RULES, help_uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.audit.findings import Finding, Report
    from repro.audit.rules.rule import Rule

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "info": "note", "policy": "note"}
INDEX = {rule.code: number for number, rule in enumerate(RULES)}
HOME = "https://repro-projects.dev"
NOWHERE = "MLproject"


def document(report: Report) -> dict[str, Any]:
    """Give the report as data; what was accepted is there, as suppressed."""
    results = [_result(finding) for finding in report.findings]
    for one in report.accepted:
        reason = {"kind": "external", "status": "accepted", "justification": one.reason}
        results.append({**_result(one.finding), "suppressions": [reason]})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "repro",
                        "version": __version__,
                        "informationUri": HOME,
                        "rules": [_rule(rule) for rule in RULES],
                    }
                },
                "automationDetails": {"id": "repro/audit/"},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "helpUri": help_uri(rule.code),
        "defaultConfiguration": {"level": LEVELS[rule.level]},
    }


def _result(finding: Finding) -> dict[str, Any]:
    fix = f" Fix: {finding.fix}." if finding.fix else ""
    properties = {**finding.extra, **({"subject": finding.subject} if finding.subject else {})}
    return {
        "ruleId": finding.code,
        "ruleIndex": INDEX[finding.code],
        "level": LEVELS[finding.level],
        "message": {"text": f"{finding.message}.{fix}"},
        "locations": [_location(finding)],
        "partialFingerprints": {"reproFinding/v1": finding.fingerprint},
        **({"properties": properties} if properties else {}),
    }


def _location(finding: Finding) -> dict[str, Any]:
    where = finding.where
    file = where.file if where and where.file else NOWHERE
    physical: dict[str, Any] = {
        "artifactLocation": {"uri": quote(file, errors="surrogateescape"), "uriBaseId": "%SRCROOT%"}
    }
    if where and where.line:
        column = {"startColumn": where.column} if where.column else {}
        physical["region"] = {"startLine": where.line, **column}
    return {"physicalLocation": physical}

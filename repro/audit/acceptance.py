"""Findings that a project accepts, for a reason and for a time."""

from __future__ import annotations

from fnmatch import fnmatchcase

from repro.audit.findings import Accepted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from repro.audit.findings import Finding
    from repro.audit.settings import Acceptance


def covers(acceptance: Acceptance, finding: Finding) -> bool:
    """Say whether an acceptance speaks of a finding, whatever its date."""
    file = finding.where.file if finding.where else ""
    return (
        acceptance.code == finding.code
        and (not acceptance.subject or fnmatchcase(finding.subject, acceptance.subject))
        and (not acceptance.path or fnmatchcase(file, acceptance.path))
    )


def has_expired(acceptance: Acceptance, today: date) -> bool:
    """Say whether its last day is over."""
    return acceptance.expires < today


def divide(
    findings: Iterable[Finding], acceptances: tuple[Acceptance, ...], today: date
) -> tuple[tuple[Finding, ...], tuple[Accepted, ...], tuple[Acceptance, ...]]:
    """Part findings into those that count and those accepted; give the unused acceptances too."""
    live = [one for one in acceptances if not has_expired(one, today)]
    counted: list[Finding] = []
    accepted: list[Accepted] = []
    used: set[int] = set()
    for finding in findings:
        matching = [n for n, one in enumerate(live) if covers(one, finding)]
        used.update(matching)
        if matching:
            one = live[matching[0]]
            accepted.append(
                Accepted(finding=finding, reason=one.reason, expires=one.expires.isoformat())
            )
        else:
            counted.append(finding)
    unused = tuple(one for n, one in enumerate(live) if n not in used)
    return tuple(counted), tuple(accepted), unused

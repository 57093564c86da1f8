"""What an audit says: findings, what was accepted, and what could not be looked at."""

from __future__ import annotations

from repro import digest
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.errors import Where

LEVELS = ("error", "warning", "info")
POLICY = "policy"
"""Level of a rule whose weight is the project's own: `info`, until its settings speak of it."""


class Finding(Value):
    """One thing that stands between a project and its reproduction.

    `subject` names what it is about, such as a package or `step.parameter`. `fix` says what to
    do. `extra` holds further facts for programs. A message never holds a secret.
    """

    code: str
    level: str
    message: str
    where: Where | None = None
    subject: str = ""
    fix: str = ""
    extra: Mapping[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Give a digest that stays the same while lines are added above the place."""
        file = self.where.file if self.where else ""
        return digest.of_value("repro/finding", [self.code, self.subject, file, self.message])


class Accepted(Value):
    """A finding that the project accepts, why, and until when (a date)."""

    finding: Finding
    reason: str
    expires: str


class Skipped(Value):
    """Rules that had nothing to look at; `needs` says what would bring it about."""

    codes: tuple[str, ...]
    needs: str


class Answer(Value):
    """One line of a profile's checklist: `yes`, `partly`, `no` or `unknown`, and because of what.

    `codes` are the rules that it was answered by.
    """

    group: str
    question: str
    answer: str
    because: str = ""
    codes: tuple[str, ...] = ()


class Report(Value):
    """The whole answer. `findings` are those that count, the gravest first.

    `fail_on` is the level from which on findings fail the audit, `never` for none. `packages` is
    the number of locked packages that were looked at, `verified` the date of the last
    verification by a second run, empty for never.
    """

    project: str
    findings: tuple[Finding, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    fail_on: str = "error"
    profile: str = ""
    checklist: tuple[Answer, ...] = ()
    packages: int = 0
    verified: str = ""

    def count(self, level: str) -> int:
        """Count the findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def failed(self) -> bool:
        """Say whether a finding is at or above the threshold."""
        return any(fails(finding.level, self.fail_on) for finding in self.findings)


def fails(level: str, threshold: str) -> bool:
    """Say whether a level is at or above a threshold; nothing is above `never`."""
    return threshold in LEVELS and LEVELS.index(level) <= LEVELS.index(threshold)


def in_order(finding: Finding) -> tuple[int, str, str, int, str]:
    """Sort by level, then by place, so that equal audits read equally."""
    where = finding.where
    file, line = (where.file, where.line) if where else ("", 0)
    return LEVELS.index(finding.level), finding.code, file, line, finding.subject + finding.message

"""The audit itself: every rule over the facts, at the level that it has for this project."""

from __future__ import annotations

from repro.audit import acceptance, profiles
from repro.audit.findings import LEVELS, POLICY, Finding, Report, Skipped, in_order
from repro.audit.rules import acceptances, supply
from repro.audit.rules.table import BY_CODE, NEEDS, RULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.audit.facts import Facts
    from repro.audit.profiles import Profile
    from repro.audit.rules.rule import Hit, Rule
    from repro.audit.settings import Settings


def judge(facts: Facts, profile: str = "", fail_on: str = "error") -> Report:
    """Give everything that the rules find, with what was accepted and what nobody looked at.

    `profile` names one of `profiles.PROFILES`; its own rules count only with it.
    """
    chosen = profiles.PROFILES.get(profile)
    rules = [rule for rule in RULES if chosen or not rule.code.startswith("B")]
    looking = [rule for rule in rules if not rule.needs or _has(facts, rule.needs)]
    looked = frozenset(rule.code for rule in looking)
    found = [
        finding
        for rule in looking
        for finding in _findings(rule, rule.check(facts), facts.settings, chosen)
    ]
    counted, accepted, unused = acceptance.divide(found, facts.settings.acceptances, facts.today)
    idle = [acceptances.unused(one) for one in unused if one.code in looked]
    counted += tuple(_findings(BY_CODE["Z02"], idle, facts.settings, chosen))
    counted = tuple(sorted(counted, key=in_order))
    return Report(
        project=facts.name,
        findings=counted,
        accepted=accepted,
        skipped=_skipped(rules, looked),
        fail_on=fail_on,
        profile=profile,
        checklist=profiles.checklist(chosen, counted, accepted, looked) if chosen else (),
        packages=len(supply.packages(facts)),
        verified=max((step.verified for step in facts.history or ()), default=""),
    )


def _has(facts: Facts, part: str) -> bool:
    return getattr(facts, part) is not None


def _findings(
    rule: Rule, hits: Iterable[Hit], settings: Settings, profile: Profile | None
) -> Iterable[Finding]:
    level = level_of(rule, settings, profile)
    for hit in hits:
        yield Finding(
            code=rule.code,
            level=level,
            message=hit.message,
            where=hit.where,
            subject=hit.subject,
            fix=hit.fix,
            extra=hit.extra,
        )


def level_of(rule: Rule, settings: Settings, profile: Profile | None) -> str:
    """Give the level of a rule: its own or the profile's, and never below what the project says."""
    level = rule.level
    if level == POLICY:
        level = "error" if settings.states(rule.code) else "info"
    elif profile is not None:
        level = profile.level(rule.code)
    raised = settings.levels.get(rule.code, level)
    return LEVELS[min(LEVELS.index(level), LEVELS.index(raised))]


def _skipped(rules: list[Rule], looked: frozenset[str]) -> tuple[Skipped, ...]:
    found: dict[str, list[str]] = {}
    for rule in rules:
        if rule.code not in looked:
            found.setdefault(NEEDS[rule.needs], []).append(rule.code)
    return tuple(Skipped(codes=tuple(codes), needs=needs) for needs, codes in found.items())

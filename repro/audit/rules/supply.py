"""V, C and A: what others say of the packages: advisories, licences, signatures."""

from __future__ import annotations

import re
from datetime import date, timedelta
from fnmatch import fnmatchcase

from repro.audit.rules import places
from repro.audit.rules.rule import Hit
from repro.errors import Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro.audit.facts import Advisory, Facts
    from repro.audit.settings import Settings

STALE_DAYS = 30
NAMED = 10


def known(facts: Facts) -> Iterator[Hit]:
    """V01: a package has a known vulnerability."""
    for one in facts.advisories.matches if facts.advisories else ():
        also = f" ({', '.join(one.aliases)})" if one.aliases else ""
        yield Hit(
            message=f"`{one.name}` {one.version} is affected by {one.id}{also}"
            + (f": {one.summary}" if one.summary else ""),
            where=places.package(facts, one.name),
            subject=one.name,
            fix=f"fixed in {', '.join(one.fixed)}: `repro lock --upgrade {one.name}`"
            if one.fixed
            else "no version is fixed: choose another package, or accept it with a reason",
            extra=_extra(facts, one),
        )


def _extra(facts: Facts, one: Advisory) -> dict[str, str]:
    source = facts.advisories.source if facts.advisories else ""
    when = facts.advisories.date if facts.advisories else ""
    found = {
        "advisory": one.id,
        "aliases": " ".join(one.aliases),
        "fixed": " ".join(one.fixed),
        "severity": one.severity,
        "url": one.url,
        "source": source,
        "date": when,
    }
    return {key: value for key, value in found.items() if value}


def uncovered(facts: Facts) -> Iterator[Hit]:
    """V02: no source of advisories covers a package."""
    if facts.advisories is None:
        count = len(packages(facts))
        if count:
            yield Hit(
                message=f"no source of advisories was given: {count} packages were not looked up",
                fix="`repro audit --osv DIR`, a copy of the OSV database",
            )
    elif facts.advisories.uncovered:
        names = facts.advisories.uncovered
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        shown = ", ".join(f"`{name}`" for name in names[:NAMED])
        yield Hit(
            message=f"no source of advisories covers {shown}{more}: "
            "that nothing was found there means nothing",
            subject=names[0] if len(names) == 1 else "",
            fix="`--installed` finds the Python packages inside of conda packages; watch the rest",
            extra={"packages": " ".join(names)},
        )


def packages(facts: Facts) -> set[tuple[str, str, str]]:
    """Give the locked packages: (kind, name, version), each once."""
    return {
        ("conda" if a.kind == "conda" else "python", a.name, a.version)
        for env in facts.environments
        for _file, lock in env.locked
        for a in lock.artifacts
    }


def stale(facts: Facts) -> Iterator[Hit]:
    """V03: the advisories are old."""
    found = facts.advisories
    try:
        newest = date.fromisoformat(found.date[:10]) if found and found.date else None
    except ValueError:
        newest = None
    if found and newest and facts.today - newest > timedelta(days=STALE_DAYS):
        days = (facts.today - newest).days
        yield Hit(
            message=f"the advisories in `{found.source}` are {days} days old",
            subject=found.source,
            fix="fetch the database again",
        )


def unlicensed(facts: Facts) -> Iterator[Hit]:
    """C01: a package states no licence."""
    for one in facts.licences or ():
        if not one.text.strip():
            yield Hit(
                message=f"`{one.name}` {one.version} states no licence",
                where=places.package(facts, one.name),
                subject=one.name,
                fix="ask its author: without a licence nobody may use it",
            )


def refused(facts: Facts) -> Iterator[Hit]:
    """C02: a licence is against the policy."""
    for one in facts.licences or ():
        if one.text.strip() and not permitted(one.text, facts.settings):
            yield Hit(
                message=f"`{one.name}` {one.version} is under `{one.text[:80]}`, "
                "which the project's policy refuses",
                where=places.package(facts, one.name),
                subject=one.name,
                fix="choose another package, or accept this one with a reason",
                extra={"policy": facts.settings.file},
            )


def relicensed(facts: Facts) -> Iterator[Hit]:
    """C03: the licence of a package changed."""
    for one in facts.licences or ():
        if one.before is not None and one.before.strip() != one.text.strip():
            yield Hit(
                message=f"the licence of `{one.name}` changed from "
                f"`{one.before[:80] or 'none'}` to `{one.text[:80] or 'none'}`",
                where=places.package(facts, one.name),
                subject=one.name,
                fix="read the new one, and accept the change with a reason",
            )


def permitted(expression: str, settings: Settings) -> bool:
    """Say whether a licence is allowed: one side of an `OR`, both sides of an `AND`.

    Text that is no SPDX expression counts as the name of one licence.
    """

    def is_allowed(name: str) -> bool:
        denied = any(fnmatchcase(name.lower(), p.lower()) for p in settings.denied)
        listed = any(fnmatchcase(name.lower(), p.lower()) for p in settings.allowed)
        return not denied and (listed or not settings.allowed)

    words = re.findall(r"[()]|[^\s()]+", expression)
    return _Expression(words, is_allowed).value(expression)


class _Expression:
    """Evaluates an SPDX expression; `OR` binds less than `AND`, `AND` less than `WITH`."""

    def __init__(self, words: list[str], is_allowed: Callable[[str], bool]) -> None:
        self.words = words
        self.is_allowed = is_allowed

    def value(self, text: str) -> bool:
        rest = list(self.words)
        try:
            found = self._either()
        except (IndexError, RecursionError):
            self.words = ["?"]
            found = False
        if self.words:  # no expression: somebody's own words
            self.words = rest
            return self.is_allowed(text.strip())
        return found

    def _either(self) -> bool:
        found = self._both()
        while self.words[:1] == ["OR"]:
            self.words.pop(0)
            found = self._both() or found
        return found

    def _both(self) -> bool:
        found = self._one()
        while self.words[:1] == ["AND"]:
            self.words.pop(0)
            found = self._one() and found
        return found

    def _one(self) -> bool:
        word = self.words.pop(0)
        if word == "(":
            found = self._either()
            if self.words.pop(0) != ")":
                raise IndexError
            return found
        if self.words[:1] == ["WITH"]:
            del self.words[:2]
        return self.is_allowed(word)


def unsigned(facts: Facts) -> Iterator[Hit]:
    """A01: a package has no attestation."""
    for one in facts.attestations or ():
        if one.state == "absent":
            yield Hit(
                message=f"nobody vouches for `{one.name}` {one.version}: it has no attestation",
                where=places.package(facts, one.name),
                subject=one.name,
                fix="ask its publisher for one, or accept it with a reason",
            )


def forged(facts: Facts) -> Iterator[Hit]:
    """A02: an attestation is not valid."""
    for one in facts.attestations or ():
        if one.state == "bad":
            yield Hit(
                message=f"the attestation of `{one.name}` {one.version} is not valid: {one.why}",
                where=places.package(facts, one.name),
                subject=one.name,
                fix="do not install it; tell its publisher",
            )


def provenance(facts: Facts) -> Iterator[Hit]:
    """A03: the provenance of a run is not valid."""
    for one in facts.provenance or ():
        if one.fault:
            yield Hit(
                message=f"the provenance of run {one.run[:8]} is not valid: {one.fault}",
                where=Where(file=facts.project.file),
                subject=one.run,
                fix="run the step again with `--refresh`",
            )

"""Z: whether what a project accepts is still accepted, and still found."""

from __future__ import annotations

from repro.audit.acceptance import has_expired
from repro.audit.rules.rule import Hit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts
    from repro.audit.settings import Acceptance


def expired(facts: Facts) -> Iterator[Hit]:
    """Z01: an acceptance has expired."""
    for one in facts.settings.acceptances:
        if has_expired(one, facts.today):
            yield Hit(
                message=f"the acceptance of {one.code} ended on {one.expires}: {one.reason}",
                where=one.where,
                subject=one.code,
                fix="mend what it accepted, or decide again and set a later date",
            )


def unused(one: Acceptance) -> Hit:
    """Z02, for an acceptance that nothing was found for; who judges knows which."""
    return Hit(
        message=f"nothing is found any more that the acceptance of {one.code} speaks of",
        where=one.where,
        subject=one.code,
        fix="remove it",
    )

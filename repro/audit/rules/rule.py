"""What a rule is, and what it notices."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from repro.audit.facts import Facts
    from repro.errors import Where

    Check = Callable[["Facts"], Iterable["Hit"]]

SHOWN = 20


class Hit(Value):
    """What a rule noticed; the fields are those of a finding."""

    message: str
    where: Where | None = None
    subject: str = ""
    fix: str = ""
    extra: Mapping[str, str] = {}


class Rule(Value):
    """A rule: its stable code, its level, what it finds in a few words, and how.

    `needs` names the part of the facts without which it has nothing to look at.
    """

    code: str
    level: str
    title: str
    check: Check
    needs: str = ""


def limited(hits: Iterable[Hit], what: str) -> Iterator[Hit]:
    """Give the first hits one by one and the rest as a number of `what`, such as `files`."""
    rest = 0
    for number, hit in enumerate(hits):
        if number < SHOWN:
            yield hit
        else:
            rest += 1
    if rest:
        yield Hit(message=f"and {rest:,} more {what}")

"""I, T and X: whether what is installed is what was locked, untouched, and alone."""

from __future__ import annotations

from repro.audit.rules import places
from repro.audit.rules.rule import Hit, limited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts, Found, Prefix
    from repro.audit.rules.rule import Check

VARIABLES = ("PYTHONPATH", "PYTHONUSERBASE", "PYTHONHOME", "PYTHONSTARTUP")
REBUILD = "`repro env verify --repair` makes it anew"
OWNER = f"find out who did it; then {REBUILD}"
MESSAGES = {
    "not-installed": "`{subject}` {expected} is locked and not installed",
    "not-locked": "`{subject}` {found} is installed and not locked",
    "other-version": "`{subject}` is installed as version {found}, not {expected}",
    "other-build": "`{subject}` is installed as another build ({found}, not {expected})",
    "pip-installed": "pip installed `{subject}` {found} into the conda environment",
    "changed": "`{subject}` is not as it was installed",
    "missing": "`{subject}` is gone",
    "extra": "`{subject}` belongs to no package",
    "no-digest": "`{subject}` cannot be checked: its package gives no digest of it",
    "cache-changed": "`{subject}` was changed in the store, since it was unpacked",
    "other-tree": "its files hash to {found}, not to {expected} as when it was built",
    "runs-at-start": "`{subject}` runs code at every start of Python",
    "user-site": "Python reads the user's own packages beside those of the environment",
    "link-script": "`{subject}` is run when its package is installed",
    "other-base": "the Python below the environment is another: `{subject}`",
}
SHORT = 12


def found(*kinds: str, fix: str = REBUILD) -> Check:
    """Make the rule that reports what was found of some kinds, each once for a prefix."""

    def check(facts: Facts) -> Iterator[Hit]:
        for env in facts.environments:
            for prefix in env.prefixes:
                hits = (_hit(facts, prefix, one, fix) for one in prefix.found if one.kind in kinds)
                yield from limited(hits, f"of this kind in the environment for {prefix.platform}")

    return check


def _hit(facts: Facts, prefix: Prefix, one: Found, fix: str) -> Hit:
    subject = one.path or one.package or prefix.platform
    said = MESSAGES[one.kind].format(
        subject=subject, expected=_short(one.expected), found=_short(one.found)
    )
    facts_of_it = {
        "prefix": prefix.path,
        "package": one.package,
        "expected": one.expected,
        "found": one.found,
    }
    return Hit(
        message=said,
        where=places.package(facts, one.package) if one.package else None,
        subject=subject,
        fix=fix,
        extra={key: value for key, value in facts_of_it.items() if value},
    )


def _short(text: str) -> str:
    """Write a digest by its beginning, and all else as it is."""
    is_long = len(text) > SHORT + SHORT and " " not in text
    return text[:SHORT] if is_long else text


def outside(facts: Facts) -> Iterator[Hit]:
    """X02: Python takes code from outside."""
    for entry in facts.project.entry_points:
        for name in (*entry.env, *entry.pass_env):
            if name in VARIABLES:
                yield Hit(
                    message=f"`{entry.name}` runs with `{name}`: Python takes code from outside "
                    "of the environment",
                    where=places.step(facts, entry),
                    subject=f"{entry.name}.{name}",
                    fix="install the code as a package of the environment",
                )
    yield from found("user-site")(facts)

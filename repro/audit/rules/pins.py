"""P: whether versions are said, still offered, and not younger than they may be."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

from repro.audit.rules import places
from repro.audit.rules.demands import demands, public, python
from repro.audit.rules.rule import Hit
from repro.errors import Where
from repro.spec import PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import EnvironmentFacts, Facts

MINOR = re.compile(r"(===?|=)?\s*\d+\.\d+[^<>,|!]*|~=\s*\d+\.\d+\.\d+")
RANGE = re.compile(r">=\s*3\.(\d+)[\d.]*\s*,\s*<\s*3\.(\d+)(?:\.0)?")


def unpinned(facts: Facts) -> Iterator[Hit]:
    """P01: a version is neither pinned nor locked."""
    for env in facts.environments:
        is_pinned = isinstance(env.request, PythonEnvironment) and bool(env.request.pinned)
        if env.locks or is_pinned:
            continue
        for demand in demands(env.request):
            if not demand.is_exact and demand.name != "python" and not demand.is_checkout:
                yield Hit(
                    message=f"`{public(demand.text)}` allows several versions, and no lock chooses",
                    where=places.requested(facts, env, demand.text),
                    subject=demand.name,
                    fix="`repro lock`",
                )


def yanked(facts: Facts) -> Iterator[Hit]:
    """P02: a locked version was withdrawn."""
    for release in facts.releases or ():
        if release.yanked is not None:
            because = f": {release.yanked}" if release.yanked else ""
            yield Hit(
                message=f"`{release.name}` {release.version} was withdrawn by its "
                f"publisher{because}",
                where=places.package(facts, release.name),
                subject=release.name,
                fix=f"`repro lock --upgrade {release.name}`",
            )


def newer(facts: Facts) -> Iterator[Hit]:
    """P03: a package is newer than the lock's limit."""
    published = {(r.name, r.version): r.published for r in facts.releases or () if r.published}
    for env in facts.environments:
        for file, lock in env.locked:
            for one in lock.artifacts:
                when = published.get((one.name, one.version), "")
                if when and lock.exclude_newer and is_after(when, lock.exclude_newer):
                    yield Hit(
                        message=f"`{one.name}` {one.version} was published on {when[:10]}, "
                        f"after the lock's limit {lock.exclude_newer}",
                        where=places.locked(facts, file.path, one.name),
                        subject=one.name,
                        fix="`repro lock`",
                    )


def is_after(when: str, limit: str) -> bool:
    """Say whether a time lies after a limit; a limit without a time of day is a whole day.

    Text that is no time lies nowhere.
    """
    try:
        if len(limit) == len("2026-01-31"):
            return date.fromisoformat(when[:10]) > date.fromisoformat(limit)
        return _moment(when) > _moment(limit)
    except ValueError:
        return False


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def python_unpinned(facts: Facts) -> Iterator[Hit]:
    """P04: the version of Python is not pinned."""
    for env in facts.environments:
        version = python(env.request)
        if version is None or env.locks or pins_minor(version):
            continue
        yield Hit(
            message=f"{_said(env, version)}: each machine takes its own",
            where=Where(file=env.file) if env.file else None,
            subject="python",
            fix='say `python: "3.11"` in the environment file, and lock it',
        )


def _said(env: EnvironmentFacts, version: str) -> str:
    if version:
        return f"{env.name} asks for Python `{version}`"
    if env.request == PythonEnvironment():
        return "the project has no environment, and names no Python"
    return f"{env.name} does not say which Python it needs"


def pins_minor(version: str) -> bool:
    """Say whether a Python version leaves no choice but that of the patch level."""
    both = RANGE.fullmatch(version)
    return bool(MINOR.fullmatch(version)) or (both is not None and int(both[1]) + 1 == int(both[2]))

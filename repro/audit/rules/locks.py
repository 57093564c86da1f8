"""L: whether every environment is locked, by a file that can be believed."""

from __future__ import annotations

from repro.audit.rules.rule import Hit
from repro.errors import Where
from repro.spec import DockerEnvironment, PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import EnvironmentFacts, Facts


def missing(facts: Facts) -> Iterator[Hit]:
    """L01: an environment has no lock."""
    for env in facts.environments:
        if not env.locks and not env.broken and _asks(env):
            yield Hit(
                message=f"{env.name} has no lock: each machine may resolve it differently",
                where=Where(file=env.file) if env.file else None,
                subject=env.label or env.kind,
                fix="`repro lock`, and commit the file that it writes",
            )


def _asks(env: EnvironmentFacts) -> bool:
    """Say whether a request has to be locked.

    P04 speaks of one that asks for nothing, K01 of an image that is named by a tag; a digest, a
    `uv.lock` and hashes are as good as a lock.
    """
    request = env.request
    if isinstance(request, DockerEnvironment):
        return bool(request.dockerfile)
    if not isinstance(request, PythonEnvironment):
        return True
    return bool(request.source or request.requirements) and not request.pinned


def unreadable(facts: Facts) -> Iterator[Hit]:
    """L02: a lock file cannot be read."""
    for env in facts.environments:
        for one in env.broken:
            yield Hit(
                message=f"`{one.path}` cannot be read: {one.message}",
                where=one.where or Where(file=one.path),
                subject=one.path,
                fix="`repro lock` writes it anew, or take the version of it from Git",
            )


def platform(facts: Facts) -> Iterator[Hit]:
    """L03: a platform is not locked."""
    for env in facts.environments:
        has = {lock.platform for _file, lock in env.locked}
        for wanted in facts.platforms if has else ():
            if wanted not in has and "" not in has:
                yield Hit(
                    message=f"{env.name} is not locked for {wanted}, "
                    f"but for {', '.join(sorted(has))}",
                    where=Where(file=env.locks[0].path),
                    subject=wanted,
                    fix=f"`repro lock --platform {wanted}`",
                )


def edited(facts: Facts) -> Iterator[Hit]:
    """L04: a lock file was edited by hand."""
    for env in facts.environments:
        for file in env.locks:
            if file.edited:
                yield Hit(
                    message=f"`{file.path}` was changed by hand after it was written",
                    where=Where(file=file.path),
                    subject=file.path,
                    fix="change the request and run `repro lock`; a lock is never edited",
                )


def unchecked(facts: Facts) -> Iterator[Hit]:
    """L05: a lock could not be compared with its request."""
    for env in facts.environments:
        if env.unchecked:
            yield Hit(
                message=f"nobody knows whether the lock of {env.name} satisfies it: "
                f"{env.unchecked}",
                where=Where(file=env.locks[0].path) if env.locks else None,
                subject=env.label or env.kind,
                fix="mend that, and audit again",
            )

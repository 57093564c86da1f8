"""H: whether what is installed is named by its content."""

from __future__ import annotations

import re
from itertools import pairwise

from repro.audit.rules import places
from repro.audit.rules.demands import demands, public
from repro.audit.rules.rule import Hit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro.audit.facts import EnvironmentFacts, Facts
    from repro.audit.rules.demands import Demand
    from repro.lock import Artifact

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def _artifacts(
    facts: Facts, is_bad: Callable[[Artifact], bool]
) -> Iterator[tuple[EnvironmentFacts, str, Artifact]]:
    """Give each bad artifact of each lock file once, however many platforms have it."""
    for env in facts.environments:
        seen = set()
        for file, lock in env.locked:
            for artifact in lock.artifacts:
                key = (file.path, artifact.name, artifact.version, artifact.kind)
                if key not in seen and is_bad(artifact):
                    seen.add(key)
                    yield env, file.path, artifact


def _hit(facts: Facts, path: str, artifact: Artifact, said: str, fix: str) -> Hit:
    return Hit(
        message=f"`{artifact.name}` {artifact.version} {said}",
        where=places.locked(facts, path, artifact.name),
        subject=artifact.name,
        fix=fix,
    )


def absent(facts: Facts) -> Iterator[Hit]:
    """H01: a package is locked without a hash."""
    for path, name, block in _blocks(facts):
        if "md5" not in block:
            yield _unhashed(
                facts, path, name, "is locked without a hash: any file of its name fits"
            )


def weak(facts: Facts) -> Iterator[Hit]:
    """H02: a package is locked by MD5 alone."""
    for path, name, block in _blocks(facts):
        if "md5" in block:
            yield _unhashed(facts, path, name, "is locked by MD5 alone, which can be forged")


def _blocks(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Give the packages without SHA-256 of the lock files that were refused: (path, name, text).

    In a lock file that could be read there is none.
    """
    for env in facts.environments:
        for one in env.broken:
            lock = facts.lock_texts[one.path]
            rows = lock.text.splitlines()
            starts = sorted((line, name) for name, line in lock.lines.items())
            for (start, name), (end, _next) in pairwise([*starts, (len(rows) + 1, "")]):
                block = "\n".join(rows[start - 1 : end - 1]).lower()
                if "url" in block and "sha256" not in block:
                    yield one.path, name, block


def _unhashed(facts: Facts, path: str, name: str, said: str) -> Hit:
    return Hit(
        message=f"`{name}` {said}",
        where=places.locked(facts, path, name),
        subject=name,
        fix="`repro lock`; an index without SHA-256 digests should be replaced",
    )


def checkout(facts: Facts) -> Iterator[Hit]:
    """H03: a checkout names no commit."""

    def is_bad(one: Artifact) -> bool:
        return one.kind == "vcs" and not COMMIT.fullmatch(one.digest)

    fix = "name the full commit: `git+https://…@<40 digits>`"
    for _env, path, one in _artifacts(facts, is_bad):
        yield _hit(facts, path, one, "is a checkout without a full commit", fix)
    for env, demand in _unlocked(facts):
        if demand.is_checkout and not demand.is_exact:
            yield Hit(
                message=f"`{public(demand.text)}` names no full commit: its branch moves on",
                where=places.requested(facts, env, demand.text),
                subject=demand.name or public(demand.text),
                fix=fix,
            )


def source(facts: Facts) -> Iterator[Hit]:
    """H04: a package is built from source."""
    fix = "choose a version that has a wheel, or build one and keep it in the project"
    for _env, path, one in _artifacts(facts, lambda a: a.kind == "sdist"):
        yield _hit(facts, path, one, "is built from source on each machine", fix)


def local(facts: Facts) -> Iterator[Hit]:
    """H05: a package is built from the project's files."""
    fix = "nothing to do, if its build is deterministic"
    for _env, path, one in _artifacts(facts, lambda a: a.kind == "directory"):
        yield _hit(facts, path, one, "is built from the project's own files", fix)


def direct(facts: Facts) -> Iterator[Hit]:
    """H06: a direct URL has no hash."""
    for env, demand in _unlocked(facts):
        if demand.is_direct and not demand.is_hashed:
            yield Hit(
                message=f"`{public(demand.text)}` is a URL without a hash: "
                "what is behind it may change",
                where=places.requested(facts, env, demand.text),
                subject=demand.name or public(demand.text),
                fix="add `#sha256=<64 digits>` to the URL, or lock the environment",
            )


def _unlocked(facts: Facts) -> Iterator[tuple[EnvironmentFacts, Demand]]:
    for env in facts.environments:
        if not env.locks:
            for demand in demands(env.request):
                yield env, demand

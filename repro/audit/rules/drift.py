"""D: whether the locks give what the requests ask, and nothing else."""

from __future__ import annotations

from repro.audit.rules import places
from repro.audit.rules.demands import demands, name, normal, public
from repro.audit.rules.rule import Hit
from repro.spec import CondaEnvironment, PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import EnvironmentFacts, Facts, Gap
    from repro.audit.rules.rule import Check
    from repro.lock import Artifact, EnvironmentLock

PYTHON = "D07"
ALWAYS = frozenset(("python", "pip", "setuptools", "wheel"))


def gaps(code: str, fix: str) -> Check:
    """Make the rule that reports what environments say of their own locks under `code`."""

    def check(facts: Facts) -> Iterator[Hit]:
        for env in facts.environments:
            seen: dict[tuple[str, str], list[Gap]] = {}
            for gap in env.gaps:
                if gap.unmet.code == code:
                    # of another Python, once is enough: each platform has its own build of it
                    why = "" if code == PYTHON else gap.unmet.why
                    seen.setdefault((gap.unmet.entry, why), []).append(gap)
            for found in seen.values():
                entry, why = found[0].unmet.entry, found[0].unmet.why
                yield Hit(
                    message=public(f"`{entry}`: {why}" if entry else why),
                    where=places.requested(facts, env, entry),
                    subject=public(entry),
                    fix=fix,
                    extra={"platforms": " ".join(dict.fromkeys(gap.platform for gap in found))},
                )

    return check


def unneeded(facts: Facts) -> Iterator[Hit]:
    """D03: a package is locked that nothing asks for."""
    for env in facts.environments:
        for file, lock in env.locked:
            if not _is_known(env, lock):
                continue
            needed = _closure(env, lock.artifacts)
            for artifact in lock.artifacts:
                if _key(artifact) not in needed:
                    yield Hit(
                        message=f"`{artifact.name}` {artifact.version} is locked, "
                        "and nothing asks for it",
                        where=places.locked(facts, file.path, artifact.name),
                        subject=artifact.name,
                        fix="`repro lock`",
                        extra={"platforms": lock.platform},
                    )


def _is_known(env: EnvironmentFacts, lock: EnvironmentLock) -> bool:
    """Say whether request and lock tell all that is needed, down to the last dependency."""
    request = env.request
    python = request.python if isinstance(request, CondaEnvironment) else request
    if isinstance(python, PythonEnvironment) and (python.uv_project or python.directories):
        return False
    opaque = any(a.kind in ("directory", "vcs", "sdist") and not a.depends for a in lock.artifacts)
    return not opaque and any(a.depends for a in lock.artifacts)


def _key(artifact: Artifact) -> str:
    return artifact.name if artifact.kind == "conda" else normal(artifact.name)


def _closure(env: EnvironmentFacts, artifacts: tuple[Artifact, ...]) -> set[str]:
    """Give the names that can be reached from the request; markers and versions count as met."""
    depends = {_key(a): a.depends for a in artifacts}
    wanted = [d.name for d in demands(env.request)] + list(ALWAYS)
    for constraint_or_url in (d.text for d in demands(env.request) if not d.name):
        wanted += [n for n in depends if n in normal(constraint_or_url)]
    needed: set[str] = set()
    while wanted:
        one = wanted.pop()
        if one not in needed:
            needed.add(one)
            for line in depends.get(one, ()):
                bare = name(line.rpartition("::")[2])
                wanted += [bare.lower(), normal(bare)]
    return needed


def unused(facts: Facts) -> Iterator[Hit]:
    """D08: the last result is of another environment."""
    locks = [lock for env in facts.environments for _file, lock in env.locked]
    digests = {lock.digest for lock in locks}
    is_open = any(k.kind == "python" and not k.interpreter.implementation for k in locks)
    if not digests or is_open:  # which environment another tool's lock gives, the machine decides
        return
    for step in facts.history or ():
        if step.last_good and step.environment and step.environment not in digests:
            entry = facts.project.entry_point(step.step)
            yield Hit(
                message=f"the last result of `{step.step}` was made in another environment "
                f"({step.environment[:12]}) than the lock gives",
                where=places.step(facts, entry) if entry else None,
                subject=step.step,
                fix="run the step again",
                extra={"environment": step.environment, "run": step.last_good},
            )

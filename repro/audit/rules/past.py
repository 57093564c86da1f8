"""R and G: what has been done so far: runs, verifications, commits, and what lies about."""

from __future__ import annotations

import re

from repro.audit.rules import places
from repro.audit.rules.demands import literal
from repro.audit.rules.rule import Hit
from repro.errors import Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts, StepHistory
    from repro.spec import EntryPoint

SEED = re.compile(r"seed|random[_-]?state|rng", re.IGNORECASE)
CODE = re.compile(r"(?:^|[\s;&|(/])(python[0-9.]*|Rscript|julia|jupyter|torchrun|accelerate)\s")
RANDOM = re.compile(
    r"random|shuffle|sample|\brng\b|torch|tensorflow|keras|jax|sklearn|xgboost|lightgbm|\brand",
    re.IGNORECASE,
)
GIGABYTE = 1_000_000_000


def _steps(facts: Facts) -> Iterator[tuple[EntryPoint, StepHistory | None]]:
    known = {step.step: step for step in facts.history or ()}
    for entry in facts.project.entry_points:
        yield entry, known.get(entry.name)


def unverified(facts: Facts) -> Iterator[Hit]:
    """R01: a result was never verified. R06 speaks of steps without any."""
    for entry, step in _steps(facts):
        if step is not None and step.last_good and not step.verified:
            yield Hit(
                message=f"the result of `{entry.name}` was never made a second time and compared",
                where=places.step(facts, entry),
                subject=entry.name,
                fix=f"`repro verify {step.last_good[:8]}`",
                extra={"run": step.last_good},
            )


def different(facts: Facts) -> Iterator[Hit]:
    """R02: a second run gave another result."""
    for entry, step in _steps(facts):
        if step is not None and step.differed:
            shown = ", ".join(f"`{path}`" for path in step.differed[:5])
            yield Hit(
                message=f"made a second time, `{entry.name}` gave other outputs: {shown}",
                where=places.step(facts, entry),
                subject=entry.name,
                fix="set the seeds, or say under `compare:` how much may differ",
                extra={"outputs": " ".join(step.differed), "run": step.last_good},
            )


def unseeded(facts: Facts) -> Iterator[Hit]:
    """R03: a step has no seed."""
    for entry in facts.project.entry_points:
        command = literal(entry.command)
        names = " ".join(p.name for p in entry.parameters)
        if not CODE.search(command + " ") or SEED.search(f"{names} {command}"):
            continue
        if _is_random(facts, command):
            yield Hit(
                message=f"`{entry.name}` has no parameter for a seed",
                where=places.step(facts, entry),
                subject=entry.name,
                fix="add `seed: {type: int, default: 0}` and use it for every random number",
            )


def _is_random(facts: Facts, command: str) -> bool:
    """Say whether a script of the project that a command names draws random numbers.

    What a script takes from other modules is not known; where none can be read, it may be anything.
    """
    words = {word.strip("\"'").removeprefix("./") for word in command.split()}
    read = [text for path, text in facts.scripts.items() if path in words]
    return not read or any(RANDOM.search(text) for text in read)


def dirty(facts: Facts) -> Iterator[Hit]:
    """R04: changes are not committed."""
    if facts.git is not None and facts.git.commit and facts.git.dirty:
        yield Hit(
            message="there are changes that are in no commit: nobody else can get this state",
            where=Where(file=facts.project.file),
            subject=facts.git.commit[:12],
            fix="`git commit` them",
        )


def uncommitted(facts: Facts) -> Iterator[Hit]:
    """R05: the project is not in Git."""
    if facts.git is not None and not facts.git.commit:
        yield Hit(
            message="the project is in no Git repository with a commit: its state has no name",
            where=Where(file=facts.project.file),
            fix="`git init`, and commit the project",
        )


def never(facts: Facts) -> Iterator[Hit]:
    """R06: a step never succeeded here."""
    for entry, step in _steps(facts):
        if step is None or not step.last_good:
            yield Hit(
                message=f"`{entry.name}` never ran to its end here",
                where=places.step(facts, entry),
                subject=entry.name,
                fix=f"`repro run -e {entry.name}`",
            )


def leftovers(facts: Facts) -> Iterator[Hit]:
    """G01: environments lie about unused."""
    if facts.cache is None:
        return
    for path in facts.cache.incomplete:
        yield Hit(
            message=f"the environment {path[:12]} was never finished",
            subject=path,
            fix="`repro env prune`",
        )
    if facts.cache.unused:
        longest = max(days for _digest, days in facts.cache.unused)
        size = f", of {facts.cache.bytes / GIGABYTE:.1f} GB in all" if facts.cache.bytes else ""
        yield Hit(
            message=f"{len(facts.cache.unused)} environments were not used for up to "
            f"{longest} days{size}",
            subject="cache",
            fix="`repro env prune`",
        )

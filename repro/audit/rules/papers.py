"""B: whether somebody who reads the paper finds what they need. Only profiles ask for it."""

from __future__ import annotations

import re

from repro.audit.rules.rule import Hit
from repro.errors import Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts
    from repro.audit.rules.rule import Check

LICENCE = re.compile(r"(licen[cs]e|copying|unlicense)([._-].*)?", re.IGNORECASE)
README = re.compile(r"readme(\.[a-z]+)?", re.IGNORECASE)
CITED = re.compile(
    r"\bdoi\b|10\.\d{4,9}/|arxiv|zenodo|bibtex|@(?:article|inproceedings)", re.IGNORECASE
)
RUN = re.compile(r"(?:repro|mlflow) run|repro verify|python\d? \S+\.py|make \w+", re.IGNORECASE)
TRAIN = re.compile(r"train|fit|main", re.IGNORECASE)
EVALUATE = re.compile(r"eval|test|score|predict|valid|benchmark|infer", re.IGNORECASE)
TABLE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*\|", re.MULTILINE)
RESULT = re.compile(r"accura|auc\b|\bf1\b|rmse|\bmae\b|\bloss\b|\bbleu\b|result", re.IGNORECASE)
MODEL = re.compile(r"pre-?trained|checkpoint|weights", re.IGNORECASE)
COST = re.compile(
    r"\bgpus?\b|\bcpus?\b|\bcores?\b|\bRAM\b|memory|\d\s*(?:h|hours?|min|minutes?)\b", re.IGNORECASE
)


def _top(facts: Facts, pattern: re.Pattern[str]) -> str:
    """Give the first file of the project folder whose name fits."""
    return next((f for f in facts.files if "/" not in f and pattern.fullmatch(f)), "")


def _readme(facts: Facts) -> str:
    return facts.texts.get(_top(facts, README), "")


def licence(facts: Facts) -> Iterator[Hit]:
    """B01: the project has no licence."""
    if not _top(facts, LICENCE):
        yield Hit(
            message="the project has no licence: nobody may use or change it",
            fix="add a `LICENSE` file, for example of Apache-2.0 or MIT",
        )


def readme(facts: Facts) -> Iterator[Hit]:
    """B02: the project has no README."""
    if not _top(facts, README):
        yield Hit(
            message="the project has no README",
            fix="say in `README.md` what it is, of which paper, and how to run it",
        )


def mentions(pattern: re.Pattern[str], message: str, fix: str) -> Check:
    """Make the rule that asks the README for something; B02 speaks where there is none."""

    def check(facts: Facts) -> Iterator[Hit]:
        name = _top(facts, README)
        if name and not pattern.search(_readme(facts)):
            yield Hit(message=message, where=Where(file=name), fix=fix)

    return check


def citation(facts: Facts) -> Iterator[Hit]:
    """B04: the project cannot be cited."""
    has_file = any(f in facts.files for f in ("CITATION.cff", "CITATION.bib", "codemeta.json"))
    if not has_file and not CITED.search(_readme(facts)):
        yield Hit(
            message="nothing says how to cite it, or which paper it belongs to",
            fix="add `CITATION.cff`, and the DOI of the archive once there is one",
        )


def entry(pattern: re.Pattern[str], what: str, fix: str) -> Check:
    """Make the rule that asks for an entry point by its name or command."""

    def check(facts: Facts) -> Iterator[Hit]:
        entries = facts.project.entry_points
        if not any(pattern.search(f"{e.name} {e.command}") for e in entries):
            yield Hit(
                message=f"no entry point {what}",
                where=Where(file=facts.project.file) if facts.project.file else None,
                fix=fix,
            )

    return check


def results(facts: Facts) -> Iterator[Hit]:
    """B07: the README has no table of results."""
    name, text = _top(facts, README), _readme(facts)
    if name and not (TABLE.search(text) and RESULT.search(text)):
        yield Hit(
            message="the README has no table of results to compare with",
            where=Where(file=name),
            fix="add a table: the result, and the command that makes it",
        )


def cost(facts: Facts) -> Iterator[Hit]:
    """B09: the cost of a run is not said."""
    declared = any(
        e.resources.cpus or e.resources.memory or e.resources.gpus or e.timeout_ms
        for e in facts.project.entry_points
    )
    if not declared and not COST.search(_readme(facts)):
        yield Hit(
            message="nothing says what machine and how much time it takes",
            where=Where(file=facts.project.file) if facts.project.file else None,
            fix="say `resources:` for each step, and the time in the README",
        )

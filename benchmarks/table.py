"""The report: Markdown tables of what was measured, and the budgets that it is held against."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from measure import Count, Sample
    from subjects import Subject

TITLES = {
    "bare": "Bare interpreter",
    "noop": "One-step project, nothing has changed",
    "first": "One-step project, the input has changed",
    "import": "Import of the API",
    "help": "Help",
}
HEAD = ("command", "calls", "CPU median", "CPU min", "wall median", "wall min", "x bare", "x repro")


@dataclass(frozen=True)
class Results:
    """What was measured, by the names of the subjects."""

    subjects: Sequence[Subject]
    samples: Mapping[str, Sequence[Sample]]
    counts: Mapping[str, Count]

    def cpu(self, name: str) -> float | None:
        """Give the median CPU of a subject in ms, None where it was not measured."""
        samples = self.samples.get(name)
        return statistics.median(s.cpu for s in samples) if samples else None


@dataclass(frozen=True)
class Budget:
    """A bound on a measured value; the value is None where it was not measured."""

    text: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Give `pass`, `FAIL` or `not measured`."""
        if self.value is None:
            return "not measured"
        kept = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "pass" if kept else "FAIL"


def budgets(results: Results) -> tuple[Budget, ...]:
    """List the budgets with what was measured for each."""

    def times(name: str, base: str) -> float | None:
        return ratio(results.cpu(name), results.cpu(base))

    hit, bare = "noop-repro", "bare-repro"
    counts = results.counts.get(hit)
    return (
        Budget("CPU of a hit / bare interpreter", times(hit, bare), 3),
        Budget("CPU of a hit outside Git / bare interpreter", times(f"{hit}-plain", bare), 3),
        Budget("CPU of `mlflow run` / hit", times("noop-mlflow", hit), 60, at_least=True),
        Budget("CPU of `dvc repro` / hit", times("noop-dvc", hit), 12, at_least=True),
        Budget("CPU of `import repro` / bare interpreter", times("import-package", bare), 2),
        Budget("CPU of `from repro import run` / bare interpreter", times("import-repro", bare), 2),
        Budget("modules loaded on a hit", counts.modules if counts else None, 120),
        Budget("processes that a hit starts", counts.children if counts else None, 1),
    )


def ratio(value: float | None, base: float | None) -> float | None:
    """Divide; None where one of them was not measured."""
    return value / base if value is not None and base is not None else None


def markdown(results: Results, facts: Mapping[str, str]) -> str:
    """Give the whole report."""
    parts = ["# Benchmark results", "\n".join(f"- {name}: {text}" for name, text in facts.items())]
    parts += ["## Budgets", _budget_table(results)]
    for group, title in TITLES.items():
        chosen = [s for s in results.subjects if s.group == group]
        if chosen:
            parts += [f"## {title}", table(HEAD, _rows(chosen, results))]
    if results.counts:
        parts += ["## Modules and processes without changes", _count_table(results)]
    return "\n\n".join(parts) + "\n"


def _budget_table(results: Results) -> str:
    head = ("budget", "limit", "measured", "verdict")
    return table(
        head,
        (
            (
                b.text,
                f"{'at least' if b.at_least else 'at most'} {b.limit:g}",
                _number(b.value),
                b.verdict,
            )
            for b in budgets(results)
        ),
    )


def _rows(subjects: Sequence[Subject], results: Results) -> Iterator[tuple[str, ...]]:
    group = subjects[0].group
    for subject in subjects:
        samples = results.samples[subject.name]
        cpu, wall = [s.cpu for s in samples], [s.wall for s in samples]
        bare = "bare-repro" if subject.tool == "repro" else "bare-peers"
        yield (
            subject.label,
            str(len(samples)),
            *(f"{f(times):.1f}" for times in (cpu, wall) for f in (statistics.median, min)),
            _number(ratio(results.cpu(subject.name), results.cpu(bare))),
            _number(ratio(results.cpu(subject.name), results.cpu(f"{group}-repro"))),
        )


def _count_table(results: Results) -> str:
    head = ("command", "modules", "processes started")
    return table(
        head,
        (
            (s.label, str(c.modules), "not measured" if c.children is None else str(c.children))
            for s in results.subjects
            if (c := results.counts.get(s.name))
        ),
    )


def table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    """Write a table, its numbers on the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, int) else f"{value:.2f}"

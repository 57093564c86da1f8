"""Two runs side by side: what went into them, what came out, and what of it differs first."""

from __future__ import annotations

from repro import explain
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from repro.explain import Locks, Reason, Trees
    from repro.manifest import Entry
    from repro.record import RunRecord

    Lines = Callable[[str, str], "tuple[int, int] | None"]


class Changed(Value):
    """One output or metric that differs; an empty text means: not there.

    For a text file, `added` and `removed` are numbers of lines, -1 where they are not known.
    """

    name: str
    before: str
    after: str
    added: int = -1
    removed: int = -1


class Comparison(Value):
    """What differs between two runs.

    `causes` are the parts of their keys that differ, the likeliest cause first: parameters, then
    code and data, the environment, the command and the rest. `source` are facts about where the
    code came from, which are no cause by themselves. `outputs`, `artifacts` (files logged through
    MLflow) and `metrics` are what came out. Times are wall times in nanoseconds.
    """

    left: RunRecord
    right: RunRecord
    causes: tuple[Reason, ...]
    source: tuple[Changed, ...]
    outputs: tuple[Changed, ...]
    artifacts: tuple[Changed, ...]
    metrics: tuple[Changed, ...]

    @property
    def same_key(self) -> bool:
        """Say whether the two were the same step."""
        return self.left.key == self.right.key

    @property
    def same_result(self) -> bool:
        """Say whether the same came out of both."""
        return not (self.outputs or self.artifacts or self.metrics)

    @property
    def verdict(self) -> str:
        """Say in one line how the two are related."""
        if self.same_result:
            return "the same result" if self.same_key else "the same result in spite of the causes"
        if not self.causes:
            return "the same step with different results: it is not deterministic"
        return f"first cause: {self.causes[0]}"


def compare(
    left: RunRecord,
    right: RunRecord,
    parts: tuple[Mapping[str, object], Mapping[str, object]],
    trees: Trees,
    locks: Locks,
) -> Comparison:
    """Compare two runs; `parts` are their key parts, those of the run it reused for a hit."""
    return Comparison(
        left=left,
        right=right,
        causes=explain.reasons(parts[0], parts[1], trees, locks),
        source=_source(left, right),
        outputs=_files(left.outputs, right.outputs, trees),
        artifacts=_files(left.artifacts, right.artifacts, trees),
        metrics=_mappings(left.metrics, right.metrics),
    )


def with_lines(comparison: Comparison, lines: Lines) -> tuple[Changed, ...]:
    """Give the outputs with the numbers of lines that were added and removed.

    `lines` counts them for two contents, or gives None for what is no text.
    """
    found = []
    for one in comparison.outputs:
        counted = lines(one.before, one.after) if one.before and one.after else None
        added, removed = counted if counted is not None else (-1, -1)
        found.append(
            Changed(name=one.name, before=one.before, after=one.after, added=added, removed=removed)
        )
    return tuple(found)


def _source(left: RunRecord, right: RunRecord) -> tuple[Changed, ...]:
    facts = ("project", "uri", "version", "commit", "branch", "backend", "sandbox", "status")
    pairs = [(name, str(getattr(left, name)), str(getattr(right, name))) for name in facts]
    pairs.append(("dirty", str(left.dirty).lower(), str(right.dirty).lower()))
    return tuple(Changed(name=n, before=b, after=a) for n, b, a in pairs if b != a)


def _files(left: str, right: str, trees: Trees) -> tuple[Changed, ...]:
    if left == right:
        return ()
    before, after = (trees(name) if name else () for name in (left, right))
    if before is None or after is None:
        return (Changed(name="(not in the store any more)", before=left[:12], after=right[:12]),)
    then, now = ({e.path: _identity(e) for e in tree} for tree in (before, after))
    return _mappings(then, now)


def _identity(entry: Entry) -> str:
    if entry.kind == "exec":
        return f"{entry.content} (executable)"
    return entry.content if entry.kind == "file" else f"{entry.kind} {entry.content}".strip()


def _mappings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Changed, ...]:
    return tuple(
        Changed(name=name, before=before.get(name, ""), after=after.get(name, ""))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )

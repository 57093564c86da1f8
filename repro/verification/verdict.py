"""The verdict about a result that was made again: what of it is the same, and what is not."""

from __future__ import annotations

from repro.value import Value, replace
from repro.verification import causes, differences, rules
from repro.verification.differences import Detail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from repro.manifest import Entry
    from repro.spec import Compare
    from repro.verification.causes import Traces

    Read = Callable[[str], bytes | None]

SAME, EQUAL, DIFFERENT, FAILED = "same", "equal", "different", "failed"
CHANGED, SKIPPED = "changed", "skipped"
LIMIT = 64 << 20
"""Larger contents are compared by their digests alone, unless a rule asks for more."""
STAMPS = ("run_id:", "model_uuid:", "model_id:", "utc_time_created:")
"""Lines that MLflow writes into the file `MLmodel` of every model, other ones each time."""


class Made(Value):
    """What one execution gave: files, files logged through MLflow, and metrics as text."""

    outputs: tuple[Entry, ...] = ()
    logged: tuple[Entry, ...] = ()
    metrics: Mapping[str, str] = {}
    traces: Traces


class Compared(Value):
    """One output, file that was logged, or metric: `kind` is `output`, `logged` or `metric`.

    `state` is `same` (to the bit), `equal` (by the rule `rule`) or `different`. `before` and
    `after` are SHA-256 digests, the targets of links, or the metric's values; empty for what is
    not there. `format` says as what contents were compared, `count` in how many places they
    differ, of which `details` are the first; `causes` are names of `causes.CAUSES`.
    """

    path: str
    kind: str
    state: str
    rule: str = "exact"
    before: str = ""
    after: str = ""
    format: str = ""
    count: int = 0
    details: tuple[Detail, ...] = ()
    causes: tuple[str, ...] = ()


class Trial(Value):
    """One execution for a verification. `name` is that of a variation, empty for a repetition.

    `state` is `same`, `equal`, `different` or `failed`, for a variation also `changed` (it gave
    something else than the same execution without it) or `skipped`; `why` says why. `outputs`
    are those that are not the same.
    """

    name: str = ""
    state: str
    why: str = ""
    run_id: str = ""
    wall_ns: int = 0
    outputs: tuple[Compared, ...] = ()


class Verdict(Value):
    """What verifying a run gave. `repetitions` were compared with it, `variations` with them.

    `compared` counts what the run made: outputs, logged files and metrics. `unstable` are the
    outputs that were different in two executions under the same conditions. `source` says what
    was run, `environment` how it came about. `attested` says whether there is an attestation of the
    result, and `faults` what keeps it from being one about this result.
    """

    key: str
    run_id: str
    project: str
    entry_point: str
    at_ns: int
    compared: int
    repetitions: tuple[Trial, ...]
    variations: tuple[Trial, ...] = ()
    unstable: tuple[str, ...] = ()
    source: str = ""
    environment: str = ""
    attested: bool = False
    faults: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Give the worst of it: `same`, `equal`, `different` or `failed`."""
        states = {trial.state for trial in self.repetitions}
        if FAILED in states:
            return FAILED
        if DIFFERENT in states or any(t.state in (CHANGED, FAILED) for t in self.variations):
            return DIFFERENT
        return EQUAL if EQUAL in states else SAME

    @property
    def good(self) -> bool:
        """Say whether the result came about again, and is what its attestation says."""
        return self.state in (SAME, EQUAL) and not self.faults

    @property
    def times(self) -> int:
        """Count the executions that were compared."""
        return len(self.repetitions) + sum(t.state != SKIPPED for t in self.variations)

    @property
    def dependences(self) -> tuple[str, ...]:
        """Name the variations that changed the result, or made the step fail."""
        return tuple(t.name for t in self.variations if t.state in (CHANGED, FAILED))

    @property
    def differed(self) -> tuple[str, ...]:
        """Give the paths of what was different in any of the executions."""
        trials = (*self.repetitions, *self.variations)
        found = {c.path for t in trials for c in t.outputs if c.state == DIFFERENT}
        return tuple(sorted(found))


CLASSES = {c.__name__: c for c in (Verdict, Trial, Compared, Detail)}


def compare(then: Made, now: Made, wanted: Iterable[Compare], read: Read) -> tuple[Compared, ...]:
    """Compare what two executions made; gives what is not the same to the bit.

    `wanted` are the rules of the step, for outputs by path, files that were logged by path, and
    metrics by name. `read` gives a content by its digest, None where it is not in the store.
    """
    given = tuple(wanted)
    comparing = _Comparing(given, read, (then.traces, now.traces))
    found = [
        *comparing.files("output", then.outputs, now.outputs),
        *comparing.files("logged", then.logged, now.logged),
        *comparing.metrics(then.metrics, now.metrics),
    ]
    return tuple(one for one in found if one.state != SAME)


def state_of(found: Iterable[Compared]) -> str:
    """Give the worst state of some outputs."""
    states = {one.state for one in found}
    return DIFFERENT if DIFFERENT in states else EQUAL if EQUAL in states else SAME


class _Comparing:
    """One comparison of two executions."""

    def __init__(
        self, wanted: tuple[Compare, ...], read: Read, traces: tuple[Traces, Traces]
    ) -> None:
        self.wanted = wanted
        self.read = read
        self.traces = traces

    def files(
        self, kind: str, before: tuple[Entry, ...], after: tuple[Entry, ...]
    ) -> Iterable[Compared]:
        then, now = ({e.path: e for e in entries} for entries in (before, after))
        for path in sorted(then.keys() | now.keys()):
            yield self._file(path, kind, then.get(path), now.get(path))

    def _file(self, path: str, kind: str, then: Entry | None, now: Entry | None) -> Compared:
        rule = rules.rule_for(path, self.wanted)
        found = Compared(
            path=path,
            kind=kind,
            state=SAME,
            rule=rules.words(rule),
            before=then.content if then else "",
            after=now.content if now else "",
        )
        if then == now:
            return found
        if rule.rule == "ignore":
            return replace(found, state=EQUAL)
        if then is None or now is None:
            there = ("(none)", "(there)")
            detail = Detail(place="", before=there[then is not None], after=there[now is not None])
            return replace(found, state=DIFFERENT, count=1, details=(detail,))
        if then.kind != now.kind or then.kind not in ("file", "exec"):
            detail = Detail(place="kind", before=_kind(then), after=_kind(now))
            return replace(found, state=DIFFERENT, count=1, details=(detail,))
        return self._contents(found, rule, max(then.size, now.size))

    def _contents(self, found: Compared, rule: Compare, size: int) -> Compared:
        if size > LIMIT and rule.rule == "exact":
            return replace(found, state=DIFFERENT, count=1, format="too large to look into")
        before, after = self.read(found.before), self.read(found.after)
        if before is None or after is None:
            return replace(found, state=DIFFERENT, count=1, format="not in the store any more")
        if rules.agree(before, after, rule):
            return replace(found, state=EQUAL)
        if found.kind == "logged" and _is_stamped(found.path, before, after):
            return replace(found, state=EQUAL, rule="all but the stamps of MLflow")
        seen = differences.look(before, after)
        likely = dict.fromkeys((*seen.causes, *causes.causes(seen.pairs, self.traces)))
        return replace(
            found,
            state=DIFFERENT,
            format=seen.kind,
            count=seen.count,
            details=seen.details,
            causes=tuple(likely),
        )

    def metrics(self, before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Compared]:
        for name in sorted(before.keys() | after.keys()):
            rule = rules.rule_for(name, self.wanted)
            one, other = before.get(name, ""), after.get(name, "")
            state = SAME if one == other else DIFFERENT
            likely: tuple[str, ...] = ()
            if one != other and rule.rule == "ignore":
                state = EQUAL
            elif one and other and one != other:
                state = EQUAL if rules.close(float(one), float(other), rule) else DIFFERENT
                likely = causes.causes([causes.Pair(before=one, after=other)], self.traces)
            yield Compared(
                path=name,
                kind="metric",
                state=state,
                rule=rules.words(rule),
                before=one,
                after=other,
                count=1,
                causes=likely if state == DIFFERENT else (),
            )


def _kind(entry: Entry) -> str:
    return f"link to {entry.content}" if entry.kind == "link" else entry.kind


def _is_stamped(path: str, before: bytes, after: bytes) -> bool:
    """Say whether two descriptions of a model differ only in what MLflow stamps on each."""
    if path.rpartition("/")[2] != "MLmodel":
        return False
    texts = [
        [line for line in data.decode("utf-8", "replace").splitlines() if not _is_stamp(line)]
        for data in (before, after)
    ]
    return texts[0] == texts[1]


def _is_stamp(line: str) -> bool:
    return line.strip().startswith(STAMPS)

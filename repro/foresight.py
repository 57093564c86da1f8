"""What would happen if a project were run now: nothing is executed to find out."""

from __future__ import annotations

from repro import causes, engine
from repro.errors import ReproError
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.engine import Prepared
    from repro.events import Emit, Event
    from repro.explain import Reason
    from repro.machine import Machine
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.source import Upstream


def silent(_event: Event) -> None:
    """Take an event and do nothing."""


class Explanation(Value):
    """What would happen to a step now, and why.

    `state` is `hit`, `run`, or `depends` for a step that needs one that would run: its inputs are
    known only then. `step` is the id of the step among those of the run, `needs` those of the
    steps that it needs. `key` is empty for a step that depends. `commits` are those since the last
    run, where Git knows them.
    """

    entry_point: str
    key: str
    state: str
    step: str = ""
    needs: tuple[str, ...] = ()
    reused_run: str = ""
    summary: str = ""
    reasons: tuple[Reason, ...] = ()
    parts: Mapping[str, object] = {}
    commits: str = ""

    @property
    def hit(self) -> bool:
        """Say whether an earlier result would be reused."""
        return self.state == "hit"


def foresee(request: Request, machine: Machine, emit: Emit = silent) -> Explanation:
    """Say whether the step of a request would run now, and why, without running anything."""
    return foresee_all(request, machine, emit)[-1]


def foresee_all(
    request: Request, machine: Machine, emit: Emit = silent, again: tuple[str, ...] = ()
) -> tuple[Explanation, ...]:
    """Say of all steps of a request whether they would run now, in the order of the graph.

    `again` are steps that would be run whatever results there are, as in `Course`.
    """
    opened = engine.open_project(request, machine, emit)
    forced = opened.graph.after(again)
    told: dict[str, Explanation] = {}
    made: dict[str, Upstream] = {}
    for node in opened.graph.nodes:
        waiting = [need for need in node.needs if not told[need].hit]
        if waiting:
            told[node.id] = Explanation(
                entry_point=node.entry.name,
                key="",
                state="depends",
                step=node.id,
                needs=node.needs,
                summary=f"if `{waiting[0]}` makes something else than before",
            )
            continue
        asked = replace(request, use_results=False) if node.id in forced else request
        upstream = tuple(made[need] for need in node.needs)
        prepared = engine.prepare_node(
            replace(opened, request=asked), node, upstream, machine, emit
        )
        told[node.id], outputs = _foreseen(prepared, machine)
        told[node.id] = replace(told[node.id], step=node.id, needs=node.needs)
        made[node.id] = engine.upstream_of(opened, node, outputs)
    opened.tree.remember()
    return tuple(told[node.id] for node in opened.graph.nodes)


def _foreseen(prepared: Prepared, machine: Machine) -> tuple[Explanation, tuple[Entry, ...]]:
    answer = engine.look_up(prepared, machine)
    if answer.result is not None:
        told = Explanation(
            entry_point=prepared.entry.name,
            key=prepared.key,
            state="hit",
            reused_run=answer.result.run_id,
            summary=f"its result is that of run {answer.result.run_id[:8]}",
            parts=answer.result.parts,
        )
        return told, answer.outputs
    reasons = causes.reasons(prepared, machine)
    earlier = machine.history.latest(prepared.source.project, prepared.entry.name)
    way = machine.way(prepared.source, earlier.commit) if earlier and not earlier.dirty else None
    if way is not None:
        lines = way.lines
        reasons = tuple(
            replace(r, lines=lines.get(r.name) if r.part == "file" else None) for r in reasons
        )
    told = Explanation(
        entry_point=prepared.entry.name,
        key=prepared.key,
        state="run",
        summary=answer.reason or causes.why(prepared, machine),
        reasons=reasons,
        commits=str(way or ""),
    )
    return told, ()


class StepState(Value):
    """The state of one entry point: `fresh`, `stale`, or `unknown` where it cannot be told."""

    entry_point: str
    state: str
    reason: str
    last_run: str = ""
    last_ns: int = 0


def states(request: Request, machine: Machine, emit: Emit = silent) -> tuple[StepState, ...]:
    """Give the state of every entry point of a project, with the parameters of its last run."""
    tree = machine.tree(request, lambda _text: None)
    project = tree.project(lambda t: machine.load(t, emit))
    return tuple(
        _state(replace(request, entry_point=e.name), tree.source.project, machine)
        for e in project.entry_points
    )


def _state(request: Request, project: str, machine: Machine) -> StepState:
    runs = machine.history.find(project=project, entry_point=request.entry_point, limit=1)
    last = runs[0] if runs else None
    if last is None and not request.parameters:
        return StepState(entry_point=request.entry_point, state="stale", reason="never run")
    given = {n: t for n, t, origin in last.parameters if origin != "default"} if last else {}
    try:
        told = foresee(replace(request, parameters={**given, **request.parameters}), machine)
    except ReproError as error:
        state, reason = "unknown", error.message
    else:
        state, reason = ("fresh", "") if told.hit else ("stale", told.summary)
    return StepState(
        entry_point=request.entry_point,
        state=state,
        reason=reason,
        last_run=last.run_id if last else "",
        last_ns=last.started_ns if last else 0,
    )

"""What a step has asked for, kept with its result, and looked at again before that is reused.

The key of a step that calls others says nothing of what they read: another project, a branch
that has moved, a lock. So its result serves as long as each of them would be a hit, with the
key that it had.
"""

from __future__ import annotations

import os

from repro import digest, engine, params, standins
from repro.drivers import asking
from repro.errors import ReproError
from repro.source import Upstream
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.drivers.asking import Where
    from repro.engine import Answer, Opened, Prepared
    from repro.graph import Node
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.store.results import Result
    from repro.world import Machine

    Pairs = tuple[tuple[Prepared, Answer], ...]

MEMO = "called"


def prefixed(entries: Iterable[Entry], inside: str) -> tuple[Entry, ...]:
    """Give entries of a folder of a project as those of the project."""
    prefix = f"{inside}/" if inside else ""
    return tuple(replace(entry, path=prefix + entry.path) for entry in entries)


class Made:
    """What the calls of one step make in its own project, and what those of earlier times made.

    What stands in the folder from earlier times is no input of a call that comes before the one
    that made it: every time begins as if nothing of it were there. Which call comes before which
    is known from the earlier times, by the names of the calls.
    """

    def __init__(self, caller: Prepared, machine: Machine) -> None:
        """Begin with nothing made; what is known of earlier times is read when it is needed."""
        self._caller = caller
        self._memos = machine.memos
        self._name = digest.of_value("repro/called", [caller.source.project, caller.entry.name])
        self._earlier: dict[str, dict[str, list[str]]] | None = None
        self._entries: dict[str, Entry] = {}
        self._states: dict[str, list[int]] = {}

    def add(self, entries: Iterable[Entry], folder: str = "") -> None:
        """Take note of what a call has made; it stands in `folder`."""
        for entry in entries:
            self._entries[entry.path] = entry
            if folder:
                self._states[entry.path] = files.state_of(os.path.join(folder, entry.path))

    def content(self, path: str) -> str:
        """Give the digest of a file that a call has made, empty for another."""
        entry = self._entries.get(path)
        return entry.content if entry else ""

    def is_as_made(self, path: str, state: list[int]) -> bool:
        """Say whether a file was made by a call and has not been changed."""
        return bool(state) and self._states.get(path) == state

    def before(self, call: str, inside: str | None) -> tuple[Upstream, ...]:
        """Give what the call of that name sees that begins now, in a folder of the project."""
        if inside is None:
            return ()
        prefix = f"{inside}/" if inside else ""
        outputs = tuple(
            replace(entry, path=path[len(prefix) :])
            for path, entry in self._entries.items()
            if path.startswith(prefix)
        )
        made = tuple(
            (path[len(prefix) :], content)
            for path, content in self._later(call)
            if path.startswith(prefix)
        )
        return (Upstream(outputs=outputs, made=made),) if outputs or made else ()

    def _later(self, call: str) -> list[tuple[str, str]]:
        """Give what stands in the folder and was made by the call, or by others after it."""
        placement, known = self._caller.placement, self._known()
        if placement is None:
            return []
        others = known["unseen"].get(call, ())
        paths = {path for other in others for path in known["made"].get(other, ())}
        standing = placement.made_by(self._caller.entry.name)
        return [(path, content) for path, content in standing.items() if path in paths]

    def _known(self) -> dict[str, dict[str, list[str]]]:
        if self._earlier is None:
            found = self._memos.get(MEMO, self._name)
            self._earlier = found if isinstance(found, dict) else {"made": {}, "unseen": {}}
        return self._earlier

    def remember(self, calls: Iterable[tuple[str, set[str], set[str]]]) -> None:
        """Keep, for the next time, what each call made and which others it has not seen.

        `calls` are (name, paths, names of those that it has seen).
        """
        placement, known = self._caller.placement, self._known()
        if placement is None:
            return
        calls = list(calls)
        standing = placement.made_by(self._caller.entry.name)
        for name, paths, _seen in calls:
            ever = {*paths, *known["made"].get(name, ())}
            known["made"][name] = sorted(path for path in ever if path in standing)
        for name, _paths, seen in calls:
            others = {other for other, _p, _s in calls} - seen
            known["unseen"][name] = sorted({*others, *known["unseen"].get(name, ())})
        self._memos.put(MEMO, self._name, known)


def name_of(inside: str | None, entry_point: str) -> str:
    """Give the name of a call, by which it is known again."""
    return f"{inside}:{entry_point}"


def plain(
    opened: Opened, place: Where, caller: Prepared, result: Result | None, set_: Mapping[str, str]
) -> dict[str, Any] | None:
    """Give a call as data from which it can be made again, None where that is not possible.

    Files among its parameters are known by their content, since they may be gone. Secrets are not
    kept, and so no call that has one. `set_` are variables that the caller had set.
    """
    request, target = opened.request, opened.graph.target
    if result is None:
        return None
    keyed = {name: text for name, _kind, text in result.parts["parameters"]}
    bound = [a for a in params.bind(target.entry, target.given) if a.text is not None]
    if any(argument.kind == "secret" for argument in bound):
        return None
    paths = [
        standins.of_parameter(a.name, standins.of(keyed[a.name], a.name))
        for a in bound
        if a.kind == "path"
    ]
    passed = {name for node in opened.graph.nodes for name in node.entry.pass_env}
    usual = asking.own(caller, place.inside).version if place.inside is not None else ""
    return {
        "inside": place.inside,
        "uri": place.uri if place.inside is None else "",
        "version": "" if place.version == usual else place.version,
        "entry_point": request.entry_point,
        "env_manager": request.env_manager,
        "parameters": {a.name: a.text for a in bound if a.origin != "default"},
        "stand_ins": [list(pair) for pair in (*request.stand_ins, *paths)],
        "container": dict(request.container),
        "variables": {name: text for name, text in set_.items() if name in passed},
        "key": result.key,
    }


def found(caller: Prepared, result: Result, machine: Machine) -> tuple[Pairs, str]:
    """Give each step that was asked for with its result, or say which of them differs now."""
    pairs: list[tuple[Prepared, Answer]] = []
    outputs: list[tuple[Entry, ...]] = []
    for call in result.calls:
        name = str(call.get("entry_point", "")) if isinstance(call, dict) else ""
        try:
            nodes, why = _looked_up(call, outputs, caller, machine)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return (), f"what run {result.run_id[:8]} called cannot be read"
        except ReproError as error:
            return (), f"`{name}`, which it calls, would not be the same: {error.message}"
        if why:
            return (), f"`{name}`, which it calls, would run: {why}"
        pairs += nodes
        made = [entry for _prepared, answer in nodes for entry in answer.outputs]
        outputs.append(prefixed(made, call["inside"]) if call["inside"] is not None else ())
    return tuple(pairs), ""


def _looked_up(
    call: Mapping[str, Any],
    outputs: list[tuple[Entry, ...]],
    caller: Prepared,
    machine: Machine,
) -> tuple[list[tuple[Prepared, Answer]], str]:
    """Look for the results of one call; say why they do not serve, or nothing."""
    made = Made(caller, machine)
    for position in call["seen"]:
        made.add(outputs[position])
    inner = machine.within(caller, call["variables"])
    try:
        request = _request(call, caller)
        same = call["inside"] == "" and not call["version"]
        tree = caller.tree if same else None
        opened = engine.open_project(request, inner, _unheard, tree)
        if caller.request.output:
            opened = replace(opened, placement=None)
        name = name_of(call["inside"], call["entry_point"])
        before = made.before(name, call["inside"])
        return _nodes(replace(opened, before=before), call["key"], inner)
    finally:
        inner.close()


def _request(call: Mapping[str, Any], caller: Prepared) -> Request:
    inside = call["inside"]
    place = asking.Where(uri=call["uri"]) if inside is None else asking.own(caller, inside)
    if call["version"]:
        place = replace(place, version=call["version"])
    return replace(
        asking.request(place, caller, call["parameters"]),
        entry_point=call["entry_point"],
        env_manager=call["env_manager"],
        container=call["container"],
        stand_ins=tuple((path, text) for path, text in call["stand_ins"]),
    )


def _nodes(opened: Opened, key: str, machine: Machine) -> tuple[list[tuple[Prepared, Answer]], str]:
    pairs: list[tuple[Prepared, Answer]] = []
    made: dict[str, Upstream] = {}
    for node in opened.graph.nodes:
        prepared = _prepared(opened, node, tuple(made[need] for need in node.needs), machine)
        answer = engine.look_up(prepared, machine)
        if answer.result is None:
            return [], answer.reason or f"its key is now {prepared.key[:12]}"
        made[node.id] = engine.upstream_of(opened, node, answer.outputs)
        pairs.append((prepared, answer))
    now = pairs[-1][0].key
    return pairs, "" if now == key else f"its key is now {now[:12]}"


def _prepared(
    opened: Opened, node: Node, upstream: tuple[Upstream, ...], machine: Machine
) -> Prepared:
    return engine.prepare_node(opened, node, upstream, machine, _unheard)


def _unheard(_event: object) -> None:
    """Say nothing while looking."""

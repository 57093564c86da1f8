"""The order of steps as a state machine: what may start, given what has ended."""

from __future__ import annotations

import heapq

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.graph import Graph, Node

DONE, FAILED, SKIPPED = "done", "failed", "skipped"


class Capacity(Value):
    """What steps may use at the same time. `memory` is in bytes; what is 0 is not counted.

    Steps that are `elsewhere`, by their ids, use none of it, and are counted in `jobs` alone.
    """

    jobs: int = 1
    cpus: int = 0
    memory: int = 0
    gpus: int = 0
    elsewhere: frozenset[str] = frozenset()


class Schedule:
    """The progress of one run.

    Steps start in the order of the graph as soon as what they need is done and the capacity has
    room. After a failure no other step starts, unless `keep_going`: then only those do not that
    need what failed.
    """

    def __init__(self, graph: Graph, capacity: Capacity, *, keep_going: bool = False) -> None:
        """Begin with nothing started."""
        self.graph = graph
        self.capacity = capacity
        self.keep_going = keep_going
        self.states: dict[str, str] = {}
        self.running: dict[str, Node] = {}
        self._position = {node.id: i for i, node in enumerate(graph.nodes)}
        self._waits = {node.id: len(node.needs) for node in graph.nodes}
        self._dependents: dict[str, list[str]] = {}
        for node in graph.nodes:
            for need in node.needs:
                self._dependents.setdefault(need, []).append(node.id)
        self._ready: dict[tuple[int, ...], list[int]] = {}  # positions, by what steps ask for
        for node in graph.nodes:
            if not node.needs:
                self._make_ready(node.id)
        self._failed = False

    @property
    def is_over(self) -> bool:
        """Say whether nothing runs and nothing more will start."""
        return not self.running and not self._ready

    def next(self) -> Node | None:
        """Give a step that may start now, and count it as running; None where there is none."""
        if len(self.running) >= self.capacity.jobs:
            return None
        fitting = [asked for asked in self._ready if self._has_room(asked)]
        if not fitting:
            return None
        first = min(fitting, key=lambda asked: self._ready[asked][0])
        found = self.graph.nodes[heapq.heappop(self._ready[first])]
        if not self._ready[first]:
            del self._ready[first]
        self.running[found.id] = found
        return found

    def end(self, name: str, *, good: bool) -> None:
        """Take note that a running step has ended."""
        del self.running[name]
        self.states[name] = DONE if good else FAILED
        if good:
            self._release(name)
        else:
            self._failed = True
            self._skip(name)
            if not self.keep_going:
                self._ready.clear()

    def skipped(self) -> Iterator[Node]:
        """Give the steps that did not run, in the order of the graph, once the run is over."""
        for node in self.graph.nodes:
            if self.states.get(node.id, SKIPPED) == SKIPPED:
                yield node

    def _release(self, name: str) -> None:
        for dependent in self._dependents.get(name, ()):
            self._waits[dependent] -= 1
            may_start = dependent not in self.states and (self.keep_going or not self._failed)
            if self._waits[dependent] == 0 and may_start:
                self._make_ready(dependent)

    def _make_ready(self, name: str) -> None:
        position = self._position[name]
        asked = self._asked(self.graph.nodes[position])
        heapq.heappush(self._ready.setdefault(asked, []), position)

    def _skip(self, name: str) -> None:
        stack = list(self._dependents.get(name, ()))
        while stack:
            dependent = stack.pop()
            if dependent not in self.states:
                self.states[dependent] = SKIPPED
                stack += self._dependents.get(dependent, ())

    def _asked(self, node: Node) -> tuple[int, ...]:
        """Give what a step takes of the capacity, in one order; nothing for one elsewhere."""
        if node.id in self.capacity.elsewhere:
            return ()
        resources = node.entry.resources
        return resources.cpus, resources.memory, resources.gpus

    def _has_room(self, asked: tuple[int, ...]) -> bool:
        here = [used for used in map(self._asked, self.running.values()) if used]
        if not here or not asked:
            return True  # a step that is larger than the machine runs alone
        limits = (self.capacity.cpus, self.capacity.memory, self.capacity.gpus)
        amounts = zip(asked, *here, strict=True)
        return all(
            sum(amount) <= limit for amount, limit in zip(amounts, limits, strict=True) if limit
        )

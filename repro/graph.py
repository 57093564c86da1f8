"""Which steps a run consists of: the entry point asked for, and what it needs, in order."""

from __future__ import annotations

from bisect import bisect_left

from repro import manifest, params, plan
from repro.errors import GraphInvalid
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, ClassVar

    from repro.params import Argument
    from repro.spec import EntryPoint, Need, Project

WILD = "*?["


class Node(Value):
    """One step of a run: an entry point with the parameters it is called with.

    `id` is the name of the entry point, with the parameters where that alone is not enough to
    tell it from another node. `needs` are the ids of the nodes whose outputs it sees.
    """

    id: str
    entry: EntryPoint
    given: Mapping[str, Any]
    needs: tuple[str, ...] = ()


class Graph(Value):
    """The steps of one run; every node comes after those that it needs. The last is the target."""

    nodes: tuple[Node, ...]
    __derived__ = ("_by_id",)

    if TYPE_CHECKING:
        _by_id: ClassVar[Mapping[str, Node]]  # of each graph, made when it is first asked for

    @property
    def target(self) -> Node:
        """Give the step that was asked for."""
        return self.nodes[-1]

    def node(self, name: str) -> Node:
        """Give the node of that id."""
        try:
            return self._by_id[name]
        except AttributeError:
            object.__setattr__(self, "_by_id", {node.id: node for node in self.nodes})
            return self._by_id[name]

    def after(self, names: Iterable[str]) -> frozenset[str]:
        """Give some nodes with everything that comes after them."""
        found = set(names)
        for node in self.nodes:
            if not found.isdisjoint(node.needs):
                found.add(node.id)
        return frozenset(found)


def of(project: Project, name: str, given: Mapping[str, Any], shell: str) -> Graph:
    """Give the graph of a run.

    An entry point needs those that its `needs:` names, and those that declare as an output what
    it declares as an input. Raises EntryPointUnknown, ParameterInvalid, and GraphInvalid for a
    cycle and for two steps that declare the same output.
    """
    entry = plan.entry_point(project, name, shell)
    if not entry.needs and not entry.inputs:
        return Graph(nodes=(Node(id=name, entry=entry, given=given),))
    graph = _Walk(project, shell).graph(entry, given)
    _refuse_rivals(graph)
    return graph


class _Call(Value):
    """An entry point with parameters, on the way to become a node."""

    entry: EntryPoint
    given: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Tell it from others: values count as the texts that they become."""
        return self.entry.name, tuple(sorted((n, str(v)) for n, v in self.given.items()))


class _Walk:
    """Collects the nodes in the order in which they can run, without recursion."""

    def __init__(self, project: Project, shell: str) -> None:
        self.project = project
        self.shell = shell
        self.makers = _Makers(project.entry_points)

    def graph(self, entry: EntryPoint, given: Mapping[str, Any]) -> Graph:
        target = _Call(entry=entry, given=given)
        needs: dict[Any, tuple[_Call, ...]] = {}
        order: list[_Call] = []
        stack: list[tuple[_Call, Iterator[_Call]]] = [(target, self._iterate(target, needs))]
        open_keys = {target.key: 0}
        while stack:
            call, rest = stack[-1]
            child = next(rest, None)
            if child is None:
                stack.pop()
                del open_keys[call.key]
                order.append(call)
            elif child.key in open_keys:
                path = [c.entry.name for c, _rest in stack[open_keys[child.key] :]]
                raise _cycle([*path, child.entry.name])
            elif child.key not in needs:
                open_keys[child.key] = len(stack)
                stack.append((child, self._iterate(child, needs)))
        return _named(order, needs)

    def _iterate(self, call: _Call, needs: dict[Any, tuple[_Call, ...]]) -> Iterator[_Call]:
        found = tuple(self._needs(call))
        needs[call.key] = found
        return iter(found)

    def _needs(self, call: _Call) -> Iterator[_Call]:
        entry = call.entry
        arguments = params.bind(entry, call.given)
        declared = {need.step for need in entry.needs}
        for need in entry.needs:
            other = self.project.entry_point(need.step)
            if other is None:
                raise GraphInvalid(
                    f"entry point `{entry.name}` needs `{need.step}`, which is not there",
                    hints=[f"entry points: {', '.join(e.name for e in self.project.entry_points)}"],
                )
            yield self._checked(_Call(entry=other, given=_filled(need, arguments)), entry)
        for other in self.makers.of(entry):
            if other.name not in declared:
                yield self._checked(_Call(entry=other, given={}), entry)

    @staticmethod
    def _checked(call: _Call, asker: EntryPoint) -> _Call:
        missing = [
            p.name
            for p in call.entry.parameters
            if p.default is None and not p.optional and not p.flag and p.name not in call.given
        ]
        if missing:
            raise GraphInvalid(
                f"entry point `{asker.name}` needs `{call.entry.name}`, "
                f"whose parameter `{missing[0]}` has no value",
                hints=[
                    f"write `needs: [{{step: {call.entry.name}, "
                    f"parameters: {{{missing[0]}: ...}}}}]` in `{asker.name}`"
                ],
            )
        return call


def _filled(need: Need, arguments: tuple[Argument, ...]) -> dict[str, str]:
    """Give the parameters of a need; `{name}` stands for a parameter of the one who needs it."""
    texts = {a.name: a.text for a in arguments if a.text is not None}
    found = {}
    for name, template in need.parameters.items():
        value = template
        for known, text in texts.items():
            value = value.replace(f"{{{known}}}", text)
        found[name] = value
    return found


def followers(project: Project, name: str) -> frozenset[str]:
    """Give the names of an entry point and of all that need it, directly or not."""
    if not any(entry.needs or entry.inputs for entry in project.entry_points):
        return frozenset((name,))
    makers = _Makers(project.entry_points)
    needed_by: dict[str, list[str]] = {}
    for entry in project.entry_points:
        needs = [need.step for need in entry.needs] + [other.name for other in makers.of(entry)]
        for need in needs:
            needed_by.setdefault(need, []).append(entry.name)
    found, stack = {name}, [name]
    while stack:
        new = set(needed_by.get(stack.pop(), ())) - found
        found |= new
        stack += new
    return frozenset(found)


def makes(entries: Iterable[EntryPoint], pattern: str) -> bool:
    """Say whether one of `entries` declares an output that an input `pattern` can name."""
    return bool(_Makers(entries).of_pattern(pattern))


def unmade(entries: Iterable[EntryPoint], patterns: Iterable[str]) -> Iterator[str]:
    """Give those of the input `patterns` that cannot name an output declared by `entries`."""
    makers = _Makers(entries)
    return (pattern for pattern in patterns if not makers.of_pattern(pattern))


class _Makers:
    """Which entry points declare what as an output.

    Everything is found without going through all of them, but for one glob among others.
    """

    def __init__(self, entries: Iterable[EntryPoint]) -> None:
        self.entries = {e.name: e for e in entries}
        self.plain: dict[str, list[str]] = {}
        self.folders: dict[str, list[str]] = {}
        self.wild: dict[str, list[tuple[str, str]]] = {}  # by what they begin with
        for entry in self.entries.values():
            for pattern in entry.outputs or ():
                path = _tidy(pattern)
                if _is_wild(path):
                    self.wild.setdefault(_fixed(path), []).append((path, entry.name))
                    continue
                self.plain.setdefault(path, []).append(entry.name)
                for folder in _above(path):
                    self.folders.setdefault(folder, []).append(entry.name)
        self.order = {name: i for i, name in enumerate(self.entries)}
        self.paths = sorted(self.plain)

    def of(self, entry: EntryPoint) -> list[EntryPoint]:
        """Give the entry points that make an input of `entry`."""
        found: dict[str, None] = {}
        for pattern in entry.inputs or ():
            found |= self.of_pattern(pattern)
        found.pop(entry.name, None)
        return [self.entries[name] for name in found]

    def of_pattern(self, pattern: str) -> dict[str, None]:
        """Give the names of the entry points that make what a pattern names, in order."""
        path = _tidy(pattern)
        names = self._of_glob(path) if _is_wild(path) else self._of_path(path)
        return dict.fromkeys(sorted(names, key=self.order.__getitem__))

    def _of_glob(self, pattern: str) -> Iterator[str]:
        matches, beginning = manifest.matcher((pattern,)), _fixed(pattern)
        for path in self.paths[bisect_left(self.paths, beginning) :]:
            if not path.startswith(beginning):
                break
            if matches(path):
                yield from self.plain[path]
        for wild in self.wild.values():
            yield from (name for path, name in wild if _may_meet(pattern, path))

    def _of_path(self, path: str) -> Iterator[str]:
        yield from self.plain.get(path, ())  # the file itself
        yield from self.folders.get(path, ())  # files in the folder that is the input
        for folder in _above(path):  # a file in a folder that is an output
            yield from self.plain.get(folder, ())
        for length in range(len(path) + 1) if self.wild else ():
            for wild, name in self.wild.get(path[:length], ()):
                if manifest.matcher((wild,))(path):
                    yield name


def _is_wild(path: str) -> bool:
    return any(char in path for char in WILD)


def _tidy(pattern: str) -> str:
    return pattern.removeprefix("./").rstrip("/")


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _may_meet(one: str, other: str) -> bool:
    """Say whether two globs can name the same path, as far as their fixed beginnings tell."""
    first, second = _fixed(one), _fixed(other)
    if not (first.startswith(second) or second.startswith(first)):
        return False
    last, other_last = _ending(one), _ending(other)
    return last.endswith(other_last) or other_last.endswith(last)


def _fixed(pattern: str) -> str:
    return pattern[: min(pattern.find(c) if c in pattern else len(pattern) for c in WILD)]


def _ending(pattern: str) -> str:
    return pattern[max(pattern.rfind(c) for c in "*?]") + 1 :]


def _cycle(path: list[str]) -> GraphInvalid:
    shown = " → ".join(f"`{name}`" for name in path)
    return GraphInvalid(
        f"steps need each other in a circle: {shown}",
        hints=["remove one of these from `needs:`, or from the declared `inputs:`"],
    )


def _named(order: list[_Call], needs: Mapping[Any, tuple[_Call, ...]]) -> Graph:
    """Give the nodes their ids."""
    count: dict[str, int] = {}
    for call in order:
        count[call.entry.name] = count.get(call.entry.name, 0) + 1
    names = {call.key: _id(call, alone=count[call.entry.name] == 1) for call in order}
    return Graph(
        nodes=tuple(
            Node(
                id=names[call.key],
                entry=call.entry,
                given=call.given,
                needs=tuple(dict.fromkeys(names[need.key] for need in needs[call.key])),
            )
            for call in order
        )
    )


def _id(call: _Call, *, alone: bool) -> str:
    if alone:
        return call.entry.name
    shown = ", ".join(f"{name}={text}" for name, text in call.key[1])
    return f"{call.entry.name}({shown})"


def _refuse_rivals(graph: Graph) -> None:
    """Raise GraphInvalid where two steps declare one output: the last one to run would win."""
    owners: dict[str, str] = {}
    for node in graph.nodes:
        for pattern in node.entry.outputs or ():
            path = _tidy(pattern)
            if _is_wild(path):
                continue
            owner = owners.setdefault(path, node.id)
            if owner != node.id:
                raise GraphInvalid(
                    f"the steps `{owner}` and `{node.id}` both declare the output `{path}`",
                    hints=["let each write to a path of its own, for example with a parameter"],
                )

"""The parts of an entry point that are checked already, as values."""

from __future__ import annotations

import posixpath

from repro import quantity
from repro.spec import Compare, Mount, Need, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.decode import Node


def items(node: Node | None) -> list[Node]:
    """Give the nodes of a list, and none of anything else."""
    return list(node.value) if node is not None and node.kind == "sequence" else []


def pairs(node: Node | None) -> list[tuple[Node, Node]]:
    """Give the pairs of a mapping, and none of anything else."""
    return node.items() if node is not None else []


def text(node: Node | None) -> str:
    """Give the characters of a scalar, none for no node."""
    return node.text if node is not None else ""


def texts(node: Node | None) -> tuple[str, ...]:
    """Give the items of a list as text."""
    return tuple(str(item.value) if item.text == "" else item.text for item in items(node))


def globs(node: Node | None) -> tuple[str, ...] | None:
    """Give a list of patterns; None where nothing is declared."""
    return None if node is None else texts(node)


def leaves(pattern: str) -> bool:
    """Say whether a pattern names what lies outside of the project."""
    return pattern.startswith("/") or posixpath.normpath(pattern).split("/", 1)[0] == ".."


def flag(node: Node | None, *, default: bool) -> bool:
    """Give a boolean, `default` for no node."""
    return default if node is None else bool(node.value)


def mapping(node: Node | None) -> dict[str, str]:
    """Give a mapping of texts."""
    return {str(key.value): value.text for key, value in pairs(node)}


def need(node: Node) -> Need:
    """Read an item of `needs:`."""
    if node.kind == "scalar":
        return Need(step=node.text)
    return Need(step=text(node.get("step")), parameters=mapping(node.get("parameters")))


def mount(node: Node) -> Mount:
    """Read an item of `mounts:`, written as `SOURCE:TARGET` or as a mapping."""
    if node.kind == "scalar":
        source, _, target = node.text.partition(":")
        return Mount(source=source, target=target)
    return Mount(
        source=text(node.get("source")),
        target=text(node.get("target")),
        version=text(node.get("version")),
    )


def resources(node: Node | None) -> Resources:
    """Read `resources:`."""
    if node is None:
        return Resources()
    cpus, memory, gpus = (node.get(name) for name in ("cpus", "memory", "gpus"))
    return Resources(
        cpus=cpus.value if cpus else 0,
        memory=quantity.size(memory.value) if memory else 0,
        gpus=gpus.value if gpus else 0,
    )


def compares(node: Node | None) -> tuple[Compare, ...]:
    """Read `compare:`."""
    return tuple(_compare(key, rule) for key, rule in pairs(node))


def _compare(key: Node, node: Node) -> Compare:
    if node.kind == "scalar":
        return Compare(pattern=str(key.value), rule=node.text)
    return Compare(
        pattern=str(key.value),
        rule="numeric",
        rtol=text(node.get("rtol")),
        atol=text(node.get("atol")),
    )

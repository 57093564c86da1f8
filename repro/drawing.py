"""The steps of a run as a picture: Mermaid, Graphviz, or SVG drawn here."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

COLOURS = {"hit": "#cfe8cf", "run": "#f7d9a8", "depends": "#fdf3d6"}
CHAR, HEIGHT, GAP_X, GAP_Y, PAD = 8, 34, 28, 46, 20


class Box(Value):
    """One step of the picture: its id, its state, and the ids of the steps it needs."""

    name: str
    state: str
    needs: tuple[str, ...] = ()


def mermaid(boxes: Iterable[Box]) -> str:
    """Draw in the language of Mermaid, as Markdown on many hosts shows it."""
    boxes = tuple(boxes)
    ids = {box.name: f"s{index}" for index, box in enumerate(boxes)}
    lines = ["flowchart TD"]
    for box in boxes:
        label = box.name.replace("&", "#amp;").replace('"', "#quot;")
        lines.append(f'    {ids[box.name]}["{label}"]:::{box.state}')
    lines += [f"    {ids[need]} --> {ids[box.name]}" for box in boxes for need in box.needs]
    lines += [f"    classDef {state} fill:{colour}" for state, colour in COLOURS.items()]
    return "\n".join(lines)


def dot(boxes: Iterable[Box]) -> str:
    """Draw in the language of Graphviz."""
    boxes = tuple(boxes)
    lines = ["digraph steps {", "    node [shape=box, style=filled]"]
    for box in boxes:
        lines.append(f'    {_quoted(box.name)} [fillcolor="{COLOURS[box.state]}"]')
        lines += [f"    {_quoted(need)} -> {_quoted(box.name)}" for need in box.needs]
    return "\n".join([*lines, "}"])


def svg(boxes: Iterable[Box]) -> str:
    """Draw as an SVG image: one row for each distance from the first steps."""
    boxes = tuple(boxes)
    rows = _rows(boxes)
    places: dict[str, tuple[int, int, int]] = {}
    widest = PAD
    for depth, row in enumerate(rows):
        x = PAD
        for box in row:
            width = max(60, CHAR * len(box.name) + 2 * CHAR)
            places[box.name] = (x, PAD + depth * (HEIGHT + GAP_Y), width)
            x += width + GAP_X
        widest = max(widest, x - GAP_X + PAD)
    height = 2 * PAD + len(rows) * HEIGHT + (len(rows) - 1) * GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{widest}" height="{height}" '
        'font-family="monospace" font-size="13">',
        *(_line(places[need], places[box.name]) for box in boxes for need in box.needs),
        *(_box(box, places[box.name]) for box in boxes),
        "</svg>",
    ]
    return "\n".join(parts)


def _rows(boxes: tuple[Box, ...]) -> list[list[Box]]:
    depths: dict[str, int] = {}
    rows: list[list[Box]] = []
    for box in boxes:  # each comes after those that it needs
        depth = max((depths[need] + 1 for need in box.needs), default=0)
        depths[box.name] = depth
        if depth == len(rows):
            rows.append([])
        rows[depth].append(box)
    return rows


def _line(start: tuple[int, int, int], end: tuple[int, int, int]) -> str:
    x1, y1 = start[0] + start[2] // 2, start[1] + HEIGHT
    x2, y2 = end[0] + end[2] // 2, end[1]
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#666"/>'


def _box(box: Box, place: tuple[int, int, int]) -> str:
    x, y, width = place
    middle = x + width // 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="4" '
        f'fill="{COLOURS[box.state]}" stroke="#666"/>'
        f'<text x="{middle}" y="{y + 22}" text-anchor="middle">{_escaped(box.name)}</text>'
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""`repro diff`: what differs between two runs, and what of it came first."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable
    from typing import Any

    from repro.comparison import Changed, Comparison
    from repro.machine import Machine

HELP = "compare two runs: what went in, what came out, and the first cause"
EPILOG = """\
examples:
  repro diff 3f6a 91bc           two runs, by the beginnings of their ids
  repro diff 3f6a 91bc --check   exit 5 where the results differ
  repro diff 3f6a 91bc --json
"""
OPTIONS = (Option(names=("--check",), kind="flag", help="exit with 5 if the results differ"),)
TEXT_LIMIT = 4 << 20
PAIRS_LIMIT = 4_000_000
"""Beyond that many pairs of lines, comparing them takes longer than anybody wants to wait."""
SHOWN = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("left", metavar="RUN", help="a run, by its id or its beginning")
    parser.add_argument("right", metavar="RUN", help="the run to compare it with")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro import api
    from repro.cli import render, session
    from repro.comparison import with_lines

    with session.machine(options) as machine:
        left = machine.history.get(options.text("left"))
        right = machine.history.get(options.text("right"))
        found = api.compare(left, right, machine)
        outputs = with_lines(found, lambda a, b: _lines(machine, a, b))
    if options.flag("json"):
        print(render.json_text(_document(found, outputs)))
    else:
        _show(found, outputs, render.Terminal(options.text("color") or "auto", sys.stdout))
    return errors.DIFFERENCE if options.flag("check") and not found.same_result else errors.OK


def _lines(machine: Machine, before: str, after: str) -> tuple[int, int] | None:
    """Count the lines that differ between two texts; None for what is no text, or is gone."""
    import difflib

    from repro.store.blobs import BlobMissing

    texts = []
    for name in (before.partition(" ")[0], after.partition(" ")[0]):
        try:
            data = machine.blobs.get(name)
        except (BlobMissing, ValueError):
            return None
        if len(data) > TEXT_LIMIT or b"\0" in data:
            return None
        texts.append(data.decode("utf-8", "replace").splitlines())
    if len(texts[0]) * len(texts[1]) > PAIRS_LIMIT:
        return None
    matcher = difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False)
    edits = [codes for codes in matcher.get_opcodes() if codes[0] != "equal"]
    added = sum(end - start for *_rest, start, end in edits)
    return added, sum(end - start for _tag, start, end, *_rest in edits)


def _show(found: Comparison, outputs: tuple[Changed, ...], terminal: Any) -> None:
    from repro.cli.render import clean, duration

    left, right = found.left, found.right
    terminal.line(f"{left.entry_point} {left.run_id[:8]} → {right.entry_point} {right.run_id[:8]}")
    _section(terminal, "causes", (str(reason) for reason in found.causes))
    _section(terminal, "source", (_line(c) for c in found.source))
    _section(terminal, "outputs", (_output(c) for c in outputs))
    _section(terminal, "logged files", (_line(c) for c in found.artifacts))
    _section(terminal, "metrics", (_metric(c) for c in found.metrics))
    terminal.line(f"time  {duration(left.wall_ns)} → {duration(right.wall_ns)}")
    terminal.line(clean(found.verdict))


def _section(terminal: Any, title: str, lines: Iterable[str]) -> None:
    from repro.cli.render import clean

    found = list(lines)
    if not found:
        return
    terminal.line(terminal.paint(title, "bold"))
    for line in found[:SHOWN]:
        terminal.line(f"  {clean(line)}")
    if len(found) > SHOWN:
        terminal.line(f"  and {len(found) - SHOWN} more")


def _line(one: Changed) -> str:
    return f"{one.name} {one.before[:60] or '(none)'} → {one.after[:60] or '(none)'}"


def _output(one: Changed) -> str:
    if one.added >= 0:
        return f"{one.name}  +{one.added} -{one.removed} lines"
    if not one.before or not one.after:
        return f"{one.name}  {'added' if one.after else 'removed'}"
    return f"{one.name}  {one.before[:12]} → {one.after[:12]}"


def _metric(one: Changed) -> str:
    try:
        change = float(one.after) - float(one.before)
    except ValueError:
        return _line(one)
    return f"{one.name} {one.before} → {one.after} ({change:+.6g})"


def _document(found: Comparison, outputs: tuple[Changed, ...]) -> dict[str, Any]:
    from repro.cli import documents

    def rows(changes: tuple[Changed, ...]) -> list[dict[str, Any]]:
        return [
            {"name": c.name, "before": c.before or None, "after": c.after or None} for c in changes
        ]

    return {
        "schema": "repro.diff/1",
        "left": found.left.run_id,
        "right": found.right.run_id,
        "same_key": found.same_key,
        "same_result": found.same_result,
        "verdict": found.verdict,
        "causes": documents.reasons(found.causes),
        "source": rows(found.source),
        "outputs": [
            {
                **row,
                "added_lines": c.added if c.added >= 0 else None,
                "removed_lines": c.removed if c.removed >= 0 else None,
            }
            for row, c in zip(rows(outputs), outputs, strict=True)
        ],
        "artifacts": rows(found.artifacts),
        "metrics": rows(found.metrics),
        "seconds": {"left": found.left.wall_ns / 1e9, "right": found.right.wall_ns / 1e9},
    }

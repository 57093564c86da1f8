"""`repro plan`: the steps of a run, in order, and whether and why each would run."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add
from repro.cli.run import OPTIONS as RUN_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.foresight import Explanation
    from repro.plan import Request

HELP = "show the steps of a run, and whether and why each would run"
EPILOG = """\
examples:
  repro plan                         what `repro run` would do
  repro plan . -e report             one entry point with all that it needs
  repro plan --format mermaid        a picture for a README
  repro plan --format svg > p.svg    a picture without any other tool

A step `depends` when one that it needs would run: it is reused after all if that makes what it
made before.
"""
FORMATS = ("text", "json", "mermaid", "dot", "svg")
TAKEN = ("entry_point", "version", "param_list", "env_manager", "from", "locked", "frozen")
OPTIONS = (
    *(option for option in RUN_OPTIONS if option.key in TAKEN),
    Option(
        names=("--format",),
        metavar="NAME",
        default="text",
        help=f"one of {', '.join(FORMATS)} (default: text)",
    ),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", nargs="?", default=".", metavar="URI", help="a project")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import run

    return tell(run.request_of(options), options, tuple(options.list("from")))


def tell(request: Request, options: Options, again: tuple[str, ...]) -> int:
    """Say what would happen to each step of a request now."""
    from repro import foresight
    from repro.cli import documents, render, session

    form = "json" if options.flag("json") else options.text("format") or "text"
    if form not in FORMATS:
        hints = [f"choose one of {', '.join(FORMATS)}"]
        raise errors.UsageError(f"no format `{form}`", hints=hints)
    with session.machine(options) as machine:
        told = foresight.foresee_all(request, machine, session.narrator(options), again)
    if form == "json":
        print(render.json_text(documents.plan(told)))
    elif form == "text":
        _show(told, options)
    else:
        print(_drawn(told, form))
    return errors.OK


def _show(told: tuple[Explanation, ...], options: Options) -> None:
    from repro.cli import render

    terminal = render.Terminal(options.text("color") or "auto", sys.stdout)
    words = {"hit": ("hit", "green"), "run": ("run", "yellow"), "depends": ("depends", "yellow")}
    for one in told:
        word, colour = words[one.state]
        key = f"  {one.key[:12]}" if one.key else ""
        summary = render.clean(one.summary)
        terminal.line(f"{one.step}  {terminal.paint(word, colour)}{key}  {summary}")
    count = {state: sum(one.state == state for one in told) for state in words}
    if len(told) > 1:
        terminal.line(
            f"{render.plural(len(told), 'step')}: {count['hit']} to reuse, "
            f"{count['run']} to run, {count['depends']} that depend on those"
        )


def _drawn(told: tuple[Explanation, ...], form: str) -> str:
    from repro import drawing

    boxes = [drawing.Box(name=one.step, state=one.state, needs=one.needs) for one in told]
    draw = {"mermaid": drawing.mermaid, "dot": drawing.dot, "svg": drawing.svg}[form]
    return draw(boxes)

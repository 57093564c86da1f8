"""`repro status`: which steps of a project are up to date."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = "say which steps of a project are up to date"
EPILOG = """\
examples:
  repro status            every entry point, with the parameters of its last run
  repro status --check    for CI: exit status 3 if a step would run
"""
OPTIONS = (
    Option(names=("--check",), kind="flag", help="exit with 3 if any step is not up to date"),
    Option(names=("--version", "-v"), metavar="VERSION", help="version of a Git project"),
    Option(names=("--env-manager",), metavar="NAME", help="environment to use"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", nargs="?", default=".", metavar="URI", help="a project")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro import foresight
    from repro.cli import documents, render, session, table

    with session.machine(options) as machine:
        found = foresight.states(session.request(options), machine, session.narrator(options))
        now = machine.now_ns()
    if options.flag("json"):
        print(render.json_text(documents.status(options.text("uri") or ".", found)))
    else:
        rows = [
            (
                s.entry_point,
                s.state,
                s.reason or "-",
                f"{s.last_run[:8]} {render.age(now - s.last_ns)} ago" if s.last_run else "-",
            )
            for s in found
        ]
        table.show(("STEP", "STATE", "REASON", "LAST RUN"), rows, options.text("color"))
    stale = [s for s in found if s.state != "fresh"]
    return errors.STALE if stale and options.flag("check") else errors.OK

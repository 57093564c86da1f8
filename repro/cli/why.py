"""`repro why`: what would happen to a step now, or why a run ran."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.foresight import Explanation
    from repro.plan import Request

HELP = "say why a step would run now, or why a run ran"
EPILOG = """\
examples:
  repro why                       the entry point `main` of this folder, before a run
  repro why . -e train -P lr=0.1  another entry point, with a parameter
  repro why 1a2b3c4d              a run of the past
"""
OPTIONS = (
    Option(names=("--entry-point", "-e"), metavar="NAME", default="main", help="entry point"),
    Option(names=("--version", "-v"), metavar="VERSION", help="version of a Git project"),
    Option(
        names=("--param-list", "--param", "-P"),
        kind="list",
        metavar="NAME=VALUE",
        help="a parameter; may be repeated",
    ),
    Option(names=("--env-manager",), metavar="NAME", help="environment to use"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "uri", nargs="?", default=".", metavar="RUN|URI", help="a run id, or a project"
    )
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli.run import request_of

    word = options.text("uri")
    if _is_run(word):
        return _of_run(word, options)
    return tell(request_of(options), options)


def tell(request: Request, options: Options) -> int:
    """Say what would happen to a step now."""
    from repro import foresight
    from repro.cli import documents, render, session

    with session.machine(options) as machine:
        told = foresight.foresee(request, machine, session.narrator(options))
    if options.flag("json"):
        print(render.json_text(documents.why(told)))
    else:
        _show(told)
    return errors.OK


def _show(told: Explanation) -> None:
    from repro.cli.render import clean

    verb = {"hit": "would hit", "run": "would run", "depends": "depends"}[told.state]
    key = f"  {told.key[:12]}" if told.key else ""
    print(f"{told.entry_point}  {verb}{key}  {clean(told.summary)}")
    if told.commits:
        print(f"  commits {told.commits}")
    for reason in told.reasons:
        print(f"  {clean(str(reason))}")


def _is_run(word: str) -> bool:
    import os

    letters = set("0123456789abcdef")
    return len(word) >= 4 and set(word) <= letters and not os.path.exists(word)  # noqa: PLR2004


def _of_run(word: str, options: Options) -> int:
    from repro.cli import documents, render, session
    from repro.cli.render import clean

    with session.machine(options) as machine:
        record = machine.history.get(word)
    if options.flag("json"):
        print(render.json_text(documents.why_of_run(record)))
    elif record.cached:
        print(f"{record.entry_point}  hit  {record.key[:12]}  reused run {record.origin_run}")
    else:
        print(f"{record.entry_point}  ran  {record.key[:12]}  {clean(record.reason)}")
    sys.stdout.flush()
    return errors.OK

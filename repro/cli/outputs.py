"""`repro outputs`: what a run made, listed or written somewhere."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = "list the outputs of a run, or write them into a folder"
EPILOG = """\
examples:
  repro outputs 1a2b3c4d                     paths, sizes and digests
  repro outputs 1a2b3c4d --to out            write them below `out`
  repro outputs 1a2b3c4d --only '*.json'     some of them
  repro outputs 1a2b3c4d --logged            files logged through MLflow, models among them
"""
OPTIONS = (
    Option(names=("--to",), metavar="DIR", help="write them below this folder"),
    Option(names=("--only",), kind="list", metavar="GLOB", help="only these; may be repeated"),
    Option(names=("--logged",), kind="flag", help="files that were logged through MLflow"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="run id, or the beginning of one")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro import api, manifest
    from repro.cli import documents, render, session, table

    only = options.list("only")
    keep = manifest.matcher(only) if only else lambda _path: True
    logged = options.flag("logged")
    with session.machine(options) as machine:
        record = machine.history.get(options.text("run"))
        entries = tuple(e for e in api.outputs(record, machine, logged=logged) if keep(e.path))
        if options.text("to"):
            paths = api.restore(record, entries, options.text("to"), machine)
            narrator = session.narrator(options)
            if not narrator.quiet:
                count = render.plural(len(paths), "file")
                narrator.terminal.line(f"wrote {count} below {options.text('to')}")
        if options.flag("json"):
            print(render.json_text(documents.outputs(record, entries)))
        elif not options.text("to"):
            rows = [(e.path, e.kind, render.size(e.size), e.content) for e in entries]
            table.show(("PATH", "KIND", "SIZE", "SHA256"), rows, options.text("color"))
    return errors.OK

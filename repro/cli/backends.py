"""`repro backends`: where steps can run, who brings each place, and what it lacks here."""

from __future__ import annotations

import os

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.cli.options import Options

HELP = "list the backends, and what each lacks here"
EPILOG = """\
examples:
  repro backends                what `repro run -b NAME` can be given

The settings of a backend are not looked at, and no cluster or remote daemon is asked.
"""


def add_arguments(_parser: ArgumentParser) -> None:
    """Declare no arguments."""


def execute(options: Options) -> int:
    """Run the command."""
    from repro import api
    from repro.cli import render, table

    found = api.backends(os.environ)
    if options.flag("json"):
        listed = [{"name": n, "from": origin, "lacks": lack} for n, origin, lack in found]
        print(render.json_text({"schema": "repro.backends/1", "backends": listed}))
    else:
        rows = [(name, origin, lack or "ready") for name, origin, lack in found]
        table.show(("BACKEND", "FROM", "STATE"), rows, options.text("color"))
    return errors.OK

"""`repro config`: which settings are in force, and who set them."""

from __future__ import annotations

import os

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.cli.options import Options

HELP = "show the settings in force, and where each comes from"
EPILOG = """\
examples:
  repro config show
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=("show",), nargs="?", default="show", help="what to do")


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import render, table
    from repro.store.home import cache_home, data_home

    environ = os.environ
    rows = [
        ("store", cache_home(environ), "REPRO_HOME" if environ.get("REPRO_HOME") else "default"),
        ("history", data_home(environ), "REPRO_DATA" if environ.get("REPRO_DATA") else "default"),
        _row("environment tool", "REPRO_TOOL", "auto"),
        _row("build from source", "REPRO_SDISTS", "0"),
        _row("tracking server", "MLFLOW_TRACKING_URI", "-"),
    ]
    if options.flag("json"):
        document = {
            "schema": "repro.config/1",
            "settings": [{"name": n, "value": v, "source": s} for n, v, s in rows],
        }
        print(render.json_text(document))
    else:
        table.show(("SETTING", "VALUE", "SOURCE"), rows, options.text("color"))
    return errors.OK


def _row(name: str, variable: str, default: str) -> tuple[str, str, str]:
    given = os.environ.get(variable)
    if given and variable == "MLFLOW_TRACKING_URI":
        from repro.location import without_credentials

        given = without_credentials(given)
    return name, given or default, variable if given else "default"

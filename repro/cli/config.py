"""`repro config`: which settings are in force, and who set them."""

from __future__ import annotations

import os
import re

from repro import envvars, errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator, Mapping

    from repro.cli.options import Options

HELP = "show the settings in force, and where each comes from"
EPILOG = """\
examples:
  repro config                 every variable that counts, secrets masked
  repro config show --json     for programs
"""
MASK = "****"
LOGIN = re.compile(r"(://)[^/\s]*@|(/t/)[^/\s]+|(\?)[^\s,]+")
"""What may let somebody in: a login or a query in a URL, a token in that of a conda channel."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=("show",), nargs="?", default="show", help="what to do")


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import render, table

    rows = list(settings(os.environ))
    if options.flag("json"):
        names = ("group", "name", "value", "source")
        document = {
            "schema": "repro.config/1",
            "settings": [dict(zip(names, row, strict=True)) for row in rows],
        }
        print(render.json_text(document))
        return errors.OK
    table.show(("GROUP", "VARIABLE", "VALUE", "SOURCE"), rows, options.text("color"))
    return errors.OK


def settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Give group, name, value and source of every variable that repro reads; no secrets."""
    for group, variables in envvars.GROUPS.items():
        for name, (_meaning, default) in variables.items():
            if environ.get(name):
                yield group, name, _shown(name, environ[name]), "environment"
            else:
                yield group, name, _effective(name, environ) or default, "default"
    for name in sorted(environ):
        if name.startswith("REPRO_PYTHON_") and name not in envvars.VARIABLES:
            yield "pythons", name, environ[name], "environment"


def _effective(name: str, environ: Mapping[str, str]) -> str:
    """Give what stands for a variable that is not set, where that depends on others."""
    from repro.store.home import cache_home, data_home

    return {"REPRO_HOME": cache_home, "REPRO_DATA": data_home}.get(name, lambda _e: "")(environ)


def _shown(name: str, value: str) -> str:
    if name in envvars.SECRETS:
        return MASK
    return LOGIN.sub(lambda found: _masked(*found.groups("")), value)


def _masked(login: str, token: str, query: str) -> str:
    return f"{login or token or query}{MASK}{'@' if login else ''}"

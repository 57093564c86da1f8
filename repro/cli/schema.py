"""`repro schema`: the JSON Schemas of files and documents."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

HELP = "print a JSON Schema: of MLproject files, or of a --json document"
EPILOG = """\
examples:
  repro schema                      the names
  repro schema mlproject            the schema of MLproject files (2020-12)
  repro schema mlproject --draft7   the same for editors that know draft-07 only
"""
OPTIONS = (Option(names=("--draft7",), kind="flag", help="as draft-07, for older editors"),)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="which schema")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro import schemas
    from repro.cli import render

    name = options.text("name")
    if not name:
        print("\n".join(schemas.names()))
    elif options.flag("draft7"):
        print(render.json_text(draft7(schemas.load(name))))
    else:
        print(schemas.text(name), end="")
    return errors.OK


def draft7(schema: dict[str, Any]) -> dict[str, Any]:
    """Write a 2020-12 schema as draft-07: only the names of a few keywords differ."""

    def older(value: Any) -> Any:
        if isinstance(value, dict):
            renamed = {"definitions" if k == "$defs" else k: older(v) for k, v in value.items()}
            if "$ref" in renamed:
                # draft-07 ignores what stands beside a reference
                reference = renamed["$ref"].replace("#/$defs/", "#/definitions/")
                rest = {k: v for k, v in renamed.items() if k != "$ref"}
                return {**rest, "allOf": [{"$ref": reference}]} if rest else {"$ref": reference}
            return renamed
        return [older(item) for item in value] if isinstance(value, list) else value

    return {**older(schema), "$schema": "http://json-schema.org/draft-07/schema#"}

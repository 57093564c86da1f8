"""`repro validate`: everything that is wrong, or unwise, in an MLproject."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = "check an MLproject file and the environment files it names"
EPILOG = """\
examples:
  repro validate               the project in this folder
  repro validate --strict      warnings count as errors
  repro validate . --json      for programs: file, line, column, code, hint
"""
OPTIONS = (
    Option(names=("--strict",), kind="flag", help="warnings count as errors"),
    Option(names=("--version", "-v"), metavar="VERSION", help="version of a Git project"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", nargs="?", default=".", metavar="URI", help="a project")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command: 0 for a good project, 4 for one with findings."""
    from repro import api
    from repro.cli import render, session

    with session.machine(options) as machine:
        try:
            name, project, problems = api.inspect(session.request(options), machine)
        except errors.ProjectInvalid as error:
            name, project, problems = "", None, error.problems
    levels = ("error", "warning", "info")
    problems = tuple(sorted(problems, key=lambda p: levels.index(p.level)))
    bad = [p for p in problems if p.level in levels[: 1 + options.flag("strict")]]
    if project is not None and not project.file:
        raise errors.ProjectMissing(
            f"there is no MLproject file in `{options.text('uri') or '.'}`",
            hints=["a project without one runs scripts only, for example `-e train.py`"],
        )
    if options.flag("json"):
        document = {
            "schema": "repro.validate/1",
            "project": name or None,
            "valid": not bad,
            "problems": [render.problem_document(p) for p in problems],
        }
        print(render.json_text(document))
    else:
        terminal = render.Terminal(options.text("color") or "auto", sys.stdout)
        for problem in problems:
            render.show_problem(terminal, problem)
        count = len(project.entry_points) if project else 0
        entries = f"{count} entry point{'' if count == 1 else 's'}"
        errors_found = sum(p.level == "error" for p in problems)
        warnings = sum(p.level == "warning" for p in problems)
        terminal.line(
            f"{entries}, {render.plural(errors_found, 'error')}, "
            f"{render.plural(warnings, 'warning')}"
        )
    return errors.FINDINGS if bad else errors.OK

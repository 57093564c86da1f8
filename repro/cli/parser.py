"""The argument tree: every command with its help, for all calls that are not on the hot path."""

from __future__ import annotations

import argparse
import sys

from repro import __version__, cli, errors
from repro.cli.options import COMMON, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EPILOG = """\
examples:
  repro run . -P alpha=0.5              run the project in this folder; again: a hit
  repro run https://host/project.git    run a project from a Git remote
  repro why .                           what would run now, and why
  repro log                             the runs so far

`repro help exit-codes` and `repro help environment` say more.
"""


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports mistakes as the rest of repro does."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing and exiting."""
        from repro.decode import nearest

        hints = [f"`{self.prog} --help` shows how it is used"]
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            word = message.removeprefix(prefix).split()[0].partition("=")[0]
            near = nearest(word, [s for a in self._actions for s in a.option_strings])
            if near:
                hints.insert(0, f"a similar option exists: `{near}`")
        raise errors.UsageError(message, hints=hints)


def build() -> Parser:
    """Make the tree."""
    parser = Parser(
        prog="repro",
        description="Run MLproject projects as deterministic, cached, explained steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"repro {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name in cli.COMMANDS:
        module = cli.command(name)
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        add(sub, COMMON)
    return parser


def execute(argv: list[str]) -> int:
    """Parse a command line and run its command."""
    parser = build()
    # argparse lists every command for an unknown one; the nearest is more use
    if argv and not argv[0].startswith("-") and argv[0] not in cli.COMMANDS:
        from repro.decode import nearest

        near = nearest(argv[0], cli.COMMANDS)
        hint = f"a similar command exists: `{near}`" if near else "`repro --help` lists them"
        raise errors.UsageError(f"no command `{argv[0][:40]}`", hints=[hint])
    found = parser.parse_args(argv)
    if found.command is None:
        parser.print_help(sys.stdout)
        return errors.OK
    status: int = cli.command(found.command).execute(Options(vars(found)))
    return status

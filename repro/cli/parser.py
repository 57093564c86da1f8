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

    commands: argparse._SubParsersAction[Parser]

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing and exiting."""
        raise errors.UsageError(message, hints=[f"`{self.prog} --help` shows how it is used"])

    def refuse(self, words: list[str], command: str) -> NoReturn:
        """Raise UsageError for words that mean nothing, naming the nearest option."""
        from repro.decode import nearest

        sub = self.commands.choices[command]
        word = words[0].partition("=")[0]
        near = nearest(word, [s for action in sub._actions for s in action.option_strings])  # noqa: SLF001
        hint = f"a similar option exists: `{near}`" if near else ""
        hints = [hint, f"`repro {command} --help` shows how it is used"]
        raise errors.UsageError(f"`{word[:60]}` means nothing here", hints=hints[not hint :])


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
    parser.commands = commands
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
    found, rest = parser.parse_known_args(argv)
    if rest:
        parser.refuse(rest, found.command)
    if found.command is None:
        parser.print_help(sys.stdout)
        return errors.OK
    status: int = cli.command(found.command).execute(Options(vars(found)))
    return status

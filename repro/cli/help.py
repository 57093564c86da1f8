"""`repro help`: topics that belong to no single command."""

from __future__ import annotations

from repro import envvars, errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.cli.options import Options

HELP = "explain a topic: exit-codes, environment, or a command"
EPILOG = """\
examples:
  repro help exit-codes
  repro help environment
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("topic", nargs="?", default="", metavar="TOPIC", help="what to explain")


def execute(options: Options) -> int:
    """Run the command."""
    from repro import cli
    from repro.cli import parser

    topic = options.text("topic")
    if topic == "exit-codes":
        for code, meaning in errors.EXIT_MEANINGS:
            print(f"{code:>4}  {meaning}")
    elif topic == "environment":
        _environment()
    elif topic in cli.COMMANDS:
        return parser.execute([topic, "--help"])
    elif topic:
        raise errors.UsageError(
            f"no topic `{topic}`", hints=["topics: exit-codes, environment, or a command"]
        )
    else:
        return parser.execute([])
    return errors.OK


def _environment() -> None:
    width = max(len(name) for group in envvars.GROUPS.values() for name in group)
    for title, group in envvars.GROUPS.items():
        print(f"{title}:")
        for name, (meaning, default) in group.items():
            print(f"  {name:<{width}}  {meaning} [{default}]")
        if title == "environments":
            print(f"  {'REPRO_PYTHON_3_11':<{width}}  path of Python 3.11; so for other versions")
        print()
    print("in brackets: what counts where a variable is not set. `repro config` shows your values")

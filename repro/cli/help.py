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
        for name, meaning in envvars.VARIABLES.items():
            print(f"{name:<16} {meaning}")
        print(f"{'REPRO_PYTHON_X_Y':<16} path of the Python X.Y for environments")
    elif topic in cli.COMMANDS:
        return parser.execute([topic, "--help"])
    elif topic:
        raise errors.UsageError(
            f"no topic `{topic}`", hints=["topics: exit-codes, environment, or a command"]
        )
    else:
        return parser.execute([])
    return errors.OK

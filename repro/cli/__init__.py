"""The command line: finds the command, runs it, and turns what it raises into words."""

from __future__ import annotations

import os

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

COMMANDS = (
    "run",
    "plan",
    "attach",
    "cancel",
    "log",
    "show",
    "outputs",
    "why",
    "diff",
    "verify",
    "status",
    "validate",
    "lock",
    "audit",
    "schema",
    "env",
    "cache",
    "backends",
    "config",
    "completion",
    "help",
)


def main(argv: list[str]) -> int:
    """Run one command and give its exit status; nothing a user can do ends in a traceback."""
    as_json = "--json" in argv
    try:
        return _dispatch(argv)
    except errors.ReproError as error:
        from repro.cli import render

        render.error(error, as_json=as_json)
        return error.exit
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone: there is nobody left to tell
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        return errors.OK
    except OSError as error:
        from repro.cli import render
        from repro.system.files import explained

        problem = explained(error, "working")
        render.error(problem, as_json=as_json)
        return problem.exit
    except Exception as error:  # noqa: BLE001  (a bug of ours: reported, not shown raw)
        from repro.cli import render

        return render.bug(error, argv)


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] == "run":
        from repro.cli import run

        options = run.scan(argv[1:])
        if options is not None:
            return run.execute(options)
    from repro.cli import parser

    return parser.execute(argv)


def command(name: str) -> ModuleType:
    """Give the module of a command."""
    import importlib

    return importlib.import_module(f"repro.cli.{name}")

"""What every command that reads the store begins with."""

from __future__ import annotations

import os
from contextlib import contextmanager

from repro.cli.render import Narrator, Terminal
from repro.machine import Machine
from repro.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.cli.options import Options


@contextmanager
def machine(options: Options) -> Iterator[Machine]:
    """Open this machine for the time of a command that runs no project."""
    opened = Machine(os.environ, narrator(options), looks_only=True)
    try:
        yield opened
    finally:
        opened.close()


def narrator(options: Options) -> Narrator:
    """Give what tells of warnings and progress."""
    terminal = Terminal(options.text("color") or "auto")
    return Narrator(terminal, quiet=options.count("quiet"))


def request(options: Options) -> Request:
    """Give a request for a project as it is, with its defaults."""
    return Request(
        uri=options.text("uri") or ".",
        version=options.text("version"),
        env_manager=options.text("env_manager"),
        caller=os.getcwd(),
    )

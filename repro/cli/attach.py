"""`repro attach`: go on with a run whose process is gone and whose job is not."""

from __future__ import annotations

import os

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

HELP = "go on with a run whose own process is gone"
EPILOG = """\
examples:
  repro attach 1a2b3c4d      wait for its job, and record what comes of it

Jobs of docker, slurm, kubernetes and databricks go on when the repro that started them is killed,
or its machine restarts. Their output is shown from the beginning, their outputs are placed,
and their results are kept as if nothing had happened. Ctrl-C ends the job.
"""
OPTIONS = (
    Option(
        names=("--backend-config", "-c"),
        metavar="FILE",
        help="settings of the backend, if not those that the run began with",
    ),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="run id, or the beginning of one")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command: 0, or 1 where the step failed."""
    from repro.attaching import attach
    from repro.cli import documents, interruption, render, session
    from repro.repeating import Recalling

    interruption.arm()
    machine = Recalling(os.environ, session.narrator(options))
    try:
        config = options.text("backend_config") or None
        done = attach(options.text("run"), machine, machine.emit, config)
    finally:
        machine.close()
    if options.flag("json"):
        print(render.json_text(documents.run(done)))
    else:
        print(done.run_id)
    return errors.OK if done.status == "FINISHED" else errors.FAILED

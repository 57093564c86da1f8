"""`repro cancel`: end a run that is under way, wherever it runs."""

from __future__ import annotations

import os
import signal

from repro import errors
from repro.cli.options import Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine
    from repro.record import RunRecord

HELP = "end a run that is under way"
EPILOG = """\
examples:
  repro cancel 1a2b3c4d      a run that another terminal, or a process that is gone, has started

The process that runs it ends it and records it as killed. Where that process is gone, the container
or the job that it left behind is ended.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="run id, or the beginning of one")
    add(parser, ())


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import session

    with session.machine(options) as machine:
        run = machine.history.get(options.text("run"))
        owner = machine.history.owner(run.run_id)
        if owner is not None:
            _signal(run, owner)
        elif not _ended(run, machine):
            raise errors.UsageError(
                f"run {run.run_id[:8]} is not under way",
                hints=[f"`repro show {run.run_id[:8]}` says what became of it"],
            )
    print(f"asked run {run.run_id[:8]} to end" if owner else f"ended run {run.run_id[:8]}")
    return errors.OK


def _signal(run: RunRecord, owner: tuple[int, str]) -> None:
    number, host = owner
    if host != os.uname().nodename:
        raise errors.UsageError(
            f"run {run.run_id[:8]} was started on `{host}`",
            hints=["cancel it there"],
        )
    try:
        os.kill(number, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError:
        raise errors.UsageError(f"run {run.run_id[:8]} belongs to another user") from None


def _ended(run: RunRecord, machine: Machine) -> bool:
    """End what a process that is gone has left; say whether there was anything."""
    from repro import leftovers

    job = leftovers.job(run, machine)
    if job is None:
        return False
    job.cancel()
    leftovers.forget(run, machine)
    return True

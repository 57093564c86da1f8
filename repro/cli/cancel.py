"""`repro cancel`: end a run that is under way, wherever it runs."""

from __future__ import annotations

import os
import signal

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine
    from repro.record import RunRecord

HELP = "end a run that is under way"
EPILOG = """\
examples:
  repro cancel 1a2b3c4d      a run that another terminal, or a process that is gone, has started
  repro cancel --left        all containers and jobs whose processes are gone

The process that runs it ends it and records it as killed. Where that process is gone, the container
or the job that it left behind is ended.
"""
OPTIONS = (
    Option(
        names=("--left",), kind="flag", help="end all that processes which are gone left behind"
    ),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run", nargs="?", default="", metavar="RUN", help="run id, or the beginning of one"
    )
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import render, session

    if bool(options.text("run")) == options.flag("left"):
        raise errors.UsageError("name a run, or say `--left`", hints=["`repro log` lists runs"])
    with session.machine(options) as machine:
        ended = _left(machine) if options.flag("left") else _one(options.text("run"), machine)
    if options.flag("json"):
        rows = [{"run_id": run.run_id, "asked": asked} for run, asked in ended]
        print(render.json_text({"schema": "repro.cancel/1", "runs": rows}))
    else:
        for run, asked in ended:
            verb = "asked run {} to end" if asked else "ended run {}"
            print(verb.format(run.run_id[:8]))
    return errors.OK


def _one(prefix: str, machine: Machine) -> list[tuple[RunRecord, bool]]:
    """End one run; say whether its process was asked to."""
    run = machine.history.get(prefix)
    owner = machine.history.owner(run.run_id)
    if owner is not None:
        _signal(run, owner)
    elif not _ended(run, machine):
        raise errors.UsageError(
            f"run {run.run_id[:8]} is not under way",
            hints=[f"`repro show {run.run_id[:8]}` says what became of it"],
        )
    return [(run, owner is not None)]


def _left(machine: Machine) -> list[tuple[RunRecord, bool]]:
    """End all jobs that were left; a backend that does not answer keeps none of the others."""
    from repro import leftovers

    ended = []
    for run in leftovers.everything(machine):
        try:
            if _ended(run, machine):
                ended.append((run, False))
            else:
                leftovers.forget(run, machine)
        except errors.ReproError as error:
            machine.warn(f"run {run.run_id[:8]}: {error.message}")
    return ended


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

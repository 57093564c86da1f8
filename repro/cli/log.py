"""`repro log`: the table of runs."""

from __future__ import annotations

import os
import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine
    from repro.record import RunRecord
    from repro.store.verdicts import Verdicts

HELP = "list the runs so far, the latest first"
EPILOG = """\
examples:
  repro log                    the last 20 runs
  repro log -n 0 --json        all of them, for programs
  repro log -e train --failed  failed runs of one entry point
"""
OPTIONS = (
    Option(names=("--number", "-n"), metavar="N", default="20", help="how many; 0 is all"),
    Option(names=("--entry-point", "-e"), metavar="NAME", help="only runs of this entry point"),
    Option(names=("--project",), metavar="DIR|URI", help="only runs of this project"),
    Option(names=("--failed",), kind="flag", help="only runs that failed"),
    Option(
        names=("--verifications",),
        kind="flag",
        help="list what was executed to be compared, too",
    ),
    Option(
        names=("--deliver",),
        kind="flag",
        help="send runs that a tracking server missed, and list nothing",
    ),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import documents, render, session

    if not options.text("number").isdigit():
        raise errors.UsageError(f"`-n {options.text('number')}` is no number")
    with session.machine(options) as machine:
        if options.flag("deliver"):
            return _deliver(machine)
        project = options.text("project")
        records = machine.history.find(
            project=os.path.realpath(project) if os.path.isdir(project) else project,
            entry_point=options.text("entry_point"),
            status="FAILED" if options.flag("failed") else "",
            limit=int(options.text("number")),
            verifications=options.flag("verifications"),
        )
        if options.flag("json"):
            print(render.json_text(documents.log(records)))
        else:
            _show(records, machine, options)
    return errors.OK


def _deliver(machine: object) -> int:
    from repro.tracking.relay import Relay

    relay = getattr(machine, "tracking", None)
    if not isinstance(relay, Relay):
        raise errors.UsageError(
            "there is no tracking server to send to",
            hints=["name it with the variable `MLFLOW_TRACKING_URI`"],
        )
    delivered, left = relay.deliver()
    from repro.cli.render import plural

    print(f"{plural(delivered, 'run')} sent, {left} left")
    return errors.OK if not left else errors.UNREACHABLE


def _show(records: list[RunRecord], machine: Machine, options: Options) -> None:
    from repro.cli import table
    from repro.cli.documents import time
    from repro.cli.render import age, duration
    from repro.store.verdicts import Verdicts

    now, verdicts = machine.now_ns(), Verdicts(machine.history.root)
    short = sys.stdout is not None and sys.stdout.isatty()
    rows = [
        (
            r.run_id[:8] if short else r.run_id,
            "  " * depth + r.entry_point,
            state(r) + _verified(r, verdicts),
            f"{age(now - r.started_ns)} ago" if short else time(r.started_ns),
            duration(r.wall_ns),
            (r.commit[:7] + "*" * r.dirty) or "-",
            " ".join(f"{name}={text}" for name, text, _ in r.parameters)[: 60 if short else None],
            r.key[:12] if short else r.key,
        )
        for depth, r in nested(records)
    ]
    header = ("RUN", "STEP", "STATE", "WHEN", "TIME", "COMMIT", "PARAMS", "KEY")
    table.show(header, rows, options.text("color"))


def _verified(record: RunRecord, verdicts: Verdicts) -> str:
    """Say what the last verification of a result found, if there was one."""
    if record.verifies or record.status != "FINISHED":
        return ""
    found = verdicts.get(record.key)
    return (", verified" if found[0].good else ", differs") if found else ""


def nested(records: list[RunRecord]) -> list[tuple[int, RunRecord]]:
    """Give runs with their depth: what a run needed or called comes below it, the first one first.

    A run whose parent is not among them stands for itself.
    """
    known = {record.run_id for record in records}
    below: dict[str, list[RunRecord]] = {}
    for record in records:
        parent = record.parent_run if record.parent_run in known else ""
        below.setdefault(parent, []).append(record)
    found = []
    stack = [(0, record) for record in reversed(below.pop("", []))]
    while stack:
        depth, record = stack.pop()
        found.append((depth, record))
        stack += [(depth + 1, child) for child in below.pop(record.run_id, ())]
    return found


def state(record: RunRecord) -> str:
    """Give the state of a run in one word."""
    if record.verifies:
        return "compared" if record.status == "FINISHED" else "failed"
    if record.cached:
        return "hit"
    words = {"FINISHED": "ok", "RUNNING": "running", "KILLED": "killed"}
    code = f"({record.exit_code})" if record.exit_code else ""
    return words.get(record.status, f"failed{code}")

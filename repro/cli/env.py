"""`repro env`: the environments that were made."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.environments.cache import EnvironmentEntry
    from repro.machine import Machine

HELP = "list the environments that were made, or remove those not in use"
EPILOG = """\
examples:
  repro env list                   digest, kind, size, last use
  repro env prune                  remove what was not used for 30 days
  repro env prune --all --dry-run  say what would be removed
"""
OPTIONS = (
    Option(names=("--older-than",), metavar="DAYS", default="30", help="days without use"),
    Option(names=("--all",), kind="flag", help="remove all that nobody uses now"),
    Option(names=("--dry-run", "-n"), kind="flag", help="remove nothing"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action", choices=("list", "prune"), nargs="?", default="list", help="what to do"
    )
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import session

    with session.machine(options) as machine:
        if options.text("action") == "prune":
            return _prune(machine, options)
        return _list(machine, options)


def _list(machine: Machine, options: Options) -> int:
    from repro.cli import documents, render, table
    from repro.environments import cache

    found = cache.environments(machine.home.root)
    if options.flag("json"):
        document = {"schema": "repro.environments/1", "environments": [_row(e) for e in found]}
        print(render.json_text(document))
        return errors.OK
    now = machine.now_ns()
    rows = [
        (
            e.digest[:12],
            e.kind,
            e.python,
            str(e.packages),
            render.size(e.bytes),
            f"{render.age(now - e.last_used_ns)} ago",
            "in use" if e.in_use else "" if e.complete else "incomplete",
        )
        for e in found
    ]
    del documents
    header = ("ENVIRONMENT", "KIND", "PYTHON", "PACKAGES", "SIZE", "LAST USED", "STATE")
    table.show(header, rows, options.text("color"))
    return errors.OK


def _prune(machine: Machine, options: Options) -> int:
    from repro.cli import render
    from repro.environments import cache

    removed = cache.prune(
        machine.home.root,
        older_than_ns=days(options.text("older_than")),
        everything=options.flag("all"),
        dry_run=options.flag("dry_run"),
        now_ns=machine.now_ns(),
    )
    if options.flag("json"):
        document = {
            "schema": "repro.environments/1",
            "dry_run": options.flag("dry_run"),
            "environments": [_row(e) for e in removed],
        }
        print(render.json_text(document))
    else:
        verb = "would remove" if options.flag("dry_run") else "removed"
        total = sum(e.bytes for e in removed)
        print(f"{verb} {render.plural(len(removed), 'environment')}, {render.size(total)}")
    return errors.OK


def _row(entry: EnvironmentEntry) -> dict[str, object]:
    from repro.cli.documents import time

    return {
        "digest": entry.digest,
        "kind": entry.kind,
        "python": entry.python,
        "packages": entry.packages,
        "bytes": entry.bytes,
        "built": time(entry.built_ns) if entry.built_ns else None,
        "last_used": time(entry.last_used_ns),
        "complete": entry.complete,
        "in_use": entry.in_use,
    }


def days(text: str) -> int:
    """Read a number of days as nanoseconds. Raises UsageError."""
    try:
        return int(float(text) * 86_400 * 1e9)
    except (ValueError, OverflowError):
        raise errors.UsageError(f"`--older-than {text}` is no number of days") from None

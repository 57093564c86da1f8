"""`repro cache`: how large the store is, and what can be removed from it."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine

HELP = "measure the store, or remove what was not used for long"
EPILOG = """\
examples:
  repro cache size                   what takes how much
  repro cache prune                  remove results not used for 30 days
  repro cache prune --older-than 0   remove all results; the history of runs stays
"""
OPTIONS = (
    Option(names=("--older-than",), metavar="DAYS", default="30", help="days without use"),
    Option(names=("--dry-run", "-n"), kind="flag", help="remove nothing"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action", choices=("size", "prune", "dir"), nargs="?", default="size", help="what to do"
    )
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import session

    with session.machine(options) as machine:
        action = options.text("action")
        if action == "dir":
            print(machine.home.root)
            return errors.OK
        return _prune(machine, options) if action == "prune" else _size(machine, options)


def _size(machine: Machine, options: Options) -> int:
    from repro.cli import render, table
    from repro.store import collection

    found = collection.usage(machine.home, machine.blobs, machine.results)
    if options.flag("json"):
        print(
            render.json_text(
                {
                    "schema": "repro.cache-size/1",
                    "root": machine.home.root,
                    "blobs": found.blobs,
                    "blob_bytes": found.blob_bytes,
                    "results": found.results,
                    "environments": found.environments,
                    "environment_bytes": found.environment_bytes,
                    "mirror_bytes": found.mirror_bytes,
                    "other_bytes": found.other_bytes,
                    "total_bytes": found.total,
                }
            )
        )
        return errors.OK
    rows = [
        ("outputs and logs", str(found.blobs), render.size(found.blob_bytes)),
        ("results", str(found.results), "-"),
        ("environments", str(found.environments), render.size(found.environment_bytes)),
        ("Git mirrors", "-", render.size(found.mirror_bytes)),
        ("other", "-", render.size(found.other_bytes)),
        ("total", "-", render.size(found.total)),
    ]
    table.show(("WHAT", "NUMBER", "SIZE"), rows, options.text("color"))
    return errors.OK


def _prune(machine: Machine, options: Options) -> int:
    from repro.cli import render
    from repro.cli.env import days
    from repro.store import collection

    now = machine.now_ns()
    found = collection.prune(
        machine.home,
        machine.blobs,
        machine.results,
        before_ns=now - days(options.text("older_than")),
        now_ns=now,
        kept=frozenset(),
        dry_run=options.flag("dry_run"),
    )
    if options.flag("json"):
        document = {
            "schema": "repro.cache-prune/1",
            "dry_run": options.flag("dry_run"),
            "results": found.results,
            "blobs": found.blobs,
            "folders": found.folders,
            "bytes": found.bytes,
        }
        print(render.json_text(document))
    else:
        verb = "would remove" if options.flag("dry_run") else "removed"
        print(
            f"{verb} {render.plural(found.results, 'result')}, "
            f"{render.plural(found.blobs, 'blob')}, {render.size(found.bytes)}"
        )
    return errors.OK

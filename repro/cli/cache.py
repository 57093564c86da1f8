"""`repro cache`: measure and check the store, remove what is not used, share it with others."""

from __future__ import annotations

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine
    from repro.remote.sharing import Sharing, Transferred

HELP = "measure or check the store, remove what was not used for long, or share results"
EPILOG = """\
examples:
  repro cache size                   what takes how much
  repro cache prune                  remove results not used for 30 days
  repro cache prune --older-than 0   remove all results; the history of runs stays
  repro cache prune --max-size 10GB  then the longest unused, until the rest is no larger
  repro cache pin 1a2b3c4d           never remove the result of this run
  repro cache verify                 read everything, and say what is damaged
  repro cache verify --repair        and take it out of the way, or fetch it again
  repro cache push                   send all results to the remote that REPRO_REMOTE names
  repro cache push 1a2b3c4d          send the result of one run, with all its files
  repro cache pull --remote s3://bucket/results   bring all that the remote has
"""
ACTIONS = ("size", "prune", "verify", "pin", "unpin", "dir", "push", "pull")
TRANSFERS = ("push", "pull")
PINS = ("pin", "unpin")
OPTIONS = (
    Option(names=("--older-than",), metavar="DAYS", default="30", help="days without use"),
    Option(
        names=("--max-size",),
        metavar="SIZE",
        help="prune: remove the longest unused until the rest is no larger, as in 10GB",
    ),
    Option(names=("--dry-run", "-n"), kind="flag", help="remove nothing"),
    Option(names=("--repair",), kind="flag", help="verify: put right what is wrong"),
    Option(names=("--jobs", "-j"), metavar="N", default="2", help="verify: files read at once"),
    Option(names=("--remote",), metavar="URL", help="remote cache (default: REPRO_REMOTE)"),
    Option(names=("--offline",), kind="flag", help="verify: leave the remote cache alone"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", choices=ACTIONS, nargs="?", default="size", help="what to do")
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="run ids, or step keys (push and pull: default all)"
    )
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import session

    action = options.text("action")
    if options.list("runs") and action not in (*TRANSFERS, *PINS):
        raise errors.UsageError(f"`repro cache {action}` takes no runs")
    with session.machine(options) as machine:
        if action in TRANSFERS:
            return _transfer(machine, options, action)
        if action == "dir":
            print(machine.home.root)
            return errors.OK
        return _kept(machine, options, action)


def _kept(machine: Machine, options: Options, action: str) -> int:
    from repro.cli import upkeep

    if action == "verify":
        return upkeep.verify(machine, options)
    if action == "prune":
        return upkeep.prune(machine, options)
    if action in PINS:
        change = upkeep.pin if action == "pin" else upkeep.unpin
        return change(machine, options, [_key(machine, name) for name in options.list("runs")])
    return _size(machine, options)


def _transfer(machine: Machine, options: Options, action: str) -> int:
    from repro.remote import sharing

    names = options.list("runs")
    keys = [_key(machine, name) for name in names] if names else None
    shared = sharing.connect(machine, options.text("remote"))
    if shared is None:
        raise errors.UsageError(
            "no remote cache is named", hints=["give `--remote URL`, or set `REPRO_REMOTE`"]
        )
    try:
        done = shared.push(keys) if action == "push" else shared.pull(keys)
    finally:
        shared.close()
    _show_transfer(done, shared, options, action)
    return errors.UNREACHABLE if done.failed else errors.OK


def _key(machine: Machine, name: str) -> str:
    """Give the key of a run; a key is one already."""
    from repro import digest

    return name if digest.is_digest(name) else machine.history.get(name).key


def _show_transfer(done: Transferred, shared: Sharing, options: Options, action: str) -> None:
    from repro.cli import render

    if options.flag("json"):
        document = {
            "schema": "repro.cache-transfer/1",
            "action": action,
            "remote": shared.remote.name,
            "results": done.results,
            "present": done.present,
            "failed": done.failed,
            "blobs": done.blobs,
            "bytes": done.bytes,
        }
        print(render.json_text(document))
        return
    files = f" with {render.plural(done.blobs, 'blob')}, {render.size(done.bytes)}"
    print(
        f"{action}ed {render.plural(done.results, 'result')}{files if done.blobs else ''}; "
        f"{done.present} there already, {done.failed} failed"
    )


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

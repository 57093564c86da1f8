"""`repro show`: everything that is known of one run."""

from __future__ import annotations

import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.machine import Machine
    from repro.record import RunRecord

HELP = "show what is known of a run, or what it printed"
EPILOG = """\
examples:
  repro show 1a2b3c4d                parameters, metrics, source, environment, outputs
  repro show 1a2b3c4d --log          what it printed, as it came
  repro show 1a2b3c4d --stderr       only what went to stderr
  repro show 1a2b3c4d --patch        what differed from its commit
  repro show 1a2b3c4d --attestation  where its result came from, for in-toto tools
"""
OPTIONS = (
    Option(names=("--log",), kind="flag", help="print what the step printed"),
    Option(names=("--stdout",), kind="flag", help="print what it wrote to stdout"),
    Option(names=("--stderr",), kind="flag", help="print what it wrote to stderr"),
    Option(
        names=("--attestation",),
        kind="flag",
        help="print the in-toto statement with the SLSA provenance of its result",
    ),
    Option(names=("--patch",), kind="flag", help="print the difference to the commit"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="run id, or the beginning of one")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import documents, render, session

    with session.machine(options) as machine:
        record = machine.history.get(options.text("run"))
        streams = [name for name in ("stdout", "stderr") if options.flag(name)]
        if options.flag("patch"):
            _write(_blob(machine, record.patch, "patch"))
        elif options.flag("attestation"):
            result = machine.results.get(record.key)
            _write(_blob(machine, result.provenance if result else "", "attestation") + b"\n")
        elif options.flag("log") or streams:
            from repro.runlog import text_of

            data = _blob(machine, record.log, "log")
            _write(text_of(data, streams[0] if len(streams) == 1 else ""))
        elif options.flag("json"):
            print(render.json_text(documents.run(record)))
        else:
            _show(record, machine)
    return errors.OK


def _blob(machine: Machine, name: str, what: str) -> bytes:
    from repro.store.blobs import BlobMissing

    if not name:
        raise errors.UsageError(f"the run has no {what}")
    try:
        return machine.blobs.get(name)
    except BlobMissing:
        raise errors.UsageError(f"the {what} of the run is not in the store any more") from None


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _show(record: RunRecord, machine: Machine) -> None:
    from repro.cli.documents import time
    from repro.cli.log import state
    from repro.cli.render import clean, duration, size

    where = record.commit[:12] + (" (dirty)" if record.dirty else "") if record.commit else ""
    rows = [
        ("run", record.run_id),
        ("state", state(record)),
        ("step", record.entry_point),
        ("project", record.project),
        ("commit", where),
        ("tree", record.tree),
        ("key", record.key),
        ("reused", record.origin_run),
        ("verifies", record.verifies),
        ("verified", "" if record.verifies else _verified(record, machine)),
        ("why", record.reason),
        ("command", record.command),
        ("environment", f"{record.environment_kind} {record.environment[:12]}"),
        ("started", time(record.started_ns)),
        ("took", f"{duration(record.wall_ns)} (CPU {duration(record.user_ns + record.system_ns)})"),
        ("memory", size(record.peak_bytes) if record.peak_bytes else ""),
        ("error", record.error),
        ("attach", _left(record, machine)),
        ("server", " ".join(record.tracking.values())),
    ]
    for name, text in rows:
        if text:
            print(f"{name:<12} {clean(text)}")
    _pairs("parameters", {name: text for name, text, _ in record.parameters})
    _pairs("metrics", dict(record.metrics))
    _pairs("tags", {k: v for k, v in record.tags.items() if not k.startswith("mlflow.log-model")})
    for title, name in (("outputs", record.outputs), ("logged files", record.artifacts)):
        entries = machine.tree_of(name) if name else ()
        _pairs(title, {e.path: f"{size(e.size)}  {e.content[:12]}" for e in entries or ()}, " ")
    for note in record.notes:
        print(f"note: {clean(note)}")


def _left(record: RunRecord, machine: Machine) -> str:
    """Say how to go on with a run that was left behind."""
    from repro import leftovers

    is_left = leftovers.is_left(record, machine)
    return f"its job may go on: repro attach {record.run_id[:8]}" if is_left else ""


def _verified(record: RunRecord, machine: Machine) -> str:
    """Say what the last verification of the result found."""
    from repro.cli.documents import time
    from repro.cli.render import plural
    from repro.store.verdicts import Verdicts

    found = Verdicts(machine.history.root).get(record.key)
    if not found:
        return ""
    last = found[0]
    when = f"{time(last.at_ns)}, by {plural(last.times, 'execution')}"
    if last.good:
        return f"{when}: the same" + (" by its rules" if last.state == "equal" else "")
    depends = f"; depends on {', '.join(last.dependences)}" if last.dependences else ""
    return f"{when}: {last.state} ({', '.join(last.differed[:5])}){depends}"


def _pairs(title: str, values: dict[str, str], sign: str = "=") -> None:
    from repro.cli.render import clean

    if values:
        print(f"{title}")
        for name, text in values.items():
            print(f"  {clean(name)} {sign} {clean(text)}")

"""`repro verify`: a result made again, compared, and under other conditions if asked for."""

from __future__ import annotations

import os
import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

    from repro.cli.render import Narrator, Terminal
    from repro.events import Event
    from repro.record import RunRecord
    from repro.repeating import Verifier
    from repro.verification.verdict import Compared, Trial, Verdict

HELP = "make a result again and compare it, bit by bit or by the rules of `compare:`"
EPILOG = """\
examples:
  repro verify 1a2b3c4d                   the step of a run, once more, from its commit
  repro verify . -e train --times 3       the latest result of a step, three times
  repro verify 1a2b3c4d --vary            under other conditions too, one at a time
  repro verify 1a2b3c4d --vary clock path

conditions: path, home, user, umask, timezone, locale, hashseed, cpus, threads, fileorder,
environment (the order of its variables), hostname, clock

Nothing is published or written into the project. Exits with 5 where something differs.
"""
OPTIONS = (
    Option(
        names=("--entry-point", "-e"),
        metavar="NAME",
        default="main",
        help="entry point of a project (default: main)",
    ),
    Option(names=("--version", "-v"), metavar="VERSION", help="version of a Git project"),
    Option(
        names=("--param-list", "--param", "-P"),
        kind="list",
        metavar="NAME=VALUE",
        help="a parameter that the result was made with; may be repeated",
    ),
    Option(
        names=("--times", "-n"),
        metavar="N",
        default="1",
        help="how often it is made again (default: 1; with --vary at least 2)",
    ),
)
SHOWN = 20
DETAILS = 3
WORDS = {
    "same": "the same",
    "equal": "equal by its rule",
    "different": "DIFFERENT",
    "failed": "FAILED",
    "changed": "CHANGED THE RESULT",
    "skipped": "not tried",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "uri", nargs="?", default=".", metavar="RUN|URI", help="a run id, or a project"
    )
    add(parser, OPTIONS)
    parser.add_argument(
        "--vary",
        nargs="*",
        metavar="NAME",
        help="make it under other conditions too, one at a time: all, or those that are named",
    )


def execute(options: Options) -> int:
    """Run the command: 0, or 5 where something differs."""
    from repro.cli import interruption, render, session
    from repro.repeating import Verifier
    from repro.varying import chosen
    from repro.verifying import verify

    times = options.text("times")
    if not times.isdecimal() or not int(times):
        raise errors.UsageError(f"`--times {times}` is no number", hints=["write `--times 3`"])
    asked = options.values.get("vary") is not None
    vary = chosen(options.list("vary")) if asked else ()
    watcher = Watcher(session.narrator(options))
    interruption.arm()
    machine = Verifier(os.environ, watcher)
    try:
        run = _run(options, machine)
        watcher.begin(run)
        found = verify(run, machine, watcher, times=int(times), vary=vary)
    finally:
        machine.close()
    if options.flag("json"):
        print(render.json_text(document(found)))
    else:
        show(found, render.Terminal(options.text("color") or "auto", sys.stdout))
    return errors.OK if found.good else errors.DIFFERENCE


def _run(options: Options, machine: Verifier) -> RunRecord:
    """Find the run that is meant: by its id, or as the latest result of a step."""
    from repro import repeating
    from repro.cli import run, session, why
    from repro.value import replace

    word = options.text("uri")
    if why._is_run(word):  # noqa: SLF001  (the same words mean the same)
        return repeating.of_run(word, machine)
    request = replace(
        session.request(options),
        entry_point=options.text("entry_point"),
        parameters=run.parameters(options.list("param_list")),
    )
    return repeating.of_step(request, machine)


class Watcher:
    """Tells how a verification goes on; what the step prints is in the log of its run."""

    def __init__(self, narrator: Narrator) -> None:
        """Take who tells the story."""
        self.narrator = narrator

    def begin(self, run: RunRecord) -> None:
        """Say what is verified."""
        if not self.narrator.quiet:
            self.narrator.terminal.line(
                f"  {run.entry_point}  verifying run {run.run_id[:8]}, key {run.key[:12]}"
            )

    def __call__(self, event: Event) -> None:
        """Take an event."""
        name = type(event).__name__
        if name in ("Progress", "Warned"):
            self.narrator(event)
        elif name == "Tried" and not self.narrator.quiet:
            trial: Trial = getattr(event, "trial")  # noqa: B009  (its class would be imported)
            name = f"{trial.name}: " if trial.name else ""
            self.narrator.terminal.line(f"    {name}{_told(trial, self.narrator.terminal)}")


def _told(trial: Trial, terminal: Terminal) -> str:
    from repro.cli.render import clean, duration

    colour = {"same": "green", "equal": "green", "skipped": "yellow"}.get(trial.state, "red")
    took = f"  {duration(trial.wall_ns)}" if trial.wall_ns else ""
    why = f": {clean(trial.why)}" if trial.why else ""
    return f"{terminal.paint(WORDS[trial.state], colour)}{why}{took}"


def show(found: Verdict, terminal: Terminal) -> None:
    """Write a verdict for people."""
    from repro.cli.render import clean, plural
    from repro.conditions import VARIATIONS

    terminal.line(f"{found.entry_point}  run {found.run_id}")
    terminal.line(f"source       {found.source}")
    terminal.line(f"environment  {found.environment}")
    many = len(found.repetitions) > 1
    for number, trial in enumerate(found.repetitions, 1):
        label = f"repetition {number}" if many else "made again"
        terminal.line(f"{label:<12} {_told(trial, terminal)}")
        _outputs(trial, terminal)
    for trial in (t for t in found.variations if t.state != "skipped"):
        terminal.line(f"{trial.name:<12} {_told(trial, terminal)}")
        _outputs(trial, terminal)
    for why, names in _skipped(found).items():
        terminal.line(f"{'not tried':<12} {', '.join(names)}: {clean(why)}")
    if found.attested:
        told = clean("; ".join(found.faults)) or "names these very outputs"
        colour = "red" if found.faults else "green"
        terminal.line(f"{'attestation':<12} {terminal.paint(told, colour)}")
    what = plural(found.compared, "output")
    if found.good:
        mark = terminal.paint(terminal.tick, "green")
        how = "to the bit" if found.state == "same" else "by the rules of `compare:`"
        terminal.line(f"{mark} made again, {what} the same {how}")
        return
    mark = terminal.paint(terminal.cross, "red")
    if found.state in ("same", "equal"):
        terminal.line(f"{mark} made again, and its attestation is about something else")
    elif found.state == "failed":
        terminal.line(f"{mark} the step failed when it was to be made again")
    else:
        terminal.line(f"{mark} different: {len(found.differed)} of {what}")
    for name in found.dependences:
        terminal.line(f"  the result depends on {VARIATIONS[name]} ({name})")


def _skipped(found: Verdict) -> dict[str, list[str]]:
    """Give the variations that were not tried, by the reason."""
    reasons: dict[str, list[str]] = {}
    for trial in found.variations:
        if trial.state == "skipped":
            reasons.setdefault(trial.why, []).append(trial.name)
    return reasons


def _outputs(trial: Trial, terminal: Terminal) -> None:
    from repro.cli.render import clean

    for one in trial.outputs[:SHOWN]:
        terminal.line(f"  {clean(_line(one))}")
        for detail in one.details[:DETAILS]:
            place = f"{detail.place}: " if detail.place else ""
            terminal.line(f"    {clean(f'{place}{detail.before} → {detail.after}')}")
        for text in _causes(one):
            terminal.line(f"    {terminal.paint('likely', 'cyan')}: {text}")
    if len(trial.outputs) > SHOWN:
        terminal.line(f"  and {len(trial.outputs) - SHOWN} more")


def _line(one: Compared) -> str:
    kind = "" if one.kind == "output" else f" ({'logged' if one.kind == 'logged' else one.kind})"
    if one.state == "equal":
        return f"{one.path}{kind}  equal: {one.rule}"
    places = f", differs in {one.count} places" if one.count > 1 else ""
    shown = f"{one.before} → {one.after}" if one.kind == "metric" else f"{one.format}{places}"
    return f"{one.path}{kind}  {shown.lstrip(', ')}"


def _causes(one: Compared) -> list[str]:
    from repro.verification.causes import CAUSES, HINTS

    return [
        CAUSES[name] + (f"; {HINTS[name]}" if name in HINTS else "")
        for name in one.causes
        if name in CAUSES
    ]


def document(found: Verdict) -> dict[str, Any]:
    """Give a verdict as `repro.verify/1`."""
    from repro.cli.documents import time

    return {
        "schema": "repro.verify/1",
        "run_id": found.run_id,
        "key": found.key,
        "project": found.project,
        "entry_point": found.entry_point,
        "time": time(found.at_ns),
        "state": found.state,
        "source": found.source,
        "environment": found.environment,
        "attestation": {"there": found.attested, "faults": list(found.faults)},
        "compared": found.compared,
        "different": list(found.differed),
        "unstable": list(found.unstable),
        "repetitions": [_trial(trial) for trial in found.repetitions],
        "variations": [{"name": t.name, **_trial(t)} for t in found.variations],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "state": trial.state,
        "why": trial.why or None,
        "run_id": trial.run_id or None,
        "seconds": trial.wall_ns / 1e9,
        "outputs": [_compared(one) for one in trial.outputs],
    }


def _compared(one: Compared) -> dict[str, Any]:
    return {
        "path": one.path,
        "kind": one.kind,
        "state": one.state,
        "rule": one.rule,
        "before": one.before or None,
        "after": one.after or None,
        "format": one.format or None,
        "count": one.count,
        "details": [{"place": d.place, "before": d.before, "after": d.after} for d in one.details],
        "causes": list(one.causes),
    }

"""`repro env verify`: whether environments still are what was installed and built."""

from __future__ import annotations

import os

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.cli.options import Options
    from repro.environments.cache import EnvironmentEntry
    from repro.environments.inspection import Finding, Inspection
    from repro.lock import EnvironmentLock
    from repro.machine import Machine
    from repro.ports import Progress, Tree

SHOWN = 20
ACTIONS = {
    "none": "",
    "distrusted": "the next use makes it anew",
    "removed": "it was removed; the next use makes it anew",
    "rebuilt": "it was made anew",
}


def execute(options: Options) -> int:
    """Run the command: 0, or 5 where an environment differs, whatever was done about it."""
    from repro.cli import render, session, target
    from repro.machine import Machine

    progress = target.progress(options)
    emit = session.narrator(options)
    machine = Machine(os.environ, emit, looks_only=not options.flag("repair"))
    documents = []
    try:
        chosen, tree = _chosen(machine, options, progress)
        for number, entry in enumerate(chosen, 1):
            of = f", {number} of {len(chosen)}" if len(chosen) > 1 else ""
            progress(f"reading {entry.digest[:12]}, {render.size(entry.bytes)}{of}")
            seen, lock = _inspected(machine, entry)
            action = "distrusted" if seen.differences else "none"
            if seen.differences and options.flag("repair"):
                action = _repaired(machine, lock, tree, progress)
            documents.append(_document(entry, seen, action))
            if not options.flag("json"):
                _tell(entry, seen, action, options)
    finally:
        machine.close()
    if options.flag("json"):
        document = {"schema": "repro.environment-check/1", "environments": documents}
        print(render.json_text(document))
    return errors.OK if all(d["good"] for d in documents) else errors.DIFFERENCE


def _chosen(
    machine: Machine, options: Options, progress: Progress
) -> tuple[list[EnvironmentEntry], Tree | None]:
    """Give the environments to look at, and the project where one was named."""
    from repro.cli import target
    from repro.environments import cache

    if options.flag("all"):
        return [e for e in cache.environments(machine.home.root) if e.complete], None
    found = target.find(machine, options, progress)
    if found.entry is None or not found.entry.complete:
        raise found.not_made()
    return [found.entry], found.tree


def _inspected(machine: Machine, entry: EnvironmentEntry) -> tuple[Inspection, EnvironmentLock]:
    """Read an environment; one that differs is not trusted from then on."""
    from repro.environments import cache, inspection
    from repro.system.files import explained

    home = machine.home.root
    with cache.held(home, entry.digest) as prefix:
        lock = cache.lock_of(home, entry.digest)
        if lock is None:
            raise errors.UsageError(
                f"the environment {entry.digest[:12]} cannot be checked",
                hints=["it was removed meanwhile, or made by another version of repro"],
            )
        try:
            seen = inspection.inspect(prefix, lock)
        except OSError as error:
            raise explained(error, f"reading `{prefix}`") from None
        if seen.differences:
            cache.Place(home, entry.digest).distrust()
    return seen, lock


def _repaired(
    machine: Machine, lock: EnvironmentLock, tree: Tree | None, progress: Progress
) -> str:
    """Make an environment anew from its lock, or remove it where that cannot be done now."""
    from repro.environments import cache
    from repro.events import Warned

    if not cache.discard(machine.home.root, lock.digest):
        return "distrusted"
    if tree is None and any(a.url and "://" not in a.url for a in lock.artifacts):
        return "removed"  # the packages of its project are not at hand
    try:
        machine.supply.kind(lock.kind, tree).realize(lock, progress).release()
    except errors.ReproError as error:
        machine.emit(Warned(text=error.message, hint=next(iter(error.hints), "")))
        return "removed"
    return "rebuilt"


def _tell(entry: EnvironmentEntry, seen: Inspection, action: str, options: Options) -> None:
    import sys

    from repro.cli import render
    from repro.environments.inspection import summary

    terminal = render.Terminal(options.text("color") or "auto", sys.stdout)
    read = f"{render.plural(seen.files, 'file')}, {render.size(seen.bytes)}"
    name = entry.digest[:12]
    if not seen.differences:
        mark = terminal.paint(terminal.tick, "green")
        terminal.line(f"{mark} {name}  as it was built ({read})")
    else:
        mark = terminal.paint(terminal.cross, "red")
        terminal.line(f"{mark} {name}  {summary(seen.differences)} ({read})")
        for finding in seen.differences[:SHOWN]:
            terminal.line(f"  {render.clean(str(finding))}")
        if len(seen.differences) > SHOWN:
            terminal.line(f"  and {len(seen.differences) - SHOWN} more")
        terminal.line(f"  {ACTIONS[action]}")
    for finding in seen.notices[:SHOWN]:
        terminal.line(f"  note: {render.clean(str(finding))}")


def _document(entry: EnvironmentEntry, seen: Inspection, action: str) -> dict[str, object]:
    return {
        "digest": entry.digest,
        "prefix": entry.prefix,
        "good": not seen.differences,
        "files": seen.files,
        "bytes": seen.bytes,
        "tree": seen.tree,
        "recorded_tree": seen.recorded or None,
        "differences": [_finding(f) for f in seen.differences],
        "notices": [_finding(f) for f in seen.notices],
        "action": action,
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "path": finding.path or None,
        "package": finding.package or None,
        "expected": finding.expected or None,
        "found": finding.found or None,
        "message": str(finding),
    }

"""`repro cache verify`, `prune`, `pin` and `unpin`: what keeps a store sound, and small."""

from __future__ import annotations

import sys

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from repro.cli.options import Options
    from repro.machine import Machine
    from repro.remote.sharing import Sharing
    from repro.store.integrity import Finding, Report
    from repro.store.pruning import Part, Pruned

PACKAGES = "packages"
SHOWN = 50
NAMES = {
    "results": "result",
    "blobs": "file of results",
    "folders": "folder of a process that is gone",
    "packages": "cached package",
    "advisories": "copy of advisories",
    "quarantine": "damaged file",
    "logs": "log",
    "leftovers": "unfinished file",
}
PLURALS = {
    "file of results": "files of results",
    "folder of a process that is gone": "folders of processes that are gone",
    "copy of advisories": "copies of advisories",
}


# -- verify


def verify(machine: Machine, options: Options) -> int:
    """Read the whole store; with `--repair`, put right what is wrong, by what a remote has."""
    from repro.cli import render
    from repro.store import integrity

    shared = _elsewhere(machine, options)
    store = (machine.home, machine.blobs, machine.results)
    try:
        found = integrity.verify(*store, jobs=_jobs(options), tell=_teller(machine))
        if options.flag("repair"):
            found = integrity.repair(found, *store, shared)
    finally:
        if shared is not None:
            shared.close()
    if options.flag("json"):
        print(render.json_text(_checked(found, repair=options.flag("repair"))))
    else:
        _show(found, options)
    return errors.DIFFERENCE if found.findings else errors.OK


def _elsewhere(machine: Machine, options: Options) -> Sharing | None:
    """Give the remote cache that a repair may fetch from, None where there is none."""
    if not options.flag("repair") or options.flag("offline"):
        return None
    from repro.remote import sharing

    return sharing.connect(machine, options.text("remote"))


def _teller(machine: Machine) -> Callable[[int, int], None]:
    from repro.cli import render
    from repro.events import Progress

    def tell(done: int, total: int) -> None:
        machine.emit(Progress(text=f"read {render.size(done)} of {render.size(total)}"))

    return tell


def _jobs(options: Options) -> int:
    text = options.text("jobs")
    if not text.isdecimal() or not int(text):
        raise errors.UsageError(f"`--jobs {text}` is no number", hints=["write `--jobs 2`"])
    return int(text)


def _checked(found: Report, *, repair: bool) -> dict[str, Any]:
    return {
        "schema": "repro.cache-verify/1",
        "repair": repair,
        "blobs": found.blobs,
        "bytes": found.bytes,
        "results": found.results,
        "unattested": found.unattested,
        "others": found.others,
        "bits": found.bits,
        "healed": found.healed,
        "counts": _counts(found),
        "findings": [_row(finding) for finding in found.findings],
    }


def _counts(found: Report) -> dict[str, int]:
    from repro.store import integrity

    faults = [finding.fault for finding in found.findings]
    return {name: faults.count(name) for name in integrity.BITS}


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "what": finding.what,
        "name": finding.name,
        "fault": finding.fault,
        "detail": finding.detail,
        "lacks": list(finding.lacks),
        "repair": finding.repair or None,
    }


def _show(found: Report, options: Options) -> None:
    from repro.cli import render, session

    for finding in found.findings[:SHOWN]:
        done = f": {finding.repair}" if finding.repair else ""
        name = render.clean(finding.name[:12])
        print(f"{finding.what} {name}  {finding.fault}, {render.clean(finding.detail)}{done}")
    if len(found.findings) > SHOWN:
        print(f"and {len(found.findings) - SHOWN} more; `--json` has them all")
    print(
        f"{render.plural(found.blobs, 'blob')} with {render.size(found.bytes)}, "
        f"{render.plural(found.results, 'result')} and {render.plural(found.others, 'other file')} "
        f"checked: {_verdict(found)}"
    )
    if found.findings and not options.flag("repair"):
        text = "nothing of it is served; `repro cache verify --repair` takes it out of the way"
        session.narrator(options).terminal.line(text)


def _verdict(found: Report) -> str:
    from repro.cli import render

    if not found.findings:
        return "sound"
    kinds = ", ".join(f"{count} {fault}" for fault, count in _counts(found).items() if count)
    healed = f"; {found.healed} healed" if found.healed else ""
    return f"{render.plural(len(found.findings), 'finding')}: {kinds}{healed}"


# -- prune


def prune(machine: Machine, options: Options) -> int:
    """Remove what was not used for long, or what is too much."""
    from repro.cli import render
    from repro.cli.env import days, size
    from repro.store import pruning

    now, dry = machine.now_ns(), options.flag("dry_run")
    limits = pruning.Limits(
        before_ns=now - days(options.text("older_than")),
        now_ns=now,
        max_bytes=size(options.text("max_size")),
        dry_run=dry,
    )
    found = pruning.prune(machine.home, machine.blobs, machine.results, limits)
    parts = {**found.parts, PACKAGES: _packages(machine, limits.before_ns, dry=dry)}
    if options.flag("json"):
        print(render.json_text(_pruned(found, parts, dry=dry)))
        return errors.OK
    told = [
        f"{_count(part.count, NAMES[name])}, {render.size(part.bytes)}"
        for name, part in parts.items()
        if part.count and name not in ("results", "blobs")
    ]
    results, blobs = (parts.get(name, pruning.Part()) for name in ("results", "blobs"))
    verb = "would remove" if dry else "removed"
    total = sum(part.bytes for part in parts.values())
    print(
        f"{verb} {render.plural(results.count, 'result')}, "
        f"{render.plural(blobs.count, 'blob')}, {render.size(total)}"
    )
    for line in told:
        print(f"  {line} of it")
    if found.pinned:
        print(f"{render.plural(found.pinned, 'result')} pinned", file=sys.stderr)
    return errors.OK


def _packages(machine: Machine, before_ns: int, *, dry: bool) -> Part:
    """Remove cached packages that no environment has a part of."""
    from repro.environments import disk
    from repro.store.pruning import Part

    found = disk.prune(machine.home.root, before_ns=before_ns, dry_run=dry)
    return Part(count=len(found), bytes=sum(package.bytes for package in found))


def _pruned(found: Pruned, parts: Mapping[str, Part], *, dry: bool) -> dict[str, Any]:
    named = {name: parts[name] for name in NAMES if name in parts}
    counts = {name: named[name].count if name in named else 0 for name in NAMES}
    return {
        "schema": "repro.cache-prune/1",
        "dry_run": dry,
        "results": counts["results"],
        "blobs": counts["blobs"],
        "folders": counts["folders"],
        "bytes": sum(part.bytes for part in parts.values()),
        "pinned": found.pinned,
        "parts": {name: {"count": part.count, "bytes": part.bytes} for name, part in named.items()},
    }


def _count(count: int, word: str) -> str:
    return f"{count} {word if count == 1 else PLURALS.get(word, f'{word}s')}"


# -- pins


def pin(machine: Machine, options: Options, keys: Iterable[str]) -> int:
    """Keep results from being collected; without any, list those that are kept."""
    from repro.cli import render
    from repro.cli.documents import time
    from repro.store.pins import Pins

    pins = Pins(machine.home)
    for key in keys:
        if machine.results.get(key) is None:
            raise errors.UsageError(
                f"there is no result {key[:12]} in the store",
                hints=["run the step first, or `repro cache pull` brings it"],
            )
        pins.add(key)
    rows = [{"key": key, "since": time(since)} for key, since in pins.keys().items()]
    if options.flag("json"):
        print(render.json_text({"schema": "repro.cache-pins/1", "pins": rows}))
    elif not options.list("runs"):
        for row in rows:
            print(f"{row['key']}  since {row['since']}")
    return errors.OK


def unpin(machine: Machine, options: Options, keys: Iterable[str]) -> int:
    """Let results be collected again."""
    from repro.store.pins import Pins

    pins = Pins(machine.home)
    for key in keys:
        if not pins.drop(key):
            raise errors.UsageError(f"the result {key[:12]} is not pinned")
    return pin(machine, options, ())

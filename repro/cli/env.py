"""`repro env`: the environments that were made: what they hold, and whether they still do."""

from __future__ import annotations

import os
import sys

from repro import errors
from repro.cli.options import COMMON, Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Mapping

    from repro.cli.target import Target
    from repro.environments.cache import EnvironmentEntry
    from repro.lock import Artifact
    from repro.machine import Machine

HELP = "list, show, enter, check, bake or remove the environments that were made"
EPILOG = """\
examples:
  repro env list                     digest, kind, size, last use
  repro env show                     the packages of this project's environment
  repro env shell . -- python -V     run a command in it
  repro env verify --all             read every file of every environment
  repro env image --base REF         put this project's environment into a container image
  repro env prune --max-size 20G     remove what was not used for longest

An environment is named by the beginning of its digest, by a run, or by a project.
"""
PROJECT = (
    Option(names=("--entry-point", "-e"), metavar="NAME", help="of a project: an entry point"),
    Option(names=("--version", "-v"), metavar="VERSION", help="of a project: a version in Git"),
    Option(names=("--env-manager",), metavar="NAME", help="of a project: environment to use"),
)
VERIFY = (
    Option(names=("--all",), kind="flag", help="all that are complete"),
    Option(names=("--repair",), kind="flag", help="make what differs anew, or remove it"),
)
PRUNE = (
    Option(names=("--older-than",), metavar="DAYS", default="30", help="days without use"),
    Option(
        names=("--max-size",),
        metavar="SIZE",
        help="remove the longest unused until the rest is no larger, as in 20G",
    ),
    Option(names=("--all",), kind="flag", help="remove all that nobody uses now"),
    Option(names=("--dry-run", "-n"), kind="flag", help="remove nothing"),
)
IMAGE = (
    Option(names=("--base",), metavar="IMAGE", help="image to put it on: debian:12-slim"),
    Option(names=("--with-project",), kind="flag", help="with the files of the project on top"),
    Option(names=("--push",), metavar="NAME", help="send it to a registry under this name"),
)
ACTIONS: Mapping[str, tuple[str, tuple[Option, ...]]] = {
    "list": ("list what was made", ()),
    "show": ("show the packages of an environment", PROJECT),
    "path": ("print where an environment is", PROJECT),
    "shell": ("start a shell, or a command, in an environment", PROJECT),
    "verify": ("compare every file with what was installed and built", (*PROJECT, *VERIFY)),
    "image": ("put an environment into a container image", (*PROJECT, *IMAGE)),
    "prune": ("remove what was not used for long", PRUNE),
    "log": ("print the log of the last environment that could not be made", ()),
}

FOREVER = 2**63 - 1


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the actions, each with its own arguments."""
    import argparse

    actions = parser.add_subparsers(dest="action", metavar="ACTION", help="what to do")
    for name, (text, options) in ACTIONS.items():
        action = actions.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        if PROJECT[0] in options:
            action.add_argument(
                "environment",
                nargs="?",
                default=".",
                metavar="ENVIRONMENT",
                help="digest, run or project; the project in this folder by default",
            )
        if name == "shell":
            action.add_argument("words", nargs="*", metavar="COMMAND", help="after `--`")
        add(action, (*options, *COMMON))
        for one in action._actions:  # noqa: SLF001
            if one.dest in [option.key for option in COMMON]:
                one.default = argparse.SUPPRESS  # what stands before the action counts too


def execute(options: Options) -> int:
    """Run the command."""
    from repro.cli import inspection, session, shell

    action = options.text("action") or "list"
    if action == "shell":
        return shell.execute(options)
    if action == "verify":
        return inspection.execute(options)
    with session.machine(options) as machine:
        return RUN[action](machine, options)


def _target(machine: Machine, options: Options) -> Target:
    from repro.cli import target

    return target.find(machine, options, target.progress(options))


# -- list


def _list(machine: Machine, options: Options) -> int:
    from repro.cli import render, session, table
    from repro.environments import cache, disk

    home = machine.home.root
    found = cache.environments(home)
    alone = sum(e.bytes for e in found if e.own_bytes == e.bytes)
    shared = [e.prefix for e in found if e.own_bytes < e.bytes]
    total = alone + disk.together([*shared, *(os.path.join(home, c) for c in disk.CACHES)])
    if options.flag("json"):
        rows = [_row(e) for e in found]
        _print("environments", {"environments": rows, "total_bytes": total})
        return errors.OK
    now, short = machine.now_ns(), sys.stdout.isatty()
    header = ("ENVIRONMENT", "KIND", "PYTHON", "PACKAGES", "SIZE", "OWN", "LAST USED", "STATE")
    table.show(header, [_cells(e, now, short=short) for e in found], options.text("color"))
    narrator = session.narrator(options)
    if found and not narrator.quiet:
        count = render.plural(len(found), "environment")
        narrator.terminal.line(f"{count}, {render.size(total)} on disk with cached packages")
    return errors.OK


def _cells(entry: EnvironmentEntry, now_ns: int, *, short: bool) -> tuple[str, ...]:
    from repro.cli import render

    return (
        entry.digest[:12] if short else entry.digest,
        entry.kind or "-",
        entry.python or "-",
        str(entry.packages),
        render.size(entry.bytes),
        render.size(entry.own_bytes),
        f"{render.age(now_ns - entry.last_used_ns)} ago" if entry.complete else "-",
        _state(entry),
    )


def _state(entry: EnvironmentEntry | None) -> str:
    if entry is None:
        return "not made yet"
    return "in use" if entry.in_use else "ready" if entry.complete else "incomplete"


def _row(entry: EnvironmentEntry) -> dict[str, object]:
    from repro.cli.documents import time

    return {
        "digest": entry.digest,
        "prefix": entry.prefix,
        "kind": entry.kind,
        "python": entry.python,
        "packages": entry.packages,
        "bytes": entry.bytes,
        "own_bytes": entry.own_bytes,
        "built": time(entry.built_ns) if entry.built_ns else None,
        "last_used": time(entry.last_used_ns),
        "complete": entry.complete,
        "in_use": entry.in_use,
    }


# -- show and path


def _show(machine: Machine, options: Options) -> int:
    from repro.cli import render, table

    found = _target(machine, options)
    if options.flag("json"):
        _print("environment", _document(found))
        return errors.OK
    for name, text in _facts(found, machine):
        if text:
            print(f"{name:<12} {render.clean(text)}")
    length = 12 if sys.stdout.isatty() else None
    rows = [
        (a.name, f"{a.version} {a.build}".strip() or "-", a.kind, a.digest[:length], a.url or "-")
        for a in (found.lock.artifacts if found.lock else ())
    ]
    table.show(("PACKAGE", "VERSION", "KIND", "DIGEST", "SOURCE"), rows, options.text("color"))
    return errors.OK


def _facts(found: Target, machine: Machine) -> list[tuple[str, str]]:
    from repro.cli import render
    from repro.cli.documents import time

    entry, lock = found.entry, found.lock
    facts = [("environment", found.digest), ("state", _state(entry))]
    if lock is not None:
        facts += [("kind", lock.kind), ("platform", lock.platform), ("tool", lock.tool)]
        facts += [("image", lock.image.id if lock.image else "")]
        facts += [("newest", lock.exclude_newer)]
    if entry is not None:
        used = f"{render.age(machine.now_ns() - entry.last_used_ns)} ago" if entry.complete else ""
        facts += [
            ("python", entry.python),
            ("prefix", entry.prefix),
            ("size", render.size(entry.bytes)),
            ("built", time(entry.built_ns) if entry.built_ns else ""),
            ("last used", used),
            ("tree", str(_marker(entry).get("tree") or "")),
        ]
    return facts


def _marker(entry: EnvironmentEntry) -> dict[str, object]:
    from repro.environments import cache

    return cache.marker(entry.prefix)


def _document(found: Target) -> dict[str, object]:
    entry, lock = found.entry, found.lock
    marker = _marker(entry) if entry else {}
    return {
        "digest": found.digest,
        "state": _state(entry).replace(" ", "-"),
        "on_disk": _row(entry) if entry else None,
        "kind": lock.kind if lock else None,
        "interpreter": str(lock.interpreter) if lock and lock.interpreter.version else None,
        "platform": lock.platform or None if lock else None,
        "image": lock.image.id if lock and lock.image else None,
        "tool": lock.tool or None if lock else None,
        "exclude_newer": lock.exclude_newer or None if lock else None,
        "tree": marker.get("tree"),
        "packages": [_package(a) for a in lock.artifacts] if lock else [],
    }


def _package(artifact: Artifact) -> dict[str, object]:
    return {
        "name": artifact.name,
        "version": artifact.version,
        "build": artifact.build or None,
        "kind": artifact.kind,
        "digest": artifact.digest,
        "filename": artifact.filename or None,
        "url": artifact.url or None,
    }


def _path(machine: Machine, options: Options) -> int:
    found = _target(machine, options)
    if options.flag("json"):
        _print("environment", _document(found))
    elif found.entry is None or not found.entry.complete:
        raise found.not_made()
    else:
        print(found.entry.prefix)
    return errors.OK


# -- image


def _image(machine: Machine, options: Options) -> int:
    from repro.cli import image

    return image.execute(machine, options)


# -- prune


def _prune(machine: Machine, options: Options) -> int:
    from repro.cli import render
    from repro.environments import cache, disk

    home, now, dry = machine.home.root, machine.now_ns(), options.flag("dry_run")
    older = days(options.text("older_than"))
    everything = options.flag("all")
    removed = cache.prune(
        home,
        older_than_ns=older,
        everything=everything,
        dry_run=dry,
        now_ns=now,
        max_bytes=size(options.text("max_size")),
    )
    packages = disk.prune(home, before_ns=FOREVER if everything else now - older, dry_run=dry)
    total = sum(e.own_bytes for e in removed) + sum(p.bytes for p in packages)
    if options.flag("json"):
        about = {"count": len(packages), "bytes": sum(p.bytes for p in packages)}
        rows = [_row(e) for e in removed]
        document = {"dry_run": dry, "environments": rows, "cached_packages": about}
        _print("environments", document)
    else:
        verb = "would remove" if dry else "removed"
        cached = render.plural(len(packages), "cached package")
        count = render.plural(len(removed), "environment")
        print(f"{verb} {count} and {cached}, {render.size(total)}")
    return errors.OK


def days(text: str) -> int:
    """Read a number of days as nanoseconds. Raises UsageError."""
    try:
        return int(float(text) * 86_400 * 1e9)
    except (ValueError, OverflowError):
        raise errors.UsageError(f"`--older-than {text}` is no number of days") from None


def size(text: str) -> int | None:
    """Read a size in bytes; None for no text. Raises UsageError."""
    from repro import quantity

    try:
        return quantity.size(text.upper().replace("I", "i")) if text else None
    except (ValueError, KeyError, OverflowError):
        hint = "write it as 500M, 20G or 1.5TiB"
        raise errors.UsageError(f"`--max-size {text}` is no size", hints=[hint]) from None


# -- log


def _log(machine: Machine, options: Options) -> int:
    from repro.cli.documents import time
    from repro.environments import cache
    from repro.system import files

    path = cache.last_log(machine.home.root)
    if not path:
        raise errors.UsageError("no environment failed to be made lately")
    text = (files.read(path) or b"").decode("utf-8", "replace")
    if options.flag("json"):
        when = time(os.stat(path).st_mtime_ns)
        _print("environment-log", {"path": path, "modified": when, "text": text})
    else:
        print(text, end="" if text.endswith("\n") else "\n")
    return errors.OK


def _print(name: str, document: Mapping[str, object]) -> None:
    from repro.cli import render

    print(render.json_text({"schema": f"repro.{name}/1", **document}))


RUN: Mapping[str, Callable[[Machine, Options], int]] = {
    "list": _list,
    "show": _show,
    "path": _path,
    "image": _image,
    "prune": _prune,
    "log": _log,
}

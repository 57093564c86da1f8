"""`repro lock`: write down what the environments of a project consist of, exactly."""

from __future__ import annotations

import os
import sys

from repro import errors
from repro.cli.options import Option, Options, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from repro.cli.render import Terminal
    from repro.lock import Difference, EnvironmentLock
    from repro.lockset import Change, State, Terms, Update
    from repro.machine import Machine
    from repro.ports import Tree
    from repro.spec import Project

HELP = "lock the environments of a project, or check their locks"
EPILOG = """\
examples:
  repro lock                              write lockfiles/ for this machine's platform
  repro lock --platform linux-64 --platform osx-arm64
  repro lock --check                      exit 3 where a lock is missing or out of date
  repro lock --diff                       say what locking again would change
  repro lock --upgrade numpy              let one package move; everything else stays
  repro lock --exclude-newer 2026-01-31   as the index was on that day

What is locked stays as it is for as long as it satisfies what the project asks for.
"""
OPTIONS = (
    Option(names=("--check",), kind="flag", help="resolve nothing; exit 3 if a lock is stale"),
    Option(names=("--diff",), kind="flag", help="resolve, say what would change, write nothing"),
    Option(
        names=("--upgrade", "-U"),
        kind="list",
        metavar="NAME",
        help="a package that may change its version; `*` is every one; may be repeated",
    ),
    Option(
        names=("--platform",),
        kind="list",
        metavar="NAME",
        help="a platform to lock for, as conda names it; may be repeated",
    ),
    Option(
        names=("--exclude-newer",),
        metavar="DATE",
        help="take nothing that was published after that day or RFC 3339 time",
    ),
    Option(
        names=("--engine",),
        metavar="NAME",
        help="what solves conda environments: rattler (default) or conda-lock",
    ),
    Option(names=("--anew",), kind="flag", help="forget what is locked"),
)
SHOWN = 40


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", nargs="?", default=".", metavar="PROJECT", help="a project")
    add(parser, OPTIONS)


def execute(options: Options) -> int:
    """Run the command: 0, or 3 where `--check` or `--diff` found something to do."""
    from repro.cli import session
    from repro.machine import Machine

    chosen = engine(options)
    environ = {**os.environ, "REPRO_CONDA_ENGINE": chosen} if chosen else os.environ
    machine = Machine(environ, session.narrator(options))
    try:
        tree = machine.tree(session.request(options), lambda _text: None)
        project = tree.project(lambda t: machine.load(t, machine.emit))
        if options.flag("check"):
            return _check(machine, tree, project, options)
        return _lock(machine, tree, project, options)
    finally:
        machine.close()


def engine(options: Options) -> str:
    """Give the name of what solves conda environments, if one is given. Raises UsageError."""
    name = options.text("engine")
    if name not in ("", "rattler", "conda-lock"):
        raise errors.UsageError(f"no engine `{name}`", hints=["choose rattler or conda-lock"])
    return name


def terms(options: Options) -> Terms:
    """Give how the project is to be locked. Raises UsageError."""
    from repro.lockset import Terms

    return Terms(
        platforms=tuple(options.list("platform")),
        upgrade=tuple(options.list("upgrade")),
        exclude_newer=moment(options.text("exclude_newer")),
        anew=options.flag("anew"),
    )


def moment(text: str) -> str:
    """Give a day or a time as RFC 3339, empty for none. Raises UsageError."""
    from datetime import UTC, datetime, timedelta

    if not text:
        return ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        hints = ["write it as 2026-01-31 or 2026-01-31T12:00:00Z"]
        raise errors.UsageError(f"`--exclude-newer {text}` is no date", hints=hints) from None
    if len(text) == len("2026-01-31"):
        found += timedelta(days=1)  # that whole day counts, as uv has it
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check(machine: Machine, tree: Tree, project: Project, options: Options) -> int:
    from repro import lockset

    states = lockset.states(project, tree, machine.supply)
    stale = [state for state in states if state.why]
    if options.flag("json"):
        _print({"stale": bool(stale), "locks": [_state(state) for state in states]})
    else:
        terminal = _terminal(options)
        for state in states:
            mark = terminal.paint("✗", "red") if state.why else terminal.paint("✓", "green")
            terminal.line(f"{mark} {_title(state)}")
            if state.why:
                terminal.line(f"  {state.why}")
        if not states:
            terminal.line("the project has no environment that can be locked")
    return errors.STALE if stale else errors.OK


def _lock(machine: Machine, tree: Tree, project: Project, options: Options) -> int:
    from repro import locking, lockset
    from repro.cli import session

    root = tree.source.root
    if not root and not options.flag("diff"):
        raise errors.UsageError(
            "a lock can only be written into a project that is a folder here",
            hints=["clone it first, or use `--diff` or `--check`"],
        )
    narrator = session.narrator(options)

    def progress(text: str) -> None:
        from repro.events import Progress

        narrator(Progress(step="lock", text=text))

    update = lockset.update(project, tree, machine.supply, terms(options), progress)
    different = [path for path, data in update.files if tree.read(path) != data]
    if not options.flag("diff"):
        for path, data in update.files:
            locking.write(root, path, data)
    if options.flag("json"):
        _print(_document(update, different, written=not options.flag("diff")))
    else:
        _tell(update, different, options)
    return errors.STALE if options.flag("diff") and different else errors.OK


def _tell(update: Update, different: list[str], options: Options) -> None:
    terminal = _terminal(options)
    verb = "would write" if options.flag("diff") else "wrote"
    for change in update.changes:
        word = verb if change.path in different else "unchanged"
        count = len(change.after.artifacts)
        packages = "1 image" if change.after.image else f"{count} package{'s'[: count != 1]}"
        terminal.line(f"{word} {change.path}  {change.platform}  {packages}")
        found = change.differences
        for one in found[:SHOWN]:
            terminal.line(f"  {_difference(one)}")
        if len(found) > SHOWN:
            terminal.line(f"  and {len(found) - SHOWN} more")
    if not update.changes:
        terminal.line("the project has no environment that can be locked")


def _difference(one: Difference) -> str:
    if not one.before:
        return f"+ {one.name} {one.after}"
    return f"~ {one.name} {one.before} → {one.after}" if one.after else f"- {one.name} {one.before}"


def _title(state: State) -> str:
    owner = f" of {state.label}" if state.label else ""
    return f"{state.path}: {state.kind}{owner}, {state.platform}{_count(state.lock)}"


def _count(lock: EnvironmentLock | None) -> str:
    from repro.cli.render import plural

    if lock is None or lock.image is not None:
        return ""
    return f", {plural(len(lock.artifacts), 'package')}"


def _state(state: State) -> dict[str, object]:
    return {
        "path": state.path,
        "entry_point": state.label or None,
        "kind": state.kind,
        "platform": state.platform,
        "stale": bool(state.why),
        "reason": state.why or None,
        "edited": state.edited,
        "environment": state.lock.digest if state.lock else None,
        "unmet": [{"code": u.code, "entry": u.entry, "why": u.why} for u in state.unmet],
    }


def _document(update: Update, different: list[str], *, written: bool) -> dict[str, object]:
    return {
        "stale": bool(different),
        "written": different if written else [],
        "locks": [_change(change) for change in update.changes],
    }


def _change(change: Change) -> dict[str, object]:
    return {
        "path": change.path,
        "entry_point": change.label or None,
        "kind": change.kind,
        "platform": change.platform,
        "environment": change.after.digest,
        "packages": len(change.after.artifacts),
        "changes": [
            {"name": d.name, "before": d.before or None, "after": d.after or None}
            for d in change.differences
        ],
    }


def _print(document: dict[str, object]) -> None:
    from repro.cli import render

    print(render.json_text({"schema": "repro.lock/1", **document}))


def _terminal(options: Options) -> Terminal:
    from repro.cli import render

    return render.Terminal(options.text("color") or "auto", sys.stdout)

"""Which environment a word on the command line means: its digest, a run, or a project."""

from __future__ import annotations

import os

from repro import errors
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.cli.options import Options
    from repro.environments.cache import EnvironmentEntry
    from repro.lock import EnvironmentLock
    from repro.machine import Machine
    from repro.ports import Progress, Tree

SHORTEST = 4
HEX = frozenset("0123456789abcdef")
HINT = "`repro env list` shows what is there; a project is named by its path or URI"


class Target(Value):
    """An environment that was named.

    `entry` is what is on disk of it, None where nothing is. `lock` is None for one that is not
    complete. `tree` is the project, where it was named by one: its local packages lie there.
    """

    digest: str
    lock: EnvironmentLock | None = None
    entry: EnvironmentEntry | None = None
    tree: Tree | None = None

    def not_made(self) -> errors.UsageError:
        """Give the error for a command that needs the environment to be there."""
        return errors.UsageError(
            f"the environment {self.digest[:12]} is not made",
            hints=["`repro run` makes it, and so does `repro env shell` with the project"],
        )


def progress(options: Options) -> Progress:
    """Give what tells of work that takes time."""
    from repro.cli import session
    from repro.events import Progress as Told

    narrator = session.narrator(options)
    return lambda text: narrator(Told(step="env", text=text))


def find(machine: Machine, options: Options, tell: Progress) -> Target:
    """Find the environment that a command line names, by default that of the project here.

    A folder of that name is a project, whatever else it could be. Raises UsageError where there
    is nothing, or more than one.
    """
    word = options.text("environment") or "."
    if len(word) >= SHORTEST and set(word) <= HEX and not os.path.exists(word):
        return _of_digest(word, machine) or _of_run(word, machine)
    return of_project(word, machine, options, tell)


def of_project(uri: str, machine: Machine, options: Options, tell: Progress) -> Target:
    """Find the environment of an entry point of a project; it may have to be resolved."""
    from repro import plan
    from repro.locking import Wanted
    from repro.plan import Request

    request = Request(
        uri=uri,
        version=options.text("version"),
        entry_point=options.text("entry_point") or "main",
        env_manager=options.text("env_manager"),
        caller=os.getcwd(),
    )
    tree = machine.tree(request, tell)
    project = tree.project(lambda t: machine.load(t, machine.emit))
    entry = plan.entry_point(project, request.entry_point, machine.environ.get("SHELL", ""))
    environment = plan.environment(project, entry, request.env_manager)
    if environment is None:
        raise _nothing("the step runs in the caller's own environment")
    wanted = Wanted(
        environment=environment,
        label=entry.name if entry.environment is not None else "",
        lockfiles=project.lockfiles,
    )
    lock = machine.lock(wanted, tree, tell)
    return _with_lock(lock, machine, tree)


def _of_digest(word: str, machine: Machine) -> Target | None:
    from repro.environments import cache

    found = cache.find(machine.home.root, word)
    if len(found) > 1:
        names = ", ".join(e.digest[:12] for e in found)
        raise errors.UsageError(f"several environments begin with `{word}`: {names}")
    if not found:
        return None
    (entry,) = found
    lock = cache.lock_of(machine.home.root, entry.digest)
    return Target(digest=entry.digest, lock=lock, entry=entry)


def _of_run(word: str, machine: Machine) -> Target:
    try:
        record = machine.history.get(word)
    except errors.RunUnknown as error:
        raise errors.UsageError(
            f"no environment begins with `{word}`, and {error.message}",
            hints=[*error.hints, HINT],
        ) from None
    if record.environment_kind == "local":
        raise _nothing(f"run {record.run_id[:8]} ran in the caller's own environment")
    found = _of_digest(record.environment, machine)
    if found is not None:
        return found
    lock = machine.locks.of_environment(record.environment)
    return Target(digest=record.environment, lock=lock)


def _with_lock(lock: EnvironmentLock, machine: Machine, tree: Tree) -> Target:
    from repro.environments import cache

    if lock.kind == "local":
        raise _nothing("the step runs in the caller's own environment")
    found = cache.find(machine.home.root, lock.digest)
    return Target(digest=lock.digest, lock=lock, entry=found[0] if found else None, tree=tree)


def _nothing(why: str) -> errors.UsageError:
    return errors.UsageError(f"{why}: nothing was made for it", hints=[HINT])

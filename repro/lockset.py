"""All locks of a project together: whether they are up to date, and bringing them there."""

from __future__ import annotations

from repro import locking, platforms
from repro.errors import LockInvalid, UsageError
from repro.lock import differences
from repro.lockfiles import names
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.lock import Difference, EnvironmentLock
    from repro.locking import Wanted
    from repro.ports import Progress, Tree, Unmet
    from repro.spec import Project
    from repro.supply import Supply


class Terms(Value):
    """How a project is to be locked; the fields are those of `repro.ports.LockRequest`."""

    platforms: tuple[str, ...] = ()
    upgrade: tuple[str, ...] = ()
    exclude_newer: str = ""
    anew: bool = False


class State(Value):
    """The lock of one environment for one platform: `why` it cannot be used, empty when it can."""

    label: str
    kind: str
    platform: str
    path: str
    why: str = ""
    edited: bool = False
    lock: EnvironmentLock | None = None
    unmet: tuple[Unmet, ...] = ()


class Change(Value):
    """What locking again does to one environment on one platform.

    `before` is None where there was no lock; `path` is the file that has it now.
    """

    label: str
    kind: str
    platform: str
    path: str
    after: EnvironmentLock
    before: EnvironmentLock | None = None

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Say which packages differ."""
        if self.before is None:
            return ()
        return differences(self.before, self.after)


class Update(Value):
    """The lock files that a project is to have: their content by path, and what that changes."""

    files: tuple[tuple[str, bytes], ...]
    changes: tuple[Change, ...]


def states(project: Project, tree: Tree, supply: Supply) -> tuple[State, ...]:
    """Look at every lock of a project, for this machine and the platforms that it is locked for.

    A lock file that cannot be read is a state that says so. Nothing is resolved or fetched.
    """
    return tuple(
        _state(wanted, tree, supply, platform)
        for wanted in locking.wanted_of(project)
        for platform in _locked_for(wanted, tree) or (locking.here(),)
    )


def _state(wanted: Wanted, tree: Tree, supply: Supply, platform: str) -> State:
    path = locking.place_of(wanted, platform)
    about = State(
        label=wanted.label,
        kind=wanted.kind,
        platform=platform,
        path=path or names.path(wanted.kind, wanted.label, platform),
    )
    try:
        found = locking.look(wanted, tree, supply.kind(wanted.kind, tree), platform)
    except LockInvalid as error:
        return replace(about, why=error.message)
    return replace(
        about,
        why=found.why(platform),
        edited=found.file is not None and found.file.edited,
        lock=found.lock,
        unmet=found.unmet,
    )


def _locked_for(wanted: Wanted, tree: Tree) -> tuple[str, ...]:
    """Give the platforms that an environment is locked for, as far as that can be read."""
    if wanted.kind == "python":
        return tuple(p for p in platforms.NAMES if locking.place_of(wanted, p))
    return tuple(sorted({lock.platform for lock in _old(wanted, tree)} - {""}))


def update(
    project: Project, tree: Tree, supply: Supply, terms: Terms, progress: Progress
) -> Update:
    """Lock every environment of a project; what is locked stays as far as it satisfies.

    Nothing is written. Raises EnvironmentFailed, Unreachable, UsageError.
    """
    unknown = [name for name in terms.platforms if name not in platforms.NAMES]
    if unknown:
        hints = [f"known: {', '.join(platforms.NAMES)}"]
        raise UsageError(f"no platform `{unknown[0]}`", hints=hints)
    files: dict[str, bytes] = {}
    images: tuple[EnvironmentLock, ...] = ()
    changes: list[Change] = []
    for wanted in locking.wanted_of(project):
        old = _old(wanted, tree)
        chosen = terms.platforms or tuple(sorted({k.platform for k in old} - {""}))
        new = supply.locker(tree).resolve(
            wanted,
            progress,
            platforms_=chosen or (locking.here(),),
            keep=() if terms.anew else old,
            upgrade=terms.upgrade,
            exclude_newer=terms.exclude_newer,
        )
        merged = new if terms.platforms else locking.merge(wanted, old, new)
        if wanted.kind == "docker":  # all images of a project are in one file
            merged = images = locking.merge(wanted, images, new)
        files |= locking.written(wanted, merged)
        changes += _changes(wanted, old, new)
    return Update(files=tuple(sorted(files.items())), changes=tuple(changes))


def _old(wanted: Wanted, tree: Tree) -> tuple[EnvironmentLock, ...]:
    """Give the locks of an environment, of all platforms."""
    return tuple(
        lock
        for lock in locking.locked(wanted, tree)
        if lock.platform and locking.is_about(wanted, lock)
    )


def _changes(
    wanted: Wanted, old: tuple[EnvironmentLock, ...], new: tuple[EnvironmentLock, ...]
) -> list[Change]:
    before = {lock.platform: lock for lock in old}
    return [
        Change(
            label=wanted.label,
            kind=wanted.kind,
            platform=lock.platform,
            path=names.path(wanted.kind, wanted.label, lock.platform),
            after=lock,
            before=before.get(lock.platform),
        )
        for lock in new
    ]

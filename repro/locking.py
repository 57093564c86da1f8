"""Which lock an environment has: the project's own lock file, one kept in the store, or a new one.

A lock file counts as long as it satisfies what is asked for, whatever text that is written in.
What was decided is remembered by the digests of the request and of the file, so that a cache hit
neither decodes a lock file nor looks into it.
"""

from __future__ import annotations

import os
import sys

from repro import digest, platforms, value
from repro.errors import LockInvalid, Stale, Unsupported
from repro.lockfiles import names
from repro.spec import CondaEnvironment, DockerEnvironment, PythonEnvironment
from repro.system import files
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from repro.lock import EnvironmentLock
    from repro.lockfiles.names import LockFile
    from repro.ports import Environments, Progress, Tree, Unmet
    from repro.spec import Environment, Project
    from repro.store.locks import Locks

    Adapter = Callable[[str], Environments]

UPDATE, LOCKED, FROZEN, ANEW = "", "locked", "frozen", "anew"
SHOWN = 3


class Wanted(Value):
    """An environment whose lock is wanted, with the lock files that its project has.

    `label` is the entry point that has it for itself, empty for the project's own.
    """

    environment: Environment
    label: str = ""
    lockfiles: Mapping[str, str] = {}

    @property
    def kind(self) -> str:
        """Give the kind of its lock."""
        return names.kind_of(self.environment)


class Found(Value):
    """The lock that a project has for an environment on one platform, and what it lacks.

    `path` is empty where there is no lock file, `lock` None where it has none for the platform.
    """

    path: str = ""
    file: LockFile | None = None
    lock: EnvironmentLock | None = None
    unmet: tuple[Unmet, ...] = ()

    @property
    def serves(self) -> bool:
        """Say whether the lock can be used as it is."""
        return self.lock is not None and not self.unmet

    def why(self, platform: str) -> str:
        """Say in one line why it cannot be used; empty when it can."""
        if not self.path:
            return "there is no lock"
        if self.lock is None:
            return f"`{self.path}` has no lock for {platform}"
        shown = "; ".join(f"{u.entry}: {u.why}" for u in self.unmet[:SHOWN])
        more = f"; and {len(self.unmet) - SHOWN} more" if len(self.unmet) > SHOWN else ""
        return shown and f"`{self.path}` is out of date: {shown}{more}"


def here() -> str:
    """Give the name of this machine's platform."""
    return platforms.of_machine(sys.platform, os.uname().machine)


def codec(kind: str) -> ModuleType:
    """Give the module that reads and writes the lock files of a kind."""
    import importlib

    module = {"python": "pylock", "conda": "condalock", "docker": "dockerlock"}[kind]
    return importlib.import_module(f"repro.lockfiles.{module}")


def decode(kind: str, path: str, data: bytes) -> LockFile:
    """Read a lock file. Raises LockInvalid."""
    found: LockFile = codec(kind).decode(path, data)
    return found


def look(wanted: Wanted, tree: Tree, adapter: Environments, platform: str) -> Found:
    """Look for the lock that a project has for an environment. Raises LockInvalid."""
    path = place_of(wanted, platform)
    data = tree.read(path) if path else None
    if data is None:
        return Found()
    file = decode(wanted.kind, path, data)
    chosen, unmet = _chosen(wanted, file, adapter, platform)
    return Found(path=path, file=file, lock=chosen, unmet=unmet)


def place_of(wanted: Wanted, platform: str) -> str:
    """Give the path of the lock file that counts, empty where there is none."""
    for path in names.places(wanted.kind, wanted.label, platform):
        if path in wanted.lockfiles:
            return path
    return ""


def locked(wanted: Wanted, tree: Tree) -> tuple[EnvironmentLock, ...]:
    """Give all locks of the files of an environment, of all platforms, that can be read."""
    of_each = wanted.kind == "python"  # one file for each platform
    paths = dict.fromkeys(place_of(wanted, p) for p in (platforms.NAMES if of_each else ("",)))
    found: dict[tuple[str, str], EnvironmentLock] = {}
    for path in filter(None, paths):
        try:
            locks = decode(wanted.kind, path, tree.read(path) or b"").locks
        except LockInvalid:
            continue
        found |= {_order(lock): lock for lock in locks}
    return tuple(found.values())


def _chosen(
    wanted: Wanted, file: LockFile, adapter: Environments, platform: str
) -> tuple[EnvironmentLock | None, tuple[Unmet, ...]]:
    """Choose among the locks of a file; one file holds the images of all environments."""
    fitting = [lock for lock in file.locks if lock.platform in ("", platform)]
    judged = [(lock, adapter.unmet(wanted.environment, lock)) for lock in fitting]
    for lock, unmet in judged:
        if not unmet:
            return lock, ()
    if wanted.kind == "docker":  # the locks of other images say nothing about this one
        same = [pair for pair in judged if is_about(wanted, pair[0])]
        return same[0] if same else (None, ())
    return judged[0] if judged else (None, ())


def is_about(wanted: Wanted, lock: EnvironmentLock) -> bool:
    """Say whether a lock of a file with several images is that of an environment."""
    environment = wanted.environment
    if not isinstance(environment, DockerEnvironment) or lock.image is None:
        return True
    return lock.image.reference == (environment.image or environment.dockerfile)


class Locker:
    """Finds and makes the locks of one call.

    `adapter` gives what locks a kind of environment. `settings` is whatever else a new lock
    depends on. With `looks_only`, no lock file is written and no code of a project is run.
    """

    def __init__(
        self, locks: Locks, adapter: Adapter, *, settings: str = "", looks_only: bool = False
    ) -> None:
        """Look nothing up yet."""
        self.locks = locks
        self.adapter = adapter
        self.settings = settings
        self.looks_only = looks_only
        self.platform = here()
        self.decisions: dict[str, str] = {}

    def lock(
        self, wanted: Wanted, tree: Tree, progress: Progress, how: str = UPDATE
    ) -> EnvironmentLock:
        """Give the lock of an environment for this machine.

        `how` is `locked` where a lock that is missing or out of date is an error, `frozen` where
        it is not even looked whether it is, `anew` where another is made in any case. By default
        a lock file is brought up to date, and an environment without one is locked in the store.
        Raises Stale, LockInvalid, EnvironmentFailed, Unsupported.
        """
        request = self.request(wanted.environment)
        path = place_of(wanted, self.platform)
        lock = self._decided(wanted, tree, progress, (request, path, how))
        self.decisions[self._decision(wanted, request, path, how)] = lock.digest
        return lock

    def _decision(self, wanted: Wanted, request: str, path: str, how: str) -> str:
        """Name a decision: under that name the store has the lock that it led to."""
        if not path:
            return request
        content = wanted.lockfiles[path]
        return digest.of_value("repro/locked", [request, path, content, how == FROZEN])

    def _decided(
        self, wanted: Wanted, tree: Tree, progress: Progress, about: tuple[str, str, str]
    ) -> EnvironmentLock:
        request, path, how = about
        if path and how == ANEW:
            return self._updated(wanted, tree, progress, (), locked(wanted, tree))
        if path:
            return self._of_file(wanted, tree, progress, about)
        if how in (LOCKED, FROZEN):
            raise self._missing(wanted)
        known = None if how == ANEW else self.locks.of_request(request)
        if known is None or known.kind != wanted.kind:
            known = self._resolved(wanted, progress)
            self.locks.keep(request, known)
        return known

    def _of_file(
        self, wanted: Wanted, tree: Tree, progress: Progress, about: tuple[str, str, str]
    ) -> EnvironmentLock:
        _request, _path, how = about
        name = self._decision(wanted, *about)
        known = self.locks.of_request(name)
        if known is not None:
            return known
        found = look(wanted, tree, self.adapter(wanted.kind), self.platform)
        if found.lock is not None and (how == FROZEN or not found.unmet):
            self.locks.keep(name, found.lock)
            return found.lock
        if how in (LOCKED, FROZEN):
            raise self._stale(found)
        progress(f"{found.why(self.platform)}: locking again")
        old = locked(wanted, tree)
        return self._updated(wanted, tree, progress, old, old)

    def _updated(
        self,
        wanted: Wanted,
        tree: Tree,
        progress: Progress,
        keep: tuple[EnvironmentLock, ...],
        old: tuple[EnvironmentLock, ...],
    ) -> EnvironmentLock:
        """Resolve again, and write the lock file of a project that lies in a folder.

        It is locked for all platforms of the `old` locks; what `keep` says stays if it can.
        """
        about = [lock for lock in old if wanted.kind != "docker" or is_about(wanted, lock)]
        chosen = tuple(sorted({*(lock.platform for lock in about), self.platform} - {""}))
        new = self.resolve(wanted, progress, platforms_=chosen, keep=keep)
        mine = next(lock for lock in new if lock.platform in ("", self.platform))
        if tree.source.root and not self.looks_only:
            merged = merge(wanted, old, new)
            for path, data in written(wanted, merged).items():
                write(tree.source.root, path, data)
        self.locks.keep(self.request(wanted.environment), mine)
        return mine

    def resolve(
        self,
        wanted: Wanted,
        progress: Progress,
        *,
        platforms_: tuple[str, ...] = (),
        keep: tuple[EnvironmentLock, ...] = (),
        upgrade: tuple[str, ...] = (),
        exclude_newer: str = "",
    ) -> tuple[EnvironmentLock, ...]:
        """Lock an environment for some platforms, by default this machine's."""
        from repro.ports import LockRequest

        request = LockRequest(
            environment=wanted.environment,
            platforms=platforms_ or (self.platform,),
            keep=keep,
            upgrade=upgrade,
            exclude_newer=exclude_newer,
        )
        return self.adapter(wanted.kind).lock(request, progress)

    def _resolved(self, wanted: Wanted, progress: Progress) -> EnvironmentLock:
        if self.looks_only and _runs_code(wanted.environment):
            raise Unsupported(
                "the environment holds something of the project, which only a run builds",
                hints=["run the step once; its environment is known then"],
            )
        return self.resolve(wanted, progress, platforms_=(self.platform,))[0]

    def request(self, wanted: Environment) -> str:
        """Name what is asked for: an unsaid Python version is that of this interpreter."""
        plain = value.dump(wanted)
        plain["source"] = ""
        if isinstance(wanted, PythonEnvironment) and not wanted.python:
            plain["python"] = ".".join(str(n) for n in sys.version_info[:3])
        if isinstance(wanted, CondaEnvironment):
            plain["file"] = plain["text"] = ""
            if wanted.python is not None:
                plain["python"]["source"] = ""
        return digest.of_value("repro/request", [plain, self.platform, self.settings])

    def _missing(self, wanted: Wanted) -> Stale:
        path = names.path(wanted.kind, wanted.label, self.platform)
        return Stale(
            f"there is no lock of the environment in `{path}`",
            hints=["`repro lock` writes it; commit it with the project"],
        )

    def _stale(self, found: Found) -> Stale:
        return Stale(
            found.why(self.platform),
            hints=[
                "`repro lock` brings it up to date, `repro lock --diff` shows what that changes"
            ],
        )


def _runs_code(environment: Environment) -> bool:
    """Say whether locking an environment runs code of the project."""
    if isinstance(environment, PythonEnvironment):
        return bool(environment.directories or environment.uv_project)
    return isinstance(environment, DockerEnvironment) and bool(environment.dockerfile)


def merge(
    wanted: Wanted, old: tuple[EnvironmentLock, ...], new: tuple[EnvironmentLock, ...]
) -> tuple[EnvironmentLock, ...]:
    """Give all locks that belong into a lock file beside the new ones of an environment."""
    made = {lock.platform for lock in new}
    if wanted.kind == "docker":
        kept = [lock for lock in old if not is_about(wanted, lock)]
    else:
        kept = [lock for lock in old if lock.platform not in made]
    return tuple(sorted((*kept, *new), key=_order))


def _order(lock: EnvironmentLock) -> tuple[str, str]:
    return (lock.image.reference if lock.image else "", lock.platform)


def written(wanted: Wanted, locks: tuple[EnvironmentLock, ...]) -> dict[str, bytes]:
    """Give the lock files of an environment, by their paths."""
    encode = codec(wanted.kind).encode
    if wanted.kind != "python":
        path = names.path(wanted.kind, wanted.label, "")
        return {path: encode(locks, {})}
    return {
        names.path("python", wanted.label, lock.platform): encode((lock,), {}) for lock in locks
    }


def write(root: str, path: str, data: bytes) -> None:
    """Put a lock file into a project, whole or not at all, unless it is there already."""
    place = os.path.join(root, path)
    if os.path.islink(place) or os.path.islink(os.path.dirname(place)):
        raise LockInvalid(
            f"`{path}` is a link, and is not written through",
            hints=["replace it by a regular file"],
        )
    if files.read(place) != data:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        files.replace(place, data, mode=0o666)  # as any file of the project: the umask decides


def wanted_of(project: Project) -> tuple[Wanted, ...]:
    """Give the environments of a project that can be locked."""
    return tuple(
        Wanted(environment=one.environment, label=one.label, lockfiles=project.lockfiles)
        for one in names.environments(project)
    )


def of_platform(wanted: Wanted, platform: str) -> Wanted:
    """Give `wanted` without the lock files of other platforms."""
    path = place_of(wanted, platform)
    kept = {path: wanted.lockfiles[path]} if path else {}
    return replace(wanted, lockfiles=kept)

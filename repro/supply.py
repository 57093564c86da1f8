"""Environments for steps: their locks, and what makes each kind of them."""

from __future__ import annotations

import os

from repro.errors import InterpreterMissing, UsageError
from repro.locking import ANEW, LOCKED, Locker, place_of
from repro.spec import PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from repro.environments.python import Python
    from repro.images.logins import Given
    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.manifest import Entry
    from repro.ports import Environments, Progress, Realized, Tree
    from repro.store.home import Home
    from repro.store.locks import Locks

FALSE = ("", "0", "false", "no")


class Supply:
    """The adapters of one call, each made when it is first used.

    With `looks_only`, no lock file is written and no code of a project is run. `login` is one that
    the caller gives for a registry of images.
    """

    def __init__(
        self, home: Home, locks: Locks, environ: Mapping[str, str], *, looks_only: bool
    ) -> None:
        """Look nothing up yet."""
        self.home = home
        self.locks = locks
        self.environ = environ
        self.looks_only = looks_only
        self.login: Given | None = None
        self._decisions: dict[str, str] = {}
        self._known: dict[tuple[int, str, str], tuple[Wanted | None, EnvironmentLock]] = {}

    @property
    def sdists(self) -> bool:
        """Say whether source distributions, whose build runs their code, may be taken."""
        return self.environ.get("REPRO_SDISTS", "") == "1"

    def lock(
        self, wanted: Wanted | None, tree: Tree, progress: Progress, how: str = ""
    ) -> EnvironmentLock:
        """Give the lock of an environment: the caller's own, that of a lock file, or another.

        In a continuous integration (`CI` is set) a lock file that is out of date is an error.
        One call decides once for all its steps. Raises Stale, LockInvalid, EnvironmentFailed,
        Unsupported.
        """
        name = (id(wanted and wanted.environment), wanted.label if wanted else "", how)
        if name not in self._known:
            found = (
                self._local(progress) if wanted is None else self._lock(wanted, tree, progress, how)
            )
            self._known[name] = (wanted, found)  # kept alive, so that its id stays its own
        return self._known[name][1]

    def _local(self, progress: Progress) -> EnvironmentLock:
        from repro.ports import LockRequest

        request = LockRequest(environment=PythonEnvironment())
        (lock,) = self.kind("local").lock(request, progress)
        self.locks.keep("", lock)
        self._decisions[""] = lock.digest
        return lock

    def decided(self) -> tuple[tuple[str, str], ...]:
        """Name the decisions that were made, each with the environment that it led to."""
        return tuple(sorted(self._decisions.items()))

    def still_decides(self, decision: str, environment: str) -> bool:
        """Say whether a decision would lead to the same environment now."""
        if not decision:
            return self._local(lambda _text: None).digest == environment
        lock = self.locks.of_request(decision)
        return lock is not None and lock.digest == environment

    def _lock(self, wanted: Wanted, tree: Tree, progress: Progress, how: str) -> EnvironmentLock:
        locker = self.locker(tree)
        if not how and self.environ.get("CI", "").lower() not in FALSE:
            how = LOCKED if place_of(wanted, locker.platform) else ""
        if how == ANEW and self.looks_only:
            how = ""
        lock = self.bound(wanted, locker.lock(wanted, tree, progress, how))
        if not how and not self.looks_only and self._is_foreign(wanted, lock):
            progress(f"{lock.interpreter} of the lock is not here, and the project names none")
            lock = locker.lock(wanted, tree, progress, ANEW)
        self._decisions |= dict.fromkeys(locker.decisions, lock.digest)
        return lock

    def _is_foreign(self, wanted: Wanted, lock: EnvironmentLock) -> bool:
        """Say whether a lock holds to a Python that is not here, and that nobody asked for."""
        environment = wanted.environment
        if not isinstance(environment, PythonEnvironment) or environment.python:
            return False
        from repro.environments.interpreters import Interpreters

        try:
            Interpreters(self.home.path("memo"), self.environ).fitting(lock.interpreter)
        except InterpreterMissing:
            return True
        return False

    def bound(self, wanted: Wanted, lock: EnvironmentLock) -> EnvironmentLock:
        """Decide what a lock of another tool leaves open: the interpreter, and which files."""
        python = wanted.environment
        if lock.kind != "python" or lock.interpreter.implementation:
            return lock
        asked = python.python if isinstance(python, PythonEnvironment) else ""
        return self._python("").bound(lock, asked)

    def locker(self, tree: Tree) -> Locker:
        """Give what finds and makes the locks of a project."""
        return Locker(
            self.locks,
            lambda kind: self.kind(kind, tree),
            settings="sdists" if self.sdists else "",
            looks_only=self.looks_only,
        )

    def realize(
        self, lock: EnvironmentLock, tree: Tree, progress: Progress, brought: str = "files"
    ) -> Realized:
        """Make an environment, or find it made, as what a backend is brought; see `ports.Backend`.

        An image of an environment that is none is made on the base image that `REPRO_BASE_IMAGE`
        names. Raises EnvironmentFailed, Unreachable, and Unsupported for the caller's own
        environment where that cannot be taken along.
        """
        local = any(a.url and "://" not in a.url for a in lock.artifacts)
        kind = self.kind(lock.kind, tree if local else None)
        if brought == "files":
            return kind.realize(lock, progress)
        from repro.environments import elsewhere

        if brought in ("locks", "projects"):
            return elsewhere.not_here()
        if lock.image is not None:
            found = elsewhere.in_registry(lock.image) if brought == "references" else None
            return found or kind.realize(lock, progress)
        return elsewhere.as_image(
            lock,
            kind,
            self.kind("docker"),
            home=self.home.root,
            environ=self.environ,
            progress=progress,
        )

    def kind(self, kind: str, tree: Tree | None = None) -> Environments:
        """Give what locks and makes the environments of a kind, for the project `tree`.

        Raises UsageError for a kind that there is not.
        """
        if kind == "python":
            return self._python(self.root(tree))
        if kind == "conda":
            return self._conda(self.root(tree))
        if kind == "docker":
            return self._docker(tree)
        if kind == "local":
            from repro.environments.bare import Local

            return Local(home=self.home.root, environ=self.environ)
        raise UsageError(f"no environments of the kind `{kind}` can be made")

    def _python(self, root: str) -> Python:
        from repro.environments.python import Python

        return Python(
            home=self.home.root,
            environ=self.environ,
            tool=self.environ.get("REPRO_TOOL", "auto"),
            sdists=self.sdists,
            root=root,
        )

    def _conda(self, root: str) -> Environments:
        from repro.environments.conda import Conda, CondaLock

        by_name = {"": Conda, "rattler": Conda, "conda-lock": CondaLock}
        name = self.environ.get("REPRO_CONDA_ENGINE", "")
        if name not in by_name:
            hints = ["choose rattler or conda-lock"]
            raise UsageError(f"`REPRO_CONDA_ENGINE` names no engine: `{name}`", hints=hints)
        return by_name[name](self.home.root, self.environ, sdists=self.sdists, root=root)

    def _docker(self, tree: Tree | None) -> Environments:
        from repro.environments.docker import Docker

        entries = tree.entries if tree is not None else tuple
        root = self.root(tree)
        return Docker(self.home.root, self.environ, root=root, entries=entries, told=self.login)

    def project_image(self, image: str, folder: str, entries: Sequence[Entry], name: str) -> str:
        """Put files of the project `name` on an image of the engine; give the new one's id.

        Raises EnvironmentFailed and Unreachable.
        """
        from repro.environments.project_image import with_project
        from repro.images import daemon

        with daemon.connected(self.environ) as engine:
            return with_project(
                image,
                folder,
                entries,
                engine=engine,
                home=self.home.root,
                environ=self.environ,
                name=name,
            )

    def root(self, tree: Tree | None) -> str:
        """Give a folder with the files of a project, written for the occasion if need be."""
        if tree is None:
            return ""
        found = tree.source
        if found.root:
            return found.root
        folder = os.path.join(self.home.scratch(), f"source-{found.tree[:16]}")
        if not os.path.isdir(folder):
            tree.materialize(tree.entries(), folder)
        return folder

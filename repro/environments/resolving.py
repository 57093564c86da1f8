"""A request for Python packages resolved to exact files, for one platform after the other."""

from __future__ import annotations

import os
import posixpath
import sys

from repro import platforms
from repro.environments import uv
from repro.environments.demand import demand, normal
from repro.environments.interpreters import agree, satisfies
from repro.environments.pip import Pip
from repro.environments.tools import session
from repro.environments.uvlock import UvLock
from repro.errors import EnvironmentFailed
from repro.lock import NO_PYTHON, EnvironmentLock
from repro.requirements import UV_LOCK, Lines
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    from repro.environments.demand import Demand
    from repro.environments.interpreters import Interpreters, Python
    from repro.environments.tools import Creating, Session
    from repro.lock import Artifact, Interpreter
    from repro.ports import LockRequest, Progress
    from repro.spec import PythonEnvironment

    class Tool(Protocol):
        """What resolves and installs."""

        def version(self, session: Session) -> str:
            """Give its name and version."""

        def resolve(
            self,
            demand: Demand,
            python: Python,
            session: Session,
            *,
            keep: Mapping[str, Artifact],
            exclude_newer: str,
        ) -> list[Artifact]:
            """Find what `demand` needs on `python`, one file each."""

        def creating(self, python: Python, prefix: str, session: Session) -> Creating:
            """Make an empty virtual environment of `python` while the caller is at work."""

        def install(
            self,
            artifacts: Iterable[Artifact],
            root: str,
            prefix: str,
            session: Session,
            *,
            fresh: bool = False,
        ) -> None:
            """Install exactly `artifacts`; with `fresh`, again and from no cache."""


KIND = "python"
ALL = "*"


class Resolver:
    """Resolves with `tool`; the arguments are those of `repro.environments.python.Python`."""

    def __init__(
        self,
        home: str,
        environ: Mapping[str, str],
        interpreters: Interpreters,
        tool: Tool,
        *,
        sdists: bool,
        root: str,
    ) -> None:
        """Look nothing up yet."""
        self._home = home
        self._environ = environ
        self._interpreters = interpreters
        self._tool = tool
        self._sdists = sdists
        self._root = root

    def lock(
        self, wanted: PythonEnvironment, request: LockRequest, progress: Progress
    ) -> tuple[EnvironmentLock, ...]:
        """Give a lock for each platform that `request` names; `wanted` is what it asks for."""
        python = self._python(wanted, request)
        names = request.platforms or (here(),)
        return tuple(
            self._locked(wanted, placed(python, name), name, request, progress) for name in names
        )

    def _python(self, wanted: PythonEnvironment, request: LockRequest) -> Python:
        """Give the Python to resolve for: the one that was locked before, if it still serves.

        That one need not be here; another then does the work in its name.
        """
        for lock in request.keep:
            identity = lock.interpreter
            still = identity.implementation and satisfies(identity.version, wanted.python)
            if still and not {ALL, KIND} & {*request.upgrade}:
                found = self._interpreters.nearest(identity.version)
                return replace(found, identity=identity)
        return self._interpreters.find(wanted.python, wanted.source)

    def _locked(
        self,
        wanted: PythonEnvironment,
        python: Python,
        name: str,
        request: LockRequest,
        progress: Progress,
    ) -> EnvironmentLock:
        earlier = next((k for k in request.keep if k.platform == name), None)
        lock = EnvironmentLock(
            kind=KIND,
            interpreter=python.identity,
            platform=name,
            exclude_newer=request.exclude_newer,
        )
        asked = demand(wanted, self._root, sdists=self._sdists)
        if not asked.is_empty:
            where = f"{python.identity} on {name}"
            progress(f"resolving the packages of `{wanted.source}` for {where}")
            message = f"the packages of `{wanted.source}` cannot be resolved for {where}"
            # a platform that is new takes the versions of another, where it can
            kept = _kept(earlier or next(iter(request.keep), None), request.upgrade)
            with session(self._home, self._environ, message) as work:
                artifacts, tool = self._resolved(wanted, python, work, kept, request.exclude_newer)
            found = tuple(sorted(artifacts, key=lambda a: a.name))
            lock = replace(lock, artifacts=found, tool=tool)
        if earlier is not None and replace(lock, tool=earlier.tool) == earlier:
            return earlier
        return lock

    def _resolved(
        self,
        wanted: PythonEnvironment,
        python: Python,
        work: Session,
        keep: Mapping[str, Artifact],
        exclude_newer: str,
    ) -> tuple[list[Artifact], str]:
        tool = self._tool
        if isinstance(tool, Pip) and not agree(self._probed(python), python.identity):
            raise EnvironmentFailed(
                f"pip cannot lock for {python.identity} ({python.identity.platform}) here",
                hints=["`pip install uv`: it locks for every platform"],
            )
        lockfile = self._uv_lock(wanted)
        if lockfile is not None:
            wanted = self._exported(wanted, lockfile, python, tool, work)
        asked = demand(wanted, self._root, sdists=self._sdists, exact=lockfile is not None)
        found = tool.resolve(asked, python, work, keep=keep, exclude_newer=exclude_newer)
        if asked.hashes_required:
            _all_hashed(found, asked)
        return lockfile.annotated(found) if lockfile else found, tool.version(work)

    def _probed(self, python: Python) -> Interpreter:
        """Give what the Python really is that resolves in the name of another."""
        found = self._interpreters.probe(python.base)
        return found.identity if found else NO_PYTHON

    def _uv_lock(self, wanted: PythonEnvironment) -> UvLock | None:
        """Give the `uv.lock` that says what to install, if there is one."""
        path = posixpath.normpath(posixpath.join(wanted.uv_project, UV_LOCK))
        if not wanted.uv_project or path not in dict(wanted.pinned):
            return None
        data = files.read(os.path.join(self._root, path)) if self._root else None
        if data is None:
            raise EnvironmentFailed(
                f"`{wanted.source}` has a uv.lock, and the project is in no folder here",
                hints=["clone the project and run it from its folder"],
            )
        try:
            return UvLock(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EnvironmentFailed(f"`{path}` cannot be read: {error}") from None

    def _exported(
        self,
        wanted: PythonEnvironment,
        lockfile: UvLock,
        python: Python,
        tool: Tool,
        work: Session,
    ) -> PythonEnvironment:
        """Give the request of a uv project as its `uv.lock` says it, with every version exact."""
        if not isinstance(tool, uv.Uv):
            raise EnvironmentFailed("a uv.lock is read by uv alone", hints=["`pip install uv`"])
        text = tool.exported(os.path.join(self._root, wanted.uv_project), python, work)
        lines = Lines(lambda _path: None)
        lines.add_text(text, posixpath.join(wanted.uv_project, UV_LOCK))
        digests = dict(wanted.directories)
        return replace(
            wanted,
            requirements=tuple(lines.requirements),
            constraints=(),
            options=lockfile.options(wanted.uv_project),
            directories=tuple((path, digests.get(path, "")) for path, _ in lines.directories),
        )


def here() -> str:
    """Give the name of this machine's platform."""
    return platforms.of_machine(sys.platform, os.uname().machine)


def placed(python: Python, name: str) -> Python:
    """Give a Python as what it is on the platform `name`: called the same on every machine."""
    platform = platforms.named(name)
    if platform is None:
        return python
    return replace(python, identity=replace(python.identity, platform=platform.python))


def _kept(lock: EnvironmentLock | None, upgrade: tuple[str, ...]) -> dict[str, Artifact]:
    """Give what is to stay as it was locked."""
    if lock is None or ALL in upgrade:
        return {}
    names = {normal(name) for name in upgrade}
    return {a.name: a for a in lock.artifacts if a.name not in names}


def _all_hashed(artifacts: Iterable[Artifact], asked: Demand) -> None:
    for artifact in artifacts:
        if artifact.kind != "directory" and artifact.name not in asked.hashes:
            raise EnvironmentFailed(
                f"`--require-hashes` is asked for, and no hash is given for `{artifact.name}`",
                hints=["write hashes for every package, as `uv pip compile --generate-hashes`"],
            )

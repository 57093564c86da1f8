"""Virtual environments: a request resolved to exact files, and those installed, once."""

from __future__ import annotations

import os

from repro.environments import cache, records, uv
from repro.environments.demand import demand
from repro.environments.interpreters import Interpreters
from repro.environments.pip import Pip
from repro.environments.tools import session
from repro.errors import EnvironmentFailed, Unsupported, UsageError
from repro.lock import EnvironmentLock
from repro.spec import PythonEnvironment
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Protocol

    from repro.environments import interpreters
    from repro.environments.demand import Demand
    from repro.environments.tools import Session
    from repro.lock import Artifact
    from repro.ports import Progress
    from repro.spec import Environment

    class Tool(Protocol):
        """What resolves and installs."""

        def version(self, session: Session) -> str:
            """Give its name and version."""

        def resolve(
            self, demand: Demand, python: interpreters.Python, session: Session
        ) -> list[Artifact]:
            """Find what `demand` needs on `python`, one file each."""

        def create(self, python: interpreters.Python, prefix: str, session: Session) -> None:
            """Make an empty virtual environment of `python`."""

        def install(
            self, artifacts: Iterable[Artifact], root: str, prefix: str, session: Session
        ) -> None:
            """Install exactly `artifacts`; local ones lie below `root`."""


TOOLS = ("auto", "uv", "pip")


class VirtualEnvironment:
    """A virtual environment that is there, and stays until `release`."""

    def __init__(self, prefix: str, lock: files.Lock) -> None:
        """Take the lock that announces the use."""
        self.variables: Mapping[str, str] = {"VIRTUAL_ENV": prefix}
        self.path: tuple[str, ...] = (os.path.join(prefix, "bin"),)
        self._lock = lock

    def release(self) -> None:
        """Say that nothing runs in it any more."""
        self._lock.free()


class Python:
    """Virtual environments below the store `home`, made with uv or pip.

    `tool` is `uv`, `pip`, or `auto`: uv where there is one. Source distributions, whose build
    runs code of a package, are taken only with `sdists`. `root` is the folder of the project,
    for the local packages that it installs.
    """

    kind = "python"

    def __init__(
        self,
        home: str,
        environ: Mapping[str, str],
        *,
        tool: str = "auto",
        sdists: bool = False,
        root: str = "",
    ) -> None:
        """Look nothing up yet. Raises UsageError for another tool."""
        if tool not in TOOLS:
            raise UsageError(f"no tool is called `{tool}`", hints=[f"known: {', '.join(TOOLS)}"])
        self._home = home
        self._environ = environ
        self._wanted = tool
        self._sdists = sdists
        self._root = root
        self._interpreters = Interpreters(os.path.join(home, "memo"), environ)

    def lock(self, request: Environment, progress: Progress) -> EnvironmentLock:
        """Resolve `request` for this machine; local packages and checkouts run their build.

        Raises InterpreterMissing, EnvironmentFailed with the resolver's reason, or Unreachable.
        A request for no packages needs no network.
        """
        if not isinstance(request, PythonEnvironment):
            raise Unsupported("this environment is no python environment")
        python = self._interpreters.find(request.python, request.source)
        wanted = demand(request, self._root, sdists=self._sdists)
        if not (wanted.lines or wanted.checkouts or wanted.packages):
            return EnvironmentLock(kind=self.kind, interpreter=python.identity)
        progress(f"resolving the packages of `{request.source}` for {python.identity}")
        message = f"the packages of `{request.source}` cannot be resolved for {python.identity}"
        tool = self._tool()
        try:
            with session(self._home, self._environ, message) as work:
                artifacts = tool.resolve(wanted, python, work)
                version = tool.version(work)
        except OSError as error:
            raise files.explained(error, "resolving packages") from None
        return EnvironmentLock(
            kind=self.kind,
            interpreter=python.identity,
            artifacts=tuple(sorted(artifacts, key=lambda a: a.name)),
            tool=version,
        )

    def realize(self, lock: EnvironmentLock, progress: Progress) -> VirtualEnvironment:
        """Make the environment of `lock`, or find it made; it stays until it is released.

        Raises InterpreterMissing, EnvironmentFailed, Unreachable or NoSpace; nothing half-made
        is left then.
        """

        def build(prefix: str, held: files.Lock) -> Mapping[str, Any]:
            progress(f"making an environment for {lock.interpreter}")
            return self._build(lock, prefix, held)

        def fits(prefix: str) -> bool:
            python = self._interpreters.probe(
                os.path.realpath(os.path.join(prefix, "bin", "python"))
            )
            return python is not None and python.identity == lock.interpreter

        try:
            prefix, shared = cache.enter(
                self._home, lock, fits=fits, build=build, progress=progress
            )
        except OSError as error:
            raise files.explained(error, "entering an environment") from None
        return VirtualEnvironment(prefix, shared)

    def _build(self, lock: EnvironmentLock, prefix: str, held: files.Lock) -> Mapping[str, Any]:
        python = self._interpreters.fitting(lock.interpreter)
        tool = self._tool()
        message = f"the environment for {lock.interpreter} cannot be made"
        with session(self._home, self._environ, message, keep=[held.fd]) as work:
            tool.create(python, prefix, work)
            tool.install(lock.artifacts, self._root, prefix, work)
            records.verify(prefix, lock.artifacts)
            return {"python": python.base, "tool": tool.version(work)}

    def _tool(self) -> Tool:
        if self._wanted == "pip":
            return Pip()
        binary = uv.find(self._environ)
        if binary:
            return uv.Uv(binary)
        if self._wanted == "uv":
            raise EnvironmentFailed(
                "uv is not here",
                hints=["`pip install uv`", "or set `REPRO_UV` to its path", "or `REPRO_TOOL=pip`"],
            )
        return Pip()

"""Virtual environments: a request resolved to exact files, and those installed, once."""

from __future__ import annotations

import contextlib
import os

from repro.environments import cache, treehash
from repro.environments.interpreters import Interpreters, agree
from repro.environments.tools import session
from repro.errors import EnvironmentFailed, Unsupported, UsageError
from repro.ports import Unmet
from repro.spec import PythonEnvironment
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro.environments.resolving import Tool
    from repro.environments.tools import Creating, Session
    from repro.lock import Artifact, EnvironmentLock
    from repro.ports import LockRequest, Progress
    from repro.spec import Environment

TOOLS = ("auto", "uv", "pip")


class VirtualEnvironment:
    """A virtual environment that is there, and stays until `release`."""

    def __init__(self, prefix: str, lock: files.Lock) -> None:
        """Take the lock that announces the use."""
        self.prefix = prefix
        self.image = ""
        self.variables: Mapping[str, str] = {"VIRTUAL_ENV": prefix}
        self.path: tuple[str, ...] = (os.path.join(prefix, "bin"),)
        self._lock = lock

    def release(self) -> None:
        """Say that nothing runs in it any more."""
        self._lock.free()


@contextlib.contextmanager
def _listed(creating: Creating, prefix: str, found: list[str]) -> Iterator[None]:
    """Note the files of a virtual environment when it was just created."""
    with creating:
        yield
    found += treehash.paths(prefix)


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
        self._interpreters = Interpreters(os.path.join(home, "memo"), environ, home)

    def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
        """Resolve a request for each platform; local packages and checkouts run their build.

        Raises InterpreterMissing, EnvironmentFailed with the resolver's reason, or Unreachable.
        A request for no packages needs no network.
        """
        wanted = request.environment
        if not isinstance(wanted, PythonEnvironment):
            raise Unsupported("this environment is no python environment")
        from repro.environments.resolving import Resolver

        self._interpreters.progress = progress
        resolver = Resolver(
            self._home,
            self._environ,
            self._interpreters,
            self._tool(),
            sdists=self._sdists,
            root=self._root,
        )
        try:
            return resolver.lock(wanted, request, progress)
        except OSError as error:
            raise files.explained(error, "resolving packages") from None

    def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
        """Say what of a request its lock does not satisfy. Nothing is resolved or fetched."""
        if not isinstance(wanted, PythonEnvironment):
            raise Unsupported("this environment is no python environment")
        from repro.environments.unmet import OTHER_PYTHON, unmet

        try:
            return unmet(wanted, self.bound(lock, wanted.python))
        except EnvironmentFailed as error:  # another tool's lock, that means nothing here
            asked = f"python {wanted.python or lock.interpreter.version}"
            return (Unmet(code=OTHER_PYTHON, entry=asked, why=error.message),)

    def bound(self, lock: EnvironmentLock, python: str = "") -> EnvironmentLock:
        """Give a lock that another tool wrote as one of this machine; one of repro as it is.

        `python` is the version that the request asks for. Raises InterpreterMissing.
        """
        if lock.interpreter.implementation or lock.kind != self.kind:
            return lock
        from repro.environments import binding
        from repro.environments.resolving import here, placed

        found = self._interpreters.find(python or lock.interpreter.version, "the lock")
        name = lock.platform or here()
        return binding.bound(lock, placed(found, name).identity, name)

    def realize(self, lock: EnvironmentLock, progress: Progress) -> VirtualEnvironment:
        """Make the environment of `lock`, or find it made; it stays until it is released.

        One in which a file was changed or removed since it was made is made again. Raises
        InterpreterMissing, EnvironmentFailed, Unreachable or NoSpace; nothing half-made is left
        then.
        """
        lock = self.bound(lock)
        self._interpreters.progress = progress

        def build(prefix: str, held: files.Lock) -> cache.Built:
            progress(f"making an environment for {lock.interpreter}")
            return self._build(lock, prefix, held)

        def fits(prefix: str) -> bool:
            python = self._interpreters.probe(
                os.path.realpath(os.path.join(prefix, "bin", "python"))
            )
            return python is not None and agree(python.identity, lock.interpreter)

        try:
            prefix, shared = cache.enter(
                self._home, lock, fits=fits, build=build, progress=progress
            )
        except OSError as error:
            raise files.explained(error, "entering an environment") from None
        return VirtualEnvironment(prefix, shared)

    def _build(self, lock: EnvironmentLock, prefix: str, held: files.Lock) -> cache.Built:
        from repro.environments.wheelstore import WheelStore

        python = self._interpreters.fitting(lock.interpreter)
        tool = self._tool()
        message = f"the environment for {lock.interpreter} cannot be made"
        ready = [a for a in lock.artifacts if a.kind == "wheel"]
        others = [a for a in lock.artifacts if a.kind != "wheel"]
        with session(self._home, self._environ, message, keep=[held.fd]) as work:
            store = WheelStore(self._home, self._environ, self._root)
            bare: list[str] = []
            creating = _listed(tool.creating(python, prefix, work), prefix, bare)
            made = store.install(ready, prefix, python, work, creating)
            self._complete(lock, others, tool, prefix, work)
            about = {"python": python.base, "tool": tool.version(work)}
            rest = None if others else {*bare, *made.others}
            return cache.Built(about=about, known=made.known, others=rest, stock=made.stock)

    def _complete(
        self,
        lock: EnvironmentLock,
        others: list[Artifact],
        tool: Tool,
        prefix: str,
        work: Session,
    ) -> None:
        """Build and install what is no wheel; then all that was locked is there, and no more."""
        from repro.environments import records

        names = {artifact.name for artifact in others}
        for fresh in (False, True):
            if others:
                tool.install(others, self._root, prefix, work, fresh=fresh)
            try:
                records.verify(prefix, lock.artifacts, hashed=names)
            except EnvironmentFailed:
                if fresh or not others:
                    raise  # else what the tool keeps of an earlier build may have been changed
            else:
                return

    def _tool(self) -> Tool:
        from repro.environments import uv

        binary = uv.find(self._environ) if self._wanted != "pip" else ""
        if binary:
            return uv.Uv(binary)
        if self._wanted == "uv":
            raise EnvironmentFailed(
                "uv is not here",
                hints=["`pip install uv`", "or set `REPRO_UV` to its path", "or `REPRO_TOOL=pip`"],
            )
        from repro.environments.pip import Pip

        return Pip()

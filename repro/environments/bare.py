"""The caller's own environment: nothing is made, but what is installed in it is known.

On the path of a cache hit: as long as its files stay the same, an environment is known again by
listing its package folders, without starting the interpreter or reading a file.
"""

from __future__ import annotations

import os

from repro import digest
from repro.environments.interpreters import look, on_path
from repro.environments.memo import Memo, settled, stamp
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from repro.environments.interpreters import Python
    from repro.ports import LockRequest, Progress, Unmet
    from repro.spec import Environment

NAMES = ("python", "python3")
PASSED = ("VIRTUAL_ENV", "CONDA_PREFIX")
DESCRIPTIONS = {"dist-info": ("RECORD", "METADATA"), "egg-info": ("PKG-INFO",)}
POINTERS = ("pth", "egg-link")
NO_PYTHON = Interpreter(implementation="none", version="", abi="", platform="")


class Here:
    """The caller's own environment, entered."""

    def __init__(self, environ: Mapping[str, str], first: Iterable[str]) -> None:
        """Pass on where the caller is; the folders `first` come before the others."""
        self.variables: Mapping[str, str] = {n: environ[n] for n in PASSED if n in environ}
        given = environ.get("PATH", "").split(os.pathsep)
        self.path: tuple[str, ...] = (*first, *(p for p in given if os.path.isabs(p)))
        self.prefix = ""
        self.image = ""

    def release(self) -> None:
        """Do nothing: the environment is not ours."""


class Local:
    """The environment that `environ` describes: the `python` on its PATH and what is installed."""

    kind = "local"

    def __init__(self, home: str, environ: Mapping[str, str]) -> None:
        """Look nothing up yet; `home` is the store, which remembers what was learned."""
        self._folder = os.path.join(home, "memo")
        self._environ = environ

    def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
        """Say what is installed, by the digests that the installer left with each package.

        An environment without any Python is not an error: a project may need none.
        """
        del request, progress
        _path, python = self._python()
        if python is None:
            return (EnvironmentLock(kind=self.kind, interpreter=NO_PYTHON),)
        name = digest.of_value("repro/sites", python.sites)
        memo = Memo(os.path.join(self._folder, f"installed-{name[:16]}.json"))
        found = tuple(
            artifact
            for folder in dict.fromkeys(python.sites)
            for artifact in _installed(folder, memo)
        )
        memo.save(only_used=True)
        return (EnvironmentLock(kind=self.kind, interpreter=python.identity, artifacts=found),)

    def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
        """Find nothing: what there is, is what is asked for."""
        del wanted, lock
        return ()

    def realize(self, lock: EnvironmentLock, progress: Progress) -> Here:
        """Enter the environment as it is.

        Where `python` is a shim that would choose anew in the folder of the step, what it chose
        for the lock comes first.
        """
        del lock, progress
        path, python = self._python()
        shim = python is not None and os.path.realpath(path) != os.path.realpath(python.executable)
        return Here(self._environ, [os.path.dirname(python.executable)] if python and shim else [])

    def _python(self) -> tuple[str, Python | None]:
        memo = Memo(os.path.join(self._folder, "interpreters.json"))
        try:
            for name in NAMES:
                for candidate in on_path(name, self._environ):
                    python = look(candidate, self._environ, memo)
                    if python is not None:
                        return candidate, python
            return "", None
        finally:
            memo.save()


def _installed(folder: str, memo: Memo) -> Iterator[Artifact]:
    """Give the packages in one folder, and the files that add to the import path from it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        stem, _, ending = name.rpartition(".")
        path = os.path.join(folder, name)
        if ending in DESCRIPTIONS:
            yield _package(path, stem, ending, memo)
        elif ending in POINTERS:
            known = _digest(path, memo)
            yield Artifact(name=name, version="", kind="directory", digest=known)


def _package(path: str, stem: str, ending: str, memo: Memo) -> Artifact:
    name, _, version = stem.partition("-")
    # The last place is `path` itself: an egg-info may be a single file.
    places = [*(os.path.join(path, inside) for inside in DESCRIPTIONS[ending]), path]
    known = next((d for d in (_digest(place, memo) for place in places) if d), digest.EMPTY)
    return Artifact(
        name=name.lower().replace("_", "-").replace(".", "-"),
        version=version.partition("-py")[0],
        kind="wheel" if ending == "dist-info" else "directory",
        digest=known,
        filename=os.path.basename(path),
    )


def _digest(path: str, memo: Memo) -> str:
    """Give the digest of a small file, remembered while it stays the same; empty for none."""
    try:
        mark = stamp(path)
    except OSError:
        return ""
    known = memo.get(path, mark)
    if known is None:
        known = digest.of_bytes(files.read(path) or b"")
        if settled(mark):
            memo.put(path, mark, known)
    return str(known)

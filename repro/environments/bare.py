"""The caller's own environment: nothing is made, but what is installed in it is known.

On the path of a cache hit: as long as its files stay the same, an environment is known again by
listing its package folders, without starting the interpreter or reading a file.
"""

from __future__ import annotations

import os

from repro import digest
from repro.environments.interpreters import look, on_path
from repro.environments.memo import Memo, stamp
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro.environments.interpreters import Python
    from repro.ports import Progress
    from repro.spec import Environment

NAMES = ("python", "python3")
PASSED = ("VIRTUAL_ENV", "CONDA_PREFIX")
DESCRIPTIONS = {".dist-info": ("RECORD", "METADATA"), ".egg-info": ("PKG-INFO",)}
NO_PYTHON = Interpreter(implementation="none", version="", abi="", platform="")


class Here:
    """The caller's own environment, entered."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Pass on where the caller is."""
        self.variables: Mapping[str, str] = {n: environ[n] for n in PASSED if n in environ}
        self.path = tuple(p for p in environ.get("PATH", "").split(os.pathsep) if p)

    def release(self) -> None:
        """Do nothing: the environment is not ours."""


class Local:
    """The environment that `environ` describes: the `python` on its PATH and what is installed."""

    kind = "local"

    def __init__(self, home: str, environ: Mapping[str, str]) -> None:
        """Look nothing up yet; `home` is the store, which remembers what was learned."""
        self._folder = os.path.join(home, "memo")
        self._environ = environ

    def lock(self, request: Environment | None, progress: Progress) -> EnvironmentLock:
        """Say what is installed, by the digests that the installer left with each package.

        An environment without any Python is not an error: a project may need none.
        """
        del request, progress
        python = self._python()
        if python is None:
            return EnvironmentLock(kind=self.kind, interpreter=NO_PYTHON)
        memo = Memo(os.path.join(self._folder, "installed.json"))
        found = tuple(
            artifact
            for folder in dict.fromkeys(python.sites)
            for artifact in _installed(folder, memo)
        )
        memo.save(only_used=True)
        return EnvironmentLock(kind=self.kind, interpreter=python.identity, artifacts=found)

    def realize(self, lock: EnvironmentLock, progress: Progress) -> Here:
        """Enter the environment as it is."""
        del lock, progress
        return Here(self._environ)

    def _python(self) -> Python | None:
        memo = Memo(os.path.join(self._folder, "interpreters.json"))
        try:
            for name in NAMES:
                for candidate in on_path(name, self._environ):
                    python = look(candidate, self._environ, memo)
                    if python is not None:
                        return python
            return None
        finally:
            memo.save()


def _installed(folder: str, memo: Memo) -> Iterator[Artifact]:
    """Give the packages in one folder, and the files that add to the import path from it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        stem, dot, ending = name.rpartition(".")
        names_of = DESCRIPTIONS.get(dot + ending)
        path = os.path.join(folder, name)
        if names_of is not None:
            yield _package(path, stem, dot + ending, names_of, memo)
        elif ending in ("pth", "egg-link"):
            known = _digest(path, memo)
            yield Artifact(name=name, version="", kind="directory", digest=known)


def _package(path: str, stem: str, ending: str, names: tuple[str, ...], memo: Memo) -> Artifact:
    name, _, version = stem.partition("-")
    places = [os.path.join(path, one) for one in names]
    known = next((d for d in (_digest(place, memo) for place in places) if d), digest.EMPTY)
    return Artifact(
        name=name.lower().replace("_", "-").replace(".", "-"),
        version=version,
        kind="wheel" if ending == ".dist-info" else "directory",
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
        memo.put(path, mark, known)
    return str(known)

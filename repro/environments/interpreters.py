"""Which Pythons are on this machine, what they are, and which one a request means.

This module lies on the path of a cache hit: starting a Python costs 30 ms, so what one is gets
remembered for as long as its files stay the same, and nothing heavy is imported to look that up.
"""

from __future__ import annotations

import os
import sys

from repro.environments.memo import Memo, stamp
from repro.errors import InterpreterMissing
from repro.lock import Interpreter
from repro.value import Value, dump, load, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.ports import Progress

OLDEST = (3, 8)
NEWEST_NAMED = 20  # python3.8 to python3.20 are looked for when listing what is there
PROBE_SECONDS = 10
DIGITS = "0123456789"
COMPARED = "<>=!~"
PROBE = """
import json, os, site, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": sys.version.split()[0],
    "abi": str(sys.implementation.cache_tag) + getattr(sys, "abiflags", ""),
    "platform": sysconfig.get_platform(),
    "executable": sys.executable,
    "base": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "sites": site.getsitepackages(),
}))
"""


class Python(Value):
    """A Python that starts.

    `executable` is what it calls itself. `base` is the real path of the interpreter behind it,
    which differs in a virtual environment. `sites` are the folders of its installed packages;
    not all of them need to exist.
    """

    identity: Interpreter
    executable: str
    base: str
    sites: tuple[str, ...] = ()


CLASSES = {c.__name__: c for c in (Python, Interpreter)}


class Interpreters:
    """The Pythons of this machine, as seen from `environ`; `folder` keeps what was learned.

    `home` is the store that a Python is put into which comes from the conda channel that
    `REPRO_PYTHON_CHANNEL` names; without a store, none does.
    """

    def __init__(self, folder: str, environ: Mapping[str, str], home: str = "") -> None:
        """Look nothing up yet."""
        self._environ = environ
        self._memo = Memo(os.path.join(folder, "interpreters.json"))
        self._home = home
        self.progress: Progress = _silent

    def find(self, version: str, source: str = "") -> Python:
        """Give the newest Python whose version begins with `version`, such as `3.11`.

        An empty version means that of the running interpreter; of a range such as `>=3.11` the
        running one is taken if it lies in it. A variable such as `REPRO_PYTHON_3_11` decides
        alone; then come the running interpreter, `PATH`, pyenv's versions, uv's, and the conda
        channel. `source` is the file to name when there is none: InterpreterMissing.
        """
        version = version or sys.version.split(maxsplit=1)[0]
        if is_range(version):
            return self._within(version, source)
        found = self._newest(version) or self._fetched(version)
        if found is None:
            raise self._missing(version, source)
        return found

    def nearest(self, version: str) -> Python:
        """Give the Python that is most like one of `version`; the running one if none is."""
        minor = ".".join(version.split(".")[:2])
        running = sys.version.split(maxsplit=1)[0]
        return self._newest(version) or self._newest(minor) or self.find(running)

    def fitting(self, identity: Interpreter) -> Python:
        """Give the Python that `identity` names in a lock, or InterpreterMissing."""
        named = self._named(identity.version)
        if named is not None and agree(named.identity, identity):
            return named
        for python in self._pythons([_name(identity.version)]):
            if agree(python.identity, identity):
                return python
        fetched = self._fetched(identity.version)
        if fetched is not None and agree(fetched.identity, identity):
            return fetched
        raise InterpreterMissing(
            f"`{identity}` ({identity.abi}, {identity.platform}) of the lock is not here",
            hints=[
                self._found(),
                f"install it, or set `{_variable(identity.version)}` to its path",
                *self._channel_hint(),
                "or lock again for a python that is here, with `repro run --relock`",
            ],
        )

    def probe(self, candidate: str) -> Python | None:
        """Say what `candidate` is; None when it does not start, or is older than we support."""
        python = look(candidate, self._environ, self._memo)
        self._memo.save()
        return python

    def _newest(self, version: str) -> Python | None:
        named = self._named(version)
        if named is not None:
            return named
        fits = [p for p in self._pythons([_name(version)]) if _matches(p, version)]
        return max(fits, key=_preference) if fits else None

    def _within(self, versions: str, source: str) -> Python:
        running = ".".join(str(n) for n in sys.version_info[:3])
        if satisfies(running, versions):
            return self.find(running, source)
        names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST_NAMED + 1)]
        fits = [p for p in self._pythons(names) if satisfies(p.identity.version, versions)]
        if not fits:
            raise self._missing(versions, source)
        return max(fits, key=_preference)

    def _fetched(self, version: str) -> Python | None:
        """Take a Python from the conda channel that the caller allows for it."""
        if not (self._home and self._environ.get("REPRO_PYTHON_CHANNEL")):
            return None
        from repro.environments.conda import python_from_channel

        candidate = python_from_channel(self._home, self._environ, version, self.progress)
        python = self.probe(candidate)
        return python if python and _matches(python, version) else None

    def _channel_hint(self) -> list[str]:
        if self._environ.get("REPRO_PYTHON_CHANNEL"):
            return []
        return ["or let it come from a conda channel: `REPRO_PYTHON_CHANNEL=conda-forge`"]

    def _named(self, version: str) -> Python | None:
        parts = version.split(".")
        for length in range(len(parts), 1, -1):
            variable = _variable(".".join(parts[:length]))
            candidate = self._environ.get(variable)
            if not candidate:
                continue
            python = self.probe(candidate)
            if python is None:
                raise InterpreterMissing(
                    f"`{variable}` names `{candidate}`, which does not start as a python",
                    hints=[f"correct `{variable}`, or unset it", self._found()],
                )
            if _matches(python, version):
                return python
        return None

    def _pythons(self, names: list[str]) -> Iterator[Python]:
        seen = set()
        try:
            for candidate in self._candidates([*names, "python3", "python"]):
                python = look(candidate, self._environ, self._memo)
                if python and python.base not in seen:
                    seen.add(python.base)
                    yield python
        finally:
            self._memo.save()

    def _candidates(self, names: list[str]) -> Iterator[str]:
        yield getattr(sys, "_base_executable", "") or sys.executable
        for name in names:
            yield from on_path(name, self._environ)
        home = self._environ.get("HOME", "")
        data = self._environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        pyenv = self._environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv")
        yield from _versions(os.path.join(pyenv, "versions"))
        managed = self._environ.get("UV_PYTHON_INSTALL_DIR")
        yield from _versions(managed or os.path.join(data, "uv", "python"))

    def _missing(self, version: str, source: str) -> InterpreterMissing:
        asker = f" by `{source}`" if source else ""
        ways = [
            f"set `{_variable(version)}` to the path of one",
            f"or install it: `pyenv install {version}` or `uv python install {version}`",
            *self._channel_hint(),
        ]
        if is_range(version):
            ways = [f"install one: `uv python install '{version}'`"]
        elif _numbers(version) < OLDEST:
            ways = [f"python {'.'.join(map(str, OLDEST))} is the oldest that is supported"]
        return InterpreterMissing(
            f"python {version} was asked for{asker} and is not here",
            hints=[self._found(), *ways, f"or change `python` in `{source or 'the request'}`"],
        )

    def _found(self) -> str:
        names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST_NAMED + 1)]
        found = sorted(self._pythons(names), key=_preference)
        return "found: " + (", ".join(f"{p.identity.version} ({p.base})" for p in found) or "none")


def _silent(_text: str) -> None:
    """Tell nobody."""


def agree(found: Interpreter, locked: Interpreter) -> bool:
    """Say whether a Python is the one of a lock.

    The version of macOS that it was built for does not matter, nor for which other processors.
    """
    (system, machine), (locked_system, locked_machine) = _kind(found), _kind(locked)
    return (
        replace(found, platform="") == replace(locked, platform="")
        and system == locked_system
        and machine in (locked_machine, "universal2")
    )


def is_range(version: str) -> bool:
    """Say whether a requested Python is a range, such as `>=3.11,<3.13`, and no version."""
    return any(char in COMPARED for char in version)


def satisfies(version: str, wanted: str) -> bool:
    """Say whether a version of Python is one that was asked for; nothing asks for any.

    A range that nobody can read is satisfied by none.
    """
    if not is_range(wanted):
        asked = wanted.split(".") if wanted else []
        return version.split(".")[: len(asked)] == asked
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def look(candidate: str, environ: Mapping[str, str], memo: Memo, folder: str = "") -> Python | None:
    """Say what `candidate` is, from `memo` or by starting it; the caller saves the memo.

    None when it does not start in time or is older than we support. `folder` is where a shim
    that chooses by the current folder is to look; empty is the current one.
    """
    try:
        key, mark = os.path.abspath(candidate), _mark(candidate)
    except OSError:
        return None
    shim = _shim(key, environ, folder)
    known = memo.get(key, mark + shim)
    if known is None:
        known = _started(key, environ, folder)
        # What else starts another program chooses it by means that the mark does not cover.
        if shim or _is_itself(key, known):
            memo.put(key, mark + shim, known)
    return _python(known)


def on_path(name: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Give every executable `name` on the `PATH`; entries relative to some folder do not count."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            yield path


def _started(path: str, environ: Mapping[str, str], folder: str) -> dict[str, Any]:
    import json
    import subprocess

    try:
        ended = subprocess.run(  # isolated: the code of the current folder must not be run
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            cwd=folder or None,
            timeout=PROBE_SECONDS,
            check=True,
        )
        told = json.loads(ended.stdout)
        identity = Interpreter(**{field: told.pop(field) for field in Interpreter.__fields__})
        python = Python(identity=identity, **told)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return {}
    return dict(dump(python))


def _python(known: Any) -> Python | None:
    try:
        python = load(known, CLASSES)
    except (KeyError, TypeError):
        return None
    if not isinstance(python, Python) or _numbers(python.identity.version) < OLDEST:
        return None
    return python


def _mark(candidate: str) -> str:
    real = os.path.realpath(candidate)
    settings = os.path.join(os.path.dirname(os.path.dirname(candidate)), "pyvenv.cfg")
    try:
        environment = stamp(settings)
    except OSError:
        environment = ""
    return f"{real} {stamp(real)} {environment}"


def _is_itself(candidate: str, known: dict[str, Any]) -> bool:
    return bool(known) and os.path.realpath(known["executable"]) == os.path.realpath(candidate)


def _shim(candidate: str, environ: Mapping[str, str], folder: str) -> str:
    """Give all that pyenv's choice behind this shim depends on; empty for what is no shim."""
    root, shims = os.path.split(os.path.dirname(candidate))
    if shims != "shims":
        return ""
    try:
        installed = stamp(os.path.join(root, "versions"))
        folder = environ.get("PYENV_DIR") or folder or os.getcwd()
    except OSError:
        return ""
    chosen = environ.get("PYENV_VERSION") or _local_version(folder)
    return f" pyenv {installed} {chosen or _text(os.path.join(root, 'version'))}"


def _local_version(folder: str) -> str:
    while True:
        chosen = _text(os.path.join(folder, ".python-version"))
        parent = os.path.dirname(folder)
        if chosen or parent == folder:
            return chosen
        folder = parent


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def _versions(folder: str) -> Iterable[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name, "bin", "python3") for name in names]


def _variable(version: str) -> str:
    return "REPRO_PYTHON_" + version.replace(".", "_")


def _name(version: str) -> str:
    return "python" + ".".join(version.split(".")[:2])


def _matches(python: Python, version: str) -> bool:
    return satisfies(python.identity.version, version)


def _kind(identity: Interpreter) -> tuple[str, str]:
    parts = identity.platform.split("-")
    return parts[0], parts[-1]


def _preference(python: Python) -> tuple[bool, tuple[int, ...], bool]:
    version = python.identity.version
    final = not version.strip(DIGITS + ".")
    return python.identity.implementation == "cpython", _numbers(version), final


def _numbers(version: str) -> tuple[int, ...]:
    """Give the leading number of each part: (3, 13, 0) of 3.13.0rc1."""
    parts = [part[: len(part) - len(part.lstrip(DIGITS))] for part in version.split(".")]
    return tuple(int(part) for part in parts if part)

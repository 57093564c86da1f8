"""What of a request its lock does not satisfy: by what both mean, never by how they are written."""

from __future__ import annotations

import functools

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from repro import platforms
from repro.environments import urls
from repro.environments.demand import HASH, hashes, normal, parted
from repro.environments.interpreters import satisfies
from repro.ports import Unmet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro.lock import Artifact, EnvironmentLock
    from repro.spec import PythonEnvironment

ABSENT, VIOLATED, BROKEN, ELSEWHERE, OTHER_PYTHON = "D01", "D02", "D04", "D05", "D07"
INDEX = ("-i", "--index-url", "--extra-index-url", "--index", "--default-index")
UNKNOWN = "*"
DIGITS = 12
COMMIT = (40, 64)  # digits of a whole one, by SHA-1 or SHA-256


def unmet(wanted: PythonEnvironment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
    """Say what of `wanted` is not satisfied by `lock`, each thing once, the request's first."""
    judge = _Judge(wanted, lock)
    return tuple(dict.fromkeys(judge.all()))


def markers(lock: EnvironmentLock) -> dict[str, str]:
    """Give the values of the environment markers (PEP 508) on the platform of a lock."""
    python = lock.interpreter
    named = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalVM"}
    implementation = named.get(python.implementation, python.implementation)
    platform = platforms.named(lock.platform)
    places = (
        {}
        if platform is None
        else {
            "os_name": platform.os_name,
            "sys_platform": platform.sys_platform,
            "platform_system": platform.platform_system,
            "platform_machine": platform.platform_machine,
            "platform_release": "",
            "platform_version": "",
        }
    )
    return {
        **places,
        "implementation_name": python.implementation,
        "implementation_version": python.version,
        "platform_python_implementation": implementation,
        "python_full_version": python.version,
        "python_version": ".".join(python.version.split(".")[:2]),
        "extra": "",
    }


def counts(marker: Marker | None, environment: Mapping[str, str]) -> bool:
    """Say whether something with a marker is wanted; one that cannot be judged counts."""
    if marker is None:
        return True
    try:
        return marker.evaluate(dict(environment))
    except (InvalidMarker, InvalidVersion, ValueError):
        return True


class _Judge:
    """Compares one request with one lock."""

    def __init__(self, wanted: PythonEnvironment, lock: EnvironmentLock) -> None:
        self.wanted = wanted
        self.lock = lock
        self.environment = markers(lock)
        self.artifacts = {artifact.name: artifact for artifact in lock.artifacts}

    def all(self) -> Iterator[Unmet]:
        yield from self._python()
        for line in (*self.wanted.build_requirements, *self.wanted.requirements):
            yield from self._requirement(line)
        for line in self.wanted.constraints:
            yield from self._constraint(line)
        yield from self._hashes()
        yield from self._directories()
        yield from self._closure()
        yield from self._indexes()

    def _python(self) -> Iterator[Unmet]:
        asked, locked = self.wanted.python, self.lock.interpreter
        if not satisfies(locked.version, asked):
            why = f"{locked} is locked"
            yield Unmet(code=OTHER_PYTHON, entry=f"python {asked}", why=why)

    def _requirement(self, line: str) -> Iterator[Unmet]:
        text = HASH.sub("", line).strip()
        if text.startswith(("./", "../")):
            yield from self._archive(text)
            return
        asked = _parsed(text)
        if asked is None:
            yield from self._checkout(text)
            return
        if not counts(asked.marker, self.environment):
            return
        found = self.artifacts.get(normal(asked.name))
        if found is None:
            yield Unmet(code=ABSENT, entry=text, why=f"`{asked.name}` is not in the lock")
        else:
            yield from self._satisfied(text, asked, found)

    def _satisfied(self, text: str, asked: Requirement, found: Artifact) -> Iterator[Unmet]:
        if asked.url and not _same_place(asked.url, found):
            why = f"`{found.name}` is locked from {found.url or 'another place'}"
            yield Unmet(code=VIOLATED, entry=text, why=why)
        if not asked.url and not _is_within(found, asked):
            yield Unmet(code=VIOLATED, entry=text, why=f"{found.name} {found.version} is locked")
        missing = {normal(extra) for extra in asked.extras} - {*found.extras}
        if missing and UNKNOWN not in found.extras:
            named = ", ".join(f"`{extra}`" for extra in sorted(missing))
            yield Unmet(code=VIOLATED, entry=text, why=f"it is locked without the extra {named}")

    def _constraint(self, line: str) -> Iterator[Unmet]:
        text = HASH.sub("", line).strip()
        asked = _parsed(text)
        found = self.artifacts.get(normal(asked.name)) if asked else None
        if asked and found and counts(asked.marker, self.environment):
            yield from self._satisfied(text, asked, found)

    def _hashes(self) -> Iterator[Unmet]:
        given = hashes((*self.wanted.requirements, *self.wanted.constraints))
        for name, allowed in given.items():
            found = self.artifacts.get(name)
            if found is not None and found.kind != "directory" and found.digest not in allowed:
                why = f"the locked file has another hash, {found.digest[:DIGITS]}…"
                yield Unmet(code=VIOLATED, entry=f"{name} --hash", why=why)

    def _archive(self, text: str) -> Iterator[Unmet]:
        path = text.removeprefix("./")
        expected = dict(self.wanted.archives).get(path, "")
        found = next((a for a in self.lock.artifacts if a.url == path), None)
        if found is None:
            yield Unmet(code=ABSENT, entry=text, why="this file is not in the lock")
        elif expected and expected != found.digest:
            yield Unmet(code=VIOLATED, entry=text, why="the file changed since it was locked")

    def _checkout(self, text: str) -> Iterator[Unmet]:
        """Judge a checkout that is not named: by where it comes from."""
        if not urls.is_checkout(text):
            yield Unmet(code=ABSENT, entry=text, why="it cannot be read as a requirement")
            return
        url, _, marker = text.partition(" ;")
        wanted = not marker or counts(Marker(marker), self.environment)
        if wanted and not any(_same_place(url, a) for a in self.lock.artifacts):
            yield Unmet(code=ABSENT, entry=text, why="nothing is locked from there")

    def _directories(self) -> Iterator[Unmet]:
        locked = {a.url: a for a in self.lock.artifacts if a.kind == "directory"}
        for given, digest in self.wanted.directories:
            path = given.partition("[")[0]
            found = locked.get(path)
            if found is None:
                yield Unmet(code=ABSENT, entry=given, why="this local package is not in the lock")
            elif found.digest != digest:
                yield Unmet(code=VIOLATED, entry=given, why="its files changed since it was locked")

    def _closure(self) -> Iterator[Unmet]:
        for artifact in self.lock.artifacts:
            for line in artifact.depends:
                needed = _parsed(line)
                if needed is None or not counts(needed.marker, self.environment):
                    continue
                entry, found = f"{artifact.name} {artifact.version}", normal(needed.name)
                if found not in self.artifacts:
                    why = f"it needs `{found}`, which is not in the lock"
                    yield Unmet(code=BROKEN, entry=entry, why=why)
                elif not _is_within(self.artifacts[found], needed):
                    why = f"it needs `{line}`, and {self.artifacts[found].version} is locked"
                    yield Unmet(code=BROKEN, entry=entry, why=why)

    def _indexes(self) -> Iterator[Unmet]:
        """Compare the indexes, where the request names any; else they are the machine's affair."""
        options = list(map(parted, self.wanted.options))
        named = {_index(value) for word, value in options if word in INDEX}
        for index in sorted({a.index for a in self.lock.artifacts if a.index}):
            if named and _index(index) not in named and "://" in index:
                why = f"packages are locked from {index}"
                entry = " ".join(f"{word} {urls.public(value)}" for word, value in options)
                yield Unmet(code=ELSEWHERE, entry=entry, why=why)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _is_within(found: Artifact, asked: Requirement) -> bool:
    """Say whether a version is one of those asked for; what is built from a tree has none."""
    if found.kind in ("directory", "vcs"):
        return True
    try:
        return asked.specifier.contains(Version(found.version), prereleases=True)
    except InvalidVersion:
        return not asked.specifier


def _same_place(url: str, found: Artifact) -> bool:
    """Say whether something is locked from `url`; a commit that it names is the locked one."""
    if not urls.is_checkout(url):
        return urls.public(url) == urls.public(found.url)
    place, _, fragment = url.partition("#")
    locked, _, locked_fragment = found.url.partition("#")
    where, revision = _revision(place)
    same = (where, _inside(fragment)) == (_revision(locked)[0], _inside(locked_fragment))
    is_commit = len(revision) in COMMIT and not revision.strip("0123456789abcdef")
    return same and (not is_commit or found.digest == revision)


def _inside(fragment: str) -> str:
    """Give the subfolder that the fragment of a checkout's URL names."""
    parts = (part.partition("=") for part in fragment.split("&"))
    return next((value for key, _, value in parts if key == "subdirectory"), "")


def _revision(url: str) -> tuple[str, str]:
    """Split a checkout's URL into where it is, in its public form, and the revision."""
    system, _, rest = url.partition("+")
    scheme, _, place = rest.partition("://")
    host, slash, path = place.partition("/")
    path, _, revision = path.partition("@")
    return (
        f"{system}+{urls.public(f'{scheme}://{host}{slash}{path}').removesuffix('.git')}",
        revision,
    )


def _index(url: str) -> str:
    return urls.public(url).rstrip("/").removesuffix("/simple")

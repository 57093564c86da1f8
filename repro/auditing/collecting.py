"""Facts of the project's files, completed by what the world says."""

from __future__ import annotations

import re

from repro import locking, platforms, spec
from repro.audit import settings
from repro.audit.facts import Broken, EnvironmentFacts, Facts, Gap, LockText
from repro.audit.rules.table import LEVELS
from repro.errors import LockInvalid, ReproError
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date
    from typing import Protocol

    from repro.audit.facts import (
        Advisories,
        Attestation,
        Cache,
        Git,
        ImageFacts,
        Licence,
        Prefix,
        Provenance,
        Release,
        StepHistory,
    )
    from repro.lock import EnvironmentLock
    from repro.lockfiles.names import LockFile
    from repro.locking import Wanted
    from repro.ports import Tree, Unmet
    from repro.source import Source
    from repro.spec import Environment, Project

    Locks = tuple[EnvironmentLock, ...]

    class World(Protocol):
        """What an audit asks beside the project's files. None means: not looked at.

        `prefix` is asked before the rest, which may speak of what it found.
        """

        @property
        def platform(self) -> str:
            """Name this machine's platform, as conda does."""

        def today(self) -> date:
            """Give the date."""

        def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
            """Say what of a request its lock does not satisfy. Raises ReproError."""

        def prefix(self, wanted: Wanted, lock: EnvironmentLock) -> Prefix | None:
            """Inspect the environment that was made of a lock, if there is one."""

        def git(self, source: Source) -> Git | None:
            """Give the state of the repository."""

        def history(self, project: str, steps: tuple[str, ...]) -> tuple[StepHistory, ...] | None:
            """Give what is known of the steps of a project."""

        def images(self, locks: Locks) -> tuple[ImageFacts, ...] | None:
            """Give what is known of locked images."""

        def advisories(self, locks: Locks) -> Advisories | None:
            """Look the locked packages up."""

        def licences(self, locks: Locks) -> tuple[Licence, ...] | None:
            """Give the licences of locked packages, as far as they are known."""

        def releases(self, locks: Locks) -> tuple[Release, ...] | None:
            """Give what the index says of locked versions."""

        def attestations(self, locks: Locks) -> tuple[Attestation, ...] | None:
            """Check who vouches for the locked packages."""

        def provenance(self, project: str, steps: tuple[str, ...]) -> tuple[Provenance, ...] | None:
            """Check the provenance of the last run of each step."""

        def cache(self) -> Cache | None:
            """Give what lies about on this machine."""


MAX_TEXT = 1 << 20
README = re.compile(r"readme(\.[a-z]+)?", re.IGNORECASE)
NAMED = re.compile(r"""\s*(?:- )?"?(?:name|reference)"?\s*[:=]\s*["']?([A-Za-z0-9][^"'\s,]*)""")


def collect(
    tree: Tree, project: Project, paths: Iterable[str], world: World, *, installed: bool = False
) -> Facts:
    """Give everything that the rules may look at.

    `paths` are the files that the project was read from. With `installed`, the environments that
    were made of the locks are inspected too. Raises ProjectInvalid for wrong settings.
    """
    chosen = settings.load(tree.read, LEVELS)
    environments = tuple(
        _environment(wanted, project, tree, world, installed=installed)
        for wanted in locking.wanted_of(project)
    )
    found = tuple(lock for one in environments for _file, lock in one.locked)
    steps = tuple(entry.name for entry in project.entry_points)
    listed = tuple(entry.path for entry in tree.entries())
    return Facts(
        name=project.name or tree.source.name,
        project=project,
        today=world.today(),
        platform=world.platform,
        texts=dict(_texts(tree, project, [*paths, *filter(README.fullmatch, listed)])),
        scripts=dict(_scripts(tree, project, listed)),
        files=listed,
        environments=environments,
        lock_texts={path: _lock_text(path, tree.read(path)) for path in project.lockfiles},
        settings=chosen,
        git=world.git(tree.source),
        history=world.history(tree.source.project, steps),
        images=world.images(found),
        advisories=world.advisories(found),
        licences=world.licences(found),
        releases=world.releases(found),
        attestations=world.attestations(found),
        provenance=world.provenance(tree.source.project, steps),
        cache=world.cache(),
    )


def _texts(tree: Tree, project: Project, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in dict.fromkeys(paths):
        text = None if path in project.lockfiles else _text(tree, path)
        if text is not None:
            yield path, text


def _scripts(tree: Tree, project: Project, listed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give the files of the project that commands name."""
    named = {word for entry in project.entry_points for word in _words(entry.command)}
    for path in named.intersection(listed):
        text = _text(tree, path)
        if text is not None:
            yield path, text


def _words(command: str) -> list[str]:
    return [word.strip("\"'").removeprefix("./") for word in command.split()]


def _text(tree: Tree, path: str) -> str | None:
    data = tree.read(path)
    if data is None or len(data) > MAX_TEXT:
        return None
    return data.decode("utf-8-sig", "replace")


def _lock_text(path: str, data: bytes | None) -> LockText:
    """Note on which line of a lock file each package begins."""
    text = (data or b"").decode("utf-8", "replace")
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = NAMED.match(line)
        if found:
            lines.setdefault(found[1], number)
    return LockText(path=path, lines=lines, text=text)


# -- environments


def _environment(
    wanted: Wanted, project: Project, tree: Tree, world: World, *, installed: bool
) -> EnvironmentFacts:
    locks, broken = _locks(wanted, tree)
    gaps, unchecked = _gaps(wanted.environment, locks, world)
    about = EnvironmentFacts(
        label=wanted.label,
        kind=wanted.kind,
        request=wanted.environment,
        file=_file_of(wanted.environment) or project.file,
        locks=locks,
        broken=broken,
        gaps=gaps,
        unchecked=unchecked,
    )
    if not installed:
        return about
    here = (k for _file, k in about.locked if k.platform in ("", world.platform))
    there = (world.prefix(wanted, lock) for lock in here if lock.image is None)
    return replace(about, prefixes=tuple(one for one in there if one is not None))


def _file_of(environment: Environment) -> str:
    if isinstance(environment, spec.CondaEnvironment):
        return environment.file
    return environment.source if isinstance(environment, spec.PythonEnvironment) else ""


def _locks(wanted: Wanted, tree: Tree) -> tuple[tuple[LockFile, ...], tuple[Broken, ...]]:
    """Read the lock files of an environment, each once, whatever platforms it is for."""
    places = (locking.place_of(wanted, platform) for platform in platforms.NAMES)
    found, broken = [], []
    for path in dict.fromkeys(place for place in places if place):
        try:
            file = locking.decode(wanted.kind, path, tree.read(path) or b"")
        except LockInvalid as error:
            broken.append(Broken(path=path, message=error.message, where=error.where))
            continue
        mine = tuple(lock for lock in file.locks if locking.is_about(wanted, lock))
        if mine:
            found.append(replace(file, locks=mine))
    return tuple(found), tuple(broken)


def _gaps(
    environment: Environment, locks: tuple[LockFile, ...], world: World
) -> tuple[tuple[Gap, ...], str]:
    """Compare locks with what they are for; say instead why that could not be done."""
    found = []
    try:
        for file in locks:
            for lock in file.locks:
                found += [
                    Gap(path=file.path, platform=lock.platform, unmet=one)
                    for one in world.unmet(environment, lock)
                ]
    except ReproError as error:
        return tuple(found), error.message
    return tuple(found), ""

"""Collects the facts that an audit judges: of the project's files, and of this machine."""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime

from repro import locking, platforms, spec
from repro.audit import settings
from repro.audit.facts import (
    Advisories,
    Advisory,
    Broken,
    Cache,
    EnvironmentFacts,
    Facts,
    Found,
    Gap,
    Git,
    Licence,
    LockText,
    Prefix,
    StepHistory,
)
from repro.audit.rules.table import LEVELS
from repro.errors import LockInvalid, ReproError, UsageError
from repro.lockfiles import names
from repro.record import FINISHED
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    from repro.audit.facts import Attestation, ImageFacts, Provenance, Release
    from repro.lock import EnvironmentLock
    from repro.lockfiles.names import LockFile
    from repro.locking import Wanted
    from repro.machine import Machine
    from repro.ports import Progress, Tree, Unmet
    from repro.source import Source
    from repro.spec import Environment, Project

    Locks = tuple[EnvironmentLock, ...]
    Names = Mapping[tuple[str, str], tuple[tuple[str, str], ...]]

    class World(Protocol):
        """What an audit asks beside the project's files. None means: not looked at."""

        @property
        def platform(self) -> str:
            """Name this machine's platform, as conda does."""

        def today(self) -> date:
            """Give the date."""

        def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
            """Say what of a request its lock does not satisfy. Raises ReproError."""

        def prefix(self, lock: EnvironmentLock) -> Prefix | None:
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

        def provenance(self, project: str) -> tuple[Provenance, ...] | None:
            """Check the signed provenance of a project's runs."""

        def cache(self) -> Cache | None:
            """Give what lies about on this machine."""


MAX_TEXT = 1 << 20
README = re.compile(r"readme(\.[a-z]+)?", re.IGNORECASE)
NAMED = re.compile(r"""\s*(?:- )?"?(?:name|reference)"?\s*[:=]\s*["']?([A-Za-z0-9][^"'\s,]*)""")
UNUSED_DAYS = 30
DAY_NS = 86_400 * 10**9


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
        provenance=world.provenance(tree.source.project),
        cache=world.cache(),
    )


def _texts(tree: Tree, project: Project, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in dict.fromkeys(paths):
        data = None if path in project.lockfiles else tree.read(path)
        if data is not None and len(data) <= MAX_TEXT:
            yield path, data.decode("utf-8-sig", "replace")


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
    there = (world.prefix(lock) for lock in here if lock.image is None)
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


# -- this machine


class Here:
    """This machine, asked what an audit wants to know; nothing of a project is run.

    `osv` is the folder, archive or URL of a copy of the OSV database, empty for none. What no
    part of this machine can tell is None.
    """

    def __init__(
        self,
        machine: Machine,
        tree: Tree,
        progress: Progress,
        *,
        installed: bool = False,
        osv: str = "",
        offline: bool = False,
    ) -> None:
        """Look at nothing yet."""
        self.machine = machine
        self.tree = tree
        self.progress = progress
        self.installed = installed
        self.osv = osv
        self.offline = offline

    @property
    def platform(self) -> str:
        """Name this machine's platform, as conda does."""
        return locking.here()

    def today(self) -> date:
        """Give the date in UTC."""
        return datetime.fromtimestamp(self.machine.now_ns() / 1e9, UTC).date()

    def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
        """Say what of a request its lock does not satisfy."""
        return self.machine.supply.kind(names.kind_of(wanted), self.tree).unmet(wanted, lock)

    def prefix(self, lock: EnvironmentLock) -> Prefix | None:
        """Inspect the environment that was made of a lock."""
        from repro.environments import inspection

        place = self._place(lock)
        if not place:
            return None
        try:
            seen = inspection.inspect(place, lock)
        except OSError as error:
            raise files.explained(error, f"inspecting `{place}`") from None
        found = tuple(
            Found(
                kind=one.kind,
                path=one.path,
                package=one.package,
                expected=one.expected,
                found=one.found,
            )
            for one in seen.findings
        )
        return Prefix(path=place, platform=lock.platform or self.platform, found=found)

    def _place(self, lock: EnvironmentLock) -> str:
        from repro.environments.cache import Place

        if lock.kind == "python" and not lock.interpreter.version:
            return ""  # its digest is known once an interpreter was chosen
        place = Place(self.machine.home.root, lock.digest)
        return place.prefix if place.marker() else ""

    def git(self, source: Source) -> Git | None:
        """Give the state of the repository; an archive has none."""
        if not source.root and not source.commit:
            return None
        return Git(commit=source.commit, dirty=source.dirty, remote=source.repo_url)

    def history(self, project: str, steps: tuple[str, ...]) -> tuple[StepHistory, ...]:
        """Give what is known of the steps of a project."""
        return tuple(self._step(project, step) for step in steps)

    def _step(self, project: str, step: str) -> StepHistory:
        found = self.machine.history.find(
            project=project, entry_point=step, status=FINISHED, limit=1
        )
        if not found:
            return StepHistory(step=step)
        last = found[0]
        return StepHistory(
            step=step, last_good=last.origin_run or last.run_id, environment=last.environment
        )

    def images(self, _locks: Locks) -> None:
        """Ask no container engine: not in this version."""

    def advisories(self, locks: Locks) -> Advisories | None:
        """Look the locked packages up. Raises UsageError, Unsupported or Unreachable."""
        if not self.osv:
            return None
        from repro.advisories import database

        known = database.load(
            self.osv, self.machine.home.root, fetch=not self.offline, progress=self.progress
        )
        named = on_index(locks, self._shipped(locks) if self.installed else {})
        asked = dict.fromkeys(pair for pairs in named.values() for pair in pairs)
        matches = known.match(asked)
        return Advisories(
            source=known.source,
            date=known.date[:10],
            matches=tuple(
                Advisory(
                    id=match.id,
                    name=name,
                    version=version,
                    aliases=match.aliases,
                    fixed=match.fixed,
                    summary=match.summary,
                    severity=match.severity,
                    url=match.url,
                )
                for (name, version), pairs in named.items()
                for match in matches
                if (match.package, match.version) in pairs
            ),
            uncovered=tuple(sorted({name for (name, _v), pairs in named.items() if not pairs})),
        )

    def _shipped(self, locks: Locks) -> Names:
        """Give the Python packages inside of the conda packages that are installed."""
        from repro.environments import packages

        return {
            (one.name, one.version): tuple((d.name, d.version) for d in one.ships)
            for place in self._places(locks)
            for one in packages.read(place).packages
            if one.manager == "conda"
        }

    def licences(self, locks: Locks) -> tuple[Licence, ...] | None:
        """Give the licences of what is installed."""
        from repro.environments.licences import licences

        places = tuple(self._places(locks)) if self.installed else ()
        found = (one for place in places for one in licences(place))
        told = tuple(
            Licence(name=one.package, version=one.version, text=one.expression) for one in found
        )
        return told if places else None

    def _places(self, locks: Locks) -> Iterator[str]:
        for lock in locks:
            if lock.image is None and lock.platform in ("", self.platform):
                place = self._place(lock)
                if place:
                    yield place

    def releases(self, _locks: Locks) -> None:
        """Ask no index: not in this version."""

    def attestations(self, _locks: Locks) -> None:
        """Ask no index: not in this version."""

    def provenance(self, _project: str) -> None:
        """Check no signature: not in this version."""

    def cache(self) -> Cache | None:
        """Give the environments that lie about unused."""
        if not self.installed:
            return None
        from repro.environments.cache import environments

        found = environments(self.machine.home.root)
        limit = self.machine.now_ns() - UNUSED_DAYS * DAY_NS
        idle = [e for e in found if e.complete and not e.in_use and e.last_used_ns < limit]
        return Cache(
            incomplete=tuple(e.digest for e in found if not e.complete and not e.in_use),
            unused=tuple(
                (e.digest, (self.machine.now_ns() - e.last_used_ns) // DAY_NS) for e in idle
            ),
            bytes=sum(e.bytes for e in found),
        )


def on_index(locks: Locks, shipped: Names) -> Names:
    """Give, for each locked package, what it is called on the Python package index.

    Of a conda package these are the distributions inside of it, as far as they are known:
    `shipped` says so of installed ones, the lock of others.
    """
    found: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
    for lock in locks:
        for one in lock.artifacts:
            key = (one.name, one.version)
            if one.kind in ("wheel", "sdist"):
                found[key] = (key,)
            elif one.kind == "conda":
                told = (dist.partition("==") for dist in one.provides)
                inside = tuple((name, version or one.version) for name, _, version in told)
                found[key] = shipped.get(key, ()) or inside or found.get(key, ())
            else:
                found.setdefault(key, ())
    return found


# -- the pages of the rules


def pages() -> str:
    """Give the folder of the rules' pages: inside the package, or beside it in a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, "audit", "pages")
    beside = os.path.join(os.path.dirname(here), "docs", "reference", "rules")
    return inside if os.path.isdir(inside) else beside


def page(code: str) -> str:
    """Give the page of a rule. Raises UsageError where there is no such rule."""
    from repro.decode import nearest

    name = code.upper()
    if name not in LEVELS:
        near = nearest(name, tuple(LEVELS))
        hint = f"a similar rule exists: `{near}`" if near else "`repro audit --list-rules`"
        raise UsageError(f"no rule `{code[:20]}`", hints=[hint])
    data = files.read(os.path.join(pages(), f"{name}.md"))
    if data is None:
        raise UsageError(f"the page of `{name}` is not installed")
    return data.decode()

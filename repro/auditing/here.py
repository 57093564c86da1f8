"""This machine, asked what an audit wants to know; nothing of a project is run."""

from __future__ import annotations

from datetime import UTC, datetime

from repro import locking
from repro.audit.facts import Cache, Git
from repro.lockfiles import names
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import date

    from repro.audit.facts import (
        Advisories,
        Attestation,
        ImageFacts,
        Licence,
        Prefix,
        Provenance,
        Release,
        StepHistory,
    )
    from repro.auditing.collecting import Locks
    from repro.auditing.indexes import Answers
    from repro.auditing.installed import Installed
    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.machine import Machine
    from repro.ports import Progress, Tree, Unmet
    from repro.source import Source
    from repro.spec import Environment

UNUSED_DAYS = 30
DAY_NS = 86_400 * 10**9


class Scope(Value):
    """How far an audit looks.

    `installed`: at the environments that were made. `osv`: at advisories, in this folder, archive
    or URL; with `offline`, in what was kept of it. `online`: at indexes and channels, for so many
    `seconds` in all, and at registries.
    """

    installed: bool = False
    osv: str = ""
    offline: bool = False
    online: bool = False
    seconds: float = 30.0


class Here:
    """This machine. What no part of it can tell is None."""

    def __init__(
        self, machine: Machine, tree: Tree, progress: Progress, scope: Scope | None = None
    ) -> None:
        """Look at nothing yet."""
        self.machine = machine
        self.tree = tree
        self.progress = progress
        self.scope = scope or Scope()
        self._seen: list[Installed] = []
        self._answers: Answers | None = None

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

    def git(self, source: Source) -> Git | None:
        """Give the state of the repository; an archive has none."""
        if not source.root and not source.commit:
            return None
        return Git(commit=source.commit, dirty=source.dirty, remote=source.repo_url)

    # -- environments

    def prefix(self, wanted: Wanted, lock: EnvironmentLock) -> Prefix | None:
        """Inspect the environment that was made of a lock."""
        from repro.auditing import installed

        found = installed.look(self.machine, wanted, lock)
        if found is None:
            return None
        self._seen.append(found)
        return found.prefix

    def licences(self, locks: Locks) -> tuple[Licence, ...] | None:
        """Give the licences of what is installed, and those of the lock before."""
        from repro.auditing import licences

        if not self._seen:
            return None
        before = licences.earlier(self.machine.home.root, self.tree, locks, self.platform)
        return licences.of([one.prefix.path for one in self._seen], before)

    def cache(self) -> Cache | None:
        """Give the environments that lie about unused."""
        if not self.scope.installed:
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

    # -- runs

    def history(self, project: str, steps: tuple[str, ...]) -> tuple[StepHistory, ...]:
        """Give what is known of the steps of a project."""
        from repro.auditing import runs

        return runs.history(self.machine, project, steps, self._seen)

    def provenance(self, project: str, steps: tuple[str, ...]) -> tuple[Provenance, ...] | None:
        """Check the provenance of the last run of each step."""
        from repro.auditing import runs

        return runs.provenance_checks(self.machine, project, steps)

    # -- others

    def images(self, locks: Locks) -> tuple[ImageFacts, ...] | None:
        """Ask the container engine, if one answers, and with `online` the registries."""
        mine = tuple(k for k in locks if k.image and k.platform in ("", self.platform))
        if not mine:
            return ()
        from repro.auditing import engines

        return engines.images(mine, self.machine.environ, online=self.scope.online)

    def advisories(self, locks: Locks) -> Advisories | None:
        """Look the locked packages up. Raises UsageError, Unsupported or Unreachable."""
        if not self.scope.osv:
            return None
        from repro.auditing import advisories

        shipped = advisories.shipped([one.prefix.path for one in self._seen])
        return advisories.look_up(
            advisories.on_index(locks, shipped),
            self.scope.osv,
            self.machine.home.root,
            fetch=not self.scope.offline,
            progress=self.progress,
        )

    def releases(self, locks: Locks) -> tuple[Release, ...] | None:
        """Give what indexes and channels say of locked versions."""
        return self._asked(locks).releases

    def attestations(self, locks: Locks) -> tuple[Attestation, ...] | None:
        """Say for which packages the index has attestations."""
        return self._asked(locks).attestations

    def _asked(self, locks: Locks) -> Answers:
        """Ask once about all packages."""
        from repro.auditing import indexes

        if self._answers is None:
            seconds = self.scope.seconds if self.scope.online else 0.0
            self._answers = indexes.ask(locks, self.machine, self.progress, seconds)
        return self._answers

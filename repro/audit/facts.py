"""Everything that the rules may look at, as values. Whoever collects them is elsewhere.

A part that is None was not looked at: the rules that need it do not run, and the report says so.
An empty part was looked at, and there is nothing.
"""

from __future__ import annotations

from repro.audit.settings import Settings
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from repro.errors import Where
    from repro.lock import EnvironmentLock
    from repro.lockfiles.names import LockFile
    from repro.ports import Unmet
    from repro.spec import Environment, Project


class Broken(Value):
    """A lock file that cannot be read, and why."""

    path: str
    message: str
    where: Where | None = None


class Gap(Value):
    """Something that a lock does not give as its request asks, on one platform."""

    path: str
    platform: str
    unmet: Unmet


class Found(Value):
    """One thing that was found in a realised environment. `path` is relative to it.

    `kind` is one of `not-installed`, `not-locked`, `other-version`, `other-build`,
    `pip-installed`; `changed`, `missing`, `extra`, `no-digest` for its files, `cache-changed` for
    a file of the installers' caches that it was linked from, `other-tree` for all of them;
    `runs-at-start`, `user-site`, `link-script`, `other-base`. `package` is whose it is;
    `expected` and `found` are versions, builds or digests.
    """

    kind: str
    path: str = ""
    package: str = ""
    expected: str = ""
    found: str = ""


class Prefix(Value):
    """A realised environment, by what was found in it."""

    path: str
    platform: str
    found: tuple[Found, ...] = ()


class LockText(Value):
    """The text of a lock file: the line on which each package begins, by normalised name."""

    path: str
    lines: Mapping[str, int] = {}
    text: str = ""


class EnvironmentFacts(Value):
    """One environment of a project: what is asked for, what is locked, what is there.

    `label` is the entry point that has it for itself, or empty. `file` is where the request
    stands. `unchecked` says why the locks could not be compared with it, empty where they were.
    """

    label: str
    kind: str
    request: Environment
    file: str
    locks: tuple[LockFile, ...] = ()
    broken: tuple[Broken, ...] = ()
    gaps: tuple[Gap, ...] = ()
    unchecked: str = ""
    prefixes: tuple[Prefix, ...] = ()

    @property
    def locked(self) -> tuple[tuple[LockFile, EnvironmentLock], ...]:
        """Give every lock with the file that holds it."""
        return tuple((file, lock) for file in self.locks for lock in file.locks)

    @property
    def name(self) -> str:
        """Name it in a message."""
        return f"the environment of `{self.label}`" if self.label else "the environment"


class ImageFacts(Value):
    """What is known of a locked image.

    Of its registry: `manifest` is what the tag stands for now, and `offered` says whether the
    locked image is still there; None where the registry was not asked. Of this machine's engine:
    whether the locked image is `present`, and the `id` of what has its name. `architecture` is
    written as in `linux/amd64`.
    """

    reference: str
    manifest: str = ""
    offered: bool | None = None
    architecture: str = ""
    present: bool = False
    id: str = ""


class Advisory(Value):
    """A known vulnerability of a locked package; `name` and `version` are the lock's own."""

    id: str
    name: str
    version: str
    aliases: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    summary: str = ""
    severity: str = ""
    url: str = ""


class Advisories(Value):
    """What a source of advisories says of the locked packages.

    `date` is that of its newest entry, `uncovered` are packages that it cannot know, such as
    conda packages without a name on the Python package index.
    """

    source: str
    date: str = ""
    matches: tuple[Advisory, ...] = ()
    uncovered: tuple[str, ...] = ()


class Licence(Value):
    """The licence that a package states: an SPDX expression or other words, empty for none.

    `before` is what the version in the last lock stated, None where there was none.
    """

    name: str
    version: str
    text: str
    before: str | None = None


class Release(Value):
    """What the index says of a locked version: the reason why it was yanked (None: it was not).

    `published` is a date or time (RFC 3339).
    """

    name: str
    version: str
    yanked: str | None = None
    published: str = ""


class Attestation(Value):
    """Whether a package's publisher vouches for it: `good`, `bad` or `absent`."""

    name: str
    version: str
    state: str
    why: str = ""


class Provenance(Value):
    """The provenance of a run, kept with its result; `fault` says why it is not believed."""

    run: str
    fault: str = ""


class Git(Value):
    """The state of the repository around a project. No commit: there is none."""

    commit: str = ""
    dirty: bool = False
    remote: str = ""


class StepHistory(Value):
    """What the history knows of one step.

    `last_good` is the run of the last success and `environment` the digest that it ran in.
    `verified` is the date of the last verification by a second run, `differed` the outputs in
    which it differed. `read` and `made` are files outside of the declared inputs and outputs,
    `altered` says what the step changed in its environment; None where nobody watched.
    """

    step: str
    last_good: str = ""
    environment: str = ""
    verified: str = ""
    differed: tuple[str, ...] = ()
    read: tuple[str, ...] | None = None
    made: tuple[str, ...] | None = None
    altered: tuple[str, ...] | None = None


class Cache(Value):
    """Environments kept on this machine: unfinished ones, and those unused with their days."""

    incomplete: tuple[str, ...] = ()
    unused: tuple[tuple[str, int], ...] = ()
    bytes: int = 0


class Facts(Value):
    """All of it. `texts` are the files that say what the project is, `files` all paths of it.

    `scripts` are the files that commands name, `lock_texts` the texts of the lock files. `platform`
    is this machine's, `today` its date.
    """

    name: str
    project: Project
    today: date
    platform: str
    texts: Mapping[str, str] = {}
    scripts: Mapping[str, str] = {}
    files: tuple[str, ...] = ()
    environments: tuple[EnvironmentFacts, ...] = ()
    lock_texts: Mapping[str, LockText] = {}
    settings: Settings = Settings()
    git: Git | None = None
    history: tuple[StepHistory, ...] | None = None
    images: tuple[ImageFacts, ...] | None = None
    advisories: Advisories | None = None
    licences: tuple[Licence, ...] | None = None
    releases: tuple[Release, ...] | None = None
    attestations: tuple[Attestation, ...] | None = None
    provenance: tuple[Provenance, ...] | None = None
    cache: Cache | None = None

    @property
    def installed(self) -> bool | None:
        """Say, as the other parts do, whether a realised environment was looked at."""
        return True if any(e.prefixes for e in self.environments) else None

    @property
    def tags(self) -> bool | None:
        """Say whether a registry was asked what tags stand for; without images there are none."""
        if self.images is None:
            return None
        return True if not self.images or any(i.offered is not None for i in self.images) else None

    @property
    def builds(self) -> bool | None:
        """Say whether the engine knows an image by the name of one that the project builds."""
        if self.images is None:
            return None
        built = {
            lock.image.reference
            for one in self.environments
            for _file, lock in one.locked
            if lock.image is not None and lock.image.dockerfile
        }
        known = {image.reference for image in self.images if image.id}
        return True if not built or built & known else None

    @property
    def reads(self) -> bool | None:
        """Say whether anybody watched what steps read."""
        return self._watched("read")

    @property
    def writes(self) -> bool | None:
        """Say whether anybody watched what steps made."""
        return self._watched("made")

    @property
    def alterations(self) -> bool | None:
        """Say whether anybody watched what steps did to their environments."""
        return self._watched("altered")

    @property
    def verdicts(self) -> bool | None:
        """Say whether a result was ever made a second time."""
        return True if any(s.verified or s.differed for s in self.history or ()) else None

    def _watched(self, field: str) -> bool | None:
        return True if any(getattr(s, field) is not None for s in self.history or ()) else None

    @property
    def platforms(self) -> tuple[str, ...]:
        """Give the platforms that the project has to be locked for."""
        return self.settings.platforms or (self.platform,)

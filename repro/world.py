"""All that the engine needs of the world, in one place: the machine, and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from repro.conditions import Room
    from repro.engine import Answer, Prepared
    from repro.events import Emit
    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.ports import (
        Backend,
        Calls,
        Confinement,
        Job,
        Paths,
        Progress,
        Realized,
        Receiver,
        Session,
        SubmittedJob,
        Tracking,
        Tree,
    )
    from repro.record import RunRecord
    from repro.source import Source
    from repro.spec import Project
    from repro.store.blobs import Blobs
    from repro.store.history import History
    from repro.store.home import Home
    from repro.store.locks import Locks
    from repro.store.memos import Memos
    from repro.store.placement import Placement
    from repro.store.results import Result, Results


class Isolation(Protocol):
    """What keeps steps apart from this machine; see `repro.isolation`."""

    def asked(self, request: str, entry: str) -> str:
        """Give the level that is insisted on, empty for the best there is."""

    def level(self, asked: str) -> str:
        """Give the level in force. Raises Unsupported."""

    def means(self, level: str) -> str:
        """Name what confines at a level."""

    def blocks(self, level: str) -> bool:
        """Say whether the network can be taken away at a level."""

    def missing(self) -> str:
        """Say why there is no sandbox here."""

    def accepts(self, made: str, asked: str) -> bool:
        """Say whether a result that was made at a level serves."""

    def confinement(
        self,
        level: str,
        writable: Iterable[str],
        shown: Iterable[str],
        realized: Realized,
        receiver: str,
        *,
        network: bool,
    ) -> Confinement:
        """Give what a step may see and change."""

    def watched(self, job: Job, output: str) -> Job:
        """Give a job whose use of files and hosts is noted. Raises Unsupported."""

    def undeclared(
        self, output: str, confinement: Confinement, folder: str
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Give the files and hosts that were used and not declared."""

    def hints(
        self, said: bytes, confinement: Confinement, folder: str, project: str
    ) -> tuple[tuple[str, str], ...]:
        """Read out of what a failed step said which files it missed."""


class Sharing(Protocol):
    """A remote cache. Nothing that goes wrong with it ends a run."""

    def fetch_result(self, key: str) -> Result | None:
        """Bring a result, with all that it names, into the store; every byte is checked."""

    def outdated(self, key: str) -> None:
        """Note that a result of the remote is to be replaced by the next one of its key."""

    def offer(self, key: str) -> None:
        """Send a result of the store, now or later."""


class Supply(Protocol):
    """Where the locks of one call come from."""

    def project_image(self, image: str, folder: str, entries: Sequence[Entry], name: str) -> str:
        """Put files of a project on an image; give the new image's id."""

    def decided(self) -> tuple[tuple[str, str], ...]:
        """Name the decisions that were made, each with the environment that it led to."""

    def still_decides(self, decision: str, environment: str) -> bool:
        """Say whether a decision would lead to the same environment now."""


class Machine(Protocol):
    """Everything that the engine needs of the world, opened when it is first used."""

    environ: Mapping[str, str]
    platform: str
    home: Home
    blobs: Blobs
    results: Results
    memos: Memos
    locks: Locks
    history: History
    cancelled: bool

    @property
    def supply(self) -> Supply:
        """Give where locks come from."""

    @property
    def isolation(self) -> Isolation:
        """Give what keeps steps apart from this machine."""

    @property
    def tracking(self) -> Tracking:
        """Give the tracking server, or what stands for none."""

    @property
    def secret(self) -> bytes:
        """Give the store's key for digests of secrets."""

    def now_ns(self) -> int:
        """Give the time, nanoseconds since 1970 UTC."""

    def tree(self, request: Request, progress: Progress) -> Tree:
        """Fetch the project. Raises SourceRefused, UsageError, Unreachable."""

    def load(self, tree: Tree, emit: Emit) -> tuple[Project, tuple[str, ...]]:
        """Decode the project of a tree. Raises ProjectInvalid."""

    def placement(self, root: str) -> Placement:
        """Give the memory of outputs in a folder."""

    def paths(self, caller: str, progress: Progress) -> Paths:
        """Give what finds files by path, relative ones from `caller`."""

    def lock(
        self, wanted: Wanted | None, tree: Tree, progress: Progress, how: str = ""
    ) -> EnvironmentLock:
        """Give the lock of an environment, None being the caller's own; as `Locker.lock`."""

    def realize(
        self, lock: EnvironmentLock, tree: Tree, progress: Progress, brought: str = "files"
    ) -> Realized:
        """Make an environment, as what a backend is brought; see `ports.Backend`."""

    def check_container(self, options: Mapping[str, str | None]) -> None:
        """Raise UsageError for an option that the container engine does not have."""

    def backend(self, name: str, level: str = "none", config: Any = None) -> Backend:
        """Give the place where steps run.

        `level` is that of the sandbox, `config` are the settings, where it has them.
        """

    def rooms(self, backend: str) -> str:
        """Give the folder for the private folders of steps."""

    def receiver(
        self,
        record: RunRecord,
        folder: str,
        calls: Calls | None = None,
        before: Mapping[str, str] | None = None,
    ) -> Receiver:
        """Start to take the MLflow calls of a step, and runs that it asks for.

        `before` are the variables of an earlier receiver of the same step, to listen in its place.
        """

    @property
    def callers(self) -> tuple[str, ...]:
        """Give the keys of the steps whose code has led here, the outermost first."""

    def calls(self, prepared: Prepared, run_id: str, room: Room, emit: Emit) -> Session:
        """Give what runs the steps that the code of this one asks for."""

    def called(
        self, prepared: Prepared, result: Result
    ) -> tuple[tuple[tuple[Prepared, Answer], ...], str]:
        """Give what a step had asked for, each with its result, or say what differs now."""

    def another(self) -> Machine:
        """Give a machine for another thread, to be closed by us."""

    def within(self, caller: Prepared, variables: Mapping[str, str]) -> Machine:
        """Give a machine for what the code of a step asks for, to be closed by us."""

    def mirrored(self, record: RunRecord, result: Result) -> RunRecord:
        """Show a reused result on the tracking server, if there is one."""

    @property
    def sharing(self) -> Sharing | None:
        """Give the remote cache, None where there is none."""

    def cancel_jobs(self) -> None:
        """End everything that runs now."""

    def close(self) -> None:
        """Remove private files."""

    def watch(self, run_id: str, job: SubmittedJob | None) -> None:
        """Tell which job a run is at, so that it can be cancelled; None when it has ended."""

    def tree_of(self, name: str) -> tuple[Entry, ...] | None:
        """Give the entries of a kept manifest."""

    def patch(self, source: Source) -> str:
        """Keep the difference of a dirty tree to its commit; give its digest, or nothing."""

    def rescan(self, request: Request) -> None:
        """Learn the state of a local project again, after outputs were written into it."""

    def remove(self, path: str) -> None:
        """Remove a folder of our own."""

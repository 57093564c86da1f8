"""This machine as the engine sees it: every adapter, made when it is first used."""

from __future__ import annotations

import os
import sys
import time

from repro import location, manifest, plan
from repro.errors import SourceRefused, Unsupported, UsageError
from repro.events import Warned
from repro.isolation import Isolation
from repro.source import Source
from repro.store.blobs import BlobMissing, Blobs
from repro.store.history import History
from repro.store.home import Home, cache_home, data_home
from repro.store.locks import Locks
from repro.store.memos import Memos
from repro.store.placement import Placement
from repro.store.results import Results
from repro.supply import Supply
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from repro.conditions import Room
    from repro.engine import Answer, Prepared
    from repro.errors import Problem
    from repro.events import Emit
    from repro.fetch.commits import Way
    from repro.location import Location
    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.ports import (
        Backend,
        Calls,
        Paths,
        Realized,
        Receiver,
        Session,
        SubmittedJob,
        Tracked,
        Tracking,
        Tree,
    )
    from repro.record import RunRecord
    from repro.remote.sharing import Sharing
    from repro.spec import Project
    from repro.store.results import Result

    Tell = Callable[[str], None]

PATCH_LIMIT = 16 << 20


class NoTracking:
    """Stands for a tracking server where there is none."""

    def check(self) -> None:
        """Find nothing to complain about."""

    def begin(self, record: RunRecord, _emit: Emit) -> RunRecord:
        """Give the record as it is."""
        return record

    def finish(self, record: RunRecord, _tracked: Tracked, _emit: Emit) -> RunRecord:
        """Give the record as it is."""
        return record


class Machine:
    """The adapters of one call. `close` removes its private files; nothing else is left open."""

    def __init__(
        self,
        environ: Mapping[str, str],
        emit: Emit | None = None,
        *,
        looks_only: bool = False,
        tracking: Tracking | None = None,
    ) -> None:
        """Open the store that `environ` names, making it if needed.

        With `looks_only`, nothing that belongs to a project is ever run, not even a build.
        `tracking` shows the runs in place of the server that `environ` names.
        """
        self.looks_only = looks_only
        self.environ = environ
        self.emit: Emit = emit or (lambda _event: None)
        self.platform = f"{sys.platform}-{os.uname().machine}"
        self.home = Home(cache_home(environ)).open()
        self.blobs = Blobs(self.home)
        self.results = Results(self.home)
        self.memos = Memos(self.home)
        self.locks = Locks(self.home)
        self.isolation = Isolation(environ, self.memos)
        self.supply = Supply(self.home, self.locks, environ, looks_only=looks_only)
        self.history = History(data_home(environ), self.warn)
        self.jobs: dict[str, SubmittedJob] = {}
        self._state = {"cancelled": False}
        self._shared: tuple[Sharing | None] | None = None
        self._lent = False
        self._isolates = True
        self.served: dict[str, str] = {}
        self.outer: Machine | None = None
        self.caller: Prepared | None = None
        self._given = tracking
        self._tracking: Tracking | None = tracking

    def warn(self, text: str) -> None:
        """Tell of something odd."""
        self.emit(Warned(text=text))

    def now_ns(self) -> int:
        """Give the time."""
        return time.time_ns()

    def another(self) -> Machine:
        """Give a machine for another thread: what it runs is cancelled together with ours."""
        made = Machine(self.environ, self.emit, looks_only=self.looks_only, tracking=self._given)
        made.jobs, made._state, made._lent = self.jobs, self._state, True
        made._shared = (self.sharing,)
        made.outer, made.caller, made.served = self.outer, self.caller, self.served
        made.supply.login = self.supply.login
        made.isolation, made._isolates = self.isolation, False
        return made

    def within(self, caller: Prepared, variables: Mapping[str, str]) -> Machine:
        """Give a machine for what the code of a step asks for: its own environment is the step's.

        `variables` are those that the code has set. What is cancelled here is cancelled there.
        """
        made = Machine(
            {**self.environ, **variables},
            self.emit,
            looks_only=self.looks_only,
            tracking=self._given,
        )
        made.outer, made.caller, made.served = self, caller, self.served
        made._shared, made._lent = (self.sharing,), True
        return made

    @property
    def callers(self) -> tuple[str, ...]:
        """Give the keys of the steps whose code has led here, the outermost first."""
        if self.outer is None or self.caller is None:
            return ()
        return (*self.outer.callers, self.caller.key)

    @property
    def cancelled(self) -> bool:
        """Say whether nothing more is to be started."""
        return self._state["cancelled"] or (self.outer is not None and self.outer.cancelled)

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._state["cancelled"] = value

    @property
    def sharing(self) -> Sharing | None:
        """Give the remote cache that `REPRO_REMOTE` names, None where there is none."""
        if self._shared is None:
            self._shared = (None,)
            if self.environ.get("REPRO_REMOTE") and not self.looks_only:
                from repro.remote.sharing import for_run

                self._shared = (for_run(self),)
        return self._shared[0]

    def cancel_jobs(self) -> None:
        """End everything that runs now."""
        if self._shared and self._shared[0]:
            self._shared[0].stop()
        for job in list(self.jobs.values()):
            job.cancel()

    def close(self) -> None:
        """Remove the private files of this process and close the history.

        Results that wait to be sent to a remote cache are given some seconds for it.
        """
        if self._shared and self._shared[0] and not self._lent:
            self._shared[0].close()
        if self._isolates:
            self.isolation.close()
        self.history.close()
        self.home.close()

    def remove(self, path: str) -> None:
        """Remove a folder of our own."""
        files.remove_tree(path)

    @property
    def secret(self) -> bytes:
        """Give the store's key for digests of secrets, made when it is first needed."""
        path = self.home.path("secret")
        known = files.read(path)
        if known is None:
            with self.home.lock("secret"):
                known = files.read(path)
                if known is None:
                    known = os.urandom(32)
                    files.replace(path, known)
        return known

    # -- sources

    def tree(self, request: Request, progress: Tell) -> Tree:
        """Fetch the project that a request names."""
        caller = request.caller or os.getcwd()
        place = location.parse(request.uri, lambda path: os.path.exists(os.path.join(caller, path)))
        if place.kind == "folder":
            return self._folder(place, request, caller, progress)
        if place.kind == "zip":
            return self._zip(place, request, caller, progress)
        return self._git(place, request, progress)

    def _folder(self, place: Location, request: Request, caller: str, progress: Tell) -> Tree:
        from repro.fetch.folder import Folder

        top = os.path.realpath(os.path.join(caller, place.address))
        if request.version and os.path.isdir(top):
            return self._local_repository(top, place.subdirectory, request, progress)
        root = os.path.realpath(os.path.join(top, place.subdirectory))
        if root != top and not root.startswith(top.rstrip("/") + "/"):
            raise SourceRefused(f"the subdirectory `{place.subdirectory}` leads out of the project")
        if not os.path.isdir(root):
            if root != top:
                raise UsageError(f"there is no folder `{place.subdirectory}` in `{place.public}`")
            hint = "name the folder that holds the MLproject file"
            raise UsageError(f"`{place.public}` is not a folder", hints=[hint])
        return Folder(root, request.uri, self.memos, avoid=self.home.root).scan()

    def _local_repository(
        self, folder: str, subdirectory: str, request: Request, progress: Tell
    ) -> Tree:
        """Read a version of a local repository from its objects; its work tree stays untouched."""
        from repro.fetch import git, listing

        top, prefix = listing.places(folder, "--show-toplevel", "--show-prefix")
        if not top and listing.places(folder, "--is-bare-repository") == ["true"]:
            top = folder
        if not top:
            raise UsageError(
                f"setting a version is only supported for Git projects, and `{folder}` is none",
                hints=["leave `--version` out"],
            )
        root = os.path.join(folder, subdirectory) if subdirectory else folder
        place = location.Location(kind="git", address=top, public=top)
        mirror = git.Mirror(place, self.home, local=True)
        commit, branch = mirror.resolve(request.version)
        importing = (mirror, commit, self.blobs, self.memos, progress)
        whole = git.fetch_tree(*importing)
        inside = (prefix + subdirectory).rstrip("/")
        return self._stored(
            Source(
                kind="git",
                uri=request.uri,
                project=root,
                name=os.path.basename(root),
                tree="",
                commit=commit,
                branch=branch,
                repo_url=listing.remote_of(folder),
                subdirectory=inside,
                version=request.version,
            ),
            whole,
            lambda: git.import_tree(*importing),
        )

    def _git(self, place: Location, request: Request, progress: Tell) -> Tree:
        known = self.memos.get("commit", request.version)
        if location.is_commit(request.version) and isinstance(known, str) and self.blobs.has(known):
            commit, branch, whole = request.version, "", known
        else:
            from repro.fetch import git

            progress(f"asking {place.public}")
            mirror = git.Mirror(place, self.home)
            commit, branch = mirror.resolve(request.version)
            whole = git.fetch_tree(mirror, commit, self.blobs, self.memos, progress)

        def again() -> None:
            from repro.fetch import git

            mirror = git.Mirror(place, self.home)
            mirror.resolve(commit)
            git.import_tree(mirror, commit, self.blobs, self.memos, progress)

        inside = f"#{place.subdirectory}" if place.subdirectory else ""
        return self._stored(
            Source(
                kind="git",
                uri=f"{place.public}{inside}",
                project=f"{place.public}{inside}",
                name=place.name,
                tree="",
                commit=commit,
                branch="" if branch == "HEAD" else branch,
                repo_url=place.public,
                subdirectory=place.subdirectory,
                version=request.version,
            ),
            whole,
            again,
        )

    def _zip(self, place: Location, request: Request, caller: str, progress: Tell) -> Tree:
        from repro.fetch import archive

        if request.version:
            raise UsageError("a zip archive has no versions", hints=["leave `--version` out"])
        if "://" not in place.address:
            address = os.path.join(caller, place.address)
            place = replace(place, address=address, public=address)
        whole = archive.fetch(place, self.home, self.blobs, progress)
        inside = f"#{place.subdirectory}" if place.subdirectory else ""
        return self._stored(
            Source(
                kind="zip",
                uri=f"{place.public}{inside}",
                project=f"{place.public}{inside}",
                name=place.name.removesuffix(".zip"),
                tree="",
                subdirectory=place.subdirectory,
            ),
            whole,
            lambda: archive.fetch(place, self.home, self.blobs, progress),
        )

    def _stored(self, found: Source, whole: str, again: Callable[[], object]) -> Tree:
        from repro.fetch.stored import Stored

        tree = Stored(found, whole, self.blobs, self.memos, again)
        if found.subdirectory and "tree" not in tree.memo and not tree.entries():
            raise UsageError(
                f"there is no folder `{found.subdirectory}` in `{found.uri.partition('#')[0]}`",
                hints=["the part after `#` is a folder of the project"],
            )
        tree.source = replace(found, tree=tree.digest())
        return tree

    def load(self, tree: Tree, emit: Emit) -> tuple[Project, tuple[str, ...]]:
        """Decode the project of a tree, telling of what is unwise in it."""
        from repro.fetch.project import load

        def report(problem: Problem) -> None:
            where = f"{problem.where}: " if problem.where else ""
            emit(Warned(text=f"{where}{problem.message}", hint=problem.hint))

        return load(tree, report)

    def rescan(self, request: Request) -> None:
        """Learn the state of a local project again, after outputs were written into it."""
        from repro.fetch.folder import Folder

        tree = self.tree(request, lambda _text: None)
        if isinstance(tree, Folder):
            tree.project(lambda t: self.load(t, lambda _event: None))
            tree.remember()

    def patch(self, source: Source) -> str:
        """Keep the difference of a dirty tree to its commit; give its digest, or nothing."""
        if not source.dirty or not source.root or not source.commit:
            return ""
        from repro.fetch import listing

        options = ("--binary", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty")
        out = listing.unfiltered(source.root, "diff", *options, "HEAD", "--", ".")
        return self.blobs.put(out) if out and len(out) <= PATCH_LIMIT else ""

    def way(self, source: Source, before: str) -> Way | None:
        """Give the way from an earlier commit to a tree, None where Git does not know it."""
        from repro.fetch import commits

        return commits.way(source.root, before, source.commit) if source.root else None

    def tree_of(self, name: str) -> tuple[Entry, ...] | None:
        """Give the entries of a kept manifest."""
        try:
            return manifest.decode(self.blobs.get(name))
        except (BlobMissing, manifest.NotAManifest):
            return None

    def placement(self, root: str) -> Placement:
        """Give the memory of outputs in a folder."""
        return Placement(os.path.abspath(root), self.home, self.blobs, self.memos)

    def paths(self, caller: str, progress: Tell) -> Paths:
        """Give what finds files by path, relative ones from `caller`."""
        from repro.fetch.paths import Paths

        return Paths(self.memos, caller or os.getcwd(), progress)

    # -- environments

    def lock(
        self, wanted: Wanted | None, tree: Tree, progress: Tell, how: str = ""
    ) -> EnvironmentLock:
        """Give the lock of an environment: the caller's own, a known one, or a new one."""
        if wanted is None and self.caller is not None:
            if self.caller.lock.kind == "docker":
                raise Unsupported(
                    "a step in an image cannot call one of another project in the same image",
                    hints=["give that project a `docker_env`, or another environment"],
                )
            return self.caller.lock
        return self.supply.lock(wanted, tree, progress, how)

    def realize(
        self, lock: EnvironmentLock, tree: Tree, progress: Tell, brought: str = "files"
    ) -> Realized:
        """Make an environment, or find it made, as what a backend is brought."""
        if self.caller is not None and lock is self.caller.lock:
            tree = self.caller.tree
        return self.supply.realize(lock, tree, progress, brought)

    # -- running

    def check_container(self, options: Mapping[str, str | None]) -> None:
        """Raise UsageError for an option that the container engine does not have."""
        if options:
            from repro.backends import dockerargs

            dockerargs.apply(tuple(options.items()), {}, self.environ)

    def backend(self, name: str, level: str = "none", config: Any = None) -> Backend:
        """Give the place where steps run. Raises Unsupported where there is none of that name."""
        if name == plan.LOCAL:
            return self.isolation.backend(level)
        from repro.backends import roster

        return roster.make(name, config, store=self.home.root, environ=self.environ)

    def rooms(self, backend: str) -> str:
        """Give the folder for the private folders of steps: they last as long as their jobs."""
        return self.home.path("jobs") if backend in plan.LASTING else self.home.scratch()

    def watch(self, run_id: str, job: SubmittedJob | None) -> None:
        """Note which job a run is at, so that another thread can cancel it."""
        if job is None:
            self.jobs.pop(run_id, None)
        else:
            self.jobs[run_id] = job
        if self.outer is not None:
            self.outer.watch(run_id, job)

    def calls(self, prepared: Prepared, run_id: str, room: Room, emit: Emit) -> Session:
        """Give what runs the steps that the code of this one asks for."""
        from repro.drivers.calls import Session

        return Session(prepared, run_id, room, self, emit)

    def called(
        self, prepared: Prepared, result: Result
    ) -> tuple[tuple[tuple[Prepared, Answer], ...], str]:
        """Give what a step had asked for, each with its result, or say what differs now."""
        from repro.drivers import again

        return again.found(prepared, result, self)

    # -- tracking

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
        from repro.tracking import receiver

        return receiver.start(
            record.run_id,
            record.tracking.get("experiment_id", "0"),
            record.experiment or "Default",
            folder,
            inherited_tags={"mlflow.runName": record.run_name} if record.run_name else {},
            calls=calls,
            before=before or {},
        )

    @property
    def tracking(self) -> Tracking:
        """Give the tracking server that `MLFLOW_TRACKING_URI` names, or a stand-in for none."""
        if self._tracking is None:
            uri = self.environ.get("MLFLOW_TRACKING_URI", "")
            self._tracking = NoTracking()
            if uri.startswith(("http://", "https://")):
                from repro.tracking.relay import Relay

                outbox = self.history.path("outbox")
                self._tracking = Relay(uri, self.environ, outbox, self.served)
        return self._tracking

    def mirrored(self, record: RunRecord, result: Result) -> RunRecord:
        """Show a reused result on the tracking server, with the files that it logged."""
        if isinstance(self.tracking, NoTracking):
            return record
        from repro.tracking import keeping

        tracked = keeping.restored(result, self.blobs, self.home.scratch())
        begun = self.tracking.begin(record, self.emit)
        return self.tracking.finish(begun, tracked, self.emit)

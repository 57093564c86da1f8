"""One execution of a step: private tree, clean environment, captured and published result."""

from __future__ import annotations

import os

from repro import engine, jobs, leftovers, manifest, metrics, plan, provenance
from repro.capture import Capture, OutputRefused, Shape
from repro.conditions import Conditions, applied
from repro.errors import OutputMissing, ReproError, SourceUnusable, Unreachable
from repro.events import Ended, Progress, Started, Warned
from repro.ports import Confinement, JobEnd, Tracked
from repro.record import FAILED, FINISHED, KILLED, RUNNING, RunRecord
from repro.runlog import LogWriter
from repro.store.results import Result
from repro.value import dump, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.engine import Prepared
    from repro.events import Emit
    from repro.manifest import Entry
    from repro.ports import Job, Realized, Receiver, Sink, SubmittedJob
    from repro.world import Machine

SHOWN = 20
HEARING = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN")
LOGGERS = "mlflow"


class Attempt:
    """One execution: its state while it is under way."""

    def __init__(self, prepared: Prepared, machine: Machine, emit: Emit, reason: str) -> None:
        """Prepare to run a step; `reason` says why that is needed."""
        self.prepared = prepared
        self.machine = machine
        self.inputs: tuple[Entry, ...] = ()
        self.settings = plan.settings(prepared.request, prepared.backend)
        self.record = self._begun(reason)
        self.brought = "files"
        self.conditions = prepared.conditions or Conditions()
        self.room = self.conditions.room(machine.rooms(prepared.backend), self.record.run_id)
        self.calls = machine.calls(prepared, self.record.run_id, self.room, emit)
        self.emit = self.calls.emit
        self.log: LogWriter | None = None
        self.end = JobEnd(code=-1, cause="lost")
        self.tracked = Tracked()
        self.outputs: tuple[Entry, ...] = ()

    def _begun(self, reason: str) -> RunRecord:
        return replace(engine.begin(self.prepared, self.machine.now_ns()), reason=reason)

    def progress(self, text: str) -> None:
        """Tell what is being done."""
        self.emit(Progress(step=self.prepared.name, text=text))

    def note(self, text: str, hint: str = "") -> None:
        """Tell of something odd, and keep it in the record."""
        self.emit(Warned(step=self.prepared.name, text=text, hint=hint))
        self.record = replace(self.record, notes=(*self.record.notes, text))

    # -- the course of it

    def run(self) -> RunRecord:
        """Run it, and give its record; raises as `execution.execute` does."""
        prepared, machine = self.prepared, self.machine
        self.brought = machine.backend(prepared.backend, config=self.settings).environments
        if prepared.request.build_image and self.brought == "references":
            self.brought = "images"  # what is put on it is in no registry yet
        realized = machine.realize(prepared.lock, prepared.tree, self.progress, self.brought)
        try:
            self._make_room()
            lease = machine.history.lease(self.record.run_id)
            try:
                self._announce()
                self._recorded(realized)
            finally:
                machine.history.release(lease)
        finally:
            realized.release()
            machine.remove(self.room.base)
        return self.record

    def _announce(self) -> None:
        """Show the run on the tracking server."""
        self.record = self.machine.tracking.begin(self.record, self.emit)

    def _recorded(self, realized: Realized) -> None:
        """Run, with a record that says so, and that is settled whatever happens."""
        try:
            self.machine.history.put(self.record)
            self._attempts(realized)
        except BaseException as error:
            self._settle_after(error)
            raise

    def _make_room(self) -> None:
        for folder in (self.room.work, self.room.home, self.room.temporary, self.room.tracking):
            os.makedirs(folder, mode=0o700)
        tree = self.prepared.tree
        self.inputs = self._selected()
        supplied = self.prepared.chosen.supplied
        from_before = {entry.path for entry in supplied}
        own = tuple(e for e in self.inputs if e.path not in from_before)
        order = -1 if "files" in self.conditions.backwards else 1
        tree.materialize(own[::order], self.room.work)
        self.machine.blobs.write(supplied[::order], self.room.work)
        if self.prepared.alone:
            tree.remember()
        self.machine.blobs.put(manifest.encode(self.inputs))
        for mount in self.prepared.entry.mounts:
            if mount.target:
                place = os.path.join(self.room.work, mount.target)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(os.path.expanduser(mount.source), place)

    def _selected(self) -> tuple[Entry, ...]:
        found = engine.inputs_of(self.prepared)
        if manifest.of(found) != self.prepared.step.inputs:
            raise SourceUnusable(
                "the project changed while the step was being prepared",
                hints=["run again when its files are at rest"],
            )
        return found

    def _attempts(self, realized: Realized) -> None:
        """Run the command, again as often as `retries` allows while it fails."""
        retries = self.prepared.entry.retries
        for attempt in range(retries + 1):
            self._once(realized)
            if self.end.code == 0 or self.end.cause == "cancel" or attempt == retries:
                break
            self.note(f"attempt {attempt + 1} ended with exit code {self.end.code}: trying again")
            self.machine.remove(self.room.base)
            self._make_room()
        self._finish()

    def _once(self, realized: Realized) -> None:
        prepared, machine, run_id = self.prepared, self.machine, self.record.run_id
        receiver = self._receiver()
        secrets = [machine.environ[name] for name in prepared.entry.secrets]
        secrets += [a.text for a in prepared.arguments if a.kind == "secret" and a.text]
        self.log = LogWriter(
            os.path.join(self.room.base, "log"), prepared.name, self.emit, tuple(secrets)
        )
        capture = self._capture()
        self.calls.open(capture)
        given = jobs.variables(
            prepared, run_id, self.room, realized, receiver.variables, machine.environ
        )
        given = self.calls.variables(given)
        confinement = self._confinement(realized, receiver.variables)
        job = jobs.job(prepared, run_id, self.room, realized, given, confinement)
        job = replace(job, image=self._image(realized))
        trace = os.path.join(self.room.base, "trace")
        if prepared.request.trace:
            job = machine.isolation.watched(job, trace)
        try:
            self.emit(Started(step=prepared.name, run_id=run_id, command=prepared.command))
            self.end = self._waited(applied(job, self.conditions))
        finally:
            self.calls.close(good=self.end.code == 0)
            self.tracked = receiver.close()
            self.log.close()
            if receiver.unknown:
                names = ", ".join(receiver.unknown[:3])
                self.note(f"the step asked MLflow for what repro does not keep: {names}")
        if prepared.request.trace:
            self._told(trace, self._sight("mounts", realized, receiver.variables, network=True))
        if self.end.code == 0:
            self.outputs = self._captured(capture)
        elif self.end.cause == "exit":
            self._explained(confinement)

    def _image(self, realized: Realized) -> str:
        """Give the image to run in, with the inputs of the step in it where that was asked for."""
        if not self.prepared.request.build_image or not realized.image:
            return realized.image
        self.progress("putting the project into its image")
        name = self.prepared.source.name
        supply = self.machine.supply
        return supply.project_image(realized.image, self.room.work, self.inputs, name)

    def _confinement(self, realized: Realized, tracking: Mapping[str, str]) -> Confinement:
        """Decide what the step may see; say it where that is not what was meant."""
        prepared, isolation = self.prepared, self.machine.isolation
        if realized.image:
            open_ = prepared.entry.network and prepared.sandbox != "hermetic"
            blocks = prepared.backend in plan.BLOCKING
            level = "hermetic" if blocks and not open_ else "mounts"
            self.record = replace(self.record, sandbox=level, means=prepared.backend)
            if not open_ and not blocks:
                self.note("`network: false` is declared, but the network is not blocked there")
        if prepared.backend != "local":
            return Confinement()
        level = isolation.level(prepared.sandbox)
        if level == "none" and prepared.sandbox != "none":
            self.note(f"the step can see all of this machine: {isolation.missing()}")
        if not prepared.entry.network and not isolation.blocks(level):
            self.note("`network: false` is declared, but the network is not blocked here")
        self.record = replace(self.record, sandbox=level, means=isolation.means(level))
        network = prepared.entry.network or not isolation.blocks(level)
        return self._sight(level, realized, tracking, network=network)

    def _sight(
        self, level: str, realized: Realized, tracking: Mapping[str, str], *, network: bool
    ) -> Confinement:
        room = self.room
        return self.machine.isolation.confinement(
            level,
            (room.work, room.home, room.tracking, room.temporary),
            jobs.shown(self.prepared),
            realized,
            tracking.get("MLFLOW_TRACKING_URI", ""),
            network=network,
        )

    def _told(self, trace: str, sight: Confinement) -> None:
        """Record what a watched step used without declaring it."""
        if not os.path.exists(trace):
            return
        reads, hosts = self.machine.isolation.undeclared(trace, sight, self.room.work)
        self.record = replace(self.record, reads=reads, hosts=hosts)
        for path in reads[:SHOWN]:
            self.note(f"read without being declared: `{path}`", f"`- {path}` below `mounts:`")
        if len(reads) > SHOWN:
            self.note(f"and {len(reads) - SHOWN} more files that are not declared")
        for host in hosts[:SHOWN]:
            self.note(f"talked to `{host}`")

    def _explained(self, confinement: Confinement) -> None:
        """Say which files a failed step missed, as far as what it printed tells."""
        assert self.log is not None  # noqa: S101  (it has run)
        source = self.prepared.source
        found = self.machine.isolation.hints(
            self.log.tail(), confinement, self.room.work, source.root
        )
        for text, hint in found:
            self.note(text, hint)

    def _waited(self, job: Job) -> JobEnd:
        assert self.log is not None  # noqa: S101  (made just before)
        submitted = self._submitted(job, self.log.sink)
        self.machine.watch(self.record.run_id, submitted)
        try:
            return submitted.wait()
        except BaseException:
            submitted.cancel()
            self.end = submitted.wait()
            raise
        finally:
            self.machine.watch(self.record.run_id, None)

    def _capture(self) -> Capture:
        return Capture(self.room.work, self.inputs, self.prepared.entry)

    def _receiver(self) -> Receiver:
        found = self.machine.receiver(self.record, self.room.tracking, self.calls)
        if self.prepared.backend in plan.LASTING:
            heard = {n: v for n, v in found.variables.items() if n in HEARING}
            leftovers.note(self.room.base, heard, self.settings)
        return found

    def _submitted(self, job: Job, sink: Sink) -> SubmittedJob:
        name, level = self.prepared.backend, job.confinement.level
        return self.machine.backend(name, level, self.settings).submit(job, sink)

    # -- afterwards

    def _captured(self, capture: Capture) -> tuple[Entry, ...]:
        """Take the outputs into the store; an output that cannot be kept fails the run."""
        try:
            found: Shape = capture.outputs(self.machine.blobs)
        except (OutputMissing, OutputRefused) as error:
            self.record = replace(self.record, error=error.message)
            self.end = replace(self.end, cause="output")
            self.emit(Warned(step=self.prepared.name, text=error.message))
            return ()
        if found.undeclared:
            names = ", ".join(found.undeclared[:3])
            more = f" and {len(found.undeclared) - 3} more" if len(found.undeclared) > 3 else ""  # noqa: PLR2004
            self.note(
                f"not kept, since `outputs:` does not name them: {names}{more}",
                "add them to `outputs:`",
            )
        return found.outputs

    def _finish(self) -> None:
        """Record what became of the command; publish its result if it may be used again."""
        self._describe()
        logged = self._logged_files(self.tracked.artifacts)
        good = self.end.code == 0 and self.end.cause == "exit"
        killed = self.end.cause in ("cancel", "lost")
        status = FINISHED if good else KILLED if killed else FAILED
        self.record = replace(
            self.record,
            status=status,
            artifacts=logged,
            outputs=self.machine.blobs.put(manifest.encode(self.outputs)),
            metrics=metrics.latest(self.tracked.metrics),
            tags=self.tracked.tags,
            logged=self.tracked.parameters,
        )
        if good and not self.record.verifies:
            self._publish()
            self._place()
        self.machine.blobs.sync()
        self.record = self.machine.tracking.finish(self.record, self.tracked, self.emit)
        self.machine.history.put(self.record)
        self.emit(
            Ended(
                step=self.prepared.name,
                record=self.record,
                outputs=len(self.outputs),
                bytes=sum(e.size for e in self.outputs),
            )
        )

    def _describe(self) -> None:
        end = self.end
        log, size = ("", 0) if self.log is None else self.log.keep(self.machine.blobs)
        self.tracked = self._with_metric_files()
        self.record = replace(
            self.record,
            ended_ns=self.machine.now_ns(),
            exit_code=end.code if end.code >= 0 else None,
            cause=end.cause,
            wall_ns=end.wall_ns,
            user_ns=end.user_ns,
            system_ns=end.system_ns,
            peak_bytes=end.peak_bytes,
            log=log,
            log_size=size,
            patch=self.machine.patch(self.prepared.source),
        )

    def _with_metric_files(self) -> Tracked:
        if not self.prepared.entry.metrics:
            return self.tracked
        is_metric = manifest.matcher(self.prepared.entry.metrics)
        found = list(self.tracked.metrics)
        at = self.machine.now_ns() // 1_000_000
        for entry in self.outputs:
            if entry.kind in ("file", "exec") and is_metric(entry.path):
                try:
                    rows = metrics.of_file(entry.path, self.machine.blobs.get(entry.content))
                except ValueError as error:
                    self.note(f"no metrics can be read from `{entry.path}`: {error}")
                    continue
                found += [(key, text, at, number) for key, text, number in rows]
        return replace(self.tracked, metrics=tuple(found))

    def _logged_files(self, folder: str) -> str:
        """Take files logged through MLflow into the store; give the digest of their manifest."""
        entries: tuple[Entry, ...] = ()
        if folder and os.path.isdir(folder):
            entries = Capture(folder, (), None).outputs(self.machine.blobs).outputs
        return self.machine.blobs.put(manifest.encode(entries))

    def _children(self) -> tuple[Any, ...]:
        """Give the runs below the step's own as plain data, their files in the store."""
        return tuple(
            dump(replace(child, artifacts=self._logged_files(child.artifacts)))
            for child in self.tracked.children
        )

    def _publish(self) -> None:
        prepared, run = self.prepared, self.record
        problem = self._unfit()
        if problem:
            self.note(f"the result is not kept for reuse: {problem}")
            return
        statement = self.machine.blobs.put(self._statement())
        children = self._children()
        self.machine.blobs.sync()  # all that the result names is durable before it is
        self.machine.results.put(
            Result(
                key=prepared.key,
                parts=run.parts,
                run_id=run.run_id,
                outputs=run.outputs,
                artifacts=run.artifacts,
                log=run.log,
                log_size=run.log_size,
                metrics=self.tracked.metrics,
                parameters=self.tracked.parameters,
                tags=self.tracked.tags,
                datasets=self.tracked.datasets,
                children=children,
                calls=self.calls.kept(),
                ended_ns=run.ended_ns,
                wall_ns=run.wall_ns,
                user_ns=run.user_ns,
                system_ns=run.system_ns,
                peak_bytes=run.peak_bytes,
                origin={
                    "commit": run.commit,
                    "dirty": run.dirty,
                    "repo_url": run.repo_url,
                    "sandbox": run.sandbox,
                    "started_ns": run.started_ns,
                },
                provenance=statement,
            )
        )
        if self.machine.sharing is not None and not self.calls.kept():
            self.machine.sharing.offer(prepared.key)

    def _statement(self) -> bytes:
        """Attest where the result comes from."""
        run = self.record
        made = provenance.Made(
            run=run,
            parts=run.parts,
            outputs=self.outputs,
            artifacts=self.machine.tree_of(run.artifacts) or (),
            lock=self.prepared.lock,
        )
        return provenance.encode(provenance.statement(made))

    def _unfit(self) -> str:
        """Say why a good result must not serve another run, or nothing."""
        prepared = self.prepared
        if not prepared.request.keep_result:
            return "asked to run without the cache"
        if self.brought == "projects":
            return f"the backend `{prepared.backend}` runs projects its own way"
        if not prepared.entry.cache or self.calls.problem:
            return self.calls.problem or plan.uncached(prepared.entry)
        paths = self.machine.paths(prepared.request.caller, self.progress)
        for path, identity in prepared.host_paths:
            if not os.path.exists(path) or identity not in (
                paths.identify(path),
                paths.mounted(path),
            ):
                return f"`{path}` changed while the step ran"
        return ""

    def _place(self) -> None:
        prepared, machine = self.prepared, self.machine
        placement = prepared.placement
        if prepared.request.output:
            placement = machine.placement(prepared.request.output)
        if placement is not None and self.outputs:
            engine.place(
                prepared, self.outputs, placement, (machine, self.record.started_ns, self.emit)
            )
            if prepared.alone or prepared.request.output:
                placement.settle()
                placement.remember()
            if prepared.alone and not prepared.request.output:
                machine.rescan(prepared.request)

    def _settle_after(self, error: BaseException) -> None:
        """Record a run that an exception of ours, or a signal, has ended."""
        message = error.message if isinstance(error, ReproError) else type(error).__name__
        try:
            self._describe()
        except (ReproError, OSError):
            pass  # the log could not be kept: the run is settled without it
        status = (
            FAILED if isinstance(error, ReproError) and not hasattr(error, "signal") else KILLED
        )
        self.record = replace(self.record, status=status, error=message, cause="cancel")
        try:
            self.record = self.machine.tracking.finish(self.record, self.tracked, self.emit)
        finally:
            self.machine.history.put(self.record)


class Resumption(Attempt):
    """What is left to do of an execution whose process is gone, while its job goes on."""

    def __init__(self, prepared: Prepared, left: RunRecord, machine: Machine, emit: Emit) -> None:
        """Take the step, prepared as it was, and the run as it was left."""
        self.left: RunRecord | None = left
        super().__init__(prepared, machine, emit, left.reason)

    def _begun(self, reason: str) -> RunRecord:
        assert self.left is not None  # noqa: S101  (nothing has been gone on with)
        begun = replace(self.left, status=RUNNING, cause="", error="", ended_ns=0)
        return replace(begun, reason=reason)

    def _make_room(self) -> None:
        if self.left is None:  # another attempt, after that of the job which was left
            super()._make_room()
        else:
            self.inputs = self._selected()

    def _announce(self) -> None:
        """Leave the run on the tracking server as it is."""

    def _capture(self) -> Capture:
        begun = self.left is not None
        return Capture(self.room.work, self.inputs, self.prepared.entry, begun=begun)

    def _receiver(self) -> Receiver:
        before = leftovers.noted(self.room.base).get("receiver")
        return self.machine.receiver(self.record, self.room.tracking, self.calls, before)

    def _submitted(self, job: Job, sink: Sink) -> SubmittedJob:
        if self.left is None:
            return super()._submitted(job, sink)
        left, self.left = self.left, None
        found = leftovers.job(left, self.machine, sink, self.room.base, self.settings)
        if found is None:
            raise Unreachable(f"the job of run {job.run_id[:8]} is gone")
        return found

    def _unfit(self) -> str:
        """Refuse a result of which something may be missing: nobody heard what it logged."""
        names = {artifact.name.partition("-")[0] for artifact in self.prepared.lock.artifacts}
        if LOGGERS in names or os.path.exists(f"{self.room.tracking}.met"):
            return "its process was killed, and what it logged with MLflow meanwhile is not known"
        return super()._unfit()

"""What the code of one running step asks for, done as steps of their own beside it.

Each call is prepared, looked up and executed as if a user had asked for it, with the calling
step as its parent. What it makes in the caller's own project is seen by the caller and by the
calls after it, as if all had run in one folder.
"""

from __future__ import annotations

import os
import threading

from repro import engine, record, running
from repro.drivers import again, asking, hooks
from repro.drivers.places import Places
from repro.errors import Interrupted, ReproError, Unsupported, UsageError
from repro.plan import Course
from repro.ports import Called
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from repro.capture import Capture
    from repro.conditions import Room
    from repro.engine import Opened, Prepared
    from repro.events import Emit, Event
    from repro.manifest import Entry
    from repro.ports import Asked
    from repro.record import RunRecord
    from repro.world import Machine

    Ended = Callable[[Called], None]

DEEPEST = 16
MEMO = "called"


class Session:
    """All calls of one attempt to run a step."""

    def __init__(
        self, prepared: Prepared, run_id: str, room: Room, machine: Machine, emit: Emit
    ) -> None:
        """Take the step that calls. Events of all steps go to `emit`, one at a time."""
        self.prepared = prepared
        self.run_id = run_id
        self.room = room
        self.machine = machine
        self.guard = threading.RLock()
        self.places = Places(room, image=prepared.backend == "docker")
        self.made = again.Made(prepared, machine)
        self._emit = emit
        self._emitting = threading.RLock()
        self._capture: Capture | None = None
        self._given: Mapping[str, str] = {}
        self._calls: list[Call] = []
        self._over: list[Call] = []
        self._kept: list[Mapping[str, Any]] = []
        self._closed = False
        self.problem = ""

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        with self._emitting:
            self._emit(event)

    def open(self, capture: Capture) -> None:
        """Begin with nothing asked; `capture` learns what others make in the step's tree."""
        self._capture = capture
        self._calls, self._over, self._kept = [], [], []
        self._closed = False
        self.problem = ""
        self.made = again.Made(self.prepared, self.machine)

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """Give the step's variables with those that lead its code to us."""
        self._given = hooks.install(self.room.tracking, given, self.machine.environ)
        return dict(self._given)

    # -- what the step asks for

    def begin(self, asked: Asked, ended: Ended) -> Called:
        """Start a run; `ended` is called when it is over, before `wait` says so.

        Raises ReproError for whatever keeps it from running.
        """
        try:
            self._check(asked)
            call = Call(self, asked, asking.changed(self._given, asked.variables), ended)
            with self.guard:
                if self._closed:
                    call.close()
                    raise Unsupported("the step that asks has ended")
                self._calls.append(call)
                call.start()
        except ReproError as error:
            self.spoil(f"a call of `{asked.entry_point}` was refused: {error.message}")
            raise
        return call.called

    def _check(self, asked: Asked) -> None:
        if len(self.machine.callers) >= DEEPEST:
            raise UsageError(
                f"steps that call steps are {DEEPEST} deep",
                hints=["does a step call itself without end?"],
            )
        if asked.run_id:
            raise Unsupported("a step cannot choose the id of a run that it asks for")

    def wait(self, run_id: str, seconds: float) -> Called | None:
        """Give a run that is over, or None after that time. Raises UsageError."""
        call = self._find(run_id)
        return call.called if call.over.wait(seconds) else None

    def cancel(self, run_id: str) -> None:
        """End a run with everything it started."""
        self._find(run_id).cancel()

    def write(self, called: Called, folder: str) -> None:
        """Write the files that a run logged below a folder."""
        entries = self.machine.tree_of(called.artifacts) if called.artifacts else ()
        if entries:
            self.machine.blobs.write(entries, folder)

    def _find(self, run_id: str) -> Call:
        for call in self._calls:
            if call.called.run_id == run_id:
                return call
        raise UsageError(f"the step has not asked for a run `{run_id[:60]}`")

    # -- what the calls do to the step

    def spoil(self, problem: str) -> None:
        """Note why the result of the step cannot serve another run."""
        self.problem = self.problem or problem

    @property
    def seen(self) -> list[int]:
        """Give the positions of the calls whose files a call sees that begins now, in order."""
        return [self._calls.index(call) for call in self._over]

    def name(self, position: int) -> str:
        """Give the name of a call."""
        return self._calls[position].name

    def is_ours(self, path: str) -> bool:
        """Say whether a called step of the same project has the file or folder as well."""
        place = os.path.join(self.places.work, path)
        if os.path.isdir(place) and not os.path.islink(place):
            return all(self.is_ours(os.path.join(path, name)) for name in os.listdir(place))
        if not os.path.lexists(place):
            return True
        if self._capture is not None and self._capture.is_untouched(path):
            return True
        return self.made.is_as_made(path, files.state_of(place))

    def take(self, call: Call) -> None:
        """Let the step, and the calls after it, see what a call has made in its own project."""
        inside = call.place.inside
        if inside is None:
            return
        entries = again.prefixed(call.outputs, inside)
        with self.guard:
            self._over.append(call)
            folder = self.machine.placement(self.places.work)
            known = {entry.path: self.made.content(entry.path) for entry in entries}
            step, now = self.prepared.entry.name, self.machine.now_ns()
            folder.place(entries, step, known=known, since_ns=now)
            self.made.add(entries, self.places.work)
            if self._capture is not None:
                self._capture.supplied(entries)
            if self.prepared.placement is not None and self.places_outputs:
                self.prepared.placement.share(entries, step)

    @property
    def places_outputs(self) -> bool:
        """Say whether what the calls make is written into the project of the caller."""
        return not (self.prepared.request.output or self.prepared.verifies)

    # -- the end

    def close(self, *, good: bool) -> None:
        """Wait for what still runs, or end it where the step itself did no good."""
        with self.guard:
            self._closed = True
        try:
            for call in self._calls if good else ():
                call.join()
        finally:
            for call in self._calls:
                call.cancel()
        if self._over and self.places_outputs:
            self.made.remember(call.facts() for call in self._over)
        for call in self._calls if good else ():
            self._keep(call)

    def _keep(self, call: Call) -> None:
        plain = call.plain()
        if plain is None:
            self.spoil(f"that of `{call.called.entry_point}`, which it calls, is not kept")
        else:
            self._kept.append(plain)

    def kept(self) -> tuple[Mapping[str, Any], ...]:
        """Give what was asked for, so that it can be asked for again."""
        return tuple(self._kept)


class Call:
    """One run that was asked for: prepared at once, executed in a thread of its own."""

    def __init__(
        self, session: Session, asked: Asked, variables: Mapping[str, str], ended: Ended
    ) -> None:
        """Find out everything about it. Raises ReproError for what keeps it from running."""
        self.session = session
        self.over = threading.Event()
        self.outputs: list[Entry] = []
        self._ended = ended
        self._thread = threading.Thread(target=self._work, name="repro-call", daemon=True)
        self.variables = variables
        self.machine = session.machine.within(session.prepared, variables)
        try:
            self._open(asked)
        except BaseException:
            self.machine.close()
            raise

    def _open(self, asked: Asked) -> None:
        session, machine = self.session, self.machine
        self.place = asking.where(asked, session.prepared, session.places)
        plain = asking.wanted(asked, self.place, session.prepared, session.run_id, session.places)
        with session.guard:
            self.seen = session.seen
            tree = engine.open_tree(plain, machine, session.emit)
            project = tree.project(lambda t: machine.load(t, session.emit))
            identify = machine.paths(plain.caller, lambda _text: None).identify
            translation = asking.Translation(
                session.places, self.place.inside, session.is_ours, identify
            )
            request = asking.translated(plain, project, translation)
            opened = engine.open_project(request, machine, session.emit, tree)
            self.name = again.name_of(self.place.inside, request.entry_point)
            before = session.made.before(self.name, self.place.inside)
            if not session.places_outputs:
                opened = replace(opened, placement=None)
            self.opened: Opened = replace(opened, before=before)
        self.single = (
            engine.prepare_node(self.opened, opened.graph.target, (), machine, session.emit)
            if len(opened.graph.nodes) == 1
            else None
        )
        self.called = Called(
            run_id=request.run_id,
            status=record.RUNNING,
            entry_point=request.entry_point,
            name=request.run_name,
        )

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def cancel(self) -> None:
        """End it, and return when nothing is left of it."""
        self.machine.cancelled = True
        while self._thread.is_alive():
            self.machine.cancel_jobs()
            self._thread.join(0.05)

    def join(self) -> None:
        """Wait until it is over."""
        self._thread.join()

    def close(self) -> None:
        """Give back what was opened for it."""
        self.machine.close()

    def _work(self) -> None:
        session = self.session
        try:
            run = self._run()
            called = self._described(run)
        except BaseException as error:  # noqa: BLE001  (told to the step that asked)
            called = self._lost(error)
        if called.status != record.FINISHED:
            session.spoil(f"the called run of `{called.entry_point}` did not succeed")
        try:
            self._ended(called)
        except (ReproError, OSError) as error:
            session.spoil(f"what `{called.entry_point}` logged cannot be shown: {error}")
        finally:
            self.called = called
            self.over.set()
            self.close()

    def _run(self) -> RunRecord:
        session, machine = self.session, self.machine
        if self.single is None:
            records = running.run(self.opened, Course(), machine, session.emit, machine.another)
        else:
            records = (self._answer(self.single),)
        good = [run for run in records if run.status == record.FINISHED]
        for run in good:
            self.outputs += machine.tree_of(run.outputs) or ()
        session.take(self)
        return records[-1]

    def _answer(self, prepared: Prepared) -> RunRecord:
        from repro import execution

        found, reason = engine.answered(prepared, self.machine, self.session.emit)
        if found is not None:
            return found
        return execution.execute(prepared, reason, self.machine, self.session.emit)

    def _described(self, run: RunRecord) -> Called:
        result = self.machine.results.get(run.key) if run.key else None
        same = result is not None and result.run_id in (run.run_id, run.origin_run)
        at_ms = run.ended_ns // 1_000_000
        latest = tuple((key, text, at_ms, 0) for key, text in run.metrics.items())
        code = f"exit code {run.exit_code}" if run.exit_code else run.status.lower()
        return replace(
            self.called,
            status=run.status,
            key=run.key,
            cached=run.cached,
            error="" if run.status == record.FINISHED else run.error or code,
            parameters={**{name: text for name, text, _ in run.parameters}, **run.logged},
            metrics=result.metrics if result is not None and same else latest,
            tags=run.tags,
            artifacts=run.artifacts,
        )

    def _lost(self, error: BaseException) -> Called:
        asked = isinstance(error, Interrupted) or self.machine.cancelled
        message = error.message if isinstance(error, ReproError) else repr(error)
        status = record.KILLED if asked else record.FAILED
        return replace(self.called, status=status, error=message)

    def facts(self) -> tuple[str, set[str], set[str]]:
        """Give its name, the paths of what it made, and the names of the calls it has seen."""
        prefix = f"{self.place.inside}/" if self.place.inside else ""
        seen = {self.session.name(position) for position in self.seen}
        return self.name, {prefix + entry.path for entry in self.outputs}, seen

    def plain(self) -> dict[str, Any] | None:
        """Give it as data; see `again`. None where it cannot be kept."""
        result = self.session.machine.results.get(self.called.key) if self.called.key else None
        caller = self.session.prepared
        plain = again.plain(self.opened, self.place, caller, result, self.variables)
        return None if plain is None else {**plain, "seen": self.seen}

"""The library behind every command: each function is one question or one job."""

from __future__ import annotations

import os

from repro import engine, params, record, standing
from repro.errors import ExecutionException, Interrupted, RunUnknown, UsageError
from repro.events import Reused
from repro.machine import Machine
from repro.plan import Course
from repro.store.blobs import BlobMissing
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from repro.comparison import Comparison
    from repro.engine import Opened, Prepared
    from repro.errors import Problem
    from repro.events import Emit, Event
    from repro.images.logins import Given
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.ports import Tracking
    from repro.record import RunRecord
    from repro.spec import Project
    from repro.standing import Standing


ONE_BY_ONE = Course()


def silent(_event: Event) -> None:
    """Take an event and do nothing."""


class Output(Value):
    """One file that a run made: its kind, SHA-256 (a link's target) and size in bytes."""

    path: str
    kind: str
    sha256: str
    size: int


class SubmittedRun:
    """A run under way or over, as `mlflow.projects` gives it, and what repro knows beside.

    Any thread may call any method. The run lives in this process: it is over when the process
    ends, and the interpreter waits for it before it exits.
    """

    def __init__(
        self,
        request: Request,
        environ: Mapping[str, str],
        emit: Emit = silent,
        course: Course = ONE_BY_ONE,
        *,
        tracking: Tracking | None = None,
        login: Given | None = None,
    ) -> None:
        """Check everything that can be checked; nothing runs before `start` or `run`.

        `tracking` shows the runs in place of the server that `environ` names. `login` is for a
        registry of images. Raises ReproError for whatever keeps the step from running.
        """
        self._machine = Machine(environ, emit, tracking=tracking)
        self._machine.supply.login = login
        self._emit = emit
        self._course = course
        self._thread: threading.Thread | None = None
        self._cancelled = False
        self._failure: BaseException | None = None
        self.run_id: str = request.run_id or os.urandom(16).hex()
        self.record: RunRecord | None = None
        self.records: tuple[RunRecord, ...] = ()
        self._opened: Opened | None = None
        self._prepared: Prepared | None = None
        try:
            if request.run_id:
                self._check_new(request.run_id)
            asked = replace(request, run_id=self.run_id)
            tree = engine.open_tree(asked, self._machine, emit)
            self._standing = None if course.again else standing.recall(asked, tree, self._machine)
            if self._standing is None:
                self._opened = engine.open_project(asked, self._machine, emit, tree)
                self._prepared = self._single(self._opened)
        except BaseException:
            self._machine.close()
            raise

    def _single(self, opened: Opened) -> Prepared | None:
        """Prepare the step, where it is the only one of the run."""
        unknown = set(self._course.again) - {node.id for node in opened.graph.nodes}
        if unknown:
            raise UsageError(
                f"`{min(unknown)}` is no step of this run",
                hints=[f"its steps: {', '.join(node.id for node in opened.graph.nodes)}"],
            )
        if len(opened.graph.nodes) > 1:
            return None
        if self._course.again:
            opened = replace(opened, request=replace(opened.request, use_results=False))
        return engine.prepare_node(opened, opened.graph.target, (), self._machine, self._emit)

    def _check_new(self, run_id: str) -> None:
        """Refuse an id that another run has: its record would be lost."""
        try:
            self._machine.history.get(run_id)
        except RunUnknown:
            return
        raise UsageError(
            f"there is a run `{run_id}` already", hints=["leave the id out; each run gets its own"]
        )

    # -- MLflow's own

    def wait(self) -> bool:
        """Block until the run is over; say whether it succeeded. Raises what kept it back."""
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.get_status() == record.FINISHED

    def get_status(self) -> str:
        """Give SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        if self.record is not None:
            return self.record.status
        if self._failure is not None:
            return record.FAILED
        over = self._thread is not None and not self._thread.is_alive()
        return record.KILLED if over else record.RUNNING

    def cancel(self) -> None:
        """End the run with everything it started, and return when nothing is left of it."""
        self._cancelled = self._machine.cancelled = True
        while self._thread is not None and self._thread.is_alive():
            self._machine.cancel_jobs()
            self._thread.join(0.05)

    # -- ours

    @property
    def has_several_steps(self) -> bool:
        """Say whether the entry point needs others first."""
        return self._prepared is None

    @property
    def key(self) -> str:
        """Give the step key; of several steps the target's, empty before the others are done."""
        return self._prepared.key if self._prepared else self.record.key if self.record else ""

    @property
    def cached(self) -> bool:
        """Say whether an earlier result was reused."""
        return self.record is not None and self.record.cached

    @property
    def why(self) -> str:
        """Say why the step ran, or whose result was reused."""
        if self.record is None:
            return ""
        if self.record.cached:
            return f"reused run {self.record.origin_run}"
        return self.record.reason

    @property
    def metrics(self) -> dict[str, float]:
        """Give the last value of each metric."""
        known = self.record.metrics if self.record else {}
        return {name: float(text) for name, text in known.items()}

    @property
    def parameters(self) -> dict[str, str]:
        """Give the parameters as text; secrets are masked."""
        if self._opened is None:
            run = self._standing.run if self._standing else None
            return {name: text for name, text, _origin in run.parameters} if run else {}
        target = self._opened.graph.target
        return {a.name: a.shown for a in params.bind(target.entry, target.given)}

    @property
    def placed(self) -> bool:
        """Say whether the outputs were written into a folder, and not only into the store."""
        if self._opened is None:
            return True
        return self._opened.placement is not None or bool(self._opened.request.output)

    @property
    def outputs(self) -> dict[str, Output]:
        """Give what the run made, by path."""
        name = self.record.outputs if self.record else ""
        entries = (self._machine.tree_of(name) or ()) if name else ()
        return {
            e.path: Output(path=e.path, kind=e.kind, sha256=e.content, size=e.size) for e in entries
        }

    @property
    def exit_code(self) -> int | None:
        """Give the exit code of the command, None before it ended."""
        return self.record.exit_code if self.record else None

    def blob(self, name: str) -> bytes:
        """Give a blob that the record names, such as its log. Raises BlobMissing."""
        return self._machine.blobs.get(name)

    def run(self) -> SubmittedRun:
        """Run it here and now. Raises ReproError where the step could not be run."""
        try:
            self._answer()
        finally:
            self._machine.close()
        return self

    def start(self) -> SubmittedRun:
        """Run it in a thread of its own."""
        import threading

        self._thread = threading.Thread(target=self._work, name=f"repro-{self.run_id[:8]}")
        self._thread.start()
        return self

    def _work(self) -> None:
        try:
            self._answer()
        except BaseException as error:  # noqa: BLE001  (raised again by wait)
            asked = self._cancelled and isinstance(error, Interrupted)
            self._failure = None if asked else error
        finally:
            self._machine.close()

    def _answer(self) -> None:
        if self._cancelled:
            return
        if self._standing is not None:
            self.records = (self._recalled(self._standing),)
        elif self._prepared is not None:
            self.records = (answer(self._prepared, self._machine, self._emit),)
        elif self._opened is not None:
            from repro import running

            self.records = running.run(
                self._opened, self._course, self._machine, self._emit, self._machine.another
            )
        self.record = self.records[-1]

    def _recalled(self, found: Standing) -> RunRecord:
        """Record that there was nothing to do."""
        self._machine.history.spool(found.run)
        self._emit(
            Reused(
                step=found.run.entry_point,
                record=found.run,
                saved_ns=found.run.wall_ns,
                ended_ns=found.made_ns,
                restored=0,
                steps=found.steps,
            )
        )
        return found.run

    def _repr_html_(self) -> str:
        """Show the run in a notebook."""
        from repro.card import html

        return html(self)

    def __repr__(self) -> str:
        """Show id, entry point and status."""
        return f"<SubmittedRun {self.run_id[:8]} {self.name} {self.get_status()}>"

    @property
    def name(self) -> str:
        """Give the name of the entry point."""
        if self._opened is None:
            return self._standing.run.entry_point if self._standing else ""
        return self._opened.graph.target.entry.name


def answer(prepared: Prepared, machine: Machine, emit: Emit) -> RunRecord:
    """Answer with an earlier result, or execute the step and publish its result.

    A failed command is a record with the status FAILED, not an exception. Raises ReproError for
    everything that keeps the step from running.
    """
    found, reason = engine.answered(prepared, machine, emit)
    if found is not None:
        return found
    from repro import execution

    return execution.execute(prepared, reason, machine, emit)


def submit(
    request: Request,
    *,
    synchronous: bool = True,
    environ: Mapping[str, str] | None = None,
    emit: Emit = silent,
    course: Course = ONE_BY_ONE,
    login: Given | None = None,
) -> SubmittedRun:
    """Run a project, or start to. A failed command is in the status, not an exception.

    `login` is for a registry of images.
    """
    environ = os.environ if environ is None else environ
    submitted = SubmittedRun(request, environ, emit, course, login=login)
    return submitted.run() if synchronous else submitted.start()


def failure(submitted: SubmittedRun) -> ExecutionException:
    """Give the error for a run that did not succeed, with where to look."""
    run = submitted.record
    code = f" with exit code {run.exit_code}" if run and run.exit_code else ""
    cause = {"timeout": " after its time was over", "output": ""}.get(run.cause if run else "", "")
    reason = f": {run.error}" if run and run.error else code + cause
    return ExecutionException(
        f"Run (ID '{submitted.run_id}') failed{reason}",
        run=submitted,
        hints=[f"`repro show {submitted.run_id[:8]} --log` shows its output"],
    )


def backends(environ: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Name the places where steps can run: (name, who brings it, what it lacks here)."""
    from repro.backends import roster

    return roster.described(environ)


def compare(left: RunRecord, right: RunRecord, machine: Machine) -> Comparison:
    """Compare two runs. The key parts of a hit are those of the run whose result it reused."""
    from repro import comparison

    return comparison.compare(
        left,
        right,
        (_parts(left, machine), _parts(right, machine)),
        machine.tree_of,
        machine.locks.of_environment,
    )


def _parts(run: RunRecord, machine: Machine) -> Mapping[str, object]:
    if run.parts or not run.origin_run:
        return run.parts
    try:
        return machine.history.get(run.origin_run).parts
    except RunUnknown:
        result = machine.results.get(run.key)
        return result.parts if result is not None else {}


def inspect(request: Request, machine: Machine) -> tuple[str, Project, tuple[Problem, ...]]:
    """Decode a project with all that there is to say about its texts; give its name first.

    Those are its MLproject file and the environment files that this names. Raises ProjectInvalid
    only for an MLproject that cannot be read at all.
    """
    from repro import environmentfiles
    from repro.fetch.project import inspect as decode

    tree = machine.tree(request, lambda _text: None)
    decoded, _outside = decode(tree)
    paths = {entry.path for entry in tree.entries()}
    more = environmentfiles.problems(decoded.project, tree.read, paths)
    return tree.source.name, decoded.project, tuple(dict.fromkeys((*decoded.problems, *more)))


def outputs(run: RunRecord, machine: Machine, *, logged: bool = False) -> tuple[Entry, ...]:
    """Give what a run made, or what it logged through MLflow. Raises UsageError if it is gone."""
    name = run.artifacts if logged else run.outputs
    found = machine.tree_of(name) if name else ()
    if found is None:
        raise UsageError(
            f"the outputs of run {run.run_id[:8]} are not in the store any more",
            hints=["run it again to make them anew"],
        )
    return found


def restore(
    run: RunRecord, entries: tuple[Entry, ...], folder: str, machine: Machine
) -> tuple[str, ...]:
    """Write some outputs of a run into a folder; give the paths. Raises UsageError."""
    try:
        os.makedirs(folder, exist_ok=True)
        placed = machine.placement(folder).place(
            entries, run.entry_point, known={}, since_ns=machine.now_ns()
        )
    except BlobMissing as error:
        raise UsageError(
            f"an output of run {run.run_id[:8]} is not in the store any more: {error.message}",
            hints=["run it again to make it anew"],
        ) from None
    return (*placed.written, *placed.right)

"""The library behind every command: each function is one question or one job."""

from __future__ import annotations

import os

from repro import engine, record
from repro.errors import ExecutionException, Interrupted, ReproError, RunUnknown, UsageError
from repro.machine import Machine
from repro.store.blobs import BlobMissing
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from repro.engine import Prepared
    from repro.errors import Problem
    from repro.events import Emit, Event
    from repro.explain import Reason
    from repro.manifest import Entry
    from repro.plan import Request
    from repro.record import RunRecord
    from repro.spec import Project


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

    def __init__(self, request: Request, environ: Mapping[str, str], emit: Emit = silent) -> None:
        """Check everything that can be checked; nothing runs before `start` or `run`.

        Raises ReproError for whatever keeps the step from running.
        """
        self._machine = Machine(environ, emit)
        self._emit = emit
        self._thread: threading.Thread | None = None
        self._cancelled = False
        self._failure: BaseException | None = None
        self.run_id: str = request.run_id or os.urandom(16).hex()
        self.record: RunRecord | None = None
        try:
            if request.run_id:
                self._check_new(request.run_id)
            self._prepared: Prepared = engine.prepare(
                replace(request, run_id=self.run_id), self._machine, emit
            )
        except BaseException:
            self._machine.close()
            raise

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
            job = self._machine.jobs.get(self.run_id)
            if job is not None:
                job.cancel()
            self._thread.join(0.05)

    # -- ours

    @property
    def key(self) -> str:
        """Give the step key."""
        return self._prepared.key

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
        return {a.name: a.shown for a in self._prepared.arguments}

    @property
    def placed(self) -> bool:
        """Say whether the outputs were written into a folder, and not only into the store."""
        return self._prepared.placement is not None or bool(self._prepared.request.output)

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
        if not self._cancelled:
            self.record = answer(self._prepared, self._machine, self._emit)

    def _repr_html_(self) -> str:
        """Show the run in a notebook."""
        from repro.card import html

        return html(self)

    def __repr__(self) -> str:
        """Show id, entry point and status."""
        return f"<SubmittedRun {self.run_id[:8]} {self._prepared.name} {self.get_status()}>"

    @property
    def name(self) -> str:
        """Give the name of the entry point."""
        return self._prepared.name


def answer(prepared: Prepared, machine: Machine, emit: Emit) -> RunRecord:
    """Answer with an earlier result, or execute the step and publish its result.

    A failed command is a record with the status FAILED, not an exception. Raises ReproError for
    everything that keeps the step from running.
    """
    found = engine.look_up(prepared, machine)
    reason = found.reason
    if found.result is not None:
        try:
            return engine.reuse(prepared, found, machine, emit)
        except BlobMissing as error:
            reason = f"an output of the earlier result was lost: {error}"
    from repro import execution

    return execution.execute(prepared, reason, machine, emit)


def submit(
    request: Request,
    *,
    synchronous: bool = True,
    environ: Mapping[str, str] | None = None,
    emit: Emit = silent,
) -> SubmittedRun:
    """Run a project, or start to. A failed command is in the status, not an exception."""
    submitted = SubmittedRun(request, os.environ if environ is None else environ, emit)
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


class Explanation(Value):
    """What would happen to a step now, and why."""

    entry_point: str
    key: str
    hit: bool
    reused_run: str = ""
    summary: str = ""
    reasons: tuple[Reason, ...] = ()
    parts: Mapping[str, object] = {}


def foresee(request: Request, machine: Machine, emit: Emit = silent) -> Explanation:
    """Say whether a step would run now, and why, without running it."""
    from repro import execution

    prepared = engine.prepare(request, machine, emit)
    answer = engine.look_up(prepared, machine)
    prepared.tree.remember()
    if answer.result is not None:
        return Explanation(
            entry_point=prepared.name,
            key=prepared.key,
            hit=True,
            reused_run=answer.result.run_id,
            summary=f"its result is that of run {answer.result.run_id[:8]}",
            parts=answer.result.parts,
        )
    found = execution.reasons(prepared, machine)
    return Explanation(
        entry_point=prepared.name,
        key=prepared.key,
        hit=False,
        summary=answer.reason or execution.why(prepared, machine),
        reasons=found,
    )


class StepState(Value):
    """The state of one entry point: `fresh`, `stale`, or `unknown` where it cannot be told."""

    entry_point: str
    state: str
    reason: str
    last_run: str = ""
    last_ns: int = 0


def states(request: Request, machine: Machine, emit: Emit = silent) -> tuple[StepState, ...]:
    """Give the state of every entry point of a project, with the parameters of its last run."""
    tree = machine.tree(request, lambda _text: None)
    project = tree.project(lambda t: machine.load(t, emit))
    return tuple(
        _state(replace(request, entry_point=e.name), tree.source.project, machine)
        for e in project.entry_points
    )


def _state(request: Request, project: str, machine: Machine) -> StepState:
    runs = machine.history.find(project=project, entry_point=request.entry_point, limit=1)
    last = runs[0] if runs else None
    if last is None and not request.parameters:
        return StepState(entry_point=request.entry_point, state="stale", reason="never run")
    given = {n: t for n, t, origin in last.parameters if origin != "default"} if last else {}
    try:
        told = foresee(replace(request, parameters={**given, **request.parameters}), machine)
    except ReproError as error:
        state, reason = "unknown", error.message
    else:
        state, reason = ("fresh", "") if told.hit else ("stale", told.summary)
    return StepState(
        entry_point=request.entry_point,
        state=state,
        reason=reason,
        last_run=last.run_id if last else "",
        last_ns=last.started_ns if last else 0,
    )


def inspect(request: Request, machine: Machine) -> tuple[str, Project, tuple[Problem, ...]]:
    """Decode a project with all that there is to say about its text; give its name first.

    Raises ProjectInvalid only for a text that cannot be read at all.
    """
    from repro.fetch.project import inspect as decode

    tree = machine.tree(request, lambda _text: None)
    decoded, _outside = decode(tree)
    return tree.source.name, decoded.project, decoded.problems


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

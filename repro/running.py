"""The steps of one run, each reused or executed in its turn. What may start is the schedule's."""

from __future__ import annotations

import os

from repro import engine, plan, record, standing
from repro.errors import Interrupted, ReproError
from repro.events import Ended, Warned
from repro.record import RunRecord
from repro.schedule import Capacity, Schedule
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from repro.engine import Opened, Prepared
    from repro.events import Emit, Event
    from repro.graph import Node
    from repro.plan import Course
    from repro.source import Upstream
    from repro.world import Machine

    Another = Callable[[], Machine]

HERE = (plan.LOCAL, "docker")
"""Backends whose steps use this machine."""


def run(
    opened: Opened, course: Course, machine: Machine, emit: Emit, another: Another
) -> tuple[RunRecord, ...]:
    """Run all steps of a graph; give their records, that of the target last.

    `another` gives a machine for the use of one thread, to be closed by us. A step that failed is
    a record; a step that was not started because of that is none, but for the target. Raises
    ReproError where a step could not be run, after the others have ended.
    """
    return _Run(opened, course, machine, emit, another).go()


class _Run:
    """One run while it is under way."""

    def __init__(
        self, opened: Opened, course: Course, machine: Machine, emit: Emit, another: Another
    ) -> None:
        self.opened = opened
        self.machine = machine
        self.another = another
        self.started = machine.now_ns()
        self.schedule = Schedule(
            opened.graph, _capacity(opened, course, machine), keep_going=course.keep_going
        )
        self.again = opened.graph.after(course.again) if course.again else frozenset()
        self.threads = Threads(emit) if course.jobs > 1 else None
        self.idle: list[Machine] = []
        self.emit = self.threads.emit if self.threads else emit
        self.made: dict[str, Upstream] = {}
        self.records: dict[str, RunRecord] = {}
        self.failure: ReproError | None = None
        self.executed = False
        self.prepared: list[Prepared] = []

    def go(self) -> tuple[RunRecord, ...]:
        try:
            while not self.schedule.is_over:
                self._start_all()
                if self.threads and self.schedule.running:
                    self._ended(*self.threads.next())
        except BaseException:
            self._stop()
            raise
        finally:
            for machine in self.idle:
                machine.close()
            self._settle()
        if self.failure is not None:
            raise self.failure
        records = self._records()
        if not self.executed and not self.again:
            standing.keep(self.opened, self.prepared, records, self.machine)
        return records

    def _start_all(self) -> None:
        while (node := self.schedule.next()) is not None:
            if self.machine.cancelled:
                raise Interrupted("cancelled between two steps", signal=15)
            self._start(node)

    def _start(self, node: Node) -> None:
        """Reuse a result, or execute the step, here or in a thread."""
        try:
            prepared = self._prepared(node)
            found, reason = engine.answered(prepared, self.machine, self.emit)
        except ReproError as error:
            self._ended(node, error)
            return
        if found is not None:
            self._ended(node, found)
            return
        self.executed = True
        if self.threads is None:
            try:
                self._ended(node, _executed(prepared, reason, self.machine, self.emit))
            except Interrupted:
                raise
            except ReproError as error:
                self._ended(node, error)
            return
        self.threads.start(node, lambda: self._in_thread(prepared, reason))

    def _in_thread(self, prepared: Prepared, reason: str) -> RunRecord:
        try:
            machine = self.idle.pop()
        except IndexError:
            machine = self.another()
        try:
            return _executed(prepared, reason, machine, self.emit)
        finally:
            self.idle.append(machine)

    def _prepared(self, node: Node) -> Prepared:
        opened, request = self.opened, self.opened.request
        if node is not opened.graph.target:
            request = replace(
                request,
                entry_point=node.entry.name,
                parameters=node.given,
                run_id="",
                run_name="",
                parent_run=request.run_id,
                output="",
            )
        if node.id in self.again:
            request = replace(request, use_results=False)
        upstream = tuple(self.made[need] for need in node.needs)
        prepared = engine.prepare_node(
            replace(opened, request=request), node, upstream, self.machine, self.emit
        )
        prepared = replace(prepared, alone=False)
        if opened.request.output and node is not opened.graph.target:
            prepared = replace(prepared, placement=None)  # the folder asked for is the target's
        self.prepared.append(prepared)
        return prepared

    def _ended(self, node: Node, outcome: RunRecord | BaseException) -> None:
        """Take note of how a step ended."""
        if isinstance(outcome, ReproError) and not isinstance(outcome, Interrupted):
            if self.failure is None:
                self.failure = outcome
            else:
                self.emit(Warned(step=node.id, text=outcome.message))
            self.schedule.end(node.id, good=False)
            return
        if isinstance(outcome, BaseException):
            raise outcome
        self.records[node.id] = outcome
        good = outcome.status == record.FINISHED
        if good:
            outputs = self.machine.tree_of(outcome.outputs) or ()
            self.made[node.id] = engine.upstream_of(self.opened, node, outputs)
        self.schedule.end(node.id, good=good)

    def _stop(self) -> None:
        """End all that runs, and wait until nothing is left of it."""
        self.machine.cancelled = True
        if self.threads is not None:
            self.threads.stop(self.machine)

    def _settle(self) -> None:
        """Let the project's memory see what all the steps together have written."""
        self.opened.tree.remember()
        placement = self.opened.placement
        if placement is not None and self.executed and not self.opened.request.output:
            placement.settle()
            placement.remember()
            self.machine.rescan(self.opened.request)

    def _records(self) -> tuple[RunRecord, ...]:
        target = self.opened.graph.target
        if target.id not in self.records:
            self.records[target.id] = self._never_begun(target)
        return tuple(
            self.records[node.id] for node in self.opened.graph.nodes if node.id in self.records
        )

    def _never_begun(self, target: Node) -> RunRecord:
        """Record a target that was not started, since what it needs has failed or was ended."""
        failed = [
            node.id
            for node in self.opened.graph.nodes
            if node.id in self.records and self.records[node.id].status != record.FINISHED
        ]
        killed = self.machine.cancelled or self.records[failed[0]].status == record.KILLED
        verb = "was ended" if killed else "failed"
        found = _unstarted(
            self.opened,
            (self.started, self.machine.now_ns()),
            f"not started: the step `{failed[0]}`, which it needs, {verb}",
            record.KILLED if killed else record.FAILED,
        )
        self.machine.history.put(found)
        self.emit(Ended(step=target.id, record=found, outputs=0, bytes=0))
        return found


def _capacity(opened: Opened, course: Course, machine: Machine) -> Capacity:
    """Give what the steps of a run may use at the same time."""
    if course.jobs <= 1:
        return Capacity()
    from repro.system import capacity

    asked = opened.request
    elsewhere = (n.id for n in opened.graph.nodes if plan.backend(asked, n.entry, None) not in HERE)
    return Capacity(
        jobs=course.jobs,
        cpus=capacity.processors(),
        memory=capacity.memory(),
        gpus=capacity.accelerators(machine.environ),
        elsewhere=frozenset(elsewhere),
    )


def _executed(prepared: Prepared, reason: str, machine: Machine, emit: Emit) -> RunRecord:
    from repro import execution

    return execution.execute(prepared, reason, machine, emit)


class Threads:
    """Work in threads, whose outcomes are taken one by one."""

    def __init__(self, emit: Emit) -> None:
        """Start nothing yet. `emit` is called by one thread at a time."""
        import queue
        import threading

        self._emit = emit
        self._lock = threading.Lock()
        self._thread = threading.Thread
        self._ended: queue.SimpleQueue[tuple[Node, RunRecord | BaseException]]
        self._ended = queue.SimpleQueue()
        self._alive: dict[str, threading.Thread] = {}

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        with self._lock:
            self._emit(event)

    def start(self, node: Node, work: Callable[[], RunRecord]) -> None:
        """Begin to work on a step."""

        def body() -> None:
            try:
                outcome: RunRecord | BaseException = work()
            except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
                outcome = error
            self._ended.put((node, outcome))

        thread = self._thread(target=body, name=f"repro-{node.id}", daemon=True)
        self._alive[node.id] = thread
        thread.start()

    def next(self) -> tuple[Node, RunRecord | BaseException]:
        """Wait until some work has ended; give what came of it."""
        node, outcome = self._ended.get()
        self._alive.pop(node.id).join()
        return node, outcome

    def stop(self, machine: Machine) -> None:
        """End all work: its jobs are cancelled until every thread has come to its end."""
        while self._alive:
            machine.cancel_jobs()
            for name, thread in list(self._alive.items()):
                thread.join(0.05)
                if not thread.is_alive():
                    del self._alive[name]


def _unstarted(opened: Opened, times: tuple[int, int], error: str, status: str) -> RunRecord:
    """Give the record of a target that was never started; `times` are those of the whole run."""
    request, found = opened.request, opened.source
    return RunRecord(
        run_id=request.run_id or os.urandom(16).hex(),
        status=status,
        **engine.origin(found),
        entry_point=opened.graph.target.entry.name,
        started_ns=times[0],
        ended_ns=times[1],
        cause="needs",
        error=error,
        run_name=request.run_name,
        experiment=request.experiment_name,
        parent_run=request.parent_run,
    )

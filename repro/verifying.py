"""Verification: a run made again, and again under other conditions, and what came of it."""

from __future__ import annotations

import os

from repro import execution, metrics, provenance, record
from repro import manifest as trees
from repro.conditions import VARIATIONS, Conditions
from repro.events import Event, Progress
from repro.repeating import Verifier, rebuild
from repro.store.blobs import BlobMissing
from repro.store.verdicts import Verdicts
from repro.system import files, surroundings
from repro.value import Value, replace
from repro.varying import CannotVary, Means, means, still
from repro.verification import verdict as judging
from repro.verification.causes import Traces
from repro.verification.verdict import (
    CHANGED,
    DIFFERENT,
    FAILED,
    SAME,
    SKIPPED,
    Compared,
    Made,
    Trial,
    Verdict,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.engine import Prepared
    from repro.events import Emit
    from repro.manifest import Entry
    from repro.record import RunRecord

SECOND = 1_000_000_000
HELPERS = ("unshare:", "taskset:", "hostname:", "bwrap:", "repro: no sandbox:")
"""How a line begins that a program of ours writes, and not the step."""
SETTLED = "it is the same as long as the clock stands still"


class Tried(Event):
    """One execution for a verification has ended and was compared."""

    trial: Trial


class Done(Value):
    """One execution: its record, what it made, and by what means it was other."""

    run: RunRecord
    made: Made
    means: Means

    @property
    def good(self) -> bool:
        """Say whether it came to its end."""
        return self.run.status == record.FINISHED


def verify(
    run: RunRecord, machine: Verifier, emit: Emit, *, times: int = 1, vary: tuple[str, ...] = ()
) -> Verdict:
    """Execute the step of a run `times` again, and under the variations `vary`; keep the verdict.

    `run` is one with a result, as `repeating.of_run` gives it. Nothing is published or written
    into a project. With variations it is executed twice at least, since what differs by itself
    can be blamed on none. Raises UsageError where the step cannot be prepared as it was, or its
    result is not in the store any more, and whatever keeps a step from running.
    """
    prepared = rebuild(run, machine, emit)
    request = replace(prepared.request, keep_result=False)
    prepared = replace(prepared, request=request, placement=None, verifies=run.run_id)
    found = _Verification(run, prepared, machine, emit).go(times, vary)
    Verdicts(machine.history.root).put(found)
    return found


class _Verification:
    """One verification while it is under way."""

    def __init__(self, run: RunRecord, prepared: Prepared, machine: Verifier, emit: Emit) -> None:
        self.run = run
        self.prepared = prepared
        self.machine = machine
        self.emit = emit
        self.reference = self._reference()
        self.base = Means()
        self.unstable: tuple[str, ...] = ()
        self.repetitions: list[Trial] = []
        self.variations: list[Trial] = []

    def _reference(self) -> Made:
        from repro import api

        run = self.run
        outputs = api.outputs(run, self.machine)
        return Made(
            outputs=outputs,
            logged=api.outputs(run, self.machine, logged=True),
            metrics=self._metrics(run.metrics, outputs),
            traces=Traces(
                run_id=run.run_id,
                host=os.uname().nodename,
                span=(run.started_ns / SECOND, run.ended_ns / SECOND),
            ),
        )

    def go(self, times: int, vary: tuple[str, ...]) -> Verdict:
        if vary:
            base = os.path.join(self.machine.home.scratch(), "verification")
            self.base = Means(conditions=Conditions(base=base))
            times = max(times, 2)
        done = [self._repeated(number, times) for number in range(1, times + 1)]
        if vary and all(one.good for one in done):
            self._vary(done, vary)
        return self._verdict()

    def _verdict(self) -> Verdict:
        source, run = self.prepared.source, self.run
        where = f"commit {source.commit[:12]}" if source.commit else "the archive"
        kind = run.environment_kind
        how = "the caller's own" if kind == "local" else f"{kind}, made anew"
        made = self.reference
        attested, faults = self._attestation()
        return Verdict(
            key=run.key,
            run_id=run.run_id,
            project=run.project,
            entry_point=run.entry_point,
            at_ns=self.machine.now_ns(),
            compared=len(made.outputs) + len(made.logged) + len(made.metrics),
            repetitions=tuple(self.repetitions),
            variations=tuple(self.variations),
            unstable=self.unstable,
            source="the folder as it is" if source.root else where,
            environment=f"{how} ({run.environment[:12]})",
            attested=attested,
            faults=faults,
        )

    def _attestation(self) -> tuple[bool, tuple[str, ...]]:
        """Say whether there is an attestation of the result, and what is wrong with it."""
        result = self.machine.results.get(self.run.key)
        if result is None or not result.provenance or result.run_id != self.run.run_id:
            return False, ()
        try:
            statement = self.machine.blobs.get(result.provenance)
        except BlobMissing:
            return False, ()
        return True, provenance.faults(statement, self.run.key, self.reference.outputs)

    # -- the same again

    def _repeated(self, number: int, times: int) -> Done:
        of = f", {number} of {times}" if times > 1 else ""
        done = self._execute(f"running it again{of}", self.base)
        found = self._compare(self.reference, done.made) if done.good else ()
        state = judging.state_of(found) if done.good else FAILED
        trial = Trial(
            state=state,
            why="" if done.good else _failure(done.run),
            run_id=done.run.run_id,
            wall_ns=done.run.wall_ns,
            outputs=found,
        )
        self.repetitions.append(trial)
        self.emit(Tried(step=self.prepared.name, trial=trial))
        return done

    # -- under other conditions

    def _vary(self, done: list[Done], vary: tuple[str, ...]) -> None:
        """Change one condition at a time, and compare with an execution without the change.

        What differs between two executions under the same conditions can be blamed on no other
        condition. The clock comes first: it is never the same, so that all others are changed
        while it stands still, if the result depends on it.
        """
        control = done[0]
        self.unstable = self._differing(self._compare(control.made, o.made) for o in done[1:])
        if "clock" in vary:
            control = self._vary_clock(control)
        for name in vary:
            if name != "clock":
                self._vary_one(name, control)

    def _vary_clock(self, control: Done) -> Done:
        """Move the clock; give what the other conditions are to be compared with."""
        try:
            done = self._tried("clock", means("clock", self.base, self.prepared))
        except CannotVary as cannot:
            self._tell(Trial(name="clock", state=SKIPPED, why=str(cannot)))
            return control
        trial = self._judged("clock", control, done)
        depends = {one.path for one in trial.outputs} | set(self.unstable)
        held = self._held() if depends else None
        if held is None:
            self._tell(trial)
            return control
        unstable = self._differing([self._compare(held[0].made, held[1].made)])
        found = self._compare(control.made, done.made) if done.good else ()
        settled = tuple(
            replace(one, causes=("time",))
            for one in found
            if one.path in depends - set(unstable) and one.state == DIFFERENT
        )
        if not settled:
            self._tell(trial)
            return control
        self._tell(replace(trial, state=CHANGED, why=SETTLED, outputs=settled))
        self.unstable = unstable
        self.base = held[0].means
        return held[0]

    def _held(self) -> tuple[Done, Done] | None:
        """Execute twice while the clock stands still; None where that cannot be done."""
        try:
            ways = still(self.base, self.prepared)
        except CannotVary:
            return None
        for way in ways:
            first = self._execute("with the clock standing still", way)
            if first.good:
                second = self._execute("with the clock standing still, again", way)
                return (first, second) if second.good else None
        return None

    def _vary_one(self, name: str, control: Done) -> None:
        if self._is_hopeless():
            why = "everything is different each time anyway"
            self._tell(Trial(name=name, state=SKIPPED, why=why))
            return
        try:
            if name == "fileorder":
                trial = self._vary_order(control)
            else:
                ways = means(name, self.base, self.prepared)
                trial = self._judged(name, control, self._tried(name, ways))
        except CannotVary as cannot:
            trial = Trial(name=name, state=SKIPPED, why=str(cannot))
        self._tell(trial)

    def _tried(self, name: str, ways: tuple[Means, ...]) -> Done:
        """Execute in the first way in which the step comes to its end."""
        for way in ways:
            done = self._execute(f"changing {VARIATIONS[name]}", way)
            if done.good:
                break
        return done

    def _vary_order(self, control: Done) -> Trial:
        """Make the files of the step in another order, on a file system that shows it."""
        scratch = self.machine.home.scratch()
        size = sum(entry.size for entry in (*self.reference.outputs, *self._inputs()))
        folder = surroundings.ordered(scratch, size)
        if not folder:
            raise CannotVary("no file system here lists files in the order they were made in")
        try:
            base = self.base
            if not folder.startswith(scratch):
                # another file system, so that there is another execution to compare with
                place = os.path.join(folder, "verification")
                base = replace(base, conditions=replace(base.conditions, base=place))
                control = self._execute("where files are listed in the order made", base)
                if not control.good:
                    raise CannotVary(f"the step does not run in `{folder}`")
            done = self._tried("fileorder", means("fileorder", base, self.prepared))
            return self._judged("fileorder", control, done)
        finally:
            files.remove_tree(folder)

    def _judged(self, name: str, control: Done, done: Done) -> Trial:
        """Compare an execution under another condition with one without that."""
        trial = Trial(name=name, state=SAME, run_id=done.run.run_id, wall_ns=done.run.wall_ns)
        if not done.good:
            why = self._own_fault(done.run)
            if why or name == "clock":
                why = why or "the step does not run under `faketime`"
                return replace(trial, state=SKIPPED, why=why)
            return replace(trial, state=FAILED, why=_failure(done.run))
        found = self._blamed(control, done)
        if found and name != "clock":
            # what changes now and then has perhaps done so just now
            again = self._execute("changing nothing, to be sure", control.means)
            if again.good:
                drifted = self._differing([self._compare(control.made, again.made)])
                self.unstable = tuple(sorted({*self.unstable, *drifted}))
                found = self._blamed(control, done)
        return replace(trial, state=CHANGED, outputs=found) if found else trial

    def _blamed(self, control: Done, done: Done) -> tuple[Compared, ...]:
        return tuple(
            replace(one, causes=())  # it is known
            for one in self._compare(control.made, done.made)
            if one.state == DIFFERENT and one.path not in self.unstable
        )

    def _own_fault(self, run: RunRecord) -> str:
        """Give what a program of ours complained about, if the step failed by that."""
        from repro.runlog import text_of

        try:
            text = text_of(self.machine.blobs.get(run.log), "stderr").decode("utf-8", "replace")
        except BlobMissing:
            return ""
        return next((line for line in text.splitlines()[:2] if line.startswith(HELPERS)), "")

    def _tell(self, trial: Trial) -> None:
        self.variations.append(trial)
        self.emit(Tried(step=self.prepared.name, trial=trial))

    def _is_hopeless(self) -> bool:
        made = self.reference
        names = {e.path for e in (*made.outputs, *made.logged)} | set(made.metrics)
        return bool(names) and names <= set(self.unstable)

    # -- one execution

    def _execute(self, words: str, way: Means) -> Done:
        self.emit(Progress(step=self.prepared.name, text=words))
        before = surroundings.newest_process()
        prepared = replace(
            self.prepared,
            conditions=way.conditions,
            request=replace(self.prepared.request, run_id="", run_name="", parent_run=""),
        )
        reason = f"verification of run {self.run.run_id[:8]}: {words}"
        done = execution.repeat(prepared, reason, self.machine, self.emit)
        outputs = self.machine.tree_of(done.outputs) or ()
        traces = self._traces(done, way, (before, surroundings.newest_process()))
        made = Made(
            outputs=outputs,
            logged=self.machine.tree_of(done.artifacts) or () if done.artifacts else (),
            metrics=self._metrics(done.metrics, outputs),
            traces=traces,
        )
        return Done(run=done, made=made, means=way)

    def _traces(self, run: RunRecord, way: Means, processes: tuple[int, int]) -> Traces:
        import pwd

        room = way.conditions.room(self.machine.home.scratch(), run.run_id)
        user = os.getuid()
        try:
            users: tuple[str, ...] = (pwd.getpwuid(user).pw_name, str(user))
        except KeyError:
            users = (str(user),)
        span = (run.started_ns / SECOND + way.shift, run.ended_ns / SECOND + way.shift)
        return Traces(
            run_id=run.run_id,
            places=(room.work, room.home, room.temporary, room.base),
            host=way.host or os.uname().nodename,
            users=way.users or users,
            span=(way.instant, way.instant) if way.instant else span,
            processes=processes,
        )

    def _metrics(self, known: Mapping[str, str], outputs: tuple[Entry, ...]) -> dict[str, str]:
        """Give the metrics that were logged: those in outputs are compared with the outputs."""
        is_metric = trees.matcher(self.prepared.entry.metrics)
        inside: set[str] = set()
        for entry in outputs if self.prepared.entry.metrics else ():
            data = self._read(entry.content) if is_metric(entry.path) else None
            try:
                inside |= {row[0] for row in metrics.of_file(entry.path, data or b"")}
            except ValueError:
                continue
        return {name: text for name, text in known.items() if name not in inside}

    def _inputs(self) -> tuple[Entry, ...]:
        return self.machine.tree_of(self.prepared.step.inputs) or ()

    def _compare(self, then: Made, now: Made) -> tuple[Compared, ...]:
        return judging.compare(then, now, self.prepared.entry.compare, self._read)

    def _differing(self, found: Iterable[tuple[Compared, ...]]) -> tuple[str, ...]:
        paths = {one.path for some in found for one in some if one.state == DIFFERENT}
        return tuple(sorted(paths))

    def _read(self, name: str) -> bytes | None:
        try:
            return self.machine.blobs.get(name)
        except (BlobMissing, ValueError):
            return None


def _failure(run: RunRecord) -> str:
    if run.error:
        return run.error
    return f"it {'was ended' if run.cause != 'exit' else 'failed'} with exit code {run.exit_code}"

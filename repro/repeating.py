"""A run of the past, prepared to be executed once more under the key that it had."""

from __future__ import annotations

import os

from repro import engine, execution, explain, manifest, plan, record, step
from repro.errors import ReproError, RunUnknown, UsageError
from repro.machine import Machine, NoTracking
from repro.plan import Request
from repro.source import Upstream
from repro.supply import Supply
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from repro.engine import Opened, Prepared
    from repro.events import Emit
    from repro.graph import Node
    from repro.lock import EnvironmentLock
    from repro.locking import Wanted
    from repro.manifest import Entry
    from repro.ports import Progress, Realized, Tracking, Tree
    from repro.record import RunRecord
    from repro.spec import EntryPoint

MANAGERS = {"local": "local", "python": "virtualenv"}


class Recalling(Machine):
    """A machine on which locks are taken as they were recorded, and no lock file is written."""

    def __init__(self, environ: Mapping[str, str], emit: Emit | None = None) -> None:
        """Open the store that `environ` names."""
        super().__init__(environ, emit)
        self.supply.looks_only = True
        self.recorded: EnvironmentLock | None = None

    def lock(
        self, wanted: Wanted | None, tree: Tree, progress: Progress, how: str = ""
    ) -> EnvironmentLock:
        """Give the recorded lock where there is one; the caller's own environment as it is."""
        if wanted is not None and self.recorded is not None:
            return self.recorded
        return super().lock(wanted, tree, progress, how)


class Verifier(Recalling):
    """A machine on which environments are made anew and nothing is shown on a server."""

    def __init__(self, environ: Mapping[str, str], emit: Emit | None = None) -> None:
        """Open the store that `environ` names."""
        super().__init__(environ, emit)
        self._apart: dict[str, Supply] = {}

    @property
    def tracking(self) -> Tracking:
        """Give what stands for no server: an execution to be compared is no result."""
        return NoTracking()

    def realize(
        self, lock: EnvironmentLock, tree: Tree, progress: Progress, brought: str = "files"
    ) -> Realized:
        """Make an environment that nobody has used, for the time of this process."""
        if lock.digest not in self._apart:
            from repro.environments import anew

            folder = os.path.join(self.home.scratch(), "anew")
            home = anew.store(self.home, folder, lock)
            self._apart[lock.digest] = Supply(home, self.locks, self.environ, looks_only=False)
        return self._apart[lock.digest].realize(lock, tree, progress, brought)


# -- which run


def of_run(prefix: str, machine: Machine) -> RunRecord:
    """Give the run whose result stands behind a run: itself, or the one that it reused.

    Raises RunUnknown, and UsageError for a run without a result.
    """
    run = machine.history.get(prefix)
    other = run.verifies or run.origin_run
    if other and other != run.run_id:
        try:
            run = machine.history.get(other)
        except RunUnknown:
            pass  # it was made elsewhere: what was reused is known nevertheless
    if run.status != record.FINISHED:
        raise UsageError(
            f"run {run.run_id[:8]} is {run.status.lower()}: there is no result to verify",
            hints=["`repro log` lists runs; those that are `ok` have a result"],
        )
    return run


def of_step(request: Request, machine: Machine) -> RunRecord:
    """Give the run that made the latest result of a step. Raises UsageError if there is none.

    Parameters of the request choose among results.
    """
    project = machine.tree(request, lambda _text: None).source.project
    wanted = {str(name): str(text) for name, text in request.parameters.items()}
    for run in machine.history.find(
        project=project, entry_point=request.entry_point, status=record.FINISHED
    ):
        known = {name: text for name, text, _origin in run.parameters}
        if wanted.items() <= known.items():
            return of_run(run.run_id, machine)
    given = " with these parameters" if wanted else ""
    raise UsageError(
        f"no run of `{request.entry_point}` in this project has a result{given}",
        hints=[f"`repro run -e {request.entry_point}` makes one", "`repro log` lists runs"],
    )


def parts_of(run: RunRecord, machine: Machine) -> Mapping[str, Any]:
    """Give the parts of a run's key. Raises UsageError where they are not known any more."""
    if run.parts:
        return run.parts
    result = machine.results.get(run.key)
    if result is None:
        raise UsageError(
            f"what went into run {run.run_id[:8]} is not known any more",
            hints=["the run whose result it reused is not in the history, nor the result"],
        )
    return result.parts


# -- the same step once more


def rebuild(run: RunRecord, machine: Recalling, emit: Emit) -> Prepared:
    """Prepare the step of a run again: from its commit, else from the folder as it is.

    Its outputs go where those of the run went, or would have.

    Raises UsageError that says what differs where neither gives the key of the run, and whatever
    keeps a step from being prepared.
    """
    parts = parts_of(run, machine)
    nearest: Prepared | None = None
    problem: ReproError | None = None
    for request in _requests(run, parts):
        try:
            prepared = _Rebuilding(run, parts, machine, emit).prepared(request)
        except ReproError as error:
            problem = problem or error
            continue
        if prepared.key == run.key:
            return prepared
        nearest = nearest or prepared
    if nearest is not None:
        raise _other(run, parts, nearest, machine)
    assert problem is not None  # noqa: S101  (there is one request at least)
    raise problem


def _requests(run: RunRecord, parts: Mapping[str, Any]) -> Iterator[Request]:
    """Give where the source of a run may be found, the surest first."""
    request = Request(
        uri=run.project,
        entry_point=run.entry_point,
        env_manager=MANAGERS.get(run.environment_kind, ""),
        backend=run.backend if run.backend in plan.BACKENDS else plan.LOCAL,
        container=dict(parts.get("container", {})),
        caller=os.getcwd(),
    )
    is_folder = os.path.isabs(run.project) and os.path.isdir(run.project)
    if run.commit and not (run.dirty and is_folder):
        yield replace(request, version=run.commit)
    if is_folder or not run.commit:
        yield request


class _Rebuilding:
    """One attempt to prepare a step as it was."""

    def __init__(
        self, run: RunRecord, parts: Mapping[str, Any], machine: Recalling, emit: Emit
    ) -> None:
        self.run = run
        self.parts = parts
        self.machine = machine
        self.emit = emit

    def prepared(self, request: Request) -> Prepared:
        machine, run = self.machine, self.run
        request = replace(request, parameters=self._given(request))
        opened = engine.open_project(request, machine, self.emit)
        if opened.placement is None and os.path.isdir(run.project):
            # what the step left in the folder is no input, also where it was committed
            opened = replace(opened, placement=machine.placement(run.project))
        node = opened.graph.target
        machine.recorded = None
        upstream = self._upstream(opened, node)
        if run.environment_kind != "local":
            machine.recorded = machine.locks.of_environment(run.environment)
        return engine.prepare_node(opened, node, upstream, machine, self.emit)

    def _given(self, request: Request) -> dict[str, str]:
        """Give the parameters by their texts; secrets come from the environment."""
        machine = self.machine
        tree = machine.tree(request, lambda _text: None)
        project = tree.project(lambda t: machine.load(t, self.emit))
        shell = machine.environ.get("SHELL", "")
        entry = plan.entry_point(project, request.entry_point, shell)
        secrets = {p.name for p in entry.parameters if p.secret}
        return {
            name: self._secret(name, entry) if name in secrets else text
            for name, text, origin in self.run.parameters
            if origin != "default"
        }

    def _secret(self, name: str, entry: EntryPoint) -> str:
        variable = "".join(c if c.isalnum() else "_" for c in name)
        for one in (variable, variable.upper()):
            if one in self.machine.environ:
                return self.machine.environ[one]
        raise UsageError(
            f"`{entry.name}` got the secret parameter `{name}`, whose value is kept nowhere",
            hints=[f"set it, for example with `read -rs {variable}; export {variable}`"],
        )

    # -- what comes from other steps

    def _upstream(self, opened: Opened, node: Node) -> tuple[Upstream, ...]:
        if not node.needs:
            return ()
        recorded = self.machine.tree_of(str(self.parts.get("inputs", "")))
        found = None if recorded is None else self._recorded(opened, node, recorded)
        return self._made_again(opened, node) if found is None else found

    def _recorded(
        self, opened: Opened, node: Node, recorded: tuple[Entry, ...]
    ) -> tuple[Upstream, ...] | None:
        """Take what other steps made from the recorded inputs; None where some of it is gone."""
        before = [opened.graph.node(need).entry for need in node.needs]
        patterns = tuple(pattern for entry in before for pattern in entry.outputs or ())
        is_made = manifest.matcher(patterns)
        tree = {entry.path: entry for entry in opened.tree.entries()}
        taken = tuple(e for e in recorded if is_made(e.path) or tree.get(e.path) != e)
        blobs = self.machine.blobs
        if not all(blobs.has(e.content) for e in taken if e.kind in ("file", "exec")):
            return None
        made = opened.placement.made_by(*(e.name for e in before)) if opened.placement else {}
        return (Upstream(outputs=taken, patterns=patterns, made=tuple(made.items())),)

    def _made_again(self, opened: Opened, node: Node) -> tuple[Upstream, ...]:
        """Look up what other steps made, or run them."""
        made: dict[str, Upstream] = {}
        for one in opened.graph.nodes[:-1]:
            request = replace(
                opened.request, entry_point=one.entry.name, parameters=one.given, use_results=True
            )
            prepared = engine.prepare_node(
                replace(opened, request=request),
                one,
                tuple(made[need] for need in one.needs),
                self.machine,
                self.emit,
            )
            made[one.id] = engine.upstream_of(opened, one, self._outputs(prepared))
        return tuple(made[need] for need in node.needs)

    def _outputs(self, prepared: Prepared) -> tuple[Entry, ...]:
        answer = engine.look_up(prepared, self.machine)
        if answer.result is not None:
            return answer.outputs
        apart = replace(prepared, placement=None, verifies=self.run.run_id)
        reason = f"needed for the verification of run {self.run.run_id[:8]}"
        done = execution.repeat(apart, reason, self.machine, self.emit)
        if done.status != record.FINISHED:
            raise UsageError(
                f"the step `{prepared.name}`, which `{self.run.entry_point}` needs, failed",
                hints=[f"`repro show {done.run_id[:8]} --log` shows its output"],
            )
        return self.machine.tree_of(done.outputs) or ()


def _other(
    run: RunRecord, parts: Mapping[str, Any], nearest: Prepared, machine: Machine
) -> UsageError:
    """Say why what can be prepared now is not the step that ran."""

    def tree(name: str) -> tuple[Entry, ...] | None:
        is_new = name == nearest.step.inputs  # and nothing of it is in the store
        return engine.inputs_of(nearest) if is_new else machine.tree_of(name)

    found = explain.reasons(parts, step.parts(nearest.step), tree, machine.locks.of_environment)
    said = explain.summary(found) or "it was made by another version of repro"
    hints = [str(reason) for reason in found[explain.SHOWN :][:5]]
    if run.dirty:
        hints.append(
            "it ran with changes that are in no commit; "
            f"`repro show {run.run_id[:8]} --patch` shows those to known files"
        )
    hints.append("`repro run` makes the result of the project as it is now")
    return UsageError(f"run {run.run_id[:8]} cannot be made again: {said}", hints=hints)

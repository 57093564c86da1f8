"""From a request to an answer: the key, the look-up, and the reuse of an earlier result.

This is the path of a cache hit, and the first half of every run. What is only needed to execute
a step is in `execution`, which is imported when a step has to run.
"""

from __future__ import annotations

import os

from repro import digest, graph, manifest, metrics, params, plan, record, source, standins, step
from repro.events import Progress, Reused, Warned
from repro.locking import Wanted
from repro.record import RunRecord
from repro.spec import Mount
from repro.store.blobs import BlobMissing
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.conditions import Conditions
    from repro.events import Emit
    from repro.graph import Graph, Node
    from repro.lock import EnvironmentLock
    from repro.manifest import Entry
    from repro.params import Argument, Template
    from repro.plan import Request
    from repro.ports import Tree
    from repro.source import Selection, Source, Upstream
    from repro.spec import EntryPoint, Environment, Project
    from repro.step import Step
    from repro.store.placement import Placement
    from repro.store.results import Result
    from repro.world import Machine


class Opened(Value):
    """A project with the steps of one run, before anything is known of their keys.

    `before` is what every step sees beside the project, as if it had been made by others, and
    `aside` what is not there for steps that name no inputs.
    """

    request: Request
    tree: Tree
    source: Source
    project: Project
    placement: Placement | None
    graph: Graph
    before: tuple[Upstream, ...] = ()
    aside: tuple[Upstream, ...] = ()


class Prepared(Value):
    """A step that is ready to be looked up or run, with all that its key is made of.

    `sandbox` is the level that is insisted on, empty for the best that there is. `alone` is false
    for one of several steps of a run, after which the project is looked at once.
    `host_paths` are (path, identity) of files outside of the tree that are in the key, to be
    looked at again after the step. `backend` is where it runs, `volumes` are those of its image.
    `verifies` is the run that is to be made again, under the `conditions`.
    """

    request: Request
    tree: Tree
    source: Source
    entry: EntryPoint
    arguments: tuple[Argument, ...]
    template: Template
    lock: EnvironmentLock
    chosen: Selection
    placement: Placement | None
    step: Step
    key: str
    name: str
    host_paths: tuple[tuple[str, str], ...] = ()
    backend: str = "local"
    volumes: tuple[tuple[str, str, str], ...] = ()
    sandbox: str = ""
    alone: bool = True
    verifies: str = ""
    conditions: Conditions | None = None

    @property
    def command(self) -> str:
        """Give the command as the shell gets it; secrets are variables. Raises ParameterInvalid."""
        return params.expand(self.template, self.arguments)


def open_tree(request: Request, machine: Machine, emit: Emit) -> Tree:
    """Fetch the project of a request."""
    return machine.tree(request, lambda text: emit(Progress(step=request.entry_point, text=text)))


def open_project(
    request: Request, machine: Machine, emit: Emit, tree: Tree | None = None
) -> Opened:
    """Decode a project, and find the steps that a request asks for, in their order.

    `tree` is what was fetched, if it was. Raises a ReproError for whatever keeps any of them from
    running, as far as that can be known before one has run.
    """
    tree = tree or open_tree(request, machine, emit)
    project = tree.project(lambda t: machine.load(t, emit))
    request, ignored = plan.heeded(request, project)
    for text in ignored:
        emit(Warned(step=request.entry_point, text=text))
    shell = machine.environ.get("SHELL", "")
    steps = graph.of(project, request.entry_point, request.parameters, shell)
    root = tree.source.root
    placement = machine.placement(root) if root else None
    opened = Opened(
        request=request,
        tree=tree,
        source=tree.source,
        project=project,
        placement=placement,
        graph=steps,
        aside=_aside(placement, steps.nodes),
    )
    for name in plan.foreign(request, [node.entry for node in steps.nodes]):
        machine.backend(name, config=plan.settings(request, name))  # raises if there is none
    if len(steps.nodes) > 1:
        there = {entry.path for entry in tree.entries()}
        for node in steps.nodes:
            _check(opened, node, machine)
            _check_inputs(opened, node, there)
    return opened


def _check(opened: Opened, node: Node, machine: Machine) -> None:
    """Raise what keeps a step from running that can be told before the others have run."""
    plan.check(opened.request, opened.project, node.entry)
    plan.environment(opened.project, node.entry, opened.request.env_manager)
    plan.variables(node.entry, machine.environ)
    params.expand(params.parse(node.entry.command), params.bind(node.entry, node.given))


def _check_inputs(opened: Opened, node: Node, there: set[str]) -> None:
    """Raise SourceUnusable for an input that is not in the tree and that no step before makes."""
    before = [opened.graph.node(name).entry for name in node.needs]
    if any(entry.outputs is None for entry in before):
        return  # what they make is known only afterwards
    for pattern in graph.unmade(before, node.entry.inputs or ()):
        if pattern not in there:
            opened.tree.selected(source.Selection(inputs=(pattern,)), node.id)


def prepare(request: Request, machine: Machine, emit: Emit) -> Prepared:
    """Prepare the one step of a request that needs no other; see `prepare_node`."""
    opened = open_project(request, machine, emit)
    return prepare_node(opened, opened.graph.target, (), machine, emit)


def prepare_node(
    opened: Opened, node: Node, upstream: tuple[Upstream, ...], machine: Machine, emit: Emit
) -> Prepared:
    """Find out everything about a step, up to its key, without running or recording anything.

    `upstream` is what the steps that it needs have made. Raises a ReproError for whatever keeps
    the step from running: all that can be checked is checked here.
    """

    def progress(text: str) -> None:
        emit(Progress(step=node.id, text=text))

    project, tree, placement = opened.project, opened.tree, opened.placement
    request, entry = opened.request, plan.on_spark(project, node.entry)
    plan.check(request, project, entry)
    machine.check_container(request.container)
    wanted = plan.environment(project, entry, request.env_manager)
    bound = params.bind(entry, node.given)
    template = params.parse(entry.command)
    variables, unset = plan.variables(entry, machine.environ)
    variables = {**plan.environment_variables(wanted, machine.environ), **variables}
    arguments, host_paths = _identified(bound, request, machine, progress)
    volumes = plan.volumes(wanted)
    mounts, mounted = _mounts((*entry.mounts, *_mounted(volumes)), request, machine, progress)
    params.expand(template, arguments)
    made = _made(project, entry, placement) if placement else {}
    others = (*opened.before, *upstream, *(opened.aside if entry.inputs is None else ()))
    chosen = source.selection(entry, made, project.lockfiles, others)
    inputs = tree.inputs(chosen, node.id)
    lock = machine.lock(_wanted(wanted, entry, project), tree, progress, request.locking)
    one = step.Step(
        entry_point=entry.name,
        command=entry.command,
        arguments=arguments,
        inputs=inputs,
        environment=lock.digest,
        platform=machine.platform,
        variables=variables,
        unset=unset,
        secrets=tuple(sorted(entry.secrets)),
        outputs=entry.outputs,
        metrics=entry.metrics,
        mounts=mounts,
        container=request.container,
        network=entry.network,
        shell=entry.shell,
    )
    return Prepared(
        request=request,
        tree=tree,
        source=opened.source,
        entry=entry,
        arguments=arguments,
        template=template,
        lock=lock,
        chosen=chosen,
        placement=placement,
        step=one,
        key=step.key_of(one),
        name=node.id,
        host_paths=(*host_paths, *mounted),
        backend=plan.backend(request, entry, wanted),
        volumes=volumes,
        sandbox=_sandbox(request, entry, wanted, machine),
    )


def _sandbox(
    request: Request, entry: EntryPoint, wanted: Environment | None, machine: Machine
) -> str:
    """Give the level that is insisted on. Raises Unsupported for one that is not to be had."""
    asked = machine.isolation.asked(request.sandbox, entry.sandbox)
    backend = plan.backend(request, entry, wanted)
    plan.check_sandbox(backend, asked)
    if asked not in ("", "none") and backend == plan.LOCAL:
        machine.isolation.level(asked)
    return asked if backend in plan.CONFINED else "none"


def _made(project: Project, entry: EntryPoint, placement: Placement) -> Mapping[str, str]:
    """Give the files that are no input of a step since they come from it, by way of others or not.

    What the steps after it made would otherwise change the key of a step that names no inputs.
    """
    later = graph.followers(project, entry.name) if entry.inputs is None else (entry.name,)
    return placement.made_by(*later)


def _aside(placement: Placement | None, nodes: tuple[Node, ...]) -> tuple[Upstream, ...]:
    """Give what steps of the run have left: it is not there for those that name no inputs.

    Their keys would differ from one run to the next otherwise, and files change while they are
    prepared. What a step needs comes to it by itself.
    """
    if placement is None or len(nodes) == 1 or all(n.entry.inputs is not None for n in nodes):
        return ()
    left = placement.made_by(*{node.entry.name for node in nodes})
    patterns = tuple(pattern for node in nodes for pattern in node.entry.outputs or ())
    return (source.Upstream(outputs=(), patterns=patterns, made=tuple(left.items())),)


def upstream_of(opened: Opened, node: Node, outputs: tuple[Entry, ...]) -> Upstream:
    """Give what the steps after `node` take from it, once its outputs are known."""
    made = opened.placement.made_by(node.entry.name) if opened.placement else {}
    return source.Upstream(
        outputs=outputs, patterns=node.entry.outputs or (), made=tuple(made.items())
    )


def _wanted(wanted: Environment | None, entry: EntryPoint, project: Project) -> Wanted | None:
    if wanted is None:
        return None
    label = entry.name if entry.environment is not None else ""
    return Wanted(environment=wanted, label=label, lockfiles=project.lockfiles)


def _mounted(volumes: tuple[tuple[str, str, str], ...]) -> tuple[Mount, ...]:
    return tuple(Mount(source=host, target=inside) for host, inside, _mode in volumes)


def _identified(
    bound: tuple[Argument, ...], request: Request, machine: Machine, progress: Any
) -> tuple[tuple[Argument, ...], tuple[tuple[str, str], ...]]:
    """Give the arguments with what stands for them in the key, and the paths among them."""
    paths = machine.paths(request.caller, progress)
    arguments, host_paths = [], []
    for index, argument in enumerate(bound):
        if argument.text is None:
            arguments.append(argument)
        elif argument.kind == "secret":
            keyed = digest.keyed(machine.secret, argument.text)
            arguments.append(params.with_identity(argument, keyed))
        elif argument.kind == "path" and (
            known := standins.known(argument.name, request.stand_ins)
        ):
            arguments.append(params.with_identity(argument, known))
        elif argument.kind == "path":
            path = paths.local(argument, index, lambda: request.storage or machine.home.scratch())
            identity = paths.identify(path)
            arguments.append(params.with_identity(argument, identity, path))
            host_paths.append((path, identity))
        else:
            used = [pair for pair in request.stand_ins if pair[0] in argument.text]
            text = standins.replaced(argument.text, used)
            arguments.append(params.with_identity(argument, text) if used else argument)
            host_paths += [(path, standins.identity_of(instead)) for path, instead in used]
    return tuple(arguments), tuple(dict.fromkeys(host_paths))


def _mounts(
    mounts: tuple[Mount, ...], request: Request, machine: Machine, progress: Any
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    paths = machine.paths(request.caller, progress)
    keyed, watched = [], []
    for mount in mounts:
        host = os.path.expanduser(mount.source)
        identity = f"version {mount.version}" if mount.version else paths.mounted(host)
        keyed.append((mount.target or mount.source, identity))
        if not mount.version:
            watched.append((host, identity))
    return tuple(keyed), tuple(watched)


class Answer(Value):
    """Whether an earlier result serves: the result with its outputs, or why there is none.

    `called` are the steps that its code had asked for, each with its own.
    """

    result: Result | None = None
    outputs: tuple[Entry, ...] = ()
    artifacts: tuple[Entry, ...] = ()
    reason: str = ""
    called: tuple[tuple[Prepared, Answer], ...] = ()


def look_up(prepared: Prepared, machine: Machine) -> Answer:
    """Look for a result of the key all of whose files are there."""
    if not prepared.request.use_results:
        return Answer(reason="asked to run without looking at earlier results")
    if not prepared.entry.cache:
        return Answer(reason=plan.uncached(prepared.entry))
    result = machine.results.get(prepared.key)
    if result is None:
        return Answer()
    made = str(result.origin.get("sandbox", "none"))
    if not machine.isolation.accepts(made, prepared.sandbox):
        return Answer(
            reason=f"the result of run {result.run_id[:8]} was made at sandbox level `{made}`"
        )
    try:
        outputs = _tree(result.outputs, machine)
        artifacts = _tree(result.artifacts, machine)
    except (BlobMissing, manifest.NotAManifest) as error:
        return Answer(reason=f"the result of run {result.run_id[:8]} is incomplete: {error}")
    called, differs = machine.called(prepared, result) if result.calls else ((), "")
    if differs:
        return Answer(reason=differs)
    return Answer(result=result, outputs=outputs, artifacts=artifacts, called=called)


def _tree(name: str, machine: Machine) -> tuple[Entry, ...]:
    """Give the entries of a manifest whose blobs are all there. Raises BlobMissing."""
    entries = manifest.decode(machine.blobs.get(name))
    for entry in entries:
        if entry.kind in ("file", "exec") and not machine.blobs.has(entry.content):
            raise BlobMissing(entry.content)
    return entries


def answered(prepared: Prepared, machine: Machine, emit: Emit) -> tuple[RunRecord | None, str]:
    """Answer with an earlier result, or say why there is none that serves; empty if none at all."""
    found = look_up(prepared, machine)
    if found.result is None:
        return None, found.reason
    try:
        return reuse(prepared, found, machine, emit), ""
    except BlobMissing as error:
        return None, f"an output of the earlier result was lost: {error}"


def reuse(prepared: Prepared, answer: Answer, machine: Machine, emit: Emit) -> RunRecord:
    """Answer a run with an earlier result: outputs where they belong, and a record.

    Raises BlobMissing if an output turns out to be corrupt; it is in quarantine then, and the
    step has to run.
    """
    result = answer.result
    assert result is not None  # noqa: S101  (the caller looked)
    machine.tracking.check()  # before anything is written
    started = machine.now_ns()
    begun = begin(prepared, started)
    for child, found in answer.called:
        request = replace(child.request, parent_run=begun.run_id)
        reuse(replace(child, request=request), found, machine, lambda _event: None)
    restored = _restore(prepared, answer, machine, started, emit)
    finished = replace(
        begun,
        status=record.FINISHED,
        cached=True,
        origin_run=result.run_id,
        ended_ns=machine.now_ns(),
        parts={},
        sandbox=str(result.origin.get("sandbox", "none")),
        exit_code=result.exit_code,
        wall_ns=result.wall_ns,
        user_ns=result.user_ns,
        system_ns=result.system_ns,
        peak_bytes=result.peak_bytes,
        metrics=metrics.latest(result.metrics),
        tags=result.tags,
        logged=result.parameters,
        outputs=result.outputs,
        artifacts=result.artifacts,
        log=result.log,
        log_size=result.log_size,
    )
    finished = machine.mirrored(finished, result)
    machine.history.spool(finished)
    machine.results.touch(prepared.key)
    if prepared.alone:
        prepared.tree.remember()
    emit(
        Reused(
            step=prepared.name,
            record=finished,
            saved_ns=result.wall_ns,
            ended_ns=result.ended_ns,
            restored=restored,
        )
    )
    return finished


def _restore(prepared: Prepared, answer: Answer, machine: Machine, started: int, emit: Emit) -> int:
    """Put the outputs where they belong, unless they stand there; count what was written."""
    placement = prepared.placement
    if prepared.request.output:
        placement = machine.placement(prepared.request.output)
    if placement is None or placement.in_place(answer.outputs):
        return 0
    return place(prepared, answer.outputs, placement, (machine, started, emit))


def inputs_of(prepared: Prepared) -> tuple[Entry, ...]:
    """Give the files that a step sees."""
    return prepared.tree.selected(prepared.chosen, prepared.name)


def origin(found: Source) -> dict[str, Any]:
    """Give what the record of a run says of where its project is from."""
    return {
        "project": found.project,
        "uri": found.uri,
        "version": found.version,
        "commit": found.commit,
        "branch": found.branch,
        "repo_url": found.repo_url,
        "dirty": found.dirty,
        "tree": found.tree,
    }


def begin(prepared: Prepared, started: int) -> RunRecord:
    """Give the record with which a run begins."""
    request, found = prepared.request, prepared.source
    return RunRecord(
        run_id=request.run_id or os.urandom(16).hex(),
        status=record.RUNNING,
        **origin(found),
        entry_point=prepared.entry.name,
        started_ns=started,
        key=prepared.key,
        parts=step.parts(prepared.step),
        command=prepared.command,
        parameters=tuple((a.name, a.shown, a.origin) for a in prepared.arguments),
        environment=prepared.lock.digest,
        environment_kind=prepared.lock.kind,
        backend=prepared.backend,
        run_name=request.run_name,
        experiment=request.experiment_name,
        tracking={"experiment_id": request.experiment_id} if request.experiment_id else {},
        parent_run=request.parent_run,
        verifies=prepared.verifies,
    )


def place(
    prepared: Prepared,
    outputs: tuple[Entry, ...],
    placement: Placement,
    how: tuple[Machine, int, Emit],
) -> int:
    """Write outputs into a folder; say what was kept back or saved. Give how many were written."""
    machine, started, emit = how
    known: dict[str, str] = {}
    if placement is prepared.placement:
        known = {entry.path: entry.content for entry in inputs_of(prepared)}
    step_name = prepared.entry.name
    with placement.guard:
        placement.announce(outputs, step_name)
        placed = placement.place(outputs, step_name, known=known, since_ns=started)
        placement.remember()
    for path in placed.conflicts:
        emit(
            Warned(
                step=prepared.name,
                text=f"`{path}` was changed by somebody else meanwhile, and is left as it is",
                hint="`repro outputs RUN --to DIR` gives the output of the run",
            )
        )
    for path, blob in placed.saved:
        text = f"`{path}` had other content, which is kept as `{machine.blobs.path(blob)}`"
        emit(Warned(step=prepared.name, text=text))
    return len(placed.written)

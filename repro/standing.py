"""A run of several steps in which nothing has to be done, known as such by a single look.

After a run whose every step was reused, what that rested on is kept: the tree, the locks, the
variables, the results and the outputs in their places. As long as all of it stands, the same
request is answered without going through the steps again.
"""

from __future__ import annotations

from repro import digest, record, value
from repro.manifest import Entry
from repro.step import KEY_FORMAT
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.engine import Opened, Prepared
    from repro.plan import Request
    from repro.ports import Tree
    from repro.record import RunRecord
    from repro.world import Machine

FORMAT = 1
WILD = "*?["
KIND = "standing"
LABELS = ("run_id", "run_name", "experiment_name", "experiment_id", "parent_run", "timeout_ms")


class Standing(Value):
    """A run that has nothing to do: its record, how many steps it has, and when the last was made.

    `made_ns` is in nanoseconds since 1970 UTC.
    """

    run: RunRecord
    steps: int
    made_ns: int


def recall(request: Request, tree: Tree, machine: Machine) -> Standing | None:
    """Say whether a run has nothing to do, or give None where that has to be found out."""
    if not _may_stand(request, machine) or not tree.source.root:
        return None
    known = machine.memos.get(KIND, _name(request, tree))
    if known is None or known.get("format") != FORMAT or not tree.knows_project():
        return None
    if not _same_surroundings(known, machine):
        return None
    outputs = [
        Entry(path=path, kind=kind, content=content) for path, kind, content in known["outputs"]
    ]
    if not machine.placement(tree.source.root).in_place(outputs):
        return None
    if not all(machine.results.touch(key) for key in known["keys"]):
        return None
    now = machine.now_ns()
    run = replace(
        record.of_plain(known["record"]),
        run_id=request.run_id,
        run_name=request.run_name,
        experiment=request.experiment_name,
        parent_run=request.parent_run,
        started_ns=now,
        ended_ns=machine.now_ns(),
    )
    return Standing(run=run, steps=len(known["keys"]), made_ns=known["made_ns"])


def keep(
    opened: Opened,
    steps: Iterable[Prepared],
    records: tuple[RunRecord, ...],
    machine: Machine,
) -> None:
    """Remember that nothing had to be done, if a look can tell whether that still holds."""
    steps = tuple(steps)
    tree, request = opened.tree, opened.request
    if not _may_stand(request, machine) or opened.placement is None:
        return
    if not all(run.cached for run in records) or not all(_is_plain(step) for step in steps):
        return
    if not _inputs_are_seen(opened):
        return
    results = [machine.results.get(run.key) for run in records]
    last = results[-1]
    if last is None or not all(result and not result.calls for result in results):
        return  # what a step asks for is looked at each time
    entries = [e for run in records for e in machine.tree_of(run.outputs) or ()]
    names = sorted({"REPRO_SANDBOX", *(n for step in steps for n in step.entry.pass_env)})
    machine.memos.put(
        KIND,
        _name(request, tree),
        {
            "format": FORMAT,
            "locks": [list(pair) for pair in machine.supply.decided()],
            "variables": {name: machine.environ.get(name) for name in names},
            "platform": machine.platform,
            "keys": [run.key for run in records],
            "outputs": [[e.path, e.kind, e.content] for e in entries],
            "made_ns": last.ended_ns,
            "record": record.plain(records[-1]),
        },
    )


def _may_stand(request: Request, machine: Machine) -> bool:
    """Say whether a request asks for nothing but an answer."""
    shown = bool(machine.environ.get("MLFLOW_TRACKING_URI"))
    elsewhere = request.output or machine.callers
    return request.use_results and not (elsewhere or request.locking or shown)


def _name(request: Request, tree: Tree) -> str:
    plain = replace(request, config=None, configs={}, timeout_ms=0)
    asked = value.dump(replace(plain, **dict.fromkeys(LABELS[:-1], "")))
    asked["settings"] = repr((request.config, sorted(request.configs.items())))
    asked["parameters"] = {name: str(text) for name, text in request.parameters.items()}
    return digest.of_value(
        "repro/standing", [KEY_FORMAT, asked, tree.source.root, tree.source.tree]
    )


def _same_surroundings(known: Mapping[str, Any], machine: Machine) -> bool:
    if known["platform"] != machine.platform:
        return False
    if any(machine.environ.get(name) != text for name, text in known["variables"].items()):
        return False
    return all(machine.supply.still_decides(*pair) for pair in known["locks"])


def _is_plain(step: Prepared) -> bool:
    """Say whether all that a step rests on is in the tree, the lock and its variables."""
    hidden = any(argument.kind == "secret" for argument in step.arguments)
    return not (step.host_paths or step.volumes or step.entry.mounts or hidden)


def _inputs_are_seen(opened: Opened) -> bool:
    """Say whether every declared input is a file of the tree, or the output of a step.

    What Git ignores can be an input when it is named, and is not in the digest of the tree.
    """
    there = {entry.path for entry in opened.tree.entries()}
    made = {out for node in opened.graph.nodes for out in node.entry.outputs or ()}
    return all(
        pattern in there or pattern in made or any(char in pattern for char in WILD)
        for node in opened.graph.nodes
        for pattern in node.entry.inputs or ()
    )

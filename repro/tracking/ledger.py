"""The runs, experiments and models that a step has told its tracking server about so far.

Ids and rules are those of MLflow's own store, as far as a client can tell. Nothing here knows
HTTP; whoever calls sees to it that one call happens at a time.
"""

from __future__ import annotations

import os
import time
from itertools import count
from urllib.parse import quote

from repro.ports import ChildRun, Tracked
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from repro.ports import Called

DEFAULT_EXPERIMENT = ("0", "Default")
LONGEST_KEY = 250
LONGEST_NAME = 200  # bytes; file systems take 255, and a number may follow
NAME_TAG = "mlflow.runName"
PARENT_TAG = "mlflow.parentRunId"
ENTRY_TAG = "mlflow.project.entryPoint"
MODELS_TAG = "mlflow.log-model.history"
NOT_KEPT = (PARENT_TAG, "mlflow.user")
SOURCE_TAGS = "mlflow.source."


class Refused(Exception):
    """A request that MLflow's server refuses too, with the error code that its client knows."""

    def __init__(self, message: str, code: str = "INVALID_PARAMETER_VALUE") -> None:
        """Keep the code beside the words."""
        super().__init__(message)
        self.code = code


class Metric(Value):
    """One logged number; `model_id` and `dataset` link it to a logged model and a data set."""

    key: str
    value: float
    timestamp_ms: int
    step: int = 0
    model_id: str = ""
    dataset: tuple[str, str] = ("", "")

    @property
    def rank(self) -> tuple[int, int, float]:
        """What decides which value of a metric is the current one."""
        return self.step, self.timestamp_ms, self.value


class Experiment:
    """A named group of runs. All but the run's own exist as long as the step runs."""

    def __init__(self, experiment_id: str, name: str, location: str) -> None:
        """Begin an experiment without tags."""
        self.experiment_id = experiment_id
        self.name = name
        self.location = location
        self.tags: dict[str, str] = {}
        self.created_ms = now_ms()


class Logged:
    """What runs and models have in common: parameters, tags, and numbers."""

    def __init__(self, folder: str, tags: Mapping[str, str]) -> None:
        """Begin with `tags`; the client will write files into `folder`, which need not exist."""
        self.folder = folder
        self.tags = dict(tags)
        self.parameters: dict[str, str] = {}
        self.metrics: list[Metric] = []
        self.latest: dict[str, Metric] = {}
        self.deleted = False

    @property
    def uri(self) -> str:
        """Say where the client finds the files."""
        return "file://" + quote(self.folder)

    def add_metric(self, metric: Metric) -> None:
        """Append a number; the highest step, then time, then value is the current one."""
        self.metrics.append(metric)
        current = self.latest.get(metric.key)
        if current is None or metric.rank >= current.rank:
            self.latest[metric.key] = metric

    def add_parameters(self, parameters: Iterable[tuple[str, str]]) -> None:
        """Set parameters, all or none. Refused: another value for one that is set."""
        added: dict[str, str] = {}
        for key, value in parameters:
            known = added.get(key, self.parameters.get(key, value))
            if known != value:
                raise Refused(
                    "Changing param values is not allowed. "
                    f"Param with key='{key}' was already logged with value='{known}'. "
                    f"Attempted logging new value '{value}'."
                )
            added[key] = value
        self.parameters.update(added)


class Run(Logged):
    """A run: the step itself, or one that its code started below or beside it."""

    def __init__(
        self,
        run_id: str,
        experiment_id: str,
        folder: str,
        *,
        name: str,
        tags: Mapping[str, str],
        started_ms: int,
    ) -> None:
        """Begin a run that is under way."""
        super().__init__(folder, {**tags, NAME_TAG: name})
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.status = "RUNNING"
        self.started_ms = started_ms
        self.ended_ms = 0
        self.is_called = False
        self.datasets: list[dict[str, Any]] = []
        self.models_in: list[dict[str, Any]] = []
        self.models_out: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """Give the name, which MLflow keeps as a tag."""
        return self.tags.get(NAME_TAG, "")

    def kept_tags(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Give the tags that the code has set: not the client's own, and nothing inherited."""
        return {
            key: value
            for key, value in self.tags.items()
            if key not in NOT_KEPT
            and not key.startswith(SOURCE_TAGS)
            and inherited.get(key) != value
        }

    def kept_metrics(self) -> tuple[tuple[str, str, int, int], ...]:
        """Give the numbers in the order in which they were logged, as text that loses nothing."""
        return tuple((m.key, repr(m.value), m.timestamp_ms, m.step) for m in self.metrics)


class Model(Logged):
    """A model that the code logs (MLflow 3): its files lie apart from the run's until the end."""

    def __init__(self, model_id: str, run: Run, folder: str, *, name: str, kind: str) -> None:
        """Begin a model whose files are still to come."""
        super().__init__(folder, {})
        self.model_id = model_id
        self.run_id = run.run_id
        self.experiment_id = run.experiment_id
        self.name = name
        self.kind = kind
        self.status = "LOGGED_MODEL_PENDING"
        self.created_ms = self.changed_ms = now_ms()


class Ledger:
    """All that one step logs.

    Below `folder` the client writes files: `artifacts` are the step's own, `children/N` those of
    further runs, and `models/N` hold a model each until `tracked` moves it to its run.
    """

    def __init__(
        self,
        run_id: str,
        experiment_id: str,
        experiment_name: str,
        folder: str,
        inherited_tags: Mapping[str, str],
    ) -> None:
        """Begin with the run `run_id` under way, bearing `inherited_tags`, and nothing logged."""
        self._folder = folder = os.path.realpath(folder)
        self.experiments: dict[str, Experiment] = {}
        self.models: dict[str, Model] = {}
        self.main = Run(
            run_id,
            experiment_id,
            os.path.join(folder, "artifacts"),
            name=inherited_tags.get(NAME_TAG, "main"),
            tags=inherited_tags,
            started_ms=now_ms(),
        )
        self._inherited = dict(self.main.tags)
        self.runs = {run_id: self.main}
        self._attached = False
        for known_id, name in (DEFAULT_EXPERIMENT, (experiment_id, experiment_name)):
            self._add_experiment(known_id, name, "")

    def run(self, run_id: str) -> Run:
        """Give the run of that id."""
        if run_id not in self.runs:
            raise Refused(f"Run with id={run_id} not found", "RESOURCE_DOES_NOT_EXIST")
        return self.runs[run_id]

    def model(self, model_id: str) -> Model:
        """Give the logged model of that id."""
        if model_id not in self.models:
            message = f"Logged model with ID '{model_id}' not found."
            raise Refused(message, "RESOURCE_DOES_NOT_EXIST")
        return self.models[model_id]

    def experiment(self, experiment_id: str) -> Experiment:
        """Give the experiment of that id."""
        if experiment_id not in self.experiments:
            message = f"No Experiment with id={experiment_id} exists"
            raise Refused(message, "RESOURCE_DOES_NOT_EXIST")
        return self.experiments[experiment_id]

    def experiment_named(self, name: str) -> Experiment:
        """Give the experiment of that name, and let it be the one that the code has chosen."""
        for experiment in self.experiments.values():
            if experiment.name == name:
                self._choose(experiment)
                return experiment
        message = f"Could not find experiment with name '{name}'"
        raise Refused(message, "RESOURCE_DOES_NOT_EXIST")

    def create_experiment(self, name: str, location: str) -> Experiment:
        """Add an experiment; it is the one that the code has chosen."""
        if any(e.name == name for e in self.experiments.values()):
            message = f"Experiment(name={name}) already exists."
            raise Refused(message, "RESOURCE_ALREADY_EXISTS")
        numbers = [int(key) for key in self.experiments if key.isdecimal()]
        experiment = self._add_experiment(str(max(numbers) + 1), name, location)
        self._choose(experiment)
        return experiment

    def _add_experiment(self, experiment_id: str, name: str, location: str) -> Experiment:
        place = location or "file://" + quote(self._folder)
        self.experiments[experiment_id] = Experiment(experiment_id, name, place)
        return self.experiments[experiment_id]

    def _choose(self, experiment: Experiment) -> None:
        # The client refuses to attach to a run of another experiment than the one that was chosen
        # with `set_experiment`. Code that chooses one is not wrong, so the run follows it, once.
        if not self._attached:
            self.main.experiment_id = experiment.experiment_id

    def update(self, run: Run, *, status: str, ended_ms: int, name: str) -> None:
        """Change what is not empty. A first update of the step's run is the client attaching."""
        self._attached = self._attached or run is self.main
        run.status = status or run.status
        run.ended_ms = ended_ms or run.ended_ms
        if name:
            run.tags[NAME_TAG] = name

    def create_run(
        self, experiment_id: str, *, name: str, tags: Mapping[str, str], started_ms: int
    ) -> Run:
        """Add a run below or beside the step's own."""
        number = len(self.runs)
        run = Run(
            os.urandom(16).hex(),
            self.experiment(experiment_id).experiment_id,
            os.path.join(self._folder, "children", str(number)),
            name=name or tags.get(NAME_TAG, f"run-{number}"),
            tags=tags,
            started_ms=started_ms or now_ms(),
        )
        self.runs[run.run_id] = run
        return run

    def called(self, called: Called) -> Run:
        """Give the run that another project's step has, which it keeps itself; add it if new."""
        if called.run_id not in self.runs:
            tags = {PARENT_TAG: self.main.run_id, ENTRY_TAG: called.entry_point}
            run = Run(
                called.run_id,
                self.main.experiment_id,
                os.path.join(self._folder, "children", str(len(self.runs))),
                name=called.name or called.entry_point,
                tags=tags,
                started_ms=now_ms(),
            )
            run.is_called = True
            run.parameters.update(called.parameters)
            self.runs[called.run_id] = run
        return self.runs[called.run_id]

    def settle(self, called: Called) -> None:
        """Take over what a run has logged that was called, and how it ended."""
        run = self.called(called)
        run.parameters.update(called.parameters)
        run.tags.update(called.tags)
        for key, text, at_ms, step in called.metrics:
            run.add_metric(Metric(key=key, value=float(text), timestamp_ms=at_ms, step=step))
        run.status, run.ended_ms = called.status, now_ms()

    def create_model(self, run_id: str, *, name: str, kind: str) -> Model:
        """Add a model to a run, to the step's own where none is named."""
        run = self.run(run_id) if run_id else self.main
        if not _is_file_name(name):
            raise Refused(f"Invalid model name: {name!r}")
        folder = os.path.join(self._folder, "models", str(len(self.models)))
        model = Model("m-" + os.urandom(16).hex(), run, folder, name=name, kind=kind)
        self.models[model.model_id] = model
        return model

    def log(
        self,
        run: Run,
        metrics: Sequence[Metric] = (),
        parameters: Sequence[tuple[str, str]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log to a run, all or nothing; a number goes also to the model that it is about."""
        models = {m.model_id: self.model(m.model_id) for m in metrics if m.model_id}
        run.add_parameters(parameters)
        run.tags.update(tags or {})
        for metric in metrics:
            run.add_metric(metric)
            if metric.model_id:
                models[metric.model_id].add_metric(metric)

    def tracked(self) -> Tracked:
        """Move each model's files to its run and give everything that was logged.

        The files of a model named `x` end up in the folder `x` of the run's artifacts. Of several
        models of one name in a run the last has that folder, the earlier ones `x-1`, `x-2` …
        """
        for run in self.runs.values():
            self._gather(run)
        apart = [run for run in self.runs.values() if run is self.main or run.is_called]
        children = [r for r in self.runs.values() if r not in apart and not r.deleted]
        positions = {run.run_id: number for number, run in enumerate(children)}
        main = self.main
        return Tracked(
            metrics=main.kept_metrics(),
            parameters=main.parameters,
            tags=main.kept_tags(self._inherited),
            artifacts=_filled(main.folder),
            datasets=tuple(main.datasets),
            children=tuple(_child(run, positions) for run in children),
        )

    def _gather(self, run: Run) -> None:
        named: dict[str, list[Model]] = {}
        for model in self.models.values():
            if model.run_id == run.run_id and not model.deleted and _filled(model.folder):
                named.setdefault(model.name, []).append(model)
        for name, models in named.items():
            os.makedirs(run.folder, exist_ok=True)
            if os.path.realpath(run.folder) != run.folder:
                continue
            _move(models.pop().folder, os.path.join(run.folder, name))
            spare = (f"{name}-{n}" for n in count(1) if f"{name}-{n}" not in named)
            for model, place in zip(models, spare, strict=False):
                _move(model.folder, os.path.join(run.folder, place))


def now_ms() -> int:
    """Give the time as MLflow writes it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _child(run: Run, positions: Mapping[str, int]) -> ChildRun:
    return ChildRun(
        name=run.name,
        status=run.status,
        parent=positions.get(run.tags.get(PARENT_TAG, ""), -1),
        started_ms=run.started_ms,
        ended_ms=run.ended_ms,
        metrics=run.kept_metrics(),
        parameters=run.parameters,
        tags=run.kept_tags({NAME_TAG: run.name}),
        artifacts=_filled(run.folder),
        datasets=tuple(run.datasets),
    )


def _filled(folder: str) -> str:
    """Give `folder` if there is something in it and no link leads to it.

    A step's code can put links below the ledger's folder; what they point to is not ours.
    """
    own = os.path.realpath(folder) == folder and os.path.isdir(folder)
    return folder if own and os.listdir(folder) else ""


def _is_file_name(text: str) -> bool:
    try:
        fits = len(os.fsencode(text)) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False
    return fits and text not in {"", ".", ".."} and not set(text) & {"/", "\0"}


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _move(source: str, target: str) -> None:
    """Rename; where both are folders, merge, and what comes from `source` wins.

    A link in the place of `target` is replaced, never followed: the step's code may have put it
    there, and it may point anywhere.
    """
    if _is_folder(source) and _is_folder(target):
        for name in os.listdir(source):
            _move(os.path.join(source, name), os.path.join(target, name))
        return
    files.remove_tree(target)
    os.rename(source, target)

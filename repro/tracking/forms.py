"""How the receiver writes experiments, runs and models: the objects of MLflow's protocol."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from repro.tracking.ledger import Experiment, Logged, Metric, Model, Run

    Form = dict[str, Any]


def _listed(pairs: Iterable[tuple[str, str]]) -> list[Form]:
    return [{"key": key, "value": value} for key, value in pairs]


def stage(item: Logged) -> str:
    """Say whether a run or model is hidden, in MLflow's words."""
    return "deleted" if item.deleted else "active"


def of_experiment(experiment: Experiment) -> Form:
    """Write an experiment."""
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "artifact_location": experiment.location,
        "lifecycle_stage": "active",
        "creation_time": experiment.created_ms,
        "last_update_time": experiment.created_ms,
        "tags": _listed(experiment.tags.items()),
    }


def of_run_info(run: Run) -> Form:
    """Write what a run is, without what it has logged."""
    info: Form = {
        "run_id": run.run_id,
        "run_uuid": run.run_id,
        "run_name": run.name,
        "experiment_id": run.experiment_id,
        "user_id": run.tags.get("mlflow.user", ""),
        "status": run.status,
        "start_time": run.started_ms,
        "artifact_uri": run.uri,
        "lifecycle_stage": stage(run),
    }
    return {**info, "end_time": run.ended_ms} if run.ended_ms else info


def of_run(run: Run) -> Form:
    """Write a run with everything that is current."""
    return {
        "info": of_run_info(run),
        "data": {
            "metrics": [of_metric(metric) for metric in run.latest.values()],
            "params": _listed(run.parameters.items()),
            "tags": _listed(run.tags.items()),
        },
        "inputs": {"dataset_inputs": run.datasets, "model_inputs": run.models_in},
        "outputs": {"model_outputs": run.models_out},
    }


def of_metric(metric: Metric) -> Form:
    """Write a number; what JSON has no number for is a word."""
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    number: Form = {
        "key": metric.key,
        "value": words.get(str(metric.value), metric.value),
        "timestamp": metric.timestamp_ms,
        "step": metric.step,
    }
    name, digest = metric.dataset
    links = {"model_id": metric.model_id, "dataset_name": name, "dataset_digest": digest}
    return {**number, **{key: text for key, text in links.items() if text}}


def of_model(model: Model) -> Form:
    """Write a logged model."""
    return {
        "info": {
            "model_id": model.model_id,
            "experiment_id": model.experiment_id,
            "name": model.name,
            "creation_timestamp_ms": model.created_ms,
            "last_updated_timestamp_ms": model.changed_ms,
            "artifact_uri": model.uri,
            "status": model.status,
            "model_type": model.kind,
            "source_run_id": model.run_id,
            "tags": _listed(model.tags.items()),
        },
        "data": {
            "params": _listed(model.parameters.items()),
            "metrics": [of_metric(metric) for metric in model.latest.values()],
        },
    }

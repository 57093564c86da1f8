"""What the receiver answers: one function an endpoint of MLflow's REST protocol.

Each takes the ledger and the request and gives the reply as plain data; all are below
`/api/2.0/mlflow/`. `{}` is how the protocol says that it is done.
"""

from __future__ import annotations

import json

from repro.tracking import forms, search
from repro.tracking.ledger import LONGEST_KEY, MODELS_TAG, Metric, Refused, now_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from repro.tracking.ledger import Ledger, Run
    from repro.tracking.request import Request

    Reply = dict[str, Any]
    Endpoint = Callable[[Ledger, Request], Reply]

STATUSES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
MODEL_STATUSES = {
    "1": "LOGGED_MODEL_PENDING",
    "2": "LOGGED_MODEL_READY",
    "3": "LOGGED_MODEL_UPLOAD_FAILED",
}
PAGE = 1000


def get_experiment(ledger: Ledger, request: Request) -> Reply:
    """Show an experiment by id."""
    return {"experiment": forms.of_experiment(ledger.experiment(request.text("experiment_id")))}


def get_experiment_by_name(ledger: Ledger, request: Request) -> Reply:
    """Show an experiment by name."""
    return {
        "experiment": forms.of_experiment(ledger.experiment_named(request.text("experiment_name")))
    }


def create_experiment(ledger: Ledger, request: Request) -> Reply:
    """Add an experiment, which lives as long as the step."""
    tags = _pairs(request, "tags")
    location = request.text("artifact_location", "")
    experiment = ledger.create_experiment(request.text("name"), location)
    experiment.tags.update(tags)
    return {"experiment_id": experiment.experiment_id}


def search_experiments(ledger: Ledger, request: Request) -> Reply:
    """List the experiments that a filter lets through."""
    found = search.matching(ledger.experiments.values(), request.text("filter", ""))
    page, token = _page(search.ordered(found, request.texts("order_by")), request)
    return {"experiments": [forms.of_experiment(item) for item in page], **token}


def set_experiment_tag(ledger: Ledger, request: Request) -> Reply:
    """Set a tag of an experiment."""
    tags = ledger.experiment(request.text("experiment_id")).tags
    tags[_key(request)] = request.text("value", "")
    return {}


def delete_experiment_tag(ledger: Ledger, request: Request) -> Reply:
    """Remove a tag of an experiment."""
    ledger.experiment(request.text("experiment_id")).tags.pop(request.text("key"), None)
    return {}


def get_run(ledger: Ledger, request: Request) -> Reply:
    """Show a run with its current numbers, parameters and tags."""
    return {"run": forms.of_run(_asked_run(ledger, request))}


def create_run(ledger: Ledger, request: Request) -> Reply:
    """Begin a run below or beside the step's own."""
    run = ledger.create_run(
        request.text("experiment_id", ledger.main.experiment_id),
        name=request.text("run_name", ""),
        tags=_pairs(request, "tags"),
        started_ms=request.whole("start_time"),
    )
    return {"run": forms.of_run(run)}


def update_run(ledger: Ledger, request: Request) -> Reply:
    """Change a run's status, end and name, whichever is given."""
    run = _asked_run(ledger, request)
    ledger.update(
        run,
        status=_status(request, STATUSES),
        ended_ms=request.whole("end_time"),
        name=request.text("run_name", ""),
    )
    return {"run_info": forms.of_run_info(run)}


def delete_run(ledger: Ledger, request: Request) -> Reply:
    """Hide a run."""
    _asked_run(ledger, request).deleted = True
    return {}


def restore_run(ledger: Ledger, request: Request) -> Reply:
    """Show a hidden run again."""
    _asked_run(ledger, request).deleted = False
    return {}


def search_runs(ledger: Ledger, request: Request) -> Reply:
    """List the runs of some experiments that a filter lets through, page by page."""
    wanted, view = request.texts("experiment_ids"), request.text("run_view_type", "ACTIVE_ONLY")
    runs = [
        run
        for run in ledger.runs.values()
        if run.experiment_id in wanted and view in {"ALL", forms.stage(run).upper() + "_ONLY"}
    ]
    found = search.matching(runs, request.text("filter", ""))
    page, token = _page(search.ordered(found, request.texts("order_by")), request)
    return {"runs": [forms.of_run(run) for run in page], **token}


def log_metric(ledger: Ledger, request: Request) -> Reply:
    """Append one number."""
    ledger.log(_asked_run(ledger, request), [_metric(request)])
    return {}


def log_parameter(ledger: Ledger, request: Request) -> Reply:
    """Set one parameter, once."""
    pair = (_key(request), request.text("value", ""))
    ledger.log(_asked_run(ledger, request), parameters=[pair])
    return {}


def log_batch(ledger: Ledger, request: Request) -> Reply:
    """Log numbers, parameters and tags, all or none."""
    run = _asked_run(ledger, request)
    metrics = [_metric(item) for item in request.objects("metrics")]
    parameters = [(_key(p), p.text("value", "")) for p in request.objects("params")]
    tags = _pairs(request, "tags")
    ledger.log(run, metrics, parameters, tags)
    return {}


def set_tag(ledger: Ledger, request: Request) -> Reply:
    """Set a tag."""
    _asked_run(ledger, request).tags[_key(request)] = request.text("value", "")
    return {}


def delete_tag(ledger: Ledger, request: Request) -> Reply:
    """Remove a tag that is there."""
    run, key = _asked_run(ledger, request), request.text("key")
    if key not in run.tags:
        message = f"No tag with name: {key} in run with id {run.run_id}"
        raise Refused(message, "RESOURCE_DOES_NOT_EXIST")
    del run.tags[key]
    return {}


def get_metric_history(ledger: Ledger, request: Request) -> Reply:
    """List every value of one metric, in the order in which they were logged."""
    key = request.text("metric_key")
    found = [m for m in _asked_run(ledger, request).metrics if m.key == key]
    page, token = _page(found, request, default=len(found))
    return {"metrics": [forms.of_metric(m) for m in page], **token}


def log_inputs(ledger: Ledger, request: Request) -> Reply:
    """Note the data sets and models that a run has read."""
    run = _asked_run(ledger, request)
    datasets = [_dataset(item) for item in request.objects("datasets")]
    models = [{"model_id": item.text("model_id")} for item in request.objects("models")]
    run.datasets += [item for item in datasets if item not in run.datasets]
    run.models_in += models
    return {}


def log_outputs(ledger: Ledger, request: Request) -> Reply:
    """Note the models that a run has made."""
    _asked_run(ledger, request).models_out += [
        {"model_id": item.text("model_id"), "step": item.whole("step")}
        for item in request.objects("models")
    ]
    return {}


def log_model(ledger: Ledger, request: Request) -> Reply:
    """Note a model the way of MLflow 1 and 2: in a tag that lists all of a run's models."""
    run = _asked_run(ledger, request)
    try:
        model = json.loads(request.text("model_json"))
        history = json.loads(run.tags.get(MODELS_TAG, "[]"))
        run.tags[MODELS_TAG] = json.dumps([*history, model])
    except (TypeError, ValueError, RecursionError):
        raise Refused("Malformed model info: not valid JSON") from None
    return {}


def create_logged_model(ledger: Ledger, request: Request) -> Reply:
    """Begin a model of MLflow 3, and say where its files go."""
    parameters, tags = _pairs(request, "params"), _pairs(request, "tags")
    model = ledger.create_model(
        request.text("source_run_id", ""),
        name=request.text("name", "") or "model",
        kind=request.text("model_type", ""),
    )
    model.parameters.update(parameters)
    model.tags.update(tags)
    return {"model": forms.of_model(model)}


def get_logged_model(ledger: Ledger, request: Request) -> Reply:
    """Show a model."""
    return {"model": forms.of_model(ledger.model(request.text("model_id")))}


def finalize_logged_model(ledger: Ledger, request: Request) -> Reply:
    """Note whether all files of a model have arrived."""
    model = ledger.model(request.text("model_id"))
    model.status = _status(request, MODEL_STATUSES) or model.status
    model.changed_ms = now_ms()
    return {"model": forms.of_model(model)}


def delete_logged_model(ledger: Ledger, request: Request) -> Reply:
    """Hide a model; its files are not kept."""
    ledger.model(request.text("model_id")).deleted = True
    return {}


def set_logged_model_tags(ledger: Ledger, request: Request) -> Reply:
    """Set tags of a model."""
    model = ledger.model(request.text("model_id"))
    model.tags.update(_pairs(request, "tags"))
    return {"model": forms.of_model(model)}


def delete_logged_model_tag(ledger: Ledger, request: Request) -> Reply:
    """Remove a tag of a model."""
    ledger.model(request.text("model_id")).tags.pop(request.text("key"), None)
    return {}


def log_logged_model_params(ledger: Ledger, request: Request) -> Reply:
    """Set parameters of a model."""
    model = ledger.model(request.text("model_id"))
    model.parameters.update(_pairs(request, "params"))
    return {"model": forms.of_model(model)}


def search_logged_models(ledger: Ledger, request: Request) -> Reply:
    """List the models of some experiments that a filter lets through, page by page."""
    wanted = request.texts("experiment_ids")
    models = [m for m in ledger.models.values() if m.experiment_id in wanted and not m.deleted]
    found = search.matching(models, request.text("filter", ""))
    columns = [
        f"{column.text('field_name')} {'ASC' if column.flag('ascending', default=True) else 'DESC'}"
        for column in request.objects("order_by")
    ]
    page, token = _page(search.ordered(found, columns), request)
    return {"models": [forms.of_model(model) for model in page], **token}


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("GET", "experiments/get"): get_experiment,
    ("GET", "experiments/get-by-name"): get_experiment_by_name,
    ("POST", "experiments/create"): create_experiment,
    ("POST", "experiments/search"): search_experiments,
    ("GET", "experiments/search"): search_experiments,
    ("POST", "experiments/set-experiment-tag"): set_experiment_tag,
    ("POST", "experiments/delete-experiment-tag"): delete_experiment_tag,
    ("GET", "runs/get"): get_run,
    ("POST", "runs/create"): create_run,
    ("POST", "runs/update"): update_run,
    ("POST", "runs/delete"): delete_run,
    ("POST", "runs/restore"): restore_run,
    ("POST", "runs/search"): search_runs,
    ("POST", "runs/log-metric"): log_metric,
    ("POST", "runs/log-parameter"): log_parameter,
    ("POST", "runs/log-batch"): log_batch,
    ("POST", "runs/set-tag"): set_tag,
    ("POST", "runs/delete-tag"): delete_tag,
    ("GET", "metrics/get-history"): get_metric_history,
    ("POST", "runs/log-inputs"): log_inputs,
    ("POST", "runs/outputs"): log_outputs,
    ("POST", "runs/log-model"): log_model,
    ("POST", "logged-models"): create_logged_model,
    ("POST", "logged-models/search"): search_logged_models,
    ("GET", "logged-models/*"): get_logged_model,
    ("PATCH", "logged-models/*"): finalize_logged_model,
    ("DELETE", "logged-models/*"): delete_logged_model,
    ("PATCH", "logged-models/*/tags"): set_logged_model_tags,
    ("DELETE", "logged-models/*/tags/*"): delete_logged_model_tag,
    ("POST", "logged-models/*/params"): log_logged_model_params,
}


def find(method: str, path: str) -> tuple[Endpoint | None, dict[str, str]]:
    """Give the endpoint for a path below the prefix, and what its `*` stand for."""
    plain = ENDPOINTS.get((method, path))
    if plain:
        return plain, {}
    first, *rest = path.split("/")
    pattern = "/".join([first, *("*" if n % 2 == 0 else part for n, part in enumerate(rest))])
    return ENDPOINTS.get((method, pattern)), dict(zip(("model_id", "key"), rest[::2], strict=False))


def _asked_run(ledger: Ledger, request: Request) -> Run:
    return ledger.run(request.text("run_id", "") or request.text("run_uuid"))


def _key(request: Request) -> str:
    key = request.text("key")
    if len(key) > LONGEST_KEY:
        raise Refused(f"'{key[:20]}…' exceeds the maximum length of {LONGEST_KEY} characters")
    return key


def _pairs(request: Request, name: str) -> dict[str, str]:
    return {_key(item): item.text("value", "") for item in request.objects(name)}


def _metric(request: Request) -> Metric:
    return Metric(
        key=_key(request),
        value=request.real("value"),
        timestamp_ms=request.whole("timestamp") or now_ms(),
        step=request.whole("step"),
        model_id=request.text("model_id", ""),
        dataset=(request.text("dataset_name", ""), request.text("dataset_digest", "")),
    )


def _dataset(request: Request) -> Reply:
    dataset = request.object("dataset")
    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    texts = {field: dataset.text(field, "") for field in fields}
    tags = [{"key": t.text("key"), "value": t.text("value", "")} for t in request.objects("tags")]
    return {"dataset": {key: text for key, text in texts.items() if text}, "tags": tags}


def _status(request: Request, names: dict[str, str]) -> str:
    given = request.name("status")
    status = names.get(given, given)
    if status and status not in names.values():
        raise Refused(f"Invalid value for parameter 'status': {status}")
    return status


def _page(
    items: Sequence[Any], request: Request, default: int = PAGE
) -> tuple[Sequence[Any], Reply]:
    size = max(request.whole("max_results"), 0) or default
    start = max(request.whole("page_token"), 0)
    end = start + size
    return items[start:end], {"next_page_token": str(end)} if end < len(items) else {}

"""Shows runs in a tracking store through MLflow's own client, for an MLflow that calls repro.

The store may be whatever that MLflow knows: a database, a folder, a server. `Mirror` and `Relay`
do the work; here stands what answers them in place of a server's HTTP.
"""

from __future__ import annotations

import os
import time
from importlib import import_module

from repro.errors import Unreachable
from repro.location import without_credentials
from repro.tracking.mirror import ABSENT, RUN_TAG, SYSTEM_TAGS, Mirror
from repro.tracking.relay import Relay
from repro.tracking.server import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from repro.plan import Request

    Fields = Mapping[str, Any]
    Reply = dict[str, Any]

NAME = "repro"
BACKEND_TAG = "repro.backend"
PASSING = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"})


class Client:
    """MLflow's client behind the words that `repro.tracking.server.Server` is asked in."""

    def __init__(self, uri: str) -> None:
        """Take the address of a tracking store, in any of MLflow's forms."""
        self.name = without_credentials(uri)
        self._entities: Any = import_module("mlflow.entities")
        self._client: Any = import_module("mlflow").MlflowClient(tracking_uri=uri)
        self._actions: dict[str, Callable[[Fields], Reply]] = {
            "experiments/search": self._reach,
            "experiments/get": self._experiment,
            "experiments/get-by-name": self._experiment_named,
            "experiments/create": self._new_experiment,
            "runs/create": self._create,
            "runs/update": self._update,
            "runs/get": self._get,
            "runs/search": self._search,
            "runs/log-batch": self._log,
            "runs/log-inputs": self._log_inputs,
        }

    def call(self, _method: str, path: str, fields: Fields, *, repeat: bool = True) -> Reply:
        """Do what an endpoint of MLflow's API does. Raises Unreachable, or Refusal for a no."""
        del repeat  # the client has its own ways
        reply: Reply = self._explained(lambda: self._actions[path](fields))
        return reply

    def copy(self, file: str, uri: str, folder: str) -> None:
        """Put a file into a folder below the artifacts that a URI names. Raises as `call` does."""
        registry = import_module("mlflow.store.artifact.artifact_repository_registry")
        self._explained(
            lambda: registry.get_artifact_repository(uri).log_artifact(file, folder or None)
        )

    def _explained(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Unreachable:
            raise
        except Exception as error:  # whatever a store, its driver or its plug-in raises
            reason = str(getattr(error, "error_code", ""))
            line = " ".join(str(error).split())[:300] or type(error).__name__
            text = f"tracking store `{self.name}`: {line}"
            if reason and reason not in PASSING:
                raise Refusal(text, reason=reason) from error
            raise Unreachable(text, hints=["check MLFLOW_TRACKING_URI"]) from error

    def _reach(self, _fields: Fields) -> Reply:
        self._client.search_experiments(max_results=1)
        return {}

    def _experiment(self, fields: Fields) -> Reply:
        return _shown(self._client.get_experiment(fields["experiment_id"]))

    def _experiment_named(self, fields: Fields) -> Reply:
        name = fields["experiment_name"]
        found = self._client.get_experiment_by_name(name)
        if found is None:
            raise Refusal(f"there is no experiment `{name}`", reason=ABSENT)
        return _shown(found)

    def _new_experiment(self, fields: Fields) -> Reply:
        return {"experiment_id": self._client.create_experiment(fields["name"])}

    def _create(self, fields: Fields) -> Reply:
        run = self._client.create_run(
            fields["experiment_id"],
            start_time=fields.get("start_time"),
            tags={item["key"]: item["value"] for item in fields["tags"]},
            run_name=fields.get("run_name") or None,
        )
        return {"run": {"info": {"run_id": run.info.run_id}}}

    def _update(self, fields: Fields) -> Reply:
        self._client.set_terminated(fields["run_id"], fields["status"], fields["end_time"])
        return {}

    def _get(self, fields: Fields) -> Reply:
        run = self._client.get_run(fields["run_id"])
        info = {
            name: getattr(run.info, name)
            for name in ("run_id", "experiment_id", "artifact_uri", "lifecycle_stage", "status")
        }
        return {"run": {"info": info, "data": _texts(run.data)}}

    def _search(self, fields: Fields) -> Reply:
        found = self._client.search_runs(
            fields["experiment_ids"], fields["filter"], max_results=fields["max_results"]
        )
        return {"runs": [{"info": {"run_id": run.info.run_id}} for run in found]}

    def _log(self, fields: Fields) -> Reply:
        kinds = self._entities
        metrics = [
            kinds.Metric(item["key"], float(item["value"]), item["timestamp"], item["step"])
            for item in fields.get("metrics", ())
        ]
        params = [kinds.Param(item["key"], item["value"]) for item in fields.get("params", ())]
        tags = [kinds.RunTag(item["key"], item["value"]) for item in fields.get("tags", ())]
        self._client.log_batch(fields["run_id"], metrics=metrics, params=params, tags=tags)
        return {}

    def _log_inputs(self, fields: Fields) -> Reply:
        kinds = self._entities
        inputs = [
            kinds.DatasetInput(
                kinds.Dataset(**item["dataset"]),
                tags=[kinds.InputTag(tag["key"], tag["value"]) for tag in item.get("tags", ())],
            )
            for item in fields["datasets"]
        ]
        self._client.log_inputs(fields["run_id"], datasets=inputs)
        return {}


def _shown(experiment: Any) -> Reply:
    return {
        "experiment": {
            name: getattr(experiment, name) for name in ("experiment_id", "name", "lifecycle_stage")
        }
    }


def _texts(data: Any) -> Reply:
    return {
        kind: [{"key": key, "value": value} for key, value in getattr(data, kind).items()]
        for kind in ("params", "tags")
    }


class Store(Mirror):
    """A tracking store, in which a run may stand before it has begun."""

    def __init__(self, uri: str) -> None:
        """Take the address of the store, in any of MLflow's forms."""
        self._client = self._server = Client(uri)  # type: ignore[assignment]
        self.name = self._client.name
        self._reserved: dict[str, str] = {}

    def reserve(self, ours: str, fields: Fields, tags: Mapping[str, str]) -> str:
        """Create a run for one of ours, which `begin` takes then; give its id there."""
        self._reserved[ours] = self._create(dict(fields), tags)
        return self._reserved[ours]

    def settle(self, run_id: str, status: str, ended_ms: int, tags: Mapping[str, str]) -> None:
        """Give a run its final status, unless it has one, and tags."""
        info = self._client.call("GET", "runs/get", {"run_id": run_id})["run"]["info"]
        self._log(run_id, {}, tags, noted={})
        if info["status"] == "RUNNING":
            self._end(run_id, status, ended_ms)

    def _create(self, fields: Reply, tags: Mapping[str, str]) -> str:
        """Create a run, or take the one that waits; MLflow's word for its backend is our name."""
        place = tags.get(SYSTEM_TAGS["backend"], "")
        tags = {**tags, SYSTEM_TAGS["backend"]: NAME, **({BACKEND_TAG: place} if place else {})}
        waiting = self._reserved.get(tags.get(RUN_TAG, ""))
        if waiting is None:
            return super()._create(fields, tags)
        self._log(waiting, {}, tags, noted={})
        return waiting

    def _way(self, folder: str, uri: str) -> Callable[[str], None] | None:
        if not os.path.isdir(folder):
            return None
        return lambda file: self._client.copy(
            os.path.join(folder, file), uri, os.path.dirname(file)
        )


class Shown(Relay):
    """Shows the runs of one call in the store of the MLflow that calls."""

    def __init__(self, uri: str, environ: Mapping[str, str], folder: str) -> None:
        """Take the store's address, and the folder of the outbox."""
        # not as for a server, whose address has to be one
        self.mirror: Store = Store(uri)
        self.served: dict[str, str] = {}
        self.folder = folder
        self.environ = environ

    def reserve(self, ours: str, request: Request) -> str:
        """Create the run of a request, which may have to wait before it begins; give its id.

        Raises Unreachable, and UsageError for an experiment that is not there.
        """
        experiment_id, _name = self.mirror.experiment(experiment_id=request.experiment_id)
        tags = {
            "mlflow.source.type": "PROJECT",
            SYSTEM_TAGS["source"]: without_credentials(request.uri),
            SYSTEM_TAGS["entry_point"]: request.entry_point,
            RUN_TAG: ours,
        }
        if request.parent_run:
            tags[SYSTEM_TAGS["parent"]] = request.parent_run
        fields = {
            "experiment_id": experiment_id,
            "run_name": request.run_name,
            "start_time": time.time_ns() // 1_000_000,
        }
        self.served[ours] = self.mirror.reserve(ours, fields, tags)
        return self.served[ours]

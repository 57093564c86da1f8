"""Backends that other packages have made for MLflow: each runs a whole project its own way."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

from repro.backends.local import Local, Running
from repro.errors import Unsupported, UsageError
from repro.ports import Confinement
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.ports import Job, Sink

PROGRAM = "repro.backends.foreignrun"
ORDER = "order.json"
GRACE_MS = 60_000
"""To tell whatever the plug-in talks to that the run is to end."""
TRACKING = ("MLFLOW_", "NO_PROXY", "no_proxy")


def lacks(_environ: Mapping[str, str]) -> str:
    """Say what is missing for plug-ins of MLflow, or nothing."""
    return "" if find_spec("mlflow") else "the package `mlflow` is not installed"


class Foreign:
    """Runs the project of a step through a plug-in for MLflow.

    The plug-in gets the private folder of the step as the project, and the entry point with its
    parameters; how it runs them, in which environment and where its outputs stay is its own
    affair. It works in a process of its own, with the caller's variables; what it prints is the
    step's output. The run that it makes is on the caller's tracking server where
    `MLFLOW_TRACKING_URI` names one, and otherwise below the run of the step, which has its
    parameters, metrics and tags in any case.
    """

    environments = "projects"

    def __init__(
        self, name: str, config: Mapping[str, Any], origin: str, *, environ: Mapping[str, str]
    ) -> None:
        """Take the plug-in's name, its settings and who brings it. Raises Unsupported."""
        missing = lacks(environ)
        if missing:
            raise Unsupported(
                f"the backend `{name}` of {origin} is a plug-in for MLflow, and {missing}",
                hints=["install it with `pip install mlflow`"],
            )
        self.name = name
        self._config = dict(config)
        self._environ = environ

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start the plug-in, as `repro.ports.Backend` says; it needs the job's `entry_point`.

        Cancelling it asks the plug-in to cancel its run. Raises UsageError for a step that does
        not see the MLproject file.
        """
        if not any(name.lower() == "mlproject" for name in os.listdir(job.folder)):
            raise UsageError(
                f"the backend `{self.name}` runs the whole project, and the step does not see it",
                hints=["add `MLproject` to the `inputs:` of the entry point"],
            )
        variables = self._variables(job)
        order = os.path.join(job.base or os.path.dirname(job.folder), ORDER)
        files.replace(order, json.dumps(self._order(job)).encode(), durable=False)
        errand = replace(
            job,
            argv=(sys.executable, "-P", "-m", PROGRAM, order),
            variables=variables,
            grace_ms=max(job.grace_ms, GRACE_MS),
            confinement=Confinement(),
            starter=(),
        )
        return Local().submit(errand, sink)

    def find(self, _run_id: str, _sink: Sink | None = None, _base: str = "") -> None:
        """Find nothing: MLflow has no way to come back to a run of a plug-in."""

    def orphans(self) -> tuple[str, ...]:
        """Know of none, for the same reason."""
        return ()

    def _variables(self, job: Job) -> dict[str, str]:
        """Give the plug-in the caller's variables, and a place for runs where there is none."""
        own = {name: text for name, text in self._environ.items() if name != "MLFLOW_RUN_ID"}
        if own.get("MLFLOW_TRACKING_URI"):
            return own
        given = {n: text for n, text in job.variables.items() if n.startswith(TRACKING)}
        given.pop("MLFLOW_RUN_ID", None)
        return {**own, **given}

    def _order(self, job: Job) -> dict[str, Any]:
        return {
            "backend": self.name,
            "config": self._config,
            "project": job.folder,
            "entry_point": job.entry_point,
            "parameters": dict(job.parameters),
            "docker_args": {n: True if v is None else v for n, v in job.container},
            "receiver": {
                "uri": job.variables.get("MLFLOW_TRACKING_URI", ""),
                "token": job.variables.get("MLFLOW_TRACKING_TOKEN", ""),
                "run_id": job.variables.get("MLFLOW_RUN_ID", ""),
            },
            "experiment_id": job.variables.get("MLFLOW_EXPERIMENT_ID", "0"),
        }

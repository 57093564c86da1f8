"""The mirror of `mlflow.projects`: MLflow's names translated into a request, and no logic."""

from __future__ import annotations

import os
import sys

from repro import api
from repro.api import SubmittedRun
from repro.errors import ExecutionException, Unsupported, UsageError
from repro.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.events import Event

__all__ = ["ExecutionException", "SubmittedRun", "run"]


def run(  # noqa: PLR0913, PLR0917  (the signature of mlflow.projects.run)
    uri: str,
    entry_point: str = "main",
    version: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    docker_args: Mapping[str, Any] | None = None,
    experiment_name: str | None = None,
    experiment_id: str | None = None,
    backend: str = "local",
    backend_config: Mapping[str, Any] | str | None = None,
    use_conda: bool = True,  # noqa: FBT001, FBT002
    storage_dir: str | None = None,
    synchronous: bool = True,  # noqa: FBT001, FBT002
    run_id: str | None = None,
    *,
    run_name: str | None = None,
    env_manager: str | None = None,
    build_image: bool = False,
    docker_auth: Mapping[str, str] | None = None,
) -> SubmittedRun:
    """Run an MLproject and give the run, as `mlflow.projects.run` does.

    Args:
        uri: local folder, zip archive or Git remote, with an optional `#subdirectory`.
        entry_point: name of an entry point, or a script with its extension.
        version: branch, tag, or full or abbreviated commit of a Git project.
        parameters: values by name; they become text with `str`.
        docker_args: options of `docker run`, by name, for projects with a `docker_env`.
        experiment_name: experiment on the tracking server, made if it is not there.
        experiment_id: id of an experiment that is there.
        backend: where the step runs; `local` is this machine.
        backend_config: settings of the backend, or the path of a JSON file with them.
        use_conda: False runs in the caller's own environment.
        storage_dir: folder for files that `path` parameters bring from elsewhere.
        synchronous: wait for the end, and raise if it is no success.
        run_id: id that the run gets, 32 hexadecimal digits; a new one by default.
        run_name: name of the run on the tracking server.
        env_manager: `local`, `virtualenv`, `uv` or `conda`; by default the project's own kind.
        build_image: build an image with the project, for projects with a `docker_env`.
        docker_auth: credentials of an image registry.

    Raises:
        ExecutionException: a synchronous run did not succeed; its `run` is the run.
        ReproError: whatever kept the step from running; the root of all errors of repro.
    """
    if experiment_name and experiment_id:
        raise UsageError("Specify only one of 'experiment_name' or 'experiment_id'.")
    if docker_args or build_image or docker_auth:
        raise Unsupported("docker is not available in this version")
    del backend_config  # the local backend has no settings
    request = Request(
        uri=uri,
        entry_point=entry_point,
        version=version or "",
        parameters=dict(parameters or {}),
        env_manager=env_manager or ("" if use_conda else "local"),
        backend=backend,
        storage=os.path.abspath(storage_dir) if storage_dir else "",
        run_id=run_id or "",
        run_name=run_name or "",
        experiment_name=experiment_name or "",
        experiment_id=str(experiment_id or ""),
        parent_run=_active_run(),
        caller=os.getcwd(),
    )
    submitted = api.submit(request, synchronous=synchronous, emit=relay)
    if synchronous and not submitted.wait():
        raise api.failure(submitted)
    return submitted


def relay(event: Event) -> None:
    """Pass the output of a step to this process's own streams, as a child's would go there."""
    from repro import events

    if isinstance(event, events.Output):
        stream = sys.stdout if event.stream == "stdout" else sys.stderr
        if stream is not None:
            stream.write(event.data.decode("utf-8", "replace"))
            stream.flush()
    elif isinstance(event, events.Warned):
        import logging

        logging.getLogger("repro").warning("%s%s", event.text, event.hint and f" ({event.hint})")


def _active_run() -> str:
    """Give the run that the caller has open in MLflow, or the step that the caller runs in."""
    mlflow = sys.modules.get("mlflow")
    active = mlflow.active_run() if mlflow is not None and hasattr(mlflow, "active_run") else None
    return str(active.info.run_id) if active else os.environ.get("REPRO_RUN_ID", "")

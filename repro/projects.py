"""The mirror of `mlflow.projects`: MLflow's names translated into a request, and no logic."""

from __future__ import annotations

import codecs
import os
import sys

from repro import api, digest, errors, events, plan
from repro.api import SubmittedRun
from repro.errors import ExecutionException, ReproError, UsageError
from repro.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.drivers.inside import client
    from repro.drivers.inside.client import CalledRun
    from repro.events import Event
    from repro.images.logins import Given

__all__ = ["ExecutionException", "SubmittedRun", "run"]

ID_LENGTH = 32


def run(  # noqa: PLR0913, PLR0917  (the signature of mlflow.projects.run)
    uri: str | os.PathLike[str],
    entry_point: str = "main",
    version: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    docker_args: Mapping[str, Any] | None = None,
    experiment_name: str | None = None,
    experiment_id: str | int | None = None,
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
) -> SubmittedRun | CalledRun:
    """Run an MLproject and give the run, as `mlflow.projects.run` does.

    In the code of a step that repro runs, it is that repro which runs it, as a step beside.

    Args:
        uri: local folder, zip archive or Git remote, with an optional `#subdirectory`.
        entry_point: name of an entry point, or a script with its extension.
        version: branch, tag, or full or abbreviated commit of a Git project.
        parameters: values by name; they become text with `str`.
        docker_args: options of `docker run`, by name, for projects with a `docker_env`.
        experiment_name: experiment on the tracking server, made if it is not there.
        experiment_id: id of an experiment that is there.
        backend: where the step runs; `local` is where the project says, by default this machine.
        backend_config: settings of the backend, or the path of a JSON file with them.
        use_conda: False runs in the caller's own environment.
        storage_dir: folder for files that `path` parameters bring from elsewhere.
        synchronous: wait for the end, and raise if it is no success.
        run_id: id that the run gets, 32 hexadecimal digits; a new one by default.
        run_name: name of the run on the tracking server.
        env_manager: `local`, `virtualenv`, `uv` or `conda`; by default the project's own kind.
        build_image: run in an image that has the files of the step in it too.
        docker_auth: `username` and `password` for an image `registry`, by default Docker Hub.

    Raises:
        ExecutionException: a synchronous run did not succeed; its `run` is the run.
        ReproError: whatever kept the step from running; the root of all errors of repro.
    """
    if experiment_name and experiment_id:
        raise UsageError("Specify only one of 'experiment_name' or 'experiment_id'.")
    if "REPRO_CALLS" in os.environ and backend == "local":
        return _called(locals())
    request = Request(
        uri=os.fspath(uri),
        entry_point=entry_point,
        version=version or "",
        parameters=dict(parameters or {}),
        env_manager=env_manager or ("" if use_conda else "local"),
        # its default stands for what the project says
        backend="" if backend == plan.LOCAL else backend,
        storage=os.path.abspath(storage_dir) if storage_dir else "",
        run_id=_checked(run_id) if run_id else "",
        run_name=run_name or "",
        experiment_name=experiment_name or "",
        experiment_id="" if experiment_id is None else str(experiment_id),
        parent_run=_active_run(),
        caller=os.getcwd(),
        container=_container(docker_args or {}),
        config=backend_config,
        build_image=build_image,
    )
    submitted = api.submit(request, synchronous=synchronous, emit=Echo(), login=_login(docker_auth))
    if synchronous and not submitted.wait():
        raise api.failure(submitted)
    return submitted


def _login(given: Mapping[str, str] | None) -> Given | None:
    """Read a login for a registry. Raises UsageError."""
    if not given:
        return None
    from repro.images import logins

    return logins.given(given)


def _called(given: Mapping[str, Any]) -> CalledRun:
    """Ask the repro that runs the step which this code belongs to."""
    from repro.drivers.inside import client

    try:
        begun = client.begin(given)
        good = not given["synchronous"] or begun.wait()
    except client.ReproError as error:
        raise _as_here(error) from None
    if not good:
        hints = [f"`repro show {begun.run_id[:8]} --log` shows its output"]
        raise ExecutionException(client.failure(begun), run=begun, hints=hints)
    return begun


def _as_here(error: client.ReproError) -> ReproError:
    """Give an error as it would have been raised here."""
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    for kind in kinds:
        if issubclass(kind, ReproError) and kind.code == error.code:
            try:
                return kind(error.message, hints=error.hints)
            except TypeError:
                break  # it takes more than a message
    return ReproError(error.message, hints=error.hints)


class Echo:
    """Passes the output of one run to this process's own streams, as a child's would go there."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in ("stdout", "stderr")}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, events.Output):
            try:
                self._write(event.stream, event.data)
            except (OSError, ValueError):
                pass  # the stream is closed, or nobody reads it: the log of the run has it all
        elif isinstance(event, events.Warned):
            import logging

            logging.getLogger("repro").warning(
                "%s%s", event.text, event.hint and f" ({event.hint})"
            )

    def _write(self, name: str, data: bytes) -> None:
        stream = sys.stdout if name == "stdout" else sys.stderr
        if stream is None:
            return
        raw = getattr(stream, "buffer", None)
        if raw is None:  # a stream of text alone, as in a notebook
            stream.write(self._decoders[name].decode(data))
        else:
            stream.flush()
            raw.write(data)
        stream.flush()


def _container(docker_args: Mapping[str, Any]) -> dict[str, str | None]:
    """Give options of the container engine as the request takes them: True stands for a flag."""
    return {
        str(name): None if value is True else str(value)
        for name, value in docker_args.items()
        if value is not False and value is not None
    }


def _checked(run_id: str) -> str:
    """Give a run id that may be used. Raises UsageError."""
    if len(run_id) != ID_LENGTH or not set(run_id) <= digest.DIGITS:
        raise UsageError(
            f"`{run_id[:60]}` is no run id",
            hints=[f"a run id has {ID_LENGTH} hexadecimal digits, in lower case"],
        )
    return run_id


def _active_run() -> str:
    """Give the run that the caller has open in MLflow, or the step that the caller runs in."""
    mlflow = sys.modules.get("mlflow")
    active = mlflow.active_run() if mlflow is not None and hasattr(mlflow, "active_run") else None
    return str(active.info.run_id) if active else os.environ.get("REPRO_RUN_ID", "")

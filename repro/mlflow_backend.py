"""repro as a backend of MLflow: `mlflow run . -b repro`, and the same from Python.

Only MLflow imports this. The run that it shows is its own, in whatever store it is set to; what a
step logs arrives there, and what an earlier run has logged too, when its result is reused.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from importlib import import_module

from repro import api, quantity
from repro.backends import configuration
from repro.errors import Problem, ProjectInvalid, ReproError, Unreachable
from repro.events import Missed, Output, Progress, Reused, Warned
from repro.images import logins
from repro.plan import Course, Request
from repro.projects import Echo
from repro.runlog import pieces
from repro.store.blobs import BlobMissing
from repro.store.home import data_home
from repro.tracking.store import Shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Any, NoReturn

    from repro.events import Event
    from repro.images.logins import Given

SCHEMA = "backend-mlflow"
MANAGER, CONTAINER, STORAGE = "ENV_MANAGER", "DOCKER_ARGS", "STORAGE_DIR"
BUILD, AUTH = "build_image", "docker_auth"
MLFLOWS = (MANAGER, CONTAINER, STORAGE, BUILD, AUTH, "SYNCHRONOUS")
"""What MLflow itself writes into the settings of every backend."""
ANEW = "relock"
ERROR_TAG = "repro.error"
LONGEST_LOG = 64 << 10
SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_mlflow: Any = import_module("mlflow")
_projects: Any = import_module("mlflow.projects")
_backends: Any = import_module("mlflow.projects.backend.abstract_backend")
_exceptions: Any = import_module("mlflow.exceptions")
_logger = logging.getLogger("mlflow.projects.repro")  # MLflow says where its lines go, and how


def project_backend_builder() -> Backend:
    """Give what runs a project; MLflow calls this for each run."""
    return Backend()


class Backend(_backends.AbstractBackend):  # type: ignore[misc]
    """Runs MLflow's projects with repro: cached, in locked environments, recorded by both."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: Mapping[str, Any] | None,
        version: str | None,
        backend_config: Mapping[str, Any] | None,
        tracking_uri: str,
        experiment_id: str,
    ) -> Submitted:
        """Check everything that can be checked, create the run in MLflow, and start.

        `backend_config` is what the schema `backend-mlflow` says. For the command `mlflow run`
        the run is over when this returns. Raises MLflow's ExecutionException.
        """
        command = _command()
        try:
            config = backend_config or {}
            own = {name: value for name, value in config.items() if name not in MLFLOWS}
            own = configuration.read(own, SCHEMA)
            request = Request(
                uri=project_uri,
                entry_point=entry_point,
                version=version or "",
                parameters=dict(params or {}),
                run_name=str((command and command.params.get("run_name")) or ""),
                experiment_id=str(experiment_id),
                parent_run=_active_run(),
                caller=os.getcwd(),
                **_asked(config, own),
            )
            submitted = _submitted(request, own, tracking_uri, logins.given(config.get(AUTH)))
        except ReproError as error:
            raise _explained(error) from None
        submitted.start()
        if command:
            if not submitted.attended():
                raise _exceptions.ExecutionException(submitted.problem())
            _logger.info("=== Run (ID '%s') succeeded ===", submitted.run_id)
        return submitted


def _asked(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Give the part of the request that is in the settings."""
    container = config.get(CONTAINER) or {}
    timeout = own.get("timeout", 0)
    storage, output, locking = config.get(STORAGE), own.get("output"), own.get("locking", "")
    return {
        "env_manager": config.get(MANAGER) or own.get("env_manager", ""),
        "backend": own.get("backend", ""),
        "config": own.get("backend_config"),
        "container": {n: None if v is True else str(v) for n, v in container.items()},
        "storage": os.path.abspath(storage) if storage else "",
        "output": os.path.abspath(output) if output else "",
        "sandbox": own.get("sandbox", ""),
        "use_results": not (own.get("no_cache") or own.get("refresh")),
        "keep_result": not own.get("no_cache"),
        "locking": "anew" if locking == ANEW else locking,
        "timeout_ms": quantity.milliseconds(timeout),
        "build_image": bool(config.get(BUILD)),
    }


def _submitted(
    request: Request, own: Mapping[str, Any], tracking_uri: str, login: Given | None
) -> Submitted:
    """Prepare a run, and show it in MLflow when nothing speaks against it. Raises ReproError."""
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_EXPERIMENT_ID": request.experiment_id,
        **({"REPRO_REMOTE": ""} if own.get("offline") else {}),
    }
    environ.pop("MLFLOW_EXPERIMENT_NAME", None)
    shown = Shown(tracking_uri, environ, os.path.join(data_home(environ), "outbox"))
    jobs = own.get("jobs", 1) or os.cpu_count() or 1
    course = Course(jobs=jobs, keep_going=own.get("keep_going", False))
    teller = Teller()
    prepared = api.SubmittedRun(request, environ, teller, course, tracking=shown, login=login)
    teller.submitted = prepared
    try:
        run_id = shown.reserve(prepared.run_id, request)
    except BaseException:
        prepared.cancel()
        prepared.run()  # does nothing but to close what was opened
        raise
    return Submitted(prepared, shown, run_id)


class Submitted(_projects.SubmittedRun):  # type: ignore[misc]
    """A run of MLflow that repro carries out; `repro` is the run as repro has it.

    It lives in this process, which waits for it before it exits. Any thread may call any method.
    """

    def __init__(self, prepared: api.SubmittedRun, shown: Shown, run_id: str) -> None:
        """Take what is prepared, and the run that shows it."""
        self.repro = prepared
        self._shown = shown
        self._run_id = run_id
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name=f"repro-{run_id[:8]}")

    @property
    def run_id(self) -> str:
        """Give the id of the run in MLflow."""
        return self._run_id

    def start(self) -> None:
        """Begin to run."""
        self.repro.start()
        self._thread.start()

    def wait(self) -> bool:
        """Block until the run is over; say whether it succeeded.

        Raises MLflow's ExecutionException where the step could not be run.
        """
        self._thread.join()
        if isinstance(self._failure, ReproError):
            raise _explained(self._failure)
        if self._failure is not None:
            raise self._failure
        return self.get_status() == "FINISHED"

    def get_status(self) -> str:
        """Give RUNNING, FINISHED, FAILED or KILLED."""
        return self.repro.get_status()

    def cancel(self) -> None:
        """End the run with everything it started, and return when nothing is left of it."""
        self.repro.cancel()
        self._thread.join()

    def attended(self) -> bool:
        """Wait as a command does: a signal that asks it to end cancels the run first."""
        heeded = () if threading.current_thread() is not threading.main_thread() else SIGNALS
        before = {
            number: signal.signal(number, _leave)
            for number in heeded
            if signal.getsignal(number) not in (signal.SIG_IGN, None)
        }
        try:
            return self.wait()
        except (KeyboardInterrupt, SystemExit):
            self.cancel()
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def problem(self) -> str:
        """Say how the run failed, in the words of MLflow and with where to look."""
        ours = api.failure(self.repro)
        text = ours.message.replace(self.repro.run_id, self._run_id)
        return f"{text} ({'; '.join(ours.hints)})"

    def _follow(self) -> None:
        """Wait for the end, and let MLflow show one whatever became of the run."""
        try:
            self.repro.wait()
        except BaseException as error:  # noqa: BLE001  (raised again by `wait`)
            self._failure = error
        run, failure = self.repro.record, self._failure
        text = run.error if run else str(failure or "")
        try:
            self._shown.mirror.settle(
                self._run_id,
                self.get_status(),
                time.time_ns() // 1_000_000,
                {ERROR_TAG: text} if text else {},
            )
        except Unreachable as error:
            _logger.warning("%s", error.message)


class Teller(Echo):
    """Passes the output of steps on, and says in MLflow's log what becomes of them."""

    def __init__(self) -> None:
        """Begin before there is a run."""
        super().__init__()
        self.submitted: api.SubmittedRun | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, Warned):
            _logger.warning("%s%s", event.text, event.hint and f" ({event.hint})")
        elif isinstance(event, Progress):
            _logger.info("%s: %s", event.step, event.text)
        elif isinstance(event, Missed):
            _logger.info("=== %s runs: %s ===", event.step, event.reason)
        elif isinstance(event, Reused):
            origin, seconds = event.record.origin_run[:8], event.saved_ns / 1e9
            _logger.info("=== %s: reused run %s, saved %.1f s ===", event.step, origin, seconds)
            self._replay(event)
        else:
            super().__call__(event)

    def _replay(self, event: Reused) -> None:
        """Print what the reused run has printed, unless that is long, for what was asked for."""
        run, submitted = event.record, self.submitted
        if submitted is None or run.run_id != submitted.run_id or run.log_size > LONGEST_LOG:
            return
        try:
            log = submitted.blob(run.log) if run.log else b""
        except BlobMissing:
            return
        for _ms, stream, data in pieces(log):
            super().__call__(Output(step=event.step, stream=stream, data=data))


def _explained(error: ReproError) -> Exception:
    """Give an error of ours as MLflow's, which its command line shows in one piece."""
    problems = error.problems if isinstance(error, ProjectInvalid) else (_of(error),)
    lines = [f"{p.where}: {p.message}" if p.where else p.message for p in problems]
    hints = [p.hint for p in problems if p.hint]
    text = "; ".join(lines) + (f" ({'; '.join(hints)})" if hints else "")
    found: Exception = _exceptions.ExecutionException(text)
    return found


def _of(error: ReproError) -> Problem:
    return Problem(
        code=error.code, message=error.message, where=error.where, hint="; ".join(error.hints)
    )


def _command() -> Any:
    """Give the command `mlflow run` as click has it, None for a call from Python.

    MLflow does not wait for the runs of plug-ins on its command line, and would end with success.
    """
    click, cli = sys.modules.get("click"), sys.modules.get("mlflow.cli")
    context = click.get_current_context(silent=True) if click and cli else None
    return context if context and cli and context.command is cli.run else None


def _active_run() -> str:
    """Give the run that the caller has open."""
    active = _mlflow.active_run()
    return str(active.info.run_id) if active else ""


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

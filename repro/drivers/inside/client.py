"""Asks repro, from the code of a step that it runs, to run other steps, and waits for them.

This file works alone. In a step whose environment has no repro it is the module `repro`, with
`repro.run` and `repro.projects.run`; and it is what `mlflow.run` becomes there.
"""

from __future__ import annotations

import functools
import http.client
import inspect
import json
import os
import sys
from urllib.parse import quote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

RUNNING, FINISHED = "RUNNING", "FINISHED"
RUNS = "/api/2.0/repro/runs"
PATIENCE = 15


class ReproError(Exception):
    """Something that keeps a step from running; `code` is that of the error, `hints` say more."""

    def __init__(self, message: str, code: str = "", hints: tuple[str, ...] = ()) -> None:
        """Keep the parts apart."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.hints = hints


class ExecutionException(ReproError):
    """A run did not succeed; `run` is the run."""

    run: CalledRun | None = None


class CalledRun:
    """A run that repro has begun for the code of a step. Any thread may call any method."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """Take what is known of it."""
        self._facts = facts

    @property
    def run_id(self) -> str:
        """Give its id."""
        return str(self._facts["run_id"])

    def wait(self) -> bool:
        """Block until it is over; say whether it succeeded. An interrupt ends the run."""
        try:
            while self._status() == RUNNING:
                self._look(PATIENCE)
        except KeyboardInterrupt:
            self.cancel()
            raise
        return self._status() == FINISHED

    def get_status(self) -> str:
        """Give RUNNING, FINISHED, FAILED or KILLED."""
        if self._status() == RUNNING:
            self._look(0)
        return self._status()

    def cancel(self) -> None:
        """End it with everything it started."""
        if self._status() == RUNNING:
            self._facts = ask("POST", f"{RUNS}/cancel", {"run_id": self.run_id})

    @property
    def key(self) -> str:
        """Give the step key, empty before the end."""
        return str(self._facts.get("key", ""))

    @property
    def cached(self) -> bool:
        """Say whether an earlier result was reused."""
        return bool(self._facts.get("cached"))

    @property
    def error(self) -> str:
        """Say why it did not succeed."""
        return str(self._facts.get("error", ""))

    @property
    def parameters(self) -> dict[str, str]:
        """Give the parameters as text; secrets are masked."""
        return dict(self._facts.get("parameters", {}))

    @property
    def metrics(self) -> dict[str, float]:
        """Give the last value of each metric."""
        return {name: float(text) for name, text in self._facts.get("metrics", {}).items()}

    @property
    def artifacts(self) -> str:
        """Give the folder with the files that it logged, which is there when it is over."""
        return str(self._facts.get("artifacts", ""))

    def _status(self) -> str:
        return str(self._facts["status"])

    def _look(self, seconds: int) -> None:
        facts = ask("GET", f"{RUNS}?run_id={quote(self.run_id)}&seconds={seconds}")
        self._facts = {**self._facts, **facts}


def run(uri: Any, entry_point: str = "main", *others: Any, **named: Any) -> CalledRun:
    """Run a project; the signature is that of `mlflow.projects.run`.

    Raises ExecutionException where a synchronous run does not succeed, ReproError for whatever
    keeps it from running.
    """
    bound = inspect.signature(_signature).bind(uri, entry_point, *others, **named)
    bound.apply_defaults()
    begun = begin(bound.arguments)
    if bound.arguments["synchronous"] and not begun.wait():
        error = ExecutionException(failure(begun))
        error.run = begun
        raise error
    return begun


def _signature(  # noqa: PLR0913, PLR0917  (the signature of mlflow.projects.run)
    uri: Any,
    entry_point: str = "main",
    version: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    docker_args: Mapping[str, Any] | None = None,
    experiment_name: str | None = None,
    experiment_id: Any = None,
    backend: str = "local",
    backend_config: Any = None,
    use_conda: bool = True,  # noqa: FBT001, FBT002
    storage_dir: str | None = None,
    synchronous: bool = True,  # noqa: FBT001, FBT002
    run_id: str | None = None,
    *,
    run_name: str | None = None,
    env_manager: str | None = None,
    build_image: bool = False,
    docker_auth: Any = None,
) -> None:
    """Say what `run` takes."""


def failure(begun: CalledRun) -> str:
    """Say that a run has failed, as MLflow does, and why."""
    return f"Run (ID '{begun.run_id}') failed" + (f": {begun.error}" if begun.error else "")


def begin(given: Mapping[str, Any]) -> CalledRun:
    """Begin a run; `given` are arguments of `run`. Raises ReproError."""
    local = given.get("use_conda", True) in (False, "false")
    parameters = given.get("parameters") or {}
    options = given.get("docker_args") or {}
    asked = {
        "uri": os.fspath(given["uri"]) or ".",
        "entry_point": given.get("entry_point") or "main",
        "version": given.get("version") or "",
        "parameters": {str(n): None if v is None else str(v) for n, v in parameters.items()},
        "container": {
            str(name): None if value is True else str(value)
            for name, value in options.items()
            if value is not False and value is not None
        },
        "env_manager": given.get("env_manager") or ("local" if local else ""),
        "experiment_name": given.get("experiment_name") or "",
        "experiment_id": str(given.get("experiment_id") or ""),
        "storage": os.path.abspath(given["storage_dir"]) if given.get("storage_dir") else "",
        "run_id": given.get("run_id") or "",
        "run_name": given.get("run_name") or "",
        "folder": os.getcwd(),
        "variables": dict(os.environ),
    }
    return CalledRun(ask("POST", RUNS, asked))


def ask(method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask repro and give its answer. Raises ReproError."""
    address = urlsplit(os.environ["REPRO_CALLS"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    headers = {"Authorization": f"Bearer {os.environ['REPRO_CALLS_TOKEN']}"}
    body = None if fields is None else json.dumps(fields).encode("ascii")
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        reply = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReproError(f"repro does not answer any more: {error}") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        hints = tuple(reply.get("hints", ()))
        raise ReproError(str(reply.get("message")), str(reply.get("code", "")), hints)
    return dict(reply)


def adopt(module: Any) -> None:
    """Let `run` of the module `mlflow.projects` ask repro; other backends are left to MLflow."""
    theirs: Callable[..., Any] = module.run
    signature = inspect.signature(theirs)
    kind = type("CalledRun", (CalledRun, module.SubmittedRun), {})

    @functools.wraps(theirs)
    def asked(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        given = bound.arguments
        if given.get("backend", "local") != "local" or given.get("build_image"):
            return theirs(*arguments, **named)
        if given.get("experiment_name") and given.get("experiment_id"):
            return theirs(*arguments, **named)  # which says what is wrong
        try:
            begun = kind(begin(given)._facts)  # noqa: SLF001
            good = not given.get("synchronous", True) or begun.wait()
        except ReproError as error:
            hints = "".join(f"\n  {hint}" for hint in error.hints)
            raise module.ExecutionException(f"{error.message}{hints}") from None
        if not good:
            raise module.ExecutionException(failure(begun))
        return begun

    module.run = asked


if __name__ == "repro":  # nobody has installed the real one here
    __path__: list[str] = []
    SubmittedRun = CalledRun
    projects = sys.modules["repro.projects"] = sys.modules[__name__]

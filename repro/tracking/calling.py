"""The receiver's own endpoints: the code of a step asks for runs of other steps.

    POST runs           begin one; the reply is how it stands
    GET  runs?run_id=   wait for it for some seconds; the reply is how it stands then
    POST runs/cancel    end it

All are below `/api/2.0/repro/`. What a run logs is in the ledger when it is over, so that the
MLflow client of the code finds it there.
"""

from __future__ import annotations

from repro.errors import ReproError
from repro.ports import Asked
from repro.tracking.ledger import Refused
from repro.tracking.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Any

    from repro.ports import Called, Calls
    from repro.tracking.ledger import Ledger

PREFIX = "/api/2.0/repro/"
PATIENCE = 20
TEXTS = (
    *("entry_point", "version", "env_manager", "experiment_name"),
    *("run_id", "run_name", "storage"),
)


class Calling:
    """Passes on what the code of a step asks for. `guard` is held while the ledger changes."""

    def __init__(self, calls: Calls, ledger: Ledger, guard: threading.Lock) -> None:
        """Take who runs, and where what was logged is shown."""
        self._calls = calls
        self._ledger = ledger
        self._guard = guard
        self._own = ledger.main.experiment_id

    def answer(self, method: str, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Give the HTTP status and the reply. Raises Refused for a request that is none."""
        actions = {
            ("POST", "runs"): self._begin,
            ("GET", "runs"): self._wait,
            ("POST", "runs/cancel"): self._cancel,
        }
        action = actions.get((method, path))
        if action is None:
            raise Refused(f"{method} {PREFIX}{path} is not there", "ENDPOINT_NOT_FOUND")
        try:
            return 200, action(Request(fields))
        except ReproError as error:
            problem = {"message": error.message, "hints": list(error.hints), "code": error.code}
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", **problem}
        except OSError as error:
            return 500, {"error_code": "INTERNAL_ERROR", "message": str(error)}

    def _begin(self, request: Request) -> dict[str, Any]:
        given = {name: text for name in TEXTS if (text := request.text(name, ""))}
        experiment = request.text("experiment_id", "")
        if experiment not in ("", self._own):  # the step knows no other ids than ours
            with self._guard:
                given["experiment_name"] = self._ledger.experiment(experiment).name
        asked = Asked(
            uri=request.text("uri"),
            folder=request.text("folder"),
            parameters=request.mapping("parameters"),
            container=request.mapping("container"),
            variables={n: text or "" for n, text in request.mapping("variables").items()},
            **given,
        )
        called = self._calls.begin(asked, self._ended)
        with self._guard:
            self._ledger.called(called)
        return self._shown(called)

    def _ended(self, called: Called) -> None:
        """Show what a run logged, and then that it is over."""
        with self._guard:
            folder = self._ledger.called(called).folder
        self._calls.write(called, folder)
        with self._guard:
            self._ledger.settle(called)

    def _wait(self, request: Request) -> dict[str, Any]:
        run_id = request.text("run_id")
        seconds = max(0, min(request.whole("seconds"), PATIENCE))
        called = self._calls.wait(run_id, seconds)
        return {"run_id": run_id, "status": "RUNNING"} if called is None else self._shown(called)

    def _cancel(self, request: Request) -> dict[str, Any]:
        self._calls.cancel(request.text("run_id"))
        return self._wait(request)

    def _shown(self, called: Called) -> dict[str, Any]:
        with self._guard:
            folder = self._ledger.called(called).folder
        return {
            "run_id": called.run_id,
            "status": called.status,
            "entry_point": called.entry_point,
            "key": called.key,
            "cached": called.cached,
            "error": called.error,
            "parameters": dict(called.parameters),
            "metrics": {key: text for key, text, _at, _step in called.metrics},
            "artifacts": folder,
        }

"""Runs one project through a plug-in for MLflow; a program of its own, with MLflow in it.

Its one argument is the path of the order, a JSON file. It ends with 0 where the plug-in says that
the run succeeded, with 1 where not; on SIGTERM the plug-in is asked to cancel the run. What a good
run has logged is told to the receiver of the step.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib import import_module
from urllib.request import ProxyHandler, Request, build_opener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

GOOD, FAILED, CANCELLED = 0, 1, 128 + signal.SIGTERM
THEIRS = "mlflow."
"""How tags begin that are MLflow's own."""


def main(path: str) -> int:
    """Carry out the order in a file; give the exit status."""
    signal.signal(signal.SIGTERM, _cancel)
    with open(path, "rb") as file:
        order = json.load(file)
    try:
        _report(order["receiver"], _run(order))
    except KeyboardInterrupt:
        return CANCELLED
    except Exception as error:  # noqa: BLE001  (what a plug-in raises is not ours to choose)
        text = " ".join(str(error).split())
        sys.stderr.write(f"repro: {order['backend']}: {type(error).__name__}: {text}\n")
        return FAILED
    return GOOD


def _run(order: dict[str, Any]) -> str:
    """Let MLflow load the plug-in, wait for its run, tag it and settle it; give its id."""
    submitted = import_module("mlflow.projects").run(
        order["project"],
        order["entry_point"],
        parameters=order["parameters"],
        docker_args=order["docker_args"],
        experiment_id=order["experiment_id"],
        backend=order["backend"],
        backend_config=order["config"],
        synchronous=True,
    )
    return str(submitted.run_id)


def _report(receiver: dict[str, str], run_id: str) -> None:
    """Log what a run shows as if the step had logged it."""
    client = import_module("mlflow").MlflowClient()
    data = client.get_run(run_id).data
    metrics = [m for key in data.metrics for m in client.get_metric_history(run_id, key)]
    tags = {key: value for key, value in data.tags.items() if not key.startswith(THEIRS)}
    fields = {
        "run_id": receiver["run_id"],
        "metrics": [
            {"key": m.key, "value": repr(m.value), "timestamp": m.timestamp, "step": m.step}
            for m in metrics
        ],
        "params": [{"key": key, "value": value} for key, value in data.params.items()],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    request = Request(  # noqa: S310  (our own receiver, on the loopback interface)
        f"{receiver['uri']}/api/2.0/mlflow/runs/log-batch",
        data=json.dumps(fields).encode(),
        headers={"Authorization": f"Bearer {receiver['token']}"},
    )
    build_opener(ProxyHandler({})).open(request).close()


def _cancel(_number: int, _frame: FrameType | None) -> None:
    # on this MLflow cancels the run and waits for that
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

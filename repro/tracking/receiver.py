"""A loopback tracking server for one running step, so that unmodified MLflow code logs into repro.

The step's code gets `Receiver.variables` and talks to what it takes for an MLflow server. Files
(artifacts, models) it writes itself, to the folder that it is told. What was logged comes out of
`close`, and nothing of the receiver is needed afterwards.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from repro import errors
from repro.tracking.ledger import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.ports import Calls, Tracked
    from repro.tracking.conversation import Desk

HOST = "127.0.0.1"
MOST_CONNECTIONS = 256
MET = ".met"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
}


def start(
    run_id: str,
    experiment_id: str,
    experiment_name: str,
    folder: str,
    *,
    inherited_tags: Mapping[str, str],
    calls: Calls | None = None,
    before: Mapping[str, str] | None = None,
) -> Receiver:
    """Begin to listen for the step whose run is `run_id`.

    Files that the step logs go below `folder`, which must be writable for it under this very path.
    `inherited_tags` are on the run from the start and not in the result unless they change.
    `calls` runs other projects for its code. `before` are the variables of an earlier receiver:
    its place is taken if it is free. Once the step has called, there is a file beside `folder`, of
    the same name with `.met` behind it.
    """
    ledger = Ledger(run_id, experiment_id, experiment_name, folder, inherited_tags)
    return Receiver(ledger, f"{folder}{MET}", calls, before or {})


class Receiver:
    """Takes the MLflow calls of one running step. `variables` go into the step's environment."""

    variables: Mapping[str, str]

    def __init__(
        self,
        ledger: Ledger,
        mark: str,
        calls: Calls | None,
        before: Mapping[str, str],
    ) -> None:
        """Listen on a port of the system's choice, for holders of a fresh token.

        `mark` is a file to be made at the first call; the other arguments are those of `start`.
        """
        self._ledger = ledger
        self._calls = calls
        self._mark = mark
        self._token = before.get("MLFLOW_TRACKING_TOKEN") or os.urandom(32).hex()
        self._desk: Desk | None = None
        self._closing = False
        self._tracked: Tracked | None = None
        self._listener = _listener(before.get("MLFLOW_TRACKING_URI", ""))
        self._thread = threading.Thread(target=self._listen, name="repro-receiver", daemon=True)
        self._thread.start()
        self.variables = self._variables()

    def _variables(self) -> Mapping[str, str]:
        direct = f"{HOST},localhost"
        address = f"http://{HOST}:{self._listener.getsockname()[1]}"
        return {
            **QUIET,
            **({"REPRO_CALLS": address, "REPRO_CALLS_TOKEN": self._token} if self._calls else {}),
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_TRACKING_TOKEN": self._token,
            # a name and a password, even a server's from the caller, would win over the token
            "MLFLOW_TRACKING_USERNAME": "",
            "MLFLOW_TRACKING_PASSWORD": "",
            "MLFLOW_RUN_ID": self._ledger.main.run_id,
            "MLFLOW_EXPERIMENT_ID": self._ledger.main.experiment_id,
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    @property
    def unknown(self) -> tuple[str, ...]:
        """Name the requests that were refused because repro has no such endpoint."""
        return tuple(self._desk.unknown) if self._desk else ()

    def close(self) -> Tracked:
        """Stop listening and give what was logged; a second call gives the same.

        Raises OutputMissing when the step left its logged files in a state that cannot be read.
        """
        if self._tracked is None:
            self._stop()
            try:
                self._tracked = self._ledger.tracked()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise errors.OutputMissing(
                    f"the files that the step logged cannot be kept: {reason}",
                    hints=[f"look at what the step did to `{error.filename}`"],
                ) from error
        return self._tracked

    def _stop(self) -> None:
        if self._closing:
            return
        self._closing = True
        address = self._listener.getsockname()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # macOS: only a connection wakes who waits for one
            socket.create_connection(address).close()
        self._thread.join()
        self._listener.close()
        if self._desk:
            self._desk.close()

    def _listen(self) -> None:
        while not self._closing:
            try:
                self._welcome(self._listener.accept()[0])
            except (OSError, RuntimeError):  # out of files or threads: some will end
                time.sleep(0 if self._closing else 0.05)

    def _welcome(self, connection: socket.socket) -> None:
        # Most steps never connect: what a conversation needs is loaded when one begins.
        from repro.tracking.conversation import Desk

        if self._desk is None:
            self._desk = Desk(self._ledger, self._token, self._mark, self._calls)
        if self._closing or threading.active_count() > MOST_CONNECTIONS:
            connection.close()
            return
        threading.Thread(target=self._desk.converse, args=[connection], daemon=True).start()


def _listener(address: str) -> socket.socket:
    """Listen where an address says, or where there is room."""
    port = address.rpartition(":")[2]
    for one in (int(port) if port.isdecimal() else 0, 0):
        try:
            return socket.create_server((HOST, one), backlog=128)
        except OSError:
            if not one:
                raise
    raise AssertionError(port)

"""The receiver's HTTP: who may speak, how much, and how an answer or a refusal is written."""

from __future__ import annotations

import hmac
import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from repro.system import files
from repro.tracking.calling import PREFIX as CALLS
from repro.tracking.calling import Calling
from repro.tracking.endpoints import find
from repro.tracking.ledger import Refused
from repro.tracking.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from repro.ports import Calls
    from repro.tracking.ledger import Ledger

PREFIX = "/api/2.0/mlflow/"
LARGEST_BODY = 16 * 1024 * 1024
LARGEST_STRANGER = 64 * 1024
STRANGER_SECONDS = 10
LONGEST_LENGTH = 20  # digits, far above every limit
MOST_UNKNOWN = 100
PROBES = ("/version", "/health")  # clients ask for these and can do without
UNKNOWN = 401
STATUSES = {"RESOURCE_DOES_NOT_EXIST": 404, "ENDPOINT_NOT_FOUND": 404}


class Desk:
    """Answers requests one at a time until it is closed; `unknown` holds what it could not."""

    def __init__(self, ledger: Ledger, token: str, mark: str, calls: Calls | None) -> None:
        """Write into `ledger` what comes from holders of `token`; `calls` runs what they ask.

        `mark` is a file to be made at the first request.
        """
        self._mark = mark
        self._ledger = ledger
        self._authorization = f"Bearer {token}".encode()
        self._lock = threading.Lock()
        self._calling = Calling(calls, ledger, self._lock) if calls else None
        self._connections: set[socket.socket] = set()
        self._closed = False
        self.unknown: dict[str, None] = {}

    def converse(self, connection: socket.socket) -> None:
        """Serve one connection until either side ends it. Never raises."""
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connections.add(connection)
        with suppress(OSError), connection:
            Conversation(connection, self)
        with self._lock:
            self._connections.discard(connection)

    def close(self) -> None:
        """End all conversations; the ledger does not change afterwards."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def knows(self, authorization: str) -> bool:
        """Say whether a request with that header may be answered."""
        given = authorization.encode("latin-1", "replace")
        return hmac.compare_digest(given, self._authorization)

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Give the HTTP status and the reply for a request of someone who may speak."""
        if self._mark:
            files.touch(self._mark)
            self._mark = ""
        try:
            path, fields = _decoded(method, target, body)
            if self._calling and path.startswith(CALLS):
                return self._calling.answer(method, path.removeprefix(CALLS), fields)
            with self._lock:
                return 200, self._reply(method, path, fields)
        except Refused as refusal:
            reply = {"error_code": refusal.code, "message": str(refusal)}
            return STATUSES.get(refusal.code, 400), reply

    def _reply(self, method: str, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        if self._closed:
            raise Refused("The step has ended", "INVALID_STATE")
        endpoint, named = find(method, path.removeprefix(PREFIX))
        if not endpoint or not path.startswith(PREFIX):
            if path not in PROBES and len(self.unknown) < MOST_UNKNOWN:
                self.unknown[f"{method} {path}"] = None
            message = f"{method} {path} is not available while repro runs a step"
            raise Refused(message, "ENDPOINT_NOT_FOUND")
        return endpoint(self._ledger, Request({**fields, **named}))


def _decoded(method: str, target: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """Take a request apart: its path, and its fields from the query or from the body."""
    try:
        url = urlsplit(target)
        asked = parse_qs(url.query, keep_blank_values=True, max_num_fields=1000)
        fields = {name: values[-1] for name, values in asked.items()}
        if method != "GET":
            fields = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Refused("Malformed request: neither its URL nor its body may be broken") from None
    if not isinstance(fields, dict):
        raise Refused("Malformed request: expected a JSON object")
    return unquote(url.path), fields


class Conversation(BaseHTTPRequestHandler):
    """One connection. A stranger gets a short time, a small ear and one answer."""

    protocol_version = "HTTP/1.1"
    server_version = "repro"
    sys_version = ""
    timeout = STRANGER_SECONDS
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, desk: Desk) -> None:
        """Serve the whole connection; return when it has ended."""
        self._desk = desk
        super().__init__(connection, ("127.0.0.1", 0), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a request of whatever method."""
        text = self.headers.get("Content-Length") or "0"
        length = int(text[:LONGEST_LENGTH]) if text.isascii() and text.isdecimal() else -1
        refusal = self._refusal(length)
        if refusal:
            status, code, message = refusal
            self._discard(min(length, LARGEST_STRANGER if status == UNKNOWN else 2 * LARGEST_BODY))
            self.close_connection = True
            self._send(status, {"error_code": code, "message": message})
            return
        self.connection.settimeout(None)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self._send(*self._desk.answer(self.command, self.path, body))

    do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_GET  # noqa: N815  (http.server's names)

    def _refusal(self, length: int) -> tuple[int, str, str] | None:
        """Say why a request is not even read: HTTP status, error code and message."""
        if not self._desk.knows(self.headers.get("Authorization", "")):
            return UNKNOWN, "UNAUTHENTICATED", "The request does not carry the token of this step"
        if length < 0 or "Transfer-Encoding" in self.headers:
            return 411, "INVALID_PARAMETER_VALUE", "The request does not say its length"
        if length > LARGEST_BODY:
            return 413, "INVALID_PARAMETER_VALUE", f"The request exceeds {LARGEST_BODY} bytes"
        return None

    def _discard(self, left: int) -> None:
        # A client that still sends would get a broken connection instead of the answer.
        while left > 0:
            piece = self.rfile.read(min(left, LARGEST_STRANGER))
            left = left - len(piece) if piece else 0

    def _send(self, status: int, reply: dict[str, Any]) -> None:
        body = json.dumps(reply, allow_nan=False).encode("ascii")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is not HTTP in the same form as everything else."""
        del explain
        self.close_connection = True
        reply = {"error_code": "INVALID_PARAMETER_VALUE", "message": message or "Malformed request"}
        self._send(code, reply)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it)
        """Say nothing: the terminal belongs to the step."""

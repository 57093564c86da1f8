"""Carriage through a web server, such as the remote cache."""

from __future__ import annotations

import hmac
import http.client
import os
import urllib.error
import urllib.request
from contextlib import contextmanager

from repro.backends.agent.carriage import Failed, take, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

PART = 1 << 20  # bytes after which held back output is sent
WAIT = 60  # seconds for an answer
SEAL = 64
GONE = (404, 410)
PASSING = (408, 425, 429)


class Http:
    """Carriage through a web server that takes GET and PUT below `/cas/` and `/ac/`.

    What is told goes to names that only those who have `token` can find, and is sealed with it.
    """

    def __init__(self, url: str, token: str, headers: Mapping[str, str]) -> None:
        """Name the server; `headers` go with every request."""
        self.url, self.token, self.headers = url, token, dict(headers)
        self._opener = urllib.request.build_opener(_Stay)
        self._part, self._held = 0, b""

    def claim(self) -> int:
        """Begin an attempt; give its number."""
        attempt = 0
        while self.is_taken(attempt):
            attempt += 1
        self._tell(f"{attempt}.taken", b"")
        return attempt

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return self._told(f"{attempt}.taken") is not None

    def append(self, attempt: int, data: bytes) -> None:
        """Add to the stream; what is small is held back until `flush`."""
        if len(self._held) >= PART:
            self.flush()
        self._attempt = attempt
        self._held += data

    def flush(self) -> None:
        """Send what was held back, as the next part of the stream."""
        if self._held:
            self._tell(f"{self._attempt}.frames.{self._part}", self._held)
            self._part, self._held = self._part + 1, b""

    def read(self, attempt: int, position: int) -> bytes:
        """Read the part of the stream at a position, nothing if it is not there yet."""
        return self._told(f"{attempt}.frames.{position}") or b""

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used, which is a whole part or nothing."""
        return position + bool(used)

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        with self._call("GET", "cas/" + digest) as answer:
            if answer is None:
                raise Failed(f"`{digest}` is not in the cache")
            take(digest, answer.read, target)

    def put(self, digest: str, source: str) -> None:
        """Store a file as a blob."""
        with self._call("HEAD", "cas/" + digest) as answer:
            if answer is not None:
                return
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._send("cas/" + digest, file if size else b"", size)

    @staticmethod
    def recalled() -> bool:
        """Say no: here the engine sends a signal."""
        return False

    def _tell(self, name: str, data: bytes) -> None:
        sealed = self._seal(name, data) + data
        self._send(self._hidden(name), sealed, len(sealed))

    def _told(self, name: str) -> bytes | None:
        with self._call("GET", self._hidden(name)) as answer:
            sealed = b"" if answer is None else answer.read()
        seal, data = sealed[:SEAL], sealed[SEAL:]
        return data if hmac.compare_digest(seal, self._seal(name, data)) else None

    def _seal(self, name: str, data: bytes) -> bytes:
        text = name.encode() + b"\0" + data
        return hmac.new(self.token.encode(), text, "sha256").hexdigest().encode()

    def _hidden(self, name: str) -> str:
        return "ac/" + self._seal("name", name.encode()).decode()

    def _send(self, path: str, body: Any, size: int) -> None:
        with self._call("PUT", path, body, size) as answer:
            if answer is None:
                raise Failed("the server has no place for it")

    @contextmanager
    def _call(self, method: str, path: str, body: Any = None, size: int = 0) -> Iterator[Any]:
        """Give the answer, None where there is nothing."""
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Length"] = str(size)
            headers["Content-Type"] = "application/octet-stream"
        url = f"{self.url}/{path}"
        asked = urllib.request.Request(url, body, headers, method=method)  # noqa: S310  (of the configuration)
        try:
            with self._opener.open(asked, timeout=WAIT) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in GONE:
                raise _refusal(method, error.code) from None
            yield None
        except http.client.HTTPException as error:
            raise OSError(words(error)) from None


def _refusal(method: str, code: int) -> Exception:
    reason = f"the server answers {code} to {method}"
    passes = code in PASSING or code >= http.client.INTERNAL_SERVER_ERROR
    return OSError(reason) if passes else Failed(reason)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: our headers may hold credentials."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""

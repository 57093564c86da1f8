"""The REST API of a Databricks workspace: calls, and what the answers mean."""

from __future__ import annotations

import http
import time

import requests

from repro import __version__
from repro.errors import Unreachable, UsageError
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from repro.backends.databricksaccess import Access

    T = TypeVar("T")

CONNECT, ANSWER = 10, 120  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
DENIED = (401, 403)
MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
LONGEST = 400
CHUNK = 1 << 20


class Down(Unreachable):
    """The workspace did not serve; it may when it is asked again, after `pause` seconds."""

    pause = 0.0


class Refused(UsageError):
    """The workspace does not do it. `word` is its error code, `status` that of HTTP."""

    word = ""
    status = 0

    @property
    def is_missing(self) -> bool:
        """Say whether what was asked for is not there."""
        return self.word in MISSING or self.status in (404, 410)

    @property
    def is_denied(self) -> bool:
        """Say whether it is for who we are."""
        return self.status in DENIED


class Call(Value):
    """One request: `query` goes into the URL, `body` as JSON, `data` as bytes or an open file."""

    method: str
    path: str
    query: Mapping[str, Any] = {}
    body: Mapping[str, Any] | None = None
    data: Any = None


class Client:
    """Calls a workspace. Any thread may use it."""

    def __init__(self, access: Access, patience: float) -> None:
        """Try again for `patience` seconds where the workspace does not serve."""
        self.access, self.patience = access, patience
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"repro/{__version__}"
        self._session.auth = self._signed  # also keeps requests from looking into ~/.netrc

    def _signed(self, asked: requests.PreparedRequest) -> requests.PreparedRequest:
        asked.headers["Authorization"] = self.access.header
        return asked

    def ask(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """Call once; give the answer. Raises Down and Refused."""
        call = Call(method=method, path=path, **fields)
        with self._answered(call) as answer:
            return self._decoded(answer)

    def insist(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """Call until there is an answer: for what may be done twice."""
        return self.patiently(lambda: self.ask(method, path, **fields))

    def content(self, path: str) -> bytes:
        """Give the bytes of a file, asked for once."""
        with self._answered(Call(method="GET", path=path)) as answer:
            return bytes(answer.content)

    def fetch(self, path: str, target: str) -> None:
        """Download into a new file."""
        with (
            self._answered(Call(method="GET", path=path), stream=True) as answer,
            open(target, "wb") as file,
        ):
            try:
                file.writelines(answer.iter_content(CHUNK))
            except requests.RequestException as error:
                raise self._down(type(error).__name__) from None

    def patiently(self, do: Callable[[], T], most: float = float("inf")) -> T:
        """Do what raises Down again and again, for a while, `most` seconds."""
        end, pause = time.monotonic() + min(most, self.patience), FIRST_PAUSE
        while True:
            try:
                return do()
            except Down as error:
                rest = max(pause, error.pause)
                if time.monotonic() + rest > end:
                    raise
            time.sleep(rest)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _answered(self, call: Call, *, stream: bool = False) -> requests.Response:
        if hasattr(call.data, "seek"):
            call.data.seek(0)
        try:
            answer = self._session.request(
                call.method,
                self.access.host + call.path,
                params=dict(call.query),
                json=None if call.body is None else dict(call.body),
                data=call.data,
                timeout=(CONNECT, ANSWER),
                allow_redirects=False,
                stream=stream,
            )
        except requests.RequestException as error:
            raise self._down(type(error).__name__) from None
        if answer.status_code >= http.HTTPStatus.MULTIPLE_CHOICES:
            with answer:
                raise self._refusal(call, answer)
        return answer

    def _decoded(self, answer: requests.Response) -> dict[str, Any]:
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._down("its answer is no JSON object")
        return found

    def _refusal(self, call: Call, answer: requests.Response) -> Down | Refused:
        status = answer.status_code
        try:
            told = answer.json()
        except ValueError:
            told = None
        told = told if isinstance(told, dict) else {}
        word = str(told.get("error_code") or "")
        said = self._shown(str(told.get("message") or word or f"status {status}"))
        if status in PASSING:
            down = self._down(said)
            after = answer.headers.get("Retry-After", "")
            down.pause = min(float(after), 600.0) if after.isdecimal() else 0.0
            return down
        name = call.path.partition("/2.")[2].partition("/")[2].partition("?")[0]
        refused = Refused(f"databricks refuses `{name}`: {said}", hints=self._hints(status, name))
        refused.word, refused.status = word, status
        return refused

    def _hints(self, status: int, name: str) -> list[str]:
        if status not in DENIED:
            return []
        hints = [f"see that the token from {self.access.source} is valid, and may do this"]
        if name.startswith("dbfs/"):
            hints.append(
                "where there is no DBFS, as in new workspaces, set `folder:` to a volume's"
            )
        return hints

    def _down(self, why: str) -> Down:
        return Down(f"databricks does not answer at `{self.access.host}`: {why}")

    def _shown(self, text: str) -> str:
        """Give a text of the workspace in one line, without what must not be shown."""
        for secret in self.access.secrets:
            text = text.replace(secret, "…")
        line = " ".join(text.split()).rstrip(".")[:LONGEST]
        return line[:1].lower() + line[1:]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

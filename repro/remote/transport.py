"""HTTP as remote caches need it: pooled, patient within limits, and suspicious of redirects."""

from __future__ import annotations

import os
import re
import time
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from repro import __version__
from repro.remote.port import CHUNK, Denied, Limits, Unanswered, Unfit
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    from repro.remote.port import Sink, Source

    T = TypeVar("T")
    Signer = Callable[[str, str, dict[str, str]], None]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
MEANINGS = {
    401: "asks for credentials, or for others",
    403: "does not allow it",
    405: "does not take uploads here",
    413: "finds it too large",
    507: "has no room left",
}
FOR_ALL = frozenset({401, 403, 405, 501, 507})
PARTIAL = 206
NO_SUCH_PART = 416
OK = 200
SMALL = 1 << 20
MOST_TRIES = 50


class Answer(Value):
    """What a server said. Names of headers are in lower case; `body` is empty with a sink."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def size(self) -> int | None:
        """Give the size that was announced."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdecimal() else None


class Call(Value):
    """One request. `good` are the statuses that are an answer; others raise.

    `sink` takes the body of a 200. `sign` adds the credentials to the headers of each try; it is
    not asked where a redirect leads to another server. Without `repeat` it is sent once.
    `patience` is how long an answer may take, in seconds, `most` how many bytes it may have.
    """

    method: str
    url: str
    good: tuple[int, ...] = (OK,)
    headers: Mapping[str, str] = {}
    source: Source | None = None
    sink: Sink | None = None
    sign: Signer | None = None
    repeat: bool = True
    patience: float = 0.0
    most: int = SMALL


class Transport:
    """Connections that are kept, to any number of servers. Threads may share it."""

    def __init__(self, limits: Limits) -> None:
        """Prepare; nothing is opened before it is needed."""
        self.limits = limits
        # no session: it would keep cookies, read netrc for any host, and follow redirects
        self._adapter = HTTPAdapter(pool_maxsize=max(limits.threads, 1))
        self._settings: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()

    def call(self, call: Call) -> Answer:
        """Send a request until it is answered. Raises Unanswered, Denied or Unfit.

        A download that broke off goes on where it was. Bytes are handed to the sink once.
        """
        inflow = _Inflow(call.sink)
        if not call.repeat:
            return self._try(call, inflow)
        return self.again(lambda: self._try(call, inflow), lambda: inflow.at)

    def again(self, action: Callable[[], T], progress: Callable[[], int]) -> T:
        """Do something until it is answered, with pauses; as long as there is progress, for long.

        Raises Unanswered when the tries are used up, or when trying again makes no sense.
        """
        failures = 0
        for _ in range(MOST_TRIES):
            before = progress()
            try:
                return action()
            except Unanswered as error:
                failures = 1 if progress() > before else failures + 1
                too_long = error.pause_s > self.limits.longest_pause
                if failures >= self.limits.tries or error.dead or too_long:
                    raise
                time.sleep(max(error.pause_s, _pause(self.limits, failures)))
        raise Unanswered("the connection breaks again and again")

    def _try(self, call: Call, inflow: _Inflow) -> Answer:
        """Send a request once, and where it is redirected to."""
        url, sign = call.url, call.sign
        for _hop in range(self.limits.redirects + 1):
            response = self._send(call, url, sign, inflow.at)
            try:
                if response.status_code not in REDIRECTS or response.status_code in call.good:
                    return self._answer(call, response, inflow)
                location = response.headers.get("Location", "")
            finally:
                _leave(response)
            target = _redirected(call.method, url, location)
            sign = sign if _server(target) == _server(url) else None
            url = target
        raise Denied("redirects in circles")

    def _send(self, call: Call, url: str, sign: Signer | None, at: int) -> requests.Response:
        headers = {
            "User-Agent": f"repro/{__version__}",
            "Accept-Encoding": "identity",
            **call.headers,
        }
        if at:
            headers["Range"] = f"bytes={at}-"
        if sign is not None:
            sign(call.method, url, headers)
        timeout = (self.limits.connect, call.patience or self.limits.answer)
        try:
            prepared = requests.Request(
                call.method, url, headers=headers, data=_body(call.source)
            ).prepare()
            return self._adapter.send(
                prepared, stream=True, timeout=timeout, **self._settings_for(url)
            )
        except requests.exceptions.SSLError:
            raise Denied("has a certificate that is not trusted", always=True) from None
        except requests.exceptions.ConnectionError as error:
            raise Unanswered(_cause(error), dead=_nobody_there(error)) from None
        except requests.exceptions.Timeout:
            raise Unanswered(f"no answer within {timeout[1]:g} s") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Denied(f"cannot be asked: {_cause(error)}") from None

    def _settings_for(self, url: str) -> dict[str, Any]:
        """Give proxies and certificates as the environment names them, looked up once a server."""
        server = _server(url)
        known = self._settings.get(server)
        if known is None:
            with requests.Session() as session:
                found = session.merge_environment_settings(server, {}, None, None, None)
            known = {name: found[name] for name in ("proxies", "verify", "cert")}
            self._settings[server] = known
        return known

    def _answer(self, call: Call, response: requests.Response, inflow: _Inflow) -> Answer:
        status = response.status_code
        headers = {name.lower(): text for name, text in response.headers.items()}
        if call.sink is not None and (status == OK or (status == PARTIAL and inflow.at)):
            inflow.begin(status, headers)
            for piece in _pieces(response):
                inflow.take(piece)
            return Answer(status=OK, headers=headers)
        if status == NO_SUCH_PART and inflow.at:
            raise Unfit("what is there ends earlier than was said")
        if status in PASSING:
            raise Unanswered(f"answered {status}", pause_s=_asked_pause(headers))
        if status not in call.good:
            why = MEANINGS.get(status) or _code(response) or "no"
            raise Denied(f"answered {status}: {why}", always=status in FOR_ALL)
        return Answer(status=status, headers=headers, body=_small(response, call.most))


class _Inflow:
    """The bytes of one download over all its tries; each reaches the sink once."""

    def __init__(self, sink: Sink | None) -> None:
        self.sink = sink
        self.at = 0
        self.skip = 0

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn where the body of an answer begins: by its header, for some call a part a 200."""
        span = headers.get("content-range", "")
        self.skip = 0 if span or status != OK else self.at
        if not self.skip and self.at and not span.startswith(f"bytes {self.at}-"):
            raise Unfit("another part was sent than was asked for")

    def take(self, data: bytes) -> None:
        """Hand over what is new."""
        fresh = data[self.skip :]
        self.skip -= len(data) - len(fresh)
        if fresh and self.sink is not None:
            self.at += len(fresh)
            self.sink(fresh)


class _Body:
    """A source as an HTTP body: of known length, in pieces of our size."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return self.source.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.source.pieces())


def _body(source: Source | None) -> Any:
    if source is None:
        return None
    return _Body(source) if source.size else b""


def _pieces(response: requests.Response) -> Iterator[bytes]:
    try:
        while piece := response.raw.read(CHUNK, decode_content=False):
            yield piece
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unanswered(f"the answer broke off: {_cause(error)}") from None


def _small(response: requests.Response, most: int) -> bytes:
    """Give the body of an answer that is no download."""
    found, size = [], 0
    for piece in _pieces(response):
        found.append(piece)
        size += len(piece)
        if size > most:
            raise Unfit(f"the answer has more than {most} bytes")
    return b"".join(found)


def _code(response: requests.Response) -> str:
    """Give the word by which S3 and registries say what they did not like."""
    try:
        text = response.raw.read(4096, decode_content=False).decode("ascii", "replace")
    except (urllib3.exceptions.HTTPError, OSError):
        return ""
    found = re.search(r"(?:<Code>|\"code\":\s*\")(\w{1,60})", text)
    return found[1] if found else ""


def _leave(response: requests.Response) -> None:
    """Give a connection back where its answer was read, and close it where it was not."""
    try:
        if response.raw.read(SMALL, decode_content=False):
            response.raw.read(1, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        pass  # it is closed below
    response.close()


def _redirected(method: str, url: str, location: str) -> str:
    """Give where a redirect leads, if one may follow it."""
    if method not in ("GET", "HEAD"):
        raise Denied("redirects an upload, which is not followed")
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        same = _server(target) == _server(url)
    except ValueError:
        raise Denied("redirects to what is no URL") from None
    if not location or scheme not in ("http", "https"):
        raise Denied("redirects to what is no URL of the web")
    if scheme == "http" and not same:
        raise Denied("redirects to another server without TLS, which is not followed")
    return target


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _pause(limits: Limits, failures: int) -> float:
    """Give the pause before the next try: longer each time, and never that of the others."""
    jitter = 0.5 + int.from_bytes(os.urandom(2)) / 0x20000
    return min(limits.first_pause * 2.0 ** (failures - 1), limits.longest_pause) * jitter


def _asked_pause(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text[:6]) if text.isascii() and text.isdecimal() else 0.0


def _nobody_there(error: Exception) -> bool:
    """Say whether not even a connection was made."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    nowhere = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(reason, nowhere)


def _cause(error: BaseException) -> str:
    """Give the innermost reason in a few words, without URLs, which may hold secrets."""
    inner: BaseException = error
    for _ in range(8):
        inside = [getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__]
        deeper = next((e for e in inside if isinstance(e, BaseException)), None)
        if deeper is None:
            break
        inner = deeper
    return str(getattr(inner, "strerror", None) or type(inner).__name__).lower()[:100]

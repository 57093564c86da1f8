"""A tracking server as seen over HTTP: a few bounded tries, and errors without secrets."""

from __future__ import annotations

import time
from contextlib import nullcontext
from urllib.parse import quote, unquote, urlsplit

import requests
import urllib3

from repro import errors
from repro.tracking import credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.tracking.credentials import Credentials

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
PAUSES = (0.5, 1.0)
PATIENCE = 15.0
CONNECT = 5.0
UPLOAD = 300.0
LONGEST = 300
OVERLOADED = frozenset({429, 503})
DENIED = frozenset({401, 403})


class Passing(errors.Unreachable):
    """No answer, or one that says later. `acted` where the server may have done its part."""

    def __init__(self, message: str, *, acted: bool) -> None:
        """Say what to check, and whether doing it again may do it twice."""
        hints = ["check MLFLOW_TRACKING_URI, or unset it to run without a server"]
        super().__init__(message, hints=hints)
        self.acted = acted


class Refusal(errors.Unreachable):
    """The server said no: asking again will not help.

    `reason` is MLflow's error code, such as `RESOURCE_DOES_NOT_EXIST`.
    """

    code = "tracking-refused"

    def __init__(
        self, message: str, *, reason: str = "", hint: str = "look at the server's own log"
    ) -> None:
        """Keep the server's code beside its words."""
        super().__init__(message, hints=[hint])
        self.reason = reason


class Server:
    """The HTTP side of a tracking server. `name` is its address as it may be shown and stored."""

    def __init__(self, uri: str, environ: Mapping[str, str]) -> None:
        """Take an http or https address, credentials in it included. Raises UsageError."""
        try:
            url = urlsplit(uri)
            host, scheme = url.hostname, url.scheme
            _ = url.port
        except ValueError:
            host, scheme = None, ""
        if not host or scheme not in {"http", "https"}:
            raise errors.UsageError(
                "the tracking URI is not the address of a server",
                hints=["a server's address begins with `http://` or `https://`"],
            )
        self.name = f"{scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
        self._silent = False
        self._session = requests.Session()
        given = credentials.read(environ)
        self._verify = given.verify
        self._session.cert = given.certificate or None
        self._session.auth = _proof(given, url.username, url.password)
        if given.verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def call(
        self, method: str, path: str, fields: Mapping[str, Any], *, repeat: bool = True
    ) -> dict[str, Any]:
        """Call an endpoint of MLflow's API and give its reply.

        Without an answer, or with one that says later, it is tried three times within 15 s, and
        once within 5 s when the call before had no answer either; with `repeat` off only where the
        server cannot have acted. Raises Unreachable; when the server says no that is a Refusal.
        """
        given = {"params" if method == "GET" else "json": fields}
        response = self._send(method, self.name + API + path, repeat=repeat, **given)
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise self._stranger()
        return reply

    def upload(self, url: str, file: str) -> None:
        """Put a file at a URL from `artifact_url`. Raises as `call` does."""
        self._send("PUT", url, repeat=True, file=file)

    def artifact_url(self, uri: str) -> str:
        """Give the URL of an artifact folder behind the server's proxy; empty for another place.

        Another host is another place: our credentials are not for it.
        """
        url = urlsplit(uri)
        elsewhere = url.netloc and url.netloc != urlsplit(self.name).netloc
        if url.scheme != "mlflow-artifacts" or elsewhere:
            return ""
        return self.name + ARTIFACTS + quote(url.path.strip("/"))

    def _send(self, method: str, url: str, *, repeat: bool, **given: Any) -> requests.Response:
        deadline = time.monotonic() + (CONNECT if self._silent else PATIENCE)
        for pause in () if self._silent else PAUSES:
            try:
                return self._try(method, url, deadline, **given)
            except Passing as passing:
                if (passing.acted and not repeat) or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        return self._try(method, url, deadline, **given)

    def _try(
        self, method: str, url: str, deadline: float, *, file: str = "", **given: Any
    ) -> requests.Response:
        left = max(deadline - time.monotonic(), 0.1)
        with open(file, "rb") if file else nullcontext() as body:
            try:
                response = self._session.request(
                    method,
                    url,
                    # requests would send an empty file in chunks, which some proxies refuse
                    data=body if body and body.peek(1) else None,
                    timeout=(min(CONNECT, left), UPLOAD if file else left),
                    allow_redirects=False,
                    verify=self._verify,
                    **given,
                )
            except requests.RequestException as error:
                self._silent = True
                acted = not isinstance(error, requests.ConnectTimeout) and not _unsent(error)
                message = f"tracking server `{self.name}` cannot be reached: {_cause(error)}"
                raise Passing(message, acted=acted) from None
        self._silent = False
        if not response.ok or response.is_redirect:
            raise self._problem(response)
        return response

    def _problem(self, response: requests.Response) -> errors.Unreachable:
        status = response.status_code
        if status in DENIED:
            return errors.Unreachable(
                f"tracking server `{self.name}` refuses the credentials: HTTP {status}",
                hints=["set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the token"],
            )
        if response.is_redirect:
            return errors.Unreachable(
                f"tracking server `{self.name}` has moved: HTTP {status}",
                hints=["set MLFLOW_TRACKING_URI to its new address, `https` included"],
            )
        if status in OVERLOADED or status >= requests.codes.server_error:
            message = f"tracking server `{self.name}` does not serve: HTTP {status}"
            return Passing(message, acted=status not in OVERLOADED)
        try:
            said = response.json()
            reason, words = str(said["error_code"]), str(said.get("message", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger()
        line = " ".join(words.split())[:LONGEST]
        return Refusal(f"tracking server `{self.name}` refuses: {line or reason}", reason=reason)

    def _stranger(self) -> Refusal:
        message = f"`{self.name}` does not answer like an MLflow tracking server"
        return Refusal(message, hint="check MLFLOW_TRACKING_URI: it may name another service")


class _Bearer(requests.auth.AuthBase):
    """Sends the token, and keeps requests from replacing it by what stands in ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _proof(
    given: Credentials, username: str | None, password: str | None
) -> requests.auth.AuthBase | None:
    name, word = given.username, given.password
    if username and not (name and word):
        name, word = unquote(username), unquote(password or "")
    if name and word:
        return requests.auth.HTTPBasicAuth(name.encode(), word.encode())
    return _Bearer(given.token) if given.token else None


def _unsent(error: requests.RequestException) -> bool:
    """Say whether a connection was never made, so that the server cannot have heard of it."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _cause(error: BaseException) -> str:
    """Say in a few words what went wrong; the library's text may hold a proxy's password."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (see MLFLOW_TRACKING_SERVER_CERT_PATH)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not serve"
    link: BaseException | None = error
    while link:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror.lower()
        link = link.__cause__ or link.__context__
    return "the connection broke"

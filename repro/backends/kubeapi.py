"""The API of a Kubernetes cluster: who we are to it, its answers, and what it tells by itself."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import urlencode

import urllib3

from repro.errors import Unreachable, Unsupported, UsageError
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")
    Object = dict[str, Any]

CONNECT_S, ANSWER_S = 10.0, 60.0
WATCH_S = 60
"""Seconds after which the cluster ends a watch, and we begin the next where it ended."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 15.0
FIRST_PATIENCE = 10.0
"""Seconds to try a cluster that has never answered."""
OK, UNAUTHORIZED, FORBIDDEN, MISSING, CONFLICT, GONE = 200, 401, 403, 404, 409, 410
BUSY, SERVER_ERROR = 429, 500
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
LARGEST = 1 << 16


class Down(Unreachable):
    """The cluster did not answer; it may when it is asked again. `pause` is what it asks for."""

    pause = 0.0


class Refused(UsageError):
    """The cluster answers, and says no."""

    def __init__(self, message: str, status: int, *, hints: tuple[str, ...] = ()) -> None:
        """Keep the status of the answer."""
        super().__init__(message, hints=hints)
        self.status = status


class Api:
    """A cluster, as one user of it; threads may share it.

    `namespace` is the usual one of the context. `down_since` is when it stopped to answer, on the
    monotonic clock, 0 while it does.
    """

    def __init__(self, environ: Mapping[str, str], context: str = "") -> None:
        """Read the kubeconfig, or what a pod has; nothing is asked.

        Raises Unsupported without the package `kubernetes`, UsageError without a cluster.
        """
        self._known = _configuration()
        self.namespace = _load(self._known, environ, context)
        self._lock = threading.Lock()
        self._pool = _pool(self._known)
        self.has_answered = False
        self.down_since = 0.0

    def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Object:
        """Ask once. Raises Down, Refused."""
        data = self._text(method, path, body, query)
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Down("the cluster answers with something else than an object")
        return found

    def text(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """Ask for a text, such as a log. Raises Down, Refused."""
        return self._text("GET", path, None, query).decode("utf-8", "replace")

    def steadily(self, patience: float, call: Callable[[], T]) -> T:
        """Call until there is an answer; a cluster that never answered is not tried for long."""
        patience = patience if self.has_answered else min(patience, FIRST_PATIENCE)
        end, pause = time.monotonic() + patience, FIRST_PAUSE
        while True:
            try:
                return call()
            except Down as error:
                wait = max(error.pause, pause)
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)

    def watch(self, path: str, version: str, query: Mapping[str, Any]) -> Iterator[Object]:
        """Give what happens after a version, until the cluster ends that. Raises Down, Refused.

        A version that is too old is refused with the status 410.
        """
        asked: Object = {"watch": "true", "allowWatchBookmarks": "true"}
        asked |= {"resourceVersion": version, "timeoutSeconds": WATCH_S, **query}
        answer = self._send("GET", path, None, asked, WATCH_S + CONNECT_S)
        with contextlib.closing(answer), _explained(self):
            self._check(answer, "GET", path)
            left = b""
            for piece in answer.stream(LARGEST, decode_content=True):
                *lines, left = (left + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _event(line)
                        self._is_up()

    def _text(
        self, method: str, path: str, body: Object | None, query: Mapping[str, Any] | None
    ) -> bytes:
        answer = self._send(method, path, body, query, ANSWER_S)
        with contextlib.closing(answer), _explained(self):
            self._check(answer, method, path)
            return bytes(answer.read(decode_content=True))

    def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        query: Mapping[str, Any] | None,
        seconds: float,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self._known.host.rstrip('/')}{path}"
        if query:
            url += f"?{urlencode(query)}"
        with _explained(self):
            return self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers={**self._proof(), "Content-Type": "application/json"},
                timeout=urllib3.Timeout(connect=CONNECT_S, read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )

    def _proof(self) -> dict[str, str]:
        """Give what proves who we are; it may have to be made anew."""
        with self._lock:
            try:
                found = self._known.auth_settings()
            except Exception as error:  # noqa: BLE001  (programs of others may make it)
                raise Refused(
                    f"what proves who we are to the cluster cannot be had: {_line(str(error))}",
                    UNAUTHORIZED,
                ) from None
        return {one["key"]: one["value"] for one in found.values() if one["value"]}

    def _check(self, answer: urllib3.BaseHTTPResponse, method: str, path: str) -> None:
        """Raise what an answer stands for, unless it is a good one."""
        if answer.status == BUSY or answer.status >= SERVER_ERROR:
            down = Down(f"the cluster at `{self._known.host}` answers {answer.status}")
            with contextlib.suppress(ValueError):
                down.pause = min(float(answer.headers.get("Retry-After", 0)), LONGEST_PAUSE)
            self._is_down()
            raise down
        self._is_up()
        if answer.status >= OK + 100:
            raise _refusal(answer.status, _said(answer.read(decode_content=True)), method, path)

    def _is_up(self) -> None:
        self.has_answered, self.down_since = True, 0.0

    def _is_down(self) -> None:
        self.down_since = self.down_since or time.monotonic()


@contextlib.contextmanager
def _explained(api: Api) -> Iterator[None]:
    """Raise Down for what keeps an answer from coming, or from coming whole."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        api._is_down()  # noqa: SLF001  (a part of it)
        raise Down(
            f"the cluster at `{api._known.host}` does not answer: {_reason(error)}",  # noqa: SLF001
            hints=["see whether `kubectl get jobs` works here"],
        ) from None


def _reason(error: BaseException) -> str:
    """Give what is at the bottom of an error."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return _line(getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _event(line: bytes) -> Object:
    """Read what a watch tells. Raises Refused for an error in it."""
    try:
        event = json.loads(line)
        found: Object = event["object"]
        kind = event["type"]
    except (ValueError, KeyError, TypeError):
        raise Down("the cluster tells what cannot be read") from None
    if kind == "ERROR":
        status = found.get("code") if isinstance(found.get("code"), int) else SERVER_ERROR
        message = _line(str(found.get("message", "")))
        if status != GONE:
            raise Down(f"the cluster ends a watch: {message}")
        raise Refused(message, GONE)
    return {"type": kind, "object": found}


def _said(data: bytes) -> str:
    try:
        found = json.loads(data)
        text = str(found["message"])
    except (ValueError, KeyError, TypeError):
        text = data[:200].decode("utf-8", "replace")
    return _line(text)


def _refusal(status: int, said: str, method: str, path: str) -> Refused:
    if status == UNAUTHORIZED:
        hints = ("log in to the cluster again, or correct the user of the context",)
        return Refused(f"the cluster does not know who we are: {said}", status, hints=hints)
    if status == FORBIDDEN:
        hints = ("`docs/how-to/run-on-kubernetes.md` has the role that repro needs",)
        return Refused(f"the cluster does not let us: {said}", status, hints=hints)
    return Refused(f"the cluster refuses `{method} {path}`: {said}", status)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


# --- who we are ----------------------------------------------------------------------------


def lacks(environ: Mapping[str, str]) -> str:
    """Say what is missing here to talk to a cluster, or nothing."""
    if find_spec("kubernetes") is None:
        return "the package `kubernetes` is not installed"
    if not _places(environ) and not environ.get(HOST):
        return "there is no kubeconfig"
    return ""


def _places(environ: Mapping[str, str]) -> list[str]:
    """Name the files of the kubeconfig that are there."""
    home = environ.get("HOME") or os.path.expanduser("~")
    given = environ.get("KUBECONFIG") or os.path.join(home, ".kube", "config")
    return [place for place in given.split(os.pathsep) if place and os.path.isfile(place)]


def _configuration() -> Any:
    try:
        return import_module("kubernetes.client").Configuration()
    except ImportError:
        raise Unsupported(
            "the kubernetes backend needs the package `kubernetes`",
            hints=["install it with `pip install 'repro-projects[kubernetes]'`"],
        ) from None


def _load(known: Any, environ: Mapping[str, str], context: str) -> str:
    """Read who we are; give the usual namespace."""
    config = import_module("kubernetes.config")
    places = _places(environ)
    try:
        if places:
            joined = os.pathsep.join(places)
            config.load_kube_config(joined, context or None, known, persist_config=False)
            return _namespace(config.list_kube_config_contexts(joined), context)
        if environ.get(HOST) and not context:
            config.load_incluster_config(known)
            return (files.read(f"{ACCOUNT}/namespace") or b"default").decode().strip()
    except Exception as error:  # noqa: BLE001  (of all kinds, for what is written there)
        raise _unusable(str(error), context) from None
    hints = ["write one to `~/.kube/config`, or name it in `KUBECONFIG`"]
    raise UsageError("there is no kubeconfig that leads to a cluster", hints=hints)


def _unusable(said: str, context: str) -> UsageError:
    named = f"the context `{context}` of the kubeconfig" if context else "the kubeconfig"
    hints = ["`kubectl config get-contexts` lists the contexts"]
    return UsageError(f"{named} cannot be used: {_line(said)}", hints=hints)


def _namespace(listed: Any, context: str) -> str:
    contexts, current = listed
    chosen = [one for one in contexts if one["name"] == context] if context else [current]
    return str((chosen[0].get("context") or {}).get("namespace") or "default")


def _pool(known: Any) -> urllib3.PoolManager:
    """Give what connects to the cluster as its configuration says, and to nothing else."""
    options: dict[str, Any] = {
        "cert_reqs": "CERT_REQUIRED" if known.verify_ssl else "CERT_NONE",
        "ca_certs": known.ssl_ca_cert,
        "cert_file": known.cert_file,
        "key_file": known.key_file,
        "maxsize": 10,
        "block": False,
    }
    if known.assert_hostname is not None:
        options["assert_hostname"] = known.assert_hostname
    if getattr(known, "tls_server_name", None):
        options["server_hostname"] = known.tls_server_name
    if known.proxy and not _is_direct(known):
        return urllib3.ProxyManager(known.proxy, proxy_headers=known.proxy_headers, **options)
    return urllib3.PoolManager(**options)


def _is_direct(known: Any) -> bool:
    from requests.utils import should_bypass_proxies

    return bool(should_bypass_proxies(known.host, no_proxy=known.no_proxy or ""))

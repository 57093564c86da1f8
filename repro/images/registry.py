"""A registry of images as seen over HTTP: what it answers is believed by its digest alone.

Credentials go to the registry and to the token server that it names, over TLS or the loopback
interface, and nowhere else. Only contents with a known digest are fetched from other hosts, where
registries keep them, and then without credentials.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.utils import parse_dict_header

from repro import digest
from repro.errors import EnvironmentFailed, Unreachable
from repro.images import logins
from repro.images.manifests import INDEXES, LARGEST, MANIFESTS
from repro.lockfiles.references import HUB, LATEST, is_pin
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, BinaryIO

    from repro.images.manifests import Descriptor
    from repro.lockfiles.references import Reference

    Body = Callable[[], BinaryIO]

HUB_HOST = "registry-1.docker.io"
TIMEOUT = (10.0, 60.0)
PIECE = 1 << 16
REDIRECTS = 5
LARGEST_TOKEN = 1 << 16
LARGEST_CONFIG = 8 << 20
BINARY = "application/octet-stream"
DENIED = frozenset({401, 403})
BUSY = 429
SERVER_ERROR = 500
MISSING = 404


class Absent(EnvironmentFailed):
    """The registry has no such image, or shows it to others only."""


class Answer(Value):
    """A manifest as it came: `digest` is that of its bytes."""

    data: bytes
    digest: str
    media_type: str


class Registry:
    """One registry; `host` is as in the name of an image. Close it."""

    def __init__(
        self,
        host: str,
        environ: Mapping[str, str],
        timeout: tuple[float, float] = TIMEOUT,
        told: logins.Given | None = None,
    ) -> None:
        """Connect to nothing yet; `environ` says where credentials are that were not `told`.

        `timeout` are the seconds for connecting, and between two pieces of an answer.
        """
        self.host = host
        self._told = told
        self._timeout = timeout
        self._environ = environ
        self._address = HUB_HOST if host == HUB else host
        scheme = "http" if is_loopback(host) else "https"
        self._base = f"{scheme}://{self._address}"
        self._proofs: dict[str, str] = {}
        self._session = requests.Session()
        self._session.auth = _as_is

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Registry:
        """Give itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the connections."""
        self.close()

    # -- reading

    def manifest(self, reference: Reference, name: str = "") -> Answer:
        """Give the manifest or index that a reference, or the digest `name` beside it, names.

        Raises Absent, Unreachable, or EnvironmentFailed when the answer is not what was asked for.
        """
        name = name or reference.digest or reference.tag or LATEST
        path = f"/v2/{reference.repository}/manifests/{name}"
        accept = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        with self._send("GET", path, f"{reference.name}:{name}", headers=accept) as response:
            if response.is_redirect:
                raise self._bad("sends us to another place for a manifest")
            data = self._bytes(response, LARGEST)
            told = response.headers.get("Docker-Content-Digest", "")
            kind = response.headers.get("Content-Type", "").partition(";")[0]
        found = f"sha256:{digest.of_bytes(data)}"
        wanted = name if is_pin(name) else told or found
        if is_pin(wanted) and wanted != found:
            raise self._bad(f"answers with another manifest than {wanted}")
        return Answer(data=data, digest=found, media_type=kind)

    def config(self, repository: str, described: Descriptor) -> bytes:
        """Give the configuration of an image, whole and checked."""
        if described.size > LARGEST_CONFIG:
            raise self._bad("has an image whose configuration is too large")
        return b"".join(self.chunks(repository, described))

    def chunks(self, repository: str, described: Descriptor) -> Iterator[bytes]:
        """Give a blob piece by piece; the error for wrong bytes comes at its end."""
        hasher, size = digest.stream(), 0
        with self._blob(repository, described.digest) as response:
            for piece in self._pieces(response):
                size += len(piece)
                if size > described.size:
                    break
                hasher.update(piece)
                yield piece
        if size != described.size or f"sha256:{hasher.hexdigest()}" != described.digest:
            raise self._bad(f"answers with other bytes than {described.digest}")

    def _blob(self, repository: str, name: str) -> requests.Response:
        """Ask for a blob, following to where the registry keeps it."""
        response = self._send("GET", f"/v2/{repository}/blobs/{name}", f"{repository}@{name}")
        for _hop in range(REDIRECTS):
            if not response.is_redirect:
                return response
            url = urljoin(response.url, response.headers["Location"])
            response.close()
            same = self._is_ours(url)
            if not same and urlsplit(url).scheme != "https":
                raise self._bad("sends us to an unsafe place for a layer")
            response = self._request("GET", url, headers=self._proved("", url) if same else {})
            self._check(response, name)
        response.close()
        raise self._bad("sends us around in circles")

    # -- writing

    def has_blob(self, repository: str, name: str) -> bool:
        """Say whether a blob is in a repository."""
        scope = f"repository:{repository}:pull,push"
        try:
            self._send("HEAD", f"/v2/{repository}/blobs/{name}", name, scope=scope).close()
        except Absent:
            return False
        return True

    def mount(self, repository: str, name: str, origin: str) -> bool:
        """Make a blob of the repository `origin` part of another; False where that cannot be."""
        query = urlencode({"mount": name, "from": origin})
        place = self._upload(repository, f"?{query}")
        if place:
            with contextlib.suppress(EnvironmentFailed):  # not all registries let us take it back
                scope = f"repository:{repository}:pull,push"
                self._send("DELETE", place, name, scope=scope).close()
        return not place

    def upload(self, repository: str, described: Descriptor, body: Body) -> None:
        """Put a blob into a repository, unless it is there. `body` opens it anew each time."""
        if self.has_blob(repository, described.digest):
            return
        place = self._upload(repository, "")
        joint = "&" if "?" in place else "?"
        self._send(
            "PUT",
            f"{place}{joint}{urlencode({'digest': described.digest})}",
            repository,
            scope=f"repository:{repository}:pull,push",
            headers={"Content-Type": BINARY, "Content-Length": str(described.size)},
            body=body,
        ).close()

    def put_manifest(self, repository: str, name: str, data: bytes) -> str:
        """Put a manifest under a tag or its own digest; all that it names must be there."""
        found = f"sha256:{digest.of_bytes(data)}"
        response = self._send(
            "PUT",
            f"/v2/{repository}/manifests/{name}",
            f"{repository}:{name}",
            scope=f"repository:{repository}:pull,push",
            headers={"Content-Type": MANIFESTS[0], "Content-Length": str(len(data))},
            body=lambda: io.BytesIO(data),
        )
        response.close()
        if response.headers.get("Docker-Content-Digest", found) != found:
            raise self._bad("has kept another manifest than it was given")
        return found

    def _upload(self, repository: str, query: str) -> str:
        """Begin an upload; give where to put the bytes, nothing where they are there."""
        scope = f"repository:{repository}:pull,push"
        path = f"/v2/{repository}/blobs/uploads/{query}"
        empty = {"Content-Length": "0"}
        response = self._send("POST", path, repository, scope=scope, headers=empty)
        response.close()
        if response.status_code == requests.codes.created:
            return ""
        place = urljoin(response.url, response.headers.get("Location", ""))
        if not self._is_ours(place):
            raise self._bad("sends us to another host for an upload")
        return place

    # -- asking

    def _send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> requests.Response:
        """Ask, proving who we are when asked to. Raises Absent and Unreachable."""
        url = path if "://" in path else self._base + path
        scope = scope or f"repository:{path.removeprefix('/v2/').rsplit('/', 2)[0]}:pull"
        given = dict(headers or {})
        response = self._request(method, url, {**given, **self._proved(scope, url)}, body)
        if response.status_code == requests.codes.unauthorized:
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            self._proofs[scope] = self._proof(challenge, scope)
            response = self._request(method, url, {**given, **self._proved(scope, url)}, body)
        self._check(response, what)
        return response

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None
    ) -> requests.Response:
        opened = body() if body else None
        try:
            return self._session.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                data=opened,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, ValueError) as error:
            raise self._silent(error) from None
        finally:
            if opened:
                opened.close()

    def _proved(self, scope: str, url: str) -> dict[str, str]:
        known = self._proofs.get(scope) or next(iter(self._proofs.values()), "")
        return {"Authorization": known} if known and self._is_ours(url) else {}

    def _proof(self, challenge: str, scope: str) -> str:
        """Give the header that a challenge asks for, empty for none."""
        kind, _, rest = challenge.partition(" ")
        login = logins.of(self.host, self._environ, self._told)
        if kind.lower() == "basic":
            return login.basic if login and login.name else ""
        if kind.lower() != "bearer":
            return ""
        asked: dict[str, str | None] = parse_dict_header(rest)  # type: ignore[no-untyped-call]
        realm = asked.get("realm") or ""
        place = urlsplit(realm)
        if place.scheme != "https" and not (is_loopback(place.netloc) and self._is_plain):
            raise self._bad("wants credentials sent to an unsafe place")
        fields = {"service": asked.get("service") or "", "scope": asked.get("scope") or scope}
        return f"Bearer {self._token(realm, fields, login)}"

    def _token(self, realm: str, fields: dict[str, str], login: logins.Login | None) -> str:
        given: dict[str, Any] = {"params": fields}
        if login and login.token:
            grant = {"grant_type": "refresh_token", "refresh_token": login.token}
            given = {"data": {**fields, **grant, "client_id": "repro"}}
        elif login:
            given["headers"] = {"Authorization": login.basic}
        try:
            response = self._session.request(
                "POST" if "data" in given else "GET",
                realm,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
                **given,
            )
        except (requests.RequestException, ValueError) as error:
            raise self._silent(error) from None
        with response:
            self._check(response, fields["scope"])
            return self._read_token(self._bytes(response, LARGEST_TOKEN))

    def _read_token(self, data: bytes) -> str:
        try:
            told = json.loads(data)
            token = told.get("token") or told["access_token"]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._bad("has a token server that gives no token")
        return token

    @property
    def _is_plain(self) -> bool:
        return self._base.startswith("http:")

    def _is_ours(self, url: str) -> bool:
        place = urlsplit(url)
        return f"{place.scheme}://{place.netloc}" == self._base

    def _bytes(self, response: requests.Response, limit: int) -> bytes:
        data = bytearray()
        for piece in self._pieces(response):
            data += piece
            if len(data) > limit:
                raise self._bad(f"answers with more than {limit >> 10} KiB")
        return bytes(data)

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(PIECE)
        except requests.RequestException as error:
            raise self._silent(error) from None

    def _check(self, response: requests.Response, what: str) -> None:
        status = response.status_code
        if status < requests.codes.bad_request:
            return
        response.close()
        if status == MISSING:
            raise Absent(f"registry `{self.host}` has no `{what}`", hints=["check the name"])
        if status in DENIED:
            raise Absent(
                f"registry `{self.host}` does not show us `{what}`: HTTP {status}",
                hints=["check the name", f"`docker login {self.host}` if it is private"],
            )
        if status == BUSY or status >= SERVER_ERROR:
            hints = ["try again later"]
            raise Unreachable(f"registry `{self.host}` does not serve: HTTP {status}", hints=hints)
        raise EnvironmentFailed(f"registry `{self.host}` refuses `{what}`: HTTP {status}")

    def _bad(self, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(
            f"registry `{self.host}` {what}",
            hints=["a proxy may stand between it and us, or it is not to be trusted"],
        )

    def _silent(self, error: Exception) -> Unreachable:
        hints = ["check the network, and the name of the registry"]
        message = f"registry `{self.host}` cannot be reached: {_cause(error)}"
        return Unreachable(message, hints=hints)


def is_loopback(host: str) -> bool:
    """Say whether a host, with or without a port, is this machine: plain HTTP is safe then."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _as_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting in what stands in ~/.netrc."""
    return request


def _cause(error: BaseException) -> str:
    """Say in a few words what went wrong; the library's text may hold a proxy's password."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    link: BaseException | None = error
    while link:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror.lower()
        link = link.__cause__ or link.__context__
    return "the connection broke"

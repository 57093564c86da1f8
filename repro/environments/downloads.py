"""Files fetched by their digest: what arrives is what was locked, or nothing does."""

from __future__ import annotations

import os
import shutil
import time
from urllib.parse import unquote, urlsplit

from repro import digest
from repro.environments import indexes, urls
from repro.environments.failures import USERINFO
from repro.errors import EnvironmentFailed, Unreachable
from repro.mirrors import Mirrors
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import Response

    from repro.lock import Artifact

CHUNK = 1 << 20
TIMEOUT = (15, 60)  # seconds: to connect, between two pieces
TRIES = 4
SHOWN = 300  # characters of what went wrong
BUSY = (408, 425, 429, 500, 502, 503, 504)
GONE = (404, 410)
REFUSED = (401, 403, 407)
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")


class Short(Exception):
    """A server ended a file before its end."""


def fetch(artifact: Artifact, url: str, path: str, environ: Mapping[str, str]) -> None:
    """Write the file at `url`, or at its mirror, which `artifact` names, to the new file `path`.

    Raises EnvironmentFailed when its bytes are not those that were locked or when it is not there
    any more, Unreachable when it cannot be had now. An attempt that ends early is made again.
    """
    url = indexes.place(url, Mirrors(environ))
    local = urls.path(url)
    found = _copied(local, path, artifact) if local else _downloaded(url, path, artifact, environ)
    if found != artifact.digest:
        raise other_bytes(artifact, found)


def other_bytes(artifact: Artifact, found: str) -> EnvironmentFailed:
    """Give the error for a file that is not the locked one."""
    return EnvironmentFailed(
        f"`{artifact.name}=={artifact.version}` is not what the lock says: its SHA-256 differs",
        hints=[
            f"expected {artifact.digest}",
            f"found    {found}",
            "the file was replaced since it was locked; if that is right, `--relock`",
        ],
    )


def _copied(source: str, path: str, artifact: Artifact) -> str:
    try:
        with open(source, "rb") as file, open(path, "xb") as target:
            shutil.copyfileobj(file, target, CHUNK)
    except FileNotFoundError:
        raise _gone(artifact, source) from None
    with open(path, "rb") as written:
        return digest.of_chunks(files.chunks(written.fileno()))


def _downloaded(url: str, path: str, artifact: Artifact, environ: Mapping[str, str]) -> str:
    import requests

    retries = environ.get("UV_HTTP_RETRIES", "")
    for attempt in range(1 + int(retries) if retries.isdecimal() else TRIES):
        if attempt:
            time.sleep(0.2 * 4**attempt)
        try:
            return _attempted(url, path, artifact, environ)
        except (requests.RequestException, Short) as error:
            reason = str(error)
    raise Unreachable(
        f"the file of `{artifact.name}=={artifact.version}` could not be fetched",
        hints=[f"from {urls.public(url)}", USERINFO.sub(r"\1****@", reason)[:SHOWN]],
    )


def _attempted(url: str, path: str, artifact: Artifact, environ: Mapping[str, str]) -> str:
    import requests

    with requests.Session() as session:
        session.verify = certificates(environ)
        session.headers["Accept-Encoding"] = "identity"
        user = login(url, environ)
        with session.get(url, stream=True, timeout=TIMEOUT, auth=user) as answer:
            if answer.status_code in BUSY:
                raise Short(f"the server answered {answer.status_code}")
            if answer.status_code in GONE:
                raise _gone(artifact, url)
            if answer.status_code in REFUSED:
                raise _refused(artifact, url)
            answer.raise_for_status()
            return _written(answer, path)


def _written(answer: Response, path: str) -> str:
    hasher, size = digest.stream(), 0
    with open(path, "wb") as target:
        for piece in _pieces(answer):
            hasher.update(piece)
            target.write(piece)
            size += len(piece)
    promised = answer.headers.get("Content-Length", "")
    if promised.isdigit() and int(promised) != size:
        raise Short(f"it ended after {size} of {promised} bytes")
    return hasher.hexdigest()


def _pieces(answer: Response) -> Iterator[bytes]:
    """Give the body as it was sent: a server may call a wheel compressed, and mean its content."""
    import urllib3

    try:
        yield from answer.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise Short(str(error)) from None


def certificates(environ: Mapping[str, str]) -> str | bool:
    """Give the file of certificates that the caller's settings name; True for the usual ones."""
    return next((environ[n] for n in CERTIFICATES if environ.get(n)), True)


def login(url: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Give the credentials that the caller's settings hold for the host of `url`.

    They stand in the URLs of mirrors and indexes, or in `~/.netrc`; a lock never has them.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    named = " ".join(environ.get(name, "") for name in indexes.VARIABLES)
    for place in (url, *Mirrors(environ).pairs.values(), *indexes.ADDRESS.findall(named)):
        parts = urlsplit(place)
        if "@" in parts.netloc and parts.netloc.rpartition("@")[2] == host:
            return unquote(parts.username or ""), unquote(parts.password or "")
    import netrc

    path = environ.get("NETRC") or os.path.join(environ.get("HOME", ""), ".netrc")
    try:
        found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return (found[0], found[2] or "") if found else None


def _gone(artifact: Artifact, url: str) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"the file of `{artifact.name}=={artifact.version}` is not there any more",
        hints=[f"it was at {urls.public(url)}", "lock again, with `repro lock --upgrade`"],
    )


def _refused(artifact: Artifact, url: str) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"the file of `{artifact.name}=={artifact.version}` is not given without a login",
        hints=[
            f"from {urls.public(url)}",
            "put the login for that host into `~/.netrc`, or into the URL in `UV_INDEX_URL`",
        ],
    )

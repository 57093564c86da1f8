"""A remote cache on the web, as what carries a job: its address, and who we are to it."""

from __future__ import annotations

import base64
import os
from urllib.parse import unquote, urlsplit

from repro.errors import UsageError
from repro.location import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any
    from urllib.parse import SplitResult

REMOTE = "REPRO_REMOTE"
TOKEN = "REPRO_REMOTE_TOKEN"  # noqa: S105  (the name of a variable)


def usual(environ: Mapping[str, str]) -> str:
    """Give the remote cache of the store, where that is one on the web; else nothing."""
    url = environ.get(REMOTE, "")
    return url if url.startswith(("http://", "https://")) else ""


def carriage(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Give what `carriage.connect` takes for the cache at `url`, with a new token.

    A job shows the server what proves who we are: the user info of the URL, or what
    `REPRO_REMOTE_TOKEN` holds. Keep it private. Raises UsageError for what is no such URL, and
    where credentials would travel in the clear.
    """
    found = _parts(url)
    public = f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path.rstrip('/')}"
    proof = _proof(found, environ)
    if proof and found.scheme != "https" and found.hostname not in LOOPBACK:
        raise UsageError(
            f"credentials are not sent to `{public}`, which has no TLS",
            hints=["use an `https://` URL"],
        )
    headers = {"Authorization": proof} if proof else {}
    return {"kind": "http", "url": public, "token": os.urandom(32).hex(), "headers": headers}


def _parts(url: str) -> SplitResult:
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        found = urlsplit("")
    is_url = found.scheme in ("http", "https") and found.hostname
    if not is_url or found.query or found.fragment or not url.isprintable():
        shown = url.rpartition("@")[2][:80]
        raise UsageError(
            f"`{shown}` is no address of a cache on the web",
            hints=["write it as `https://host/path`, without a query"],
        )
    return found


def _proof(url: SplitResult, environ: Mapping[str, str]) -> str:
    token = environ.get(TOKEN, "")
    if token:
        return f"Bearer {token}"
    if url.username or url.password:
        pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    return ""

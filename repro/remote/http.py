"""A web server as a remote cache: bazel-remote, nginx, or whatever takes GET, HEAD and PUT."""

from __future__ import annotations

import json

from repro import digest
from repro.remote.port import AC, Denied
from repro.remote.transport import Call, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.remote.address import Address
    from repro.remote.port import Limits, Sink, Source
    from repro.remote.transport import Signer

OK = 200
GONE = (404, 410)
STORED = (200, 201, 202, 204)
NO_FOLDER = 409
THERE = 412
LARGEST_LIST = 64 << 20


class Http:
    """A server with `/ac/` and `/cas/` below its URL."""

    def __init__(
        self, address: Address, limits: Limits, sign: Signer | None, *, read_only: bool = False
    ) -> None:
        """Name the server; `sign` adds the credentials to a request."""
        self.name = address.public
        self.base = address.base
        self.limits = limits
        self.read_only = read_only
        self._sign = sign
        self._transport = Transport(limits)

    def _call(self, method: str, path: str, good: tuple[int, ...], **more: object) -> Call:
        url = f"{self.base}/{path}"
        return Call(method=method, url=url, good=good, sign=self._sign, **more)  # type: ignore[arg-type]

    def get(self, kind: str, digest: str, sink: Sink) -> bool:
        """Download."""
        call = self._call("GET", f"{kind}/{digest}", (OK, *GONE), sink=sink)
        return self._transport.call(call).status == OK

    def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Ask for each by HEAD."""
        found: dict[str, int | None] = {}
        for name in digests:
            call = self._call("HEAD", f"{kind}/{name}", (*STORED, *GONE))
            answer = self._transport.call(call)
            if answer.status in STORED:
                found[name] = answer.size
        return found

    def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
        """Upload; a server that keeps folders is asked to make a missing one."""
        call = self._call(
            "PUT",
            f"{kind}/{digest}",
            (*STORED, THERE, NO_FOLDER),
            source=source,
            headers={} if over else {"If-None-Match": "*"},
            patience=self.limits.commit,
        )
        if self._transport.call(call).status == NO_FOLDER:
            self._transport.call(self._call("MKCOL", f"{kind}/", (*STORED, 405)))
            if self._transport.call(call).status == NO_FOLDER:
                raise Denied("has no folder for it, and makes none", always=True)

    def keys(self) -> Iterable[str]:
        """List the results where the server shows its folder as JSON, as nginx can."""
        call = self._call("GET", f"{AC}/", (OK, *GONE, 403, 405), most=LARGEST_LIST)
        answer = self._transport.call(call)
        try:
            rows = json.loads(answer.body) if answer.status == OK else None
        except (ValueError, RecursionError):
            rows = None
        if not isinstance(rows, list):
            raise Denied("cannot list its results: name those to pull")
        names = [str(row.get("name")) for row in rows if isinstance(row, dict)]
        return sorted(name for name in names if digest.is_digest(name))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

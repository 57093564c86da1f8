"""A repository of an OCI registry as a remote cache: blobs by digest, each result as a tag."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode, urljoin, urlsplit

from repro import digest as digests
from repro.remote import envelope
from repro.remote.port import CAS, MOST_PAGES, Bytes, Denied, Part, Unanswered, Unfit
from repro.remote.transport import Call, Transport
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from repro.remote.address import Address
    from repro.remote.credentials import Login
    from repro.remote.port import Limits, Sink, Source
    from repro.remote.transport import Answer, Signer

OK = 200
CREATED = 201
ACCEPTED = 202
UNKNOWN = 401
ABSENT = 404
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
RESULT = "application/vnd.repro.result.v1"
BLOB = "application/octet-stream"
NOTHING = b"{}"
NOTHING_TYPE = "application/vnd.oci.empty.v1+json"
TAG = "ac-"
PASSING = ("DIGEST_INVALID", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN")
"""What a registry says that lost a session, or sees a blob while another writes the same."""
MOST_LAYERS = 15_000
"""A manifest may have 4 MiB; further blobs of a result are named by further manifests."""
LARGEST_ANSWER = 8 << 20


class Oci:
    """A repository. Manifests name all blobs of a result, so that no registry collects them."""

    def __init__(
        self,
        address: Address,
        limits: Limits,
        login: Callable[[], Login | None],
        *,
        read_only: bool = False,
    ) -> None:
        """Name the repository; `login` is asked when the registry wants to know who we are."""
        self.name = address.public
        self.limits = limits
        self.read_only = read_only
        self._server = address.base
        self._repository = address.where["repository"]
        self._login = login
        self._authorization = ""
        self._transport = Transport(limits)

    # -- the port

    def get(self, kind: str, digest: str, sink: Sink) -> bool:
        """Download a blob, or the record that a tag leads to."""
        if kind == CAS:
            return self._get_blob(digest, sink)
        answer = self._ask(
            "GET",
            f"manifests/{TAG}{digest}",
            (OK, ABSENT),
            headers=_accepting(),
            most=LARGEST_ANSWER,
        )
        if answer.status == ABSENT:
            return False
        return self._get_blob(_record_of(answer.body), sink)

    def _get_blob(self, name: str, sink: Sink) -> bool:
        return self._ask("GET", f"blobs/sha256:{name}", (OK, ABSENT), sink=sink).status == OK

    def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Ask for each by HEAD."""
        found: dict[str, int | None] = {}
        for name in digests:
            path = f"blobs/sha256:{name}" if kind == CAS else f"manifests/{TAG}{name}"
            answer = self._ask("HEAD", path, (OK, ABSENT), headers=_accepting())
            if answer.status == OK:
                found[name] = answer.size
        return found

    def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
        """Upload a blob, which the registry verifies, or a record under its tag."""
        del over  # a registry keeps a blob that it has, and moves a tag
        if kind == CAS:
            self._upload(digest, source)
            return
        data = b"".join(source.pieces())
        record = digests.of_bytes(data)
        self._upload(record, Bytes(data))
        self._upload(digests.of_bytes(NOTHING), Bytes(NOTHING))
        blobs = sorted(envelope.blobs_of(data).items())
        for number in range(MOST_LAYERS, len(blobs), MOST_LAYERS):
            more = blobs[number : number + MOST_LAYERS]
            self._tag(f"{TAG}{digest}.{number // MOST_LAYERS}", _manifest([], more))
        self._tag(f"{TAG}{digest}", _manifest([(record, len(data))], blobs[:MOST_LAYERS]))

    def keys(self) -> Iterable[str]:
        """List the results by their tags."""
        path = "tags/list?n=1000"
        for _page in range(MOST_PAGES):
            answer = self._ask("GET", path, (OK, ABSENT), most=LARGEST_ANSWER)
            reply = _json(answer.body) if answer.status == OK else {}
            tags = reply.get("tags") or []
            names = [str(tag)[len(TAG) :] for tag in tags if str(tag).startswith(TAG)]
            yield from (name for name in names if digests.is_digest(name))
            query = re.search(r"<[^>?]*\?([^>]*)>", answer.headers.get("link", ""))
            if not query or not tags:
                return
            path = f"tags/list?{query[1]}"

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # -- uploads

    def _upload(self, name: str, source: Source) -> None:
        """Upload a blob in a session of its own: a broken one is never gone on with blindly."""
        self._steadily(lambda: self._upload_once(name, source))

    def _steadily(self, action: Callable[[], object]) -> None:
        """Do something again that was refused for what others were doing at the time."""

        def once() -> None:
            try:
                action()
            except Denied as error:
                if any(code in str(error) for code in PASSING):
                    raise Unanswered(str(error)) from None
                raise

        self._transport.again(once, lambda: 0)

    def _upload_once(self, name: str, source: Source) -> None:
        location, rest = self._begin(), source
        if source.size > self.limits.part * 2:
            location, rest = self._send_parts(location, source), Bytes(b"")
        query = urlencode({"digest": f"sha256:{name}"})
        joined = f"{location}{'&' if '?' in location else '?'}{query}"
        self._send("PUT", joined, rest, (CREATED,))

    def _begin(self) -> str:
        return self._location(self._ask("POST", "blobs/uploads/", (ACCEPTED,)))

    def _send_parts(self, location: str, source: Source) -> str:
        """Upload in parts; after a broken one, go on where the registry says that it is."""
        place, at, lost = location, 0, False

        def part() -> None:
            nonlocal place, at, lost
            if lost:
                place, at = self._position(place)
                lost = False
            end = min(at + self.limits.part, source.size)
            span = {"Content-Range": f"{at}-{end - 1}"}
            lost = True
            answer = self._send("PATCH", place, Part(source, at, end), (ACCEPTED,), span)
            place, at, lost = self._location(answer), end, False

        while at < source.size:
            self._transport.again(part, lambda: at)
        return place

    def _position(self, place: str) -> tuple[str, int]:
        answer = self._ask("GET", place, (204, ACCEPTED))
        last = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
        return self._location(answer), int(last[1]) + 1 if last and last[1] != "0" else 0

    def _send(
        self,
        method: str,
        url: str,
        source: Source,
        good: tuple[int, ...],
        headers: dict[str, str] | None = None,
    ) -> Answer:
        typed = {"Content-Type": BLOB, **(headers or {})}
        patience = self.limits.commit
        return self._ask(
            method, url, good, headers=typed, source=source, patience=patience, repeat=False
        )

    def _location(self, answer: Answer) -> str:
        """Give where an upload goes on, which must be the same server."""
        url = urljoin(f"{self._server}/", answer.headers.get("location", ""))
        if not url.startswith(f"{self._server}/v2/"):
            raise Denied("sends uploads to another server")
        return url

    def _tag(self, tag: str, manifest: bytes) -> None:
        headers, patience = {"Content-Type": MANIFEST}, self.limits.commit
        more = {"headers": headers, "source": Bytes(manifest), "patience": patience}
        path = f"manifests/{tag}"
        self._steadily(lambda: self._ask("PUT", path, (CREATED,), repeat=False, **more))

    # -- who we are

    def _ask(self, method: str, path: str, good: tuple[int, ...], **more: Any) -> Answer:
        """Send a request below the repository; prove who we are when that is asked."""
        url = path if "://" in path else f"{self._server}/v2/{self._repository}/{path}"
        call = Call(method=method, url=url, good=good, sign=self._sign, **more)
        answer = self._transport.call(replace(call, good=(*good, UNKNOWN)))
        if answer.status == UNKNOWN:
            self._authenticate(answer.headers.get("www-authenticate", ""))
            answer = self._transport.call(call)
        return answer

    def _sign(self, _method: str, _url: str, headers: dict[str, str]) -> None:
        if self._authorization:
            headers["Authorization"] = self._authorization

    def _authenticate(self, challenge: str) -> None:
        """Answer a challenge as Docker does: with the login itself, or with a token for it."""
        kind, _, rest = challenge.partition(" ")
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        login = self._login()
        if kind.lower() == "basic" and login is not None and login.user:
            self._authorization = login.basic
        elif kind.lower() == "bearer" and asked.get("realm"):
            self._authorization = f"Bearer {self._token(asked, login)}"
        else:
            raise Denied("asks for credentials: `docker login` keeps them", always=True)

    def _token(self, asked: dict[str, str], login: Login | None) -> str:
        realm = asked["realm"]
        if urlsplit(realm).scheme != "https" and not realm.startswith(f"{self._server}/"):
            raise Denied("asks to send credentials to another server without TLS")
        actions = "pull" if self.read_only else "pull,push"
        fields = {"scope": f"repository:{self._repository}:{actions}"}
        if asked.get("service"):
            fields["service"] = asked["service"]
        if login is not None and login.token:
            fields |= {"grant_type": "refresh_token", "refresh_token": login.token}
            form = Bytes(urlencode({**fields, "client_id": "repro"}).encode())
            typed = {"Content-Type": "application/x-www-form-urlencoded"}
            call = Call(method="POST", url=realm, headers=typed, source=form)
        else:
            joined = f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"
            call = Call(method="GET", url=joined, sign=_presenting(login))
        reply = _json(self._transport.call(call).body)
        token = reply.get("token") or reply.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise Unanswered("gives no token")
        return token


def _presenting(login: Login | None) -> Signer | None:
    if login is None or not login.user:
        return None
    return lambda _method, _url, headers: headers.update(Authorization=login.basic)


def _accepting() -> dict[str, str]:
    return {"Accept": MANIFEST}


def _manifest(records: list[tuple[str, int]], blobs: list[tuple[str, int]]) -> bytes:
    layers = [_descriptor(RESULT, *record) for record in records]
    layers += [_descriptor(BLOB, *blob) for blob in blobs]
    config = _descriptor(NOTHING_TYPE, digests.of_bytes(NOTHING), len(NOTHING))
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": RESULT,
        "config": config,
        "layers": layers or [config],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(kind: str, name: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": size}


def _record_of(manifest: bytes) -> str:
    """Give the digest of the record that a manifest leads to. Raises Unfit."""
    layers = _json(manifest).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("mediaType") == RESULT:
            name = str(layer.get("digest", "")).removeprefix("sha256:")
            if digests.is_digest(name):
                return name
    raise Unfit("what is there is no result of repro")


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise Unfit("the answer is no JSON") from None
    return found if isinstance(found, dict) else {}

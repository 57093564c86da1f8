"""A bucket as a remote cache: Amazon's S3 and all that speaks its protocol."""

from __future__ import annotations

import re
import time
from html import unescape
from urllib.parse import quote

from repro import digest as digests
from repro.remote import sigv4
from repro.remote.port import AC, CAS, MOST_PAGES, Bytes, Denied
from repro.remote.transport import Call, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.remote.address import Address
    from repro.remote.credentials import AwsKeys
    from repro.remote.port import Limits, Sink, Source
    from repro.remote.transport import Answer

OK = 200
ABSENT = (404,)
TAKEN = (409, 412)
LARGEST_LIST = 16 << 20
MOST_PARTS = 10_000
LEAST_PART = 5 << 20


class S3:
    """A bucket, below a prefix, addressed by path: `endpoint/bucket/prefix/cas/digest`."""

    def __init__(
        self,
        address: Address,
        limits: Limits,
        keys: AwsKeys | None,
        region: str,
        *,
        read_only: bool = False,
    ) -> None:
        """Name the bucket; without keys, requests are not signed."""
        self.name = address.public
        self.limits = limits
        self.read_only = read_only
        self.region = region
        self._part = max(limits.part, LEAST_PART)
        self._keys = keys
        self._prefix = "".join(f"{part}/" for part in (address.where["prefix"],) if part)
        bucket = address.where["bucket"]
        self._bucket = f"{address.base or f'https://s3.{region}.amazonaws.com'}/{bucket}"
        self._transport = Transport(limits)

    def get(self, kind: str, digest: str, sink: Sink) -> bool:
        """Download."""
        answer = self._ask("GET", self._object(kind, digest), good=(OK, *ABSENT), sink=sink)
        return answer.status == OK

    def has(self, kind: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Ask for each by HEAD."""
        found: dict[str, int | None] = {}
        for name in digests:
            answer = self._ask("HEAD", self._object(kind, name), good=(OK, *ABSENT))
            if answer.status == OK:
                found[name] = answer.size
        return found

    def put(self, kind: str, digest: str, source: Source, *, over: bool = False) -> None:
        """Upload, the first writer wins; large blobs in parts."""
        url = self._object(kind, digest)
        condition = {} if over else {"If-None-Match": "*"}
        if source.size > self._part * 2:
            self._put_parts(url, source, condition)
            return
        payload = digest if kind == CAS else digests.of_chunks(source.pieces())
        good = (OK, *(() if over else TAKEN))
        self._ask("PUT", url, payload=payload, good=good, source=source, headers=condition)

    def _put_parts(self, url: str, source: Source, condition: Mapping[str, str]) -> None:
        """Upload in parts, each tried again on its own; what fails leaves nothing behind."""
        begun = self._ask("POST", f"{url}?uploads=")
        upload = _inside(begun.body.decode("utf-8", "replace"), "UploadId")
        if not upload:
            raise Denied("begins no upload in parts")
        asked = {"uploadId": upload[0]}
        try:
            tags = self._send_parts(url, source, asked)
            parts = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
                for number, tag in enumerate(tags, 1)
            )
            body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
            done = self._ask(
                "POST",
                f"{url}?{sigv4.query(asked)}",
                payload=digests.of_bytes(body),
                good=(OK, *TAKEN),
                source=Bytes(body),
                headers=condition,
            )
        except BaseException:
            self._abort(url, asked)
            raise
        if done.status in TAKEN:
            self._abort(url, asked)
        elif b"<Error>" in done.body:  # with status 200: S3 had begun to answer before it failed
            raise Denied("did not put the parts together")

    def _send_parts(self, url: str, source: Source, asked: Mapping[str, str]) -> list[str]:
        size = max(self._part, -(-source.size // MOST_PARTS))
        tags = []
        for number, start in enumerate(range(0, source.size, size), 1):
            piece = Bytes(b"".join(source.pieces(start, min(start + size, source.size))))
            answer = self._ask(
                "PUT",
                f"{url}?{sigv4.query({**asked, 'partNumber': str(number)})}",
                payload=digests.of_bytes(piece.data),
                source=piece,
            )
            tag = answer.headers.get("etag", "")
            tags.append(tag.replace("&", "&amp;").replace("<", "&lt;"))
        return tags

    def _abort(self, url: str, asked: Mapping[str, str]) -> None:
        try:
            self._ask("DELETE", f"{url}?{sigv4.query(asked)}", good=(OK, 204, *ABSENT))
        except Exception:  # noqa: BLE001, S110  (what went wrong before is what counts)
            pass

    def keys(self) -> Iterable[str]:
        """List the results, a thousand at a time."""
        prefix = f"{self._prefix}{AC}/"
        after: dict[str, str] = {}
        for _page in range(MOST_PAGES):
            asked = {"list-type": "2", "prefix": prefix, **after}
            answer = self._ask("GET", f"{self._bucket}?{sigv4.query(asked)}", most=LARGEST_LIST)
            text = answer.body.decode("utf-8", "replace")
            names = [unescape(key).removeprefix(prefix) for key in _inside(text, "Key")]
            yield from (name for name in names if digests.is_digest(name))
            token = _inside(text, "NextContinuationToken")
            if not token or not names or "<IsTruncated>true" not in text:
                return
            after = {"continuation-token": unescape(token[0])}

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _object(self, kind: str, name: str) -> str:
        return f"{self._bucket}/{quote(self._prefix, safe='/-._~')}{kind}/{name}"

    def _ask(
        self,
        method: str,
        url: str,
        *,
        payload: str = digests.EMPTY,
        good: tuple[int, ...] = (OK,),
        source: Source | None = None,
        **more: object,
    ) -> Answer:
        def sign(method: str, url: str, headers: dict[str, str]) -> None:
            if self._keys is not None:
                headers["x-amz-content-sha256"] = payload
                now = time.time()
                headers.update(sigv4.headers(self._keys, self.region, method, url, headers, at=now))

        patience = self.limits.commit if source is not None or method == "POST" else 0.0
        call = Call(
            method=method,
            url=url,
            good=good,
            source=source,
            sign=sign,
            patience=patience,
            **more,  # type: ignore[arg-type]
        )
        return self._transport.call(call)


def _inside(text: str, tag: str) -> list[str]:
    """Give what stands in the elements of a name; no parser that could be bombed."""
    return re.findall(rf"<{tag}>([^<]*)</{tag}>", text)

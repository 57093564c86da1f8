"""Amazon's signature, version 4, as S3 and its likes check it."""

from __future__ import annotations

import hmac
import time
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from repro import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.remote.credentials import AwsKeys

ALGORITHM = "AWS4-HMAC-SHA256"
SAFE = "-._~"


def headers(
    keys: AwsKeys, region: str, method: str, url: str, given: Mapping[str, str], *, at: float
) -> dict[str, str]:
    """Give the headers that sign a request.

    `given` must hold `x-amz-content-sha256`. All headers of `given` that begin with `x-amz-`,
    and `range`, are signed, beside the host. `at` is the time, in seconds since 1970 UTC.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    parts = urlsplit(url)
    signed = {name.lower(): text.strip() for name, text in given.items()}
    signed = {n: t for n, t in signed.items() if n.startswith("x-amz-") or n == "range"}
    signed |= {"host": parts.netloc, "x-amz-date": stamp}
    if keys.session:
        signed["x-amz-security-token"] = keys.session
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path) or "/", safe=f"/{SAFE}"),
            query(dict(parse_qsl(parts.query, keep_blank_values=True))),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            signed["x-amz-content-sha256"],
        ]
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = "\n".join([ALGORITHM, stamp, scope, digest.of_bytes(canonical.encode())])
    key = f"AWS4{keys.secret}".encode()
    for word in (*scope.split("/"), text):
        key = hmac.new(key, word.encode(), "sha256").digest()
    del signed["host"]
    signed["Authorization"] = (
        f"{ALGORITHM} Credential={keys.access}/{scope},SignedHeaders={names},Signature={key.hex()}"
    )
    return signed


def query(fields: Mapping[str, str]) -> str:
    """Write a query as it is signed: sorted, and encoded in the one way that S3 knows."""
    pairs = sorted((quote(n, safe=SAFE), quote(v, safe=SAFE)) for n, v in fields.items())
    return "&".join(f"{name}={text}" for name, text in pairs)

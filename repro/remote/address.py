"""Where a remote cache is: a closed grammar of four kinds of URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from repro.errors import UsageError
from repro.location import LOOPBACK
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

FORMS = (
    "`https://host/path`, `s3://bucket/prefix?endpoint=https://host`, `oci://host/repository` "
    "or `file:///path`"
)
REPOSITORY = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


class Address(Value):
    """A remote cache. `kind` is `http`, `s3`, `oci` or `folder`.

    `base` is what the adapter works with: a URL without a slash at its end, or a path. `public`
    is the whole without credentials. `user` and `password` are those of the URL. `where` are
    the parts that only one kind has: bucket, prefix and region, or repository.
    """

    kind: str
    base: str
    public: str
    user: str = ""
    password: str = ""
    where: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Show no credentials."""
        return f"Address({self.public})"

    @property
    def host(self) -> str:
        """Give host and port of the server."""
        return urlsplit(self.base).netloc

    @property
    def is_safe(self) -> bool:
        """Say whether credentials may travel: over TLS, or not further than this machine."""
        url = urlsplit(self.base)
        return url.scheme == "https" or url.hostname in LOOPBACK


def parse(text: str) -> Address:
    """Read the URL of a remote cache. Raises UsageError for what is none of the four kinds."""
    if not text.isprintable() or text != text.strip():
        raise _refused(text, "contains a control character or a space at an end")
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise _refused(text, "is no URL") from None
    if any(part in (".", "..") for part in unquote(url.path).split("/")):
        raise _refused(text, "contains `.` or `..` as a part of its path")
    read = {"http": _http, "https": _http, "s3": _s3, "oci": _oci, "file": _folder}.get(url.scheme)
    if read is None:
        raise _refused(text, "is of no kind that is known")
    return read(text, url)


def _refused(text: str, why: str) -> UsageError:
    shown = text.rpartition("@")[2].partition("?")[0][:80].encode("unicode_escape").decode()
    return UsageError(f"the remote cache `{shown}` {why}", hints=[f"write {FORMS}"])


def _http(text: str, url: SplitResult) -> Address:
    if not url.hostname or url.query or url.fragment:
        raise _refused(text, "needs a host, and takes neither a query nor a fragment")
    base = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
    return Address(
        kind="http",
        base=base,
        public=base,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
    )


def _s3(text: str, url: SplitResult) -> Address:
    asked = dict(parse_qsl(url.query, keep_blank_values=True))
    unknown = asked.keys() - {"endpoint", "region"}
    if not url.netloc or "@" in url.netloc or ":" in url.netloc or unknown or url.fragment:
        raise _refused(text, "needs a bucket, and takes `endpoint` and `region` alone")
    endpoint = asked.get("endpoint", "")
    if endpoint:
        server = urlsplit(endpoint)
        if server.scheme not in ("http", "https") or not server.hostname or "@" in server.netloc:
            raise _refused(text, "has an endpoint that is no `http://` or `https://` URL")
    where = {
        "bucket": url.netloc,
        "prefix": unquote(url.path).strip("/"),
        "region": asked.get("region", ""),
    }
    return Address(kind="s3", base=endpoint.rstrip("/"), public=text, where=where)


def _oci(text: str, url: SplitResult) -> Address:
    repository = url.path.strip("/")
    parts = repository.split("/")
    good = all(part and set(part) <= REPOSITORY and part[0].isalnum() for part in parts)
    if not url.hostname or "@" in url.netloc or not good or url.query or url.fragment:
        raise _refused(text, "needs a host and the name of a repository in lower case")
    scheme = "http" if url.hostname in LOOPBACK else "https"
    return Address(
        kind="oci",
        base=f"{scheme}://{url.netloc}",
        public=f"oci://{url.netloc}/{repository}",
        where={"repository": repository},
    )


def _folder(text: str, url: SplitResult) -> Address:
    path = unquote(url.path).rstrip("/")
    if url.netloc not in ("", "localhost") or not path or "\0" in path or url.query or url.fragment:
        raise _refused(text, "needs an absolute path after `file://`")
    return Address(kind="folder", base=path, public=f"file://{url.path.rstrip('/')}")

"""Where a project may come from: a closed grammar, decided before any tool sees the text."""

from __future__ import annotations

from repro.errors import SourceRefused
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMES = ("https", "http", "ssh", "git", "file")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEX = frozenset("0123456789abcdefABCDEF")
FULL = 40


class Location(Value):
    """A place to get a project from. `kind` is `folder`, `git` or `zip`.

    `address` is a path or a URL as Git or HTTP takes it, with any credentials. `public` is the
    same without them, for records and messages. `subdirectory` is below the root of what is
    fetched.
    """

    kind: str
    address: str
    public: str
    subdirectory: str = ""

    @property
    def name(self) -> str:
        """Give a short name for people."""
        path = self.subdirectory or self.public
        return path.rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git") or path


def parse(uri: str, is_there: Callable[[str], bool]) -> Location:
    """Read a project URI: `PLACE[#SUBDIRECTORY]`, with MLflow's order of precedence.

    A place is a zip archive (by its name), a local path, or a Git remote over https, ssh, git or
    file, or scp-like. `is_there` says whether a local path exists. Raises SourceRefused for
    everything else, and for subdirectories that leave the project.
    """
    text = uri.strip("'\"")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):  # noqa: PLR2004  (control codes)
        raise SourceRefused(f"the URI {uri[:80]!r} contains a control character")
    if text.startswith("-"):
        raise SourceRefused(
            f"the URI `{uri[:80]}` begins with `-`",
            hints=["a local folder of that name is written `./-name`"],
        )
    place, _, subdirectory = text.partition("#")
    place = place or "."
    subdirectory = _checked(subdirectory)
    path = _local_path(place)
    if path is None:
        kind = _kind_of_url(place)
    elif place.endswith(".zip"):
        kind = "zip"
    elif is_there(path) or place.startswith("file://"):
        kind = "folder"
    else:
        _check_scp_like(place)
        kind = "git"
    address = place if path is None else path
    return Location(
        kind=kind, address=address, public=without_credentials(address), subdirectory=subdirectory
    )


def check_version(version: str) -> str:
    """Give a version that Git may see. Raises SourceRefused for what could be an option or more.

    A version is a branch, a tag, or a full or abbreviated commit.
    """
    bad = set(" ~^:?*[\\\"'`$;&|<>()")
    controls = any(ord(char) < 33 or ord(char) == 127 for char in version)  # noqa: PLR2004
    if (
        not version
        or controls
        or bad & set(version)
        or version.startswith(("-", "+", "/", "."))
        or version.endswith(("/", ".", ".lock"))
        or ".." in version
        or "@{" in version
        or "//" in version
    ):
        raise SourceRefused(
            f"the version {version[:80]!r} is neither a branch or tag nor a commit",
            hints=["give a branch, a tag, or a full or abbreviated commit"],
        )
    return version


def is_commit(version: str) -> bool:
    """Say whether a version can only be a full commit id."""
    return len(version) == FULL and set(version) <= HEX


def is_abbreviated(version: str) -> bool:
    """Say whether a version may be the beginning of a commit id."""
    return 4 <= len(version) < FULL and set(version) <= HEX  # noqa: PLR2004  (Git's minimum)


def _checked(subdirectory: str) -> str:
    parts = [part for part in subdirectory.split("/") if part not in ("", ".")]
    if subdirectory.startswith("/") or ".." in parts:
        raise SourceRefused(
            f"the subdirectory `{subdirectory}` lies outside of the project",
            hints=["write it relative to the root of what is fetched, without `..`"],
        )
    return "/".join(parts)


def _local_path(place: str) -> str | None:
    if place.startswith("file://"):
        path = place.removeprefix("file://")
        for host in ("localhost/", "127.0.0.1/"):
            path = "/" + path.removeprefix(host) if path.startswith(host) else path
        if not path.startswith("/"):
            raise SourceRefused(
                f"`{place}` names another host", hints=["a local path is `file:///PATH`"]
            )
        return path
    scheme, colon, _ = place.partition("://")
    return None if colon and "/" not in scheme else place


def _kind_of_url(place: str) -> str:
    """Say whether a URL is that of a zip archive or a Git remote. Raises SourceRefused."""
    kind = "zip" if place.endswith(".zip") else "git"
    scheme, _, rest = place.partition("://")
    if scheme not in (("http", "https") if kind == "zip" else SCHEMES):
        raise _unknown_transport(f"{scheme}://", kind)
    host = _host(scheme, rest)
    if kind == "git" and scheme == "http" and host not in LOOPBACK:
        raise SourceRefused(
            f"`{without_credentials(place)}` is not encrypted", hints=["use https, or ssh"]
        )
    return kind


def _host(scheme: str, rest: str) -> str:
    """Give the host of a URL, which must be one that every reader of URLs sees as the same.

    What is refused is not repeated: it may be half of a password.
    """
    authority, _tail = _split(rest)
    user, _, address = authority.rpartition("@")
    if address.startswith("["):
        host, closed, port = address[1:].partition("]")
        letters = host.replace(":", "").replace(".", "") if closed else ""
    else:
        host, colon, port = address.partition(":")
        port = colon + port
        letters = _letters(host)
    has_port = port.startswith(":") and port[1:].isdecimal()
    looks_right = letters.isalnum() and not host.startswith("-") and (not port or has_port)
    if not looks_right or user.startswith("-") or "\\" in user:
        raise SourceRefused(
            f"the address `{scheme}://...` names no host that can be one",
            hints=["write `/`, `?`, `#` and `\\` in a password as `%2F`, `%3F`, `%23` and `%5C`"],
        )
    return host


def _letters(host: str) -> str:
    return host.replace("-", "").replace(".", "").replace("_", "")


def _check_scp_like(place: str) -> None:
    """Accept `[user@]host:path`; everything else is a path that is not there."""
    if "::" in place:
        raise _unknown_transport(place.partition("::")[0] + "::", "git")
    before, colon, path = place.partition(":")
    user, at, host = before.rpartition("@")
    if colon and not at and "@" in path.partition("/")[0]:
        raise SourceRefused(
            "a remote with a user and a password needs a scheme",
            hints=["write `https://HOST/PATH`, and leave the password to a credential helper"],
        )
    is_host = _letters(host).isalnum() and not host.startswith("-") and host not in SCHEMES
    is_user = not at or (user and not user.startswith("-"))
    if not path or path.startswith("-") or not is_host or not is_user:
        raise SourceRefused(
            f"there is no project at `{place[:200]}`",
            hints=[
                "give a local folder, a zip archive, or a Git remote such as "
                "`https://HOST/PATH` or `git@HOST:PATH`"
            ],
        )


def _unknown_transport(name: str, kind: str) -> SourceRefused:
    hint = f"allowed are {', '.join(SCHEMES)} and `user@host:path`"
    if kind == "zip":
        hint = "a zip archive is a local file, or comes over http or https"
    return SourceRefused(f"`{name[:40]}` is a transport that is not allowed", hints=[hint])


def _split(rest: str) -> tuple[str, str]:
    """Split what follows `://` into who and where, and the path with the query."""
    end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    return rest[:end], rest[end:]


def without_credentials(url: str) -> str:
    """Give a URL without user name and password; an ssh user name is no secret and stays."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    authority, path = _split(rest)
    user, at, host = authority.rpartition("@")
    if at and (scheme != "ssh" or ":" in user):
        keep = user.partition(":")[0] + "@" if scheme == "ssh" else ""
        authority = keep + host
    path = path.partition("?")[0] if scheme in ("http", "https") else path
    return f"{scheme}://{authority}{path}"

"""Which workspace of Databricks is meant, and who we are there. Nothing is asked here."""

from __future__ import annotations

import base64
import configparser
import os
from urllib.parse import urlsplit

from repro.errors import UsageError
from repro.location import LOOPBACK
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HOST, TOKEN = "DATABRICKS_HOST", "DATABRICKS_TOKEN"
USERNAME, PASSWORD = "DATABRICKS_USERNAME", "DATABRICKS_PASSWORD"
PROFILE, FILE = "DATABRICKS_CONFIG_PROFILE", "DATABRICKS_CONFIG_FILE"
TRACKING = "MLFLOW_TRACKING_URI"
DEFAULT = "DEFAULT"
HINTS = (
    f"set `{HOST}` and `{TOKEN}`",
    "or write `host` and `token` into a profile of `~/.databrickscfg`",
)


class Access(Value):
    """A workspace, as `https://host`, and a token, or a user with a password, for it.

    `source` says where that was found.
    """

    host: str
    token: str = ""
    username: str = ""
    password: str = ""
    source: str = ""

    def __repr__(self) -> str:
        """Show no credentials."""
        return f"Access({self.host})"

    @property
    def header(self) -> str:
        """Give the header that proves who we are."""
        if self.token:
            return f"Bearer {self.token}"
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Give what must never be shown."""
        return tuple(text for text in (self.token, self.password) if text)


def find(environ: Mapping[str, str], profile: str = "") -> Access:
    """Find the workspace and the credentials for it.

    A profile that was named comes first: `profile`, or that of `MLFLOW_TRACKING_URI`, where it is
    `databricks://PROFILE`. Then come the variables, if they say all; then the profile that
    `DATABRICKS_CONFIG_PROFILE` names, or `DEFAULT`. Raises UsageError.
    """
    named = profile or _tracked(environ)
    if not named:
        given = {name: environ.get(name, "").strip() for name in (HOST, TOKEN, USERNAME, PASSWORD)}
        if given[HOST] and (given[TOKEN] or (given[USERNAME] and given[PASSWORD])):
            return _access(list(given.values()), f"`{HOST}`")
    name = named or environ.get(PROFILE, "") or DEFAULT
    path = _path(environ)
    found = _section(path, name)
    if found is None:
        if named or environ.get(PROFILE):
            raise UsageError(f"no profile `{name}` in `{path}`", hints=HINTS)
        raise UsageError(
            f"no host and token for Databricks: {_missing(environ, path)}", hints=HINTS
        )
    source = f"profile `{name}` of `{path}`"
    words = [found.get(key, "").strip() for key in ("host", "token", "username", "password")]
    if not words[0] or not (words[1] or (words[2] and words[3])):
        lacking = "token" if words[0] else "host"
        raise UsageError(
            f"no `{lacking}` in {source}",
            hints=[*HINTS, "a personal access token, or a user with a password, is what is taken"],
        )
    return _access(words, source)


def lacks(environ: Mapping[str, str], profile: str = "") -> str:
    """Say what is missing for using Databricks, nothing where all is there. Asks nobody."""
    try:
        find(environ, profile)
    except UsageError as error:
        return error.message
    return ""


def _tracked(environ: Mapping[str, str]) -> str:
    """Give the profile that MLflow's tracking URI names."""
    url = urlsplit(environ.get(TRACKING, ""))
    return url.netloc.partition(":")[0] if url.scheme == "databricks" else ""


def _path(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")
    given = environ.get(FILE, "")
    if given.startswith("~/"):
        given = os.path.join(home, given[2:])
    return given or os.path.join(home, ".databrickscfg")


def _section(path: str, name: str) -> Mapping[str, str] | None:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string((files.read(path) or b"").decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        kind = " ".join(type(error).__name__.split())
        raise UsageError(
            f"`{path}` cannot be read as profiles of Databricks: {kind}",
            hints=["write `[NAME]`, and below it lines of `key = value`"],
        ) from None
    return parser[name] if parser.has_section(name) else None


def _missing(environ: Mapping[str, str], path: str) -> str:
    unset = [f"`{name}`" for name in (HOST, TOKEN) if not environ.get(name)]
    variables = f"{' and '.join(unset)} not set" if unset else "no token"
    return f"{variables}, and no profile `{DEFAULT}` in `{path}`"


def _access(words: list[str], source: str) -> Access:
    host, token, username, password = words
    return Access(
        host=_address(host, source),
        token=token,
        username=username,
        password=password,
        source=source,
    )


def _address(host: str, source: str) -> str:
    """Write the address of a workspace. Raises UsageError for one that is unsafe."""
    try:
        url = urlsplit(host if "://" in host else f"https://{host}")
        port = f":{url.port}" if url.port else ""
    except ValueError:
        url, port = urlsplit(""), ""
    name = url.hostname or ""
    if not name or "@" in url.netloc or url.scheme not in ("http", "https"):
        raise UsageError(
            f"the host in {source} is no address",
            hints=["write it as `https://dbc-1234.cloud.databricks.com`"],
        )
    if url.scheme == "http" and name not in LOOPBACK:
        raise UsageError(
            f"no credentials are sent to `http://{name}`, which has no TLS",
            hints=["use an `https://` address"],
        )
    shown = f"[{name}]" if ":" in name else name
    return f"{url.scheme}://{shown}{port}"

"""Channels: the URLs behind their names, and the logins that never enter a lock."""

from __future__ import annotations

import json
import os
import re
from urllib.parse import unquote, urlsplit

from repro import matchspec
from repro.lockfiles import condalock
from repro.mirrors import Mirrors
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.spec import CondaEnvironment

ALIAS = "https://conda.anaconda.org"
DEFAULT = "defaults"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""What conda means by `defaults` on systems other than Windows."""

VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
TOKEN = re.compile(r"/t/([^/]+)(?=/|$)")


class Channels:
    """The channels of a request, as `environ` completes them.

    Names stand below `CONDA_CHANNEL_ALIAS`, as in conda. `$NAME` and `${NAME}` in them are
    variables, so that a file can name a private channel without its login.
    """

    def __init__(self, environ: Mapping[str, str], root: str = "") -> None:
        """Take the caller's variables; relative paths start at `root`."""
        self._environ = environ
        self._root = root

    def of(self, wanted: CondaEnvironment) -> tuple[str, ...]:
        """Give the public URLs of all channels of a request, those of single packages last."""
        specs = (_channel(text) for text in wanted.packages)
        return self.urls((*(wanted.channels or (DEFAULT,)), *(name for name in specs if name)))

    def urls(self, names: Iterable[str]) -> tuple[str, ...]:
        """Give the public URLs of some channels, in their order; none stands for `defaults`."""
        wanted = [name for name in names if name != "nodefaults"] or [DEFAULT]
        found = [url for name in wanted for url in self._urls(name)]
        return tuple(dict.fromkeys(condalock.public(url) for url in found))

    def spec(self, text: str) -> str:
        """Write a package's own channel as its URL: the solver knows no names of channels."""
        channel, colons, rest = text.partition("::")
        return f"{self.urls([channel.strip()])[0]}::{rest.strip()}" if colons else text

    def logins(self, names: Iterable[str]) -> dict[str, Any]:
        """Give the logins that stand in some channels, in the form of rattler's file of logins.

        Those of `REPRO_CONDA_CHANNELS` and of mirrors are always among them, and the user's own
        file of logins, which it would be read instead of. Empty where there are none beside that.
        """
        named = self._environ.get("REPRO_CONDA_CHANNELS", "").split()
        found: dict[str, Any] = {}
        for name in (*named, *names, *Mirrors(self._environ).pairs.values()):
            for url in self._urls(name):
                found.update(_login(url))
        return {**self._own(), **found} if found else {}

    def mirrors(self) -> dict[str, list[str]]:
        """Give where addresses are fetched from instead, as rattler takes it."""
        pairs = Mirrors(self._environ).pairs.items()
        # those of images have no scheme
        return {a: [condalock.public(mirror)] for a, mirror in pairs if "://" in a}

    def _urls(self, name: str) -> tuple[str, ...]:
        name = VARIABLE.sub(self._variable, name).rstrip("/")
        if name == DEFAULT:
            return DEFAULTS
        if "://" in name:
            return (name,)
        if name.startswith(("/", "./", "../")):
            path = os.path.normpath(os.path.join(self._root or os.getcwd(), name))
            return (f"file://{path}",)
        alias = self._environ.get("CONDA_CHANNEL_ALIAS", ALIAS).rstrip("/")
        return (f"{alias}/{name}",)

    def _variable(self, found: re.Match[str]) -> str:
        return self._environ.get(found[1] or found[2], "")

    def _own(self) -> dict[str, Any]:
        home = os.path.join(self._environ.get("HOME", ""), ".rattler", "credentials.json")
        try:
            own = json.loads(files.read(self._environ.get("RATTLER_AUTH_FILE") or home) or b"{}")
        except ValueError:
            return {}
        return own if isinstance(own, dict) else {}


def _channel(text: str) -> str:
    try:
        return matchspec.parse(text).channel
    except ValueError:
        return ""


def _login(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if not parts.hostname:
        return {}
    if parts.username:
        user, password = unquote(parts.username), unquote(parts.password or "")
        return {parts.hostname: {"BasicHTTP": {"username": user, "password": password}}}
    token = TOKEN.search(parts.path)
    return {parts.hostname: {"CondaToken": token[1]}} if token else {}

"""Who we are to a registry: as a caller says, or as `docker login` left it.

It is never shown, and never in a lock or record.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from urllib.parse import urlsplit

from repro.errors import UsageError
from repro.images import configuration
from repro.lockfiles.references import HUB
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"
HUB_KEYS = (HUB_KEY, HUB, f"index.{HUB}")
HELPER_SECONDS = 30
TOKEN_NAME = "<token>"  # noqa: S105  (the name that stands for a token, no token)

GIVEN = ("username", "password", "registry", "email")
"""The parts of a login that a caller gives; the first two are needed."""


class Login(Value):
    """A name with a password, or a `token` that gets others; `repr` shows nothing."""

    name: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Show nothing."""
        return "Login(…)"

    @property
    def basic(self) -> str:
        """Give the header that proves it."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()

    def for_engine(self) -> dict[str, str]:
        """Give it as the docker engine takes it."""
        if self.token:
            return {"identitytoken": self.token}
        return {"username": self.name, "password": self.password}


class Given(Value):
    """A login that a caller gives for one `registry`; `repr` shows nothing of it."""

    registry: str
    login: Login


def given(auth: Mapping[str, Any] | None) -> Given | None:
    """Read what MLflow calls `docker_auth`: `username`, `password` and `registry`.

    Without a `registry` it is for Docker Hub, and `email` means nothing to any registry. Gives
    None for nothing. Raises UsageError, without a value in it, for what is no login.
    """
    if not auth:
        return None
    unknown = sorted(str(name) for name in auth if name not in GIVEN)
    if unknown:
        hint = f"known: {', '.join(GIVEN)}"
        raise UsageError(f"`docker_auth` has no `{unknown[0]}`", hints=[hint])
    missing = [name for name in GIVEN[:2] if not auth.get(name)]
    if missing:
        raise UsageError(f"`docker_auth` needs `{missing[0]}`")
    registry = str(auth.get("registry") or HUB)
    host = HUB if registry in HUB_KEYS else _host(registry)
    login = Login(name=str(auth["username"]), password=str(auth["password"]))
    return Given(registry=HUB if host in HUB_KEYS else host, login=login)


def of(registry: str, environ: Mapping[str, str], told: Given | None = None) -> Login | None:
    """Give the login for a registry: what the caller has told, if that is for it, or docker's.

    Docker's is in its configuration, or known to a helper that this names. A configuration that
    cannot be read, or a helper that fails, is as good as none: the registry will say what it wants.
    """
    if told is not None and told.registry == registry:
        return told.login
    config = configuration.read(environ)
    keys = HUB_KEYS if registry == HUB else (registry,)
    helpers = config.get("credHelpers")
    helper = helpers.get(registry) if isinstance(helpers, dict) else None
    helper = helper or config.get("credsStore")
    if isinstance(helper, str) and (found := _helped(helper, keys[0], environ)):
        return found
    known = config.get("auths")
    for name, entry in known.items() if isinstance(known, dict) else ():
        if isinstance(entry, dict) and (name in keys or _host(name) in keys):
            return _stored(entry)
    return None


def _host(name: str) -> str:
    return urlsplit(name if "://" in name else f"//{name}").netloc


def _stored(entry: Mapping[str, Any]) -> Login | None:
    try:
        name, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (ValueError, TypeError):
        return None
    name, password = entry.get("username") or name, entry.get("password") or password
    token = entry.get("identitytoken") or ""
    parts = [str(part).rstrip("\0") for part in (name, password, token)]
    return Login(name=parts[0], password=parts[1], token=parts[2]) if any(parts) else None


def _helped(helper: str, key: str, environ: Mapping[str, str]) -> Login | None:
    """Ask `docker-credential-<helper>`, which must be on the `PATH`."""
    program = None
    if "/" not in helper:
        program = shutil.which(f"docker-credential-{helper}", path=environ.get("PATH", ""))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get"],
            input=key.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            env=dict(environ),
            check=True,
        )
        told = json.loads(done.stdout)
        name, secret = str(told["Username"]), str(told["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return Login(token=secret) if name == TOKEN_NAME else Login(name=name, password=secret)

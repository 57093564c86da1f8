"""How to prove to a remote who we are; read when it is needed, and shown to nobody else."""

from __future__ import annotations

import base64
import json
import netrc
import os
import subprocess
from configparser import ConfigParser
from configparser import Error as ConfigError

from repro.errors import UsageError
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.remote.address import Address
    from repro.remote.transport import Signer

TOKEN = "REPRO_REMOTE_TOKEN"  # noqa: S105  (the name of a variable)
HELPER_SECONDS = 20


class Login(Value):
    """A name with a password; `token` is a refresh token instead. Never shown."""

    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Show nothing."""
        return "Login(…)"

    @property
    def basic(self) -> str:
        """Give the header of HTTP basic authentication."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class AwsKeys(Value):
    """What signs requests to S3. Never shown."""

    access: str
    secret: str
    session: str = ""

    def __repr__(self) -> str:
        """Show nothing."""
        return "AwsKeys(…)"


def for_http(address: Address, environ: Mapping[str, str]) -> Signer | None:
    """Give what proves to a web server who we are: a token, else name and password, else nothing.

    They come from `REPRO_REMOTE_TOKEN`, from the URL, or from netrc. Raises UsageError where they
    would travel in the clear.
    """
    given = _http_header(address, environ)
    if not given:
        return None
    if not address.is_safe:
        raise UsageError(
            f"credentials are not sent to `{address.public}`, which has no TLS",
            hints=["use an `https://` URL"],
        )

    def sign(_method: str, _url: str, headers: dict[str, str]) -> None:
        headers["Authorization"] = given

    return sign


def _http_header(address: Address, environ: Mapping[str, str]) -> str:
    token = environ.get(TOKEN, "")
    if token:
        return f"Bearer {token}"
    if address.user or address.password:
        return Login(user=address.user, password=address.password).basic
    login = _netrc(address.host, environ)
    return login.basic if login else ""


def _netrc(host: str, environ: Mapping[str, str]) -> Login | None:
    path = environ.get("NETRC") or os.path.join(_home(environ), ".netrc")
    try:
        found = netrc.netrc(path).authenticators(host.rpartition(":")[0] or host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None  # as good as absent; the server will say that something is missing
    return Login(user=found[0], password=found[2] or "") if found else None


def _home(environ: Mapping[str, str]) -> str:
    return environ.get("HOME") or os.path.expanduser("~")


# -- Amazon's


def for_aws(environ: Mapping[str, str]) -> AwsKeys | None:
    """Give the keys from AWS_* variables, else from the shared file; nothing for anonymous use."""
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        return AwsKeys(
            access=environ["AWS_ACCESS_KEY_ID"],
            secret=environ["AWS_SECRET_ACCESS_KEY"],
            session=environ.get("AWS_SESSION_TOKEN", ""),
        )
    stored = _aws_file(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials", "")
    if stored.get("aws_access_key_id") and stored.get("aws_secret_access_key"):
        return AwsKeys(
            access=stored["aws_access_key_id"],
            secret=stored["aws_secret_access_key"],
            session=stored.get("aws_session_token", ""),
        )
    return None


def aws_region(environ: Mapping[str, str]) -> str:
    """Give the region that variables or the shared configuration name, else `us-east-1`."""
    given = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    stored = _aws_file(environ, "AWS_CONFIG_FILE", "config", "profile ")
    return given or stored.get("region") or "us-east-1"


def _aws_file(
    environ: Mapping[str, str], variable: str, name: str, prefix: str
) -> Mapping[str, str]:
    path = environ.get(variable) or os.path.join(_home(environ), ".aws", name)
    profile = environ.get("AWS_PROFILE") or "default"
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (ConfigError, UnicodeDecodeError, OSError):
        return {}
    section = profile if profile == "default" else prefix + profile
    return parser[section] if parser.has_section(section) else {}


# -- Docker's


def for_registry(host: str, environ: Mapping[str, str]) -> Login | None:
    """Give the login that `docker login` keeps for a registry, from its file or its helper."""
    folder = environ.get("DOCKER_CONFIG") or os.path.join(_home(environ), ".docker")
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        helper = config.get("credHelpers", {}).get(host) or config.get("credsStore", "")
        entry = config.get("auths", {}).get(host) or config.get("auths", {}).get(f"https://{host}")
        if helper:
            return _of_helper(helper, host, environ)
        return _of_entry(entry) if entry else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _of_entry(entry: Mapping[str, Any]) -> Login | None:
    pair = base64.b64decode(entry.get("auth", ""), validate=True).decode()
    user, _, password = pair.partition(":")
    token = str(entry.get("identitytoken", ""))
    return Login(user=user, password=password, token=token) if user or token else None


def _of_helper(helper: str, host: str, environ: Mapping[str, str]) -> Login | None:
    """Ask the program that keeps Docker's passwords."""
    if not helper.replace("-", "").isalnum():
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host.encode(),
            env=dict(environ),
            capture_output=True,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    reply = json.loads(done.stdout) if done.returncode == 0 else {}
    user, secret = str(reply.get("Username", "")), str(reply.get("Secret", ""))
    if user == "<token>":
        return Login(token=secret)
    return Login(user=user, password=secret) if secret else None

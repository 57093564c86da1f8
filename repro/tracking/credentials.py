"""How to prove to a tracking server who we are, read where MLflow's own client reads it."""

from __future__ import annotations

import os
from configparser import ConfigParser
from configparser import Error as ConfigError

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

YES = frozenset({"true", "1"})
SECTION = "mlflow"
NAME = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  (the name of a variable)


class Credentials(Value):
    """A name with a password, or a token; and whom to trust. Never shown, not even by `repr`.

    `verify` is False where TLS is not checked, else the path of the certificates to trust, else
    True. `certificate` is the path of our own.
    """

    username: str = ""
    password: str = ""
    token: str = ""
    verify: bool | str = True
    certificate: str = ""

    def __repr__(self) -> str:
        """Show nothing."""
        return "Credentials(…)"


def read(environ: Mapping[str, str]) -> Credentials:
    """Read the MLFLOW_TRACKING_* variables, and `~/.mlflow/credentials` for what they lack."""
    stored = _stored(environ)
    insecure = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in YES
    return Credentials(
        username=environ.get(NAME) or stored.get(NAME.lower(), ""),
        password=environ.get(PASSWORD) or stored.get(PASSWORD.lower(), ""),
        token=environ.get("MLFLOW_TRACKING_TOKEN", ""),
        verify=not insecure and (environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True),
        certificate=environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
    )


def _stored(environ: Mapping[str, str]) -> Mapping[str, str]:
    home = environ.get("HOME") or os.path.expanduser("~")
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(os.path.join(home, ".mlflow", "credentials"), encoding="utf-8")
    except (ConfigError, UnicodeDecodeError, OSError):
        return {}  # as good as absent; the server will say that something is missing
    return parser[SECTION] if parser.has_section(SECTION) else {}

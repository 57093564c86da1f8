"""The docker package as a line to an engine: over SSH, TLS, proxies and pipes of Windows."""

from __future__ import annotations

import contextlib
import json
import socket
from importlib import import_module

from repro.errors import Unsupported
from repro.images.line import Broken, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

VERSION = "1.40"
"""Of the protocol, for the one request whose path the package makes; given, none is asked for."""


class Borrowed:
    """A way to an engine, as `repro.images.line.Line` is one."""

    def __init__(
        self, environ: Mapping[str, str], seconds: float, headers: Mapping[str, str], *, shell: bool
    ) -> None:
        """Connect, for SSH by the program `ssh` if `shell` says so.

        Raises Broken, and Unsupported without the package.
        """
        docker = package("docker")
        self._seconds, self._headers = seconds, dict(headers)
        with _translated():
            where = docker.utils.kwargs_from_env(environment=dict(environ))
            self._client = docker.APIClient(
                version=VERSION, timeout=seconds, use_ssh_client=shell, **where
            )

    def ask(self, method: str, path: str, document: Any = None) -> Lent:
        """Send a request; see `Line.ask`."""
        return self._asked(method, path, document, self._seconds)

    def attach(self, _prefix: str, identity: str) -> Attached:
        """Listen to a container from now on. Raises Broken and Refused."""
        with _translated():
            wanted = {"stdout": 1, "stderr": 1, "stream": 1}
            return Attached(self._client.attach_socket(identity, wanted))

    def follow(self, path: str) -> Lent:
        """Ask for what goes on until it ends; see `Line.follow`."""
        return self._asked("GET", path, None, None)

    def program(self) -> str:
        """Know of no program on this machine; see `Line.program`."""
        return ""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _asked(self, method: str, path: str, document: Any, seconds: float | None) -> Lent:
        with _translated():
            answer = self._client.request(
                method,
                f"{self._client.base_url}{path}",
                data=None if document is None else json.dumps(document),
                headers={**self._headers, "Content-Type": "application/json"},
                timeout=seconds,
                stream=True,
            )
            return Lent(answer)


class Lent:
    """An answer, as `repro.images.line.Answer` is one."""

    def __init__(self, answer: Any) -> None:
        """Take what the package's client gives."""
        self._answer = answer
        self._pieces = answer.iter_content(None)
        self.status = int(answer.status_code)
        self.headers = {name.lower(): value for name, value in answer.headers.items()}

    def read(self, _most: int) -> bytes:
        """Give the next piece; nothing at the end. Raises Broken."""
        with _translated():
            return bytes(next(self._pieces, b""))

    def end(self) -> None:
        """Let it be at its end, for whoever reads it in another thread."""
        self._answer.raw.close()

    def close(self) -> None:
        """Close it."""
        self._answer.close()


class Attached:
    """What a container says from now on, in the frames of the engine."""

    status = 200

    def __init__(self, stream: Any) -> None:
        """Take what the package gives: a socket, or a file on it."""
        self._stream = stream
        self.headers: Mapping[str, str] = {}

    def read(self, most: int) -> bytes:
        """Read what there is; nothing at the end. Raises Broken."""
        with _translated():
            return bytes(package("docker.utils.socket").read(self._stream, most))

    def end(self) -> None:
        """Let it be at its end, for whoever reads it in another thread."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, which the package would do by half."""
        line = self._line
        self._stream.close()
        line.close()

    @property
    def _line(self) -> Any:
        return getattr(self._stream, "_sock", self._stream)


def package(name: str) -> Any:
    """Import a part of the docker package, which takes longer than all of repro."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Unsupported(
            "the docker backend needs the Python package `docker`",
            hints=["install it with `pip install docker`"],
        ) from error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise Refused or Broken for whatever the package, or what it stands on, raises."""
    try:
        yield
    except Exception as error:
        answer = getattr(error, "response", None)
        said = str(getattr(error, "explanation", None) or error)
        if answer is not None:
            raise Refused(int(answer.status_code), said) from error
        raise Broken(said) from error

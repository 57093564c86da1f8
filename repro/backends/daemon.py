"""The Docker daemon: how to reach it, and what its refusals mean."""

from __future__ import annotations

import os
import socket
from contextlib import closing, contextmanager, suppress
from importlib import import_module

from repro.errors import EnvironmentFailed, Unreachable, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from repro.errors import ReproError

NOT_FOUND = 404
CONFLICT = 409
SERVER = 500
USUAL = "unix:///var/run/docker.sock"


def connect(environ: Mapping[str, str], version: str = "auto") -> Any:
    """Give a client of the daemon that `DOCKER_HOST` names, or of the usual one; close it.

    With a `version` of its protocol it is not asked for one. Raises Unreachable where none
    answers, Unsupported without the docker package.
    """
    sdk = _sdk("docker")
    with explained("connect", environ):
        _knock(environ.get("DOCKER_HOST") or USUAL)
        where = sdk.utils.kwargs_from_env(environment=dict(environ))
        return sdk.APIClient(version=version, **where)


def _knock(host: str) -> None:
    """See whether anybody listens; the SDK would say no more, and forget to close its socket."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(host.removeprefix("unix://"))


class Attached:
    """What a container says from now on, in the frames of the daemon."""

    def __init__(self, client: Any, identity: str) -> None:
        """Listen to a container before it has started."""
        self._stream = client.attach_socket(identity, {"stdout": 1, "stderr": 1, "stream": 1})

    def read(self, most: int) -> bytes:
        """Read what there is; nothing at the end. Raises OSError."""
        return bytes(_sdk("docker.utils.socket").read(self._stream, most))

    def end(self) -> None:
        """Let it be at its end, for whoever reads it."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, which the SDK would do by half."""
        line = self._line
        self._stream.close()
        line.close()

    @property
    def _line(self) -> Any:
        """Give the socket: the SDK gives it, or a file on it."""
        return getattr(self._stream, "_sock", self._stream)


class Recorded:
    """What a container has said from its beginning, and what it says from now on."""

    def __init__(self, client: Any, identity: str) -> None:
        """Listen to a container that somebody else has started."""
        self._answer = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{identity}/logs",
            params={"stdout": 1, "stderr": 1, "follow": 1},
            stream=True,
            timeout=None,
        )
        self._answer.raise_for_status()
        self._pieces = self._answer.iter_content(None)

    def read(self, _most: int) -> bytes:
        """Read what there is; nothing at the end. Raises OSError, as requests' errors are."""
        return bytes(next(self._pieces, b""))

    def end(self) -> None:
        """Let it be at its end, for whoever reads it."""
        self._answer.raw.close()

    def close(self) -> None:
        """Close it."""
        self._answer.close()


def _sdk(name: str) -> Any:
    """Import a part of the docker package, which takes longer than all of repro."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Unsupported(
            "the docker backend needs the Python package `docker`",
            hints=["install it with `pip install docker`"],
        ) from error


def failures() -> tuple[type[BaseException], ...]:
    """Give what calls of the client may raise."""
    from requests import RequestException

    return (_sdk("docker.errors").DockerException, RequestException, OSError)


@contextmanager
def explained(doing: str, environ: Mapping[str, str], image: str = "") -> Iterator[None]:
    """Turn what the client raises into one of ours."""
    try:
        yield
    except failures() as error:
        raise _meaning(doing, error, environ, image) from error


def status(error: BaseException) -> int:
    """Give the HTTP status of a refusal, 0 where nobody answered."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", None) or 0)


def _meaning(
    doing: str, error: BaseException, environ: Mapping[str, str], image: str
) -> ReproError:
    code = status(error)
    said = getattr(error, "explanation", None) or getattr(error, "strerror", None) or error
    said = " ".join(str(said).split())
    if not code:
        place = environ.get("DOCKER_HOST") or USUAL
        return Unreachable(
            f"no docker daemon answers at {place}: {said}",
            hints=["start it, or say in `DOCKER_HOST` where it listens"],
        )
    if code == NOT_FOUND and image and "image" in said.lower():
        return EnvironmentFailed(
            f"docker has no image `{image}`", hints=[f"`docker pull {image}`, or lock it again"]
        )
    if "device driver" in said or "nvidia" in said.lower():
        return UsageError(
            f"docker cannot give the accelerators asked for: {said}",
            hints=["install NVIDIA's container toolkit, or ask for none"],
        )
    if code >= SERVER and "invalid argument" not in said:
        return Unreachable(f"docker could not {doing} the container: {said}")
    return UsageError(f"docker refused to {doing} the container: {said}")


def user(client: Any) -> str:
    """Say as whom to run inside, so that what is written belongs to the caller.

    The root of a rootless daemon is the caller.
    """
    options = client.info().get("SecurityOptions") or ()
    if any("rootless" in option for option in options):
        return "0:0"
    return f"{os.getuid()}:{os.getgid()}"


def is_podman(client: Any) -> bool:
    """Say whether it is Podman that answers."""
    with closing(client.get(f"{client.base_url}/_ping")) as answer:
        return "Libpod-Api-Version" in answer.headers

"""The docker engine, or podman behind `DOCKER_HOST`: what it has, and how more gets into it."""

from __future__ import annotations

import contextlib
import re
import socket

from repro.errors import EnvironmentFailed, NoSpace, Unreachable
from repro.images.archive import Base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, BinaryIO

    from docker import DockerClient

    from repro.images.logins import Login
    from repro.ports import Progress

USUAL = "unix:///var/run/docker.sock"
OLDEST = (1, 40)
OLDEST_NAME = "docker 19.03"
SECONDS = 600
KNOCK_SECONDS = 10
WIDTH = 300
SHOWN = 6
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
START = "start it, for example with `sudo systemctl start docker`"
CHOOSE = "or name another engine in `DOCKER_HOST`"
GONE = re.compile(r"manifest unknown|not found|no such image", re.IGNORECASE)
FOREIGN = re.compile(
    r"no matching manifest|does not match the (specified|detected) platform", re.IGNORECASE
)
DENIED = re.compile(r"unauthorized|denied|authentication required|no basic auth", re.IGNORECASE)
FULL = re.compile(r"no space left|disk quota exceeded", re.IGNORECASE)
UNSERVED = re.compile(
    r"connection (refused|reset)|no such host|i/o timeout|timed? ?out|EOF|TLS handshake"
    r"|network is unreachable|no route to host|toomanyrequests|5\d\d ",
    re.IGNORECASE,
)


class Gone(EnvironmentFailed):
    """The registry no longer has the image, or does not show it to us."""


class Daemon:
    """An engine that answers. `platform` is what its containers run on, as `linux/amd64`."""

    def __init__(self, client: DockerClient) -> None:
        """Ask the engine what it is. Raises EnvironmentFailed for one that is too old."""
        self._client = client
        told = client.version()
        version = _numbers(str(told.get("ApiVersion", "")))
        parts = told.get("Components") or [{}]
        podman = any("podman" in str(part.get("Name", "")).lower() for part in parts)
        self.name = f"{'podman' if podman else 'docker'} {told.get('Version', '')}".strip()
        if version < OLDEST:
            raise EnvironmentFailed(
                f"the container engine is too old: {self.name}",
                hints=[f"install {OLDEST_NAME} or newer", CHOOSE],
            )
        architecture = str(told.get("Arch", ""))
        self.platform = f"{told.get('Os', '')}/{ARCHITECTURES.get(architecture, architecture)}"

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Give what the engine knows of an image by id, name or digest; None where it has none."""
        from docker.errors import ImageNotFound

        try:
            found: dict[str, Any] = self._client.api.inspect_image(name)
        except ImageNotFound:
            return None
        return found

    def pull(
        self, name: str, pin: str, platform: str, login: Login | None, progress: Progress
    ) -> None:
        """Fetch the image `name@pin`. Raises Gone, Unreachable, NoSpace, EnvironmentFailed."""
        from docker.errors import APIError

        auth = login.for_engine() if login else None
        try:
            told = self._client.api.pull(
                name, tag=pin, stream=True, decode=True, platform=platform, auth_config=auth
            )
            for line in told:
                if "error" in line:
                    raise _moving(f"{name}@{pin}", str(line["error"]), "fetched")
                if str(line.get("status", "")).startswith(("Pulling from", "Downloaded")):
                    progress(str(line["status"]))
        except APIError as error:
            raise _moving(f"{name}@{pin}", _said(error), "fetched") from None

    def load(self, archive: BinaryIO) -> None:
        """Put the images of an archive into the engine. Raises EnvironmentFailed or NoSpace."""
        from docker.errors import APIError

        try:
            for line in self._client.api.load_image(archive, quiet=True):
                if "error" in line:
                    raise _failed("the engine refuses an image", str(line["error"]))
        except APIError as error:
            raise _failed("the engine refuses an image", _said(error)) from None

    def build(self, context: BinaryIO, dockerfile: str, platform: str) -> str:
        """Build an image from a tar of its context; give its id.

        Docker puts the time into it: no two builds give the same. Raises EnvironmentFailed.
        """
        from docker.errors import APIError

        lines: list[str] = []
        image = ""
        try:
            for line in self._client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                platform=platform,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                if "error" in line:
                    raise _failed(f"`{dockerfile}` cannot be built", str(line["error"]), lines)
                lines += str(line.get("stream", "")).splitlines()
                image = (line.get("aux") or {}).get("ID") or image  # one of each stage
        except APIError as error:
            raise _failed(f"`{dockerfile}` cannot be built", _said(error), lines) from None
        if not image:
            raise _failed(f"`{dockerfile}` cannot be built", "the engine names no image", lines)
        return str(image)

    def run(self, image: str, argv: list[str]) -> str | None:
        """Run a command in an image, without a network; give its output, None when it fails."""
        from docker.errors import APIError

        try:
            container = self._client.containers.create(
                image, argv[1:], entrypoint=argv[:1], network_mode="none"
            )
        except APIError:
            return None
        try:
            container.start()
            code = container.wait()["StatusCode"]
            # Read when it has ended: the engine may lose what a short command says to a follower.
            output: bytes = container.logs(stdout=True, stderr=False)
        except APIError:
            return None
        finally:
            with contextlib.suppress(APIError):
                container.remove(force=True)
        return None if code else output.decode("utf-8", "replace")

    def tag(self, image: str, repository: str, tag: str) -> None:
        """Give an image a name, which keeps `docker image prune` from it."""
        self._client.api.tag(image, repository, tag, force=True)

    def push(self, repository: str, tag: str, login: Login | None) -> str:
        """Send an image to its registry; give the digest that it has there.

        Raises Unreachable and EnvironmentFailed.
        """
        from docker.errors import APIError

        auth = login.for_engine() if login else None
        pin = ""
        try:
            told = self._client.api.push(
                repository, tag, stream=True, decode=True, auth_config=auth
            )
            for line in told:
                if "error" in line:
                    raise _moving(f"{repository}:{tag}", str(line["error"]), "sent")
                pin = (line.get("aux") or {}).get("Digest") or pin
        except APIError as error:
            raise _moving(f"{repository}:{tag}", _said(error), "sent") from None
        return str(pin)

    def remove(self, name: str) -> None:
        """Remove an image, or one of its names, if it is there and nothing needs it."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self._client.api.remove_image(name)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextlib.contextmanager
def connected(environ: Mapping[str, str], seconds: float = SECONDS) -> Iterator[Daemon]:
    """Work with the engine that `DOCKER_HOST` names, or the usual one.

    `seconds` is the longest time between two pieces of an answer.

    Raises Unreachable when it does not answer, also half-way, and EnvironmentFailed when it is too
    old.
    """
    from http.client import HTTPException

    import docker
    import requests
    import urllib3
    from docker.errors import DockerException, InvalidVersion

    where = environ.get("DOCKER_HOST") or USUAL
    _knock(where)
    try:
        client = docker.from_env(
            environment=dict(environ), timeout=seconds, use_ssh_client=where.startswith("ssh://")
        )
    except InvalidVersion:
        raise EnvironmentFailed(
            f"the container engine at `{where}` is too old",
            hints=[f"install {OLDEST_NAME} or newer", CHOOSE],
        ) from None
    except (DockerException, OSError, ValueError) as error:
        raise _silent(where, error) from None
    try:
        yield Daemon(client)
    except DockerException as error:
        message = f"the container engine at `{where}` fails"
        raise EnvironmentFailed(message, hints=[_line(_said(error))]) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException) as error:
        raise _silent(where, error) from None
    finally:
        client.close()


def base_of(attributes: Mapping[str, Any]) -> Base:
    """Give an image that the engine has, as one to build on."""
    return Base(
        id=str(attributes["Id"]),
        platform=platform_of(attributes),
        layers=layers_of(attributes),
        settings=attributes.get("Config") or {},
    )


def platform_of(attributes: Mapping[str, Any]) -> str:
    """Give what an image of the engine is for, as `linux/amd64`."""
    return f"{attributes.get('Os', '')}/{attributes.get('Architecture', '')}"


def layers_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the diff ids of an image of the engine."""
    return tuple((attributes.get("RootFS") or {}).get("Layers") or ())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".") if word.isdigit())


def _said(error: Exception) -> str:
    """Give the engine's own words."""
    return str(getattr(error, "explanation", None) or error)


def _knock(where: str) -> None:
    """See that somebody listens: the SDK would leave its socket open where nobody does."""
    scheme, _, path = where.partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(KNOCK_SECONDS)
        try:
            knocking.connect(path)
        except (OSError, ValueError) as error:
            raise _silent(where, error) from None


def _silent(where: str, error: Exception) -> Unreachable:
    if isinstance(error, PermissionError) or "Permission denied" in str(error):
        return Unreachable(
            f"the container engine at `{where}` may not be used by this user",
            hints=["add the user to the group `docker`, or use a rootless engine", CHOOSE],
        )
    message = f"the container engine at `{where}` does not answer"
    return Unreachable(message, hints=[START, CHOOSE])


def _line(text: str) -> str:
    return " ".join(text.split())[:WIDTH]


def _failed(message: str, said: str, lines: Iterable[str] = ()) -> EnvironmentFailed | NoSpace:
    if FULL.search(said):
        return NoSpace(
            "no space left for images in the container engine",
            hints=["`docker system prune` removes what nothing uses"],
        )
    last = [line for line in lines if line.strip()][-SHOWN:]
    return EnvironmentFailed(message, hints=[*(_line(line) for line in last), _line(said)])


def _moving(name: str, said: str, how: str) -> EnvironmentFailed | Unreachable:
    """Give the error for an image that did not come, or go: it was not fetched or sent."""
    if FOREIGN.search(said):
        return EnvironmentFailed(f"`{name}` is for another platform", hints=[_line(said)])
    if UNSERVED.search(said):
        hints = [_line(said), "try again later"]
        return Unreachable(f"`{name}` cannot be {how} now", hints=hints)
    if how == "fetched" and (GONE.search(said) or DENIED.search(said)):
        return Gone(f"`{name}` is not in its registry, or is not shown to us", hints=[_line(said)])
    return _failed(f"`{name}` cannot be {how}", said)

"""The docker engine, or podman behind `DOCKER_HOST`: what it has, and how more gets into it."""

from __future__ import annotations

import contextlib

from repro.errors import EnvironmentFailed, NoSpace, Unreachable
from repro.images import engine
from repro.images.engine import CHOOSE, USUAL
from repro.images.line import Broken, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, BinaryIO

    from docker import DockerClient

    from repro.images.archive import Base
    from repro.images.engine import Engine
    from repro.images.logins import Login
    from repro.ports import Progress

SECONDS = 600
SSH = "ssh://"
WIDTH = 300
SHOWN = 6
START = "start it, for example with `sudo systemctl start docker`"
GONE = r"manifest unknown|not found|no such image"
FOREIGN = r"no matching manifest|does not match the (specified|detected) platform"
DENIED = r"unauthorized|denied|authentication required|no basic auth"
FULL = r"no space left|disk quota exceeded"
UNSERVED = (
    r"connection (refused|reset)|no such host|i/o timeout|timed? ?out|EOF|TLS handshake"
    r"|network is unreachable|no route to host|toomanyrequests|5\d\d "
)


class Gone(EnvironmentFailed):
    """The registry no longer has the image, or does not show it to us."""


class Daemon:
    """An engine that answers, and what moves its images: that, and nothing else, loads `docker`."""

    def __init__(self, answering: Engine, environ: Mapping[str, str], seconds: float) -> None:
        """Take an engine that was connected to by the same variables."""
        self._engine, self._environ, self._seconds = answering, environ, seconds
        self._lent: DockerClient | None = None

    @property
    def name(self) -> str:
        """Name the engine with its version."""
        return self._engine.name

    @property
    def platform(self) -> str:
        """Give what its containers run on, as `linux/amd64`."""
        return self._engine.platform()

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Give what the engine knows of an image by id, name or digest; None where it has none."""
        return self._engine.image(name)

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
        if self._lent is not None:
            self._lent.close()
        self._engine.close()

    @property
    def _client(self) -> DockerClient:
        """Give the docker package's client, made when it is first needed."""
        if self._lent is None:
            import docker

            where = _place(self._environ)
            try:
                self._lent = docker.from_env(
                    version=self._engine.version,
                    environment=dict(self._environ),
                    timeout=self._seconds,
                    use_ssh_client=where.startswith(SSH),
                )
            except (docker.errors.DockerException, OSError, ValueError) as error:
                raise _silent(where, error) from None
        return self._lent

    def failures(self) -> tuple[type[Exception], ...]:
        """Give what that client raises, beside what it has no words for; nothing without it."""
        if self._lent is None:
            return ()
        from docker.errors import DockerException

        return (DockerException,)

    def breaks(self) -> tuple[type[Exception], ...]:
        """Give what it raises where the engine does not answer; nothing without it."""
        if self._lent is None:
            return ()
        from http.client import HTTPException

        import requests
        import urllib3

        return (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException)


@contextlib.contextmanager
def connected(environ: Mapping[str, str], seconds: float = SECONDS) -> Iterator[Daemon]:
    """Work with the engine that `DOCKER_HOST` names, or the usual one.

    `seconds` is the longest time between two pieces of an answer.

    Raises Unreachable when it does not answer, also half-way, and EnvironmentFailed when it is too
    old.
    """
    where = _place(environ)
    try:
        answering = engine.connect(environ, seconds, ssh_program=where.startswith(SSH))
    except Broken as error:
        raise _silent(where, error) from None
    except Refused as error:
        raise _failing(where, error) from None
    made = Daemon(answering, environ, seconds)
    try:
        yield made
    except Refused as error:
        raise _failing(where, error) from None
    except Broken as error:
        raise _silent(where, error) from None
    except made.failures() as error:
        raise _failing(where, error) from None
    except made.breaks() as error:
        raise _silent(where, error) from None
    finally:
        made.close()


def base_of(attributes: Mapping[str, Any]) -> Base:
    """Give an image that the engine has, as one to build on."""
    from repro.images.archive import Base

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


def _place(environ: Mapping[str, str]) -> str:
    return environ.get("DOCKER_HOST") or USUAL


def _said(error: Exception) -> str:
    """Give the engine's own words."""
    return str(getattr(error, "explanation", None) or error)


def _failing(where: str, error: Exception) -> EnvironmentFailed:
    message = f"the container engine at `{where}` fails"
    return EnvironmentFailed(message, hints=[_line(_said(error))])


def _silent(where: str, error: Exception) -> Unreachable:
    if isinstance(error, PermissionError) or "Permission denied" in str(error):
        return Unreachable(
            f"the container engine at `{where}` may not be used by this user",
            hints=["add the user to the group `docker`, or use a rootless engine", CHOOSE],
        )
    message = f"the container engine at `{where}` does not answer"
    return Unreachable(message, hints=[START, CHOOSE])


def _holds(pattern: str, said: str) -> bool:
    import re

    return re.search(pattern, said, re.IGNORECASE) is not None


def _line(text: str) -> str:
    return " ".join(text.split())[:WIDTH]


def _failed(message: str, said: str, lines: Iterable[str] = ()) -> EnvironmentFailed | NoSpace:
    if _holds(FULL, said):
        return NoSpace(
            "no space left for images in the container engine",
            hints=["`docker system prune` removes what nothing uses"],
        )
    last = [line for line in lines if line.strip()][-SHOWN:]
    return EnvironmentFailed(message, hints=[*(_line(line) for line in last), _line(said)])


def _moving(name: str, said: str, how: str) -> EnvironmentFailed | Unreachable:
    """Give the error for an image that did not come, or go: it was not fetched or sent."""
    if _holds(FOREIGN, said):
        return EnvironmentFailed(f"`{name}` is for another platform", hints=[_line(said)])
    if _holds(UNSERVED, said):
        hints = [_line(said), "try again later"]
        return Unreachable(f"`{name}` cannot be {how} now", hints=hints)
    if how == "fetched" and (_holds(GONE, said) or _holds(DENIED, said)):
        return Gone(f"`{name}` is not in its registry, or is not shown to us", hints=[_line(said)])
    return _failed(f"`{name}` cannot be {how}", said)

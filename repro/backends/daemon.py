"""The engine that runs the containers of steps: how to reach it, and what its refusals mean."""

from __future__ import annotations

import os
from contextlib import contextmanager

from repro.errors import EnvironmentFailed, Unreachable, UsageError
from repro.images import engine
from repro.images.engine import FAILURES, NOT_FOUND, USUAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro.errors import ReproError
    from repro.images.engine import Engine

SERVER = 500
ROOT = "0:0"


def connect(environ: Mapping[str, str]) -> Engine:
    """Give the engine that `DOCKER_HOST` names, or the usual one; close it.

    Raises Unreachable where none answers, EnvironmentFailed where it is too old, and Unsupported
    where only the docker package reaches it, and that is not there.
    """
    with explained("connect", environ):
        return engine.connect(environ)


@contextmanager
def explained(doing: str, environ: Mapping[str, str], image: str = "") -> Iterator[None]:
    """Turn what an engine raises into one of ours."""
    try:
        yield
    except FAILURES as error:
        raise _meaning(doing, error, environ, image) from error


def status(error: BaseException) -> int:
    """Give the HTTP status of a refusal, 0 where nobody answered."""
    return int(getattr(error, "status", 0))


def _meaning(
    doing: str, error: BaseException, environ: Mapping[str, str], image: str
) -> ReproError:
    code = status(error)
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
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


def user(client: Engine) -> str:
    """Say as whom to run inside, so that what is written belongs to the caller.

    The root of a rootless daemon is the caller.
    """
    caller = f"{os.getuid()}:{os.getgid()}"
    return caller if caller == ROOT or not client.is_rootless() else ROOT

"""Environments as images: a made one goes onto a base image, at one fixed place.

    bake            an environment in the engine, ready to run; equal lock and base, equal image id
    baked           the same as files, to be pushed to a registry without an engine
    project_layer   the files of a project on top, in a tenth of a second

What cannot be done: a Python of the system (`/usr`) cannot be taken along, since it is spread over
folders that it shares. A virtual environment of it needs a base image with that same Python.
"""

from __future__ import annotations

import contextlib
import json
import os

from repro import digest, platforms
from repro.environments import bytecode, prefixes
from repro.environments.interpreters import PROBE
from repro.environments.prefixes import Prefix
from repro.environments.tools import session
from repro.errors import EnvironmentFailed, Unsupported
from repro.images import archive, layers
from repro.images.archive import Part
from repro.images.daemon import base_of
from repro.images.layers import Member
from repro.lock import Interpreter
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.environments.tools import Session
    from repro.images.archive import Base, Written
    from repro.images.daemon import Daemon
    from repro.lock import EnvironmentLock
    from repro.manifest import Entry

PLACE = "/opt/repro/env"
PYTHON_PLACE = "/opt/repro/python"
PROJECT_PLACE = "/mlflow/projects/code"
NAME = "repro-env"
KEY_LABEL = "repro.key"
SHARED = frozenset({"/", "/usr", "/usr/local", "/opt/homebrew"})
"""Prefixes that hold more than a Python: none of them can be taken along."""
FORMAT = 1


def bake(
    prefix: str,
    lock: EnvironmentLock,
    base: str,
    *,
    engine: Daemon,
    home: str,
    environ: Mapping[str, str],
    byte_code: bool = True,
) -> str:
    """Put the environment of `lock`, made at `prefix`, on the image `base`; give the image's id.

    `base` is an id or name that `engine` has. The Python of a virtual environment is that of the
    base, where it has the very same, or else the one it was made with. The image is named
    `repro-env:…` in the engine, and taken as it is when it is there. `home` is the store.
    Raises EnvironmentFailed when it cannot be, or when its Python does not start in it.
    """
    found = _base(engine, base)
    key = digest.of_value("repro/baked", [FORMAT, lock.digest, found.id, byte_code])
    name = f"{NAME}:{key[:32]}"
    known = engine.inspect(name)
    if (
        known is not None
        and ((known.get("Config") or {}).get("Labels") or {}).get(KEY_LABEL) == key
    ):
        return str(known["Id"])
    image_python = _python_of_base(engine, found, lock)
    with baked(
        prefix, lock, found, home=home, environ=environ, byte_code=byte_code, python=image_python
    ) as (written, work):
        _load(engine, written, work)
        _check_starts(engine, written, prefix)
        engine.tag(written.id, NAME, key[:32])
        return written.id


@contextlib.contextmanager
def baked(
    prefix: str,
    lock: EnvironmentLock,
    base: Base,
    *,
    home: str,
    environ: Mapping[str, str],
    byte_code: bool = True,
    python: str = "",
) -> Iterator[tuple[Written, Session]]:
    """Write the layers of an environment on `base`; they are gone when the context ends.

    `python` is the path of the Python of `base` to use; empty to take along the one that a virtual
    environment was made with. Raises EnvironmentFailed.
    """
    _check_platform(lock, base)
    made = _prefixes(prefix, lock, python)
    key = digest.of_value("repro/baked", [FORMAT, lock.digest, base.id, byte_code])
    message = "the environment cannot be put into an image"
    try:
        with session(home, environ, message) as work:
            parts = list(_parts(made, lock, work, byte_code=byte_code))
            yield archive.image(base, parts, _settings(base, lock, key)), work
    except OSError as error:
        raise files.explained(error, "writing an image") from None


def project_layer(
    base: str,
    root: str,
    entries: Iterable[Entry],
    *,
    engine: Daemon,
    home: str,
    environ: Mapping[str, str],
    place: str = PROJECT_PLACE,
) -> str:
    """Put files of a project, below `root`, on an image of the engine; give the new image's id.

    Only the new layer is sent. A container starts in `place`. Raises EnvironmentFailed when a file
    is no longer what its entry says.
    """
    found = _base(engine, base)
    try:
        with session(home, environ, "the project cannot be put into an image") as work:
            inside = place.strip("/")
            members = (_project_member(inside, root, entry) for entry in entries)
            part = _written(members, "project", work)
            written = archive.image(found, [part], {"WorkingDir": place})
            _load(engine, written, work)
            return written.id
    except OSError as error:
        raise files.explained(error, "writing an image") from None


# -- layers


def _parts(
    made: list[Prefix], lock: EnvironmentLock, work: Session, *, byte_code: bool
) -> Iterator[Part]:
    own, *pythons = made
    version = _version(lock)
    for python in pythons:
        yield _written(prefixes.python(python, version), "python", work)
    yield _written(prefixes.environment(own, lock), "environment", work)
    starts = os.path.join(own.source, "bin", "python")
    if byte_code and version and os.path.exists(starts):
        yield _written(bytecode.members(made, version, starts, work), "byte-code", work)


def _written(members: Iterable[Member], about: str, work: Session) -> Part:
    path = os.path.join(work.folder, f"{about}.tar")
    with open(path, "wb") as out:
        layer = layers.write(out, members)
    return Part(digest=layer.digest, path=path, size=layer.size, about=about)


def _project_member(inside: str, root: str, entry: Entry) -> Member:
    path = f"{inside}/{entry.path}"
    if entry.kind == "link":
        return layers.of_link(path, entry.content)
    if entry.kind == "dir":
        return Member(path=path, kind="dir")
    source = os.path.join(root, entry.path)
    return Member(
        path=path, kind=entry.kind, size=entry.size, open=lambda: _verified(source, entry)
    )


def _verified(source: str, entry: Entry) -> Iterator[bytes]:
    hasher = digest.stream()
    for piece in layers.content(source):
        hasher.update(piece)
        yield piece
    if hasher.hexdigest() != entry.content:
        raise EnvironmentFailed(f"`{entry.path}` changed while it was read", hints=["run again"])


def _settings(base: Base, lock: EnvironmentLock, key: str) -> dict[str, Any]:
    name = "CONDA_PREFIX" if lock.kind == "conda" else "VIRTUAL_ENV"
    labels = {"repro.base": base.id, "repro.environment": lock.digest, KEY_LABEL: key}
    return {
        "Env": archive.variables(base, {name: PLACE}, f"{PLACE}/bin"),
        "Labels": {**(base.settings.get("Labels") or {}), **labels},
    }


# -- the Python of a virtual environment


def _prefixes(prefix: str, lock: EnvironmentLock, python: str) -> list[Prefix]:
    """Give what goes into the image: the environment, and its Python if that comes along."""
    if lock.kind == "conda":
        return [Prefix(source=prefix, place=PLACE)]
    if lock.kind != "python":
        raise Unsupported(f"an environment of kind `{lock.kind}` cannot be put into an image")
    if python:
        return [Prefix(source=prefix, place=PLACE, python=python)]
    real = os.path.realpath(os.path.join(prefix, "bin", "python"))
    source = os.path.dirname(os.path.dirname(real))
    inside = f"{PYTHON_PLACE}/bin/{os.path.basename(real)}"
    version = ".".join(lock.interpreter.version.split(".")[:2])
    landmark = os.path.join(source, "lib", f"python{version}", "os.py")
    if source in SHARED or not os.path.isfile(landmark):
        raise EnvironmentFailed(
            f"the Python at `{real}` cannot be taken into an image: it is part of the system",
            hints=[
                f"take a base image that has {lock.interpreter}",
                "or make the environment with a Python in a folder of its own, as of pyenv or uv",
                "or use a conda environment, whose Python is one of its packages",
            ],
        )
    own = Prefix(source=prefix, place=PLACE, python=inside)
    return [own, Prefix(source=source, place=PYTHON_PLACE)]


def _python_of_base(engine: Daemon, base: Base, lock: EnvironmentLock) -> str:
    """Give the path of the very Python of a lock in a base image, empty where it has another."""
    if lock.kind != "python":
        return ""
    version = ".".join(lock.interpreter.version.split(".")[:2])
    for name in (f"python{version}", "python3", "python"):
        told = engine.run(base.id, [name, "-c", PROBE])
        try:
            found = json.loads(told or "{}")
        except ValueError:
            continue
        known = Interpreter(
            **{field: str(found.get(field, "")) for field in Interpreter.__fields__}
        )
        if known == lock.interpreter:
            return str(found["base"])
    return ""


def _version(lock: EnvironmentLock) -> str:
    """Give the `3.11` of an environment's Python, empty where it has none."""
    known = lock.interpreter.version or next(
        (a.version for a in lock.artifacts if a.kind == "conda" and a.name == "python"), ""
    )
    return ".".join(known.split(".")[:2])


# -- the engine


def _base(engine: Daemon, name: str) -> Base:
    found = engine.inspect(name)
    if found is None:
        hints = [f"`docker pull {name}`"]
        raise EnvironmentFailed(f"the base image `{name}` is not in the engine", hints=hints)
    return base_of(found)


def _check_platform(lock: EnvironmentLock, base: Base) -> None:
    platform = platforms.named(lock.platform)
    if platform is not None and platform.docker != base.platform:
        raise EnvironmentFailed(
            f"an environment for {platform.docker} cannot go onto a base for {base.platform}"
        )


def _load(engine: Daemon, written: Written, work: Session) -> None:
    if engine.inspect(written.id) is not None:
        return
    path = os.path.join(work.folder, "image.tar")
    with open(path, "wb") as out:
        archive.write(out, written)
    with open(path, "rb") as file:
        engine.load(file)
    files.unlink(path)
    if engine.inspect(written.id) is None:
        raise EnvironmentFailed(
            f"{engine.name} has loaded the image under another id",
            hints=["engines that keep manifests instead of images cannot be used for this"],
        )


def _check_starts(engine: Daemon, written: Written, prefix: str) -> None:
    """Start the Python of an image, if it has one: a base may lack what it is linked with."""
    if not os.path.exists(os.path.join(prefix, "bin", "python")):
        return
    if engine.run(written.id, [f"{PLACE}/bin/python", "-c", "import encodings"]) is None:
        engine.remove(written.id)
        raise EnvironmentFailed(
            "the Python of the environment does not start on this base image",
            hints=[
                "the base needs the C library that the Python was built for, and at least its age"
            ],
        )

"""Where the lock of an environment is kept in a project.

    lockfiles/conda-lock.yml             a conda_env, all platforms (CEP 37)
    lockfiles/pylock.<platform>.toml     a python_env or uv_env, one platform each (PEP 751)
    lockfiles/docker-lock.json           the images of all docker_env, all platforms

An environment that an entry point has for itself puts its name in front: `train.conda-lock.yml`,
`pylock.train-<platform>.toml`. A file of the same name in the project folder itself is read where
there is none in `lockfiles/`: other tools write it there.
"""

from __future__ import annotations

from repro.spec import CondaEnvironment, DockerEnvironment, PythonEnvironment
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.lock import EnvironmentLock
    from repro.spec import Environment, Project

FOLDER = "lockfiles"
CONDA = "conda-lock.yml"
DOCKER = "docker-lock.json"
SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"


class LockFile(Value):
    """What a lock file says.

    `edited` is true where the file was changed by something other than repro since repro wrote
    it. `maker` is what wrote it, as it names itself.
    """

    path: str
    kind: str
    locks: tuple[EnvironmentLock, ...]
    edited: bool = False
    maker: str = ""


class Labelled(Value):
    """An environment of a project; `label` is the entry point that has it for itself, or empty."""

    label: str
    environment: Environment


def environments(project: Project) -> tuple[Labelled, ...]:
    """Give the environments of a project that can be locked, its own first."""
    found = [Labelled(label="", environment=project.environment)] if project.environment else []
    found += [
        Labelled(label=entry.name, environment=entry.environment)
        for entry in project.entry_points
        if entry.environment is not None
    ]
    return tuple(one for one in found if kind_of(one.environment))


def kind_of(environment: Environment) -> str:
    """Give the kind of lock of an environment, empty for one that cannot be locked."""
    if isinstance(environment, PythonEnvironment):
        return "python"
    if isinstance(environment, CondaEnvironment):
        return "conda"
    return "docker" if isinstance(environment, DockerEnvironment) else ""


def name(kind: str, label: str, platform: str) -> str:
    """Give the name of the file that holds a lock."""
    safe = "".join(char if char in SAFE else "_" for char in label)
    if kind == "docker":
        return DOCKER
    if kind == "conda":
        return f"{safe}.{CONDA}" if safe else CONDA
    return f"pylock.{safe}-{platform}.toml" if safe else f"pylock.{platform}.toml"


def path(kind: str, label: str, platform: str) -> str:
    """Give the path, relative to the project, that a lock is written to."""
    return f"{FOLDER}/{name(kind, label, platform)}"


def places(kind: str, label: str, platform: str) -> tuple[str, ...]:
    """Give the paths where a lock is looked for, the first one that is there counting."""
    plain = name(kind, label, platform)
    others = ("pylock.toml",) if kind == "python" and not label else ()
    return (f"{FOLDER}/{plain}", plain, *others)


def is_lock(path: str) -> bool:
    """Say whether a file of a project may be one of its lock files."""
    folder, _, plain = path.rpartition("/")
    if folder not in ("", FOLDER):
        return False
    if plain.startswith("pylock.") and plain.endswith(".toml"):
        return True
    return plain in (DOCKER, CONDA) or plain.endswith(f".{CONDA}")

"""What an environment consists of, exactly: the lock, and the digest that names it."""

from __future__ import annotations

from repro import digest
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

FORMAT = 1


class Interpreter(Value):
    """A Python, by what can change a result: never by where it is installed."""

    implementation: str  # "cpython"
    version: str  # "3.11.7"
    abi: str  # sys.implementation.cache_tag with the ABI flags, "cpython-311"
    platform: str  # sysconfig.get_platform(), "linux-x86_64"

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.implementation} {self.version}"


NO_PYTHON = Interpreter(implementation="", version="", abi="", platform="")
"""Stands in a lock whose Python, if any, is a package or part of an image."""


class Artifact(Value):
    """One thing to install.

    `name` is normalised (PEP 503; conda's own name for a conda package). `kind` is `wheel`,
    `sdist`, `vcs`, `directory` or `conda`. `digest` is the SHA-256 of the file, the full commit of
    a `vcs`, or the manifest digest of a local `directory`. `url` is where it came from, never
    with credentials; it is not identity, nor are `md5` (which conda's lock format carries too),
    `size` in bytes (0 is unknown) and `depends`: what it needs, as its publisher wrote it
    (PEP 508 for Python packages, MatchSpecs for conda's), or at least the names.

    Python packages alone have the rest. `extras` are those it was resolved with, `*` where nobody
    knows. `index` is the one it was found at. `marker` (PEP 508) says where it counts; it stands
    only in a lock that another tool wrote for several platforms, until that is bound to one.
    """

    name: str
    version: str
    kind: str
    digest: str
    filename: str = ""
    url: str = ""
    build: str = ""
    md5: str = ""
    size: int = 0
    depends: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    index: str = ""
    marker: str = ""
    provides: tuple[str, ...] = ()


class Image(Value):
    """A container image. The image id is its identity: manifests differ with their compression.

    `reference` is what was asked for, `manifest` the digest of the platform's manifest in the
    registry it came from (empty for one that is in no registry), `id` the digest of its
    configuration, `layers` the diff ids. All digests are written as `sha256:…`. For an image that
    the project builds, `dockerfile` is the path of its recipe and `context` the tree digest of
    the files that the build could see; its `reference` is that path where it has no name.
    """

    reference: str
    id: str
    manifest: str = ""
    layers: tuple[str, ...] = ()
    dockerfile: str = ""
    context: str = ""


class EnvironmentLock(Value):
    """Everything that will be installed for one platform, and nothing of how it was asked for.

    `kind` is `python` (a virtual environment), `conda` (a conda prefix, with Python packages
    among its artifacts where the request had a `pip:` part), `docker` (an image) or `local` (the
    caller's own interpreter, whose artifacts are the distributions found in it). `platform` is
    conda's name of it, such as `linux-64`; empty for `local`, which is only ever of this machine.
    `tool` says what resolved it and is not identity. `exclude_newer` is the date (RFC 3339) that
    nothing in it is younger than, if one was given; it is no identity either.
    """

    kind: str
    interpreter: Interpreter = NO_PYTHON
    artifacts: tuple[Artifact, ...] = ()
    tool: str = ""
    platform: str = ""
    image: Image | None = None
    exclude_newer: str = ""

    __derived__ = ("_digest",)
    if TYPE_CHECKING:
        _digest: ClassVar[str]  # of each lock, computed when it is first asked for

    @property
    def digest(self) -> str:
        """The environment digest: equal locks mean equal environments, wherever made.

        Names, versions, builds and hashes of what is installed, and the interpreter; not the
        order, the index, the resolver or the text of the request.
        """
        try:
            return self._digest
        except AttributeError:
            object.__setattr__(self, "_digest", self._computed())
            return self._digest

    def _computed(self) -> str:
        installed = sorted([a.name, a.version, a.build, a.kind, a.digest] for a in self.artifacts)
        python = self.interpreter
        return digest.of_value(
            "repro/environment",
            {
                "format": FORMAT,
                "kind": self.kind,
                "interpreter": [
                    python.implementation,
                    python.version,
                    python.abi,
                    python.platform,
                ],
                "platform": self.platform,
                "image": "" if self.image is None else self.image.id,
                "installed": installed,
            },
        )


CLASSES = {c.__name__: c for c in (Interpreter, Artifact, Image, EnvironmentLock)}


class Difference(Value):
    """One package that differs between two locks; an empty version means: not there."""

    name: str
    before: str
    after: str


def differences(old: EnvironmentLock, new: EnvironmentLock) -> tuple[Difference, ...]:
    """Say which parts of two environments differ, in the order of their names."""
    before, after = _parts(old), _parts(new)
    return tuple(
        Difference(name=name, before=_shown(before, after, name), after=_shown(after, before, name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _parts(lock: EnvironmentLock) -> dict[str, tuple[str, str]]:
    parts = {a.name: (a.version, a.build + a.digest) for a in lock.artifacts}
    if lock.image is not None:
        parts["image"] = (lock.image.reference, lock.image.id.removeprefix("sha256:"))
    python = lock.interpreter
    if python != NO_PYTHON:
        identity = python.abi + python.platform
        parts["python"] = (f"{python.implementation} {python.version}", identity)
    return parts


def _shown(these: dict[str, Any], those: dict[str, Any], name: str) -> str:
    if name not in these:
        return ""
    version, identity = these[name]
    same_version = name in those and those[name][0] == version
    return f"{version} ({identity[:12]})" if same_version else str(version)

"""What an environment consists of, exactly: the lock, and the digest that names it."""

from __future__ import annotations

from repro import digest
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class Artifact(Value):
    """One thing to install.

    `name` is normalised (PEP 503). `kind` is `wheel`, `sdist`, `vcs` or `directory`.
    `digest` is the SHA-256 of the file, the full commit of a `vcs`, or the manifest digest of a
    local `directory`. `url` is where it came from, never with credentials; it is not identity.
    """

    name: str
    version: str
    kind: str
    digest: str
    filename: str = ""
    url: str = ""


class EnvironmentLock(Value):
    """Everything that will be installed for one platform, and nothing of how it was asked for.

    `kind` is `python` (a virtual environment) or `local` (the caller's own interpreter, whose
    artifacts are the distributions found in it). `tool` says what resolved it and is not identity.
    """

    kind: str
    interpreter: Interpreter
    artifacts: tuple[Artifact, ...] = ()
    tool: str = ""

    @property
    def digest(self) -> str:
        """The environment digest: equal locks mean equal environments, wherever made.

        Names, versions and hashes of what is installed, and the interpreter; not the order, the
        index, the resolver or the text of the request.
        """
        installed = sorted([a.name, a.version, a.kind, a.digest] for a in self.artifacts)
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
                "installed": installed,
            },
        )


CLASSES = {c.__name__: c for c in (Interpreter, Artifact, EnvironmentLock)}


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
    parts = {a.name: (a.version, a.digest) for a in lock.artifacts}
    python = lock.interpreter
    parts["python"] = (f"{python.implementation} {python.version}", python.abi + python.platform)
    return parts


def _shown(these: dict[str, Any], those: dict[str, Any], name: str) -> str:
    if name not in these:
        return ""
    version, identity = these[name]
    same_version = name in those and those[name][0] == version
    return f"{version} ({identity[:12]})" if same_version else str(version)

"""What of a conda environment file its lock does not satisfy."""

from __future__ import annotations

from repro import matchspec
from repro.environments.conda import pip_part
from repro.environments.demand import normal
from repro.lock import Artifact, EnvironmentLock
from repro.ports import Unmet
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.environments.conda.channels import Channels
    from repro.spec import CondaEnvironment

ABSENT, VIOLATED, BROKEN, ELSEWHERE, OTHER_PYTHON = "D01", "D02", "D04", "D05", "D07"
DISAGREEING = "D06"
ANY = "*"


def unmet(wanted: CondaEnvironment, lock: EnvironmentLock, channels: Channels) -> tuple[Unmet, ...]:
    """Say what of `wanted` is not satisfied by `lock`, each thing once, the request's first."""
    judge = _Judge(wanted, lock, channels)
    return tuple(dict.fromkeys(judge.all()))


def gives(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Give the Python distributions that a conda package is taken to contain."""
    needs = (need.split()[0] for need in artifact.depends)
    if any(name in ("python", "python_abi") for name in needs) and not artifact.provides:
        yield normal(artifact.name), artifact.version
    for dist in artifact.provides:
        name, _, version = dist.partition("==")
        yield normal(name), version


class _Judge:
    """Compares one request with one lock."""

    def __init__(self, wanted: CondaEnvironment, lock: EnvironmentLock, channels: Channels) -> None:
        self.wanted = wanted
        self.lock = lock
        self.channels = channels
        self.conda = {a.name: a for a in lock.artifacts if a.kind == "conda"}

    def all(self) -> Iterator[Unmet]:
        for text in self.wanted.packages:
            yield from self._package(text)
        yield from self._pip_part()
        yield from self._closure()
        yield from self._elsewhere()

    def _package(self, text: str) -> Iterator[Unmet]:
        try:
            spec = matchspec.parse(text)
        except ValueError as error:
            yield Unmet(code=ABSENT, entry=text, why=f"it cannot be read: {error}")
            return
        found = self.conda.get(spec.name)
        if found is None:
            yield Unmet(code=ABSENT, entry=text, why=f"`{spec.name}` is not in the lock")
            return
        fits = spec.has_version(found.version) and spec.has_build(found.build)
        if not fits or (spec.digest and spec.digest != found.digest):
            code = OTHER_PYTHON if spec.name == "python" else VIOLATED
            yield Unmet(code=code, entry=text, why=f"{_named(found)} is locked")
        elif spec.channel and not self._is_of(found, self.channels.urls([spec.channel])):
            why = f"it is locked from {_channel(found)}"
            yield Unmet(code=ELSEWHERE, entry=text, why=why)

    def _closure(self) -> Iterator[Unmet]:
        for artifact in self.conda.values():
            for need in artifact.depends:
                entry = f"{artifact.name} {artifact.version}"
                for why in self._missing(need):
                    yield Unmet(code=BROKEN, entry=entry, why=why)

    def _missing(self, need: str) -> Iterator[str]:
        try:
            spec = matchspec.parse(need)
        except ValueError:
            return  # of the package's own making, and the solver has read it
        if spec.name.startswith("__"):  # of the machine, not of the lock
            return
        found = self.conda.get(spec.name)
        if found is None:
            yield f"it needs `{need}`, which is not in the lock"
        elif not (spec.has_version(found.version) and spec.has_build(found.build)):
            yield f"it needs `{need}`, and {_named(found)} is locked"

    def _elsewhere(self) -> Iterator[Unmet]:
        allowed = self.channels.of(self.wanted)
        foreign: dict[str, list[str]] = {}
        for artifact in self.conda.values():
            if not self._is_of(artifact, allowed):
                foreign.setdefault(_channel(artifact), []).append(artifact.name)
        for channel, names in sorted(foreign.items()):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            why = f"`{names[0]}`{more} is locked from there, and it is not among the channels"
            yield Unmet(code=ELSEWHERE, entry=channel, why=why)

    @staticmethod
    def _is_of(artifact: Artifact, channels: tuple[str, ...]) -> bool:
        return any(artifact.url.startswith(f"{channel}/") for channel in channels)

    def _pip_part(self) -> Iterator[Unmet]:
        request = self.wanted.python
        if request is None:
            yield Unmet(code=ABSENT, entry="pip", why="its requirements cannot be read")
            return
        pip = {a.name: a for a in self.lock.artifacts if a.kind != "conda"}
        given = {
            name: Artifact(name=name, version=version, kind="wheel", digest="", extras=(ANY,))
            for artifact in self.conda.values()
            for name, version in gives(artifact)
        }
        for name in sorted(pip.keys() & given.keys()):
            why = f"conda gives {given[name].version}, pip {pip[name].version}"
            yield Unmet(code=DISAGREEING, entry=name, why=why)
        if not pip and not pip_part.is_wanted(request):
            return
        from repro.environments.unmet import unmet as python_unmet

        python = EnvironmentLock(
            kind="python",
            interpreter=pip_part.interpreter(self.conda.values(), self.lock.platform),
            platform=self.lock.platform,
            artifacts=(*given.values(), *(replace(a, extras=(ANY,)) for a in pip.values())),
        )
        for one in python_unmet(replace(request, python=""), python):
            name = normal(pip_part.name_of(one.entry))
            conflict = one.code == VIOLATED and name in given and name not in pip
            why = f"conda gives {given[name].version}" if conflict else one.why
            yield replace(one, code=DISAGREEING, why=why) if conflict else one


def _named(artifact: Artifact) -> str:
    return f"{artifact.name} {artifact.version} {artifact.build}".strip()


def _channel(artifact: Artifact) -> str:
    return artifact.url.rsplit("/", 2)[0]

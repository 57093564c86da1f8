"""The `pip:` part of a conda environment: resolved and installed beside what conda gives.

What conda gives stays: to the resolver, each of its Python distributions is the only version
there is. Installers that do not know of each other overwrite each other's files instead.
"""

from __future__ import annotations

import os
import re
import zipfile

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

from repro import platforms
from repro.environments import records, urls, uv
from repro.environments.conda import prefix as prefixes
from repro.environments.demand import HASH, demand, normal
from repro.environments.interpreters import Interpreters, Python
from repro.environments.unmet import counts, markers
from repro.errors import EnvironmentFailed
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from repro.environments.tools import Session
    from repro.environments.wheelstore import Installed
    from repro.errors import ReproError
    from repro.spec import PythonEnvironment

EPOCH = (2020, 1, 1, 0, 0, 0)
NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Given(Value):
    """A Python distribution that a conda package contains."""

    name: str
    version: str
    package: Artifact

    @property
    def told(self) -> str:
        """Say what gives it."""
        file = f"{self.package.name}-{self.package.version}-{self.package.build}"
        return f"conda gives {self.name} {self.version} ({file})"


def is_wanted(request: PythonEnvironment | None) -> bool:
    """Say whether pip is to install anything."""
    return request is not None and bool(request.requirements or request.directories)


def interpreter(artifacts: Iterable[Artifact], platform: str) -> Interpreter:
    """Give what the Python among conda packages is, as Python packages see it."""
    python = next((a for a in artifacts if a.name == "python"), None)
    version = python.version if python else ""
    named = platforms.named(platform)
    minor = "".join(version.split(".")[:2])
    free = "t" if python and python.build.endswith(f"_cp{minor}t") else ""
    return Interpreter(
        implementation="cpython" if python else "",
        version=version,
        abi=f"cpython-{minor}{free}" if python else "",
        platform=named.python if named else platform,
    )


class PipPart:
    """Resolves and installs with uv, below the store `home`; `root` is the project's folder."""

    def __init__(self, home: str, environ: Mapping[str, str], *, root: str, sdists: bool) -> None:
        """Look nothing up yet."""
        self._home = home
        self._environ = environ
        self._root = root
        self._sdists = sdists

    def tool(self) -> uv.Uv:
        """Give uv. Raises EnvironmentFailed where there is none."""
        binary = uv.find(self._environ)
        if not binary:
            raise EnvironmentFailed(
                "the `pip:` part of a conda environment needs uv, which is not here",
                hints=["`pip install uv`", "or set `REPRO_UV` to its path"],
            )
        return uv.Uv(binary)

    def resolve(
        self,
        request: PythonEnvironment,
        lock: EnvironmentLock,
        given: tuple[Given, ...],
        keep: Iterable[Artifact],
        work: Session,
    ) -> list[Artifact]:
        """Find what `request` needs beside the conda packages of `lock`, one file each.

        Raises EnvironmentFailed where the two want different versions of one thing.
        """
        target = interpreter(lock.artifacts, lock.platform)
        _refuse_conflicts(request, replace(lock, interpreter=target), given)
        asked = demand(request, self._root, sdists=self._sdists)
        fixed = (f"{one.name} @ {_stand_in(one, work)}" for one in given)
        asked = replace(asked, constraints=(*asked.constraints, *fixed))
        running = Interpreters(os.path.join(self._home, "memo"), self._environ).find("")
        try:
            found = self.tool().resolve(
                asked,
                replace(running, identity=target),
                work,
                keep={a.name: a for a in keep if a.kind != "conda"},
                exclude_newer=lock.exclude_newer,
            )
        except EnvironmentFailed as error:
            raise _told(error, given) from None
        names = {one.name for one in given}
        return [_plain(artifact) for artifact in found if artifact.name not in names]

    def install(self, lock: EnvironmentLock, prefix: str, work: Session) -> Installed:
        """Install the Python packages of `lock` into a conda prefix.

        Each file is checked by its SHA-256, and what was installed by its RECORD.
        """
        from repro.environments.wheelstore import WheelStore

        chosen = [a for a in lock.artifacts if a.kind != "conda"]
        before = prefixes.dists(prefix)
        for artifact in chosen:
            if artifact.name in before:
                raise EnvironmentFailed(
                    f"conda and pip both give `{artifact.name}`",
                    hints=[
                        f"conda: {before[artifact.name]}, pip: {artifact.version}",
                        "lock again with `repro lock`, which leaves conda's in place",
                    ],
                )
        wheels = [a for a in chosen if a.kind == "wheel"]
        others = [a for a in chosen if a.kind != "wheel"]
        executable = os.path.join(prefix, "bin", "python")
        identity = interpreter(lock.artifacts, lock.platform)
        python = Python(identity=identity, executable=executable, base=executable)
        store = WheelStore(self._home, self._environ, self._root)
        made = store.install(wheels, prefix, python, work)
        if others:
            self.tool().install(others, self._root, prefix, work)
        given = [Artifact(name=n, version=v, kind="conda", digest="") for n, v in before.items()]
        records.verify(prefix, [*chosen, *given], hashed={a.name for a in others})
        return made


def _plain(artifact: Artifact) -> Artifact:
    """Keep what the lock file has a place for."""
    return replace(artifact, size=0, extras=(), index="", marker="", md5="")


def _stand_in(given: Given, work: Session) -> str:
    """Write a wheel without content that stands for a distribution which conda gives."""
    name = given.name.replace("-", "_")
    folder = os.path.join(work.folder, "given")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}-{given.version}-py3-none-any.whl")
    described = f"Metadata-Version: 2.1\nName: {given.name}\nVersion: {given.version}\n"
    tagged = "Wheel-Version: 1.0\nGenerator: repro\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in (("METADATA", described), ("WHEEL", tagged), ("RECORD", "")):
            inside = f"{name}-{given.version}.dist-info/{file}"
            wheel.writestr(zipfile.ZipInfo(inside, EPOCH), text)
    return urls.of_path(path)


def _refuse_conflicts(
    request: PythonEnvironment, lock: EnvironmentLock, given: tuple[Given, ...]
) -> None:
    """Find what the two parts of the file itself disagree about, before a resolver says so."""
    by_name = {one.name: one for one in given}
    environment = markers(lock)
    for line in (*request.requirements, *request.constraints):
        asked = _parsed(line)
        one = by_name.get(normal(asked.name)) if asked else None
        if asked is None or one is None or not counts(asked.marker, environment):
            continue
        try:
            fits = asked.specifier.contains(one.version, prereleases=True) and not asked.url
        except InvalidVersion:
            fits = False
        if not fits:
            raise EnvironmentFailed(
                f"conda and pip disagree about `{one.name}` for {lock.platform}",
                hints=[
                    one.told,
                    f"the pip part of `{request.source}` asks for `{line}`",
                    "ask for it in one of the two parts alone",
                ],
            )


def _parsed(line: str) -> Requirement | None:
    try:
        return Requirement(HASH.sub("", line).strip())
    except InvalidRequirement:
        return None


def name_of(line: str) -> str:
    """Give the name of the distribution that a requirement is about; empty where it has none."""
    asked = _parsed(line)
    return asked.name if asked else ""


def _told(error: EnvironmentFailed, given: tuple[Given, ...]) -> ReproError:
    """Add what conda gives of all that the resolver complains about."""
    text = "\n".join(error.hints)
    words = {normal(word) for word in NAMED.findall(text)}
    sides = [one.told for one in given if one.name in words]
    hints = [re.sub(r"\(from file://[^)]*\)", "(from conda)", hint) for hint in error.hints]
    return EnvironmentFailed(error.message, hints=[*hints, *sides], log=error.log)


def given_by(artifacts: Iterable[Artifact], inside: Mapping[str, list[str]]) -> Iterator[Given]:
    """Give the distributions in conda packages; `inside` lists them by the URLs of packages."""
    for artifact in artifacts:
        for dist in inside.get(artifact.url, ()):
            name, _, version = dist.partition("==")
            yield Given(name=normal(name), version=version, package=artifact)

"""Conda environments: a request solved for any platform, and what was locked installed, once."""

from __future__ import annotations

import datetime as dt
import os
import sys

from repro import matchspec, platforms
from repro.environments import cache
from repro.environments.conda import machines
from repro.environments.conda import prefix as prefixes
from repro.environments.conda.cached import CACHE
from repro.environments.conda.calls import Calls
from repro.environments.conda.channels import Channels
from repro.environments.demand import normal
from repro.environments.tools import session
from repro.errors import EnvironmentFailed, Unsupported, UsageError
from repro.lock import Artifact, EnvironmentLock
from repro.lockfiles.condalock import public
from repro.spec import CondaEnvironment
from repro.system import files
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.environments.cache import Stock
    from repro.environments.conda.pip_part import PipPart
    from repro.environments.tools import Session
    from repro.environments.treehash import Linked, Tree
    from repro.ports import LockRequest, Progress, Unmet
    from repro.spec import Environment

KIND = "conda"
ALL = "*"
REPODATA = "repodata"
ALLOWED_SCRIPTS = "REPRO_LINK_SCRIPTS"
PUBLISHED = "the package was published so: choose another build"
REPLACED = "a package of the `pip:` part replaced them"


def here() -> str:
    """Give the name of this machine's platform."""
    return platforms.of_machine(sys.platform, os.uname().machine)


class Installed(Value):
    """What was installed: the notes of the packages, the linked files, and what they are of."""

    version: str
    notes: list[dict[str, Any]]
    known: Linked
    stock: Stock


class CondaPrefix:
    """A conda environment that is there, and stays until `release`."""

    image = ""

    def __init__(self, prefix: str, lock: files.Lock) -> None:
        """Take the lock that announces the use."""
        self.prefix = prefix
        self.variables: Mapping[str, str] = {"CONDA_PREFIX": prefix}
        self.path: tuple[str, ...] = (os.path.join(prefix, "bin"),)
        self._lock = lock

    def release(self) -> None:
        """Say that nothing runs in it any more."""
        self._lock.free()


class Conda:
    """Conda environments below the store `home`, solved and installed with rattler.

    `root` is the folder of the project, for the local packages of the `pip:` part, whose source
    distributions are taken only with `sdists`. `python` is the interpreter that has rattler.
    With `REPRO_LINK_SCRIPTS=1` in `environ`, packages may run code while they are installed; else
    one that wants to is refused.
    """

    kind = KIND

    def __init__(
        self,
        home: str,
        environ: Mapping[str, str],
        *,
        sdists: bool = False,
        root: str = "",
        python: str = sys.executable,
    ) -> None:
        """Look nothing up yet."""
        self._home = home
        self._environ = environ
        self._python = python
        self._channels = Channels(environ, root)
        self._root = root
        self._sdists = sdists

    # -- locking

    def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
        """Solve a request for each platform; give the locks in the order asked for.

        Raises ProjectInvalid for a file that is wrong, EnvironmentFailed with the solver's
        reason, Unreachable, or UsageError for a platform or date that there is not.
        """
        wanted = request.environment
        if not isinstance(wanted, CondaEnvironment):
            raise Unsupported("this environment is no conda environment")
        from repro import condafile

        condafile.check(wanted)
        names = request.platforms or (here(),)
        for name in names:
            if platforms.named(name) is None:
                known = ", ".join(platforms.NAMES)
                raise UsageError(f"no platform is called `{name}`", hints=[f"known: {known}"])
        failure = f"the packages of `{wanted.file}` cannot be resolved"
        try:
            with session(self._home, self._environ, failure) as work:
                logins = self._channels.logins(wanted.channels)
                calls = Calls(work, self._environ, progress, logins=logins, python=self._python)
                solved = calls.call(self._solving(wanted, request, names), failure)
                return tuple(self._locked(wanted, request, solved, name, work) for name in names)
        except OSError as error:
            raise files.explained(error, "resolving packages") from None

    def _solving(
        self, wanted: CondaEnvironment, request: LockRequest, names: Iterable[str]
    ) -> dict[str, Any]:
        pip = _asks_pip(wanted)
        specs = [self._channels.spec(text) for text in wanted.packages]
        if pip and not any(matchspec.name_of(text) == "python" for text in wanted.packages):
            specs.append("python")
        return {
            "do": "solve",
            "channels": self._channels.of(wanted),
            "specs": specs,
            "before": moment(request.exclude_newer),
            "look_inside": pip,
            "mirrors": self._channels.mirrors(),
            "repodata": os.path.join(self._home, REPODATA),
            "platforms": {
                name: {
                    "virtual": machines.virtual(name, self._environ),
                    "keep": [
                        {"name": artifact.name, "sha256": artifact.digest}
                        for artifact in _kept(request, name)
                        if artifact.kind == KIND
                    ],
                }
                for name in names
            },
        }

    def _locked(
        self,
        wanted: CondaEnvironment,
        request: LockRequest,
        solved: Mapping[str, Any],
        platform: str,
        work: Session,
    ) -> EnvironmentLock:
        inside = {public(url): dists for url, dists in solved["dists"].items()}
        artifacts = [_artifact(package, inside) for package in solved["platforms"][platform]]
        lock = EnvironmentLock(
            kind=KIND,
            artifacts=tuple(artifacts),
            tool=f"py-rattler {solved['version']}",
            platform=platform,
            exclude_newer=moment(request.exclude_newer),
        )
        if wanted.python is not None and _asks_pip(wanted):
            from repro.environments.conda import pip_part

            given = tuple(pip_part.given_by(artifacts, inside))
            kept = _kept(request, platform)
            pip = self._pip()
            artifacts += pip.resolve(wanted.python, lock, given, kept, work)
            lock = replace(lock, tool=f"{lock.tool}, {pip.tool().version(work)}")
        chosen = tuple(sorted(artifacts, key=lambda a: (a.name, a.kind != KIND)))
        lock = replace(lock, artifacts=chosen)
        earlier = next((k for k in request.keep if k.platform == platform), None)
        same = earlier is not None and replace(lock, tool=earlier.tool) == earlier
        return earlier if earlier is not None and same else lock

    def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
        """Say what of a request its lock does not satisfy. Nothing is resolved or fetched."""
        if not isinstance(wanted, CondaEnvironment):
            raise Unsupported("this environment is no conda environment")
        from repro.environments.conda import judgement

        return judgement.unmet(wanted, lock, self._channels)

    def offered(
        self, artifacts: Iterable[Artifact], progress: Progress, seconds: float
    ) -> Mapping[str, str]:
        """Say which packages their channels list now: when each was published, by its URL.

        Raises EnvironmentFailed or Unreachable, also when it takes longer than `seconds`.
        """
        wanted = [a for a in artifacts if a.kind == KIND]
        places = [a.url.rsplit("/", 2)[:2] for a in wanted]
        failure = "the channels cannot be asked"
        job = {
            "do": "look",
            "channels": sorted({channel for channel, _subdir in places}),
            "subdirs": sorted({subdir for _channel, subdir in places}),
            "names": sorted({a.name for a in wanted}),
            "repodata": os.path.join(self._home, REPODATA),
        }
        try:
            with session(self._home, self._environ, failure) as work:
                logins = self._channels.logins(())
                calls = Calls(work, self._environ, progress, logins=logins, python=self._python)
                found = calls.call(job, failure, seconds)
        except OSError as error:
            raise files.explained(error, "asking the channels") from None
        return {public(url): moment(published) for url, published in found.items()}

    def _pip(self) -> PipPart:
        from repro.environments.conda.pip_part import PipPart

        return PipPart(self._home, self._environ, root=self._root, sdists=self._sdists)

    # -- making

    def realize(self, lock: EnvironmentLock, progress: Progress) -> CondaPrefix:
        """Make the environment of `lock`, or find it made; it stays until it is released.

        Packages that are cached are not downloaded again. Raises EnvironmentFailed, Unreachable or
        NoSpace; nothing half-made is left then.
        """
        if lock.platform != here():
            raise EnvironmentFailed(
                f"the environment is locked for {lock.platform}, and this machine is {here()}",
                hints=[f"`repro lock --platform {here()}` locks it for this one too"],
            )

        def build(prefix: str, held: files.Lock) -> cache.Built:
            progress(f"making a conda environment of {len(lock.artifacts)} packages")
            return self._build(lock, prefix, held, progress)

        def fits(prefix: str) -> bool:
            return os.path.isdir(os.path.join(prefix, "conda-meta"))

        try:
            prefix, shared = cache.enter(
                self._home, lock, fits=fits, build=build, progress=progress
            )
        except OSError as error:
            raise files.explained(error, "entering an environment") from None
        return CondaPrefix(prefix, shared)

    def _build(
        self, lock: EnvironmentLock, prefix: str, held: files.Lock, progress: Progress
    ) -> cache.Built:
        from repro.environments.conda import bytecode
        from repro.environments.folders import Folders

        failure = "the conda environment cannot be made"
        conda = [a for a in lock.artifacts if a.kind == KIND]
        mixed = len(conda) < len(lock.artifacts)
        with session(self._home, self._environ, failure, keep=[held.fd]) as work:
            calls = Calls(
                work,
                self._environ,
                progress,
                keep=[held.fd],
                logins=self._channels.logins(()),
                python=self._python,
            )
            job = self._installing(conda, lock.platform, prefix)
            made = self._install(conda, prefix, calls, job)
            known, stock = made.known, [*made.stock]
            if mixed:
                wheels = self._pip().install(lock, prefix, work)
                known |= wheels.known
                stock += wheels.stock
            folders, cached = Folders(prefix), job["cache"]
            linked, packages = bytecode.compile_all(folders, made.notes, conda, cached, work)
            known |= linked
            stock += packages
        for package in prefixes.activated(made.notes):
            progress(f"`{package}` has an activation script, which is not run")

        def check(tree: Tree) -> None:
            changed = prefixes.changed(made.notes, tree, bytecode=not mixed)
            if changed:
                raise prefixes.failure(changed, REPLACED if mixed else PUBLISHED)

        tool = {"tool": f"py-rattler {made.version}"}
        return cache.Built(about=tool, known=known, stock=stock, check=check)

    def _install(
        self, artifacts: list[Artifact], prefix: str, calls: Calls, job: dict[str, Any]
    ) -> Installed:
        """Link the packages into the prefix; a cached one that was changed is fetched anew."""
        from repro.environments.conda.cached import Packages

        for last in (False, True):
            packages = Packages(job["cache"], artifacts)
            os.makedirs(os.path.join(prefix, "conda-meta"), mode=0o755)
            version = calls.call(job, "the conda environment cannot be made")["version"]
            notes = prefixes.complete(prefix, job["cache"], artifacts)
            wrong, helps = packages.settle()
            if not wrong:
                return Installed(
                    version=str(version),
                    notes=notes,
                    known=packages.linked(prefixes.sites(notes)),
                    stock=packages.stock(),
                )
            if last or not helps:
                break
            files.remove_tree(prefix)
        raise prefixes.failure(wrong, PUBLISHED)

    def _installing(
        self, artifacts: Iterable[Artifact], platform: str, prefix: str
    ) -> dict[str, Any]:
        return {
            "do": "install",
            "platform": platform,
            "prefix": prefix,
            "cache": os.path.join(self._home, CACHE),
            "mirrors": self._channels.mirrors(),
            "link_scripts": self._environ.get(ALLOWED_SCRIPTS) == "1",
            "packages": [
                {
                    "name": a.name,
                    "version": a.version,
                    "build": a.build,
                    "url": a.url,
                    "filename": a.filename,
                    "md5": a.md5,
                    "sha256": a.digest,
                    "depends": list(a.depends),
                }
                for a in artifacts
            ],
        }


def _asks_pip(wanted: CondaEnvironment) -> bool:
    """Say whether pip is to install anything."""
    python = wanted.python
    return python is not None and bool(python.requirements or python.directories)


def moment(text: str) -> str:
    """Give a date or time (RFC 3339) as one moment in UTC; empty for none. Raises UsageError."""
    if not text:
        return ""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"`{text}` is no date", hints=["write it as 2025-01-31 or 2025-01-31T12:00:00Z"]
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=dt.UTC)
    return found.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _kept(request: LockRequest, platform: str) -> tuple[Artifact, ...]:
    """Give what of an earlier lock is to stay as it was, if it can."""
    if ALL in request.upgrade:
        return ()
    locks = (lock for lock in request.keep if lock.platform == platform)
    return tuple(a for lock in locks for a in lock.artifacts if a.name not in request.upgrade)


def _artifact(package: Mapping[str, Any], inside: Mapping[str, list[str]]) -> Artifact:
    url = public(package["url"])
    name, version = package["name"], package["version"]
    if not (package["sha256"] and package["md5"]):
        raise EnvironmentFailed(
            f"the channel publishes no SHA-256 and MD5 of `{name} {version}`",
            hints=[f"it is {url}", "index the channel again, or take it from another one"],
        )
    provided = [dist for dist in inside.get(url, ()) if _differs(dist, name, version)]
    return Artifact(
        name=name,
        version=version,
        kind=KIND,
        digest=package["sha256"],
        filename=url.rpartition("/")[2],
        url=url,
        build=package["build"],
        md5=package["md5"],
        depends=_depends(package["depends"]),
        provides=tuple(provided),
    )


def _differs(dist: str, name: str, version: str) -> bool:
    own, _, its_version = dist.partition("==")
    return (normal(own), its_version) != (normal(name), version)


def _depends(texts: Iterable[str]) -> tuple[str, ...]:
    """Write what a package needs with each name once, in order: as the lock file has it."""
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(text.split(maxsplit=1)[0], []).append(text)
    return tuple(
        one[0] if len(one) == 1 else f"{name} {matchspec.joined(one)}"
        for name, one in sorted(found.items())
    )

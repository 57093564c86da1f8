"""uv: resolves to a PEP 751 lock, and builds and installs what is not ready to be unpacked."""

from __future__ import annotations

import os
import re
import shutil

from repro import platforms
from repro.environments import indexes, urls
from repro.environments.demand import normal, parted
from repro.lock import EnvironmentLock
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from repro.environments.demand import Demand
    from repro.environments.interpreters import Python
    from repro.environments.tools import Creating, Session
    from repro.lock import Artifact

# The settings of a project that happens to be near must not leak in, nor may uv fetch a Python.
ALONE = ("--no-config", "--no-python-downloads")
NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*@")
ANNOTATED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[([^\]]*)\])?\s*(?:==|@)[^#]*(?:#\s+via (.*))?$")
FOUND_AT = re.compile(r"\s+# from (\S+)$")
OPTIONS = {"--pre": "--prerelease=allow", "--trusted-host": "--allow-insecure-host="}
"""What uv does not read from a requirements file, and how its command line calls it."""
COMPILE = (
    "import compileall, sysconfig;"
    " compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, maxlevels=99)"
)
NOTHING: Mapping[str, Artifact] = {}


def find(environ: Mapping[str, str]) -> str:
    """Give the path of uv: `REPRO_UV`, the one installed beside repro, or on the `PATH`."""
    named = environ.get("REPRO_UV")
    if named:
        return named
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv", path=environ.get("PATH", "")) or ""


class Uv:
    """The uv at `binary`."""

    def __init__(self, binary: str) -> None:
        """Start nothing yet."""
        self._binary = binary

    def version(self, session: Session) -> str:
        """Give its name and version, as `uv 0.8.1`."""
        return " ".join(session.run(self._binary, "--version").split()[:2])

    def resolve(
        self,
        demand: Demand,
        python: Python,
        session: Session,
        *,
        keep: Mapping[str, Artifact] = NOTHING,
        exclude_newer: str = "",
    ) -> list[Artifact]:
        """Find what `demand` needs on `python`, one file each.

        What is resolved for is the identity of `python`, which may be one of another platform;
        it is started for builds alone. What `keep` names stays as it is where it still satisfies.
        """
        from repro.environments.choice import Choice

        sources = self._sources(demand, python, session)
        requirements, constraints = demand.written(session, sources.values())
        arguments = (
            *((f"--exclude-newer={exclude_newer}",) if exclude_newer else ()),
            *(() if demand.sdists else ("--only-binary=:all:",)),
            *(f"--no-binary={name}" for name in sources),
            *(("--no-deps", "--index-strategy=unsafe-best-match") if demand.exact else ()),
            *("--constraints", constraints, requirements),
        )
        choice = Choice(demand, python.identity, keep)
        told = self._compiled(demand, python, session, arguments, keep.values())
        found = [choice.artifact(package) for package in told]
        if not demand.exact:
            found = self._annotated(found, demand, python, session, arguments)
        return [indexes.original(artifact, session.mirrors) for artifact in found]

    def exported(self, folder: str, python: Python, session: Session) -> str:
        """Give what the `uv.lock` in `folder` says, as the text of a requirements file."""
        return session.run(
            *(self._binary, "export", *ALONE, "--python", python.base, "--frozen"),
            *("--format=requirements.txt", "--no-header", "--no-annotate", "--project", folder),
        )

    def creating(self, python: Python, prefix: str, session: Session) -> Creating:
        """Make an empty virtual environment of `python` while the caller is at work."""
        return session.running(self._binary, "venv", *ALONE, "--python", python.base, prefix)

    def install(
        self,
        artifacts: Iterable[Artifact],
        root: str,
        prefix: str,
        session: Session,
        *,
        fresh: bool = False,
    ) -> None:
        """Install exactly `artifacts`; local ones lie below `root`.

        With `fresh`, again and without uv's cache. Files are copied: a hard link would let a
        change in one environment reach uv's cache and all others. Byte-code is compiled now,
        since a step may not write into its environment; uv would do that to all packages again.
        """
        python = os.path.join(prefix, "bin", "python")
        artifacts = list(artifacts)
        folders = [os.path.join(root, a.url) for a in artifacts if a.kind == "directory"]
        others = [a for a in artifacts if a.kind != "directory"]
        install = (
            *(self._binary, "pip", "install", *ALONE),
            *("--python", python, "--no-deps", "--link-mode=copy"),
            *(("--reinstall", "--no-cache") if fresh else ()),
        )
        variables = session.usual_index("uv")  # for what builds need
        if others:
            text = _pylock(others, root, session)
            lock = session.write_lines("pylock.environment.toml", (text,))
            session.run(*install, "-r", lock, variables=variables)
        if folders:  # named as arguments: only then does uv not take an older build of a folder
            session.run(*install, *folders, variables=variables)
        session.run(python, "-I", "-c", COMPILE)

    def _sources(self, demand: Demand, python: Python, session: Session) -> dict[str, str]:
        """Give the checkouts and local packages by name: those alone may then be built."""
        sources = {}
        for line in demand.checkouts:
            known = NAMED.match(line)
            name = known[1] if known else self._name(line, demand, python, session)
            sources[name] = line if known else f"{name} @ {line}"
        for package in demand.packages:
            name = self._name(package.line, demand, python, session)
            sources[name] = package.named(name)
        sources.pop("", None)
        return sources

    def _name(self, line: str, demand: Demand, python: Python, session: Session) -> str:
        """Ask what the package behind a path or URL is called, as it is now.

        uv would otherwise take what it knows of a folder until its `pyproject.toml` is touched.
        """
        asked = session.write_requirements("source.txt", (*demand.options, line))
        told = self._compiled(demand, python, session, ("--no-deps", "--refresh", asked))
        return str(told[0]["name"]) if told else ""  # a marker may exclude it

    def _command(self, demand: Demand, python: Python, arguments: Sequence[str]) -> Iterator[str]:
        yield from (self._binary, "pip", "compile", *ALONE, "--no-header", "--quiet")
        yield from ("--python", python.base, f"--python-version={python.identity.version}")
        for platform in platforms.PLATFORMS:
            if platform.python == python.identity.platform:
                yield f"--python-platform={platform.uv}"
        for word, value in map(parted, demand.options):
            if word in OPTIONS:
                yield OPTIONS[word] + value
        yield from arguments

    def _compiled(
        self,
        demand: Demand,
        python: Python,
        session: Session,
        arguments: Sequence[str],
        keep: Iterable[Artifact] = (),
    ) -> list[dict[str, Any]]:
        """Give the packages of the lock that uv writes; it prefers what its file says before."""
        import tomllib

        known = [a for a in keep if a.kind != "directory"]
        text = _pylock(known, demand.root, session)
        file = session.write_lines("pylock.resolved.toml", (text,))
        session.run(
            *self._command(demand, python, arguments),
            *("--format=pylock.toml", "--no-annotate", "--output-file", file),
            variables=session.usual_index("uv", demand.options),
        )
        with open(file, "rb") as written:
            packages = tomllib.load(written).get("packages", ())
        return [_absolute(package, session.folder) for package in packages]

    def _annotated(
        self,
        found: list[Artifact],
        demand: Demand,
        python: Python,
        session: Session,
        arguments: Sequence[str],
    ) -> list[Artifact]:
        """Add who needs what, which extras, and where it was found: uv tells it in comments."""
        pins = [f"{a.name}=={a.version}" for a in found if a.kind in ("wheel", "sdist")]
        file = session.write_lines("resolved.txt", pins)
        session.run(
            *self._command(demand, python, arguments),
            *("--format=requirements.txt", "--no-strip-extras"),
            *("--annotation-style=line", "--emit-index-annotation", "--output-file", file),
            variables=session.usual_index("uv", demand.options),
        )
        with open(file, encoding="utf-8") as written:
            graph = Graph(written.read())
        return [graph.annotated(artifact) for artifact in found]


class Graph:
    """What the comments in a requirements file of uv say about its packages."""

    def __init__(self, text: str) -> None:
        """Read the file."""
        self.needs: dict[str, set[str]] = {}
        self.extras: dict[str, tuple[str, ...]] = {}
        self.index: dict[str, str] = {}
        name = ""
        for line in text.splitlines():
            if package := ANNOTATED.match(line):
                name = normal(package[1])
                extras = {normal(extra.strip()) for extra in (package[2] or "").split(",")}
                self.extras[name] = tuple(sorted(extras - {""}))
                for parent in (package[3] or "").split(", "):
                    self.needs.setdefault(normal(parent.partition(" ")[0]), set()).add(name)
            elif (place := FOUND_AT.match(line)) and not urls.path(place[1]):
                self.index[name] = urls.public(place[1])

    def annotated(self, artifact: Artifact) -> Artifact:
        """Add what is known of a package."""
        return replace(
            artifact,
            depends=tuple(sorted(self.needs.get(artifact.name, set()) - {artifact.name})),
            extras=self.extras.get(artifact.name, ()),
            index=self.index.get(artifact.name, ""),
        )


def _absolute(package: dict[str, Any], folder: str) -> dict[str, Any]:
    """Make local paths absolute: some versions of uv give them relative to where they ran."""
    single = (package.get(kind, {}) for kind in ("directory", "archive", "sdist"))
    for source in (*single, *package.get("wheels", ())):
        if "path" in source:
            source["path"] = os.path.realpath(os.path.join(folder, source["path"]))
    return package


def _pylock(artifacts: Iterable[Artifact], root: str, session: Session) -> str:
    """Write a lock for uv itself, in which every path is absolute."""
    from repro.lockfiles import pylock

    placed = tuple(replace(indexes.placed(a, root, session.mirrors), depends=()) for a in artifacts)
    return pylock.encode((EnvironmentLock(kind="python", artifacts=placed),), {}).decode()

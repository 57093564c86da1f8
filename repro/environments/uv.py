"""uv: resolves to a PEP 751 lock, and installs from one."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib

from repro import digest
from repro.environments import urls, wheels
from repro.environments.demand import parted
from repro.errors import EnvironmentFailed
from repro.lock import Artifact
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.environments.demand import Demand
    from repro.environments.interpreters import Python
    from repro.environments.tools import Session
    from repro.lock import Interpreter

# The settings of a project that happens to be near must not leak in, nor may uv fetch a Python.
ALONE = ("--no-config", "--no-python-downloads")
NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*@")
OPTIONS = {"--pre": "--prerelease=allow", "--trusted-host": "--allow-insecure-host="}
"""What uv does not read from a requirements file, and how its command line calls it."""


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

    def resolve(self, demand: Demand, python: Python, session: Session) -> list[Artifact]:
        """Find what `demand` needs on `python`, one file each."""
        sources = self._sources(demand, python, session)
        requirements, constraints = demand.written(session, sources.values())
        told = self._compiled(
            demand,
            python,
            session,
            *(() if demand.sdists else ("--only-binary=:all:",)),
            *(f"--no-binary={name}" for name in sources),
            *("--constraints", constraints, requirements),
        )
        return [_artifact(package, demand, python.identity) for package in told]

    def create(self, python: Python, prefix: str, session: Session) -> None:
        """Make an empty virtual environment of `python`."""
        session.run(self._binary, "venv", *ALONE, "--python", python.base, prefix)

    def install(
        self, artifacts: Iterable[Artifact], root: str, prefix: str, session: Session
    ) -> None:
        """Install exactly `artifacts`; local ones lie below `root`.

        Files are copied: a hard link would let a change in one environment reach uv's cache and
        all others. Byte-code is compiled now, since a step may not write into its environment.
        """
        artifacts = list(artifacts)
        folders = [os.path.join(root, a.url) for a in artifacts if a.kind == "directory"]
        others = [a for a in artifacts if a.kind != "directory"]
        install = (
            *(self._binary, "pip", "install", *ALONE),
            *("--python", os.path.join(prefix, "bin", "python")),
            *("--no-deps", "--link-mode=copy", "--compile-bytecode"),
        )
        if others:
            lock = session.write_lines("pylock.environment.toml", _pylock(others, root))
            ready = ["--no-build"] if all(a.kind == "wheel" for a in others) else []
            session.run(*install, *ready, "-r", lock)
        if folders:  # named as arguments: only then does uv not take an older build of a folder
            session.run(*install, *folders)

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
        asked = session.write_lines("source.txt", (*demand.options, line))
        told = self._compiled(demand, python, session, "--no-deps", "--refresh", asked)
        return str(told[0]["name"]) if told else ""  # a marker may exclude it

    def _compiled(
        self, demand: Demand, python: Python, session: Session, *arguments: str
    ) -> list[dict[str, Any]]:
        parts = [parted(option) for option in demand.options]
        told = session.run(
            *(self._binary, "pip", "compile", *ALONE, "--python", python.base),
            *("--format=pylock.toml", "--no-header", "--no-annotate"),
            *(OPTIONS[word] + value for word, value in parts if word in OPTIONS),
            *arguments,
        )
        packages = tomllib.loads(told).get("packages", ())
        return [_absolute(package, session.folder) for package in packages]


def _absolute(package: dict[str, Any], folder: str) -> dict[str, Any]:
    """Make local paths absolute: some versions of uv give them relative to where they ran."""
    single = (package.get(kind, {}) for kind in ("directory", "archive", "sdist"))
    for source in (*single, *package.get("wheels", ())):
        if "path" in source:
            source["path"] = os.path.realpath(os.path.join(folder, source["path"]))
    return package


def _artifact(package: dict[str, Any], demand: Demand, python: Interpreter) -> Artifact:
    """Read one package of a lock that uv wrote."""
    name = package["name"]
    if "directory" in package:
        return demand.package(package["directory"]["path"]).artifact(name)
    if "vcs" in package:
        source = package["vcs"]
        commit, inside = source["commit-id"], source.get("subdirectory")
        url = urls.checkout(source["type"], source["url"], commit, inside)
        return Artifact(name=name, version=package["version"], kind="vcs", digest=commit, url=url)
    file = _file(package, python)
    url = _url(file)
    return Artifact(
        name=name,
        version=package["version"],
        kind="wheel" if urls.filename(url).endswith(".whl") else "sdist",
        digest=_sha256(file, url),
        filename=urls.filename(url),
        url=urls.kept(url, demand.root),
    )


def _file(package: dict[str, Any], python: Interpreter) -> dict[str, Any]:
    """Choose what to install: uv lists every wheel that fits, in no order, and the source."""
    offered = {urls.filename(_url(wheel)): wheel for wheel in package.get("wheels", ())}
    if offered:
        return dict(offered[wheels.best(offered, python)])
    return dict(package.get("archive") or package["sdist"])


def _url(file: dict[str, Any]) -> str:
    return str(file["url"]) if "url" in file else urls.of_path(file["path"])


def _sha256(file: dict[str, Any], url: str) -> str:
    """Give the hash of a file; older versions of uv leave it out for files on disk."""
    known = file.get("hashes", {}).get("sha256")
    if known:
        return str(known)
    path = urls.path(url)
    if not path:
        raise EnvironmentFailed(
            f"no SHA-256 is known for `{urls.filename(url)}`",
            hints=["take an index that publishes them, or a newer uv"],
        )
    with open(path, "rb") as content:
        return digest.of_chunks(files.chunks(content.fileno()))


def _pylock(artifacts: Iterable[Artifact], root: str) -> Iterator[str]:
    """Write a PEP 751 lock. Strings of JSON are strings of TOML."""
    yield 'lock-version = "1.0"'
    yield 'created-by = "repro"'
    for artifact in artifacts:
        yield "[[packages]]"
        yield f"name = {json.dumps(artifact.name)}"
        yield f"version = {json.dumps(artifact.version)}"
        yield _source(artifact, root)


def _source(artifact: Artifact, root: str) -> str:
    if artifact.kind == "vcs":
        return _vcs(artifact)
    file = (
        f"{{ url = {json.dumps(urls.placed(artifact.url, root))},"
        f' hashes = {{ sha256 = "{artifact.digest}" }} }}'
    )
    return f"wheels = [{file}]" if artifact.kind == "wheel" else f"sdist = {file}"


def _vcs(artifact: Artifact) -> str:
    place, _, inside = artifact.url.partition("#subdirectory=")
    system, _, url = place.removesuffix(f"@{artifact.digest}").partition("+")
    parts = {"type": system, "url": url, "commit-id": artifact.digest, "subdirectory": inside}
    text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in parts.items() if value)
    return f"vcs = {{ {text} }}"

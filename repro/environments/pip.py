"""pip, for where there is no uv: slower, with the same locks and the same environments."""

from __future__ import annotations

import html
import json
import os

from repro.environments import indexes, urls
from repro.environments.demand import normal
from repro.errors import EnvironmentFailed
from repro.lock import Artifact
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.environments.demand import Demand
    from repro.environments.interpreters import Python
    from repro.environments.tools import Creating, Session

NOTHING: Mapping[str, Artifact] = {}


class Pip:
    """The pip that comes with a Python, in a virtual environment that is thrown away."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._base = ""
        self._python = ""

    def version(self, session: Session) -> str:
        """Give its name and version, as `pip 23.2.1`; the name alone where it was not needed."""
        if not self._python:
            return "pip"
        return " ".join(session.run(self._python, "-m", "pip", "--version").split()[:2])

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

        What `keep` names stays as it is, all of it or nothing. pip resolves for this machine.
        """
        self._prepare(python.base, session)
        pins = [f"{a.name}=={a.version}" for a in keep.values() if a.kind in ("wheel", "sdist")]
        more = (f"--uploaded-prior-to={exclude_newer}",) if exclude_newer else ()
        try:
            return self._resolved(demand, session, (*demand.constraints, *pins), more)
        except EnvironmentFailed:
            if not pins:
                raise
            return self._resolved(demand, session, demand.constraints, more)

    def _resolved(
        self, demand: Demand, session: Session, constraints: Iterable[str], more: Iterable[str]
    ) -> list[Artifact]:
        sources = (*demand.checkouts, *(package.line for package in demand.packages))
        requirements, _given = demand.written(session, sources)
        report = os.path.join(session.folder, "report.json")
        session.run(
            *(self._python, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--report", report, *more),
            *(() if demand.sdists else ("--only-binary=:all:",)),
            *("-c", session.write_requirements("pins.txt", constraints), "-r", requirements),
            variables=session.usual_index("pip", demand.options),
        )
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        found = (_artifact(item, demand, told["environment"]) for item in told["install"])
        return [indexes.original(artifact, session.mirrors) for artifact in found]

    def creating(self, python: Python, prefix: str, session: Session) -> Creating:
        """Make an empty virtual environment of `python` while the caller is at work."""
        self._base = python.base
        return session.running(python.base, "-I", "-m", "venv", "--without-pip", prefix)

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

        With `fresh`, again and without pip's cache. The environment was made by `creating`.
        """
        if not self._python:
            self._prepare(self._base, session)
        artifacts = list(artifacts)
        files = [a for a in artifacts if a.kind in ("wheel", "sdist")]
        sources = [a.url for a in artifacts if a.kind == "vcs"]
        sources += [os.path.join(root, a.url) for a in artifacts if a.kind == "directory"]
        target = os.path.join(prefix, "bin", "python")
        install = [self._python, "-m", "pip", "--python", target, "install", "--no-deps"]
        install += ["--force-reinstall", "--no-cache-dir"] if fresh else []
        variables = session.usual_index("pip")  # for what builds need
        if files:
            placed = [indexes.placed(artifact, root, session.mirrors) for artifact in files]
            pins = [f"{a.name}=={a.version} --hash=sha256:{a.digest}" for a in files]
            # What is built needs an index for what its build needs; hashes hold either way.
            builds = any(a.kind == "sdist" for a in files)
            session.run(
                *(*install, "--require-hashes", *(() if builds else ("--no-index",))),
                # A page of links instead of direct URLs: those would be recorded as the origin.
                *("--find-links", session.write_lines("links.html", _links(placed))),
                *("-r", session.write_lines("pins.txt", pins)),
                variables=variables,
            )
        if sources:
            session.run(*install, *sources, variables=variables)

    def _prepare(self, base: str, session: Session) -> None:
        folder = os.path.join(session.folder, "pip")
        session.run(base, "-I", "-m", "venv", folder)
        self._python = os.path.join(folder, "bin", "python")


def _artifact(item: dict[str, Any], demand: Demand, environment: dict[str, str]) -> Artifact:
    """Read one entry of pip's installation report."""
    extras = tuple(sorted(map(normal, item.get("requested_extras", ()))))
    needs = _needs(item["metadata"].get("requires_dist", ()), extras, environment)
    return replace(_source(item, demand), extras=extras, depends=needs)


def _needs(
    lines: Iterable[str], extras: Iterable[str], environment: dict[str, str]
) -> tuple[str, ...]:
    """Give the names of what is needed, where `environment` are the values of the markers."""
    from packaging.requirements import Requirement

    chosen = [{**environment, "extra": extra} for extra in ("", *extras)]
    found = map(Requirement, lines)
    return tuple(
        sorted(
            {
                normal(r.name)
                for r in found
                if r.marker is None or any(r.marker.evaluate(one) for one in chosen)
            }
        )
    )


def _source(item: dict[str, Any], demand: Demand) -> Artifact:
    name = normal(item["metadata"]["name"])
    version = item["metadata"]["version"]
    source = item["download_info"]
    url = source["url"]
    if "dir_info" in source:
        return demand.package(urls.path(url)).artifact(name)
    if "vcs_info" in source:
        system, commit = source["vcs_info"]["vcs"], source["vcs_info"]["commit_id"]
        url = urls.checkout(system, url, commit, source.get("subdirectory"))
        return Artifact(name=name, version=version, kind="vcs", digest=commit, url=url)
    return Artifact(
        name=name,
        version=version,
        kind="wheel" if urls.filename(url).endswith(".whl") else "sdist",
        digest=_allowed(name, _sha256(name, source["archive_info"]), demand),
        filename=urls.filename(url),
        url=urls.kept(url, demand.root),
    )


def _sha256(name: str, archive: dict[str, Any]) -> str:
    """Give the hash of a file; pip before 23.1 writes it in one text, `sha256=...`."""
    kind, _, text = archive.get("hash", "").partition("=")
    found: dict[str, str] = {kind: text, **archive.get("hashes", {})}
    if "sha256" not in found:
        raise EnvironmentFailed(
            f"pip does not tell the SHA-256 of `{name}`", hints=["lock with uv, or a newer pip"]
        )
    return found["sha256"]


def _allowed(name: str, sha256: str, demand: Demand) -> str:
    """Refuse a file that is none of those that were asked for: pip tells of one alone."""
    if sha256 in demand.hashes.get(name, (sha256,)):
        return sha256
    raise EnvironmentFailed(
        f"the file of `{name}` has none of the hashes given for it",
        hints=["write the hashes of the requirements again, those of all platforms"],
    )


def _links(files: Iterable[Artifact]) -> Iterable[str]:
    for file in files:
        url = f"{file.url}#sha256={file.digest}"
        yield f'<a href="{html.escape(url)}">{html.escape(file.filename)}</a>'

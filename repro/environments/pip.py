"""pip, for where there is no uv: slower, with the same locks and the same environments."""

from __future__ import annotations

import html
import json
import os
import re

from repro.environments import urls
from repro.lock import Artifact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from repro.environments.demand import Demand
    from repro.environments.interpreters import Python
    from repro.environments.tools import Session


class Pip:
    """The pip that comes with a Python, in a virtual environment that is thrown away."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._python = ""

    def version(self, session: Session) -> str:
        """Give its name and version, as `pip 23.2.1`; something was resolved before."""
        return " ".join(session.run(self._python, "-m", "pip", "--version").split()[:2])

    def resolve(self, demand: Demand, python: Python, session: Session) -> list[Artifact]:
        """Find what `demand` needs on `python`, one file each."""
        self._prepare(python, session)
        sources = (*demand.checkouts, *(package.line for package in demand.packages))
        requirements, constraints = demand.written(session, sources)
        report = os.path.join(session.folder, "report.json")
        session.run(
            *(self._python, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--report", report),
            *(() if demand.sdists else ("--only-binary=:all:",)),
            *("-c", constraints, "-r", requirements),
        )
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        return [_artifact(item, demand) for item in told["install"]]

    def create(self, python: Python, prefix: str, session: Session) -> None:
        """Make an empty virtual environment of `python`."""
        self._prepare(python, session)
        session.run(python.base, "-I", "-m", "venv", "--without-pip", prefix)

    def install(
        self, artifacts: Iterable[Artifact], root: str, prefix: str, session: Session
    ) -> None:
        """Install exactly `artifacts`; local ones lie below `root`."""
        artifacts = list(artifacts)
        files = [a for a in artifacts if a.kind in ("wheel", "sdist")]
        sources = [a.url for a in artifacts if a.kind == "vcs"]
        sources += [os.path.join(root, a.url) for a in artifacts if a.kind == "directory"]
        target = os.path.join(prefix, "bin", "python")
        install = (self._python, "-m", "pip", "--python", target, "install", "--no-deps")
        if files:
            pins = [f"{a.name}=={a.version} --hash=sha256:{a.digest}" for a in files]
            ready = ["--only-binary=:all:"] if all(a.kind == "wheel" for a in files) else []
            session.run(
                *(*install, "--require-hashes", *ready, "--no-index"),
                # A page of links instead of direct URLs: those would be recorded as the origin.
                *("--find-links", session.write_lines("links.html", _links(files, root))),
                *("-r", session.write_lines("pins.txt", pins)),
            )
        if sources:
            session.run(*install, *sources)

    def _prepare(self, python: Python, session: Session) -> None:
        folder = os.path.join(session.folder, "pip")
        session.run(python.base, "-I", "-m", "venv", folder)
        self._python = os.path.join(folder, "bin", "python")


def _artifact(item: dict[str, Any], demand: Demand) -> Artifact:
    """Read one entry of pip's installation report."""
    name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
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
        digest=source["archive_info"]["hashes"]["sha256"],
        filename=urls.filename(url),
        url=urls.kept(url, demand.root),
    )


def _links(files: Iterable[Artifact], root: str) -> Iterable[str]:
    for file in files:
        url = f"{urls.placed(file.url, root)}#sha256={file.digest}"
        yield f'<a href="{html.escape(url)}">{html.escape(file.filename)}</a>'

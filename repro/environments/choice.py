"""Which file of a package is locked, among those that a resolver offers."""

from __future__ import annotations

from repro import digest
from repro.environments import urls, wheels
from repro.environments.failures import BUILDABLE
from repro.errors import EnvironmentFailed
from repro.lock import Artifact
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.environments.demand import Demand
    from repro.lock import Interpreter


class Choice:
    """Chooses for `interpreter`; a file that `keep` has already is taken again."""

    def __init__(
        self, demand: Demand, interpreter: Interpreter, keep: Mapping[str, Artifact]
    ) -> None:
        """Take what was asked for."""
        self.demand = demand
        self.interpreter = interpreter
        self.keep = keep

    def artifact(self, package: dict[str, Any]) -> Artifact:
        """Read one package of a PEP 751 lock that uv wrote. Raises EnvironmentFailed."""
        name = package["name"]
        if "directory" in package:
            return self.demand.package(package["directory"]["path"]).artifact(name)
        if "vcs" in package:
            return _checkout(package)
        file = self._file(package)
        url = _url(file)
        return Artifact(
            name=name,
            version=package["version"],
            kind="wheel" if urls.filename(url).endswith(".whl") else "sdist",
            digest=_sha256(file, url),
            filename=urls.filename(url),
            url=urls.kept(url, self.demand.root),
            size=file.get("size", 0),
        )

    def _file(self, package: dict[str, Any]) -> dict[str, Any]:
        allowed = self.demand.hashes.get(package["name"], ())
        named = {urls.filename(_url(wheel)): wheel for wheel in package.get("wheels", ())}
        offered = {
            name: file
            for name, file in named.items()
            if not allowed or _sha256(file, _url(file)) in allowed
        }
        known = self.keep.get(package["name"])
        if known is not None and wheels.best({known.filename} & offered.keys(), self.interpreter):
            file = offered[known.filename]
            if _sha256(file, _url(file)) == known.digest:
                return dict(file)
        best = wheels.best(offered, self.interpreter)
        return dict(offered[best]) if best else self._source(package, allowed)

    def _source(self, package: dict[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
        """Give the one file that was named, or the source distribution where that may be built."""
        named = f"`{package['name']}=={package['version']}`"
        source = package.get("archive") or (self.demand.sdists and package.get("sdist"))
        if not source and not allowed:
            raise EnvironmentFailed(
                f"{named} has no wheel for {self.interpreter} on {self.interpreter.platform}",
                hints=["choose a version that has one", BUILDABLE],
            )
        if not source or (allowed and _sha256(source, _url(source)) not in allowed):
            raise EnvironmentFailed(
                f"no file of {named} that can be installed has one of the hashes given for it",
                hints=["write the hashes of the requirements again, those of all platforms"],
            )
        return dict(source)


def _checkout(package: dict[str, Any]) -> Artifact:
    source = package["vcs"]
    commit, inside = source["commit-id"], source.get("subdirectory")
    return Artifact(
        name=package["name"],
        version=package["version"],
        kind="vcs",
        digest=commit,
        url=urls.checkout(source["type"], source["url"], commit, inside),
    )


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

"""What a `uv.lock` knows of packages that a list of pins does not say."""

from __future__ import annotations

import posixpath
import tomllib

from repro.environments import urls
from repro.environments.demand import normal
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from repro.lock import Artifact

DEFAULT = "https://pypi.org/simple"


class UvLock:
    """A `uv.lock`. Raises ValueError for text that is none."""

    def __init__(self, data: bytes) -> None:
        """Read the text."""
        self._packages: list[dict[str, Any]] = tomllib.loads(data.decode()).get("package", [])

    def options(self, folder: str) -> tuple[str, ...]:
        """Give the options of a requirements file that name the indexes of its packages.

        `folder` is that of the uv project; a local index is named relative to the whole project.
        """
        found = sorted({index for index in map(_index, self._packages) if index})
        if found in ([], [DEFAULT]):
            return ()
        words = {index: "--extra-index-url" for index in found if "://" in index}
        if DEFAULT not in found and words:
            words[next(iter(words))] = "--index-url"
        local = [f"--find-links {posixpath.join(folder, i)}" for i in found if "://" not in i]
        return (*(f"{word} {index}" for index, word in words.items()), *local)

    def annotated(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Add who needs what, which extras, and where it was found."""
        artifacts = list(artifacts)
        names = {artifact.name for artifact in artifacts}
        needs: dict[str, set[str]] = {}
        extras: dict[str, set[str]] = {}
        indexes: dict[str, str] = {}
        for package in self._packages:
            name = normal(package["name"])
            indexes[name] = indexes.get(name, "") or _index(package)
            for entry in _needs(package):
                needed = normal(entry["name"])
                needs.setdefault(name, set()).add(needed)
                extras.setdefault(needed, set()).update(map(normal, entry.get("extra", [])))
        return [
            replace(
                a,
                depends=tuple(sorted(needs.get(a.name, set()) & names - {a.name})),
                extras=tuple(sorted(extras.get(a.name, set()))),
                index=urls.public(indexes.get(a.name, "")),
            )
            for a in artifacts
        ]


def _index(package: dict[str, Any]) -> str:
    return str(package.get("source", {}).get("registry", ""))


def _needs(package: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from package.get("dependencies", [])
    for group in ("optional-dependencies", "dev-dependencies"):
        for entries in package.get(group, {}).values():
            yield from entries

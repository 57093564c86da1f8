"""What is in a store, how large it is, and which of it a result names."""

from __future__ import annotations

import os

from repro import manifest
from repro.store.blobs import BlobMissing
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.results import Result, Results

OTHERS = ("ac", "memo", "lockfiles", "tmp", "logs", "quarantine", "osv", "repodata")


class Usage(Value):
    """Sizes of the parts of a store, in bytes, and how many there are of each."""

    blobs: int = 0
    blob_bytes: int = 0
    results: int = 0
    environments: int = 0
    environment_bytes: int = 0
    mirror_bytes: int = 0
    other_bytes: int = 0

    @property
    def total(self) -> int:
        """Give the size of everything."""
        return self.blob_bytes + self.environment_bytes + self.mirror_bytes + self.other_bytes


def usage(home: Home, blobs: Blobs, results: Results) -> Usage:
    """Measure a store."""
    sizes = [size for _name, size in blobs.names()]
    return Usage(
        blobs=len(sizes),
        blob_bytes=sum(sizes),
        results=sum(1 for _ in results.keys()),  # noqa: SIM118  (it is no dict)
        environments=len(os.listdir(home.path("envs"))),
        environment_bytes=size_of(home.path("envs")),
        mirror_bytes=size_of(home.path("git")),
        other_bytes=sum(size_of(home.path(name)) for name in OTHERS),
    )


def named(blobs: Blobs, result: Result) -> frozenset[str]:
    """Give the blobs that a result names, itself or through its manifests."""
    trees = trees_of(result)
    found = {*trees, result.log, result.provenance, str(result.parts.get("inputs"))}
    for name in trees:
        found |= contents(blobs, name)
    return frozenset(found)


def trees_of(result: Result) -> list[str]:
    """Give the manifests of the files that a result consists of."""
    return [result.outputs, result.artifacts, *(c["artifacts"] for c in result.children)]


def contents(blobs: Blobs, name: str) -> set[str]:
    """Give the blobs that a manifest names."""
    try:
        entries = manifest.decode(blobs.get(name))
    except (BlobMissing, manifest.NotAManifest):
        return set()
    return {entry.content for entry in entries if entry.kind in ("file", "exec")}


def size_of(folder: str) -> int:
    """Give the number of bytes below a folder."""
    total = 0
    for base, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except FileNotFoundError:
                pass
    return total

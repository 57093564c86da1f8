"""What may be removed from a store: results nobody used for long, and blobs nothing names."""

from __future__ import annotations

import os

from repro import manifest
from repro.store.blobs import BlobMissing
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.results import Results

GRACE_NS = 3_600_000_000_000
"""A blob younger than an hour may belong to a result that is being published."""


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


class Pruned(Value):
    """What was removed, or would be."""

    results: int = 0
    blobs: int = 0
    bytes: int = 0
    folders: int = 0


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
        other_bytes=sum(
            size_of(home.path(name)) for name in ("ac", "memo", "tmp", "logs", "quarantine")
        ),
    )


def prune(
    home: Home,
    blobs: Blobs,
    results: Results,
    *,
    before_ns: int,
    now_ns: int,
    kept: frozenset[str],
    dry_run: bool,
) -> Pruned:
    """Remove results not used since `before_ns`, then blobs that neither a result nor `kept` names.

    Blobs younger than an hour stay. One process prunes at a time; running steps are not
    disturbed: a blob that is gone is a miss for them.
    """
    with home.lock("prune"):
        old = [key for key, used in results.keys() if used < before_ns]  # noqa: SIM118
        stays = _reachable(blobs, results, set(old)) | kept
        gone, total = 0, 0
        for key in () if dry_run else old:
            results.drop(key)
        for name, size in list(blobs.names()):
            if name not in stays and _age(blobs.path(name), now_ns) > GRACE_NS:
                gone, total = gone + 1, total + size
                if not dry_run:
                    files.unlink(blobs.path(name))
        folders = home.abandoned()
        total += sum(size_of(folder) for folder in folders)
        for folder in () if dry_run else folders:
            files.remove_tree(folder)
            files.unlink(home.path("leases", f"tmp-{os.path.basename(folder)}"))
    return Pruned(results=len(old), blobs=gone, bytes=total, folders=len(folders))


def _reachable(blobs: Blobs, results: Results, gone: set[str]) -> set[str]:
    """Give the blobs that the remaining results name, through their manifests."""
    found: set[str] = set()
    for key, _used in results.keys():  # noqa: SIM118
        result = None if key in gone else results.get(key)
        if result is None:
            continue
        trees = [result.outputs, result.artifacts, *(c["artifacts"] for c in result.children)]
        found |= {*trees, result.log, result.provenance, str(result.parts.get("inputs"))}
        for name in trees:
            found |= contents(blobs, name)
    return found


def contents(blobs: Blobs, name: str) -> set[str]:
    """Give the blobs that a manifest names."""
    try:
        entries = manifest.decode(blobs.get(name))
    except (BlobMissing, manifest.NotAManifest):
        return set()
    return {entry.content for entry in entries if entry.kind in ("file", "exec")}


def _age(path: str, now_ns: int) -> int:
    try:
        return now_ns - os.stat(path).st_ctime_ns
    except FileNotFoundError:
        return 0


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

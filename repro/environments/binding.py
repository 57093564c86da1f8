"""Binding a lock that another tool wrote, for several platforms, to one of them."""

from __future__ import annotations

from packaging.markers import InvalidMarker, Marker

from repro.environments import wheels
from repro.environments.unmet import markers
from repro.errors import EnvironmentFailed
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.lock import Artifact, EnvironmentLock, Interpreter


def bound(lock: EnvironmentLock, interpreter: Interpreter, platform: str) -> EnvironmentLock:
    """Give `lock` with one file of each package that counts for `interpreter` on `platform`.

    Raises EnvironmentFailed where no file of a package can be installed there.
    """
    lock = replace(lock, interpreter=interpreter, platform=platform)
    environment = markers(lock)
    offered: dict[str, list[Artifact]] = {}
    for artifact in lock.artifacts:
        if not artifact.marker or _counts(artifact.marker, environment):
            offered.setdefault(artifact.name, []).append(artifact)
    chosen = tuple(_chosen(files, interpreter) for _name, files in sorted(offered.items()))
    return replace(lock, artifacts=chosen)


def _counts(marker: str, environment: dict[str, str]) -> bool:
    """Judge a marker of a lock file; groups and extras that are not asked for do not count."""
    try:
        return Marker(marker).evaluate(dict(environment), context="lock_file")
    except (InvalidMarker, ValueError):
        raise EnvironmentFailed(f"the lock has a marker that cannot be read: `{marker}`") from None


def _chosen(files: list[Artifact], interpreter: Interpreter) -> Artifact:
    named = {file.filename: file for file in files if file.kind == "wheel"}
    best = wheels.best(named, interpreter)
    others = [file for file in files if file.kind != "wheel"]
    if not best and not others:
        raise EnvironmentFailed(
            f"the lock has no wheel of `{files[0].name}` for {interpreter}"
            f" on {interpreter.platform}",
            hints=["`repro lock` writes a lock for this platform"],
        )
    return replace(named[best] if best else others[0], marker="")

"""Keeps what a tracking server could not be told, one file a run, until it can."""

from __future__ import annotations

import os

from repro import canonical, errors
from repro.ports import ChildRun, Tracked
from repro.system import files
from repro.tracking.server import Refusal
from repro.value import Value, dump, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.tracking.mirror import Mirror

SUFFIX = ".json"
LOCK = ".lock"
GONE = "RESOURCE_DOES_NOT_EXIST"


class Pending(Value):
    """A run that has ended, and that `server` (a mirror's `name`) does not show completely.

    `run` is what `Mirror.begin` takes; `run_id` is what it gave, empty when it did not get there.
    The files in `tracked.artifacts` are sent if they are still there at that time; a folder inside
    the outbox is removed afterwards.
    """

    server: str
    run: Mapping[str, Any]
    status: str
    tracked: Tracked
    ended_ms: int
    run_id: str = ""


CLASSES = {c.__name__: c for c in (Pending, Tracked, ChildRun)}


def keep(folder: str, pending: Pending) -> None:
    """Write down a run for later, replacing what was kept of it before. Never half a file.

    Raises Unreachable when the disk does not take it.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, pending.run["id"] + SUFFIX)
        files.replace(path, canonical.encode(dump(pending)))
    except OSError as error:
        raise files.explained(error, "keeping a run for the tracking server") from error


def deliver(folder: str, mirror: Mirror) -> tuple[int, int]:
    """Tell `mirror` what is kept for it; give how many runs it shows now and how many are left.

    Stops at the first sign that the server is down. Never raises for a server; a second process
    that delivers at the same time leaves everything to the first.
    """
    names = _waiting(folder, mirror)
    lock = files.Lock(os.path.join(folder, LOCK))
    if not names or not lock.take(wait=False):
        return 0, len(names)
    try:
        delivered = _deliver_all(folder, mirror)
    finally:
        lock.free()
    return delivered, len(_waiting(folder, mirror))


def _names(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))


def _waiting(folder: str, mirror: Mirror) -> list[str]:
    """Name the files that are for this server, or that cannot be read."""
    found = []
    for name in _names(folder):
        pending = _read(os.path.join(folder, name))
        if pending is None or pending.server == mirror.name:
            found.append(name)
    return found


def _deliver_all(folder: str, mirror: Mirror) -> int:
    delivered = 0
    for name in _names(folder):
        try:
            delivered += _deliver(os.path.join(folder, name), mirror)
        except Refusal as refusal:
            if refusal.reason == GONE:  # the run was deleted there: it will never be shown
                _drop(os.path.join(folder, name))
        except errors.Unreachable:
            break
    return delivered


def _deliver(path: str, mirror: Mirror) -> bool:
    pending = _read(path)
    if pending is None or pending.server != mirror.name:
        return False
    run_id = pending.run_id or mirror.find(pending.run) or mirror.begin(pending.run)
    mirror.finish(run_id, pending.status, pending.tracked, pending.ended_ms)
    _drop(path)
    return True


def _drop(path: str) -> None:
    """Forget a run, with the copies of its files that were made for it."""
    pending = _read(path)
    files.unlink(path)
    if pending is None:
        return
    tracked = pending.tracked
    for folder in (tracked.artifacts, *(child.artifacts for child in tracked.children)):
        if os.path.dirname(folder) == os.path.dirname(path):
            files.remove_tree(folder)


def _read(path: str) -> Pending | None:
    try:
        pending = load(canonical.decode(files.read(path) or b""), CLASSES)
    except (canonical.NotCanonical, KeyError, TypeError):
        return None  # of another version, or damaged: left for somebody to look at
    return pending if isinstance(pending, Pending) else None

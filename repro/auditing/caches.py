"""Unpacked packages in the store, compared with what was in them when they were unpacked.

Nothing is ever made of a changed one: it is unpacked again. But where files are shared by hard
links, a change in the store is a change in environments too, and somebody has made it.
"""

from __future__ import annotations

import json
import os

from repro import digest
from repro.audit.facts import Found
from repro.environments.states import Record
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from repro.lock import Artifact, EnvironmentLock

WHEELS, CONDA = "wheels", "pkgs"
FOLDERS = ("softlink", "directory")


def changed(home: str, lock: EnvironmentLock) -> Iterator[Found]:
    """Give the files of a lock's packages that are not as they were unpacked into the store."""
    for one in lock.artifacts:
        if one.kind == "wheel":
            yield from _of_wheel(home, one)
        elif one.kind == "conda":
            yield from _of_conda(home, one)


def _of_wheel(home: str, one: Artifact) -> Iterator[Found]:
    """Compare the trees of a wheel, one for each kind of Python, with their lists."""
    folder = os.path.join(home, WHEELS, one.digest)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for listed in sorted(name for name in names if name.endswith(".json")):
        tree = os.path.join(folder, listed.removesuffix(".json"))
        record = Record(os.path.join(folder, listed), tree)
        for path in record.damaged():
            place = os.path.join(tree, path)
            yield from _compared(home, place, one.name, record.digests[path])


def _of_conda(home: str, one: Artifact) -> Iterator[Found]:
    """Compare a conda package with the list of files that it carries."""
    folder = os.path.join(home, CONDA, f"{one.name}-{one.version}-{one.build}")
    rows = _object(os.path.join(folder, "info", "paths.json")).get("paths")
    for row in rows if isinstance(rows, list) else []:
        expected = str(row.get("sha256") or "")
        if expected and row.get("path_type") not in FOLDERS:
            yield from _compared(home, os.path.join(folder, row["_path"]), one.name, expected)


def _object(path: str) -> dict[str, Any]:
    try:
        found = json.loads(files.read(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _compared(home: str, place: str, package: str, expected: str) -> Iterator[Found]:
    found = _sha256(place)
    if found != expected:
        yield Found(
            kind="cache-changed",
            path=os.path.relpath(place, home),
            package=package,
            expected=expected,
            found=found,
        )


def _sha256(path: str) -> str:
    """Give the digest of a regular file, nothing for what is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return digest.of_chunks(files.chunks(fd))
    except IsADirectoryError:
        return ""
    finally:
        os.close(fd)

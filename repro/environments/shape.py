"""Whether the files of an environment are those that it was made of, by a look at their states.

Environments share files with packages in the store, and so with each other: whoever writes to one
of them, as only root can without changing its mode, writes to all. This is looked at whenever an
environment is entered, and costs a microsecond a file. What was added does no harm, and byte-code
is left out: whoever imports may write that.
"""

from __future__ import annotations

import json
import os
from array import array

from repro import digest
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Folders = Mapping[str, list[str]]

NOWHERE = ""


def keep(prefix: str, paths: Iterable[str]) -> str:
    """Note which files make up the environment at `prefix`; give what `of` gives for now."""
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        if not path.endswith((".pyc", ".pyo")):
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(name)
    place = list_of(prefix)
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    data = json.dumps(folders, separators=(",", ":")).encode()
    files.replace(place, data, durable=False)
    return _of(prefix, folders)


def of(prefix: str) -> str:
    """Digest inode and time of every file that was noted; nothing where one is gone."""
    try:
        return _of(prefix, json.loads(files.read(list_of(prefix)) or b"null"))
    except (OSError, ValueError, AttributeError, TypeError):
        return NOWHERE


def list_of(prefix: str) -> str:
    """Give the place of the note: outside of the environment, so that it is only its own."""
    folder, key = os.path.split(os.path.abspath(prefix))
    return os.path.join(os.path.dirname(folder), "memo", f"shape-{key}.json")


def _of(prefix: str, folders: Folders) -> str:
    times: list[float] = []
    inodes: list[int] = []
    look = os.lstat
    for folder, names in folders.items():
        fd = os.open(f"{prefix}/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            seen = [look(name, dir_fd=fd) for name in names]
        finally:
            os.close(fd)
        times += [status.st_mtime for status in seen]
        inodes += [status.st_ino & files.NUMBER for status in seen]
    return digest.of_bytes(array("d", times).tobytes() + array("q", inodes).tobytes())

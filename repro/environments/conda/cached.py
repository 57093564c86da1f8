"""The cached packages of conda, unpacked, of which environments are made by hard links.

    pkgs/<name-version-build>/          what rattler has unpacked, checked by its SHA-256 meanwhile
    pkgs/<name-version-build>+<python>/ the byte-code of a package that comes without, by number
    pkgs/.states/<either>.json          the digests and states of their files

Why links are safe: no file in the cache can be written to without changing its mode first, a step
sees its environment read-only, and what root writes in spite of that shows. Before an environment
is made, the states of all files of its packages are compared (see `states`); one that was written
to is fetched again. Environments that have it already notice when they are entered (see `shape`).
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath

from repro.environments.conda.prefix import Changed
from repro.environments.disk import STATES
from repro.environments.states import Record
from repro.environments.wheelstore import copy, link
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.environments.states import Inode
    from repro.lock import Artifact


class Package:
    """One package in the cache, which may not be there yet."""

    def __init__(self, cache: str, artifact: Artifact, about: str = "") -> None:
        """Read what is recorded of it; `about` is what it was made with, for byte-code."""
        stem = f"{artifact.name}-{artifact.version}-{artifact.build}"
        self.artifact = artifact
        self.name = f"{stem}+{about[:16]}" if about else stem
        self.folder = os.path.join(cache, self.name)
        path = os.path.join(cache, STATES, f"{self.name}.json")
        self.record = Record(path, self.folder, f"{artifact.digest} {about}")

    @property
    def is_known(self) -> bool:
        """Say whether its files were read since they were unpacked."""
        return bool(self.record.files)

    def check(self) -> bool:
        """Say whether it can be linked; what was changed is removed."""
        if self.is_known and os.path.isdir(self.folder) and not self.record.damaged():
            return True
        if self.is_known:
            self.remove()
        return False

    def remove(self) -> None:
        """Remove it from the cache."""
        files.unlink(f"{self.folder}.lock")
        files.remove_tree(self.folder)
        self.record.files = {}

    def read(self) -> list[str]:
        """Read what was just unpacked; give the files that are not as the package itself says."""
        self.record.take()
        found = self.record.files
        return [
            entry["_path"]
            for entry in _paths(self.folder)
            if entry.get("path_type") not in ("softlink", "directory")
            and entry.get("sha256") not in (None, found.get(entry["_path"], ("",))[0])
        ]


def _paths(folder: str) -> Iterable[Mapping[str, str]]:
    """Give what a package says of its files; nothing for one of the old kind."""
    text = files.read(os.path.join(folder, "info", "paths.json"))
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return list(json.loads(text or b"{}").get("paths", ()))
    return ()


class Packages:
    """All conda packages of a lock."""

    def __init__(self, cache: str, artifacts: Iterable[Artifact]) -> None:
        """Read what is recorded of them, and remove what was changed since."""
        self._all = [Package(cache, artifact) for artifact in artifacts]
        self._fresh = {one.name for one in self._all if not os.path.isdir(one.folder)}
        self._fresh |= {one.name for one in self._all if one.is_known and not one.check()}

    def settle(self) -> tuple[list[Changed], bool]:
        """Read what is new in the cache, and see that nothing was written to while it was linked.

        Gives the files that are wrong, and whether fetching anew may help. What is wrong is
        removed.
        """
        wrong, helps = [], False
        for one in self._all:
            known = one.is_known
            changed = one.record.renew() if known else one.read()
            if changed:
                wrong += [Changed(package=one.artifact.name, path=path) for path in changed]
                helps |= known or one.name not in self._fresh
                one.remove()
            else:
                one.record.save()
        return wrong, helps

    def inodes(self) -> dict[Inode, str]:
        """Give the digests of all files by device and inode."""
        return {inode: found for one in self._all for inode, found in one.record.inodes()}


class Bytecode:
    """The byte-code of a package without its own, for the Python with the digest `python`."""

    def __init__(self, cache: str, artifact: Artifact, python: str) -> None:
        """Read what is recorded of it."""
        self._kept = Package(cache, artifact, python)
        self._index = f"{self._kept.folder}/index.json"

    def place(self, prefix: str) -> dict[Inode, str] | None:
        """Link it into a prefix; None where there is none to be had."""
        if not self._kept.check():
            return None
        with contextlib.suppress(OSError, ValueError):
            places = json.loads(files.read(self._index) or b"")
            for number, place in enumerate(places):
                self._one(f"{self._kept.folder}/{number}", os.path.join(prefix, place), number)
            if not self._kept.record.renew():
                self._kept.record.save()
                return dict(self._kept.record.inodes())
        return None

    def _one(self, source: str, target: str, number: int) -> None:
        os.makedirs(posixpath.dirname(target), exist_ok=True)
        if not link(source, target):
            copy(source, target, self._kept.record.files[str(number)][0], executable=False)

    def keep(self, prefix: str, places: list[str], scratch: str) -> None:
        """Keep what was compiled in a prefix for the next one."""
        folder = os.path.join(scratch, self._kept.name)
        os.makedirs(folder)
        for number, place in enumerate(places):
            if not link(os.path.join(prefix, place), f"{folder}/{number}"):
                return
        with open(f"{folder}/index.json", "x", encoding="utf-8") as file:
            json.dump(places, file)
        self._kept.remove()
        with contextlib.suppress(FileExistsError, OSError):  # somebody else was faster
            os.rename(folder, self._kept.folder)
            self._kept.record.take()
            self._kept.record.save()

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
import stat

from repro.environments.conda.prefix import Changed
from repro.environments.disk import STATES
from repro.environments.linking import Damaged, known, link, put
from repro.environments.states import Record
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.environments.cache import Stock
    from repro.environments.folders import Folders
    from repro.environments.treehash import Linked
    from repro.lock import Artifact

CACHE = "pkgs"
SITE = "site-packages/"
SCRIPTS = "python-scripts/"


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
        return bool(self.record.digests)

    def stock(self) -> tuple[str, str, str]:
        """Say where its record and its files are in the store; it has no lock of ours."""
        return f"{CACHE}/{STATES}/{self.name}.json", f"{CACHE}/{self.name}", ""

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
        self.record.adopt({})

    def read(self) -> list[str]:
        """Read what was just unpacked; give the files that are not as the package itself says."""
        self.record.take()
        found = self.record.digests
        return [
            entry["_path"]
            for entry in _paths(self.folder)
            if entry.get("path_type") not in ("softlink", "directory")
            and entry.get("sha256") not in (None, found.get(entry["_path"], ""))
        ]

    def linked(self, site: str) -> Linked:
        """Give what is known of its files where they were linked, if they were, by place.

        `site` is the folder for packages of any Python; empty for a package that is not.
        """
        rows = zip(self.record.digests.items(), self.record.states, strict=True)
        return {
            _place(path, site): known(content, state)
            for (path, content), state in rows
            if stat.S_ISREG(state[-1]) and not path.startswith("info/")
        }


def _place(path: str, site: str) -> str:
    if site and path.startswith(SITE):
        return f"{site}/{path.removeprefix(SITE)}"
    if site and path.startswith(SCRIPTS):
        return f"bin/{path.removeprefix(SCRIPTS)}"
    return path


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

    def stock(self) -> Stock:
        """Say what was linked from, by its places in the store."""
        return [one.stock() for one in self._all]

    def linked(self, sites: Mapping[str, str]) -> Linked:
        """Give what is known of all files; `sites` are for packages for any Python, by name."""
        found: Linked = {}
        for one in self._all:
            found |= one.linked(sites.get(one.artifact.name, ""))
        return found


class Bytecode:
    """The byte-code of a package without its own, for the Python with the digest `python`."""

    def __init__(self, cache: str, artifact: Artifact, python: str) -> None:
        """Read what is recorded of it."""
        self._kept = Package(cache, artifact, python)

    def stock(self) -> tuple[str, str, str]:
        """Say where it is in the store."""
        return self._kept.stock()

    def place(self, folders: Folders) -> Linked | None:
        """Link it into a prefix; None where there is none to be had."""
        if not self._kept.check():
            return None
        record = self._kept.record
        places = dict(zip(record.digests, record.notes["places"], strict=True))
        folders.hold(places.values())
        try:
            linked = put(record, places, folders.prefix)
        except (Damaged, OSError):
            return None
        record.save()
        return linked

    def keep(self, prefix: str, places: list[str], scratch: str) -> None:
        """Keep what was compiled in a prefix for the next one."""
        folder = os.path.join(scratch, self._kept.name)
        os.makedirs(folder)
        names = [f"{number:06}" for number, _place in enumerate(places)]
        for name, place in zip(names, places, strict=True):
            if not link(os.path.join(prefix, place), f"{folder}/{name}"):
                return
        self._kept.remove()
        with contextlib.suppress(FileExistsError, OSError):  # somebody else was faster
            os.rename(folder, self._kept.folder)
            self._kept.record.take({"places": places})
            self._kept.record.save()

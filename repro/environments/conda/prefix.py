"""A conda prefix after its packages were linked into it: completed, and compared with its notes."""

from __future__ import annotations

import glob
import json
import os

from repro.environments.demand import normal
from repro.errors import EnvironmentFailed
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from repro.environments.treehash import Tree
    from repro.lock import Artifact

SHOWN = 5
COMPLETED = (
    *("arch", "build_number", "constrains", "license", "license_family", "noarch"),
    *("platform", "python_site_packages_path", "subdir", "timestamp", "track_features"),
)
"""What a lock does not say of a package, and the package itself does."""

ACTIVATION = "etc/conda/activate.d/"
DISTS = "lib/python*/site-packages/*.dist-info"


class Changed(Value):
    """A file that is not what its package says."""

    package: str
    path: str


def records(prefix: str) -> dict[str, dict[str, Any]]:
    """Give what is noted in `conda-meta` of each package, by the path of the note."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json"))):
        with open(path, encoding="utf-8") as file:
            found[path] = json.load(file)
    return found


def complete(prefix: str, cache: str, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
    """Add to `conda-meta` what only the packages in `cache` know, and check that all are there.

    Gives the notes. Raises EnvironmentFailed where other packages than `artifacts` were installed.
    """
    noted = records(prefix)
    wanted = {(a.name, a.version, a.build) for a in artifacts}
    found = {(r["name"], r["version"], r["build"]) for r in noted.values()}
    if wanted != found:
        hints = [f"`{' '.join(one)}` was not installed" for one in sorted(wanted - found)]
        hints += [f"`{' '.join(one)}` was installed too" for one in sorted(found - wanted)]
        raise EnvironmentFailed("the installed packages are not the locked ones", hints=hints)
    for path, record in noted.items():
        stem = "-".join((record["name"], record["version"], record["build"]))
        index = json.loads(files.read(os.path.join(cache, stem, "info", "index.json")) or b"{}")
        record |= {key: index[key] for key in COMPLETED if key in index}
        text = json.dumps({**record, "extracted_package_dir": ""}, sort_keys=True)
        files.replace(path, text.encode(), durable=False, mode=0o644)
    return list(noted.values())


def changed(
    notes: Iterable[Mapping[str, Any]], tree: Tree, *, bytecode: bool
) -> tuple[Changed, ...]:
    """Give the files of a scanned prefix that are not as the notes of its packages say.

    Without `bytecode`, that needs only to be there: what installs later may have compiled anew.
    """
    return tuple(
        Changed(package=note["name"], path=entry["_path"])
        for note in notes
        for entry in note.get("paths_data", {}).get("paths", ())
        if not _is_good(entry, tree, bytecode=bytecode)
    )


def _is_good(entry: Mapping[str, Any], tree: Tree, *, bytecode: bool) -> bool:
    path = entry["_path"]
    if entry.get("path_type") == "directory":
        return True
    if path not in tree:
        return False
    expected = entry.get("sha256_in_prefix") or entry.get("sha256")
    is_link = entry.get("path_type") == "softlink"
    if is_link or not expected or (path.endswith(".pyc") and not bytecode):
        return True
    kind, found, _normal, _size = tree[path]
    return kind in ("file", "exec") and found == expected


def sites(notes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Give the folder that packages for any Python have their files in, by their names."""
    python = next((note for note in notes if note["name"] == "python"), None)
    if python is None:
        return {}
    minor = ".".join(python["version"].split(".")[:2])
    site = python.get("python_site_packages_path") or f"lib/python{minor}/site-packages"
    return {note["name"]: site for note in notes if note.get("noarch") == "python"}


def failure(found: Sequence[Changed], why: str) -> EnvironmentFailed:
    """Give the error to raise for changed files; `why` says what may have been the reason."""
    names = sorted({f"`{one.package}`" for one in found})
    shown = [f"changed or missing: `{one.path}`" for one in found[:SHOWN]]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return EnvironmentFailed(
        f"files of {', '.join(names[:SHOWN])} are not those that the package names",
        hints=[*shown, *more, why],
    )


def dists(prefix: str) -> dict[str, str]:
    """Give the Python distributions in a prefix: their versions by their names."""
    found = {}
    for folder in glob.glob(os.path.join(glob.escape(prefix), DISTS)):
        name, _, version = os.path.basename(folder).removesuffix(".dist-info").partition("-")
        found[normal(name)] = version
    return found


def activated(notes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the packages that would set variables by a script when a shell activates the prefix."""
    return sorted(
        note["name"]
        for note in notes
        if any(file.startswith(ACTIVATION) for file in note.get("files", ()))
    )

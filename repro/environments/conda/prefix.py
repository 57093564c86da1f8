"""A conda prefix after its packages were copied into it: completed, and compared with its notes."""

from __future__ import annotations

import glob
import hashlib
import json
import os

from repro.environments.demand import normal
from repro.errors import EnvironmentFailed
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.lock import Artifact

THREADS = 4
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


def complete(prefix: str, cache: str, artifacts: Iterable[Artifact]) -> None:
    """Add to `conda-meta` what only the packages in `cache` know, and check that all are there.

    Raises EnvironmentFailed where other packages than `artifacts` were installed.
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
        known = {key: index[key] for key in COMPLETED if key in index}
        text = json.dumps(
            {**record, **known, "extracted_package_dir": ""}, indent=2, sort_keys=True
        )
        files.replace(path, text.encode(), durable=False, mode=0o644)


def changed(prefix: str, *, bytecode: bool = True) -> tuple[Changed, ...]:
    """Read every file that a package names, and give those that are not as it says.

    Without `bytecode`, that needs only to be there: what installs later may have compiled anew.
    """
    from concurrent.futures import ThreadPoolExecutor

    named = [
        (record["name"], entry)
        for record in records(prefix).values()
        for entry in record.get("paths_data", {}).get("paths", ())
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        good = pool.map(
            lambda one: _is_good(prefix, one[1], bytecode=bytecode), named, chunksize=64
        )
        return tuple(
            Changed(package=name, path=entry["_path"])
            for (name, entry), fine in zip(named, good, strict=True)
            if not fine
        )


def _is_good(prefix: str, entry: Mapping[str, Any], *, bytecode: bool) -> bool:
    path = os.path.join(prefix, entry["_path"])
    is_file = entry.get("path_type") not in ("softlink", "directory")
    expected = entry.get("sha256_in_prefix") or entry.get("sha256")
    if not is_file or not expected or (path.endswith(".pyc") and not bytecode):
        return os.path.lexists(path)
    try:
        with open(path, "rb", buffering=0) as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == expected)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def failure(found: tuple[Changed, ...], why: str) -> EnvironmentFailed:
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


def activated(prefix: str) -> list[str]:
    """Name the packages that would set variables by a script when a shell activates the prefix."""
    return sorted(
        record["name"]
        for record in records(prefix).values()
        if any(file.startswith(ACTIVATION) for file in record.get("files", ()))
    )

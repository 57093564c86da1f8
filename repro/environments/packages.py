"""What is installed in an environment, by what installers left in it: who owns which file."""

from __future__ import annotations

import base64
import csv
import glob
import json
import os
import posixpath
import re

from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.lock import EnvironmentLock

METADATA = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}
SITES = ("lib/*/site-packages", "site-packages")
"""Where Python packages lie: in a prefix, and in an extracted conda package for any Python."""

HASH = re.compile(r"sha256=([A-Za-z0-9_-]{43})")


class Distribution(Value):
    """A Python package as its metadata describes it; `folder` is relative to the prefix."""

    name: str
    version: str
    folder: str


class Package(Value):
    """One installed package. `manager` is `conda` or `python`; names are normalised.

    `digest` is the SHA-256 of a conda package's file, where its record has it. `ships` are the
    Python packages inside of a conda package; `licence` is what a conda package says.
    """

    name: str
    version: str
    manager: str
    build: str = ""
    digest: str = ""
    folder: str = ""
    ships: tuple[Distribution, ...] = ()
    licence: str = ""


class Claim(Value):
    """What a package says of one file of its own.

    `digest` is the SHA-256 of the content, empty where it names none. `kind` is `file` or
    `link`.
    """

    package: str
    digest: str = ""
    kind: str = "file"


class Contents(Value):
    """All packages of an environment, and who claims which path, relative to the prefix."""

    packages: tuple[Package, ...]
    claims: Mapping[str, Claim]


def read(prefix: str) -> Contents:
    """Read the records of all packages in the environment at `prefix`.

    A record that cannot be read is that of a package without files.
    """
    claims: dict[str, Claim] = {}
    found = list(distributions(prefix))
    conda = list(_conda(prefix, claims))
    shipped: dict[str, list[Distribution]] = {}
    loose = []
    for distribution in found:
        owner = claims.get(distribution.folder) or claims.get(_metadata(distribution.folder))
        if owner is None:
            loose.append(distribution)
        else:
            shipped.setdefault(owner.package, []).append(distribution)
    packages = [_conda_package(name, about, shipped.get(name, [])) for name, about in conda]
    for distribution in loose:
        claims.update(_recorded(prefix, distribution))
        packages.append(
            Package(
                name=distribution.name,
                version=distribution.version,
                manager="python",
                folder=distribution.folder,
            )
        )
    return Contents(packages=tuple(sorted(packages, key=lambda p: p.name)), claims=claims)


def distributions(prefix: str) -> Iterator[Distribution]:
    """Give the Python packages below `prefix`, an environment or an extracted conda package."""
    for site in SITES:
        for folder in sorted(glob.glob(os.path.join(glob.escape(prefix), site, "*-info"))):
            ending = os.path.splitext(folder)[1]
            if ending not in METADATA or os.path.islink(os.path.dirname(os.path.dirname(folder))):
                continue
            about = header(folder)
            stem, _, version = os.path.basename(folder).removesuffix(ending).partition("-")
            yield Distribution(
                name=normalised(about.get("name", [stem])[0]),
                version=about.get("version", [version.partition("-py")[0]])[0],
                folder=os.path.relpath(folder, prefix),
            )


def header(folder: str) -> dict[str, list[str]]:
    """Read the fields of a package's metadata, by lower-case name; the description is left out."""
    name = METADATA.get(os.path.splitext(folder)[1], "METADATA")
    data = files.read(os.path.join(folder, name)) or files.read(folder) or b""
    fields: dict[str, list[str]] = {}
    last: list[str] = []
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            break
        if line[0] in " \t" and last:
            last[-1] += f"\n{line.strip()}"
            continue
        key, _, text = line.partition(":")
        last = fields.setdefault(key.strip().lower(), [])
        last.append(text.strip())
    return fields


def shipped(cache: str, filename: str) -> tuple[Distribution, ...]:
    """Give the Python packages in a conda package that lies extracted in the folder `cache`."""
    stem = re.sub(r"\.(conda|tar\.bz2)$", "", filename)
    folder = os.path.join(cache, stem)
    return tuple(distributions(folder)) if stem and os.path.isdir(folder) else ()


class Subject(Value):
    """One package of a lock, and what it is called on the Python package index.

    `names` are (name, version) there: one for a Python package, any number for a conda package,
    by the Python packages that it ships. None means that no source of advisories covers it.
    """

    package: str
    version: str
    manager: str
    names: tuple[tuple[str, str], ...] = ()


def subjects(lock: EnvironmentLock, prefix: str, cache: str) -> tuple[Subject, ...]:
    """Say what to ask a source of advisories about the packages of `lock`.

    What conda packages ship is read from the environment at `prefix`, or where that is not there,
    from the folder `cache` of extracted packages; there is no table of names.
    """
    inside = {p.name: p.ships for p in read(prefix).packages if p.manager == "conda"}
    found = []
    for one in lock.artifacts:
        if one.kind == "conda":
            file = one.filename or f"{one.name}-{one.version}-{one.build}"
            ships = inside.get(one.name) or shipped(cache, file)
            names = tuple((d.name, d.version) for d in ships)
        else:
            names = ((normalised(one.name), one.version),) if one.version else ()
        manager = "conda" if one.kind == "conda" else "python"
        found.append(Subject(package=one.name, version=one.version, manager=manager, names=names))
    return tuple(found)


def normalised(name: str) -> str:
    """Write a name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def record(path: str) -> dict[str, Any]:
    """Read a JSON file that describes a conda package; empty where it cannot be read."""
    try:
        found = json.loads(files.read(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _metadata(folder: str) -> str:
    return f"{folder}/{METADATA[posixpath.splitext(folder)[1]]}"


def _conda(prefix: str, claims: dict[str, Claim]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every conda package by name with its record; add its files to `claims`."""
    for path in sorted(glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json"))):
        about = record(path)
        name = str(about.get("name") or os.path.basename(path).rsplit("-", 2)[0])
        about["folder"] = os.path.relpath(path, prefix)
        for entry in _paths(about):
            inside = str(entry["_path"])
            claims[inside] = Claim(
                package=name,
                digest=str(entry.get("sha256_in_prefix") or entry.get("sha256") or ""),
                kind="link" if entry.get("path_type") == "softlink" else "file",
            )
        yield name, about


def _paths(about: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Give the files of a conda package; older records have their names alone."""
    told = about.get("paths_data")
    rows = told.get("paths") if isinstance(told, dict) else None
    if not isinstance(rows, list):
        named = about.get("files")
        rows = [{"_path": path} for path in named] if isinstance(named, list) else []
    kinds = ("directory", "pyc_file")
    return [
        row
        for row in rows
        if isinstance(row, dict) and "_path" in row and row.get("path_type") not in kinds
    ]


def _conda_package(name: str, about: Mapping[str, Any], inside: list[Distribution]) -> Package:
    licence = about.get("license")
    if not licence and isinstance(about.get("extracted_package_dir"), str):
        place = os.path.join(about["extracted_package_dir"], "info", "index.json")
        licence = record(place).get("license")
    return Package(
        name=name,
        version=str(about.get("version") or ""),
        manager="conda",
        build=str(about.get("build") or ""),
        digest=str(about.get("sha256") or ""),
        folder=str(about["folder"]),
        ships=tuple(inside),
        licence=str(licence or ""),
    )


def _recorded(prefix: str, distribution: Distribution) -> dict[str, Claim]:
    """Read a RECORD; paths that lead out of the prefix claim nothing."""
    folder = distribution.folder
    site = posixpath.dirname(folder)
    data = files.read(os.path.join(prefix, folder, "RECORD")) or b""
    claims = {}
    for row in csv.reader(data.decode("utf-8", "surrogateescape").splitlines()):
        if len(row) < 2:  # noqa: PLR2004  (a path and its digest)
            continue
        path = posixpath.normpath(posixpath.join(site, row[0]))
        if not path.startswith(("../", "/")):
            claims[path] = Claim(package=distribution.name, digest=_hexadecimal(row[1]))
    return claims


def _hexadecimal(text: str) -> str:
    """Give a digest of a RECORD as ours are written; empty for another algorithm."""
    found = HASH.fullmatch(text)
    return base64.urlsafe_b64decode(found[1] + "=").hex() if found else ""

"""Whether an environment holds exactly what was locked: every file against its RECORD."""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import os
import re

from repro.errors import EnvironmentFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from repro.lock import Artifact

TRUSTED = ("sha256", "sha384", "sha512")
SHOWN = 5


def verify(
    prefix: str, artifacts: Iterable[Artifact], hashed: Container[str] | None = None
) -> None:
    """Check the virtual environment at `prefix` after `artifacts` were installed into it.

    Only the files of the packages in `hashed` are read, by default those of all. A file without
    a hash in its RECORD, such as byte-code, is not checked. Raises EnvironmentFailed that names
    the packages.
    """
    wanted = {artifact.name for artifact in artifacts}
    found = {_name(folder): folder for folder in _descriptions(prefix)}
    if wanted != found.keys():
        missing = [f"`{name}` was not installed" for name in sorted(wanted - found.keys())]
        surplus = [f"`{name}` was installed too" for name in sorted(found.keys() - wanted)]
        raise EnvironmentFailed(
            "the installed packages are not the locked ones", hints=[*missing, *surplus]
        )
    for name, folder in sorted(found.items()):
        if hashed is not None and name not in hashed:
            continue
        changed = [file for file, good in _checked(folder) if not good]
        if changed:
            raise _changed(name, changed)


def _descriptions(prefix: str) -> Iterable[str]:
    site = os.path.join(glob.escape(prefix), "lib", "*", "site-packages")
    return glob.glob(os.path.join(site, "*.dist-info"))


def _name(folder: str) -> str:
    name = os.path.basename(folder).partition("-")[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _checked(folder: str) -> Iterator[tuple[str, bool]]:
    """Give every file that a RECORD has a hash of, and whether it has that hash."""
    site = os.path.dirname(folder)
    try:
        with open(os.path.join(folder, "RECORD"), encoding="utf-8", newline="") as record:
            rows = list(csv.reader(record))
    except FileNotFoundError:
        yield os.path.join(folder, "RECORD"), False
        return
    for file, digest, *_size in rows:
        algorithm, _, expected = digest.partition("=")
        if algorithm in TRUSTED:
            path = os.path.normpath(os.path.join(site, file))
            yield path, _hash(path, algorithm) == expected


def _hash(path: str, algorithm: str) -> str:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _changed(name: str, files: list[str]) -> EnvironmentFailed:
    more = [f"and {len(files) - SHOWN} more"] if len(files) > SHOWN else []
    return EnvironmentFailed(
        f"the files of `{name}` are not those that its RECORD names",
        hints=[
            *(f"changed or missing: `{file}`" for file in files[:SHOWN]),
            *more,
            f"a file in the installer's cache was changed: `uv cache clean {name}` removes it",
            "or the package was published with a wrong RECORD: choose another version",
        ],
    )

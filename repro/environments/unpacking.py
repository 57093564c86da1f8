"""A wheel turned into a tree of files, from which environments are made by linking.

    site/      what goes into the folder of packages
    data/      what goes to the top of the environment
    headers/   what goes below `include/`
    scripts/   what goes into `bin/`

The same wheel always gives the same tree: all files are settled, as `linking` calls it.
"""

from __future__ import annotations

import configparser
import os
import posixpath
import stat
import zipfile
import zlib

from repro import digest
from repro.environments.demand import normal
from repro.environments.linking import settle
from repro.errors import EnvironmentFailed
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro.lock import Artifact

CHUNK = 1 << 20
SCHEMES = {
    "purelib": "site",
    "platlib": "site",
    "data": "data",
    "headers": "headers",
    "scripts": "scripts",
}
OWN = ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json")
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError),
    *(ValueError, RuntimeError),  # no UTF-8; encrypted, or of an unknown compression
    configparser.Error,
)
SECTIONS = ("console_scripts", "gui_scripts")


class Tree(Value):
    """What is in an unpacked wheel.

    `files` are (path, SHA-256, size, executable?) and never a RECORD. `scripts` are the commands
    to be made, as (name, module, attribute). `described` is the name of its `.dist-info`.
    """

    described: str
    files: tuple[tuple[str, str, int, bool], ...]
    scripts: tuple[tuple[str, str, str], ...] = ()


def unpack(wheel: str, folder: str, artifact: Artifact) -> Tree:
    """Unpack the file `wheel` into the new folder `folder`. Raises EnvironmentFailed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {i.filename: i for i in archive.infolist() if not i.is_dir()}
            described = _described(members, artifact)
            _check_version(archive, described, artifact)
            places = {p: m for m, p in _places(members, described, artifact)}  # the last counts
            files = [_unpacked(archive, member, p, folder) for p, member in places.items()]
            scripts = tuple(_scripts(archive, members, described, artifact))
    except UNREADABLE as error:
        raise _broken(artifact, str(error)) from None
    files.append(_added(folder, f"site/{described}/INSTALLER", b"repro\n"))
    return Tree(described=described, files=tuple(sorted(files)), scripts=scripts)


def _described(members: Mapping[str, zipfile.ZipInfo], artifact: Artifact) -> str:
    found = {name.partition("/")[0] for name in members if name.endswith(".dist-info/WHEEL")}
    found = {name for name in found if normal(name.partition("-")[0]) == artifact.name}
    if len(found) != 1:
        raise _broken(artifact, "it does not describe itself")
    return found.pop()


def _check_version(archive: zipfile.ZipFile, described: str, artifact: Artifact) -> None:
    text = archive.read(f"{described}/WHEEL").decode()
    lines = (line.partition(":") for line in text.splitlines())
    version = next((value.strip() for key, _, value in lines if key == "Wheel-Version"), "")
    if version.partition(".")[0] != "1":
        raise _broken(artifact, f"its format is of version {version or 'unknown'}")


def _places(
    members: Mapping[str, zipfile.ZipInfo], described: str, artifact: Artifact
) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Give each file with its path in the tree."""
    extra = described.removesuffix(".dist-info") + ".data"
    for name, member in members.items():
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or {"", ".", ".."} & {*parts}:
            raise _broken(artifact, f"it holds the path `{name}`")
        if (parts[0] == described and parts[-1] in OWN) or _is_compiled(name):
            continue
        if parts[0] != extra:
            yield member, f"site/{name}"
            continue
        _extra, scheme, *inside = *parts, ""
        if scheme not in SCHEMES or not any(inside):
            raise _broken(artifact, f"it holds `{name}`, for which there is no place")
        yield member, "/".join((SCHEMES[scheme], *parts[2:]))


def _is_compiled(name: str) -> bool:
    """Say whether a file is byte-code beside its source, which is made anew."""
    return name.endswith(".pyc") and "/__pycache__/" in f"/{name}"


def _unpacked(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str, folder: str
) -> tuple[str, str, int, bool]:
    path = os.path.join(folder, place)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = member.external_attr >> 16
    executable = bool(stat.S_ISREG(mode) and mode & 0o111) or place.startswith("scripts/")
    hasher, size = digest.stream(), 0
    with archive.open(member) as source, open(path, "xb") as target:
        while piece := source.read(CHUNK):
            hasher.update(piece)
            target.write(piece)
            size += len(piece)
    settle(path, executable=executable)
    return place, hasher.hexdigest(), size, executable


def _added(folder: str, place: str, data: bytes) -> tuple[str, str, int, bool]:
    path = os.path.join(folder, place)
    with open(path, "xb") as target:
        target.write(data)
    settle(path, executable=False)
    return place, digest.of_bytes(data), len(data), False


def _scripts(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    described: str,
    artifact: Artifact,
) -> Iterator[tuple[str, str, str]]:
    name = f"{described}/entry_points.txt"
    if name not in members:
        return
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(archive.read(name).decode())
    for section in SECTIONS:
        for command, target in parser.items(section) if parser.has_section(section) else ():
            module, _, attribute = target.partition("[")[0].strip().partition(":")
            pieces = (*module.strip().split("."), *attribute.strip().split("."))
            if command != posixpath.basename(command) or not all(p.isidentifier() for p in pieces):
                raise _broken(artifact, f"its command `{command}` cannot be made")
            yield command, module.strip(), attribute.strip()


def _broken(artifact: Artifact, reason: str) -> EnvironmentFailed:
    return EnvironmentFailed(
        f"the wheel of `{artifact.name}=={artifact.version}` cannot be unpacked: {reason}",
        hints=["it is the locked file, so it was published like this: choose another version"],
    )

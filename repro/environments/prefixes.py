"""An environment's files as an image holds them: at another place, without the marks of this one.

Left out are byte-code and what installers note beside packages. Rewritten are the path the
environment was made at, the RECORDs that name what was left out, a virtual environment's link to
its Python, and conda's records, which tell of caches and URLs.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re

from repro.images import layers, relocation
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.images.layers import Member
    from repro.lock import EnvironmentLock

LEFT_OUT = frozenset({"__pycache__", ".repro-env.json", "CACHEDIR.TAG", "conda-meta", ".lock"})
NOTES = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"})
RECORD = "RECORD"
CONFIG = "pyvenv.cfg"
LONG_SHEBANG = b"#!/bin/sh\n'''exec' "
LONG_SHEBANG_LINES = re.compile(
    re.escape(LONG_SHEBANG) + rb"([\"']?)([^\"'\n]+)\1 \"\$0\" \"\$@\"(?:\n' | #)'{3}\n"
)
"""How installers begin a script when the path of its Python is too long for the kernel."""


class Prefix(Value):
    """An environment, or a Python, at `source` on this machine and at `place` in an image.

    `python` is the Python of a virtual environment as the image has it; empty for what has its own.
    """

    source: str
    place: str
    python: str = ""

    def inside(self, path: str) -> str:
        """Give the path of a file as a layer names it."""
        return f"{self.place.strip('/')}/{path}"


def environment(prefix: Prefix, lock: EnvironmentLock) -> Iterator[Member]:
    """Give the files of a made environment. Raises EnvironmentFailed for one that cannot move."""
    for path in layers.below(prefix.source, _is_left_out):
        if path == CONFIG:
            yield layers.of_bytes(prefix.inside(path), _config(prefix, lock))
        elif path.endswith(f".dist-info/{RECORD}"):
            yield layers.of_bytes(prefix.inside(path), _record(os.path.join(prefix.source, path)))
        else:
            yield _moved(prefix, path)
    if lock.kind == "conda":
        yield from _conda_records(prefix, lock)


def python(prefix: Prefix, version: str) -> Iterator[Member]:
    """Give the files of a Python that stands alone: no packages, tests or static libraries."""
    library = f"lib/python{version}"
    for path in layers.below(prefix.source, lambda path: is_surplus(path, library)):
        yield _moved(prefix, path)


def is_surplus(path: str, library: str) -> bool:
    """Say whether a virtual environment does without a file of its Python."""
    folder, _, name = path.rpartition("/")
    if folder == "bin":
        return not name.startswith("python") or "config" in name
    top = path.partition("/")[0]
    parts = ("site-packages", "test", "ensurepip", "idlelib")
    unused = path in {f"{library}/{part}" for part in parts} or top in {"share", "include"}
    return unused or name == "__pycache__" or name.endswith((".pyc", ".a"))


def _is_left_out(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    noted = name in NOTES and folder.endswith(".dist-info")
    return noted or name in LEFT_OUT or name.endswith(".pyc")


def _moved(prefix: Prefix, path: str) -> Member:
    source, inside = os.path.join(prefix.source, path), prefix.inside(path)
    if prefix.python and path.startswith("bin/python") and os.path.islink(source):
        target = os.readlink(source)
        return layers.of_link(inside, prefix.python if target.startswith("/") else target)
    member = relocation.moved(inside, source, prefix.source, prefix.place)
    return _shortened(member) if _is_script(path, member) else member


def _is_script(path: str, member: Member) -> bool:
    return path.startswith("bin/") and member.kind == "exec" and member.size < layers.SMALL


def _shortened(member: Member) -> Member:
    """Begin a script in the short way: how it does must not depend on where it was made."""
    head = next(iter(member.open()), b"")[: len(LONG_SHEBANG)]
    if head != LONG_SHEBANG:
        return member
    data = b"".join(member.open())
    found = LONG_SHEBANG_LINES.match(data)
    if found is None:
        return member
    return layers.of_bytes(member.path, b"#!" + found[2] + b"\n" + data[found.end() :], member.kind)


def _config(prefix: Prefix, lock: EnvironmentLock) -> bytes:
    lines = (
        f"home = {os.path.dirname(prefix.python)}",
        f"implementation = {lock.interpreter.implementation}",
        f"version = {lock.interpreter.version}",
        "include-system-site-packages = false",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _record(source: str) -> bytes:
    """Write a RECORD anew: without what was left out, and without hashes of what was rewritten."""
    text = (files.read(source) or b"").decode("utf-8", "surrogateescape")
    rows = []
    for row in csv.reader(io.StringIO(text, newline="")):
        path = row[0] if row else ""
        if not path or _is_left_out(path) or "__pycache__" in path:
            continue
        outside = path.startswith(("..", "/")) or path.endswith(f".dist-info/{RECORD}")
        rows.append([path, "", ""] if outside else row)
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(sorted(rows))
    return out.getvalue().encode("utf-8", "surrogateescape")


def _conda_records(prefix: Prefix, lock: EnvironmentLock) -> Iterator[Member]:
    """Say what is installed in conda's way, as far as the lock says it."""
    yield layers.of_bytes(prefix.inside("conda-meta/history"), b"")
    for artifact in lock.artifacts:
        if artifact.kind != "conda":
            continue
        parts = {
            "name": artifact.name,
            "version": artifact.version,
            "build": artifact.build,
            "sha256": artifact.digest,
            "depends": list(artifact.depends),
            "files": [],
        }
        name = f"conda-meta/{artifact.name}-{artifact.version}-{artifact.build}.json"
        data = json.dumps(parts, sort_keys=True, indent=2).encode("ascii")
        yield layers.of_bytes(prefix.inside(name), data)

"""Byte-code for the packages of a prefix that come without, as those for any Python do.

A step may not write into its environment: what is not compiled now would be at each start. It is
kept beside the cached package, for the next environment with the same Python.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

from repro.environments.conda.cached import Bytecode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.environments.cache import Stock
    from repro.environments.folders import Folders
    from repro.environments.tools import Session
    from repro.environments.treehash import Linked
    from repro.lock import Artifact

AT_ONCE = 4
SOURCE = re.compile(r"lib/python[\d.t]+/site-packages/.*\.py")
COMPILE = """
import compileall, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as listed:
    names = listed.read().split("\\0")
for name in filter(None, names):
    compileall.compile_file(name, quiet=2, invalidation_mode=mode)
print(sys.implementation.cache_tag)
"""


def compile_all(
    folders: Folders,
    notes: Iterable[Mapping[str, Any]],
    artifacts: Iterable[Artifact],
    cache: str,
    work: Session,
) -> tuple[Linked, Stock]:
    """Compile with the Python of the prefix; a file that is no Python of its version is left.

    Gives the files that were linked, and what they are of.
    """
    prefix = folders.prefix
    if not os.path.exists(os.path.join(prefix, "bin", "python")):
        return {}, ()
    by_name = {artifact.name: artifact for artifact in artifacts}
    known: Linked = {}
    stock, missing = [], []
    for sources, name in _sources(notes):
        kept = Bytecode(cache, by_name[name], by_name["python"].digest)
        placed = kept.place(folders)
        if placed is None:
            missing.append((kept, sources))
        known |= placed or {}
        stock.append(kept.stock())
    tag = _compile(prefix, sorted(path for _kept, paths in missing for path in paths), work)
    for kept, sources in missing:
        places = [_compiled(path, tag) for path in sources]
        kept.keep(prefix, [p for p in places if os.path.exists(f"{prefix}/{p}")], work.folder)
    return known, stock


def _compile(prefix: str, sources: list[str], work: Session) -> str:
    """Compile with several processes; give what the Python calls its byte-code."""
    if not sources:
        return ""
    count = min(AT_ONCE, os.cpu_count() or 1, len(sources))

    def compile_part(number: int) -> str:
        listed = os.path.join(work.folder, f"sources-{number}")
        with open(listed, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\0".join(f"{prefix}/{path}" for path in sources[number::count]))
        return work.run(f"{prefix}/bin/python", "-I", "-c", COMPILE, listed).strip()

    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(compile_part, range(count))][-1]


def _compiled(path: str, tag: str) -> str:
    folder, name = os.path.split(path)
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def _sources(notes: Iterable[Mapping[str, Any]]) -> Iterable[tuple[list[str], str]]:
    for note in notes:
        if note.get("noarch") == "python":
            paths = [entry["_path"] for entry in note["paths_data"]["paths"]]
            yield [path for path in paths if SOURCE.fullmatch(path)], note["name"]

"""Byte-code for the packages of a prefix that come without, as those for any Python do.

A step may not write into its environment: what is not compiled now would be at each start.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

from repro.environments.conda import prefix as prefixes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.environments.tools import Session

AT_ONCE = 4
SOURCE = re.compile(r"lib/python[\d.t]+/site-packages/.*\.py")
COMPILE = """
import compileall, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as listed:
    names = listed.read().split("\\0")
for name in filter(None, names):
    compileall.compile_file(name, quiet=2, invalidation_mode=mode)
"""


def compile_all(prefix: str, work: Session) -> None:
    """Compile with the Python of the prefix; a file that is no Python of its version is left."""
    python = os.path.join(prefix, "bin", "python")
    names = sorted(_sources(prefix))
    if not names or not os.path.exists(python):
        return
    count = min(AT_ONCE, os.cpu_count() or 1)

    def compile_part(number: int) -> None:
        listed = os.path.join(work.folder, f"sources-{number}")
        with open(listed, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\0".join(names[number::count]))
        work.run(python, "-I", "-c", COMPILE, listed)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(compile_part, range(count)))


def _sources(prefix: str) -> Iterator[str]:
    for record in prefixes.records(prefix).values():
        if record.get("noarch") == "python":
            for entry in record["paths_data"]["paths"]:
                if SOURCE.fullmatch(entry["_path"]):
                    yield os.path.join(prefix, entry["_path"])

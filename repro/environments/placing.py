"""Where the files of unpacked wheels go in an environment, and what is written beside them."""

from __future__ import annotations

import base64
import csv
import io

from repro import digest
from repro.environments.folders import Folders
from repro.environments.linking import settle
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.lock import Interpreter

    Row = tuple[str, str, int]

PLACEHOLDER = b"#!python"
SHEBANG = 127  # what Linux reads of a first line
SCRIPT = """\
{first}
import sys
from {module} import {begin}

if __name__ == "__main__":
    sys.exit({attribute}())
"""


class Layout:
    """Where the Pythons of one kind have their packages; every place is relative to the prefix."""

    def __init__(self, interpreter: Interpreter) -> None:
        """Find the places."""
        minor = ".".join(interpreter.version.split(".")[:2])
        minor += "t" if interpreter.abi.endswith("t") else ""
        short = "pypy" if interpreter.implementation == "pypy" else "python"
        self.site = f"lib/{short}{minor}/site-packages"
        self._headers = f"include/site/{short}{minor}"
        self._up = "../" * (self.site.count("/") + 1)

    def place(self, path: str, name: str) -> str:
        """Give the place of a file in the tree of the wheel `name`."""
        scheme, _, inside = path.partition("/")
        if scheme == "site":
            return f"{self.site}/{inside}"
        if scheme == "headers":
            return f"{self._headers}/{name}/{inside}"
        return f"bin/{inside}" if scheme == "scripts" else inside

    def rows(self, found: Iterable[Row]) -> str:
        """Write the rows of a RECORD, sorted; what is compiled may be compiled anew."""
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(sorted({self._row(*row) for row in found}))
        return table.getvalue()

    def _row(self, place: str, sha256: str, size: int) -> tuple[str, str, str]:
        site = f"{self.site}/"
        path = place.removeprefix(site) if place.startswith(site) else f"{self._up}{place}"
        compiled = path.endswith(".pyc")
        return path, "" if compiled else coded(sha256), "" if compiled else str(size)


class Placing(Folders):
    """The environment at `prefix`, while wheels are put into it."""

    def __init__(self, prefix: str, interpreter: Interpreter) -> None:
        """Find the places; the environment is there and empty."""
        super().__init__(prefix)
        self.layout = Layout(interpreter)
        self._python = f"{prefix}/bin/python"

    def write(self, place: str, data: bytes, *, executable: bool) -> Row:
        """Put a file in that is of this environment alone; give its place, digest and size."""
        self.hold([place])
        path = f"{self.prefix}/{place}"
        files.unlink(path)
        with open(path, "xb") as file:
            file.write(data)
        settle(path, executable=executable)
        return place, digest.of_bytes(data), len(data)

    def script(self, place: str, data: bytes) -> Row:
        """Put a script in whose first line leaves the interpreter open."""
        line, _, rest = data.partition(b"\n")
        options = line.removeprefix(PLACEHOLDER).removeprefix(b"w")
        first = first_line(self._python).encode() + options
        return self.write(place, first + b"\n" + rest, executable=True)

    def command(self, name: str, module: str, attribute: str) -> Row:
        """Put a command in that calls a function."""
        text = SCRIPT.format(
            first=first_line(self._python),
            module=module,
            begin=attribute.partition(".")[0],
            attribute=attribute,
        )
        return self.write(f"bin/{name}", text.encode(), executable=True)

    def record(self, described: str, rows: str, own: Iterable[Row]) -> Row:
        """Write the RECORD of a wheel: `rows` of what is the same everywhere, and its `own`."""
        path = f"{described}/RECORD"
        text = f"{rows}{self.layout.rows(own)}{path},,\n"
        return self.write(f"{self.layout.site}/{path}", text.encode(), executable=False)


def first_line(interpreter: str) -> str:
    """Give the beginning of a script that `interpreter` is to run, however long its path is."""
    if len(interpreter) + 3 <= SHEBANG and " " not in interpreter:
        return f"#!{interpreter}"
    quoted = interpreter.replace("'", "'\\''")
    return f"#!/bin/sh\n'''exec' '{quoted}' \"$0\" \"$@\"\n' '''"


def coded(sha256: str) -> str:
    """Write a digest as a RECORD does."""
    plain = base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode()
    return f"sha256={plain}"

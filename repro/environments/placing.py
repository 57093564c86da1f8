"""Where the files of unpacked wheels go in an environment, and what is written beside them."""

from __future__ import annotations

import base64
import csv
import io
import os

from repro import digest
from repro.environments.unpacking import settle
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.lock import Artifact, Interpreter

PLACEHOLDER = b"#!python"
SHEBANG = 127  # what Linux reads of a first line
SCRIPT = """\
{first}
import sys
from {module} import {begin}

if __name__ == "__main__":
    sys.exit({attribute}())
"""


class Placing:
    """The environment at `prefix`, while wheels are put into it."""

    def __init__(self, prefix: str, interpreter: Interpreter) -> None:
        """Find the places; the environment is there and empty."""
        minor = ".".join(interpreter.version.split(".")[:2])
        minor += "t" if interpreter.abi.endswith("t") else ""
        short = "pypy" if interpreter.implementation == "pypy" else "python"
        self.prefix = prefix
        self.site = f"lib/{short}{minor}/site-packages"
        self.headers = f"include/site/{short}{minor}"
        self.folders: set[str] = set()

    def begin(self, artifact: Artifact, described: str) -> Distribution:
        """Start to put one wheel in."""
        return Distribution(self, artifact, described)

    def target(self, place: str) -> str:
        """Give the path of a file by its place relative to the prefix; its folder is made."""
        path = f"{self.prefix}/{place}"
        folder = path.rpartition("/")[0]
        if folder not in self.folders:
            os.makedirs(folder, exist_ok=True)
            self.folders.add(folder)
        return path

    def write(self, place: str, data: bytes, *, executable: bool) -> None:
        """Put a file in that is of this environment alone."""
        path = self.target(place)
        files.unlink(path)
        with open(path, "xb") as file:
            file.write(data)
        settle(path, executable=executable)


class Distribution:
    """One wheel on its way into an environment, with the rows of its RECORD."""

    def __init__(self, placing: Placing, artifact: Artifact, described: str) -> None:
        """Put nothing in yet."""
        self._placing = placing
        self._described = described
        self._rows: list[tuple[str, str, str]] = []
        self._roots = {
            "site": placing.site,
            "data": "",
            "headers": f"{placing.headers}/{artifact.name}",
            "scripts": "bin",
        }
        self._up = "../" * (placing.site.count("/") + 1)

    def target(self, path: str, sha256: str, size: int) -> str:
        """Give the path that a file of the tree gets."""
        scheme, _, inside = path.partition("/")
        root = self._roots[scheme]
        place = f"{root}/{inside}" if root else inside
        self._note(scheme, inside, place, sha256, size)
        return self._placing.target(place)

    def script(self, path: str, data: bytes) -> None:
        """Put a script in whose first line leaves the interpreter open."""
        command = path.partition("/")[2]
        line, _, rest = data.partition(b"\n")
        options = line.removeprefix(PLACEHOLDER).removeprefix(b"w")
        first = first_line(f"{self._placing.prefix}/bin/python").encode() + options
        self._command(command, first + b"\n" + rest)

    def _command(self, command: str, data: bytes) -> None:
        place = f"bin/{command}"
        self._note("scripts", command, place, digest.of_bytes(data), len(data))
        self._placing.write(place, data, executable=True)

    def close(self, scripts: Iterable[tuple[str, str, str]]) -> None:
        """Write the commands and the RECORD."""
        for command, module, attribute in scripts:
            text = SCRIPT.format(
                first=first_line(f"{self._placing.prefix}/bin/python"),
                module=module,
                begin=attribute.partition(".")[0],
                attribute=attribute,
            )
            self._command(command, text.encode())
        record = f"{self._described}/RECORD"
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(sorted({*self._rows, (record, "", "")}))
        place = f"{self._placing.site}/{record}"
        self._placing.write(place, table.getvalue().encode(), executable=False)

    def _note(self, scheme: str, inside: str, place: str, sha256: str, size: int) -> None:
        compiled = inside.endswith(".pyc")
        path = inside if scheme == "site" else f"{self._up}{place}"
        self._rows.append((path, "" if compiled else coded(sha256), "" if compiled else str(size)))


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

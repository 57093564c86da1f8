"""Which of several wheels of one version an interpreter installs, by the tags in their names.

A lock of another platform is made here as it would be made there, so nothing is asked of this
machine: the tags are those that the platform of the interpreter has on every machine.
"""

from __future__ import annotations

import functools
import re

from packaging import tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from repro.lock import Interpreter

GLIBC = 28  # manylinux_2_28, what `repro.platforms` tells uv
OLDEST_GLIBC = {"x86_64": 5, "i686": 5}
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
MACOS = (13, 0)  # what uv takes a Mac for
SHORT = {"cpython": "cp", "pypy": "pp", "graalpy": "graalpy"}
ABI = re.compile(r"[a-z]+-?(\d+)([a-z]*)$")


def best(filenames: Iterable[str], interpreter: Interpreter) -> str:
    """Give the wheel that fits most closely, as pip ranks them: PEP 425, then the build number.

    Empty where none can be installed.
    """
    ranks = _ranks(interpreter)
    ranked = []
    for filename in filenames:
        try:
            _name, _version, build, found = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue
        fitting = [ranks[str(tag)] for tag in found if str(tag) in ranks]
        if fitting:
            ranked.append((min(fitting), -build[0] if build else 0, filename))
    return min(ranked)[2] if ranked else ""


@functools.lru_cache(maxsize=8)
def _ranks(interpreter: Interpreter) -> Mapping[str, int]:
    ranks: dict[str, int] = {}
    for tag in _tags(interpreter):
        ranks.setdefault(str(tag), len(ranks))
    return ranks


def _tags(interpreter: Interpreter) -> Iterator[tags.Tag]:
    major, minor = (int(part) for part in interpreter.version.split(".")[:2])
    places = list(_platforms(interpreter.platform))
    short = SHORT.get(interpreter.implementation, interpreter.implementation)
    own = f"{short}{major}{minor}"
    if interpreter.implementation == "cpython":
        known = ABI.match(interpreter.abi)
        flags = known[2] if known else ""
        abis = [f"{own}{flags}", *([own] if "d" in flags else [])]
        yield from tags.cpython_tags((major, minor), abis, places)
    else:  # `abi` is the tag of byte-code; that of extension modules begins alike
        abis = [f"{interpreter.abi}_{short}{api}" for api in range(73, 60, -1)]
        yield from tags.generic_tags(own, abis, places)
    yield from tags.compatible_tags((major, minor), own, places)


def _platforms(platform: str) -> Iterator[str]:
    """Give the platform tags that fit: the plain one, made for the machine, then the newest."""
    system, _, machine = platform.partition("-")
    if system == "macosx":
        yield from tags.mac_platforms(MACOS, machine.rpartition("-")[2])
        return
    yield platform.replace("-", "_").replace(".", "_")
    if system == "linux":
        for minor in range(GLIBC, OLDEST_GLIBC.get(machine, 17) - 1, -1):
            yield f"manylinux_2_{minor}_{machine}"
            if minor in LEGACY:
                yield f"{LEGACY[minor]}_{machine}"

"""Which of several wheels of one version an interpreter installs, by the tags in their names."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.lock import Interpreter

    Rank = tuple[int, ...]

IMPLEMENTATIONS = {"cpython": "cp", "pypy": "pp"}
LEGACY = {"manylinux2014": (2, 17), "manylinux2010": (2, 12), "manylinux1": (2, 5)}
LIBC = re.compile(r"(manylinux|musllinux)_(\d+)_(\d+)_")
BUILD = re.compile(r"[^-]+-[^-]+-(\d+)[^-]*-[^-]+-[^-]+-[^-]+$")
MACOS_ARCHITECTURES = (
    "arm64",
    "x86_64",
    "intel",
    "fat64",
    "fat3",
    "fat32",
    "universal2",
    "universal",
)
MACOS = re.compile(rf"macosx_(\d+)_(\d+)_({'|'.join(MACOS_ARCHITECTURES)})$")
LAST = (9,)


def best(filenames: Iterable[str], interpreter: Interpreter) -> str:
    """Give the wheel that fits most closely, as pip ranks them: PEP 425, then the build number.

    All of them must be installable; this says which one is preferred.
    """
    return min(filenames, key=lambda name: (_rank(name, interpreter), _build(name), name))


def _rank(filename: str, interpreter: Interpreter) -> Rank:
    pythons, abis, platforms = filename.removesuffix(".whl").split("-")[-3:]
    return min(
        _tag(python, abi, platform, interpreter)
        for python in pythons.split(".")
        for abi in abis.split(".")
        for platform in platforms.split(".")
    )


def _tag(python: str, abi: str, platform: str, interpreter: Interpreter) -> Rank:
    """Rank one tag: own ABI, stable ABI, no ABI, older stable ABIs, any Python; then `any`."""
    own = IMPLEMENTATIONS.get(interpreter.implementation, "??")
    minor = int(interpreter.version.split(".")[1])
    age = _age(python, minor)
    kind = ("any" if platform == "any" else abi if abi in ("none", "abi3") else "own") + python[:2]
    ranks = {
        f"own{own}": (0, *_platform(platform)) if age == 0 else LAST,
        f"abi3{own}": (1 if age == 0 else 3, age, *_platform(platform)),
        f"none{own}": (2, *_platform(platform)) if age == 0 else LAST,
        "nonepy": (4, age, *_platform(platform)),
        f"any{own}": (5,) if age == 0 else LAST,
        "anypy": (6, age),
    }
    return ranks.get(kind, LAST)


def _age(python: str, minor: int) -> int:
    """Say how far a Python tag is from 3.`minor`: py311 before py3 before py310."""
    major, its_minor = python[2:3], python[3:]
    if major != "3" or not (its_minor.isdigit() or not its_minor):
        return 1000
    if not its_minor:
        return 1
    return 0 if int(its_minor) == minor else 1 + minor - int(its_minor)


def _platform(platform: str) -> Rank:
    """Rank a platform tag: the plain one first, as made for this machine; then newest first."""
    if found := LIBC.match(platform):
        return (1 if found[1] == "manylinux" else 2, -int(found[2]), -int(found[3]), 0)
    if (legacy := LEGACY.get(platform.partition("_")[0])) is not None:
        return (1, -legacy[0], -legacy[1], 1)
    if found := MACOS.match(platform):
        return (1, -int(found[1]), -int(found[2]), MACOS_ARCHITECTURES.index(found[3]))
    return (0,)


def _build(filename: str) -> int:
    """Rank the optional build number, the third of six parts: the highest first."""
    found = BUILD.match(filename)
    return -int(found[1]) if found else 0

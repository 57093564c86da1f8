"""Byte-code for an environment in an image: compiled for its place there, without any date.

A container that starts with none compiles all it imports, each time. It is kept apart from the
environment: the files it is compiled of must not depend on it, nor who does without.
"""

from __future__ import annotations

import os
import re

from repro.images import layers, relocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repro.environments.prefixes import Prefix
    from repro.environments.tools import Session
    from repro.images.layers import Member

COMPILE = """
import compileall, py_compile, re, sys
for source, place, left_out in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    compileall.compile_dir(
        source, ddir=place, quiet=2, force=True, rx=re.compile(left_out),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""
CACHE = "__pycache__"
SURPLUS = "/(test|ensurepip|idlelib|site-packages)/"
NOTHING = r"\b\B"


def members(
    prefixes: Iterable[Prefix], version: str, python: str, work: Session
) -> Iterator[Member]:
    """Compile what is below `lib/` of some prefixes with `python`; give the files for an image.

    Nothing is written into the prefixes. A file that names the place where it was made is left
    without: it is another one in the image.
    """
    prefixes = [prefix for prefix in prefixes if os.path.isdir(_library(prefix, version))]
    folder = os.path.join(work.folder, "bytecode")
    arguments = []
    for prefix in prefixes:
        library, inside = _library(prefix, version), f"{prefix.place}/lib/python{version}"
        surplus = re.escape(library) + SURPLUS if _is_bare(prefix, prefixes) else NOTHING
        arguments += [library, inside, surplus]
    # Some interpreters write other byte-code when strings hash at random.
    fixed = ("env", "PYTHONHASHSEED=0", f"PYTHONPYCACHEPREFIX={folder}")
    work.run(*fixed, python, "-s", "-c", COMPILE, *arguments)
    for prefix in prefixes:
        yield from _compiled(prefix, version, folder)


def _library(prefix: Prefix, version: str) -> str:
    return os.path.join(prefix.source, "lib", f"python{version}")


def _is_bare(prefix: Prefix, prefixes: list[Prefix]) -> bool:
    """Say whether a prefix is the Python of another one: nothing but its library is taken."""
    return any(other.python.startswith(f"{prefix.place}/") for other in prefixes)


def _compiled(prefix: Prefix, version: str, folder: str) -> Iterator[Member]:
    library = _library(prefix, version)
    top = folder + library
    for path in layers.below(top) if os.path.isdir(top) else ():
        parent, name = os.path.split(path)
        source = os.path.join(library, parent, f"{name.split('.')[0]}.py")
        if os.path.isfile(source) and not relocation.names(source, prefix.source):
            inside = prefix.inside(os.path.join("lib", f"python{version}", parent, CACHE, name))
            yield layers.of_file(inside, os.path.join(top, path))

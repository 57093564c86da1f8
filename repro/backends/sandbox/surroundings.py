"""What has to be readable for an environment to work, beyond what every step sees."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PYTHONS = ("python", "python3")
MOST_LINKS = 40
MARKS = ("pyvenv.cfg", "conda-meta")


def of_environment(path: Iterable[str], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Give the readable paths, as a `Confinement` takes them, of an environment.

    These are its `prefix`, the folders that its `path` names, each with the installation that it
    is the `bin` of, and the interpreters that virtual environments are made of. A `bin` of no
    installation, such as `~/.local/bin`, brings nothing beside itself.
    """
    found: dict[str, None] = {}
    waiting = [*([prefix] if prefix else []), *map(_installation, path)]
    while waiting:
        place = os.path.abspath(waiting.pop(0))
        if place not in found and os.path.isdir(place) and place != "/":
            found[place] = None
            waiting += _made_of(place)
    return tuple((place, place) for place in found)


def _installation(folder: str) -> str:
    parent = os.path.dirname(os.path.abspath(folder))
    return parent if os.path.basename(folder) == "bin" and _is_installation(parent) else folder


def _is_installation(place: str) -> bool:
    if any(os.path.lexists(os.path.join(place, mark)) for mark in MARKS):
        return True
    libraries = os.path.join(place, "lib")
    try:
        names = os.listdir(libraries)
    except OSError:
        return False
    return any(
        name.startswith("python") and os.path.isfile(os.path.join(libraries, name, "os.py"))
        for name in names
    )


def _made_of(place: str) -> Iterator[str]:
    """Give the installations that the interpreters in a place, or in its `bin`, are borrowed of."""
    for folder in (place, os.path.join(place, "bin")):
        for name in PYTHONS:
            program = os.path.join(folder, name)
            for _ in range(MOST_LINKS):
                if not os.path.islink(program):
                    break
                program = os.path.join(os.path.dirname(program), os.readlink(program))
                yield _installation(os.path.dirname(program))

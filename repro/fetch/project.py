"""The project of a tree: found, read and decoded, with the digests of its local packages."""

from __future__ import annotations

import os

from repro import condafile, manifest, mlproject, schemas, spec
from repro.errors import ProjectInvalid
from repro.lockfiles import names
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from repro.errors import Problem
    from repro.manifest import Entry
    from repro.mlproject import Decoded
    from repro.spec import Environment, Project

    class Tree(Protocol):
        """A tree that a project can be read from."""

        def entries(self) -> tuple[Entry, ...]:
            """Give all files."""

        def read(self, path: str) -> bytes | None:
            """Give a regular file by its path."""


def inspect(tree: Tree) -> tuple[Decoded, tuple[str, ...]]:
    """Decode the project of a tree; give it with all paths that were read, there or not.

    Raises ProjectInvalid only for an MLproject that cannot be read at all.
    """
    reader = _Reader(tree)
    return _decoded(tree, reader), tuple(reader.paths)


class _Reader:
    """Reads files of a tree and notes which."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.paths: dict[str, None] = {}

    def __call__(self, path: str) -> bytes | None:
        self.paths[os.path.normpath(path)] = None
        return self.tree.read(path)


def _decoded(tree: Tree, read: _Reader) -> Decoded:
    top = [e.path for e in tree.entries() if "/" not in e.path and e.kind in ("file", "exec")]
    return mlproject.decode(mlproject.file_of(top), read, schemas.load("mlproject"))


def load(tree: Tree, report: Callable[[Problem], None]) -> tuple[Project, tuple[str, ...]]:
    """Give the project of a tree, ready to run, and all paths that were read for it.

    Warnings go to `report`. Raises ProjectInvalid with all mistakes.
    """
    reader = _Reader(tree)
    decoded = _decoded(tree, reader)
    if decoded.errors:
        raise ProjectInvalid(decoded.errors)
    for problem in decoded.problems:
        if problem.level == "warning":
            report(problem)
    project = _with_packages(decoded.project, reader)
    locked = {
        entry.path: entry.content
        for entry in tree.entries()
        if names.is_lock(entry.path) and entry.kind in ("file", "exec")
    }
    reader.paths |= dict.fromkeys(locked)
    return replace(project, lockfiles=locked), tuple(reader.paths)


def _with_packages(project: Project, read: _Reader) -> Project:
    """Fill in the digests of the local packages that environments install."""
    return replace(
        project,
        environment=_filled(project.environment, read),
        entry_points=tuple(
            replace(entry, environment=_filled(entry.environment, read))
            for entry in project.entry_points
        ),
    )


def _filled(environment: Environment | None, read: _Reader) -> Environment | None:
    if isinstance(environment, spec.CondaEnvironment):
        filled = condafile.fill(environment, read)
        if filled.python is None:
            return filled
        return replace(filled, python=_with_digests(filled.python, read.tree))
    if isinstance(environment, spec.PythonEnvironment):
        return _with_digests(environment, read.tree)
    if isinstance(environment, spec.DockerEnvironment) and environment.dockerfile:
        seen = (entry for entry in read.tree.entries() if not names.is_lock(entry.path))
        return replace(environment, context=manifest.of(seen))
    return environment


def _with_digests(environment: spec.PythonEnvironment, tree: Tree) -> spec.PythonEnvironment:
    """Fill in what an environment takes from the project's own files, by their digests."""
    archives = [line[2:] for line in environment.requirements if line.startswith("./")]
    if not (environment.directories or archives):
        return environment
    entries = tree.entries()
    contents = {entry.path: entry.content for entry in entries}
    found = []
    for path, _nothing in environment.directories:
        inside = manifest.matcher((path.partition("[")[0],))
        seen = (e for e in entries if inside(e.path) and not names.is_lock(e.path))
        found.append((path, manifest.of(seen)))
    return replace(
        environment,
        directories=tuple(found),
        archives=tuple((path, contents.get(path, "")) for path in archives),
    )

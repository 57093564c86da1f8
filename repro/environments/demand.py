"""What a request asks of a resolver, with every local path made absolute."""

from __future__ import annotations

import os
import re

from repro.environments import urls
from repro.errors import EnvironmentFailed
from repro.lock import Artifact
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.environments.tools import Session
    from repro.spec import PythonEnvironment

FIND_LINKS = ("-f", "--find-links")


class Package(Value):
    """A local package to build: its folder as given and absolute, and the digest of its files."""

    given: str
    path: str
    extras: str
    digest: str

    @property
    def line(self) -> str:
        """Ask for it in a requirements file; pip takes no extras after a URL."""
        return self.path + self.extras

    def named(self, name: str) -> str:
        """Ask for it by its name, once that is known."""
        return f"{name}{self.extras} @ {urls.of_path(self.path)}"

    def artifact(self, name: str) -> Artifact:
        """Lock it under `name`: its content is its version."""
        version = self.digest[:12]
        return Artifact(
            name=name, version=version, kind="directory", digest=self.digest, url=self.given
        )


class Demand(Value):
    """What is to be resolved together; the order in which it was written is gone.

    `checkouts` are the requirements that are fetched from a version control system.
    """

    lines: tuple[str, ...]
    checkouts: tuple[str, ...]
    constraints: tuple[str, ...]
    options: tuple[str, ...]
    packages: tuple[Package, ...]
    root: str
    sdists: bool

    def written(self, session: Session, sources: Iterable[str]) -> tuple[str, str]:
        """Write the requirements and the constraints as files for a tool; give their paths.

        `sources` are the checkouts and local packages, in the form that the tool takes. Index
        options stand in the file: they may hold credentials, and arguments are public.
        """
        lines = (*self.options, *self.lines, *sources)
        return (
            session.write_lines("requirements.txt", lines),
            session.write_lines("constraints.txt", self.constraints),
        )

    def package(self, path: str) -> Package:
        """Give the local package in the folder `path`."""
        real = os.path.realpath(path)
        return next(p for p in self.packages if os.path.realpath(p.path) == real)


def demand(request: PythonEnvironment, root: str, *, sdists: bool) -> Demand:
    """Prepare `request` of the project in the folder `root`.

    Build requirements are installed beside the others, as MLflow does. Raises EnvironmentFailed
    for local packages of a project that has no folder.
    """
    lines = sorted({*request.build_requirements, *request.requirements})
    if not root and (request.directories or any(_is_local(line) for line in lines)):
        raise EnvironmentFailed(
            f"`{request.source}` names local packages, and the project is in no folder here",
            hints=["clone the project and run it from its folder"],
        )
    return Demand(
        lines=tuple(_absolute(line, root) for line in lines if not urls.is_checkout(line)),
        checkouts=tuple(line for line in lines if urls.is_checkout(line)),
        constraints=tuple(sorted(set(request.constraints))),
        options=tuple(_option(option, root) for option in request.options),
        packages=tuple(sorted(_packages(request, root), key=lambda p: (p.given, p.extras))),
        root=root,
        sdists=sdists,
    )


def parted(option: str) -> tuple[str, str]:
    """Give the name and the value of `--name value` or `--name=value`."""
    word, *value = re.split(r"[\s=]", option, maxsplit=1)
    return word, "".join(value).strip()


def _packages(request: PythonEnvironment, root: str) -> Iterable[Package]:
    for given, digest in dict(request.directories).items():
        folder, bracket, extras = given.partition("[")
        path = os.path.normpath(os.path.join(root, folder))
        yield Package(given=folder, path=path, extras=bracket + extras, digest=digest)


def _is_local(line: str) -> bool:
    return line.startswith(("./", "../"))


def _absolute(line: str, root: str) -> str:
    return urls.of_path(os.path.normpath(os.path.join(root, line))) if _is_local(line) else line


def _option(option: str, root: str) -> str:
    """Give an option with a relative folder of links made absolute."""
    word, value = parted(option)
    if word not in FIND_LINKS or "://" in value or not root:
        return option
    return f"{word} {os.path.normpath(os.path.join(root, value))}"

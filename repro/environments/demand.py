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
    from collections.abc import Iterable, Mapping

    from repro.environments.tools import Session
    from repro.spec import PythonEnvironment

FIND_LINKS = ("-f", "--find-links")
REQUIRED = "--require-hashes"
HASH = re.compile(r"\s--hash[=\s]+(\w+):(\w+)")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


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

    `checkouts` are the requirements that are fetched from a version control system. `hashes` are
    the SHA-256 that a file of a package may have, for those where that was said; with
    `hashes_required` there may be no others. With `exact`, the lines are all that is to be
    installed: nothing is added that they need.
    """

    lines: tuple[str, ...]
    checkouts: tuple[str, ...]
    constraints: tuple[str, ...]
    options: tuple[str, ...]
    packages: tuple[Package, ...]
    root: str
    sdists: bool
    hashes: Mapping[str, tuple[str, ...]] = {}
    hashes_required: bool = False
    exact: bool = False

    @property
    def is_empty(self) -> bool:
        """Say whether nothing is to be installed."""
        return not (self.lines or self.checkouts or self.packages)

    def written(self, session: Session, sources: Iterable[str]) -> tuple[str, str]:
        """Write the requirements and the constraints as files for a tool; give their paths.

        `sources` are the checkouts and local packages, in the form that the tool takes. Index
        options stand in the file: they may hold credentials, and arguments are public.
        """
        lines = (*self.options, *self.lines, *sources)
        return (
            session.write_requirements("requirements.txt", lines),
            session.write_requirements("constraints.txt", self.constraints),
        )

    def package(self, path: str) -> Package:
        """Give the local package in the folder `path`."""
        real = os.path.realpath(path)
        found = next((p for p in self.packages if os.path.realpath(p.path) == real), None)
        if found is None:
            raise EnvironmentFailed(
                f"`{path}` is needed, which is no local package of the environment",
                hints=["name it among the dependencies, as `./FOLDER`"],
            )
        return found


def demand(request: PythonEnvironment, root: str, *, sdists: bool, exact: bool = False) -> Demand:
    """Prepare `request` of the project in the folder `root`.

    Build requirements are installed beside the others, as MLflow does. Raises EnvironmentFailed
    for local packages of a project that has no folder, and for hashes that are no SHA-256.
    """
    asked = sorted({*request.build_requirements, *request.requirements})
    lines = list(dict.fromkeys(HASH.sub("", line).strip() for line in asked))
    if not root and (request.directories or any(_is_local(line) for line in lines)):
        raise EnvironmentFailed(
            f"`{request.source}` names local packages, and the project is in no folder here",
            hints=["clone the project and run it from its folder"],
        )
    return Demand(
        lines=tuple(_absolute(line, root) for line in lines if not urls.is_checkout(line)),
        checkouts=tuple(line for line in lines if urls.is_checkout(line)),
        constraints=tuple(sorted({HASH.sub("", line).strip() for line in request.constraints})),
        options=tuple(_option(o, root) for o in request.options if o.strip() != REQUIRED),
        packages=tuple(sorted(_packages(request, root), key=lambda p: (p.given, p.extras))),
        root=root,
        sdists=sdists,
        hashes=hashes((*asked, *request.constraints)),
        hashes_required=REQUIRED in (option.strip() for option in request.options),
        exact=exact,
    )


def hashes(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Give the SHA-256 that stand behind requirements, by the names of the packages."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        given, named = HASH.findall(line), NAME.match(line)
        if not (given and named):
            continue
        name = normal(named[0])
        usable = [value for kind, value in given if kind == "sha256"]
        if not usable:
            raise EnvironmentFailed(
                f"`{name}` is given with hashes of which none is a SHA-256",
                hints=["write `--hash=sha256:…`, as `uv pip compile --generate-hashes` does"],
            )
        found[name] = tuple(sorted({*found.get(name, ()), *usable}))
    return found


def normal(name: str) -> str:
    """Give the normal form of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


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

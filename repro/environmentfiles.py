"""All that is wrong in the files that the environments of a project are made of.

Decoding a project tells only what keeps it from being understood. What is wrong in an environment
file otherwise ends the first run that needs it; here it is told at once, and with its place.
"""

from __future__ import annotations

import re

from repro import condafile
from repro.decode import Document
from repro.errors import Problem, ProjectInvalid, Where
from repro.requirements import COMMENT, LOCAL, PYTHON_KEYS, Lines
from repro.spec import CondaEnvironment, DockerEnvironment, PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from repro.requirements import Reader
    from repro.spec import Environment, Project

OPTIONS = re.compile(r"\s--\w.*$")
ARCHIVES = (".whl", ".zip", ".tar.gz")


def problems(project: Project, read: Reader, paths: Collection[str]) -> tuple[Problem, ...]:
    """List the mistakes in the environment files that a decoded project names.

    `read` gives the bytes of a file of the project, and `paths` are those of all its files.
    """
    wanted: list[tuple[list[str], Environment | None]] = [([], project.environment)]
    wanted += [(["entry_points", e.name], e.environment) for e in project.entry_points]
    found = [p for place, one in wanted for p in _problems(project, place, one, read, paths)]
    return tuple(dict.fromkeys(found))


def _problems(
    project: Project,
    place: list[str],
    environment: Environment | None,
    read: Reader,
    paths: Collection[str],
) -> list[Problem]:
    if isinstance(environment, CondaEnvironment):
        lines = Checked(read)
        return [*condafile.problems(environment, lines), *lines.unwise]
    if isinstance(environment, PythonEnvironment) and not environment.uv_project:
        return _python(environment.source, read)
    if isinstance(environment, DockerEnvironment):
        file = environment.dockerfile
        if file and file not in paths:
            where = _place(project.file, read, [*place, "docker_env", "dockerfile"])
            return [
                Problem(
                    code="environment-file",
                    message=f"docker_env: there is no file `{file}` in the project",
                    where=where,
                    hint="a build sees the files that Git tracks, or does not ignore",
                )
            ]
    return []


def _place(file: str, read: Reader, path: list[str]) -> Where:
    document = Document(file, read(file) or b"")
    return document.where(document.root().at(path))


def _python(file: str, read: Reader) -> list[Problem]:
    """Look at every line that a python_env file asks for; its form was checked when decoded."""
    data = read(file) if file else None
    if data is None:
        return []
    document, lines = Document(file, data), Checked(read)
    try:
        root = document.root()
    except ProjectInvalid:
        return []
    for key in PYTHON_KEYS[1:]:
        node = root.get(key)
        for item in node.value if node is not None and node.kind == "sequence" else ():
            lines.add(item.text, document.where(item))
    return [*lines.problems, *lines.unwise]


class Checked(Lines):
    """Requirement lines of which each is looked at; `unwise` are the findings beside `problems`."""

    def __init__(self, read: Reader) -> None:
        """Take what gives the bytes of a file of the project."""
        super().__init__(read)
        self.unwise: list[Problem] = []

    def add(self, line: str, where: Where, folder: str = "", *, constraint: bool = False) -> None:
        """Take one line as pip reads it."""
        super().add(line, where, folder, constraint=constraint)
        text = OPTIONS.sub("", COMMENT.sub("", line).strip())
        if text and _is_named(text):
            self.unwise += _of_requirement(text, where)

    def add_text(self, text: str, path: str, *, constraint: bool = False) -> None:
        """Take the text of a requirements file that stands at `path`, if it is one."""
        data = self.read(path) or b""
        try:
            good = "\0" not in data.decode()
        except UnicodeDecodeError:
            good = False
        if good:
            super().add_text(text, path, constraint=constraint)
            return
        self.problems.append(
            Problem(
                code="not-text",
                message=f"`{path}` is not UTF-8 text",
                where=Where(file=path),
                hint="save it as UTF-8; PowerShell writes UTF-16 unless it is told otherwise",
            )
        )


def _is_named(text: str) -> bool:
    """Say whether a line asks for a package by its name, and for no file, folder or address."""
    if text.startswith("-") or LOCAL.match(text) or text.endswith(ARCHIVES):
        return False
    return "://" not in text.partition("@")[0]


def _of_requirement(text: str, where: Where) -> Iterator[Problem]:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement as error:
        yield Problem(
            code="requirement",
            message=f"`{text[:80]}` is no requirement: {str(error).partition(chr(10))[0]}",
            where=where,
            hint="write `NAME`, `NAME==VERSION` or `NAME @ URL`, and markers after `;`",
            level="warning",
        )

"""A conda environment file: its channels, packages, variables, and what pip is to add to them."""

from __future__ import annotations

import re

from repro import matchspec
from repro.decode import Document
from repro.errors import Problem, ProjectInvalid
from repro.requirements import Lines
from repro.spec import PythonEnvironment
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.decode import Node
    from repro.requirements import Reader
    from repro.spec import CondaEnvironment

CODE = "conda-env"
PYTHON = re.compile(r"python\s*(?:==?|>=|<=)\s*([0-9.]+)(?:\.\*)?(?:=.*)?")
TOOLS = re.compile(r"(pip|setuptools|wheel|python)\b")
"""What a virtual environment has anyway."""


def fill(environment: CondaEnvironment, read: Reader) -> CondaEnvironment:
    """Fill in what the text of a conda file asks for; `read` gives the files its `-r` lines name.

    A part that is wrong is left out: `check` tells of it, when somebody wants that part. Its
    `python` stays None where what pip is to install cannot be known.
    """
    try:
        return _File(environment, Lines(read)).filled()
    except ProjectInvalid:
        return environment


def check(environment: CondaEnvironment) -> None:
    """Raise ProjectInvalid with all that is wrong in a conda file."""
    # `fill` has followed the `-r` lines, and left `python` empty where that failed
    found = problems(environment, Lines(lambda _path: b"" if environment.python else None))
    if found:
        raise ProjectInvalid(found)


def problems(environment: CondaEnvironment, lines: Lines) -> tuple[Problem, ...]:
    """List all that is wrong in a conda file; `lines` take its pip part."""
    try:
        found = _File(environment, lines)
        found.filled()
    except ProjectInvalid as error:
        return error.problems
    return (*found.problems, *lines.problems)


class _File:
    """Reads one file, collecting what is wrong with it."""

    def __init__(self, environment: CondaEnvironment, lines: Lines) -> None:
        self.environment = environment
        self.document = Document(environment.file, environment.text.encode())
        self.root = self.document.root()
        self.lines = lines
        self.problems: list[Problem] = []
        self.python = ""
        self.packages: list[str] = []
        self.dropped: list[str] = []

    def filled(self) -> CondaEnvironment:
        if self.root.kind != "mapping":
            self._wrong(self.root, "it is no mapping", "write `channels:` and `dependencies:`")
        channels = [text for node in self._items("channels") for text in self._text(node)]
        for node in self._items("dependencies"):
            self._dependency(node)
        python = PythonEnvironment(
            python=self.python,
            requirements=tuple(self.lines.requirements),
            constraints=tuple(self.lines.constraints),
            options=tuple(self.lines.options),
            directories=tuple(self.lines.directories),
            source=self.environment.file,
        )
        return replace(
            self.environment,
            channels=tuple(channels),
            packages=tuple(self.packages),
            python=None if self.lines.problems else python,
            dropped=tuple(self.dropped),
            variables=tuple(self._variables()),
        )

    def _wrong(self, node: Node, why: str, hint: str = "") -> None:
        message = f"`{self.environment.file}` cannot be used: {why}"
        where = self.document.where(node)
        self.problems.append(Problem(code=CODE, message=message, where=where, hint=hint))

    def _items(self, key: str) -> list[Node]:
        node = self.root.get(key)
        if node is None or (node.kind == "scalar" and node.value is None):
            return []
        if node.kind != "sequence":
            self._wrong(node, f"`{key}` is no list", f"write each of the {key} as `- …`")
            return []
        return list(node.value)

    def _text(self, node: Node) -> list[str]:
        if node.kind == "scalar" and isinstance(node.value, str) and node.text.strip():
            return [node.text.strip()]
        shown = node.text or f"a {node.kind}"
        self._wrong(node, f"`{shown[:60]}` is no name", "put it in quotes if it is one")
        return []

    def _dependency(self, node: Node) -> None:
        if node.kind == "mapping":
            self._mapping(node)
            return
        for text in self._text(node):
            try:
                spec = matchspec.parse(text)
            except ValueError as error:
                self._wrong(node, f"`{text[:80]}` asks for no package: {error}")
            else:
                self.packages.append(text)
                self._note(spec.name, text)

    def _note(self, name: str, text: str) -> None:
        """Keep what a virtual environment takes of a conda package, or that it is left out."""
        version = PYTHON.fullmatch(text)
        if version:
            self.python = version[1].rstrip(".")
        elif not TOOLS.match(name):
            self.dropped.append(text)

    def _mapping(self, node: Node) -> None:
        for key, value in node.items():
            if key.value != "pip":
                name, version = key.text.strip(), value.text.strip()
                self._wrong(
                    key,
                    f"`{name[:60]}` is followed by a colon",
                    f"write `{name[:60]}={version[:60]}`; only `pip:` has a list of its own",
                )
            elif value.kind == "sequence":
                for line in value.value:
                    for text in self._text(line):
                        self.lines.add(text, self.document.where(line))
            elif value.value is not None:
                self._wrong(value, "`pip` is no list", "write each of its lines as `- …`")

    def _variables(self) -> list[tuple[str, str]]:
        node = self.root.get("variables")
        if node is None or (node.kind == "scalar" and node.value is None):
            return []
        if node.kind != "mapping":
            self._wrong(node, "`variables` is no mapping", "write each of them as `NAME: value`")
        found = []
        for key, value in node.items():
            if value.kind == "scalar" and key.text and "=" not in key.text:
                found.append((key.text, value.text))
            else:
                self._wrong(key, f"the variable `{key.text[:60]}` has no text as its value")
        return found

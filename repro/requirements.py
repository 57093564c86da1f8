"""Which packages an environment asks for: python_env and requirements files, conda's pip part."""

from __future__ import annotations

import posixpath
import re

from repro.decode import Document, nearest
from repro.errors import Problem, ProjectInvalid, Where
from repro.spec import PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from repro.decode import Node
    from repro.spec import CondaEnvironment

    Reader = Callable[[str], bytes | None]

PYTHON_KEYS = ("python", "build_dependencies", "dependencies")
COMMENT = re.compile(r"(^|\s)#.*$")
LOCAL = re.compile(r"^(\.{1,2}(/|$|\[)|file:(?!//)|[^\s:@=<>!~;]+/[^\s:@]*$)")
FOLLOWED = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
MAX_FILES = 50


class Lines:
    """Requirement lines, with the files they include followed, in the order they stand."""

    def __init__(self, read: Reader) -> None:
        """Take what gives the bytes of a file of the project."""
        self.read = read
        self.requirements: list[str] = []
        self.constraints: list[str] = []
        self.options: list[str] = []
        self.directories: list[tuple[str, str]] = []
        self.problems: list[Problem] = []
        self.seen: set[str] = set()

    def add(self, line: str, where: Where, folder: str = "", *, constraint: bool = False) -> None:
        """Take one line as pip reads it."""
        text = COMMENT.sub("", line).strip()
        if not text:
            return
        word, value = _option(text)
        if word in ("-r", "--requirement", "-c", "--constraint"):
            self._follow(value, where, folder, constraint=word in ("-c", "--constraint"))
        elif word in ("-e", "--editable") or (not word and LOCAL.match(text)):
            self._directory(value if word else text, where, folder)
        elif word:
            self.options.append(f"{word} {value}".strip())
        else:
            (self.constraints if constraint else self.requirements).append(text)

    def _follow(self, file: str, where: Where, folder: str, *, constraint: bool) -> None:
        path = posixpath.normpath(posixpath.join(folder, file))
        if path in self.seen or len(self.seen) >= MAX_FILES:
            return
        self.seen.add(path)
        data = self.read(path)
        if data is None:
            message = f"there is no file `{path}`"
            self.problems.append(Problem(code="environment-file", message=message, where=where))
            return
        text = data.decode("utf-8-sig", "replace").replace("\\\r\n", "").replace("\\\n", "")
        for number, line in enumerate(text.splitlines(), 1):
            place = Where(file=path, line=number, text=line[:200])
            self.add(line, place, posixpath.dirname(path), constraint=constraint)

    def _directory(self, text: str, where: Where, folder: str) -> None:
        if "+" in text.split("://", 1)[0] and "://" in text:
            self.requirements.append(text)  # an editable checkout: installed as a package
            return
        bare = text.removeprefix("file:").partition("[")[0]
        path = posixpath.normpath(posixpath.join(folder, bare))
        if path.startswith(("/", "..")):
            hint = "only packages inside the project can be part of its environment"
            message = f"the local package `{text}` lies outside of the project"
            self.problems.append(
                Problem(code="environment-path", message=message, where=where, hint=hint)
            )
            return
        if path.endswith((".whl", ".tar.gz", ".zip")):
            self.requirements.append(f"./{path}")
            return
        extras = text[text.index("[") :] if "[" in text else ""
        self.directories.append((path + extras, ""))


def python_env(file: str, data: bytes, read: Reader) -> tuple[PythonEnvironment, list[Problem]]:
    """Decode a python_env file; `read` gives the files that its `-r` lines name.

    Raises ProjectInvalid for text that is no YAML.
    """
    document = Document(file, data)
    root = document.root()
    problems: list[Problem] = []
    if root.kind != "mapping":
        hint = "write `python:`, `build_dependencies:` and `dependencies:`"
        document.fail("python-env", f"`{file}` is not a mapping", document.where(root), hint)
    for key, _value in root.items():  # noqa: PERF102  (a node is no dict)
        if str(key.value) not in PYTHON_KEYS:
            near = nearest(str(key.value), PYTHON_KEYS)
            hint = (
                f"a similar key exists: `{near}`"
                if near
                else f"known keys: {', '.join(PYTHON_KEYS)}"
            )
            problems.append(
                Problem(
                    code="python-env",
                    message=f"`{file}`: unknown key `{key.text}`",
                    where=document.where(key),
                    hint=hint,
                )
            )
    python = root.get("python")
    if python is not None and python.kind == "scalar" and not isinstance(python.value, str):
        problems.append(
            Problem(
                code="python-env",
                message=f"`{file}`: the Python version {python.text} is a number to YAML",
                where=document.where(python),
                hint=f'put it in quotes: `python: "{python.text}"`',
                level="warning",
            )
        )
    lines = {name: Lines(read) for name in PYTHON_KEYS[1:]}
    for name, collected in lines.items():
        _dependencies(document, root.get(name), collected)
        problems += collected.problems
    build, run = lines["build_dependencies"], lines["dependencies"]
    return (
        PythonEnvironment(
            python=python.text if python is not None and python.value is not None else "",
            build_requirements=tuple(build.requirements),
            requirements=tuple(run.requirements),
            constraints=(*build.constraints, *run.constraints),
            options=tuple(dict.fromkeys((*build.options, *run.options))),
            directories=(*build.directories, *run.directories),
            source=file,
        ),
        problems,
    )


def from_conda(environment: CondaEnvironment, read: Reader) -> tuple[PythonEnvironment, list[str]]:
    """Give the Python part of a conda file, and the conda packages that it leaves out.

    As MLflow with `--env-manager virtualenv`: the version of Python and the `pip:` entries.
    Raises ProjectInvalid where the file is no conda environment.
    """
    document = Document(environment.file, environment.text.encode())
    root = document.root()
    python, dropped = "", []
    lines = Lines(read)
    dependencies = root.get("dependencies")
    for item in dependencies.value if dependencies and dependencies.kind == "sequence" else []:
        if item.kind == "mapping":
            _dependencies(document, item.get("pip"), lines)
        elif match := re.fullmatch(
            r"python\s*(?:==?|>=|<=)\s*([0-9.]+)(?:\.\*)?(?:=.*)?", item.text
        ):
            python = match[1].rstrip(".")
        elif not re.match(r"(pip|setuptools|wheel|python)\b", item.text):
            dropped.append(item.text)
    if lines.problems:
        raise ProjectInvalid(lines.problems)
    return (
        PythonEnvironment(
            python=python,
            requirements=tuple(lines.requirements),
            constraints=tuple(lines.constraints),
            options=tuple(lines.options),
            directories=tuple(lines.directories),
            source=environment.file,
        ),
        dropped,
    )


def _dependencies(document: Document, node: Node | None, lines: Lines) -> None:
    for item in _list(document, node, lines):
        if item.kind == "mapping":
            lines.problems.append(
                Problem(
                    code="python-env",
                    message=f"`{document.file}`: a mapping stands among the dependencies",
                    where=document.where(item),
                    hint="`- pip:` is conda's form; in a python_env file the packages stand alone",
                )
            )
        else:
            lines.add(item.text, document.where(item))


def _list(document: Document, node: Node | None, lines: Lines) -> Iterable[Node]:
    if node is None or node.value is None:
        return ()
    if node.kind == "sequence":
        return list(node.value)
    message = f"`{document.file}`: the dependencies are not a list"
    where = document.where(node)
    lines.problems.append(Problem(code="python-env", message=message, where=where))
    return ()


def _option(text: str) -> tuple[str, str]:
    """Split `--name value`, `--name=value` or `-nvalue`; ("", "") where it is no option."""
    if not text.startswith("-"):
        return "", ""
    for short in ("-r", "-c", "-e", "-i", "-f"):
        if text.startswith(short) and not text.startswith("--"):
            return short, text[2:].lstrip(" =").strip("\"'")
    word, _, value = text.replace("=", " ", 1).partition(" ")
    return word, value.strip().strip("\"'")

"""Which packages an environment asks for: python_env and requirements files, uv projects."""

from __future__ import annotations

import posixpath
import re

from repro import digest
from repro.decode import Document, nearest
from repro.errors import Problem, Where
from repro.spec import PythonEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from repro.decode import Node

    Reader = Callable[[str], bytes | None]

PYTHON_KEYS = ("python", "build_dependencies", "dependencies")
COMMENT = re.compile(r"(^|\s)#.*$")
LOCAL = re.compile(r"^(\.{1,2}(/|$|\[)|file:(?!//)|[^\s:@=<>!~;]+/[^\s:@]*$)")
FOLLOWED = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
MAX_FILES = 50
HASHED = re.compile(r"\s--hash[=\s]")
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*$")
PYPROJECT, UV_LOCK, UV_PYTHON = "pyproject.toml", "uv.lock", ".python-version"
UV_ONLY = ("sources", "index", "override-dependencies", "workspace", "conflicts", "environments")
"""Settings of a uv project that only a `uv.lock` says the outcome of."""


class Lines:
    """Requirement lines, with the files they include followed, in the order they stand."""

    def __init__(self, read: Reader) -> None:
        """Take what gives the bytes of a file of the project."""
        self.read = read
        self.requirements: list[str] = []
        self.constraints: list[str] = []
        self.options: list[str] = []
        self.directories: list[tuple[str, str]] = []
        self.pinned: list[tuple[str, str]] = []
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
        text = data.decode("utf-8-sig", "replace")
        if HASHED.search(text):
            self.pinned.append((path, digest.of_bytes(data)))
        self.add_text(text, path, constraint=constraint)

    def add_text(self, text: str, path: str, *, constraint: bool = False) -> None:
        """Take the text of a requirements file that stands at `path`."""
        for number, line in _logical(text):
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
            pinned=tuple(dict.fromkeys((*build.pinned, *run.pinned))),
            source=file,
        ),
        problems,
    )


def uv_env(
    named: str, where: Where, read: Reader
) -> tuple[PythonEnvironment | None, list[Problem]]:
    """Decode the uv project that `uv_env` names: its folder or its `pyproject.toml`.

    What it asks for are its dependencies and default groups; a `uv.lock` beside it says which
    versions to take.
    """
    folder = posixpath.normpath(named or ".")
    if posixpath.basename(folder) == PYPROJECT:
        folder = posixpath.dirname(folder) or "."
    if folder.startswith(("/", "..")):
        hint = "the uv project must be part of this one"
        message = f"uv_env: `{named}` lies outside of the project"
        return None, [Problem(code="environment-path", message=message, where=where, hint=hint)]
    file = posixpath.normpath(posixpath.join(folder, PYPROJECT))
    data = read(file)
    if data is None:
        message = f"uv_env: there is no file `{file}` in the project"
        hint = "name the folder of a `pyproject.toml`, relative to the MLproject file"
        return None, [Problem(code="environment-file", message=message, where=where, hint=hint)]
    try:
        return _uv_project(folder, file, data, read), []
    except ValueError as error:
        message = f"uv_env: `{file}` cannot be used: {error}"
        return None, [Problem(code="uv-env", message=message, where=Where(file=file))]


def _uv_project(folder: str, file: str, data: bytes, read: Reader) -> PythonEnvironment:
    """Read a uv project. Raises ValueError with the reason."""
    lock = posixpath.normpath(posixpath.join(folder, UV_LOCK))
    locked = read(lock)
    whole, told = _toml(data), {} if locked is None else _toml(locked)
    project, settings = _table(whole, "project"), _table(_table(whole, "tool"), "uv")
    only = [name for name in UV_ONLY if name in settings]
    if locked is None and only:
        raise ValueError(f"`tool.uv.{only[0]}` needs a `{UV_LOCK}`, which `uv lock` writes")
    python = (read(posixpath.normpath(posixpath.join(folder, UV_PYTHON))) or b"").decode().strip()
    packages = [folder] if "build-system" in whole and settings.get("package", True) else []
    if locked is not None:
        packages = [posixpath.normpath(posixpath.join(folder, path)) for path in _sources(told)]
    if any(path.startswith(("/", "..")) for path in packages):
        raise ValueError("it needs a local package that lies outside of the project")
    wanted = _texts(project.get("dependencies", []), "project.dependencies")
    return PythonEnvironment(
        python=python if VERSION.match(python) else str(project.get("requires-python", "")),
        requirements=(*wanted, *_groups(whole, settings)),
        constraints=(
            *_texts(settings.get("constraint-dependencies", []), "tool.uv"),
            *_pins(told),
        ),
        directories=tuple((path, "") for path in packages),
        uv_project=folder,
        pinned=() if locked is None else ((lock, digest.of_bytes(locked)),),
        source=file,
    )


def _toml(data: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _sources(locked: dict[str, Any]) -> list[str]:
    """Give the folders of the packages that a `uv.lock` takes from folders."""
    found = []
    for package in _list_of(locked, "package"):
        source = _table(package, "source")
        found += [str(source[kind]) for kind in ("editable", "directory") if kind in source]
    return found


def _pins(locked: dict[str, Any]) -> Iterator[str]:
    """Give the versions that a `uv.lock` says, so that another lock can be compared with it."""
    for package in _list_of(locked, "package"):
        name, version = _table({"": package}, "").get("name"), package.get("version")
        if version and "registry" in _table(package, "source"):
            where = " or ".join(f"({one})" for one in _list_of(package, "resolution-markers"))
            yield f"{name}=={version} ; {where}" if where else f"{name}=={version}"


def _groups(whole: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Give what the dependency groups ask for that uv installs without being told."""
    groups = _table(whole, "dependency-groups")
    chosen = settings.get("default-groups", ["dev"])
    names = list(groups) if chosen == "all" else [*_texts(chosen, "tool.uv.default-groups")]
    found = [*_texts(settings.get("dev-dependencies", []), "tool.uv.dev-dependencies")]
    seen = set()
    while names:
        name = names.pop()
        for entry in _list_of(groups, name) if name not in seen else []:
            if isinstance(entry, dict):
                names.append(str(entry.get("include-group", "")))
            else:
                found.append(str(entry))
        seen.add(name)
    return found


def _table(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key, {}) if isinstance(value, dict) else {}
    if not isinstance(found, dict):
        raise ValueError(f"`{key}` is no table")  # noqa: TRY004  (one kind of error for all)
    return found


def _list_of(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise ValueError(f"`{key}` is no list")  # noqa: TRY004  (one kind of error for all)
    return found


def _texts(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{key}` is no list of texts")
    return value


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines of a requirements file with their numbers, continued ones as one."""
    begun, start = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        start = start if begun else number
        begun += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield start, begun
            begun = ""
    if begun:
        yield start, begun


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

"""`pylock.<platform>.toml`: the lock of one virtual environment, in the format of PEP 751.

uv and pip install from it. What PEP 751 has no place for stands in `[tool.repro]`: the Python and
the platform that it was resolved for, and the environment digest, by which a change that somebody
made by hand is noticed. A file that uv or pip wrote is read too; it names no exact Python, and may
offer several files of a package, until it is bound to a machine.
"""

from __future__ import annotations

import json
import posixpath
import re
from urllib.parse import quote, unquote, urlsplit

from repro import digest, platforms
from repro.errors import LockInvalid, Where
from repro.location import without_credentials
from repro.lock import NO_PYTHON, Artifact, EnvironmentLock, Interpreter
from repro.lockfiles.names import FOLDER, LockFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NoReturn

FORMAT = 1
MAKER = "repro"
LATER = re.compile(r"[1-9][0-9]*\.[0-9]+$")
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
COMMIT = re.compile(r"[0-9a-f]{7,64}$")
AT = re.compile(r"\(at line (\d+), column (\d+)\)")
SYSTEMS = ("git", "hg", "bzr", "svn")
SCHEMES = ("http", "https", "file")
UNKNOWN = ("*",)
LONGEST = 10_000


def encode(locks: tuple[EnvironmentLock, ...], about: Mapping[str, str]) -> bytes:
    """Write a lock; equal locks give equal bytes.

    The file has room for one lock, that of one platform. `about` is kept beside it as it is.
    Paths are relative to the folder of lock files, where the file is to be put.
    """
    (lock,) = locks
    lines = ['lock-version = "1.0"', *_environment(lock), f"created-by = {_text(MAKER)}"]
    if not lock.artifacts:
        lines.append("packages = []")
    for package in _grouped(lock.artifacts):
        lines += ["", *_package(package)]
    lines += ["", *_own(lock, about)]
    return ("\n".join(lines) + "\n").encode()


def decode(path: str, data: bytes) -> LockFile:
    """Read a lock that repro, uv or pip wrote at `path` in a project. Raises LockInvalid.

    In a file that is not of repro, the interpreter has no more than a version, which is what the
    file says of it, such as `>=3.11`; several artifacts of one name are those to choose from.
    """
    return _Decoder(path, data).file()


# -- writing


def _environment(lock: EnvironmentLock) -> Iterator[str]:
    python, platform = lock.interpreter, platforms.named(lock.platform)
    if not python.implementation:
        return
    markers = [f"implementation_name == '{python.implementation}'"]
    if platform is not None:
        markers.append(f"platform_machine == '{platform.platform_machine}'")
        markers.append(f"sys_platform == '{platform.sys_platform}'")
    yield f"environments = [{_text(' and '.join(markers))}]"
    minor = ".".join(python.version.split(".")[:2])
    yield f"requires-python = {_text(f'=={minor}.*')}"


def _grouped(artifacts: tuple[Artifact, ...]) -> list[list[Artifact]]:
    """Give the files of each package together."""
    groups: dict[tuple[str, ...], list[Artifact]] = {}
    for a in sorted(artifacts, key=lambda a: (a.name, a.version, a.marker, a.filename, a.digest)):
        groups.setdefault((a.name, a.version, a.marker), []).append(a)
    return list(groups.values())


def _package(files: list[Artifact]) -> Iterator[str]:
    first = files[0]
    is_tree = first.kind in ("directory", "vcs")
    yield "[[packages]]"
    yield f"name = {_text(first.name)}"
    if first.version and not is_tree:  # PEP 751 allows none for what is built from a tree
        yield f"version = {_text(first.version)}"
    if first.marker:
        yield f"marker = {_text(first.marker)}"
    if first.index:
        yield f"index = {_text(_public(first.index))}"
    if first.depends:
        needs = ", ".join(f"{{ name = {_text(_name(one))} }}" for one in first.depends)
        yield f"dependencies = [{needs}]"
    wheels = [f"    {_file(a)}," for a in files if a.kind == "wheel"]
    if wheels:
        yield from ("wheels = [", *wheels, "]")
    for artifact in files:
        if artifact.kind != "wheel":
            yield f"{artifact.kind} = {_source(artifact)}"
    own = dict(_beside(first, is_tree=is_tree))
    if own:
        yield from ("", "[packages.tool.repro]", *(f"{key} = {own[key]}" for key in sorted(own)))


def _beside(artifact: Artifact, *, is_tree: bool) -> Iterator[tuple[str, str]]:
    """Give what PEP 751 has no place for."""
    if artifact.kind == "directory":
        yield "digest", _text(artifact.digest)
    if is_tree and artifact.version:
        yield "version", _text(artifact.version)
    if artifact.extras:
        yield "extras", _texts(artifact.extras)
    if any(_name(one) != one for one in artifact.depends):
        yield "requires", _texts(artifact.depends)


def _file(artifact: Artifact) -> str:
    hashes = {"sha256": artifact.digest, "md5": artifact.md5}
    parts = {
        "name": _text(artifact.filename) if artifact.filename else "",
        **_place(artifact.url),
        "size": str(artifact.size) if artifact.size else "",
        "hashes": _table({key: _text(value) for key, value in hashes.items() if value}),
    }
    return _table({key: text for key, text in parts.items() if text})


def _source(artifact: Artifact) -> str:
    if artifact.kind == "directory":
        return _table({**_place(artifact.url), "editable": "false"})
    if artifact.kind != "vcs":
        return _file(artifact)
    place, _, inside = artifact.url.partition("#subdirectory=")
    system, _, url = place.removesuffix(f"@{artifact.digest}").partition("+")
    parts = {
        "type": system,
        "url": _public(url),
        "commit-id": artifact.digest,
        "subdirectory": inside,
    }
    return _table({key: _text(value) for key, value in parts.items() if value})


def _place(url: str) -> dict[str, str]:
    """Say where a file is: a path of the project is seen from the folder of lock files."""
    if "://" in url:
        return {"url": _text(_public(url))}
    return {"path": _text(posixpath.relpath(url or ".", FOLDER))}


def _own(lock: EnvironmentLock, about: Mapping[str, str]) -> Iterator[str]:
    yield "[tool.repro]"
    yield f"format = {FORMAT}"
    yield f"digest = {_text(lock.digest)}"
    said = {
        "platform": lock.platform,
        "resolver": lock.tool,
        "exclude-newer": lock.exclude_newer,
    }
    yield from (f"{key} = {_text(value)}" for key, value in said.items() if value)
    if lock.interpreter != NO_PYTHON:
        fields = Interpreter.__fields__
        yield from ("", "[tool.repro.interpreter]")
        yield from (f"{field} = {_text(getattr(lock.interpreter, field))}" for field in fields)
    told = {key: about[key] for key in sorted(about) if about[key]}
    if told:
        yield from ("", "[tool.repro.about]")
        yield from (f"{_text(key)} = {_text(value)}" for key, value in told.items())


def _text(value: str) -> str:
    """Write a string: JSON's is TOML's, but for one character. Raises LockInvalid."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LockInvalid(f"{value!r} cannot stand in a lock file: it is not UTF-8") from None
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _table(parts: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {value}" for key, value in parts.items()) + " }"


def _name(requirement: str) -> str:
    """Give the name that a requirement begins with."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return _normal(found[0]) if found else requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(url: str) -> str:
    """Give a URL without credentials. Raises ValueError for one that cannot be read."""
    urlsplit(url)
    return without_credentials(url.partition("#")[0])


# -- reading


class _Decoder:
    """Reads one file; every mistake is told with the line where it stands."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.text = data.decode("utf-8", "replace")
        self.document = self._parsed(data)

    def file(self) -> LockFile:
        document = self.document
        version = document.get("lock-version")
        if not isinstance(version, str) or not LATER.match(version):
            self.fail("it has no `lock-version`, so it is no lock of PEP 751", "lock-version")
        if not version.startswith("1."):
            self.later(f"of version {version}", "lock-version")
        maker = self.string(document, "created-by") or "unknown"
        own = self.table(self.table(document, "tool"), "repro")
        artifacts = [
            a for package in self.tables(document, "packages") for a in self.package(package)
        ]
        self._consistent(artifacts, own=bool(own))
        lock = self._own(own, tuple(artifacts)) if own else self._foreign(maker, artifacts)
        edited = bool(own) and own.get("digest") != lock.digest
        return LockFile(
            path=self.path,
            kind="python",
            locks=(lock,),
            edited=edited,
            maker=MAKER if own else maker,
        )

    # -- the whole

    def _own(self, own: dict[str, Any], artifacts: tuple[Artifact, ...]) -> EnvironmentLock:
        if not isinstance(own.get("format"), int):
            self.fail("`tool.repro` has no `format`", "[tool.repro]")
        if own["format"] > FORMAT:
            self.later(f"with `tool.repro.format` {own['format']}", "[tool.repro]")
        told = self.table(own, "interpreter")
        python = Interpreter(**{f: self.string(told, f) for f in Interpreter.__fields__})
        return EnvironmentLock(
            kind="python",
            interpreter=python,
            artifacts=artifacts,
            tool=self.string(own, "resolver"),
            platform=self.string(own, "platform"),
            exclude_newer=self.string(own, "exclude-newer"),
        )

    def _foreign(self, maker: str, artifacts: list[Artifact]) -> EnvironmentLock:
        stem = posixpath.basename(self.path).removesuffix(".toml").removeprefix("pylock.")
        platform = next((n for n in platforms.NAMES if stem == n or stem.endswith(f"-{n}")), "")
        wanted = self.string(self.document, "requires-python")
        python = Interpreter(implementation="", version=wanted, abi="", platform="")
        return EnvironmentLock(
            kind="python",
            interpreter=python,
            artifacts=tuple(artifacts),
            tool=maker,
            platform=platform,
        )

    def _consistent(self, artifacts: list[Artifact], *, own: bool) -> None:
        """Refuse a file that says two things of one package."""
        seen: dict[tuple[str, str], str] = {}
        files: set[str] = set()
        for artifact in artifacts:
            version = seen.setdefault((artifact.name, artifact.marker), artifact.version)
            if version != artifact.version or (own and artifact.name in files):
                self.fail(f"it has `{artifact.name}` twice", f'"{artifact.name}"')
            files.add(artifact.name)

    # -- packages

    def package(self, package: dict[str, Any]) -> Iterator[Artifact]:
        given = self.string(package, "name")
        if not NAME.match(given):
            self.fail(f"{given!r} is no name of a package", "[[packages]]")
        own = self.table(self.table(package, "tool"), "repro")
        name, near = _normal(given), f'"{given}"'
        common = {
            "name": name,
            "version": self.string(package, "version") or self.string(own, "version"),
            "depends": tuple(self.strings(own, "requires")) or self._depends(package),
            "extras": tuple(self.strings(own, "extras")) if self.is_own else UNKNOWN,
            "index": self.public(self.string(package, "index"), near),
            "marker": self.string(package, "marker"),
        }
        found = 0
        for artifact in self._files(package, common, near):
            found += 1
            yield artifact
        if "vcs" in package:
            yield self._checkout(self.table(package, "vcs"), common, near)
        elif "directory" in package:
            yield self._directory(self.table(package, "directory"), own, common, near)
        elif not found:
            self.fail(f"`{name}` names nothing to install", near)

    @property
    def is_own(self) -> bool:
        return bool(self.table(self.table(self.document, "tool"), "repro"))

    def _depends(self, package: dict[str, Any]) -> tuple[str, ...]:
        needs = (self.string(entry, "name") for entry in self.tables(package, "dependencies"))
        return tuple(sorted({_normal(name) for name in needs if name}))

    def _files(
        self, package: dict[str, Any], common: dict[str, Any], near: str
    ) -> Iterator[Artifact]:
        for wheel in self.tables(package, "wheels"):
            yield self._artifact(wheel, common, near)
        for key in ("archive", "sdist"):
            if key in package:
                yield self._artifact(self.table(package, key), common, near)

    def _artifact(self, file: dict[str, Any], common: dict[str, Any], near: str) -> Artifact:
        url = self._url(file, near)
        known = self.string(file, "name") or posixpath.basename(unquote(urlsplit(url).path))
        hashes = self.table(file, "hashes")
        sha256 = self.string(hashes, "sha256").lower()
        if not digest.is_digest(sha256):
            self.fail(f"`{common['name']}` has a file without SHA-256", near)
        if not known or known != posixpath.basename(known):
            self.fail(f"{known!r} is no name of a file", near)
        is_wheel = known.endswith(".whl")
        parts = known.split("-")
        version = common["version"] or (parts[1] if len(parts) > 1 else "")
        size = file.get("size", 0)
        return Artifact(
            **{**common, "version": version},
            kind="wheel" if is_wheel else "sdist",
            digest=sha256,
            filename=known,
            url=url,
            md5=self.string(hashes, "md5"),
            size=size if isinstance(size, int) and size > 0 else 0,
        )

    def _checkout(self, vcs: dict[str, Any], common: dict[str, Any], near: str) -> Artifact:
        system, commit = self.string(vcs, "type"), self.string(vcs, "commit-id")
        url, inside = self.string(vcs, "url"), self.string(vcs, "subdirectory")
        if system not in SYSTEMS or not COMMIT.match(commit) or "://" not in url:
            self.fail(f"`{common['name']}` names no checkout that can be fetched", near)
        place = f"{system}+{self.public(url, near)}@{commit}"
        place += f"#subdirectory={inside}" if inside else ""
        return Artifact(**common, kind="vcs", digest=commit, url=place)

    def _directory(
        self, folder: dict[str, Any], own: dict[str, Any], common: dict[str, Any], near: str
    ) -> Artifact:
        known = self.string(own, "digest")
        if known and not digest.is_digest(known):
            self.fail(f"{known!r} is no digest", near)
        return Artifact(**common, kind="directory", digest=known, url=self._url(folder, near))

    def _url(self, file: dict[str, Any], near: str) -> str:
        """Give where a file is: its URL, or its path relative to the project."""
        url, path = self.string(file, "url"), self.string(file, "path")
        if url:
            if urlsplit(self.public(url, near)).scheme not in SCHEMES:
                self.fail(f"{url!r} is no URL that files come from", near)
            return self.public(url, near)
        if not path:
            self.fail("a file has neither `url` nor `path`", near)
        if path.startswith("/"):
            return "file://" + quote(path)
        place = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), path))
        if place == ".." or place.startswith("../") or "\0" in place or "\\" in place:
            self.fail(f"`{path}` lies outside of the project", near)
        return place

    # -- pieces

    def _parsed(self, data: bytes) -> dict[str, Any]:
        import tomllib

        try:
            return tomllib.loads(data.decode())
        except UnicodeDecodeError:
            self.fail("it is not UTF-8")
        except (RecursionError, OverflowError):
            self.fail("it is nested too deeply")
        except ValueError as error:
            found = AT.search(str(error))
            place = (int(found[1]), int(found[2])) if found else (0, 0)
            raise self._invalid(
                f"it is no TOML: {AT.sub('', str(error)).strip()}", *place
            ) from None

    def string(self, table: dict[str, Any], key: str) -> str:
        found = table.get(key, "")
        if not isinstance(found, str) or len(found) > LONGEST:
            self.fail(f"`{key}` is no text", f"{key} =")
        return found

    def strings(self, table: dict[str, Any], key: str) -> list[str]:
        found = table.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            self.fail(f"`{key}` is no list of texts", f"{key} =")
        return found

    def table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        found = table.get(key, {})
        if not isinstance(found, dict):
            self.fail(f"`{key}` is no table", key)
        return found

    def tables(self, table: dict[str, Any], key: str) -> list[dict[str, Any]]:
        found = table.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            self.fail(f"`{key}` is no list of tables", f"{key} =")
        return found

    def public(self, url: str, near: str) -> str:
        try:
            return _public(url)
        except ValueError:
            self.fail(f"{url!r} is no URL", near)

    def fail(self, message: str, near: str = "") -> NoReturn:
        """Refuse the file; `near` is a text that the line of the mistake holds."""
        at = self.text.find(near) if near else -1
        raise self._invalid(message, self.text.count("\n", 0, at) + 1 if at >= 0 else 0)

    def later(self, what: str, near: str) -> NoReturn:
        at = self.text.find(near)
        error = self._invalid(
            f"it is {what}, written by a later version", self.text.count("\n", 0, at) + 1
        )
        error.hints = ("install a newer repro",)
        raise error

    def _invalid(self, message: str, line: int, column: int = 0) -> LockInvalid:
        lines = self.text.splitlines()
        text = lines[line - 1][:200] if 0 < line <= len(lines) else ""
        return LockInvalid(
            f"`{self.path}` cannot be used: {message}",
            where=Where(file=self.path, line=line, column=column, text=text),
            hints=["`repro lock` writes it anew"],
        )

"""`conda-lock.yml`, version 1 of conda-lock's format (CEP 37): all platforms in one file.

What the format has no field for stands in its `custom_metadata`: who wrote the file, a digest of
each platform's part, by which a change by hand is found, and what resolved it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

from repro import digest, platforms
from repro.lock import Artifact, EnvironmentLock
from repro.lockfiles import yamltext
from repro.lockfiles.names import LockFile
from repro.matchspec import joined
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.lockfiles.yamltext import Map

VERSION = "1"
GENERATOR = "repro"
OTHER_MAKER = "conda-lock"
MAIN = "main"
HEADER = (
    "# Written by repro in the format of conda-lock, which can install it too.\n"
    "# Change the environment file, then `repro lock`: changes made here are found.\n"
)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
WORD = re.compile(r"[A-Za-z0-9_.!+-]+")
MD5 = re.compile(r"[0-9a-f]{32}")
COMMIT = re.compile(r"@([0-9a-f]{40}|[0-9a-f]{64})(?:#|$)")
TOKEN = re.compile(r"/t/[^/]+(?=/|$)")
PACKAGE = re.compile(r"(?P<stem>.+)\.(?:conda|tar\.bz2)")
SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz")


def public(url: str) -> str:
    """Give a URL without what only its owner may know: logins, tokens, queries, fragments."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.scheme == "file" else TOKEN.sub("", parts.path, count=1)
    return urlunsplit((parts.scheme, host, path, "", ""))


def encode(locks: tuple[EnvironmentLock, ...], about: Mapping[str, str]) -> bytes:
    """Write the locks of one environment for all its platforms.

    `about` may name the file of the request as `source`.
    """
    locks = tuple(sorted(locks, key=lambda lock: lock.platform))
    packages = sorted(
        (_package(artifact, lock.platform) for lock in locks for artifact in lock.artifacts),
        key=lambda package: (package["manager"], package["name"], package["platform"]),
    )
    marks = {lock.platform: _mark(lock) for lock in locks}
    channels = {_channel(a.url) for lock in locks for a in lock.artifacts if a.kind == "conda"}
    document = {
        "version": 1,
        "metadata": {
            "content_hash": marks,
            "channels": [{"url": url, "used_env_vars": []} for url in sorted(channels)],
            "platforms": [lock.platform for lock in locks],
            "sources": [about["source"]] if about.get("source") else [],
            "custom_metadata": {"generator": GENERATOR, **dict(_custom(locks, marks))},
        },
        "package": packages,
    }
    return (HEADER + yamltext.write(document)).encode()


def decode(path: str, data: bytes) -> LockFile:
    """Read a lock file, of repro or of conda-lock itself; only its main category counts.

    Raises LockInvalid.
    """
    text = yamltext.Reader(path)
    root = text.mapping(text.read(data), "the file")
    version = text.text(root.get("version"), "`version`", root)
    if version != VERSION:
        text.fail(
            f"it is of version {version[:20]} of its format, and only {VERSION} is known",
            root,
            hint="take a later repro, or write it again with `repro lock`",
        )
    metadata = text.mapping(root.get("metadata"), "`metadata`", root)
    custom = text.texts(metadata.get("custom_metadata"), "`custom_metadata`", metadata)
    artifacts = _artifacts(text, root, metadata)
    locks = tuple(
        EnvironmentLock(
            kind="conda",
            artifacts=tuple(_providing(parts, custom.get(f"provides.{platform}", ""))),
            tool=custom.get(f"tool.{platform}", ""),
            platform=platform,
            exclude_newer=custom.get(f"exclude_newer.{platform}", ""),
        )
        for platform, parts in sorted(artifacts.items())
    )
    ours = custom.get("generator") == GENERATOR
    marks = {lock.platform: _mark(lock) for lock in locks}
    told = {k.removeprefix("digest."): v for k, v in custom.items() if k.startswith("digest.")}
    return LockFile(
        path=path,
        kind="conda",
        locks=locks,
        edited=ours and told != marks,
        maker=GENERATOR if ours else OTHER_MAKER,
    )


# -- writing


def _package(artifact: Artifact, platform: str) -> dict[str, Any]:
    conda = artifact.kind == "conda"
    hashes = {"md5": artifact.md5} if artifact.md5 else {}
    package: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "manager": "conda" if conda else "pip",
        "platform": platform,
        "dependencies": _conda_map(artifact.depends) if conda else _pip_map(artifact.depends),
        "url": artifact.url,
        # a commit is no SHA-256, which alone may stand here; it is in the URL too
        "hash": {**hashes, "sha256": artifact.digest.rjust(64, "0")},
    }
    build = {"build": artifact.build} if artifact.build else {}
    return {**package, **build, "category": MAIN, "optional": False}


def _conda_map(depends: Iterable[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for text in depends:
        found.setdefault(text.split(maxsplit=1)[0], []).append(text)
    return {
        name: texts[0].partition(" ")[2].strip() if len(texts) == 1 else joined(texts)
        for name, texts in sorted(found.items())
    }


def _pip_map(depends: Iterable[str]) -> dict[str, str]:
    named = ((NAME.match(text), text) for text in depends)
    return {
        found[0]: text[found.end() :] for found, text in sorted(named, key=lambda n: n[1]) if found
    }


def _custom(
    locks: Iterable[EnvironmentLock], marks: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for lock in locks:
        provided = sorted(f"{a.name} {dist}" for a in lock.artifacts for dist in a.provides)
        yield f"digest.{lock.platform}", marks[lock.platform]
        for key, value in (
            ("tool", lock.tool),
            ("exclude_newer", lock.exclude_newer),
            ("provides", ", ".join(provided)),
        ):
            if value:
                yield f"{key}.{lock.platform}", value


def _mark(lock: EnvironmentLock) -> str:
    """Give the digest of all that the file says for one platform."""
    packages = [_package(a, lock.platform) for a in sorted(lock.artifacts, key=_order)]
    provided = [[a.name, *a.provides] for a in sorted(lock.artifacts, key=_order)]
    return digest.of_value("repro/conda-lock", [packages, provided, lock.tool, lock.exclude_newer])


def _order(artifact: Artifact) -> tuple[str, bool]:
    return artifact.name, artifact.kind != "conda"


def _channel(url: str) -> str:
    return url.rsplit("/", 2)[0]


# -- reading


def _artifacts(text: yamltext.Reader, root: Map, metadata: Map) -> dict[str, list[Artifact]]:
    listed = text.sequence(metadata.get("platforms"), "`platforms`", metadata)
    found: dict[str, dict[tuple[str, bool], Artifact]] = {
        text.text(item, "a platform", metadata): {} for item in listed
    }
    for platform in found:
        if platforms.named(platform) is None:
            text.fail(f"`{platform[:40]}` is no platform that is known", metadata)
    for item in text.sequence(root.get("package"), "`package`", root):
        package = text.mapping(item, "a package")
        if text.optional(package.get("category"), "`category`") not in ("", MAIN):
            continue
        platform = text.text(package.get("platform"), "`platform`", package)
        if platform not in found:
            text.fail(f"`{platform[:40]}` is not among its platforms", package)
        try:
            artifact = _artifact(text, package)
        except ValueError:
            text.fail("a URL in it cannot be read", package)
        if artifact.kind == "conda" and _subdir(artifact.url) not in ("noarch", platform):
            text.fail(f"`{artifact.name}` is locked for {platform}, from another", package)
        known = found[platform].setdefault(_order(artifact), artifact)
        if known != artifact:
            text.fail(f"`{artifact.name}` is locked twice for {platform}", package)
    return {name: [found[name][key] for key in sorted(found[name])] for name in found}


def _artifact(text: yamltext.Reader, package: Map) -> Artifact:
    name = text.text(package.get("name"), "`name`", package)
    version = text.text(package.get("version"), "`version`", package)
    manager = text.text(package.get("manager"), "`manager`", package)
    if not NAME.fullmatch(name) or not WORD.fullmatch(version):
        text.fail(f"`{name[:60]} {version[:60]}` names no package", package)
    if manager not in ("conda", "pip"):
        text.fail(f"`{manager[:40]}` manages no packages", package)
    url = public(text.text(package.get("url"), "`url`", package))
    depends = text.texts(package.get("dependencies"), "`dependencies`", package)
    if manager == "conda":
        return _conda(
            text,
            package,
            Artifact(
                name=name,
                version=version,
                kind="conda",
                digest="",
                url=url,
                depends=tuple(f"{n} {rest}".strip() for n, rest in sorted(depends.items())),
            ),
        )
    full = text.text(package.get("url"), "`url`", package)
    return _python(
        text,
        package,
        Artifact(
            name=name,
            version=version,
            kind="",
            digest="",
            url=url if "://" in url else full,
            depends=tuple(n + ("" if rest == "*" else rest) for n, rest in sorted(depends.items())),
        ),
    )


def _conda(text: yamltext.Reader, package: Map, artifact: Artifact) -> Artifact:
    """Fill in what is known of a conda package from the name of its file."""
    filename = unquote(artifact.url.rpartition("/")[2])
    found = PACKAGE.fullmatch(filename)
    start = f"{artifact.name}-{artifact.version}-"
    if found is None or not found["stem"].lower().startswith(start.lower()):
        text.fail(f"`{filename[:80]}` is not the file of {start.removesuffix('-')}", package)
    build = found["stem"][len(start) :] if found else ""
    told = text.optional(package.get("build"), "`build`")
    if not WORD.fullmatch(build) or told not in ("", build):
        text.fail(f"`{filename[:80]}` is not the build `{told[:40]}`", package)
    if artifact.url.count("/") < 2 or "://" not in artifact.url:  # noqa: PLR2004  (subdir/file)
        text.fail(f"`{artifact.url[:80]}` is no place in a channel", package)
    md5 = _hash(text, package, "md5")
    sha256 = _hash(text, package, "sha256")
    return replace(artifact, filename=filename, build=build, md5=md5, digest=sha256)


def _python(text: yamltext.Reader, package: Map, artifact: Artifact) -> Artifact:
    url = artifact.url
    filename = unquote(urlsplit(url).path.rpartition("/")[2])
    if url.startswith(("git+", "hg+", "svn+", "bzr+")):
        given = text.text(package.get("url"), "`url`", package)
        commit = COMMIT.search(given)
        if commit is None:
            text.fail(f"the commit of `{artifact.name}` is not locked", package)
        digest_ = commit[1] if commit else ""
        return replace(artifact, kind="vcs", digest=digest_, url=_checkout(given))
    sha256 = _hash(text, package, "sha256")
    if filename.endswith(".whl"):
        return replace(artifact, kind="wheel", digest=sha256, filename=filename)
    if filename.endswith(SDISTS):
        return replace(artifact, kind="sdist", digest=sha256, filename=filename)
    if "://" in url or url.startswith("/") or ".." in url.split("/"):
        text.fail(f"`{url[:80]}` is no Python package", package)
    return replace(artifact, kind="directory", digest=sha256)


def _checkout(url: str) -> str:
    """Give the URL of a checkout without its login; the name of an ssh login is none."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    name = login.partition(":")[0] if parts.scheme.endswith("ssh") else ""
    return urlunsplit(parts._replace(netloc=f"{name}{at}{host}" if name else host))


def _hash(text: yamltext.Reader, package: Map, kind: str) -> str:
    hashes = text.texts(package.get("hash"), "`hash`", package)
    found = hashes.get(kind, "")
    if kind == "md5":
        good = not found or MD5.fullmatch(found) is not None
    else:
        good = digest.is_digest(found)
    if not good:
        name = text.optional(package.get("name"), "`name`")
        hint = "write it again with `repro lock`, or a later conda-lock"
        text.fail(
            f"there is no {kind.upper()} of `{name}` that could be checked", package, hint=hint
        )
    return found


def _providing(artifacts: Iterable[Artifact], told: str) -> Iterator[Artifact]:
    """Fill in which distributions the conda packages hold, as `_custom` wrote it."""
    provided: dict[str, list[str]] = {}
    for item in told.split(", "):
        name, _, dist = item.partition(" ")
        if dist:
            provided.setdefault(name, []).append(dist)
    for artifact in artifacts:
        found = provided.get(artifact.name, []) if artifact.kind == "conda" else []
        yield replace(artifact, provides=tuple(sorted(found)))


def _subdir(url: str) -> str:
    return url.split("/")[-2]

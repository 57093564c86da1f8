"""Whether an environment still is what was locked and built: every file, every package.

Three things are compared with what is on disk: the records of installers (RECORD, conda-meta),
the lock, and the list of files that was kept when the environment was built. The records lie in
the environment itself, so that whoever changes a file can change them too; the list does not, and
is held to a digest in the marker. Where it was lost, the tree hash still tells.
"""

from __future__ import annotations

import os
import re

from repro import digest
from repro.environments import cache, packages, treehash
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.environments.packages import Claim, Contents, Package
    from repro.environments.treehash import Tree
    from repro.lock import Artifact, EnvironmentLock

    Known = Mapping[str, tuple[str, str]]

DIFFERENCES = {
    "changed": "is changed",
    "missing": "is missing",
    "extra": "belongs to nothing that was installed",
    "not-installed": "is locked and not installed",
    "not-locked": "is installed and not locked",
    "other-version": "has another version",
    "other-build": "is another build",
    "pip-installed": "was installed by pip over conda",
    "other-tree": "has another tree hash than when it was built",
}
NOTICES = {
    "runs-at-start": "runs code whenever Python starts",
    "link-script": "is a script that conda runs when linking",
    "other-base": "is another interpreter than when the environment was built",
    "no-digest": "has no digest to compare with",
}
"""What should be known, and makes no environment another one."""

SITE = re.compile(r"(?:lib/[^/]+/)?site-packages/[^/]+\.pth")
CUSTOM = re.compile(r"lib/[^/]+/(?:site-packages/)?(?:site|user)customize(?:/__init__)?\.[\w.-]+")
LINK_SCRIPT = re.compile(r"(?:bin|Scripts)/\.[^/]+-(?:pre-link|post-link|pre-unlink)\.(?:sh|bat)")


class Finding(Value):
    """One thing that was found. `kind` is a key of DIFFERENCES or NOTICES.

    `path` is relative to the prefix, but for an interpreter outside of it; `package` is who owns
    it, where anybody does. `expected` and `found` are versions, builds or digests.
    """

    kind: str
    path: str = ""
    package: str = ""
    expected: str = ""
    found: str = ""

    @property
    def is_difference(self) -> bool:
        """Say whether the environment is not what it should be because of this."""
        return self.kind in DIFFERENCES

    def __str__(self) -> str:
        """Say it in words."""
        subject = self.path or self.package or "the environment"
        owner = f" (of {self.package})" if self.path and self.package else ""
        compared = self.found and self.expected and not self.path
        both = f": {self.found}, not {self.expected}" if compared else ""
        return f"{subject}{owner} {(DIFFERENCES | NOTICES)[self.kind]}{both}"


class Inspection(Value):
    """What was found in the environment at `prefix`, differences first.

    `tree` is its tree hash now, `recorded` that of the build, empty where none was kept. `files`
    and `bytes` count what was read. `listed` says whether the list of its files was there to
    compare with; without one, byte-code and what belongs to no package cannot be checked.
    """

    prefix: str
    tree: str
    recorded: str
    files: int
    bytes: int
    listed: bool
    findings: tuple[Finding, ...]

    @property
    def differences(self) -> tuple[Finding, ...]:
        """Give what makes it another environment than the one that was locked and built."""
        return tuple(f for f in self.findings if f.is_difference)

    @property
    def notices(self) -> tuple[Finding, ...]:
        """Give the rest."""
        return tuple(f for f in self.findings if not f.is_difference)


def inspect(prefix: str, lock: EnvironmentLock) -> Inspection:
    """Compare the environment at `prefix` with its lock and with itself when it was built.

    Everything in it is read, and nothing of it is run. Works for an environment of somebody
    else's making too. Raises OSError for what cannot be read.
    """
    marker = cache.marker(prefix)
    tree = treehash.scan(prefix)
    contents = packages.read(prefix)
    known = treehash.kept(prefix, str(marker.get("files", "")))
    now = treehash.tree_hash(tree)
    found = [
        *_of_packages(contents, lock),
        *_of_files(tree, contents.claims, known),
        *_of_tree(marker, now, known),
        *_of_base(prefix, marker),
        *_of_code(prefix, tree, contents.claims),
    ]
    unique = dict.fromkeys(sorted(found, key=_order))
    return Inspection(
        prefix=prefix,
        tree=now,
        recorded=str(marker.get("tree", "")),
        files=len(tree),
        bytes=sum(seen[3] for seen in tree.values()),
        listed=known is not None,
        findings=tuple(unique),
    )


def _order(finding: Finding) -> tuple[bool, int, str, str]:
    kinds = [*DIFFERENCES, *NOTICES]
    place = kinds.index(finding.kind)
    return not finding.is_difference, place, finding.package, finding.path


# -- packages


def _of_packages(contents: Contents, lock: EnvironmentLock) -> Iterator[Finding]:
    """Compare what is installed with what is locked; conda and Python names do not mix."""
    mixed = lock.kind == "conda"
    wanted = {(_manager(a), a.name): a for a in lock.artifacts}
    found = {(p.manager, p.name): p for p in contents.packages}
    for key in wanted.keys() - found.keys():
        yield Finding(kind="not-installed", package=key[1], expected=wanted[key].version)
    for key in found.keys() - wanted.keys():
        kind = "pip-installed" if mixed and key[0] == "python" else "not-locked"
        yield Finding(kind=kind, package=key[1], found=found[key].version)
    for key in wanted.keys() & found.keys():
        yield from _of_package(wanted[key], found[key])


def _manager(artifact: Artifact) -> str:
    return "conda" if artifact.kind == "conda" else "python"


def _of_package(wanted: Artifact, found: Package) -> Iterator[Finding]:
    if wanted.version and not _same_version(wanted.version, found.version):
        yield Finding(
            kind="other-version",
            package=wanted.name,
            expected=wanted.version,
            found=found.version,
        )
    elif wanted.build and found.build and wanted.build != found.build:
        yield Finding(
            kind="other-build", package=wanted.name, expected=wanted.build, found=found.build
        )
    elif found.digest and digest.is_digest(wanted.digest) and found.digest != wanted.digest:
        yield Finding(
            kind="other-build", package=wanted.name, expected=wanted.digest, found=found.digest
        )


def _same_version(one: str, other: str) -> bool:
    if one == other:
        return True
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


# -- files


def _of_files(tree: Tree, claims: Mapping[str, Claim], known: Known | None) -> Iterator[Finding]:
    """Compare every file with what its package says of it, and with the list, if there is one."""
    yield from _of_claims(tree, claims, known)
    if known is None:
        yield from _of_strays(tree, claims)
        return
    for path, (kind, content) in known.items():
        seen, owner = tree.get(path), _owner(path, claims)
        if seen is None:
            if not treehash.is_bytecode(path):
                yield Finding(kind="missing", path=path, package=owner)
        elif seen[:2] != (kind, content):
            yield _changed(path, owner, content, seen[1])
    for path in tree.keys() - known.keys():
        if not treehash.is_bytecode(path):
            yield Finding(kind="extra", path=path, package=_owner(path, claims))


def _of_claims(tree: Tree, claims: Mapping[str, Claim], known: Known | None) -> Iterator[Finding]:
    """Compare files with the records of their packages."""
    for path, claim in claims.items():
        seen = tree.get(path)
        if treehash.is_bytecode(path):
            continue
        if seen is None:
            yield Finding(kind="missing", path=path, package=claim.package)
        elif not claim.digest:
            if known is None and not treehash.NOTES.fullmatch(path):
                yield Finding(kind="no-digest", path=path, package=claim.package)
        elif not _is(seen, path, claim, tree):
            yield _changed(path, claim.package, _expected(path, seen[1], claim, known), seen[1])


def _expected(path: str, found: str, claim: Claim, known: Known | None) -> str:
    """Give what was there before, so that one change is one finding; else what a record says."""
    before = known[path][1] if known is not None and path in known else found
    return claim.digest if before == found else before


def _is(seen: tuple[str, str, str, int], path: str, claim: Claim, tree: Tree) -> bool:
    """Say whether a file is what its record says.

    For a link, installers note the digest of its target, of the file behind it, or of nothing.
    """
    if seen[0] != "link":
        return seen[1] == claim.digest
    if claim.kind == "link" and claim.digest in (_of_text(seen[1]), digest.EMPTY):
        return True
    behind = tree.get(os.path.normpath(os.path.join(os.path.dirname(path), seen[1])))
    return behind is not None and behind[1] == claim.digest


def _of_text(text: str) -> str:
    return digest.of_bytes(os.fsencode(text))


def _of_strays(tree: Tree, claims: Mapping[str, Claim]) -> Iterator[Finding]:
    """Give the files that neither a package nor the maker of the environment has put there."""
    venv = treehash.is_venv(tree)
    for path in tree.keys() - claims.keys():
        own = treehash.NOTES.fullmatch(path) or (venv and treehash.SCAFFOLD.fullmatch(path))
        if not own and not treehash.is_bytecode(path):
            yield Finding(kind="extra", path=path)


def _owner(path: str, claims: Mapping[str, Claim]) -> str:
    return claims[path].package if path in claims else ""


def _changed(path: str, owner: str, expected: str, found: str) -> Finding:
    return Finding(kind="changed", path=path, package=owner, expected=expected, found=found)


def _of_tree(marker: Mapping[str, Any], now: str, known: Known | None) -> Iterator[Finding]:
    """Compare the tree hash where no list says which file it is."""
    before = marker.get("tree")
    if before and known is None and before != now:
        yield Finding(kind="other-tree", expected=str(before), found=now)


def _of_base(prefix: str, marker: Mapping[str, Any]) -> Iterator[Finding]:
    before = marker.get("base", {})
    now = treehash.base(prefix) if before else {}
    for path, content in before.items():
        if now.get(path) != content:
            yield Finding(kind="other-base", path=path, expected=content, found=now.get(path, ""))


# -- code that runs unasked


def _of_code(prefix: str, tree: Tree, claims: Mapping[str, Claim]) -> Iterator[Finding]:
    venv = treehash.is_venv(tree)
    for path in tree:
        if LINK_SCRIPT.fullmatch(path):
            kind = "link-script"
        elif venv and treehash.SCAFFOLD.fullmatch(path):
            continue
        elif CUSTOM.fullmatch(path) or (SITE.fullmatch(path) and _runs(prefix, path)):
            kind = "runs-at-start"
        else:
            continue
        yield Finding(kind=kind, path=path, package=_owner(path, claims))


def _runs(prefix: str, path: str) -> bool:
    """Say whether a `.pth` file holds code, and not folders alone."""
    lines = (files.read(os.path.join(prefix, path)) or b"").splitlines()
    return any(line.startswith((b"import ", b"import\t")) for line in lines)


def summary(findings: Iterable[Finding]) -> str:
    """Say in a few words what was found: `2 changed, 1 missing`."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())

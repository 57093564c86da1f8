"""A tree of files as one canonical text: what is there, by content; not when, not whose."""

from __future__ import annotations

from repro import canonical, digest
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCHEMA = "repro.manifest/1"
ALL = ("", ".", "**")
KINDS = ("file", "exec", "link", "dir")


class Entry(Value):
    """One path of a tree. Paths are relative, with `/`; bytes that are no UTF-8 are surrogates.

    `kind` is `file`, `exec` (a file that may be executed), `link` or `dir` (an empty folder).
    `content` is the SHA-256 of a file, the target of a link, and empty for a folder. `size` is
    in bytes.
    """

    path: str
    kind: str
    content: str = ""
    size: int = 0


class NotAManifest(ValueError):
    """Bytes that are no manifest, or one with a path that no tree may have."""


def encode(entries: Iterable[Entry]) -> bytes:
    """Give the canonical bytes of a tree; their SHA-256 is the tree digest.

    Entries are sorted by the bytes of their paths. Times, owners and mode bits other than
    execution are not part of a tree.
    """
    rows = sorted(
        ([e.path, e.kind, e.content, e.size] for e in entries), key=lambda row: _bytes(str(row[0]))
    )
    return canonical.encode({"schema": SCHEMA, "entries": rows})


def of(entries: Iterable[Entry]) -> str:
    """Give the tree digest."""
    return digest.of_bytes(encode(entries))


def decode(data: bytes) -> tuple[Entry, ...]:
    """Read what `encode` wrote.

    Raises NotAManifest for anything else, and for paths that could leave the tree: manifests
    may come from other machines.
    """
    try:
        document = canonical.decode(data)
        if document["schema"] != SCHEMA:
            raise NotAManifest(f"schema {document['schema']}")
        entries = tuple(
            Entry(path=path, kind=kind, content=content, size=size)
            for path, kind, content, size in document["entries"]
        )
    except (canonical.NotCanonical, KeyError, TypeError, ValueError) as error:
        raise NotAManifest(str(error)) from None
    for entry in entries:
        fault = fault_of(entry)
        if fault:
            raise NotAManifest(f"{entry.path!r}: {fault}")
    if len({entry.path for entry in entries}) != len(entries):
        raise NotAManifest("a path stands there twice")
    return entries


def fault_of(entry: Entry) -> str:
    """Say why an entry cannot be part of a tree, or nothing."""
    if entry.kind not in KINDS:
        return "an unknown kind"
    if not is_inside(entry.path):
        return "a path that leaves the tree"
    if entry.kind in ("file", "exec") and not digest.is_digest(entry.content):
        return "no digest"
    if entry.kind == "link" and not link_stays(entry.path, entry.content):
        return f"a link that leaves the tree, to `{entry.content}`"
    return ""


def clash(entries: Iterable[Entry]) -> str:
    """Give a path that two entries claim, as the same or as file and folder, or nothing."""
    paths = [entry.path for entry in entries if entry.kind != "dir"]
    taken: set[str] = set()
    for path in paths:
        if path in taken:
            return path
        taken.add(path)
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in taken:
                return folder
            folder = folder.rpartition("/")[0]
    return ""


def is_inside(path: str) -> bool:
    """Say whether a relative path stays below its root."""
    parts = path.split("/")
    return bool(path) and "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def link_stays(path: str, target: str) -> bool:
    """Say whether a symbolic link at `path` points into the tree, by its text alone."""
    if not target or target.startswith("/") or "\0" in target:
        return False
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return False
    return True


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Give a test whether a path is named by one of `patterns`.

    A pattern is a path, a folder (everything below it), or a glob in which `*` and `?` stay
    within a name and `**` crosses folders.
    """
    tidy = [pattern.removeprefix("./").rstrip("/") for pattern in patterns]
    plain = frozenset(
        path for path in tidy if path not in ALL and not any(c in path for c in "*?[")
    )
    tests = [_test(pattern) for pattern in tidy if pattern not in plain]

    def matches(path: str) -> bool:
        place = path
        while place:
            if place in plain:
                return True
            place = place.rpartition("/")[0]
        return any(test(path) for test in tests)

    return matches


def _test(pattern: str) -> Callable[[str], bool]:
    if pattern in ALL:
        return lambda _path: True
    import re

    expression = re.compile(_expression(pattern) + r"(?:/.*)?\Z", re.DOTALL)
    return lambda path: expression.match(path) is not None


def _expression(pattern: str) -> str:
    import re

    out, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            out.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    return "".join(out)


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")

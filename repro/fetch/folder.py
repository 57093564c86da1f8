"""A project in a local folder, read where it is, and known again by the state of its files.

The memo of a folder holds every file with its digest and its state (device, inode, size, mtime,
ctime), every folder that could get a new file, and the Git files that could change what belongs
to the tree. As long as all of them are as they were, nothing is read, listed or started.
"""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_left

from repro import digest, manifest, source, spec, value
from repro.errors import SourceUnusable
from repro.lockfiles import names
from repro.manifest import Entry
from repro.source import Source
from repro.store.placement import is_half
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from repro.source import Selection
    from repro.spec import Project
    from repro.store.memos import Memos

    Loader = Callable[["Folder"], tuple[Project, tuple[str, ...]]]

FORMAT = 5
AFTER_SLASH = chr(ord("/") + 1)
NEVER = (".git", "__pycache__")
OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""A file that became a pipe meanwhile must not keep us waiting for a writer."""


class Folder:
    """A local project. `source` and the digests are of the moment of `scan`."""

    def __init__(self, root: str, uri: str, memos: Memos, *, avoid: str = "") -> None:
        """Name the folder; `avoid` is a folder below it that is no part of the project."""
        self.root = os.path.realpath(root)
        self.uri = uri
        self.memos = memos
        self.avoid = avoid
        self.memo: dict[str, Any] = {}
        self.changed = False
        self._index: tuple[list[list[Any]], dict[str, list[Any]], list[str]] | None = None

    # -- the tree

    def scan(self) -> Folder:
        """Learn the state of the tree, from the memo as far as it still holds.

        Raises SourceUnusable for a tree with files that cannot be read.
        """
        memo = self.memos.get("folder", self.root)
        if isinstance(memo, dict) and memo.get("format") == FORMAT:
            suspects = _suspects(self.root, memo)
            if suspects is not None and not self._differ(memo, suspects):
                self.memo = memo
                return self
            self.memo = memo
        self._scan_anew()
        return self

    @property
    def source(self) -> Source:
        """Say what was found."""
        git = self.memo["git"]
        return Source(
            kind="folder",
            uri=self.uri,
            project=self.root,
            name=os.path.basename(self.root),
            root=self.root,
            tree=self.memo["tree"],
            **git,
        )

    def entries(self) -> tuple[Entry, ...]:
        """Give all files of the tree."""
        return _entries(self.memo["files"])

    def selected(self, chosen: Selection, step: str) -> tuple[Entry, ...]:
        """Give the inputs of a step. Raises SourceUnusable.

        Files and folders that are named without a glob count even where Git ignores them.
        """
        named = {row[0]: row for row in (*self._concerned(chosen), *self._named(chosen))}
        rows = sorted(named.values(), key=lambda row: os.fsencode(row[0]))
        return source.select(_entries(rows), chosen, step)

    def _concerned(self, chosen: Selection) -> list[list[Any]]:
        """Give the files of the tree that inputs may name; where they are paths, no others."""
        files_of_tree: list[list[Any]] = self.memo["files"]
        patterns = [p.removeprefix("./").rstrip("/") for p in chosen.inputs or ("",)]
        if any(p in manifest.ALL or any(char in p for char in "*?[") for p in patterns):
            return files_of_tree
        if self._index is None or self._index[0] is not files_of_tree:
            by_path = {row[0]: row for row in files_of_tree}
            self._index = (files_of_tree, by_path, sorted(by_path))
        _, by_path, paths = self._index
        found = [by_path[path] for path in patterns if path in by_path]
        for pattern in patterns:
            first, last = (bisect_left(paths, pattern + end) for end in ("/", AFTER_SLASH))
            found += [by_path[path] for path in paths[first:last]]
        return found

    def inputs(self, chosen: Selection, step: str) -> str:
        """Give the manifest digest of a step's inputs. Raises SourceUnusable."""
        named = [row[:4] for row in self._named(chosen)]
        name = digest.of_value("repro/selected", [chosen.name, named])
        known = self.memo["derived"].get(name)
        if known is None:
            known = manifest.of(self.selected(chosen, step))
            self.memo["derived"][name] = known
            self.changed = True
        return str(known)

    def _named(self, chosen: Selection) -> list[list[Any]]:
        """Look at the files that inputs name without a glob, reading only what has changed."""
        found: list[list[Any]] = []
        memory = self.memo["named"]
        for pattern in chosen.inputs or ():
            path = pattern.removeprefix("./").rstrip("/")
            if any(char in path for char in "*?[") or not manifest.is_inside(path):
                continue
            known = memory.get(path, {"rows": [], "seen_ns": 0})
            before = {row[0]: row for row in known["rows"]}
            seen_ns = now_ns()
            rows = [
                row(self.root, name, before.get(name), known["seen_ns"])
                for name in _below(self.root, path)
            ]
            settled = [one for one in rows if one is not None]
            if were_read(settled, before):
                memory[path] = {"rows": settled, "seen_ns": seen_ns}
                self.changed = True
            found += settled
        return found

    def read(self, path: str) -> bytes | None:
        """Give a regular file by its path relative to the project, None where there is none."""
        place = os.path.join(self.root, path)
        return files.read(place) if os.path.isfile(place) else None

    def materialize(self, entries: Iterable[Entry], folder: str) -> None:
        """Copy files into `folder`, each checked against its digest on the way.

        Raises SourceUnusable if one is not any more what it was.
        """
        for entry in entries:
            target = os.path.join(folder, entry.path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if entry.kind == "link":
                os.symlink(entry.content, target)
            elif _copy(os.path.join(self.root, entry.path), target, entry) != entry.content:
                raise SourceUnusable(
                    f"`{entry.path}` changed while the step was being prepared",
                    hints=["run again when the file is at rest"],
                )

    # -- the project

    def project(self, load: Loader) -> Project:
        """Give the project, decoded by `load` unless the files it was decoded from are the same.

        `load` gives the project and the paths that it read.
        """
        known = self.memo.get("project")
        if known is not None and self._still_holds(known):
            try:
                project: Project = value.load(known["project"], spec.CLASSES)
            except (KeyError, TypeError):  # of another version of repro
                pass
            else:
                self._bind(known)
                return project
        started = now_ns()
        project, paths = load(self)
        contents = self._contents()
        outside = [path for path in paths if path not in contents]
        known = {
            "project": value.dump(project),
            "read_ns": started,
            "outside": [[path, *_facts(os.path.join(self.root, path))] for path in outside],
            "inside": [[path, contents[path]] for path in paths if path in contents],
            "names": _project_names(contents),
            "whole": spec.installs_itself(project),
        }
        self._bind(known)
        return project

    def knows_project(self) -> bool:
        """Say whether `project` would give what it gave the last time."""
        known = self.memo.get("project")
        return known is not None and self._still_holds(known)

    def _still_holds(self, known: dict[str, Any]) -> bool:
        """Say whether all that a project was decoded from is as it was.

        What is read but is no file of the tree is elsewhere, behind a link, ignored or not there.
        """
        for path, *facts in known["outside"]:
            if not _holds(os.path.join(self.root, path), facts, known["read_ns"]):
                return False
        if known["tree"] == self.memo["tree"]:
            return True
        contents = self._contents()
        return (
            not known["whole"]
            and known["names"] == _project_names(contents)
            and all(contents.get(path) == content for path, content in known["inside"])
        )

    def _bind(self, known: dict[str, Any]) -> None:
        if known.get("tree") != self.memo["tree"]:
            known["tree"] = self.memo["tree"]
            self.memo["project"] = known
            self.changed = True

    def _contents(self) -> dict[str, str]:
        return {row[0]: row[2] for row in self.memo["files"] if row[1] in ("file", "exec")}

    def remember(self) -> None:
        """Write the memo if anything was learned."""
        if self.changed:
            self.memos.put("folder", self.root, self.memo)
            self.changed = False

    # -- scanning

    def _differ(self, memo: dict[str, Any], suspects: list[int]) -> bool:
        """Look into the files whose state changed; say whether any has other content."""
        started = now_ns()
        for index in suspects:
            row = memo["files"][index]
            now = _row(self.root, row[0])
            if now is None or now[1:4] != row[1:4]:
                return True
            memo["files"][index] = now
        if suspects:
            # the others were trusted under the older, stricter time: it stays for them
            memo["fresh_ns"] = {
                **{k: v for k, v in memo["fresh_ns"].items() if int(k) not in suspects},
                **{str(index): started for index in suspects},
            }
            self.changed = True
        return False

    def _scan_anew(self) -> None:
        from repro.fetch import listing

        started = now_ns()
        found = listing.of(self.root, avoid=self.avoid)
        known = {
            row[0]: (row, self._seen_ns(i)) for i, row in enumerate(self.memo.get("files", ()))
        }
        rows = [self._known_or_read(path, known) for path in found.files]
        tree = [row for row in rows if row is not None]
        digest_now = manifest.of(
            Entry(path=row[0], kind=row[1], content=row[2], size=row[3]) for row in tree
        )
        same = self.memo.get("tree") == digest_now
        self.memo = {
            "format": FORMAT,
            "scanned_ns": started,
            "fresh_ns": {},
            "caller": _caller(),
            "guards": [[path, *_facts(path)] for path in found.guards],
            "folders": [[path, *_facts(os.path.join(self.root, path))] for path in found.folders],
            "files": tree,
            "tree": digest_now,
            "git": found.git,
            "project": self.memo.get("project"),
            "derived": self.memo.get("derived", {}) if same else {},
            "named": self.memo.get("named", {}),
        }
        self.changed = True

    def _seen_ns(self, index: int) -> int:
        fresh = self.memo["fresh_ns"].get(str(index))
        return int(fresh if fresh is not None else self.memo["scanned_ns"])

    def _known_or_read(self, path: str, known: dict[str, Any]) -> list[Any] | None:
        before, seen_ns = known.get(path, (None, 0))
        return row(self.root, path, before, seen_ns)


def _suspects(root: str, memo: dict[str, Any]) -> list[int] | None:
    """Give the files whose state is not surely the same; None where the listing may differ."""
    scanned = memo["scanned_ns"]
    if memo["caller"] != _caller():
        return None
    for path, *facts in memo["guards"]:
        if not _holds(path, facts, scanned):
            return None
    for path, *facts in memo["folders"]:
        if not _holds(os.path.join(root, path), facts, scanned):
            return None
    found = []
    fresh = memo["fresh_ns"]
    prefix = root + "/"
    for index, row in enumerate(memo["files"]):
        status = _lstat(prefix + row[0])
        if status is None:
            return None
        seen = fresh.get(str(index), scanned) if fresh else scanned
        state = files.state(status)
        if state != row[4:] or files.is_racy(state, seen):
            found.append(index)
    return found


def _entries(rows: Iterable[list[Any]]) -> tuple[Entry, ...]:
    return tuple(Entry(path=r[0], kind=r[1], content=r[2], size=r[3]) for r in rows)


def _below(root: str, path: str) -> Iterator[str]:
    """Give a file or link, or every file and link below a folder, in one order."""
    place = os.path.join(root, path)
    if os.path.islink(place) or not os.path.isdir(place):
        yield path
        return
    for base, folders, found in os.walk(place):
        folders[:] = sorted(name for name in folders if name not in NEVER)
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in sorted(name for name in (*found, *links) if not is_half(name)):
            yield os.path.relpath(os.path.join(base, name), root)


def _project_names(contents: dict[str, str]) -> list[str]:
    """Give the files that could be the MLproject file or a lock file."""
    return sorted(
        n
        for n in contents
        if ("/" not in n and n.lower().startswith("mlproject")) or names.is_lock(n)
    )


def now_ns() -> int:
    """Give the time at which files are looked at, for `row`."""
    return time.time_ns()


def row(root: str, path: str, known: list[Any] | None, seen_ns: int) -> list[Any] | None:
    """Give a file as path, kind, content, size and state; `known` saves reading it again.

    `known` is an earlier answer, `seen_ns` the time just before it was made. None for what is
    neither file nor link.
    """
    if known is not None:
        status = _lstat(os.path.join(root, path))
        state = files.state(status) if status else []
        if state == known[4:] and not files.is_racy(state, seen_ns):
            return known
    return _row(root, path)


def were_read(rows: list[list[Any]], before: dict[str, list[Any]]) -> bool:
    """Say whether some of the answers of `row` are not those from before."""
    return len(rows) != len(before) or any(one is not before.get(one[0]) for one in rows)


def _facts(path: str) -> list[int]:
    """Give the state of a file or folder as far as its content goes; of nothing: nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return files.state(status)[:5]


def _holds(path: str, facts: list[int], seen_ns: int) -> bool:
    """Say whether a file or folder surely has the content that it had with these facts."""
    return _facts(path) == facts and not (facts and files.is_racy(facts, seen_ns))


def _caller() -> list[Any]:
    """Give what of the caller decides which files Git ignores."""
    environ = os.environ
    return [_has_git(), environ.get("HOME", ""), environ.get("XDG_CONFIG_HOME", "")]


def _has_git() -> bool:
    folders = os.environ.get("PATH", "").split(os.pathsep)
    return any(os.access(os.path.join(folder, "git"), os.X_OK) for folder in folders if folder)


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _row(root: str, path: str) -> list[Any] | None:
    """Read one file: path, kind, content, size and state. None for what is no file or link."""
    place = os.path.join(root, path)
    status = _lstat(place)
    if status is None:
        return None
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(place)
        return [path, "link", target, len(os.fsencode(target)), *files.state(status)]
    if not stat.S_ISREG(status.st_mode):
        return None
    for _attempt in range(3):
        before, content, after = _hash(place)
        if files.state(before) == files.state(after) and stat.S_ISREG(after.st_mode):
            kind = "exec" if after.st_mode & 0o100 else "file"
            return [path, kind, content, after.st_size, *files.state(after)]
    raise SourceUnusable(
        f"`{path}` changes while it is read", hints=["run again when the file is at rest"]
    )


def _hash(place: str) -> tuple[os.stat_result, str, os.stat_result]:
    try:
        fd = os.open(place, OPEN)
    except OSError as error:
        raise SourceUnusable(
            f"`{place}` cannot be read: {(error.strerror or '').lower()}",
            hints=["make it readable, or ignore it in Git"],
        ) from None
    try:
        before = os.fstat(fd)
        return before, digest.of_chunks(files.chunks(fd)), os.fstat(fd)
    finally:
        os.close(fd)


def _copy(place: str, target: str, entry: Entry) -> str:
    """Copy one file and give the digest of what was copied."""
    try:
        source_fd = os.open(place, OPEN)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(source_fd).st_mode):
            return ""
        mode = 0o755 if entry.kind == "exec" else 0o644
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            hasher = digest.stream()
            for piece in files.chunks(source_fd):
                hasher.update(piece)
                files.write_all(fd, piece)
            return hasher.hexdigest()
        finally:
            os.close(fd)
    finally:
        os.close(source_fd)

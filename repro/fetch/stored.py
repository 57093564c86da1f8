"""A project whose files are all in the store: fetched from Git or a zip archive."""

from __future__ import annotations

from repro import manifest, source, spec, value
from repro.errors import SourceUnusable
from repro.store.blobs import BlobMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from repro.manifest import Entry
    from repro.source import Selection, Source
    from repro.spec import Project
    from repro.store.blobs import Blobs
    from repro.store.memos import Memos

    Loader = Callable[["Stored"], tuple[Project, tuple[str, ...]]]


class Stored:
    """A fetched project, of which `whole` is the manifest of all that was fetched.

    The project may be a subdirectory; only environment files are read from outside of it.
    """

    def __init__(
        self, found: Source, whole: str, blobs: Blobs, memos: Memos, again: Callable[[], object]
    ) -> None:
        """Name what was fetched; nothing is read before it is needed.

        `again` brings the files into the store once more: one that is long known may have lost
        them, as the store is only a cache.
        """
        self.source = found
        self.whole = whole
        self.blobs = blobs
        self.memos = memos
        self.again = again
        self.subject = f"{whole}#{found.subdirectory}"
        self.memo: dict[str, Any] = memos.get("stored", self.subject) or {"derived": {}}
        self.changed = False
        self._all: dict[str, Entry] | None = None

    def _everything(self) -> dict[str, Entry]:
        if self._all is None:
            self._all = {e.path: e for e in manifest.decode(self._blob(self.whole))}
        return self._all

    def _blob(self, name: str) -> bytes:
        try:
            return self.blobs.get(name)
        except BlobMissing:
            self.again()
            return self.blobs.get(name)

    def entries(self) -> tuple[Entry, ...]:
        """Give all files of the project."""
        prefix = f"{self.source.subdirectory}/" if self.source.subdirectory else ""
        return tuple(
            value.replace(entry, path=path[len(prefix) :])
            for path, entry in self._everything().items()
            if path.startswith(prefix)
        )

    def digest(self) -> str:
        """Give the tree digest of the project."""
        known = self.memo.get("tree")
        if known is None:
            known = manifest.of(self.entries())
            self.memo["tree"] = known
            self.changed = True
        return str(known)

    def selected(self, chosen: Selection, step: str) -> tuple[Entry, ...]:
        """Give the inputs of a step. Raises SourceUnusable."""
        return source.select(self.entries(), chosen, step)

    def inputs(self, chosen: Selection, step: str) -> str:
        """Give the manifest digest of a step's inputs. Raises SourceUnusable."""
        known = self.memo["derived"].get(chosen.name)
        if known is None:
            known = manifest.of(self.selected(chosen, step))
            self.memo["derived"][chosen.name] = known
            self.changed = True
        return str(known)

    def read(self, path: str) -> bytes | None:
        """Give a regular file by its path relative to the project, None where there is none."""
        parts: list[str] = []
        for part in f"{self.source.subdirectory}/{path}".split("/"):
            if part == ".." and not parts:
                return None
            if part == "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        entry = self._everything().get("/".join(parts))
        is_file = entry is not None and entry.kind in ("file", "exec") and not path.startswith("/")
        return self._blob(entry.content) if is_file and entry else None

    def materialize(self, entries: Iterable[Entry], folder: str) -> None:
        """Write files into `folder`, each checked against its digest on the way."""
        for entry in sorted(entries, key=lambda entry: entry.kind == "link"):
            try:
                self.blobs.write((entry,), folder)
            except BlobMissing:
                self.again()
                self.blobs.write((entry,), folder)

    def project(self, load: Loader) -> Project:
        """Give the project, decoded by `load` unless it is known."""
        if "project" in self.memo:
            try:
                project: Project = value.load(self.memo["project"], spec.CLASSES)
            except (KeyError, TypeError):  # of another version of repro
                pass
            else:
                return project
        project, _outside = load(self)
        self.memo["project"] = value.dump(project)
        self.changed = True
        return project

    def knows_project(self) -> bool:
        """Say whether `project` would give what it gave the last time."""
        return "project" in self.memo

    def remember(self) -> None:
        """Write the memo if anything was learned."""
        if self.changed:
            self.memos.put("stored", self.subject, self.memo)
            self.changed = False


def keep(entries: list[Entry], blobs: Blobs) -> str:
    """Put the manifest of fetched entries into the store. Raises SourceUnusable."""
    for entry in entries:
        fault = manifest.fault_of(entry)
        if fault or ".git" in entry.path.lower().split("/"):
            raise SourceUnusable(f"{entry.path!r} is {fault or 'a path inside of .git'}")
    clash = manifest.clash(entries)
    if clash:
        raise SourceUnusable(f"{clash!r} stands there twice, or as a file and as a folder")
    whole = blobs.put(manifest.encode(entries))
    blobs.sync()
    return whole

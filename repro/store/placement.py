"""Outputs put where the user wants them: whole, at once, and never over the user's own work."""

from __future__ import annotations

import os
import stat
import time
from _thread import RLock

from repro import digest
from repro.errors import SourceUnusable
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.manifest import Entry
    from repro.store.blobs import Blobs
    from repro.store.home import Home
    from repro.store.memos import Memos

KIND = "placed"
MOST = 1 << 20
"""Bytes beside the memory after which it is written as a whole."""
FOLDER_FACTS = 2
MARGIN_NS = 1_000_000
HALF = "~repro"
HALF_LENGTH = 19
HEX = frozenset("0123456789abcdef")
SECOND_NS = 1_000_000_000


class Placed(Value):
    """What became of outputs: paths that were written, were right already, or were kept back.

    `saved` are (path, blob) of contents that were overwritten and are kept in the store.
    """

    written: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    saved: tuple[tuple[str, str], ...] = ()


class Placement:
    """The outputs in one folder, and the memory of which of its files repro wrote."""

    def __init__(self, root: str, home: Home, blobs: Blobs, memos: Memos) -> None:
        """Name the folder; its memory is read at once."""
        self.root = root
        self.home = home
        self.blobs = blobs
        self.memos = memos
        self.memory = self._remembered()
        self.by_step: dict[str, set[str]] | None = None
        self.noted: set[str] = set()
        self.unwritten: set[str] = set()
        self.is_settled = False
        self.tidied: set[str] = set()
        self.guard = RLock()  # steps that run at the same time write into the same folder

    def made_by(self, *steps: str) -> Mapping[str, str]:
        """Give the files, with their contents, that earlier runs of some steps put here."""
        if self.by_step is None:
            self.by_step = {}
            for path, row in self.memory.items():
                self._assign(path, row)
        paths = set().union(*(self.by_step.get(step, ()) for step in steps))
        return {path: self.memory[path]["content"] for path in sorted(paths)}

    def _assign(self, path: str, row: Mapping[str, Any]) -> None:
        if self.by_step is not None:
            for step in row["steps"]:
                self.by_step.setdefault(step, set()).add(path)

    def in_place(self, entries: Iterable[Entry]) -> bool:
        """Say whether all outputs stand here as they were written, by the state of the files.

        The state includes the change time, which no program can set back.
        """
        for entry in entries:
            row = self.memory.get(entry.path)
            if row is None or row["content"] != entry.content or row["kind"] != entry.kind:
                return False
            place = os.path.join(self.root, entry.path)
            if row["state"] != _state(place):
                return False
            if row["racy"] and _seen(place)[0] != (entry.kind, entry.content):
                return False
        return True

    def announce(self, entries: Iterable[Entry], step: str) -> None:
        """Remember what is about to be written: if we are killed half-way, it is known as ours."""
        for entry in entries:
            before = self.memory.get(entry.path, {}).get("content", "")
            if before != entry.content:
                row = {"before": before, "state": [], "racy": True, "steps": [step]}
                self._learn(entry, row)
        self.remember()

    def place(
        self, entries: Iterable[Entry], step: str, *, known: Mapping[str, str], since_ns: int
    ) -> Placed:
        """Write outputs here, each whole and at once.

        `known` are the contents that the step's own inputs had: what it changed may be replaced.
        A file of other content that changed after `since_ns` is not touched; one that was there
        before is replaced after its bytes went into the store.

        Raises BlobMissing; SourceUnusable for an output whose folder is a link or a file.
        """
        written, right, conflicts, saved = [], [], [], []
        for entry in entries:
            target = os.path.join(self.root, entry.path)
            there, state = _seen(target)
            if there == (entry.kind, entry.content):
                right.append(entry.path)
                self._note(entry, step, state)
                continue
            if there is not None and not self._is_ours(entry.path, there[1], known):
                if os.lstat(target).st_ctime_ns > since_ns:
                    conflicts.append(entry.path)
                    continue
                if there[0] in ("file", "exec"):
                    saved.append((entry.path, self.blobs.put_file(target)[0]))
            self._write(entry, target)
            self._note(entry, step, _state(target))
            written.append(entry.path)
        return Placed(
            written=tuple(written),
            right=tuple(right),
            conflicts=tuple(conflicts),
            saved=tuple(saved),
        )

    def share(self, entries: Iterable[Entry], step: str) -> None:
        """Remember that outputs of another step which stand here are those of `step` as well."""
        with self.guard:
            for entry in entries:
                there, state = _seen(os.path.join(self.root, entry.path))
                if there == (entry.kind, entry.content):
                    self._note(entry, step, state)
            self.remember()

    def remember(self) -> None:
        """Write what was learned since the last time; after `settle`, the whole memory.

        While steps are at work, little is written for each, however large the memory is.
        """
        if not self.unwritten and not self.is_settled:
            return
        with self.home.lock(f"placed-{digest.of_value('repro/placed', self.root)[:16]}"):
            if not self.is_settled:
                rows = {path: self.memory[path] for path in sorted(self.unwritten)}
                self.is_settled = self.memos.add(KIND, self.root, rows) > MOST
            if self.is_settled:
                self._write_whole()
        self.unwritten.clear()

    def _write_whole(self) -> None:
        """Write the memory together with what other processes have learned meanwhile."""
        known = self._remembered()
        _merge(known, {path: self.memory[path] for path in self.noted})
        self.memory, self.by_step, self.is_settled = known, None, False
        if self.memos.put(KIND, self.root, known):
            self.memos.drop_added(KIND, self.root)

    def _remembered(self) -> dict[str, Any]:
        added = self.memos.added(KIND, self.root)  # first: it may be about to become the memo
        known: dict[str, Any] = self.memos.get(KIND, self.root) or {}
        for rows in added:
            _merge(known, rows)
        return known

    def _is_ours(self, path: str, content: str, known: Mapping[str, str]) -> bool:
        row = self.memory.get(path)
        ours = (row["content"], row.get("before")) if row else ()
        return known.get(path) == content or content in ours

    def _note(self, entry: Entry, step: str, state: list[int]) -> None:
        row = self.memory.get(entry.path)
        steps = {step, *(row["steps"] if row and row["content"] == entry.content else ())}
        self._learn(entry, {"state": state, "racy": _racy(state), "steps": sorted(steps)})

    def _learn(self, entry: Entry, facts: dict[str, Any]) -> None:
        row = {"kind": entry.kind, "content": entry.content, **facts}
        if self.by_step is not None:
            for step in self.memory.get(entry.path, row)["steps"]:
                self.by_step.get(step, set()).discard(entry.path)
            self._assign(entry.path, row)
        self.noted.add(entry.path)
        self.unwritten.add(entry.path)
        self.memory[entry.path] = row

    def settle(self) -> None:
        """Wait until a later change of what was just written cannot go unnoticed."""
        racy = [path for path in self.noted if self.memory[path]["racy"]]
        if racy:
            now = time.time_ns()
            newest = max(max(self.memory[path]["state"][3:5], default=now) for path in racy)
            rest = newest + files.TICK_NS + MARGIN_NS - now
            time.sleep(max(0, min(rest, 2 * files.TICK_NS)) / 1e9)
        for path in racy:
            row = self.memory[path]
            there, state = _seen(os.path.join(self.root, path))
            if there == (row["kind"], row["content"]):
                row["state"], row["racy"] = state, _racy(state)
        self.is_settled = True

    def _write(self, entry: Entry, target: str) -> None:
        folder = os.path.dirname(target)
        self._make_folder(os.path.dirname(entry.path))
        if entry.kind == "dir":
            if os.path.islink(target) or not os.path.isdir(target):
                files.unlink(target)
            os.makedirs(target, exist_ok=True)
            return
        half = os.path.join(folder, f".{os.urandom(6).hex()}{HALF}")
        try:
            if entry.kind == "link":
                os.symlink(entry.content, half)
            else:
                self.blobs.copy(entry.content, half, 0o755 if entry.kind == "exec" else 0o644)
            if os.path.isdir(target) and not os.path.islink(target):
                raise SourceUnusable(
                    f"the output `{entry.path}` cannot be written: a folder stands there",
                    hints=["move it away and run again"],
                )
            os.replace(half, target)
        finally:
            files.unlink(half)

    def _make_folder(self, path: str) -> None:
        """Make the folders of an output; links among them are followed only inside the root."""
        place = os.path.join(self.root, path)
        try:
            os.makedirs(place, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise SourceUnusable(
                f"the outputs below `{path}` cannot be written: a file stands there",
                hints=["move it away and run again"],
            ) from None
        root = os.path.realpath(self.root)
        if os.path.commonpath([root, os.path.realpath(place)]) != root:
            raise SourceUnusable(
                f"the outputs below `{path}` would be written outside of the project",
                hints=["a link on the way leads out of it: remove the link"],
            )
        if place not in self.tidied:
            self.tidied.add(place)
            _tidy(place)


def is_half(name: str) -> bool:
    """Say whether a file has the name of an output that is being written, or never was whole."""
    if not name.endswith(HALF) or len(name) != HALF_LENGTH or name[0] != ".":
        return False
    return HEX.issuperset(name[1 : -len(HALF)])


def _merge(known: dict[str, Any], rows: Mapping[str, Any]) -> None:
    """Add later rows of a memory; who made the same content before has made it still."""
    for path, row in rows.items():
        other = known.get(path)
        if other and other["content"] == row["content"]:
            row["steps"] = sorted({*row["steps"], *other["steps"]})
        known[path] = row


def _tidy(folder: str) -> None:
    """Remove what a process that was killed has left half-written in a folder of outputs.

    Who is at work holds a lock on it until shortly before it gets its own name.
    """
    for name in os.listdir(folder):
        if is_half(name):
            place = os.path.join(folder, name)
            state = files.state_of(place)
            is_old = bool(state) and state[4] < time.time_ns() - SECOND_NS
            if is_old and (os.path.islink(place) or not files.is_held(place)):
                files.unlink(place)


def _seen(path: str) -> tuple[tuple[str, str] | None, list[int]]:
    """Give kind and content of what stands at a path, and the state in which it was read.

    The state is empty, and so never found again, if the file changed while it was read.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, []
    before = _state(path)
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path)), before
    if stat.S_ISDIR(status.st_mode):
        return ("dir", ""), before
    if not stat.S_ISREG(status.st_mode):
        return ("special", ""), before
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        kind = "exec" if status.st_mode & 0o100 else "file"
        content = digest.of_chunks(files.chunks(fd))
    finally:
        os.close(fd)
    return (kind, content), before if _state(path) == before else []


def _racy(state: list[int]) -> bool:
    """Say whether a file may change again without another time stamp. A folder never is."""
    if len(state) <= FOLDER_FACTS:
        return not state
    return files.is_racy(state, time.time_ns())


def _state(path: str) -> list[int]:
    """Give the state of an output; of a folder that it is the same one: it may get other files."""
    found = files.state_of(path)
    return found[:FOLDER_FACTS] if found and stat.S_ISDIR(found[-1]) else found

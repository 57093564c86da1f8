"""What a step made: the difference between its folder before and after."""

from __future__ import annotations

import os
import stat

from repro import digest, manifest
from repro.errors import OutputMissing, ReproError
from repro.manifest import Entry
from repro.store.placement import is_half
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from repro.spec import EntryPoint
    from repro.store.blobs import Blobs

CHUNK = 1 << 20
CHANGED = [-1]
IGNORED = ("__pycache__", ".git")


class OutputRefused(ReproError):
    """A step made something that no tree can hold."""

    code = "output-refused"


class Shape(Value):
    """The outputs of a step, and the files that it made without declaring them."""

    outputs: tuple[Entry, ...] = ()
    undeclared: tuple[str, ...] = ()


class Capture:
    """Compares a folder with the inputs that were put into it."""

    def __init__(
        self,
        root: str,
        inputs: Iterable[Entry],
        entry: EntryPoint | None,
        *,
        begun: bool = False,
    ) -> None:
        """Note the state of every input, which has to be as it was put there.

        Where the command may have `begun`, the inputs are read, to see which still are.
        """
        self.root = root
        self.entry = entry
        self.inputs = {e.path: e for e in inputs}
        self.before = {path: files.state_of(os.path.join(root, path)) for path in self.inputs}
        self.folders = {path for path, is_folder in _walk(root) if is_folder}
        if begun:
            self.folders = {folder for path in self.inputs for folder in _above(path)}
            for path in self.inputs:
                if not self._is_as_given(path):
                    self.before[path] = CHANGED

    def is_untouched(self, path: str) -> bool:
        """Say whether a file is an input that has not been changed."""
        known = self.before.get(path)
        return bool(known) and known == files.state_of(os.path.join(self.root, path))

    def _is_as_given(self, path: str) -> bool:
        try:
            now = self._entry(path, _hashed, is_folder=self.inputs[path].kind == "dir")
        except (OSError, OutputRefused):
            return False
        return now == self.inputs[path]

    def supplied(self, entries: Iterable[Entry]) -> None:
        """Take note of files that others have written into the folder.

        Where the step declares its outputs, those that it does not are none of its own.
        """
        if self.entry is None or self.entry.outputs is None:
            return
        is_output = manifest.matcher(self.entry.outputs)
        for entry in entries:
            if not is_output(entry.path):
                self.inputs[entry.path] = entry
                self.before[entry.path] = files.state_of(os.path.join(self.root, entry.path))

    def outputs(self, blobs: Blobs) -> Shape:
        """Take what was made or changed into the store.

        Raises OutputMissing for a declared output that is not there, OutputRefused for devices,
        sockets, pipes and links that leave the folder.
        """
        declared = self.entry.outputs if self.entry else None
        is_output = manifest.matcher(declared) if declared is not None else lambda _path: True
        found, undeclared = [], []
        for path, is_folder in _walk(self.root):
            if is_folder and (path in self.folders or os.listdir(os.path.join(self.root, path))):
                continue
            if not is_folder and self.before.get(path) == files.state_of(
                os.path.join(self.root, path)
            ):
                continue
            if not is_output(path):
                undeclared.append(path)
                continue
            entry = self._entry(path, blobs.put_file, is_folder=is_folder)
            if entry != self.inputs.get(path):
                found.append(entry)
        if self.entry:
            found = [e for e in found if not self._is_mount(e.path)]
            self._check_declared(declared or (), found)
        return Shape(outputs=tuple(found), undeclared=tuple(undeclared))

    def _entry(self, path: str, put: Callable[[str], tuple[str, int]], *, is_folder: bool) -> Entry:
        place = os.path.join(self.root, path)
        if is_folder:
            return Entry(path=path, kind="dir")
        status = os.lstat(place)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(place)
            if not manifest.link_stays(path, target) and not self._is_mount(path):
                raise OutputRefused(
                    f"the output `{path}` is a link that leaves the project, to `{target}`"
                )
            return Entry(path=path, kind="link", content=target, size=len(os.fsencode(target)))
        if not stat.S_ISREG(status.st_mode):
            raise OutputRefused(f"the output `{path}` is a device, pipe or socket, not a file")
        content, size = put(place)
        kind = "exec" if status.st_mode & 0o100 else "file"
        return Entry(path=path, kind=kind, content=content, size=size)

    def _is_mount(self, path: str) -> bool:
        return self.entry is not None and any(m.target == path for m in self.entry.mounts)

    def _check_declared(self, declared: Iterable[str], found: list[Entry]) -> None:
        for pattern in declared:
            if not any(map(manifest.matcher((pattern,)), (e.path for e in found))):
                raise OutputMissing(
                    f"the declared output `{pattern}` was not made",
                    hints=["outputs are paths or globs relative to the project folder"],
                )


def _hashed(place: str) -> tuple[str, int]:
    """Give the digest and the size of a file."""
    hasher, size = digest.stream(), 0
    with open(place, "rb") as file:
        while piece := file.read(CHUNK):
            hasher.update(piece)
            size += len(piece)
    return hasher.hexdigest(), size


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _walk(root: str) -> Iterator[tuple[str, bool]]:
    """Give everything below a folder in one order, with whether it is a folder."""
    for base, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if n not in IGNORED)
        inside = os.path.relpath(base, root)
        prefix = "" if inside == "." else inside + "/"
        for name in folders:
            yield prefix + name, not os.path.islink(os.path.join(base, name))
        for name in sorted(names):
            if not is_half(name):
                yield prefix + name, False

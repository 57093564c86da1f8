"""Unpacked wheels in the store, each once, from which environments are made by hard links.

    wheels/<SHA-256>/wheel           the file as it was published
    wheels/<SHA-256>/<abi>/          its tree, with the byte-code of one kind of Python
    wheels/<SHA-256>/<abi>.json      what is in the tree: written last, so what has one is complete
    locks/wheel-<SHA-256>            held by who makes, links or removes it

Nothing but repro writes here, and no file can be written to. A file is linked only while it is as
it was left, by its state, which holds the change time that no program can set back; else it is
hashed, and if it is another, its wheel is unpacked again, whose own hash stands in the lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from repro import digest
from repro.environments import downloads, states, urls
from repro.environments.placing import PLACEHOLDER, Placing
from repro.environments.unpacking import Tree, settle, unpack
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from repro.environments.interpreters import Python
    from repro.environments.states import Inode
    from repro.environments.tools import Session
    from repro.lock import Artifact

FORMAT = 1
WORKERS = 8
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, maxlevels=99)"
UNLINKABLE = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class Damaged(Exception):
    """A file of a tree is not what it was."""


class WheelStore:
    """The unpacked wheels below the store `home`; local wheels lie below `root`."""

    def __init__(self, home: str, environ: Mapping[str, str], root: str) -> None:
        """Touch nothing yet."""
        self._home = home
        self._environ = environ
        self._root = root

    def install(
        self, artifacts: Iterable[Artifact], prefix: str, python: Python, session: Session
    ) -> dict[Inode, str]:
        """Put wheels into the virtual environment at `prefix`, which is one of `python`.

        Gives the digests of all files that were linked, by device and inode: they need not be read.
        Raises EnvironmentFailed for other bytes than the locked ones, Unreachable, and OSError.
        """
        chosen = sorted(artifacts, key=lambda a: a.name)
        made = [_Unpacked(self._home, artifact, python) for artifact in chosen]
        with ThreadPoolExecutor(WORKERS) as pool:
            waiting = [pool.submit(self._ensure, one, session) for one in made]
            try:
                for ensured in waiting:
                    ensured.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        placing = Placing(prefix, python.identity)
        for one in made:  # one after the other: of two files in one place, the last counts
            self._place(one, placing, session)
        return {inode: found for one in made for inode, found in one.placed}

    def _ensure(self, one: _Unpacked, session: Session) -> None:
        with _held(one.lock()):
            if not one.is_complete():
                self._make(one, session)

    def _place(self, one: _Unpacked, placing: Placing, session: Session) -> None:
        with _held(one.lock()):
            try:
                one.place(placing)
            except Damaged:
                self._make(one, session)
                one.place(placing)

    def _make(self, one: _Unpacked, session: Session) -> None:
        """Fetch, unpack and compile a wheel."""
        one.discard()
        os.makedirs(one.folder, mode=0o700, exist_ok=True)
        folder = os.path.join(session.folder, f"wheel-{one.artifact.digest[:16]}")
        files.remove_tree(folder)
        os.makedirs(os.path.join(folder, "site"))
        if not one.has_wheel():
            fetched = os.path.join(session.folder, f"{one.artifact.digest[:16]}.whl")
            url = urls.placed(one.artifact.url, self._root)
            try:
                downloads.fetch(one.artifact, url, fetched, self._environ)
                os.replace(fetched, one.wheel)
            finally:
                files.unlink(fetched)
        tree = unpack(one.wheel, folder, one.artifact)
        one.adopt(tree, folder)


class _Unpacked:
    """One wheel in the store, for one kind of Python."""

    def __init__(self, home: str, artifact: Artifact, python: Python) -> None:
        self.artifact = artifact
        self.folder = os.path.join(home, "wheels", artifact.digest)
        self.wheel = os.path.join(self.folder, "wheel")
        self.tree = os.path.join(self.folder, python.identity.abi)
        self.placed: list[tuple[Inode, str]] = []
        self._manifest = f"{self.tree}.json"
        self._python = python
        self._home = home

    def lock(self) -> files.Lock:
        return _lock(self._home, self.artifact.digest)

    def is_complete(self) -> bool:
        return bool(self._known())

    def has_wheel(self) -> bool:
        """Say whether the file is there, as it was locked."""
        try:
            fd = os.open(self.wheel, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return digest.of_chunks(files.chunks(fd)) == self.artifact.digest
        finally:
            os.close(fd)

    def discard(self) -> None:
        files.unlink(self._manifest)
        files.remove_tree(self.tree)

    def adopt(self, tree: Tree, folder: str) -> None:
        """Compile the tree in `folder` and take it."""
        compiled = [*self._compiled(os.path.join(folder, "site"))]
        os.rename(folder, self.tree)
        entries = [
            [path, sha256, size, executable, files.state_of(os.path.join(self.tree, path))]
            for path, sha256, size, executable in (*tree.files, *compiled)
        ]
        self._write({"described": tree.described, "scripts": tree.scripts, "files": entries})

    def place(self, placing: Placing) -> None:
        """Link all files into an environment. Raises Damaged."""
        known = self._known()
        if not known:
            raise Damaged
        self._check(known)
        paths = placing.begin(self.artifact, known["described"])
        for entry in known["files"]:
            source = f"{self.tree}/{entry[0]}"
            text = _open_script(source) if entry[0].startswith("scripts/") else b""
            if text and digest.of_bytes(text) != entry[1]:
                raise Damaged
            if text:
                paths.script(entry[0], text)
            else:
                entry[4] = self._linked(source, entry, paths.target(entry[0], entry[1], entry[2]))
        paths.close(known["scripts"])
        self.placed = [((entry[4][0], entry[4][1]), entry[1]) for entry in known["files"]]
        self._write(known)

    def _check(self, known: dict[str, Any]) -> None:
        """See that all files are what they were; their states are right then. Raises Damaged."""
        same = known.get("boot") == states.boot() != ""
        doubtful = []
        for entry in known["files"]:
            state = files.state_of(f"{self.tree}/{entry[0]}")
            if state != entry[4] or not same:
                doubtful.append((entry, state))
        found = states.digests([f"{self.tree}/{entry[0]}" for entry, _state in doubtful])
        for (entry, state), content in zip(doubtful, found, strict=True):
            if content != entry[1]:
                raise Damaged
            path, known_state = f"{self.tree}/{entry[0]}", entry[4]
            entry[4] = state
            if state[3::2] != known_state[3::2]:  # its time and mode
                settle(path, executable=entry[3])
                entry[4] = files.state_of(path)

    def _linked(self, source: str, entry: list[Any], target: str) -> list[int]:
        """Link one file that is what it was; give its state, which the link has changed."""
        before = entry[4]
        if not link(source, target):
            copy(source, target, entry[1], executable=entry[3])
        after = files.state(os.lstat(source))
        if after[: states.SAME] != before[: states.SAME]:
            raise Damaged
        return after

    def _compiled(self, site: str) -> Iterator[tuple[str, str, int, bool]]:
        """Compile what can be compiled; give the byte-code files."""
        subprocess.run(
            [self._python.base, "-I", "-c", COMPILE, site],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        for folder, _folders, names in os.walk(site):
            if os.path.basename(folder) != "__pycache__":
                continue
            for name in sorted(names):
                path = os.path.join(folder, name)
                settle(path, executable=False)
                place = os.path.join("site", os.path.relpath(path, site))
                yield place, _sha256(path), os.path.getsize(path), False

    def _known(self) -> dict[str, Any]:
        try:
            found = json.loads(files.read(self._manifest) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) and found.get("format") == FORMAT else {}

    def _write(self, about: dict[str, Any]) -> None:
        about = {**about, "format": FORMAT, "boot": states.boot()}
        data = json.dumps(about, separators=(",", ":")).encode()
        files.replace(self._manifest, data, durable=False)


@contextlib.contextmanager
def _held(lock: files.Lock) -> Iterator[None]:
    """Hold a lock; on a full disk taking it may fail when it is held already."""
    try:
        lock.take()
        yield
    finally:
        lock.free()


def link(source: str, target: str) -> bool:
    """Link a file, over one that is there; say whether that could be done."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        os.unlink(target)
        return link(source, target)
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        return False
    return True


def copy(source: str, target: str, sha256: str, *, executable: bool) -> None:
    """Copy a file where it cannot be linked. Raises Damaged when it is not what it should be."""
    data = files.read(source)
    if data is None or digest.of_bytes(data) != sha256:
        raise Damaged
    files.unlink(target)
    with open(target, "xb") as file:
        file.write(data)
    settle(target, executable=executable)


def _lock(home: str, name: str) -> files.Lock:
    os.makedirs(os.path.join(home, "locks"), mode=0o700, exist_ok=True)
    return files.Lock(os.path.join(home, "locks", f"wheel-{name[:32]}"))


def _open_script(path: str) -> bytes:
    """Give the text of a script that leaves its interpreter open, nothing for any other file."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        head = file.read(len(PLACEHOLDER))
        return head + file.read() if head == PLACEHOLDER else b""
    return b""


def _sha256(path: str) -> str:
    """Give the digest of a regular file, nothing for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        return digest.of_chunks(files.chunks(fd))
    finally:
        os.close(fd)

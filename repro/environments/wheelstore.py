"""Unpacked wheels in the store, each once, from which environments are made by hard links.

    wheels/<SHA-256>/wheel           the file as it was published
    wheels/<SHA-256>/<abi>/          its tree, with the byte-code of one kind of Python
    wheels/<SHA-256>/<abi>.json      its record: written last, so what has one is complete
    locks/wheel-<SHA-256>            held by who makes, links or removes it

Nothing but repro writes here, and no file can be written to. A file is linked only while it is as
it was left, by its state, which holds the change time that no program can set back; else it is
hashed, and if it is another, its wheel is unpacked again, whose own hash stands in the lock.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

from repro import digest
from repro.environments import urls
from repro.environments.linking import Damaged, is_settled, put, settle
from repro.environments.placing import PLACEHOLDER, Layout, Placing
from repro.environments.states import Record, state_of
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from repro.environments.cache import Stock
    from repro.environments.interpreters import Python
    from repro.environments.tools import Creating, Session
    from repro.environments.treehash import Linked
    from repro.environments.unpacking import Tree
    from repro.lock import Artifact

WORKERS = 8
NOTHING: Creating = contextlib.nullcontext()
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, maxlevels=99)"


class Installed(Value):
    """What was installed: files that were linked, the places of all others, and their packages."""

    known: Linked
    others: Collection[str]
    stock: Stock


class WheelStore:
    """The unpacked wheels below the store `home`; local wheels lie below `root`."""

    def __init__(self, home: str, environ: Mapping[str, str], root: str) -> None:
        """Touch nothing yet."""
        self._home = home
        self._environ = environ
        self._root = root

    def install(
        self,
        artifacts: Iterable[Artifact],
        prefix: str,
        python: Python,
        session: Session,
        creating: Creating = NOTHING,
    ) -> Installed:
        """Put wheels into the virtual environment at `prefix`, which is one of `python`.

        `creating` makes that while the wheels are looked up. Raises EnvironmentFailed for other
        bytes than the locked ones, Unreachable, and OSError.
        """
        chosen = sorted(artifacts, key=lambda a: a.name)
        made = [_Unpacked(self._home, artifact, python) for artifact in chosen]
        placing = Placing(prefix, python.identity)
        with creating:
            self._ensure_all([one for one in made if not one.is_complete()], session)
            groups = [one.look() for one in made]
        known: Linked = {}
        others: set[str] = set()
        with placing.ahead(groups, session):
            for one in made:  # one after the other: of two files in one place, the last counts
                linked, written = self._place(one, placing, session)
                known |= linked
                for place in written & known.keys():
                    del known[place]
                others |= written
        others -= known.keys()
        return Installed(known=known, others=others, stock=[one.stock() for one in made])

    def _ensure_all(self, missing: list[_Unpacked], session: Session) -> None:
        if not missing:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(WORKERS) as pool:
            waiting = [pool.submit(self._ensure, one, session) for one in missing]
            try:
                for ensured in waiting:
                    ensured.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ensure(self, one: _Unpacked, session: Session) -> None:
        with _held(one.lock()):
            if not one.is_complete():
                self._make(one, session)

    def _place(self, one: _Unpacked, placing: Placing, session: Session) -> tuple[Linked, set[str]]:
        with _held(one.lock()):
            self._check(one, session)
            placing.wait()
            try:
                return one.place(placing)
            except Damaged:
                self._make(one, session)
                self._check(one, session)
                return one.place(placing)

    def _check(self, one: _Unpacked, session: Session) -> None:
        """Make sure that the files of a wheel are what they were."""
        try:
            one.check()
        except Damaged:
            self._make(one, session)
            one.check()

    def _make(self, one: _Unpacked, session: Session) -> None:
        """Fetch, unpack and compile a wheel."""
        from repro.environments import downloads
        from repro.environments.unpacking import unpack

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
        self._tree = os.path.join(self.folder, python.identity.abi)
        self._manifest = f"{self._tree}.json"
        self._python = python
        self._home = home

    def record(self) -> Record:
        """Read what is recorded of its files."""
        about = f"{self.artifact.digest} {self._python.identity.abi}"
        return Record(self._manifest, self._tree, about)

    def lock(self) -> files.Lock:
        return _lock(self._home, self.artifact.digest)

    def stock(self) -> tuple[str, str, str]:
        """Say where its record, its tree and its lock are."""
        places = (self._manifest, self._tree, self.lock().path)
        record, tree, lock = (os.path.relpath(place, self._home) for place in places)
        return record, tree, lock

    def is_complete(self) -> bool:
        """Say whether it was; what its record says is looked at when it is placed."""
        return os.path.exists(self._manifest)

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
        files.remove_tree(self._tree)

    def adopt(self, tree: Tree, folder: str) -> None:
        """Compile the tree in `folder` and take it."""
        compiled = [*self._compiled(os.path.join(folder, "site"))]
        os.rename(folder, self._tree)
        found = (*tree.files, *compiled)
        layout = Layout(self._python.identity)
        digests = {path: sha256 for path, sha256, _size, _executable in found}
        places = {path: layout.place(path, self.artifact.name) for path in digests}
        scripts = (path for path in places if path.startswith("scripts/"))
        texts = [path for path in scripts if _open_script(f"{self._tree}/{path}")]
        rows = ((places[p], d, size) for p, d, size, _executable in found if p not in texts)
        notes = {
            "described": tree.described,
            "commands": tree.scripts,
            "programs": [path for path, _sha256, _size, executable in found if executable],
            "texts": texts,
            "places": [*places.values()],
            "rows": layout.rows(rows),
        }
        record = self.record()
        record.adopt(digests, notes)
        record.save()

    def look(self) -> list[str]:
        """Read what is recorded of its files; give their places."""
        self._seen = state_of(self._manifest)
        self._record = self.record()
        return list(self._record.notes.get("places", ()))

    def check(self) -> None:
        """Compare all files with what is recorded. Raises Damaged."""
        if self._seen != state_of(self._manifest):  # somebody else linked it since `look`
            self.look()
        if not self._record.digests or self._record.damaged():
            raise Damaged
        self._settle(self._record)

    def place(self, placing: Placing) -> tuple[Linked, set[str]]:
        """Put all files into an environment, after a check.

        Gives the linked ones, and the places of all others. Raises Damaged.
        """
        record = self._record
        notes = record.notes
        places = dict(zip(record.digests, notes["places"], strict=True))
        texts = [(places.pop(p), _open_script(f"{self._tree}/{p}")) for p in notes["texts"]]
        placing.hold(places.values())
        known = put(record, places, placing.prefix)
        record.save()
        own = [placing.script(*text) for text in texts]
        own += [placing.command(*command) for command in notes["commands"]]
        own.append(placing.record(notes["described"], notes["rows"], own))
        written = {place for place, _sha256, _size in own}
        return known, written.union(place for place in places.values() if place not in known)

    def _settle(self, record: Record) -> None:
        """Set back the modes and times of files that hold what they did."""
        doubtful = {*record.doubtful}
        programs = {*record.notes["programs"]} if doubtful else ()
        wrong = [
            path
            for path, state in zip(record.digests, record.states, strict=True)
            if path in doubtful and not is_settled(state, executable=path in programs)
        ]
        for path in wrong:
            settle(f"{self._tree}/{path}", executable=path in programs)
        record.look_again(wrong)

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


@contextlib.contextmanager
def _held(lock: files.Lock) -> Iterator[None]:
    """Hold a lock; on a full disk taking it may fail when it is held already."""
    try:
        lock.take()
        yield
    finally:
        lock.free()


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

"""What an environment consists of, file by file, and one hash of it that does not depend on where.

Both are kept of every environment when it is built: the list of all its files with their digests
in the store's `memo/`, the tree hash in the marker. The list says which file differs later; the
tree hash is equal for the same lock on every machine and below every store.
"""

from __future__ import annotations

import json
import os
import re
import stat

from repro import canonical, digest
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from mmap import mmap

    Data = bytes | mmap
    Seen = tuple[str, str, str, int]
    Tree = dict[str, Seen]
    Mark = tuple[float, int]
    Linked = dict[str, tuple[Mark, Seen]]


FORMAT = 1
NOTHING: Mapping[str, tuple[Mark, Seen]] = {}
MARKER = ".repro-env.json"
BYTECODE = (".pyc", ".pyo")
TOKEN = b"\0PREFIX\0"
PADDING = re.compile(rb"\0+")
SHOWN_TOKEN = "<PREFIX>"  # noqa: S105  (it stands for a path)
SMALL = 1 << 20
"""What is read at once; larger files are mapped, so that memory stays flat."""

SCAFFOLD = re.compile(
    r"pyvenv\.cfg|\.gitignore|\.lock|CACHEDIR\.TAG|lib64"
    r"|bin/(?:python[\d.]*|activate[\w.]*|Activate\.ps1|deactivate\.bat|pydoc\.bat)"
    r"|lib/[^/]+/site-packages/_virtualenv\.(?:py|pth)"
)
"""What a virtual environment has before anything is installed: it differs with its maker."""

NOTES = re.compile(
    r"conda-meta/.*|CACHEDIR\.TAG|\.repro-[^/]+"
    r"|(?:.*/)?[^/]+\.dist-info/(?:RECORD|INSTALLER|REQUESTED|direct_url\.json|uv_\w+\.json)",
    re.DOTALL,
)
"""What an installer, or we, noted about the work: paths, times, digests of what names paths."""

LIBPYTHON = re.compile(r"libpython3\.\d+.*\.(?:so[\d.]*|dylib)")
LAUNCHER = re.compile(
    rb"#!(?:/bin/sh\n'{3}exec' [\"']?)?"
    + re.escape(TOKEN)
    + rb"(/bin/python[\d.]*)[\"']?(?: \"\$0\" \"\$@\"(?:\n' | #)'{3})?\n"
)
"""The first lines of a script of Python: a long path needs a shell to start it."""


def scan(prefix: str, known: Mapping[str, tuple[Mark, Seen]] = NOTHING) -> Tree:
    """Read every file below `prefix`, byte-code too, but for the marker.

    Gives, by relative path and in that order: the kind (`file`, `exec`, `link`, or `other` for
    what is no file), the SHA-256 (of a link: its target), the same with the prefix taken out, and
    the size.

    What `known` says of a path is taken over where that inode is there. Such files are older than
    the prefix, whose name comes of a digest of them, and so do not hold it.
    Raises OSError for what cannot be read.
    """
    places = _spellings(prefix)
    found = {}
    for path, entry in _entries(prefix):
        one = known.get(path)
        is_it = one and _is_inode(entry, one[0][1])
        found[path] = one[1] if one and is_it else _seen(entry.path, places)
    return dict(sorted(found.items()))


def paths(prefix: str) -> list[str]:
    """Give the paths of all files that `scan` reads."""
    return [path for path, _entry in _entries(prefix)]


def listed(prefix: str, paths: Iterable[str], known: Mapping[str, tuple[Mark, Seen]]) -> Tree:
    """Give what `scan` does where it is known that `paths` and those in `known` are all files."""
    places = _spellings(prefix)
    found = {path: seen for path, (_mark, seen) in known.items()}
    found |= {path: _seen(f"{prefix}/{path}", places) for path in paths if path not in known}
    return dict(sorted(found.items()))


def tree_hash(tree: Tree) -> str:
    """Hash a scanned environment independently of where it stands and who made it.

    Left out are byte-code, the notes of installers, and what a virtual environment has of its own.
    """
    venv = is_venv(tree)
    rows = [
        [path, kind, normal]
        for path, (kind, _digest, normal, _size) in tree.items()
        if not path.endswith(BYTECODE)
        and not NOTES.fullmatch(path)
        and not (venv and SCAFFOLD.fullmatch(path))
    ]
    return digest.of_bytes(_encoded(["repro/environment-tree", rows]))


def is_venv(tree: Mapping[str, object]) -> bool:
    """Say whether these are the files of a virtual environment, and not of a conda prefix."""
    return "pyvenv.cfg" in tree and not any(path.startswith("conda-meta/") for path in tree)


def is_bytecode(path: str) -> bool:
    """Say whether a file is compiled Python, which anybody who imports may write."""
    return path.endswith(BYTECODE)


def keep(prefix: str, tree: Tree) -> dict[str, str]:
    """Keep the list of the files of an environment that was just built.

    Gives what the marker shall hold: the tree hash and the digest of the list.
    """
    rows = {path: [kind, content] for path, (kind, content, _normal, _size) in tree.items()}
    data = _encoded({"format": FORMAT, "files": rows})
    place = list_of(prefix)
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    files.replace(place, data, durable=False)
    return {"tree": tree_hash(tree), "files": digest.of_bytes(data)}


def list_of(prefix: str) -> str:
    """Give the place of the list of an environment: outside of it, so that it is only its own."""
    folder, key = os.path.split(os.path.abspath(prefix))
    return os.path.join(os.path.dirname(folder), "memo", f"environment-{key}.json")


def base(prefix: str) -> dict[str, str]:
    """Give the digests, by path, of the interpreter outside of `prefix` that it stands on.

    Empty where it has an interpreter of its own, or none.
    """
    return {path: content_of(path) for path in base_files(prefix)}


def content_of(path: str) -> str:
    """Read one file and give its digest."""
    return _read(path, ())[1]


def base_files(prefix: str) -> tuple[str, ...]:
    """Give the files of the interpreter outside of `prefix` that it stands on."""
    start = os.path.join(prefix, "bin", "python")
    program = os.path.realpath(start)
    if not os.path.isfile(program) or program.startswith(os.path.realpath(prefix) + os.sep):
        return ()
    library = os.path.join(os.path.dirname(os.path.dirname(program)), "lib")
    named = os.listdir(library) if os.path.isdir(library) else []
    shared = (os.path.join(library, name) for name in named if LIBPYTHON.fullmatch(name))
    return tuple(dict.fromkeys([program, *sorted(os.path.realpath(path) for path in shared)]))


def kept(prefix: str, expected: str) -> dict[str, tuple[str, str]] | None:
    """Give kind and digest by path as `keep` wrote them; None where that list is not here."""
    data = files.read(list_of(prefix))
    if data is None or digest.of_bytes(data) != expected:
        return None
    rows = canonical.decode(data)["files"]
    return {path: (kind, content) for path, (kind, content) in rows.items()}


def _entries(prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    folders = [(prefix, "")]
    while folders:
        folder, base = folders.pop()
        with os.scandir(folder) as found:
            for entry in found:
                path = base + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{path}/"))
                elif path != MARKER:
                    yield path, entry


def _encoded(value: object) -> bytes:
    """Encode as `canonical` does, in a tenth of its time."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _is_inode(entry: os.DirEntry[str], inode: int) -> bool:
    """Compare an inode; some file systems list other ones than those that files have."""
    return entry.inode() == inode or entry.stat(follow_symlinks=False).st_ino == inode


def _seen(path: str, places: tuple[bytes, ...]) -> Seen:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        return "link", target, _shown(target, places), 0
    if not stat.S_ISREG(mode):
        return "other", "", "", 0
    # byte-code names the path of its source, and is not part of the tree hash
    return _read(path, () if is_bytecode(path) else places)


def _kind(status: os.stat_result) -> str:
    return "exec" if status.st_mode & 0o100 else "file"


def _read(path: str, places: tuple[bytes, ...]) -> Seen:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        kind = _kind(status)
        if status.st_size <= SMALL:
            content, normal = _digests(b"".join(files.chunks(fd)), places)
        else:
            import mmap

            with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
                content, normal = _digests(data, places)
        return kind, content, normal, status.st_size
    finally:
        os.close(fd)


def _digests(data: Data, places: tuple[bytes, ...]) -> tuple[str, str]:
    """Digest a file as it is, and without the prefix."""
    content = digest.of_chunks(_pieces(data, 0, len(data)))
    if not any(data.find(place) >= 0 for place in places):
        return content, content
    return content, digest.of_chunks(_without(data, places))


def _without(data: Data, places: tuple[bytes, ...]) -> Iterator[bytes]:
    """Give the pieces of a file with a token for the prefix.

    In a binary file a string is padded with NULs to the length that it was built with: one is
    left. In a text, only the length of the path itself differs.
    """
    pattern = re.compile(b"|".join(re.escape(place) for place in places))
    if data.find(b"\0") < 0:
        yield LAUNCHER.sub(rb"#!" + TOKEN + rb"\1\n", pattern.sub(lambda _m: TOKEN, data[:]))
        return
    at = 0
    while found := pattern.search(data, at):
        yield from _pieces(data, at, found.start())
        end = data.find(b"\0", found.start())
        end = len(data) if end < 0 else end
        yield pattern.sub(lambda _m: TOKEN, data[found.start() : end]) + b"\0"
        padding = PADDING.match(data, end)
        at = padding.end() if padding else end
    yield from _pieces(data, at, len(data))


def _pieces(data: Data, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, files.CHUNK):
        yield data[at : min(at + files.CHUNK, end)]


def _spellings(prefix: str) -> tuple[bytes, ...]:
    """Give the prefix as it may stand in files; a link on the way gives it a second name."""
    names = {os.path.abspath(prefix), os.path.realpath(prefix)}
    return tuple(os.fsencode(name) for name in sorted(names, key=len, reverse=True))


def _shown(target: str, places: tuple[bytes, ...]) -> str:
    for place in places:
        target = target.replace(os.fsdecode(place), SHOWN_TOKEN)
    return target

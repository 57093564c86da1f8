"""Layers as tar streams in which only names, contents and the right to execute are free.

Sorted by name, owned by root, of one date, with one of two modes: the same files give the same
bytes on every machine, whoever made them and when. Contents are streamed: memory does not depend
on their size.
"""

from __future__ import annotations

import os
import tarfile

from repro import digest
from repro.errors import EnvironmentFailed
from repro.system import files
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    Open = Callable[[], Iterator[bytes]]

EPOCH = 1577836800
"""The date of all files and images, 2020-01-01: some tools refuse those of 1970."""
CREATED = "2020-01-01T00:00:00Z"
BLOCK = 512
END = bytes(2 * BLOCK)
SMALL = 1 << 20
TYPES = {"file": tarfile.REGTYPE, "exec": tarfile.REGTYPE, "link": tarfile.SYMTYPE}
MODES = {"file": 0o644, "exec": 0o755, "link": 0o777, "dir": 0o755}


class Member(Value):
    """One path of a layer, relative to the root of the image.

    `kind` is `file`, `exec`, `link` or `dir`, as in a manifest. `open` gives the content of a
    file, exactly `size` bytes of it.
    """

    path: str
    kind: str
    size: int = 0
    target: str = ""
    open: Open = lambda: iter(())


class Layer(Value):
    """A layer that was written. `digest` is its diff id, `size` that of the tar in bytes."""

    digest: str
    size: int


def write(out: BinaryIO, members: Iterable[Member]) -> Layer:
    """Write a layer of `members` and the folders they stand in.

    Raises EnvironmentFailed when a file changes while it is read, or a path stands there twice.
    """
    hasher = digest.stream()
    size = 0
    for piece in _stream(_complete(members)):
        hasher.update(piece)
        size += len(piece)
        out.write(piece)
    return Layer(digest=f"sha256:{hasher.hexdigest()}", size=size)


def of_bytes(path: str, data: bytes, kind: str = "file") -> Member:
    """Give a file by its content."""
    return Member(path=path, kind=kind, size=len(data), open=lambda: iter((data,)))


def of_link(path: str, target: str) -> Member:
    """Give a symbolic link."""
    return Member(path=path, kind="link", target=target)


def of_file(path: str, source: str) -> Member:
    """Give what is at `source` on this machine; whoever may execute it, everybody may."""
    status = os.lstat(source)
    if os.path.islink(source):
        return of_link(path, os.readlink(source))
    if os.path.isdir(source):
        return Member(path=path, kind="dir")
    kind = "exec" if status.st_mode & 0o100 else "file"
    return Member(path=path, kind=kind, size=status.st_size, open=lambda: content(source))


def content(source: str) -> Iterator[bytes]:
    """Read a file, a piece at a time."""
    with open(source, "rb") as file:
        yield from files.chunks(file.fileno())


def below(root: str, skip: Callable[[str], bool] = lambda _path: False) -> Iterator[str]:
    """Give the paths of all files, links and empty folders below `root`, relative to it.

    What `skip` says of a path holds for all below it. Links are not followed. Sockets, pipes and
    devices are left out.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as found:
            entries = [entry for entry in found if not skip(os.path.join(folder, entry.name))]
        if folder and not entries:
            yield folder
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                yield path


def framed(member: Member) -> Iterator[bytes]:
    """Give a member as it stands in a tar: header, content, padding."""
    info = tarfile.TarInfo(member.path)
    info.type = TYPES.get(member.kind, tarfile.DIRTYPE)
    info.mode, info.mtime = MODES[member.kind], EPOCH
    info.size, info.linkname = member.size, member.target
    yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    left = member.size
    for piece in member.open():
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise EnvironmentFailed(f"`{member.path}` changed while it was read")
    yield bytes(-member.size % BLOCK)


def _stream(members: Iterable[Member]) -> Iterator[bytes]:
    for member in members:
        yield from framed(member)
    yield END


def _complete(members: Iterable[Member]) -> list[Member]:
    """Add the folders that the members stand in, and sort by the bytes of the paths."""
    known: dict[str, Member] = {}
    for member in members:
        if member.path in known:
            raise EnvironmentFailed(f"`{member.path}` is to stand in an image twice")
        known[member.path] = member
    for path in list(known):
        folder = path.rpartition("/")[0]
        while folder and folder not in known:
            known[folder] = Member(path=folder, kind="dir")
            folder = folder.rpartition("/")[0]
    return [known[path] for path in sorted(known, key=os.fsencode)]

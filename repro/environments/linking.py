"""Files of unpacked packages put into an environment by hard links, or copied where none can be."""

from __future__ import annotations

import errno
import os

from repro import digest
from repro.environments.states import opened
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.environments.states import Record, State
    from repro.environments.treehash import Linked, Mark, Seen

TIME = 1_577_836_800  # 2020-01-01: all files of wheels have it, so that a later one shows
UNLINKABLE = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def settle(path: str, *, executable: bool) -> None:
    """Give a file the mode and time that it stays with."""
    os.chmod(path, 0o555 if executable else 0o444)
    os.utime(path, (TIME, TIME))


def is_settled(state: State, *, executable: bool) -> bool:
    """Say whether a file has kept its time and mode."""
    mode = 0o555 if executable else 0o444
    return state[3] == TIME * files.SECOND_NS and state[5] & 0o777 == mode


class Damaged(Exception):
    """A file of a package is not what it was."""


def put(record: Record, places: Mapping[str, str], prefix: str) -> Linked:
    """Put files of a package, which is as its record says, into the environment `prefix`.

    `places` says where, by their paths. The folders are there; a file that is there is replaced.
    Gives what is known of the linked ones, by place. Raises Damaged where one was written to
    meanwhile, or OSError.
    """
    linked = {}
    with opened(record.folder) as source, opened(prefix) as target:
        for path, place in places.items():
            if link(path, place, source, target):
                linked[path] = place
            else:
                copy(f"{record.folder}/{path}", f"{prefix}/{place}", record.digests[path])
    if record.renew():
        raise Damaged
    rows = zip(record.digests.items(), record.states, strict=True)
    return {linked[path]: known(content, now) for (path, content), now in rows if path in linked}


def known(content: str, state: State) -> tuple[Mark, Seen]:
    """Give what is known of a file: time (as `os.stat` gives it) and inode, and what it holds."""
    _device, inode, size, written, _changed, mode = state
    time = written // files.SECOND_NS + 1e-9 * (written % files.SECOND_NS)
    return (time, inode), ("exec" if mode & 0o100 else "file", content, content, size)


def link(path: str, place: str, source: int | None = None, target: int | None = None) -> bool:
    """Link a file, over one that is there; say whether that could be done.

    The path is one in the open folder `source`, the place one in `target`.
    """
    try:
        os.link(path, place, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        os.unlink(place, dir_fd=target)
        return link(path, place, source, target)
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        return False
    return True


def copy(source: str, target: str, sha256: str) -> None:
    """Copy a file where it cannot be linked, with its mode and time. Raises Damaged."""
    data = files.read(source)
    if data is None or digest.of_bytes(data) != sha256:
        raise Damaged
    files.unlink(target)
    with open(target, "xb") as file:
        file.write(data)
    status = os.lstat(source)
    os.chmod(target, status.st_mode & 0o777)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))

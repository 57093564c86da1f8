"""Which files a step reads and whom it talks to, as strace tells.

A watched step is not confined: what it reads without saying so has to be there to be seen.
"""

from __future__ import annotations

import posixpath
import re

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro.backends.sandbox.plan import View

CALLS = (
    *("%file", "fchdir", "clone", "?clone3", "?fork", "?vfork"),
    *("connect", "sendto", "sendmsg", "sendmmsg"),
)
READ, SEEN, WRITTEN = "read", "seen", "written"
# What a call that succeeds does with its paths, in order; `open` and its kin depend on flags.
ROLES = {
    **dict.fromkeys(("execve", "execveat"), (READ,)),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "fstatat64", "stat64", "lstat64"), (SEEN,)),
    **dict.fromkeys(("statx", "access", "faccessat", "faccessat2", "statfs"), (SEEN,)),
    **dict.fromkeys(("getxattr", "lgetxattr", "listxattr", "llistxattr"), (SEEN,)),
    **dict.fromkeys(("readlink", "readlinkat", "chdir", "name_to_handle_at"), (SEEN,)),
    **dict.fromkeys(("inotify_add_watch",), (SEEN,)),
    **dict.fromkeys(("creat", "mkdir", "mkdirat", "mknod", "mknodat", "truncate"), (WRITTEN,)),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), (WRITTEN,)),
    **dict.fromkeys(("chmod", "fchmodat", "chown", "lchown", "fchownat"), (WRITTEN,)),
    **dict.fromkeys(("utime", "utimes", "utimensat", "futimesat"), (WRITTEN,)),
    **dict.fromkeys(("setxattr", "lsetxattr", "removexattr"), (WRITTEN,)),
    **dict.fromkeys(("rename", "renameat", "renameat2"), (WRITTEN, WRITTEN)),
    **dict.fromkeys(("link", "linkat"), (READ, WRITTEN)),
    **dict.fromkeys(("symlink", "symlinkat"), ("", WRITTEN)),
}
OPENING = frozenset(("open", "openat", "openat2"))
CONVERSING = frozenset(("connect", "sendto", "sendmsg", "sendmmsg"))
FORKING = frozenset(("clone", "clone3", "fork", "vfork"))

CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?(?:\(deleted\))?(?: |$)")
UNFINISHED = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
HERE = re.compile(r"AT_FDCWD<([^>]*)>")
TEXT = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>(?:\(deleted\))?, )?"((?:\\x[0-9a-f]{2})*)"')
ADDRESS = re.compile(
    r"port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"((?:\\x[0-9a-f]{2})+)\""
)
SOCKET_FILE = re.compile(r'sun_path="((?:\\x[0-9a-f]{2})+)"')
QUESTION = bytes((0, 1, 0, 0, 0, 0, 0))  # of DNS: one, no answers, perhaps an option


class Trace(Value):
    """What a step did: paths by the strongest thing done to them, and whom it talked to.

    `seen` are those whose existence, type or date was asked for. Files that the step had made
    before it read them are `written`. `hosts` are `address:port`, the names that were looked up,
    and the paths of sockets. All are sorted.
    """

    read: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def argv(command: Iterable[str], strace: str, output: str) -> tuple[str, ...]:
    """Give the command that runs `command` watched, writing what is seen to `output`.

    Exit code, signals and streams are the command's own: strace is its grandchild.
    """
    options = ("-D", "-f", "--seccomp-bpf", "-qqq", "-y", "-xx", "-s", "512", "-e", "signal=none")
    return (strace, *options, "-e", "trace=" + ",".join(CALLS), "-o", output, "--", *command)


def undeclared(found: Trace, seen: View, port: int = 0) -> Trace:
    """Leave what a confined step would not have had, going by what it would have `seen`.

    Folders on the way to something visible do not count, nor does the loopback's own `port`.
    """
    ways = {way for _, place, _ in seen.shown for way in _ways(place)}
    own = f"127.0.0.1:{port}"

    def hidden(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(p for p in paths if not seen.shows(p) and p not in ways)

    return Trace(
        read=hidden(found.read),
        seen=hidden(found.seen),
        written=hidden(found.written),
        hosts=tuple(host for host in found.hosts if host != own),
    )


def _ways(place: str) -> Iterable[str]:
    while place != "/":
        place = posixpath.dirname(place)
        yield place


def parse(text: str, folder: str) -> Trace:
    """Read what strace wrote of a command that was started in `folder`.

    Lines that are cut off or that are no calls are passed over.
    """
    reader = _Reader(folder)
    for line in text.splitlines():
        reader.take(line)
    done: dict[str, list[str]] = {READ: [], SEEN: [], WRITTEN: []}
    for path, role in reader.paths.items():
        done[role].append(path)
    return Trace(
        **{k: tuple(sorted(v)) for k, v in done.items()}, hosts=tuple(sorted(reader.hosts))
    )


class _Reader:
    """What is known while reading: begun calls, and the working folder of each process.

    A folder is a list of one, which threads share.
    """

    def __init__(self, folder: str) -> None:
        self.paths: dict[str, str] = {}
        self.hosts: set[str] = set()
        self._first = folder
        self._begun: dict[str, str] = {}
        self._folders: dict[str, list[str]] = {}

    def take(self, line: str) -> None:
        if begun := UNFINISHED.match(line):
            self._begun[begun[1]] = begun[2]
            return
        if resumed := RESUMED.match(line):
            line = f"{resumed[1]} {self._begun.pop(resumed[1], '')}{resumed[2]}"
        if call := CALL.match(line):
            process, name, words, result, opened = call.groups()
            self._take_call(process, name, words, int(result), _plain(opened or ""))

    def _take_call(self, process: str, name: str, words: str, result: int, opened: str) -> None:
        folder = self._folders.setdefault(process, [self._first])
        if here := HERE.search(words):
            folder[0] = _plain(here[1])
        if name in CONVERSING:
            self._talk(name, words)
        elif result < 0:
            return
        elif name in FORKING:
            shared = folder if "CLONE_FS" in words else list(folder)
            self._folders.setdefault(str(result), shared)
        elif name == "fchdir":
            folder[0] = _plain(words.partition("<")[2].partition(">")[0])
        elif name in OPENING:
            self._open(words, folder[0], opened)
        else:
            self._do(name, words, folder)

    def _do(self, name: str, words: str, folder: list[str]) -> None:
        roles = ROLES.get(name, ())
        for role, (below, text) in zip(roles, TEXT.findall(words), strict=False):
            if role and text:
                path = _path(below, text, folder[0])
                self._note(role, path)
                if name == "chdir":
                    folder[0] = path

    def _open(self, words: str, folder: str, opened: str) -> None:
        place = TEXT.search(words)
        flags = words[place.end() :] if place else ""
        if "O_PATH" in flags:
            role = SEEN
        elif any(flag in flags for flag in ("O_WRONLY", "O_EXCL", "O_TRUNC", "O_TMPFILE")):
            role = WRITTEN
        else:
            role = READ
        if place and place[2]:
            self._note(role, _path(place[1] or "", place[2], folder))
        self._note(role, opened)

    def _note(self, role: str, path: str) -> None:
        """Note what is done to a path, unless the step has made it, or did more already."""
        if path.startswith("/") and self.paths.get(path, SEEN) == SEEN:
            self.paths[path] = role

    def _talk(self, name: str, words: str) -> None:
        for port, address in ADDRESS.findall(words):
            host = _plain(address)
            self.hosts.add(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self.hosts.update(_plain(path) for path in SOCKET_FILE.findall(words))
        if name != "connect":
            for _, text in TEXT.findall(words):
                asked = _question(bytes.fromhex(text.replace("\\x", "")))
                if asked:
                    self.hosts.add(asked)


def _path(below: str, text: str, folder: str) -> str:
    place = posixpath.join(_plain(below) if below else folder, _plain(text))
    return posixpath.normpath(place)


def _plain(text: str) -> str:
    """Undo the notation of strace, two hexadecimal digits for each byte."""
    return bytes.fromhex(text.replace("\\x", "")).decode("utf-8", "surrogateescape")


def _question(packet: bytes) -> str:
    """Give the name that a message to a name server asks for; nothing for another message."""
    labels, at = [], 12
    if packet[4:11] != QUESTION:
        return ""
    while at < len(packet) and packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]])
        at += 1 + packet[at]
    name = b".".join(labels)
    return name.decode("ascii") if name.isascii() and at < len(packet) else ""

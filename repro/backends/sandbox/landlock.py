"""Rules on files, and on TCP, that the kernel holds a process to, without any namespace.

It runs in the supervisor, in the process that becomes the command.
"""

from __future__ import annotations

import os

from . import kernel, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


VERSION = 1  # a flag: ask for the version of the interface
PATH_BENEATH, PORT = 1, 2  # kinds of rules

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
FIRST = (1 << 13) - 1  # what version 1 knows
LATER = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
READING = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
WRITING = FIRST | REFER | TRUNCATE
RIGHTS = {"write": WRITING & ~(MAKE_CHAR | MAKE_BLOCK), "device": OF_FILES & ~EXECUTE}
DEVICES = (b"null", b"zero", b"full", b"random", b"urandom")

BIND, CONNECT = 1 << 0, 1 << 1
FILES_SINCE, NETWORK_SINCE = 3, 4  # before, files can be truncated; TCP has no rules
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
SCOPES_SINCE = 6


def version() -> int:
    """Give the version of the kernel's Landlock, 0 where there is none."""
    try:
        return kernel.call("landlock_create_ruleset", None, 0, VERSION)
    except OSError:
        return 0


def narrow() -> None:
    """Cut off abstract sockets and signals to the outside, where the kernel can; files stay."""
    if version() >= SCOPES_SINCE:
        _restrict(_ruleset(0, 0, ABSTRACT_SOCKETS | SIGNALS))


class Room:
    """The view that `means.wrap` writes, as rules: what is not in it is there, but closed."""

    GUARDED = False

    def __init__(self, view: Mapping[str, Any]) -> None:
        """Find out what the kernel can."""
        self._view = view
        self._version = version()
        self._files = FIRST
        for since, right in LATER:
            self._files |= right if self._version >= since else 0

    def fork(self) -> int:
        """Fork as ever."""
        return os.fork()

    def enter(self, argv: list[bytes]) -> list[bytes]:
        """Restrict this process and give the command. Raises RuntimeError if that fails."""
        try:
            self._restrict()
        except OSError as error:
            raise RuntimeError(f"no sandbox: {error.strerror}: {error.filename}") from None
        return argv

    def _restrict(self) -> None:
        scopes = ABSTRACT_SOCKETS | SIGNALS if self._version >= SCOPES_SINCE else 0
        tcp = 0 if self._view["network"] else BIND | CONNECT
        rules = _ruleset(self._files, tcp, scopes)
        for kind, target, source in self._view["shown"]:
            if kind == "link":
                continue  # a rule would be on all that it leads to
            place = source if kind in ("read", "write", "device") else target
            self._allow(rules, kind, place.encode("latin-1"))
        port = self._view["port"]
        if tcp and port:
            rule = CONNECT.to_bytes(8, "little") + port.to_bytes(8, "little")
            kernel.call("landlock_add_rule", rules, PORT, rule, 0)
        kernel.leave_keyring()
        kernel.forgo_privileges()
        _restrict(rules)
        if tcp:
            seccomp.forbid_other_networks()

    def _allow(self, rules: int, kind: str, path: bytes) -> None:
        """Allow what `kind` says below a path; what is not there needs no rule."""
        if kind == "dev":
            for name in DEVICES:
                self._allow(rules, "device", os.path.join(path, name))
            self._allow(rules, "write", os.path.join(path, b"shm"))
            return
        rights = self._files & RIGHTS.get(kind, READING)
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        if not os.path.isdir(path):
            rights &= OF_FILES
        rule = rights.to_bytes(8, "little") + place.to_bytes(4, "little")
        kernel.call("landlock_add_rule", rules, PATH_BENEATH, rule, 0)
        os.close(place)


def _ruleset(files: int, tcp: int, scopes: int) -> int:
    """Make a set of rules; an older kernel takes the longer text while what it lacks is zero."""
    text = b"".join(number.to_bytes(8, "little") for number in (files, tcp, scopes))
    return kernel.call("landlock_create_ruleset", text, len(text), 0)


def _restrict(rules: int) -> None:
    kernel.call("landlock_restrict_self", rules, 0)
    os.close(rules)

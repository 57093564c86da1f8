"""System calls that the standard library does not offer, for the process that becomes a step.

It runs in the supervisor, where `ctypes` would cost more than all the calls together; `_ctypes`
alone is enough of it.
"""

from __future__ import annotations

import os
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    Array,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)

# By the two tables that 64-bit Linux has: that of x86-64, and the one of every later machine.
NUMBERS = {
    "capset": (126, 91),
    "clone": (56, 220),
    "keyctl": (250, 219),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "setns": (308, 268),
    "umount2": (166, 39),
}
COLUMNS = {"x86_64": 0, "aarch64": 1, "riscv64": 1, "loongarch64": 1}
COLUMN = COLUMNS.get(os.uname().machine, -1)

PROTECTED = (b"sys", b"sysrq-trigger", b"irq", b"bus")
"""What root can change the machine with, in `/proc`."""

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP, SECCOMP_FILTER = 22, 2
PR_SET_NO_NEW_PRIVS = 38
KEYCTL_JOIN_SESSION_KEYRING = 1
CAPABILITY_VERSION = 0x20080522
KEPT = 0b1111_1011  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID
"""What lets root treat files and users as its own: without it even `tar x` fails."""


class _Word(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Byte(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Word


_SYSCALL = _Function(dlsym(dlopen(None, 0), "syscall"))  # type: ignore[arg-type]


def call(name: str, *arguments: int | bytes | None) -> int:
    """Make a system call; bytes are passed by address. Raises OSError as `os` does."""
    if COLUMN < 0:
        raise OSError(38, os.strerror(38), name)
    words = [_Word(a) if isinstance(a, int) else a for a in arguments]
    result = int(_SYSCALL(_Word(NUMBERS[name][COLUMN]), *words))
    if result < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def install_filter(code: bytes) -> None:
    """Filter all further system calls of this process with a program of 8-byte instructions."""
    place = type("_Code", (Array,), {"_type_": _Byte, "_length_": len(code)})()
    place.raw = code
    header = (len(code) // 8).to_bytes(8, "little") + addressof(place).to_bytes(8, "little")
    call("prctl", PR_SET_SECCOMP, SECCOMP_FILTER, header, 0, 0)


def leave_keyring() -> None:
    """Get an empty keyring in place of the session's."""
    try:
        call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
    except OSError:
        pass  # a kernel without keys, or a filter around us that hides them


def forgo_privileges() -> None:
    """Give up for good what this process may do beyond others of its user.

    Root keeps what concerns files and users, see KEPT; root by name only has nothing to keep.
    """
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    try:
        _keep(KEPT if os.geteuid() == 0 else 0)
    except PermissionError:
        _keep(0)


def _keep(capabilities: int) -> None:
    kept = capabilities.to_bytes(4, "little")
    header = CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4)
    call("capset", header, kept + kept + bytes(16))

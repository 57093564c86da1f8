"""A filter of system calls that leaves no other network than TCP, on which Landlock has rules.

It runs in the supervisor, in the process that becomes the command.
"""

from __future__ import annotations

import os

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Line = str | tuple[int, str, str, int]

LOAD, EQUAL, AT_LEAST, ANY_OF, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # offsets of what the filter sees
ALLOW = 0x7FFF0000
REFUSE = 0x00050000  # with an error number
ENOSYS, EACCES, EAFNOSUPPORT = 38, 13, 97

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_TYPES = 1, 0xF
IPPROTO_TCP = 6
MSG_FASTOPEN = 0x20000000  # connects without connect(2)

# The audit number of a machine, and its numbers of socket, sendto, sendmsg and sendmmsg.
MACHINES = {
    "x86_64": (0xC000003E, 41, 44, 46, 307),
    "aarch64": (0xC00000B7, 198, 206, 211, 269),
    "riscv64": (0xC00000F3, 198, 206, 211, 269),
    "loongarch64": (0xC0000102, 198, 206, 211, 269),
}
IO_URING_SETUP = 425  # a ring makes sockets that no filter sees
X32 = 0x40000000  # where the calls of another interface of x86-64 begin


def forbid_other_networks() -> None:
    """Refuse, from here on and in all children, sockets other than of TCP and the machine itself.

    Raises OSError where there are no filters.
    """
    kernel.install_filter(assembled(program(*MACHINES[os.uname().machine])))


def program(machine: int, socket: int, sendto: int, sendmsg: int, sendmmsg: int) -> list[Line]:
    """Write the filter: lines of (operation, where to if so, where to if not, value) and labels."""
    return [
        (LOAD, "", "", MACHINE),
        (EQUAL, "", "absent", machine),
        (LOAD, "", "", NUMBER),
        (AT_LEAST, "absent", "", X32),
        (EQUAL, "absent", "", IO_URING_SETUP),
        (EQUAL, "flags of sendto", "", sendto),
        (EQUAL, "flags of sendmsg", "", sendmsg),
        (EQUAL, "flags of sendmmsg", "", sendmmsg),
        (EQUAL, "", "allow", socket),
        (LOAD, "", "", _argument(0)),
        (EQUAL, "allow", "", AF_UNIX),
        (EQUAL, "allow", "", AF_NETLINK),
        (EQUAL, "internet", "", AF_INET),
        (EQUAL, "", "family", AF_INET6),
        "internet",
        (LOAD, "", "", _argument(1)),
        (AND, "", "", SOCK_TYPES),
        (EQUAL, "", "refuse", SOCK_STREAM),
        (LOAD, "", "", _argument(2)),
        (EQUAL, "allow", "", 0),
        (EQUAL, "allow", "refuse", IPPROTO_TCP),
        "flags of sendto",
        "flags of sendmmsg",
        (LOAD, "", "", _argument(3)),
        (ANY_OF, "refuse", "allow", MSG_FASTOPEN),
        "flags of sendmsg",
        (LOAD, "", "", _argument(2)),
        (ANY_OF, "refuse", "allow", MSG_FASTOPEN),
        *("allow", (RETURN, "", "", ALLOW)),
        *("refuse", (RETURN, "", "", REFUSE | EACCES)),
        *("family", (RETURN, "", "", REFUSE | EAFNOSUPPORT)),
        *("absent", (RETURN, "", "", REFUSE | ENOSYS)),
    ]


def _argument(number: int) -> int:
    return FIRST_ARGUMENT + 8 * number


def assembled(lines: Iterable[Line]) -> bytes:
    """Turn a program into what the kernel takes."""
    places: dict[str, int] = {}
    orders: list[tuple[int, str, str, int]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(orders)
        else:
            orders.append(line)
    code = b""
    for next_, (operation, yes, no, value) in enumerate(orders, 1):
        jumps = bytes(places[label] - next_ if label else 0 for label in (yes, no))
        code += operation.to_bytes(2, "little") + jumps + value.to_bytes(4, "little")
    return code

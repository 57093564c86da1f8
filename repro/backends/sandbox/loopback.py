"""The one door of a step without a network: a port on its own loopback, served from outside.

A socket belongs to the network that it was made in, whoever holds it. So one that listens inside
is made here, before the command starts, and handed to repro through the supervisor's line; what
connects to it is accepted outside. Nothing of that runs where the step could touch it.
"""

from __future__ import annotations

import os
from _socket import AF_INET, SCM_RIGHTS, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, sethostname
from _socket import socket as Socket  # noqa: N812  (a class)
from fcntl import ioctl
from time import sleep

from . import kernel

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
NS_GET_USERNS = 0xB701
HOST = "127.0.0.1"
WAITING = 128  # connections
EADDRNOTAVAIL = 99
PAUSE, TRIES = 0.0005, 20_000


def bring_up() -> None:
    """Let this network have its loopback interface."""
    any_ = Socket(AF_INET, SOCK_STREAM)
    name = b"lo".ljust(16, b"\0")
    request = ioctl(any_.fileno(), SIOCGIFFLAGS, name + bytes(24))
    flags = int.from_bytes(request[16:18], "little") | IFF_UP
    ioctl(any_.fileno(), SIOCSIFFLAGS, name + flags.to_bytes(2, "little") + bytes(22))
    any_.close()


def open_door(port: int, line: int) -> None:
    """Listen on a port of this network's loopback, and send what listens over `line`.

    Waits a little for the address, which another process may be about to add.
    """
    door = Socket(AF_INET, SOCK_STREAM)
    door.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    for patience in range(TRIES, -1, -1):
        try:
            door.bind((HOST, port))
            break
        except OSError as error:
            if error.errno != EADDRNOTAVAIL or not patience:
                raise
            sleep(PAUSE)
    door.listen(WAITING)
    carrier = Socket(fileno=os.dup(line))
    carrier.sendmsg([b"{}\n"], [(SOL_SOCKET, SCM_RIGHTS, door.fileno().to_bytes(4, "little"))])
    carrier.close()
    door.close()


def name_host() -> None:
    """Give this machine, in our namespace, the one name that can be resolved without a network."""
    sethostname("localhost")


def join(process: int) -> None:
    """Move this process into the network of another one that we have made."""
    network = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    owner = ioctl(network, NS_GET_USERNS)
    try:
        kernel.call("setns", owner, 0)
    except OSError:
        pass  # its owner is who we are already
    kernel.call("setns", network, 0)

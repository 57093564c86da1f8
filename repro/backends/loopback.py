"""Ports of this machine's loopback interface, made to answer inside of a container's own network.

A socket belongs to the network in which it was made, whoever uses it later. So a thread steps
into the container's, makes a socket that listens there, and leaves it to us: nothing has to run
inside. Only root may do so, and only next to the daemon.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from contextlib import ExitStack, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWNET = 0x40000000
HOST = "127.0.0.1"
CHUNK = 1 << 16


def is_possible() -> bool:
    """Say whether this process may do it."""
    return sys.platform == "linux" and os.geteuid() == 0


def is_ours(pid: int, container: str) -> bool:
    """Say whether a process of this machine is the container's: its daemon may be elsewhere."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            return container in file.read()
    except OSError:
        return False


class Relay:
    """Connections from a container's loopback interface to the same ports of this machine's."""

    def __init__(self, pid: int, ports: Iterable[int]) -> None:
        """Listen in the network of process `pid`. Raises OSError."""
        self._held = ExitStack()
        try:
            for listener in _listeners(pid, ports):
                self._held.callback(listener.close)
                self._held.callback(_shut, listener)
                threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Stop listening; connections end when the container does."""
        self._held.close()


def _listeners(pid: int, ports: Iterable[int]) -> list[socket.socket]:
    """Make the sockets in a thread that ends: its network is not ours any more."""
    found: list[socket.socket] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            _join_network(pid)
            found.extend(socket.create_server((HOST, port), backlog=128) for port in ports)
        except BaseException as error:  # noqa: BLE001  (raised below, in the caller's thread)
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failures:
        for listener in found:
            listener.close()
        raise failures[0]
    return found


def _join_network(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _accept(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:  # closed
            return
        try:
            outer = socket.create_connection((HOST, port))
        except OSError:  # nobody listens here either: the other side learns it the same way
            inner.close()
            continue
        _join(inner, outer)


def _join(inner: socket.socket, outer: socket.socket) -> None:
    """Copy both ways, until both are done."""

    def copied() -> None:
        back = threading.Thread(target=_copy, args=(outer, inner), daemon=True)
        back.start()
        _copy(inner, outer)
        back.join()
        inner.close()
        outer.close()

    threading.Thread(target=copied, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _shut(listener: socket.socket) -> None:
    """Wake who waits in `accept`, which closing alone does not."""
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)

"""Carries what a step says to its one door on to where it belongs, outside of its network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
CHUNK = 1 << 16


class Relay:
    """Serves a door, made by `loopback.open_door`, until it is closed."""

    def __init__(self, door: socket.socket, port: int) -> None:
        """Carry each connection to `door` on to `port` of the loopback interface."""
        self._door = door
        self._port = port
        self._ends: set[socket.socket] = {door}
        self._threads: set[threading.Thread] = set()
        self._changing = threading.Lock()
        self._closed = False
        self._start(self._listen)

    def close(self) -> None:
        """Cut all connections, and return when nothing is left of them."""
        with self._changing:
            self._closed = True
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            threads = tuple(self._threads)
        for thread in threads:
            thread.join()
        self._door.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name="repro-relay", daemon=True)
        thread.start()
        self._threads.add(thread)
        return thread

    def _listen(self) -> None:
        with suppress(OSError):  # the door is shut
            while True:
                near, _ = self._door.accept()
                with self._changing:
                    if self._closed:
                        near.close()
                    else:
                        self._start(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        """Serve one connection; one that leads nowhere is for the step to notice."""
        with near, suppress(OSError), socket.create_connection((HOST, self._port)) as far:
            if self._admit(near, far):
                back = threading.Thread(target=_carry, args=(far, near), daemon=True)
                back.start()
                _carry(near, far)
                back.join()
                self._dismiss(near, far)
        with self._changing:
            self._threads.discard(threading.current_thread())

    def _admit(self, *ends: socket.socket) -> bool:
        """Have these cut by `close`, unless that was called already."""
        with self._changing:
            self._ends.update(ends)
            return not self._closed

    def _dismiss(self, *ends: socket.socket) -> None:
        with self._changing:
            self._ends.difference_update(ends)


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Move bytes one way until either side has had enough, and pass that on."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)

"""A way to a server on which connections break after a number of bytes."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """`budgets` are the bytes after which the next connections break; later ones hold."""

    def __init__(self, port):
        self.upstream = port
        self.budgets = []
        self.broken = 0
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.serve, args=(client,)))
                self.threads[-1].start()

    def serve(self, client):
        budget = [self.budgets.pop(0) if self.budgets else None]
        with client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
            self.open += [client, server]
            back = threading.Thread(target=self.pump, args=(server, client, budget))
            back.start()
            self.pump(client, server, budget)
            back.join()

    def pump(self, source, target, budget):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if budget[0] is not None:
                    budget[0] -= len(data)
                    if budget[0] < 0:
                        self.broken += 1
                        break
        self.shut(source, target)

    def shut(self, *ends):
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shut(self.listener, *self.open)
        self.listener.close()
        for thread in self.threads:
            thread.join()

"""HTTP/1.1 to a container engine, over a socket of this machine or plain TCP.

The docker package takes a tenth of a second to load, as long as many a step. Each request has a
connection of its own: threads need no lock, an engine that was restarted is no special case, and
nothing of one answer gets into the next. What is not as HTTP has it is refused, never guessed at.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

LOCAL, PLAIN = "unix://", "tcp://"
LONGEST = 1 << 16
MOST_HEADERS = 100
UPGRADED = 101
EMPTY = (204, 304)
DIGITS = len("200")
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
LONGEST_SIZE = 15  # digits of a chunk's size
STRANGE = "what answers there does not speak HTTP"
SECURED = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
UNTIL_CLOSED = -1
PEER = struct.Struct("3i")  # process, user, group


class Broken(OSError):
    """Nobody answers, or not as HTTP has it, or only half of it came."""


class Refused(Exception):
    """An engine's no: the HTTP `status`, from 400 on, and what it `said`."""

    def __init__(self, status: int, said: str) -> None:
        """Take the engine's words as they are."""
        super().__init__(said)
        self.status, self.said = status, said


class Line:
    """A way to an engine. Every method may be called from any thread."""

    def __init__(self, where: str, seconds: float, headers: Mapping[str, str]) -> None:
        """Connect to nothing yet; `where` is what `is_plain` says yes to.

        `seconds` is how long the engine may take to accept, or for the next piece of an answer.
        """
        self._where, self._seconds = where, seconds
        host = where.removeprefix(PLAIN).rstrip("/") if where.startswith(PLAIN) else "localhost"
        self._headers = {"Host": host, "User-Agent": "repro", **headers}

    def ask(self, method: str, path: str, document: Any = None) -> Answer:
        """Send a request, with a document as JSON; give the answer, to be closed. Raises Broken."""
        return self._asked(method, path, document, {"Connection": "close"})

    def attach(self, prefix: str, identity: str) -> Answer:
        """Listen to a container from now on; there is no limit of time. Raises Broken."""
        path = f"{prefix}/containers/{identity}/attach?stdout=1&stderr=1&stream=1"
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self._asked("POST", path, None, upgrade).without_limit()

    def follow(self, path: str) -> Answer:
        """Ask for what goes on until it ends; there is no limit of time. Raises Broken."""
        return self.ask("GET", path).without_limit()

    def program(self) -> str:
        """Name the program of root's on this machine that listens; nothing where it is none.

        Raises Broken.
        """
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None or not self._where.startswith(LOCAL):
            return ""
        with _breaking(), self._connected() as connection:
            told = connection.getsockopt(socket.SOL_SOCKET, option, PEER.size)
        process, user, _ = PEER.unpack(told)
        try:
            with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                return "" if user else file.read().strip()
        except OSError:  # it is in another container, or hidden
            return ""

    def close(self) -> None:
        """Keep nothing: there is nothing to close."""

    def _asked(self, method: str, path: str, document: Any, headers: Mapping[str, str]) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        sent = {
            **self._headers,
            **headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items()), "", ""]
        with _breaking(), contextlib.ExitStack() as held:
            connection = held.enter_context(self._connected())
            connection.sendall("\r\n".join(lines).encode() + body)
            answer = Answer(connection)
            held.pop_all()
            return answer

    def _connected(self) -> socket.socket:
        if self._where.startswith(PLAIN):
            made = socket.create_connection(_address(self._where), self._seconds)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return made
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(self._seconds)
            made.connect(os.fsencode(self._where.removeprefix(LOCAL)))
        except BaseException:
            made.close()
            raise
        return made


class Answer:
    """What an engine answers: status, headers by lower-case names, and a body in pieces."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the head. Raises OSError, and leaves the connection to the caller then."""
        self._connection = connection
        self._file = connection.makefile("rb")
        try:
            self.status = self._code()
            self.headers = dict(self._header_lines())
            self._left, self._is_chunked = self._extent()
        except BaseException:
            self._file.close()
            raise

    def read(self, most: int) -> bytes:
        """Give up to so many bytes as soon as there are any; nothing at the end. Raises Broken."""
        with _breaking():
            return self._read(most)

    def _read(self, most: int) -> bytes:
        if self._is_chunked and not self._left:
            self._left = self._chunk()
            self._is_chunked = self._left > 0
        if not self._left:
            return b""
        if self._left == UNTIL_CLOSED:
            return self._file.read1(most)
        data = self._file.read1(min(most, self._left))
        if not data:
            raise Broken("the answer ended half-way")
        self._left -= len(data)
        if self._is_chunked and not self._left and self._text():
            raise Broken("the answer has a chunk that does not end")
        return data

    def without_limit(self) -> Answer:
        """Wait for what is still to come as long as it takes; give itself."""
        self._connection.settimeout(None)
        return self

    def end(self) -> None:
        """Let it be at its end, for whoever reads it in another thread."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._connection.close()

    # -- the head, and what is between the pieces

    def _text(self) -> str:
        line = self._file.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise Broken("the answer ended half-way" if len(line) < LONGEST else STRANGE)
        return line.rstrip(b"\r\n").decode("latin-1")

    def _code(self) -> int:
        protocol, _, rest = self._text().partition(" ")
        code = rest.partition(" ")[0]
        if protocol not in {"HTTP/1.1", "HTTP/1.0"} or len(code) != DIGITS or not _is_count(code):
            raise Broken(STRANGE)
        return int(code)

    def _header_lines(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while line := self._text():
            name, colon, value = line.partition(":")
            if not colon or len(found) == MOST_HEADERS:
                raise Broken(STRANGE)
            found.append((name.lower(), value.strip()))
        return found

    def _extent(self) -> tuple[int, bool]:
        """Say how much there is to come, and whether it comes in chunks."""
        if self.status == UPGRADED:
            return UNTIL_CLOSED, False
        if self.status in EMPTY:
            return 0, False
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise Broken(f"the answer is in a coding that is not known: {coding}")
            return 0, True
        if length is None:
            return UNTIL_CLOSED, False
        if not _is_count(length):
            raise Broken(STRANGE)
        return int(length), False

    def _chunk(self) -> int:
        """Give the size of the next chunk; after the last one, read to the end of all."""
        text = self._text().partition(";")[0].strip()
        if not 0 < len(text) <= LONGEST_SIZE or not HEXADECIMAL.issuperset(text):
            raise Broken("the answer has a chunk without a size")
        size = int(text, 16)
        if not size:
            self._header_lines()
        return size


def is_plain(where: str, environ: Mapping[str, str]) -> bool:
    """Say whether an engine is reached without SSH, TLS, a proxy or a pipe of Windows."""
    if where.startswith(LOCAL):
        return True
    if not where.startswith(PLAIN) or not all(_address(where)):
        return False
    return not any(environ.get(name) for name in (*SECURED, *PROXIES))


def _address(where: str) -> tuple[str, int]:
    """Give host and port; the port is 0 for what is not of this form."""
    host, _, port = where.removeprefix(PLAIN).rstrip("/").rpartition(":")
    return host.strip("[]"), int(port) if _is_count(port) else 0


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < len(str(1 << 63))


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    """Raise Broken for all that can go wrong with a connection."""
    try:
        yield
    except Broken:
        raise
    except OSError as error:
        raise Broken(*error.args) from None
    except ValueError as error:
        raise Broken(str(error)) from None

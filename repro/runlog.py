"""The output of a step, kept as it came: which stream, when, and every byte."""

from __future__ import annotations

import os
import time

from repro import canonical
from repro.events import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.events import Emit
    from repro.store.blobs import Blobs

TAIL = 1 << 14
MASK = b"***"


class LogWriter:
    """Writes a log while a step runs; one line of canonical JSON a piece: [ms, stream, text].

    Secrets are masked, also where they are split over pieces. Bytes that are no UTF-8 are kept
    as lone surrogates.
    """

    def __init__(self, path: str, step: str, emit: Emit, secrets: tuple[str, ...] = ()) -> None:
        """Begin an empty log file."""
        import threading  # not at the top: a log is also read, on a hit

        self.path = path
        self.step = step
        self.emit = emit
        self.secrets = sorted({s.encode() for s in secrets if s}, key=len, reverse=True)
        self.held = {"stdout": b"", "stderr": b""}
        self.size = 0
        self.last = b""
        self.started = time.monotonic()
        self.guard = threading.Lock()
        self.file = open(path, "wb")  # noqa: SIM115  (closed by `close`)

    def sink(self, stream: str, data: bytes) -> None:
        """Take a piece of output."""
        with self.guard:
            if self.secrets:
                data = self._masked(stream, data)
            if data:
                self._write(stream, data)

    def _masked(self, stream: str, data: bytes, *, last: bool = False) -> bytes:
        whole = self.held[stream] + data
        for secret in self.secrets:
            whole = whole.replace(secret, MASK)
        keep = 0 if last else max(_overlap(whole, secret) for secret in self.secrets)
        self.held[stream] = whole[len(whole) - keep :]
        return whole[: len(whole) - keep]

    def _write(self, stream: str, data: bytes) -> None:
        ms = round((time.monotonic() - self.started) * 1000)
        text = data.decode("utf-8", "surrogateescape")
        self.file.write(canonical.encode([ms, stream, text]) + b"\n")
        self.size += len(data)
        self.last = (self.last + data)[-TAIL:]
        self.emit(Output(step=self.step, stream=stream, data=data))

    def tail(self) -> bytes:
        """Give the end of what was printed, of both streams as they came."""
        return self.last

    def close(self) -> None:
        """Write what was held back and close the file."""
        with self.guard:
            if not self.file.closed:
                for stream in self.held if self.secrets else ():
                    rest = self._masked(stream, b"", last=True)
                    if rest:
                        self._write(stream, rest)
                self.file.close()

    def keep(self, blobs: Blobs) -> tuple[str, int]:
        """Put the log into the store; give its name and the number of bytes of output."""
        self.close()
        if not os.path.exists(self.path):
            return blobs.put(b""), 0
        return blobs.put_file(self.path)[0], self.size


def pieces(data: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Read a kept log: (milliseconds since the start, stream, bytes)."""
    for line in data.split(b"\n"):
        if line:
            ms, stream, text = canonical.decode(line)
            yield ms, stream, text.encode("utf-8", "surrogateescape")


def text_of(data: bytes, stream: str = "") -> bytes:
    """Give the output in a kept log, of one stream or of both in their order."""
    return b"".join(piece for _ms, name, piece in pieces(data) if stream in ("", name))


def _overlap(text: bytes, secret: bytes) -> int:
    """Give how many bytes at the end of `text` could be the beginning of `secret`."""
    for size in range(min(len(secret) - 1, len(text)), 0, -1):
        if text.endswith(secret[:size]):
            return size
    return 0

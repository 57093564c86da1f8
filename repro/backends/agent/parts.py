"""Carriage through a mounted folder of object storage, where each file is written once."""

from __future__ import annotations

import os
import shutil

from repro.backends.agent.carriage import Failed, hasher, take

PART = 900_000  # bytes after which held back output is written; a whole part has fewer than 10**6
SEAL = 64
TAKEN, STOP = b"taken", "stop"


class Parts:
    """Carriage through a folder in which nothing is appended, renamed or written twice.

    The stream of an attempt is a row of files. Each begins with the digest of its content, since
    it may be seen before it is whole. `blobs` is a folder of blobs for all jobs, which is read
    only; what this job makes is in its own.
    """

    def __init__(self, path: str, blobs: str) -> None:
        """Name the two folders."""
        self.path, self.blobs = path, blobs
        self._attempt, self._part, self._held = 0, 0, b""

    def claim(self) -> int:
        """Begin an attempt; give its number."""
        attempt = 0
        while self.is_taken(attempt):
            attempt += 1
        self._write(taken(attempt), TAKEN)
        return attempt

    def is_taken(self, attempt: int) -> bool:
        """Say whether an attempt has begun."""
        return os.path.exists(os.path.join(self.path, taken(attempt)))

    def append(self, attempt: int, data: bytes) -> None:
        """Add to the stream; what is small is held back until `flush`."""
        if len(self._held) >= PART:
            self.flush()
        self._attempt = attempt
        self._held += data

    def flush(self) -> None:
        """Write what was held back, as the next part of the stream."""
        if self._held:
            self._write(part(self._attempt, self._part), sealed(self._held))
            self._part, self._held = self._part + 1, b""

    def read(self, attempt: int, position: int) -> bytes:
        """Read the part of the stream at a position, nothing if it is not there yet."""
        try:
            with open(os.path.join(self.path, part(attempt, position)), "rb") as file:
                return opened(file.read())
        except FileNotFoundError:
            return b""

    @staticmethod
    def after(position: int, used: int) -> int:
        """Give the position behind what was used, which is a whole part or nothing."""
        return position + bool(used)

    def get(self, digest: str, target: str) -> None:
        """Write a blob to a new file. Raises Failed where it is not there, or damaged."""
        for folder in (self.blobs, os.path.join(self.path, "blobs")):
            try:
                with open(os.path.join(folder, digest), "rb") as source:
                    take(digest, source.read, target)
                    return
            except FileNotFoundError:
                continue
        raise Failed(f"`{digest}` is not in the shared folder")

    def put(self, digest: str, source: str) -> None:
        """Store a file as a blob of this job."""
        folder = os.path.join(self.path, "blobs")
        place = os.path.join(folder, digest)
        os.makedirs(folder, exist_ok=True)
        if not os.path.exists(place) or os.path.getsize(place) != os.path.getsize(source):
            shutil.copyfile(source, place)

    def recalled(self) -> bool:
        """Say whether the other side has asked us to end."""
        return os.path.exists(os.path.join(self.path, STOP))

    def _write(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(data)


def taken(attempt: int) -> str:
    """Name the file that says that an attempt has begun."""
    return f"{attempt}.taken"


def part(attempt: int, number: int) -> str:
    """Name a part of the stream of an attempt."""
    return f"{attempt}.{number}.part"


def sealed(data: bytes) -> bytes:
    """Give what is written of a part."""
    return _digest(data) + data


def opened(data: bytes) -> bytes:
    """Give what a part holds, nothing while it is not whole."""
    seal, rest = data[:SEAL], data[SEAL:]
    return rest if seal == _digest(rest) else b""


def _digest(data: bytes) -> bytes:
    digest = hasher()
    digest.update(data)
    return bytes(digest.hexdigest().encode("ascii"))

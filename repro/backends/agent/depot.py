"""The folder that both sides share: programs, blobs, and a folder for each job under way."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress

from repro import digest
from repro.backends.agent.carriage import Folder
from repro.backends.agent.carrier import program
from repro.errors import UsageError
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DAY = 86_400
FORGOTTEN = 90 * DAY
SPEC, ORDER = "spec.json", "order.json"


class Depot:
    """A shared folder. Nothing in it is worth keeping but the jobs that are under way.

    A blob that several jobs use is there once: each job's folder links to it, and a blob that no
    job links to is removed a day later.
    """

    def __init__(self, path: str) -> None:
        """Make the folder, for the caller alone. Raises Unreachable."""
        self.path = os.path.abspath(path)
        try:
            for name in ("agents", "cas", "runs", "batches"):
                os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)
            self._tidy()
        except OSError as error:
            raise files.explained(error, "making the shared folder") from error

    def agent(self) -> str:
        """Give the path of the program that runs jobs."""
        data = program()
        path = os.path.join(self.path, "agents", f"{digest.of_bytes(data)[:16]}.pyz")
        if files.read(path) != data:
            files.replace(path, data, durable=False)
        return path

    def parcel(self, run_id: str) -> Parcel:
        """Make the folder of a new job."""
        number = 0
        while True:
            path = self._place(run_id, number)
            try:
                os.mkdir(path, 0o700)
                os.mkdir(os.path.join(path, "blobs"))
                # A network file system may not show for a minute that a file has come to be.
                files.replace(os.path.join(path, "0.frames"), b"", durable=False)
            except FileExistsError:
                number += 1
                continue
            return Parcel(path, os.path.join(self.path, "cas"))

    def found(self, run_id: str) -> Parcel | None:
        """Give the folder of the latest job of a run, if it is there."""
        names = os.listdir(os.path.join(self.path, "runs"))
        numbers = [int(n.partition(".")[2] or 0) for n in names if n.partition(".")[0] == run_id]
        if not numbers:
            return None
        return Parcel(self._place(run_id, max(numbers)), os.path.join(self.path, "cas"))

    def runs(self) -> Iterator[str]:
        """Name the runs that have a folder."""
        names = os.listdir(os.path.join(self.path, "runs"))
        return iter(sorted({name.partition(".")[0] for name in names}))

    def batch(self) -> str:
        """Make a folder for jobs that are submitted as one."""
        path = os.path.join(self.path, "batches", os.urandom(8).hex())
        os.mkdir(path, 0o700)
        return path

    def _place(self, run_id: str, number: int) -> str:
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise UsageError(f"`{run_id}` cannot name a folder")
        name = f"{run_id}.{number}" if number else run_id
        return os.path.join(self.path, "runs", name)

    def _tidy(self) -> None:
        """Once a day, remove blobs that no job links to, and jobs that nobody asks for."""
        mark, now = os.path.join(self.path, "tidied"), time.time()
        if os.path.exists(mark) and os.stat(mark).st_mtime > now - DAY:
            return
        files.replace(mark, b"", durable=False)
        for base, _folders, names in os.walk(os.path.join(self.path, "cas")):
            for name in names:
                _remove_old(os.path.join(base, name), now - DAY)
        for name in os.listdir(os.path.join(self.path, "runs")):
            _remove_old(os.path.join(self.path, "runs", name), now - FORGOTTEN)


def _remove_old(place: str, limit: float) -> None:
    """Remove a folder, or a file that nothing links to; another process may be at it too."""
    with suppress(FileNotFoundError):
        status = os.stat(place)
        if status.st_ctime >= limit:
            return
        if os.path.isdir(place):
            shutil.rmtree(place, ignore_errors=True)
        elif status.st_nlink == 1:
            os.unlink(place)


class Parcel:
    """The folder of one job."""

    def __init__(self, path: str, blobs: str) -> None:
        """Name the folder, and that of all jobs' blobs."""
        self.path = path
        self._blobs = blobs
        self.carriage = Folder(path)

    def put(self, name: str, source: str) -> None:
        """Have a blob in this job's folder, as a link to the one of all jobs where there is one."""
        kept = os.path.join(self._blobs, name[:2], name)
        mine = os.path.join(self.path, "blobs", name)
        if os.path.exists(mine):
            return
        if not os.path.exists(kept):
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            half = f"{kept}.{os.urandom(6).hex()}~"
            shutil.copyfile(source, half)
            os.replace(half, kept)
        try:
            os.link(kept, mine)
        except OSError:  # no links here, or it was removed as unused this moment
            shutil.copyfile(source, mine)

    def distrust(self) -> None:
        """Forget the blobs of this job for all others: one of them is damaged."""
        for name in os.listdir(os.path.join(self.path, "blobs")):
            files.unlink(os.path.join(self._blobs, name[:2], name))

    def write(self, name: str, data: bytes) -> str:
        """Write a file, for the caller's eyes alone; give its path."""
        path = os.path.join(self.path, name)
        files.replace(path, data, durable=False)
        return path

    def order(self) -> dict[str, Any]:
        """Give what was noted about the submission, nothing if that was cut short."""
        try:
            found: dict[str, Any] = json.loads(files.read(os.path.join(self.path, ORDER)) or b"{}")
        except ValueError:
            return {}
        return found

    def note(self, **facts: Any) -> None:
        """Note more about the submission."""
        self.write(ORDER, json.dumps({**self.order(), **facts}).encode("ascii"))

    def said(self, name: str, size: int = 2000) -> str:
        """Give the end of a text."""
        text = files.read(os.path.join(self.path, name)) or b""
        return text[-size:].decode("utf-8", "replace").strip()

    def remove(self) -> None:
        """Remove it all."""
        shutil.rmtree(self.path, ignore_errors=True)

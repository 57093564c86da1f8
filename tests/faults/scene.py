"""A store under attack: what is put into it, what must come out, and what a harness reports."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

from repro import digest, manifest, provenance
from repro.lock import EnvironmentLock
from repro.manifest import Entry, NotAManifest
from repro.record import FINISHED, RunRecord
from repro.step import key_of_parts
from repro.store import integrity, pruning
from repro.store.blobs import BlobMissing, Blobs
from repro.store.history import History
from repro.store.home import Home
from repro.store.memos import Memos
from repro.store.results import Result, Results
from repro.system import files
from repro.value import Value

HOUR_NS = pruning.GRACE_NS
MEMORY = "/dev/shm"


class Tally:
    """What one harness has done. A figure that was not reached is said, and is no pass."""

    def __init__(self, figure, what, asked):
        self.figure, self.what, self.asked = figure, what, asked
        self.done = 0
        self.faults = []
        self.skipped = self.more = ""
        self.began = time.monotonic()
        self.seconds = 0.0

    def fault(self, text):
        self.faults.append(text)

    def end(self, skipped="", *, more=""):
        self.seconds = time.monotonic() - self.began
        self.skipped = skipped
        self.more = more
        return self

    @property
    def missing(self):
        return max(0, self.asked - self.done)

    @property
    def good(self):
        return not self.faults and not self.missing

    def line(self):
        state = "FAILED" if self.faults else "ok"
        if self.missing:
            state = f"SKIPPED {self.missing}" + (f" ({self.skipped})" if self.skipped else "")
            state = f"FAILED, {state}" if self.faults else state
        return (
            f"{self.figure:<4} {self.what:<58} {self.done:>6}/{self.asked:<6} "
            f"faults {len(self.faults):<4} {self.seconds:6.1f} s  {state}"
            + (f"  ({self.more})" if self.more else "")
        )


class Outputs(Value):
    """What step number `number` of a scene gives; every number gives something else."""

    number: int

    @property
    def files(self):
        name = str(self.number).encode()
        return {"a": b"A" * 9000 + name, "sub/b": name, "same": b"shared by all" * 50}

    @property
    def parts(self):
        return {"command": "make", "inputs": digest.EMPTY, "number": str(self.number)}

    @property
    def key(self):
        return key_of_parts(self.parts)


class Scene:
    """A store and a history below `root`, used as an execution and a hit use them."""

    def __init__(self, root):
        self.root = str(root)
        self.home = Home(os.path.join(self.root, "store"))
        self.blobs = Blobs(self.home)
        self.results = Results(self.home)
        self.memos = Memos(self.home)
        self.history = History(os.path.join(self.root, "data"))

    def open(self):
        self.home.open()
        return self

    def close(self):
        self.history.close()
        self.home.close()

    # -- what processes do

    def publish(self, number):
        """Publish a result as an execution does: blobs, then the record, then the history."""
        self.home.open()
        step = Outputs(number=number)
        entries = tuple(
            Entry(path=path, kind="file", content=self.blobs.put(data), size=len(data))
            for path, data in step.files.items()
        )
        outputs = self.blobs.put(manifest.encode(entries))
        empty = self.blobs.put(manifest.encode(()))
        log = self._log(number)
        run = RunRecord(
            run_id=digest.of_bytes(str(number).encode())[:32],
            status=FINISHED,
            project="/scene",
            entry_point="main",
            started_ns=time.time_ns(),
            key=step.key,
            parts=step.parts,
            log=log,
        )
        lock = EnvironmentLock(kind="local")
        made = provenance.Made(run=run, parts=step.parts, outputs=entries, artifacts=(), lock=lock)
        statement = self.blobs.put(provenance.encode(provenance.statement(made)))
        self.blobs.sync()
        self.results.put(
            Result(
                key=step.key,
                parts=step.parts,
                run_id=run.run_id,
                outputs=outputs,
                artifacts=empty,
                log=log,
                provenance=statement,
            )
        )
        self.home.close()

    def _log(self, number):
        path = os.path.join(self.home.scratch(), "log")
        files.replace(path, f'[0,"stdout","{number}"]\n'.encode(), durable=False)
        return self.blobs.put_file(path)[0]

    def spool(self, number):
        """Note a hit in the history."""
        return self.history.spool(
            RunRecord(
                run_id=f"{number:032x}",
                status=FINISHED,
                project="/scene",
                entry_point="main",
                started_ns=number,
                cached=True,
            )
        )

    def remember(self, number):
        """Write a memo, over the last one."""
        self.memos.put("scene", "x", {"number": number, "text": "x" * 3000})

    def locked(self, number):
        """Take a lock, do something, and remove the lock."""
        self.home.open()
        with self.home.lock(f"key-{number % 7}") as held:
            files.replace(self.home.path("memo", "plain.json"), b"[%d]" % number)
            files.unlink(held.path)

    def prune(self, number=0, *, ahead_ns=0, before_ns=None):
        """Remove what is old; `ahead_ns` is how far in the future that is."""
        now = time.time_ns() + ahead_ns
        before = now - 30 * 24 * HOUR_NS if before_ns is None else before_ns
        return pruning.prune(
            self.home, self.blobs, self.results, pruning.Limits(before_ns=before, now_ns=now)
        )

    # -- what must hold

    def look(self, number):
        """Say how a result comes out: `exact`, `absent`, or what is wrong with it."""
        step = Outputs(number=number)
        result = self.results.get(step.key)
        if result is None:
            return "absent"
        folder = tempfile.mkdtemp(dir=MEMORY if os.path.isdir(MEMORY) else None)
        try:
            entries = manifest.decode(self.blobs.get(result.outputs))
            self.blobs.write(entries, folder)
            found = {e.path: read(os.path.join(folder, e.path)) for e in entries}
        except (BlobMissing, NotAManifest):
            return "absent"
        finally:
            shutil.rmtree(folder)
        return "exact" if found == step.files else "WRONG BYTES"

    def faults(self):
        """Give what a full check finds."""
        report = integrity.verify(self.home, self.blobs, self.results, jobs=1)
        return [f"{f.what} {f.name[:12]} {f.fault}: {f.detail}" for f in report.findings]

    def leftovers(self):
        """Give what is there after a collection that nobody needs."""
        self.prune(ahead_ns=2 * HOUR_NS)
        found = [f"tmp/{name}" for name in os.listdir(self.home.path("tmp"))]
        found += [f"leases/{name}" for name in os.listdir(self.home.path("leases"))]
        for base, _folders, names in os.walk(self.home.root):
            found += [os.path.join(base, name) for name in names if name.endswith("~")]
        return found


def read(path):
    with open(path, "rb") as file:
        return file.read()


def folder(*, on_disk=False):
    """Make a folder for a scene, in memory where that is possible."""
    place = MEMORY if not on_disk and os.access(MEMORY, os.W_OK) else None
    return tempfile.mkdtemp(prefix="repro-faults-", dir=place)

"""Machines that share a remote: stores of their own, and results to put into them."""

from __future__ import annotations

import os

from repro import canonical, manifest
from repro.machine import Machine
from repro.manifest import Entry
from repro.ports import ChildRun
from repro.remote import sharing
from repro.remote.port import Limits
from repro.step import key_of_parts
from repro.store.results import Result
from repro.value import dump

LIMITS = Limits(
    connect=2,
    answer=2,
    commit=20,
    stall=3,
    tries=3,
    first_pause=0.01,
    longest_pause=1,
    part=1 << 20,
)


class Host:
    """One machine: its store, what it was told, and its way to a remote."""

    def __init__(self, folder, environ=None):
        self.folder = folder
        self.environ = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "REPRO_HOME": str(folder / "store"),
            "REPRO_DATA": str(folder / "data"),
            **(environ or {}),
        }
        self.events = []
        self.machine = Machine(self.environ, self.events.append)

    def share(self, url="", limits=LIMITS, **settings):
        """Connect to a remote; `settings` are variables."""
        self.machine.environ = {**self.environ, **settings}
        return sharing.connect(self.machine, url, limits=limits)

    @property
    def warnings(self):
        return [e.text for e in self.events if type(e).__name__ == "Warned"]

    def tree(self, files):
        """Keep files; give the digest of their list."""
        entries = [
            Entry(path=path, kind="file", content=self.machine.blobs.put(data), size=len(data))
            for path, data in files.items()
        ]
        return self.machine.blobs.put(manifest.encode(entries))

    def make(self, name="a", files=None, logged=None, **changes):
        """Keep a result as a run would; give its key."""
        files = {"out.txt": f"output of {name}\n".encode()} if files is None else files
        parts = {"command": name, "inputs": "0" * 64, "outputs": None, **changes.pop("parts", {})}
        log = canonical.encode([0, "stdout", f"hello from {name}\n"]) + b"\n"
        child = ChildRun(name="fold", status="FINISHED", artifacts=self.tree({"f": b"fold"}))
        given = {
            "key": key_of_parts(parts),
            "parts": parts,
            "run_id": os.urandom(16).hex(),
            "outputs": self.tree(files),
            "artifacts": self.tree(logged or {}),
            "log": self.machine.blobs.put(log),
            "log_size": 20,
            "metrics": (("loss", "0.5", 1, 0),),
            "parameters": {"lr": "0.1"},
            "tags": {"kind": "test"},
            "children": (dump(child),),
            "ended_ns": 5,
            "wall_ns": 7,
        }
        result = Result(**{**given, **changes})
        self.machine.blobs.sync()
        self.machine.results.put(result)
        return result.key

    def read(self, key):
        """Give the outputs of a result by path, every byte checked; None for no result."""
        result = self.machine.results.get(key)
        if result is None:
            return None
        blobs = self.machine.blobs
        entries = manifest.decode(blobs.get(result.outputs))
        return {entry.path: blobs.get(entry.content) for entry in entries}

    def close(self):
        self.machine.close()

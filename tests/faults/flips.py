"""Bits that flip, and files that are cut off, anywhere in a store and in what was written."""

from __future__ import annotations

import os
import random
import shutil
import time

from faults import scene

from repro.manifest import Entry
from repro.store import integrity
from repro.store.placement import Placement

RESULTS = 12
AT_ONCE = 10


def run(flips, *, seed=1, first_fault=False):
    """Damage `flips` files: nothing wrong is served, all is found, and all can be put right."""
    tally = scene.Tally("F9", "bit flips and truncations of a store", flips)
    rng = random.Random(seed)
    root, twin = scene.folder(), scene.folder()
    try:
        other = _filled(twin)
        while tally.done < flips and not (tally.faults and first_fault):
            shutil.rmtree(root)
            shutil.copytree(twin, root)
            _batch(scene.Scene(root), other, min(AT_ONCE, flips - tally.done), rng, tally)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(twin, ignore_errors=True)
    return tally.end()


def _filled(root):
    place = scene.Scene(root).open()
    for number in range(RESULTS):
        place.publish(number)
        place.memos.put("scene", str(number), {"number": number})
    return place


def _batch(place, other, count, rng, tally):
    targets = [
        os.path.join(base, name)
        for part in ("cas", "ac", "memo")
        for base, _folders, names in os.walk(place.home.path(part))
        for name in names
    ]
    damaged = rng.sample(sorted(targets), min(count, len(targets)))
    wrong = {path: _damage(path, rng) for path in damaged}
    tally.done += len(damaged)
    _found(place, damaged, tally)
    _served(place, tally)
    for path, data in wrong.items():  # a look took it out of the way
        _write(path, data)
    _repaired(place, other, rng.random() < 0.5, tally)


def _damage(path, rng):
    data = bytearray(scene.read(path))
    if rng.random() < 0.3 or not data:
        data = data[: rng.randrange(len(data))] if data else bytearray(b"\0")
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    _write(path, bytes(data))
    return bytes(data)


def _write(path, data):
    if os.path.exists(path):
        os.unlink(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def _found(place, damaged, tally):
    report = integrity.verify(place.home, place.blobs, place.results)
    found = {finding.name for finding in report.findings}
    for path in damaged:
        name = os.path.basename(path)
        whole = os.path.basename(os.path.dirname(path)) + name
        if not {name, whole} & found:
            tally.fault(f"a full check does not find the damage of {path}")


def _served(place, tally):
    for number in range(RESULTS):
        if place.look(number) == "WRONG BYTES":
            tally.fault(f"wrong bytes are served for result {number}")
        known = place.memos.get("scene", str(number))
        if known not in (None, {"number": number}):
            tally.fault(f"a wrong memo is believed: {known}")


class Copy:
    """A store that is asked for what another one lost."""

    def __init__(self, place, other):
        self.place, self.other = place, other

    def fetch_blob(self, name, _size):
        if not self.other.blobs.is_sound(name):
            return False
        self.place.blobs.put(self.other.blobs.get(name))
        return True

    def fetch_result(self, key):
        found = self.other.results.get(key)
        if found is not None:
            self.place.results.put(found)
        return found


def _repaired(place, other, with_copy, tally):
    """Repair, by turns with another copy and without."""
    store = (place.home, place.blobs, place.results)
    report = integrity.verify(*store)
    report = integrity.repair(report, *store, Copy(place, other) if with_copy else None)
    undone = [finding for finding in report.findings if not finding.repair]
    if undone:
        tally.fault(f"nothing is done about {undone[0]}")
    kept = [f for f in report.findings if f.what in ("blob", "result") and f.repair != "fetched"]
    if with_copy and kept:
        tally.fault(f"what has another copy is not healed: {kept[0]}")
    left = integrity.verify(*store).findings
    if left:
        tally.fault(f"a repair leaves {left[0]}")
    for number in range(RESULTS):
        place.publish(number)
        if place.look(number) != "exact":
            tally.fault(f"after a repair, result {number} cannot be made again")


def placed(edits, *, first_fault=False):
    """Change outputs in their places without changing their size or time: seen each time."""
    tally = scene.Tally("F13", "outputs changed behind their size and time", edits)
    root = scene.folder()
    try:
        place = scene.Scene(root).open()
        target = os.path.join(root, "project")
        os.mkdir(target)
        data = b"right\n" * 100
        entry = Entry(path="o", kind="file", content=place.blobs.put(data), size=len(data))
        for number in range(edits):
            placement = Placement(target, place.home, place.blobs, place.memos)
            placement.place([entry], "main", known={}, since_ns=time.time_ns())
            placement.settle()
            placement.remember()
            path = os.path.join(target, "o")
            state = os.stat(path)
            with open(path, "r+b") as file:
                file.seek(number % len(data))
                file.write(b"#")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            if Placement(target, place.home, place.blobs, place.memos).in_place([entry]):
                tally.fault(f"edit {number} of an output is not seen")
                if first_fault:
                    break
            os.unlink(path)
            tally.done += 1
    finally:
        shutil.rmtree(root)
    return tally.end()

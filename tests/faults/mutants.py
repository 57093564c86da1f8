"""Faults that are planted into the store, to see that each of them is found.

`python -m faults.mutants NAME WORDS…` is the command line with a fault planted.
"""

from __future__ import annotations

import errno
import os
import sys

from faults import errors, flips, lostwrites, scene, shim, sweep, two_hosts

from repro import digest
from repro.environments import cache
from repro.store import blobs, pruning, results
from repro.store.home import Home
from repro.system import files


def no_fsync():
    """Blobs and records are not synced; folders are."""

    def fsync(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.fsync(fd)

    files.os = blobs.os = Around(os, fsync=fsync)


def no_folder_fsync():
    """Names are not synced."""
    files.sync_folder = lambda _path: None


def write_in_place():
    """A blob is written where it belongs, bit by bit."""

    def put(self, data):
        name = digest.of_bytes(data)
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        files.write_all(fd, data)
        os.fsync(fd)
        os.close(fd)
        self._unsynced.add(os.path.dirname(path))
        return name

    blobs.Blobs.put = put


def record_before_blobs():
    """A result is published before what it names."""
    put, sync, late = blobs.Blobs.put, blobs.Blobs.sync, []

    def later(self, data):
        late.append((self, data))
        return digest.of_bytes(data)

    published = results.Results.put

    def first(self, result):
        published(self, result)
        for store, data in late:
            put(store, data)
            sync(store)
        late.clear()

    blobs.Blobs.put, results.Results.put = later, first


def fixed_half_name():
    """Whatever is half-written has the same name every time."""
    files.os = Around(os, urandom=lambda count: b"\0" * count, getpid=lambda: 1)


def no_hash_on_read():
    """A blob is believed by its name."""

    def get(self, name):
        data = files.read(self.path(name))
        if data is None:
            raise blobs.BlobMissing(name)
        return data

    blobs.Blobs.get = get
    blobs.Blobs._copy = lambda _self, source, target, name: (
        [files.write_all(target, piece) for piece in files.chunks(source)] and name
    )


def lock_by_pid():
    """A lock is a file with a process id in it, held while that process lives here."""

    def take(self, *, wait=True):
        while True:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                words = (files.read(self.path) or b"").split()
                if words and not os.path.exists(f"/proc/{int(words[0])}"):
                    files.unlink(self.path)
                elif not wait:
                    return False
                continue
            os.write(fd, str(os.getpid()).encode())
            self.fd = fd
            return True

    def free(self):
        if self.fd >= 0:
            os.close(self.fd)
            files.unlink(self.path)
            self.fd = -1

    files.Lock.take, files.Lock.free = take, free


def collection_without_grace():
    """A collection takes what nothing names yet."""
    pruning.GRACE_NS = 0
    Home.since = lambda _self, now_ns: now_ns


def by_time_and_size_only():
    """A file is the same if its size and its time are."""
    files.state = lambda status: [0, 0, status.st_size, status.st_mtime_ns, 0, status.st_mode]


def fsync_tried_again():
    """A sync that failed is tried once more, and then believed."""

    def again(fd):
        try:
            os.fsync(fd)
        except OSError:
            os.fsync(fd)

    files.os = blobs.os = Around(os, fsync=again)


def full_disk_swallowed():
    """What does not fit is left out."""

    def write_all(fd, data):
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    files.write_all = write_all


def half_environment():
    """An environment is taken for whole as soon as its folder is there."""
    cache._ready = lambda place, _lock, _fits: os.path.isdir(place.prefix)


class Around:
    """A module with some of its functions replaced; the others are looked up when called."""

    def __init__(self, module, **instead):
        self._module = module
        self.__dict__.update(instead)

    def __getattr__(self, name):
        return getattr(self._module, name)


PUBLISH = (sweep.Publish,)
MUTANTS = {
    "no fsync": (no_fsync, lambda: lostwrites.run(200, first_fault=True)),
    "no fsync of folders": (no_folder_fsync, lambda: lostwrites.run(200, first_fault=True)),
    "write in place": (write_in_place, lambda: sweep.run(150, PUBLISH, first_fault=True)),
    "record before blobs": (
        record_before_blobs,
        lambda: sweep.run(300, PUBLISH, first_fault=True),
    ),
    "fixed name of halves": (fixed_half_name, lambda: sweep.run(300, PUBLISH, first_fault=True)),
    "no hash on read": (no_hash_on_read, lambda: flips.run(100, first_fault=True)),
    "lock by process id": (lock_by_pid, None),
    "collection without grace": (
        collection_without_grace,
        lambda: sweep.interleaved(120, first_fault=True),
    ),
    "time and size only": (by_time_and_size_only, lambda: flips.placed(10, first_fault=True)),
    "fsync tried again": (
        fsync_tried_again,
        lambda: errors.run(400, operations=PUBLISH, first_fault=True),
    ),
    "full disk swallowed": (
        full_disk_swallowed,
        lambda: errors.run(600, operations=PUBLISH, first_fault=True),
    ),
    "half an environment": (
        half_environment,
        lambda: sweep.run(100, (sweep.Environment,), first_fault=True),
    ),
}


def run():
    """Plant each fault in a copy of this process, and see whether the harness finds it."""
    tally = scene.Tally("F19", "planted faults of the store that are found", len(MUTANTS))
    skipped = ""
    for name, (plant, form) in MUTANTS.items():
        if form is None:
            found = two_hosts.run(4, mutant=name, first_fault=True)
            skipped = skipped or found.skipped
            if found.skipped:
                continue
            caught = bool(found.faults)
        else:
            caught = shim.forked(lambda plant=plant, form=form: _caught(plant, form)) == 1
        tally.done += 1
        if not caught:
            tally.fault(f"nothing finds `{name}`")
    return tally.end(skipped)


def _caught(plant, form):
    plant()
    return int(bool(form().faults))


if __name__ == "__main__":
    if sys.argv[1]:
        MUTANTS[sys.argv[1]][0]()
    from repro.cli import main

    sys.exit(main(sys.argv[2:]))

"""Power cuts without a power cut: what a disk may hold at each moment of a publication.

A recorder notes what a publication does to files and folders. At each call two disks are made
that a cut could leave: one with only what was synced, and one with all names and only the synced
bytes. On both, a result must be exact or absent; after the end of its publication, exact.
"""

from __future__ import annotations

import os
import shutil
import stat

from faults import scene, shim

MODELS = ("only what was synced", "all names with synced bytes")
REAL = {name: getattr(os, name) for name in ("mkdir", "open", "close")}


class Recorder:
    """Watches the calls of this process below `root`, and keeps a model of the disk.

    `names` are the paths as programs see them, `durable` as the disk has them, each with its
    inode, or None for a folder. `synced` are the bytes of inodes that were synced.
    """

    def __init__(self, root, disks):
        self.root, self.disks = root, disks
        self.names, self.durable, self.synced, self.opened = {}, {}, {}, {}
        self.made = 0
        self.last = [None, None]
        for base, folders, names in os.walk(root):
            for name in (*folders, *names):
                self._learn(os.path.join(base, name))
        self.durable = dict(self.names)
        for path, inode in self.names.items():
            if inode is not None:
                self.synced[inode] = scene.read(path)

    def watch(self):
        for name in ("open", "fsync", "rename", "replace", "link", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):
        def call(*args, **options):
            answer = real(*args, **options)
            if name == "fsync":
                self._synced(args[0])
            elif options.get("dir_fd") is None:
                if name == "open":
                    self.opened[answer] = args[0]
                self._changed(*args[:2])
            self.cut()
            return answer

        return call

    def _learn(self, path):
        status = os.lstat(path)
        self.names[path] = None if stat.S_ISDIR(status.st_mode) else status.st_ino

    def _changed(self, *paths):
        for path in paths:
            if isinstance(path, str) and path.startswith(self.root):
                if os.path.lexists(path):
                    self._learn(path)
                else:
                    self.names.pop(path, None)

    def _synced(self, fd):
        status = os.fstat(fd)
        if not stat.S_ISDIR(status.st_mode):
            self.synced[status.st_ino] = scene.read(f"/proc/self/fd/{fd}")
            return
        inside = [p for p in {*self.durable, *self.names} if is_in(p, self.opened[fd])]
        for path in inside:
            self.durable.pop(path, None)
            if path in self.names:
                self.durable[path] = self.names[path]

    def cut(self, word=""):
        """Make the disks that a cut could leave now, unless they are those of the last time."""
        for model, names in enumerate((self.durable, self.names)):
            disk = {path: self._bytes(inode) for path, inode in names.items()}
            if disk != self.last[model] or word:
                self.last[model] = disk
                self.made += 1
                self._make(disk, os.path.join(self.disks, f"{self.made:04}-{model}{word}"))

    def _bytes(self, inode):
        return None if inode is None else self.synced.get(inode, b"")

    def _make(self, disk, target):
        REAL["mkdir"](target)
        for path in sorted(disk):
            place = target + path[len(self.root) :]
            if not os.path.isdir(os.path.dirname(place)):
                continue  # its folder was lost, and it with it
            if disk[path] is None:
                REAL["mkdir"](place)
            else:
                with open(place, "wb") as file:
                    file.write(disk[path])


def is_in(path, folder):
    return os.path.dirname(path) == folder


def run(cuts, *, first_fault=False):
    """Cut at every call of publications, `cuts` times in all."""
    tally = scene.Tally("F3", "power cuts of a modelled disk", cuts)
    number = 0
    while tally.done < cuts and not (tally.faults and first_fault):
        number += 1
        before = tally.done
        _publication(number, tally)
        if tally.done == before:
            tally.fault("no cut was made")
            break
    return tally.end()


def _publication(number, tally):
    root, disks = scene.folder(), scene.folder()
    try:
        place = scene.Scene(root).open()
        place.publish(0)

        def recorded():
            recorder = Recorder(root, disks)
            recorder.watch()
            place.publish(number)
            recorder.cut("-end")

        status = shim.forked(recorded)
        if status:
            tally.fault(f"a publication ended with {status}")
        for name in sorted(os.listdir(disks)):
            tally.done += 1
            tally.faults += _faults(os.path.join(disks, name), number)
    finally:
        shutil.rmtree(root)
        shutil.rmtree(disks)


def _faults(disk, number):
    """Say what is wrong with what a cut left."""
    count, _, rest = os.path.basename(disk).partition("-")
    where = f"cut {int(count)}, {MODELS[int(rest[0])]}"
    place = scene.Scene(disk)
    found = place.look(number)
    allowed = ("exact",) if rest.endswith("end") else ("exact", "absent")
    faults = [] if found in allowed else [f"{where}: the result is {found}"]
    if place.look(0) != "exact":
        faults.append(f"{where}: an earlier result is lost")
    return faults + [f"{where}: {fault}" for fault in place.faults()]

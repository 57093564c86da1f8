"""Power cuts without a power cut: what a disk may hold at each moment of a publication.

A recorder notes what a publication does to files and folders. At each call two disks are made
that a cut could leave: one where only what was synced is there, and one where all names are there
and only synced bytes. On both, the result must be exact or absent; after the end, exact.
"""

from __future__ import annotations

import os
import shutil
import stat

from faults import scene


class Recorder:
    """Watches the calls of this process, and models what is durable."""

    def __init__(self, root, seen):
        self.root = root
        self.seen = seen
        self.names = {}
        """Path to inode, and for a folder to None, as programs see it."""
        self.durable = {}
        """The same, as a disk has it after a cut."""
        self.synced = {}
        """Inode to the bytes that were synced."""
        self.places = {}
        """Descriptor to its path."""
        for base, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = os.path.join(base, name)
                self._learn(path)
                self.durable[path] = self.names[path]
                if self.names[path] is not None:
                    self.synced[self.names[path]] = scene.read(path)

    def _learn(self, path):
        status = os.lstat(path)
        self.names[path] = None if stat.S_ISDIR(status.st_mode) else status.st_ino

    def set(self):
        for name in ("open", "fsync", "rename", "replace", "link", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):
        def call(*args, **options):
            answer = real(*args, **options)
            if options.get("dir_fd") is None:
                getattr(self, f"_{name}", self._changed)(answer, *args)
                self.seen(self)
            return answer

        return call

    def _changed(self, _answer, *paths):
        """Take over what became of the names of a call that moved, made or removed some."""
        for path in paths[:2]:
            if isinstance(path, str) and path.startswith(self.root):
                if os.path.lexists(path):
                    self._learn(path)
                else:
                    self.names.pop(path, None)

    def _open(self, fd, path, *_more):
        self.places[fd] = path
        self._changed(fd, path)

    def _fsync(self, _answer, fd):
        path = self.places.get(fd, "")
        status = os.fstat(fd)
        if not stat.S_ISDIR(status.st_mode):
            self.synced[status.st_ino] = os.pread(os.open(f"/proc/self/fd/{fd}", 0), 1 << 30, 0)
            return
        for known in [p for p in self.durable if os.path.dirname(p) == path]:
            if known not in self.names:
                del self.durable[known]
        for known, inode in self.names.items():
            if os.path.dirname(known) == path:
                self.durable[known] = inode

    def disks(self):
        """Give the disks that a cut could leave now: names with their bytes."""
        yield "only what was synced", self.durable
        yield "all names, synced bytes", self.names

    def make(self, names, target):
        """Write a disk into a folder."""
        for path in sorted(names):
            place = target + path[len(self.root) :]
            if not os.path.isdir(os.path.dirname(place)):
                continue  # its folder was lost, and it with it
            if names[path] is None:
                os.mkdir(place)
            else:
                with open(place, "wb") as file:
                    file.write(self.synced.get(names[path], b""))


def run(cuts, *, first_fault=False):
    """Cut at every call of publications, `cuts` times in all."""
    tally = scene.Tally("F3", "power cuts of a modelled disk", cuts)
    number = 0
    while tally.done < cuts and not (tally.faults and first_fault):
        number += 1
        _publication(number, tally)
    return tally.end()


def _publication(number, tally):
    """Publish one result after another, and remember every disk that a cut could leave."""
    from faults import shim

    root, disks = scene.folder(), scene.folder()
    try:
        place = scene.Scene(root).open()
        place.publish(0)
        place.close()

        def recorded():
            count = 0

            def seen(recorder):
                nonlocal count
                count += 1
                for kind, (_text, names) in enumerate(recorder.disks()):
                    target = os.path.join(disks, f"{count:04}-{kind}")
                    mkdir(target)
                    recorder.quiet = True
                    recorder.make(names, target)

            mkdir = os.mkdir
            recorder = _Quiet(root, seen)
            recorder.set()
            place.publish(number)
            recorder.last(disks)

        status = shim.forked(recorded)
        if status:
            tally.fault(f"publication ended with {status}")
        for name in sorted(os.listdir(disks)):
            _check(os.path.join(disks, name), number, tally)
    finally:
        shutil.rmtree(root)
        shutil.rmtree(disks)

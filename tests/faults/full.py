"""Disks that are full to a certain level, of bytes and of inodes, under the real command line."""

from __future__ import annotations

import os
import shutil
import subprocess

from faults import errors, scene

SIZE = 6 << 20
INODES = 400
PAGE = 4096
MLPROJECT = (
    "entry_points: {main: {command: 'head -c 300000 /dev/zero > o; for i in a b c d e f; "
    "do echo $i > p$i; done', outputs: ['o', 'p*']}}\n"
)
RUN = ("run", "--env-manager", "local")


def run(levels):
    """Run a step on a disk with less and less room, by bytes and by inodes in turns."""
    tally = scene.Tally("F5", "levels of full disks, by bytes and by inodes", levels)
    if os.getuid() != 0:
        return tally.end("needs root")
    root = scene.folder()
    try:
        disk = os.path.join(root, "store")
        os.mkdir(disk)
        command = errors.Command(root)
        with open(os.path.join(command.project, "MLproject"), "w") as file:
            file.write(MLPROJECT)
        for level in range(levels):
            part = (level // 2) / max(1, levels // 2)
            problem = _level(command, disk, part, by_bytes=level % 2 == 0, tally=tally)
            if problem:
                return tally.end(problem)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return tally.end()


def _level(command, disk, part, *, by_bytes, tally):
    options = f"size={SIZE},nr_inodes={INODES},mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False
    )
    if done.returncode:
        return done.stderr.decode().strip()[-80:]
    try:
        room = int(part * 1_200_000 / PAGE) if by_bytes else int(part * 120)
        _fill(disk, room, by_bytes=by_bytes)
        where = f"room for {room} {'pages' if by_bytes else 'inodes'}"
        status, printed, _told, _count = command.call((*RUN, "--refresh"))
        if status not in (0, 1, 7) or "Traceback" in printed:
            tally.fault(f"{where}: ends with {status}: {printed[-500:]}")
        if status == 1 and "space" not in printed and "full" not in printed:
            tally.fault(f"{where}: does not say what is wrong: {printed[-500:]}")
        shutil.rmtree(os.path.join(disk, "filler"))
        faults = _after(command, disk)
        tally.faults += [f"{where}: {fault}" for fault in faults]
        tally.done += 1
    finally:
        subprocess.run(["umount", disk], check=False)
    return ""


def _fill(disk, room, *, by_bytes):
    folder = os.path.join(disk, "filler")
    os.mkdir(folder)
    free = os.statvfs(disk)
    if by_bytes:
        with open(os.path.join(folder, "bytes"), "wb") as file:
            file.writelines(b"x" * PAGE for _page in range(max(0, free.f_bavail - room)))
        return
    for number in range(max(0, free.f_favail - room)):
        with open(os.path.join(folder, str(number)), "wb"):
            pass


def _after(command, disk):
    """Say what is wrong once there is room again."""
    faults = []
    status, printed, _told, _count = command.call(RUN)
    if status:
        faults.append(f"the next run ends with {status}: {printed[-300:]}")
    elif len(scene.read(os.path.join(command.project, "o"))) != 300_000:
        faults.append("an output is wrong")
    status, printed, _told, _count = command.call(("cache", "verify"))
    if status:
        faults.append(f"`cache verify` ends with {status}: {printed[-300:]}")
    command.call(("cache", "prune"))
    left = os.listdir(os.path.join(disk, "tmp"))
    return [*faults, f"left behind: {left}"] if left else faults

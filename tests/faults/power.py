"""Real power cuts: a file system on a loop device is shut down while results are published."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time

from faults import scene, shim

from repro.record import FINISHED, RunRecord

SYSTEMS = {
    "ext4": (("mkfs.ext4", "-q", "-F"), "loop,noauto_da_alloc"),
    "xfs": (("mkfs.xfs", "-q", "-f"), "loop,nouuid"),
}
LOGS = {"log kept": "shutdown -f", "log lost": "shutdown"}
SIZE = 400 << 20
PATIENCE = 100
FRESH = 25
"""Cuts after which the file system is made anew."""


def missing():
    """Say what keeps power from being cut here, or nothing."""
    if os.getuid() != 0:
        return "needs root"
    wanted = ("xfs_io", "mount", *(make[0] for make, _options in SYSTEMS.values()))
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [name for name in wanted if not shutil.which(name, path=path)]
    if lacking:
        return f"needs {' and '.join(lacking)}"
    return "" if os.path.exists("/dev/loop-control") else "needs loop devices"


def run(cuts, *, seed=1, first_fault=False):
    """Cut `cuts` times, by turns with each file system, with its log kept and lost."""
    tally = scene.Tally("F3", "power cuts: ext4 and XFS, log kept and lost", cuts)
    lacking = missing()
    if lacking:
        return tally.end(lacking)
    rng = random.Random(seed)
    kinds = [(system, log) for system in SYSTEMS for log in LOGS]
    for index, (system, log) in enumerate(kinds):
        share = cuts // len(kinds) + (index < cuts % len(kinds))
        while share > 0:
            part = min(share, FRESH)
            problem = _cuts(system, log, part, rng, tally)
            if problem:
                return tally.end(problem)
            if tally.faults and first_fault:
                return tally.end()
            share -= part
    return tally.end()


def _cuts(system, log, count, rng, tally):
    """Cut some times on one file system; say what kept it from being used, or nothing."""
    folder = scene.folder()
    image, mount = os.path.join(folder, "image"), os.path.join(folder, "mount")
    os.mkdir(mount)
    make, options = SYSTEMS[system]
    try:
        with open(image, "wb") as file:
            file.truncate(SIZE)
        problem = _call(*make, image) or _call("mount", "-o", options, image, mount)
        if problem:
            return problem
        place = scene.Scene(mount).open()
        place.publish(0)
        place.history.find()
        place.close()
        acknowledged, first = [0], 1
        for _cut in range(count):
            more, first = _published(mount, log, first, rng)
            acknowledged += more
            problem = _remounted(image, mount, options)
            if problem:
                return problem
            tally.done += 1
            faults = _faults(mount, acknowledged, first - 1)
            tally.faults += [f"{system}, {log}: {fault}" for fault in faults]
    finally:
        _call("umount", mount)
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def _remounted(image, mount, options):
    """Mount the file system again; say what is in the way, or nothing.

    It stays shut down as long as a sandbox that was made meanwhile has a copy of the old mount.
    """
    for _ in range(PATIENCE):
        problem = _call("umount", mount) or _call("mount", "-o", options, image, mount)
        if problem:
            return problem
        try:
            os.listdir(mount)
        except OSError:
            time.sleep(0.1)
        else:
            return ""
    return "the file system is in use elsewhere"


def _published(mount, log, first, rng):
    """Publish until the power is cut; give what was acknowledged before, and the next number.

    What is acknowledged while the cut is under way does not count: a machine without power
    acknowledges nothing, but here a call may still return that was made before.
    """
    ready, told = os.pipe()

    def publish():
        os.close(ready)
        place = scene.Scene(mount).open()
        for number in range(first, first + 1000):
            place.publish(number)
            place.history.put(_run(number))
            os.write(told, b"%d\n" % number)

    pid = shim.start(publish)
    os.close(told)
    data = b""
    while data.count(b"\n") < rng.randint(1, 4):
        data += os.read(ready, 1000)
    time.sleep(rng.uniform(0, 0.02))
    os.set_blocking(ready, False)
    try:
        data += os.read(ready, 1 << 16)
    except BlockingIOError:
        pass
    _call("xfs_io", "-x", "-c", LOGS[log], mount)
    os.waitpid(pid, 0)
    os.close(ready)
    found = [int(line) for line in data.split()]
    return found, found[-1] + 1000


def _run(number):
    return RunRecord(
        run_id=f"{number:032x}",
        status=FINISHED,
        project="/scene",
        entry_point="main",
        started_ns=number,
    )


def _faults(mount, acknowledged, last):
    place = scene.Scene(mount)
    lost = [number for number in acknowledged[-8:] if place.look(number) != "exact"]
    faults = [f"{len(lost)} acknowledged results are lost: {lost[:3]}"] if lost else []
    known = {run.run_id for run in place.history.find()}
    runs = [number for number in acknowledged[1:] if f"{number:032x}" not in known]
    faults += [f"{len(runs)} acknowledged runs are lost: {runs[:3]}"] if runs else []
    if acknowledged[-1] < last and place.look(acknowledged[-1] + 1) == "WRONG BYTES":
        faults.append("a result that was cut off is served with wrong bytes")
    faults += place.faults()
    place.close()
    return faults


def _call(*command):
    """Run a program; give what it complains about, or nothing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "PATH": path}
    )
    text = done.stderr.decode("utf-8", "replace").strip()
    return f"{command[0]}: {text[-100:]}" if done.returncode else ""

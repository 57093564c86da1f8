"""Kills before, in the middle of and after every system call of every operation of a store."""

from __future__ import annotations

import os
import random
import shutil
import time

from faults import scene, shim

from repro.environments import cache
from repro.lock import EnvironmentLock, Interpreter

WARM = 1 << 40
"""The number of a publication that counts for nothing."""

ROUND = 15
"""Points after which a new store begins: checks of a small one are fast."""


class Operation:
    """Something that may be killed, and how to see that it did all or nothing."""

    def __init__(self, place):
        self.place = place

    def prepare(self, number):
        """Make what the operation needs."""

    def acknowledged(self, number):
        """Say what is wrong after it has ended well; nothing if all is there."""
        return ""

    def recovered(self, number):
        """Do it again, without faults; say what is wrong with what comes out."""
        self.act(number)
        return self.acknowledged(number)


class Publish(Operation):
    def act(self, number):
        self.place.publish(number)

    def acknowledged(self, number):
        found = self.place.look(number)
        return "" if found == "exact" else f"result is {found}"


class History(Operation):
    def act(self, number):
        if not self.place.spool(number):
            raise OSError(5, "not spooled")

    def acknowledged(self, number):
        ids = {run.run_id for run in self.place.history.find()}
        self.place.history.close()
        return "" if f"{number:032x}" in ids else "a run is not in the history"


class Memo(Operation):
    def act(self, number):
        self.place.remember(number)

    def acknowledged(self, number):
        known = self.place.memos.get("scene", "x")
        good = known is None or known["text"] == "x" * 3000
        return "" if good else "a memo is wrong"


class Lock(Operation):
    def act(self, number):
        self.place.locked(number)


class Prune(Operation):
    def prepare(self, number):
        self.place.publish(number)
        half = self.place.home.path("memo", f"left-{number}~")
        with open(half, "wb"):
            pass

    def act(self, number):
        now = time.time_ns() + 2 * scene.HOUR_NS
        self.place.prune(ahead_ns=2 * scene.HOUR_NS, before_ns=now)

    def recovered(self, number):
        self.act(number)
        found = self.place.look(number)
        return "" if found == "absent" else f"an old result is {found} after a collection"


class Environment(Operation):
    """An environment of three files, built where it stays."""

    TEXT = b"print(1)\n" * 500

    def act(self, number):
        python = Interpreter(implementation="scene", version=str(number), abi="", platform="")
        lock = EnvironmentLock(kind="python", interpreter=python)
        prefix, held = cache.enter(
            self.place.home.root,
            lock,
            fits=lambda _prefix: True,
            build=self.build,
            progress=lambda _text: None,
        )
        held.free()
        names = ("a.py", "b.py", "c.py")
        if [scene.read(os.path.join(prefix, name)) for name in names] != [self.TEXT] * 3:
            raise AssertionError(prefix)

    def build(self, prefix, _held):
        os.mkdir(prefix)
        for name in ("a.py", "b.py", "c.py"):
            fd = os.open(os.path.join(prefix, name), os.O_WRONLY | os.O_CREAT)
            os.write(fd, self.TEXT)
            os.close(fd)
        return cache.Built(about={})

    def recovered(self, number):
        return "" if shim.forked(lambda: self.act(number)) == 0 else "an environment is broken"


OPERATIONS = (Publish, History, Memo, Lock, Prune, Environment)


def run(kills, operations=OPERATIONS, *, seed=1, first_fault=False):
    """Kill until `kills` kills have fired, spread over the operations; report."""
    tally = scene.Tally("F1", f"kills at system calls: {names(operations)}", kills)
    rng = random.Random(seed)
    while tally.done < kills:
        before = tally.done
        for kind in operations:
            share = max(1, -(-kills // len(operations)))
            _sweep(kind, tally, min(kills, tally.done + share), rng)
            if tally.faults and first_fault:
                return tally.end()
        if tally.done == before:
            tally.fault("no kill fires")
            break
    return tally.end()


def names(operations):
    return ", ".join(kind.__name__.lower() for kind in operations)


def _sweep(kind, tally, until, rng):
    root = scene.folder()
    operation = kind(scene.Scene(root).open())
    try:
        operation.prepare(WARM)
        operation.recovered(WARM)  # so that what it imports is there before it is copied
        operation.prepare(0)
        count = shim.calls_of(lambda: operation.act(0))
        points = [(at, moment) for at in range(1, count + 4) for moment in shim.MOMENTS]
        rng.shuffle(points)
        for number, (at, moment) in enumerate(points, 1):
            if tally.done >= until:
                return
            if number % ROUND == 0:
                _leftovers(operation, tally)
                shutil.rmtree(root)
                operation = kind(scene.Scene(root).open())
            _point(operation, number, (at, moment), tally)
        _leftovers(operation, tally)
    finally:
        shutil.rmtree(root)


def _point(operation, number, point, tally):
    at, moment = point
    where = f"{type(operation).__name__.lower()}, {moment} call {at}"
    operation.prepare(number)

    def killed():
        shim.Trap(at, shim.die(moment)).set()
        operation.act(number)

    status = shim.forked(killed)
    tally.done += status == -9
    if status not in (-9, 0):
        tally.fault(f"{where}: ended with {status}")
    try:
        wrong = operation.acknowledged(number) if status == 0 and at else ""
        if isinstance(operation, Publish) and operation.place.look(number) == "WRONG BYTES":
            wrong = "wrong bytes"
        faults = [*([wrong] if wrong else []), *operation.place.faults()]
        again = operation.recovered(number)
        faults += [again] if again else []
    except Exception as error:  # noqa: BLE001  (any of them would need a hand)
        faults = [f"then: {error!r}"]
    tally.faults += [f"{where}: {fault}" for fault in faults]


def _leftovers(operation, tally):
    found = operation.place.leftovers()
    if found:
        tally.fault(f"{type(operation).__name__.lower()}: left behind {found[:3]}")


def interleaved(points, *, first_fault=False):
    """Collect garbage while a publication stands still before each of its calls in turn."""
    tally = scene.Tally("F1", "collections between the calls of a publication", points)
    while tally.done < points and not (tally.faults and first_fault):
        root = scene.folder()
        try:
            place = scene.Scene(root).open()
            for at in range(1, min(_calls(place), points - tally.done) + 1):
                _interleaved(place, at, tally)
                if tally.faults and first_fault:
                    break
        finally:
            shutil.rmtree(root)
    return tally.end()


def _calls(place):
    return shim.calls_of(lambda: place.publish(0))


def _interleaved(place, at, tally):
    """Let a publication begin, with blobs that are old already, and collect in the middle."""
    for name, _size in list(place.blobs.names()):
        os.utime(place.blobs.path(name))
    ready, told = os.pipe()
    resumed, resume = os.pipe()

    def paused():
        os.close(ready)
        os.close(resume)
        shim.Trap(at, shim.pause(told, resumed)).set()
        place.publish(at)

    pid = shim.start(paused)
    os.close(told)
    os.close(resumed)
    if os.read(ready, 1):
        ahead = 2 * scene.HOUR_NS
        collector = shim.start(
            lambda: bool(place.prune(ahead_ns=ahead, before_ns=time.time_ns() + ahead)) - 1
        )
        pauses = 50  # it has to wait where the publication holds a lock
        while pauses and not os.waitpid(collector, os.WNOHANG)[0]:
            pauses -= 1
            time.sleep(0.002)
        os.write(resume, b"x")
        if not pauses:
            os.waitpid(collector, 0)
    os.close(ready)
    os.close(resume)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tally.done += 1
    found = place.look(at)
    if status == 0 and found != "exact":
        tally.fault(f"a collection before call {at} of a publication: its result is {found}")
    if status not in (0, shim.FAILED):
        tally.fault(f"a collection before call {at} of a publication: it ends with {status}")
    tally.faults += [f"a collection before call {at}: {fault}" for fault in place.faults()]

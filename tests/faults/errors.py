"""Errors from every system call of a store, and of the real command line."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import sys

from faults import scene, shim, sweep

NUMBERS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR),
    *(errno.EMFILE, errno.EACCES, errno.EROFS, errno.ESTALE),
)
READING = (*shim.CALLS,)
STORE = (sweep.Publish, sweep.History, sweep.Memo, sweep.Lock, sweep.Prune)
COMMANDS = (
    ("run", "--env-manager", "local"),
    ("run", "--env-manager", "local", "--refresh"),
    ("cache", "prune"),
    ("cache", "verify"),
    ("log",),
)
MLPROJECT = "entry_points: {main: {command: 'echo 1 > o; echo 2 > p'}}\n"


def run(count, *, seed=1, operations=STORE, first_fault=False):
    """Fail single calls of the operations of a store, `count` times."""
    tally = scene.Tally("F4", f"errors of system calls: {sweep.names(operations)}", count)
    rng = random.Random(seed)
    while tally.done < count:
        for kind in operations:
            _errors(kind, tally, min(count, tally.done + -(-count // len(operations))), rng)
            if tally.faults and first_fault:
                return tally.end()
    return tally.end()


def _errors(kind, tally, until, rng):
    root = scene.folder()
    operation = kind(scene.Scene(root).open())
    try:
        operation.prepare(sweep.WARM)
        operation.recovered(sweep.WARM)  # so that what it imports is there before it is copied
        operation.prepare(0)
        calls = shim.calls_of(lambda: operation.act(0), READING)
        points = [(at, number) for at in range(1, calls + 1) for number in NUMBERS]
        rng.shuffle(points)
        for number, point in enumerate(points, 1):
            if tally.done >= until:
                return
            if number % sweep.ROUND == 0:
                shutil.rmtree(root)
                operation = kind(scene.Scene(root).open())
            _point(operation, number, point, tally)
    finally:
        shutil.rmtree(root)


def _point(operation, number, point, tally):
    at, code = point
    operation.prepare(number)
    reader, writer = os.pipe()

    def failing():
        told = []
        shim.Trap(at, shim.fail(code, told), READING).set()
        try:
            operation.act(number)
        finally:
            shim.real_write(writer, (told[0] if told else "").encode())

    status = shim.forked(failing)
    os.close(writer)
    call = os.read(reader, 100).decode()
    os.close(reader)
    tally.done += bool(call)
    name = type(operation).__name__.lower()
    where = f"{name}, {errno.errorcode[code]} from call {at}, {call}"
    if status not in (shim.FINE, shim.FAILED):
        tally.fault(f"{where}: ended with {status}")
    if status == shim.FINE and call == "fsync":
        tally.fault(f"{where}: a file that is not on disk is taken for one that is")
    wrong = operation.acknowledged(number) if status == shim.FINE else ""
    faults = [*([wrong] if wrong else []), *operation.place.faults()]
    again = operation.recovered(number)
    tally.faults += [f"{where}: {fault}" for fault in [*faults, *([again] if again else [])]]


# -- the command line


def commands(count, *, seed=1):
    """Fail single calls of whole commands: one line, an exit status that is no bug, recovery."""
    tally = scene.Tally("F4", "errors of system calls of whole commands", count)
    rng = random.Random(seed)
    root = scene.folder()
    try:
        command = Command(root)
        while tally.done < count:
            words = COMMANDS[tally.done % len(COMMANDS)]
            _command(command, words, rng, tally)
    finally:
        shutil.rmtree(root)
    return tally.end()


class Command:
    """The command line in a copy of this process, on a project and a store of its own."""

    def __init__(self, root):
        self.root = root
        self.project = os.path.join(root, "project")
        os.mkdir(self.project)
        with open(os.path.join(self.project, "MLproject"), "w") as file:
            file.write(MLPROJECT)
        self.environ = {
            "HOME": root,
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
            "REPRO_HOME": os.path.join(root, "store"),
            "REPRO_DATA": os.path.join(root, "data"),
            "REPRO_SANDBOX": "none",
        }
        self.counts = {}
        self._warm()

    def _warm(self):
        """Import here whatever the commands import, so that their copies need not."""
        kept, place, streams = dict(os.environ), os.getcwd(), (sys.stdout, sys.stderr)
        try:
            for words in COMMANDS:
                self._main(words, io.StringIO())
        finally:
            sys.stdout, sys.stderr = streams
            os.chdir(place)
            os.environ.clear()
            os.environ.update(kept)

    def _main(self, words, text):
        from repro.cli import main

        os.environ.clear()
        os.environ.update(self.environ)
        os.chdir(self.project)
        sys.stdout = sys.stderr = text
        try:
            return main(list(words))
        except SystemExit as stop:
            return stop.code

    def call(self, words, trap=None):
        """Give the exit status, what was printed, and which call the trap was sprung at."""
        reader, writer = os.pipe()

        def work():
            text = io.TextIOWrapper(io.BytesIO())
            if trap:
                trap.set()
            try:
                return self._main(words, text)
            finally:
                text.flush()
                printed = text.buffer.getvalue().decode()[-4000:]
                answer = [printed, trap.told if trap else [], trap.count if trap else 0]
                shim.real_write(writer, json.dumps(answer).encode())

        status = shim.forked(work)
        os.close(writer)
        with open(reader, "rb") as file:
            data = file.read()
        printed, told, count = json.loads(data or b'["", [], 0]')
        return status, printed, told, count

    def calls_of(self, words):
        if words not in self.counts:
            trap = shim.Trap(0, None, READING)
            trap.told = []
            self.counts[words] = self.call(words, trap)[3]
        return self.counts[words]


def _command(command, words, rng, tally):
    shutil.rmtree(os.path.join(command.root, "store"), ignore_errors=True)
    if words[0] != "run":
        command.call(("run", "--env-manager", "local"))
    at, code = rng.randint(1, max(1, command.calls_of(words))), rng.choice(NUMBERS)
    told = []
    trap = shim.Trap(at, shim.fail(code, told), READING)
    trap.told = told
    status, printed, told, _count = command.call(words, trap)
    where = f"repro {' '.join(words)}, {errno.errorcode[code]} from call {at}, {told}"
    tally.done += bool(told)
    if status not in (0, 1, 2, 5, 6, 7) or "Traceback" in printed:
        tally.fault(f"{where}: ends with {status}: {printed[-600:]}")
    status, printed, _told, _count = command.call(("run", "--env-manager", "local"))
    found = scene.read(os.path.join(command.project, "o"))
    if status != 0 or found != b"1\n":
        tally.fault(f"{where}: the next run ends with {status}: {printed[-600:]}")
    status, printed, _told, _count = command.call(("cache", "verify"))
    if status:
        tally.fault(f"{where}: `cache verify` finds: {printed[-600:]}")

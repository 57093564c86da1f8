"""Runs one command where repro is not installed, from its inputs to its outputs.

    python3 AGENT SPEC

AGENT is what `carrier.program` packs: one file for Python 3.8 and newer, of this folder's modules
and nothing but the standard library. SPEC is a file of JSON that `carrier.specification` makes,
or `env:NAME` for a variable that holds it.

Inputs and outputs travel as blobs by SHA-256, and as a tree that names them. All that is told on
the way is a stream of numbered frames. Each start of the agent is an attempt with a stream of its
own, since a job may be started again elsewhere.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress

from repro.backends.agent.carriage import Failed, connect, patiently, words
from repro.backends.agent.command import TERMINATED, Bell, Command, Pump, Record, usage
from repro.backends.agent.frames import END
from repro.backends.agent.setup import Interrupted, made
from repro.backends.agent.trees import digest_of, lay, packed, scan, state, unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.backends.agent.trees import Entry

VERSION = 1
SHORT = 0.2  # the grace, in seconds, of what the command left behind
SPARED = 1 << 24  # bytes that are brought back of a command that failed
TICK = 0.02  # seconds within which a file may change without another time stamp
ENGINE = (b"HOME", b"HOSTNAME")  # variables that are set for every container
NOT_EXECUTABLE, NOT_FOUND, UNTOLD = 126, 127, 75


class Cancelled(Exception):
    """We were asked to end before the command has begun."""


class Agent:
    """One attempt at a job."""

    def __init__(self, spec: Mapping[str, Any], bell: Bell) -> None:
        """Take a specification that was read."""
        self.spec, self.bell = spec, bell
        self.carriage = connect(spec["carriage"])
        self.record = Record(self.carriage)
        self.known: dict[str, tuple[Any, Entry]] = {}
        self.facts: dict[str, Any] = {"code": NOT_EXECUTABLE, "cause": "exit", "failed": ""}

    def run(self) -> int:
        """Do it all; give the exit code. The end is told last, after all that it names."""
        over = threading.Event()
        beating = (over, self.bell, float(self.spec["beat_s"]), float(self.spec["flush_s"]))
        heart = threading.Thread(target=self.record.beat, args=beating, daemon=True)
        heart.start()
        try:
            self._in_room()
        except Cancelled:
            self.facts.update(code=TERMINATED, cause="cancel")
        except (Failed, OSError) as error:
            self.facts.update(failed=words(error))
        except Exception as error:  # noqa: BLE001  (whatever it is, an end has to be told)
            self.facts.update(failed=f"{type(error).__name__}: {words(error)}")
            sys.excepthook(*sys.exc_info())
        over.set()
        heart.join()
        return self._told()

    def _told(self) -> int:
        facts = {**self.facts, "version": VERSION, "host": socket.gethostname()}
        self.record.add(END, json.dumps(facts).encode("ascii"))
        self.record.flush()
        if self.record.lost:
            sys.stderr.write(f"repro: nothing can be told any more: {self.record.lost}\n")
        code = int(self.facts["code"])
        return code or (UNTOLD if self.record.lost or self.facts["failed"] else 0)

    def _in_room(self) -> None:
        """Run in a new folder: `base` stands for the job's own, and `tree` is for trees."""
        scratch = self.spec["scratch"] or tempfile.gettempdir()
        os.makedirs(scratch, exist_ok=True)
        self.room = os.path.realpath(tempfile.mkdtemp(prefix="repro-", dir=scratch))
        self.base = os.path.join(self.room, "base")
        self.tree = os.path.join(self.room, "tree")
        try:
            os.mkdir(self.base)
            self._begin()
            self._check_ports()
            programs = self._environment(scratch)
            self._command(programs)
            self.facts["tree"] = self._publish()
        finally:
            _remove(self.room)

    def _begin(self) -> None:
        """Bring the inputs, every byte of them hashed."""
        self._get(self.spec["tree"], self.tree)
        with open(self.tree, "rb") as file:
            entries = unpacked(file.read())
        lay(entries, self.base, self._get)
        for entry in entries:
            if entry[1] in ("file", "exec"):
                self.known[entry[0]] = (state(os.path.join(self.base, entry[0])), entry)
        time.sleep(TICK)

    def _get(self, digest: str, path: str) -> None:
        if self.bell.has_rung():
            raise Cancelled
        patiently(self.carriage.get, digest, path)

    def _check_ports(self) -> None:
        """Say where nobody answers what variables point to."""
        for port in self.spec["ports"]:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except OSError:
                self.record.say(self.spec["deaf"])
                return

    def _environment(self, scratch: str) -> str:
        """Make the environment where there is one to make; give the folder of its programs."""
        asked = self.spec["environment"]
        if not asked:
            return ""
        self.facts["stage"] = "environment"
        try:
            programs = made(asked, scratch, self.bell, self.record)
        except Interrupted:
            raise Cancelled from None
        del self.facts["stage"]
        return programs

    def _command(self, programs: str) -> None:
        spec, bell = self.spec, self.bell
        if bell.has_rung():
            raise Cancelled
        before, taken = time.time_ns(), usage()
        argv = [self._placed(word) for word in spec["argv"]]
        variables = inherited() if spec["inherit"] else {}
        variables.update({raw(n): self._placed(v) for n, v in spec["variables"].items()})
        if programs:
            others = os.fsencode(os.environ.get("PATH", os.defpath))
            paths = [os.fsencode(programs), variables.get(b"PATH", others)]
            variables[b"PATH"] = os.fsencode(os.pathsep).join(paths)
            if spec["environment"]["python"]:
                variables[b"VIRTUAL_ENV"] = os.fsencode(os.path.dirname(programs))
        folder = os.path.join(os.fsencode(self.base), raw(spec["folder"]))
        try:
            command = Command(argv, variables, folder)
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            name = os.fsdecode(argv[0])
            self.record.say(f"cannot run `{name}`: {error.strerror}")
            self.facts["code"] = NOT_FOUND if missing else NOT_EXECUTABLE
            return
        pump = Pump(command.pipes, self.record)
        cause = command.watch(bell, self.record, spec["timeout_ms"] / 1000)
        if command.alive():
            command.end(bell, SHORT if cause == "exit" else spec["grace_ms"] / 1000)
        pump.finish()
        if bell.has_rung() and cause == "exit":  # all of us were asked at once, and it was faster
            cause = "cancel"
        used = usage()
        for name in ("user_ns", "system_ns"):
            used[name] -= taken[name]
        self.facts.update(used, code=command.code(cause), cause=cause, wall_ns=command.wall)
        self.facts.update(started_ns=before, ended_ns=time.time_ns())

    def _placed(self, text: str) -> bytes:
        """Replace the job's folder on the submitting side, where a text is or holds it."""
        data, there, here = raw(text), raw(self.spec["base"]), os.fsencode(self.base)
        return here if data == there else data.replace(there + b"/", here + b"/")

    def _publish(self) -> str:
        """Send what was made or changed; of a command that failed, only what is small."""
        is_good = self.facts["code"] == 0 and self.facts["cause"] == "exit"
        left = float("inf") if is_good else SPARED
        had = {entry[2] for _, entry in self.known.values()}
        entries: list[Entry] = []
        for path, kind, content, size in scan(self.base, self.known):
            entry = (path, kind, content, size)
            if kind in ("file", "exec") and content not in had:
                if size <= left:
                    left -= size
                    patiently(self.carriage.put, content, os.path.join(self.base, path))
                else:
                    entry = (path, "left", "", 0)
            entries.append(entry)
        with open(self.tree, "wb") as file:
            file.write(packed(entries))
        digest = digest_of(self.tree)
        patiently(self.carriage.put, digest, self.tree)
        return digest


def inherited() -> dict[bytes, bytes]:
    """Give the variables that an image, or who starts it, has for its command, as they came."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    return {
        name: value
        for name, _, value in pairs
        if name not in ENGINE and not name.startswith(b"KUBERNETES_")
    }


def _remove(room: str) -> None:
    """Remove a folder, also where the command has locked us out."""
    for base, folders, _names in os.walk(room):
        for name in folders:
            place = os.path.join(base, name)
            if not os.path.islink(place):
                with suppress(OSError):
                    os.chmod(place, 0o700)
    shutil.rmtree(room, ignore_errors=True)


def raw(text: str) -> bytes:
    """Undo the way in which any bytes get through JSON: one character for each."""
    return text.encode("latin-1")


def main() -> int:
    """Run the job that the first argument names."""
    bell = Bell()
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name = sys.argv[1]
    if name.startswith("env:"):
        text = os.environ.pop(name[len("env:") :])
    else:
        with open(name, encoding="ascii") as file:
            text = file.read()
    return Agent(json.loads(text), bell).run()


if __name__ == "__main__":
    sys.exit(main())

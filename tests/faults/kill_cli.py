"""The real command line, killed by strace at its system calls."""

from __future__ import annotations

import collections
import os
import random
import re
import shutil
import subprocess
import sys
import time

from faults import errors, scene

CALLS = (
    *("openat", "write", "fsync", "fdatasync", "rename", "link", "linkat", "mkdir", "unlink"),
    *("unlinkat", "rmdir", "ftruncate", "pwrite64", "fchmod", "utimensat", "flock"),
)
KILLED = (-9, 137)
LOCAL = ("--env-manager", "local")
URL = "the URL of the remote"
REMOTE = ("--remote", URL)
PULL = ("cache", "pull", *REMOTE)
ENVIRONMENT = "python: '{0}.{1}'\nbuild_dependencies: []\ndependencies: []\n"
PROJECT = """\
python_env: env.yaml
entry_points:
  main: {inputs: [env.yaml], outputs: [o, p], command: 'echo 1 > o; echo 2 > p'}
"""
HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Victim:
    """A command, what has to be there before, and what must be true once it is repeated."""

    threads = False

    def __init__(self, name, words, *, good=(0,)):
        self.name, self.words, self.good = name, words, good

    def prepare(self, command):
        """Begin with a store in which a step has run, and a remote in which nothing is."""
        for folder in ("store", "remote"):
            shutil.rmtree(os.path.join(command.root, folder), ignore_errors=True)
        os.mkdir(os.path.join(command.root, "remote"))
        command.call(("run", *LOCAL))
        files_unlink(os.path.join(command.project, "o"))

    def wrong(self, command):
        """Say what is wrong after the command was repeated; nothing if nothing is."""
        return ""


class Fresh(Victim):
    def prepare(self, command):
        shutil.rmtree(os.path.join(command.root, "store"), ignore_errors=True)


class Push(Victim):
    """Something with threads, all of which may be where it is killed."""

    threads = True

    def wrong(self, command):
        """See what another machine gets from the remote."""
        store, other = command.environ["REPRO_HOME"], os.path.join(command.root, "other")
        command.environ["REPRO_HOME"] = other
        try:
            answers = [_call(command, words)[0] for words in (PULL, ("cache", "verify"))]
            found = _results(command)
        finally:
            shutil.rmtree(other)
            command.environ["REPRO_HOME"] = store
        return "" if (answers, found) == ([0, 0], 1) else f"another machine has {found}, {answers}"


class Pull(Victim):
    threads = True

    def prepare(self, command):
        super().prepare(command)
        _call(command, ("cache", "push", *REMOTE))
        shutil.rmtree(os.path.join(command.root, "store"))

    def wrong(self, command):
        return "" if _results(command) == 1 else "the result is not there"


class Damaged(Victim):
    """A store with a damaged file in each folder of files."""

    def prepare(self, command):
        super().prepare(command)
        _damage(os.path.join(command.root, "store", "cas"))


class Healed(Victim):
    """The same, with a remote that has all of it."""

    threads = True

    def prepare(self, command):
        super().prepare(command)
        _call(command, ("cache", "push", *REMOTE))
        _damage(os.path.join(command.root, "store", "cas"))

    def wrong(self, command):
        return "" if _results(command) == 1 else "the result is not healed"


def _damage(folder):
    for base, _folders, names in os.walk(folder):
        for name in names[:1]:
            path = os.path.join(base, name)
            os.chmod(path, 0o600)
            with open(path, "ab") as file:
                file.write(b"x")


VICTIMS = (
    Fresh("run", ("run", *LOCAL)),
    Victim("run again", ("run", *LOCAL, "--refresh")),
    Fresh("env build", ("run",)),
    Victim("prune", ("cache", "prune", "--older-than", "0")),
    Push("push", ("cache", "push", *REMOTE)),
    Pull("pull", PULL),
    Damaged("repair", ("cache", "verify", "--repair"), good=(0, 5)),
    Healed("repair from a remote", ("cache", "verify", "--repair", *REMOTE), good=(0, 5)),
)


def files_unlink(path):
    if os.path.exists(path):
        os.unlink(path)


def missing():
    """Say what keeps processes from being traced here, or nothing."""
    if not shutil.which("strace"):
        return "needs strace"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "processes cannot be traced"


def run(kills, *, seed=1, victims=VICTIMS):
    """Kill whole commands, until `kills` of them died of it; then each must do what it should."""
    tally = scene.Tally("F2", f"kills of {', '.join(v.name for v in victims)}", kills)
    lacking = missing()
    if lacking:
        return tally.end(lacking)
    rng = random.Random(seed)
    root = scene.folder()
    try:
        command = errors.Command(root)
        _write(command.project, "env.yaml", ENVIRONMENT.format(*sys.version_info[:2]))
        _write(command.project, "MLproject", PROJECT)
        counts = {}
        while tally.done < kills:
            victim = victims[tally.done % len(victims)]
            if victim.name not in counts:
                counts[victim.name] = _counted(command, victim)
                if not counts[victim.name]:
                    tally.fault(f"{victim.name} does not work here")
                    return tally.end()
            _kill(command, victim, rng.choice(counts[victim.name]), tally)
    finally:
        shutil.rmtree(root)
    return tally.end()


def _write(folder, name, text):
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


def _words(command, words):
    return tuple(f"file://{command.root}/remote" if word == URL else word for word in words)


def _call(command, words):
    return command.call(_words(command, words))


def _results(command):
    """Count the results of a store; a half-written one has another name."""
    names = [n for _b, _f, n in os.walk(os.path.join(command.environ["REPRO_HOME"], "ac"))]
    return sum(not name.endswith("~") for found in names for name in found)


def _traced(command, victim, *options):
    options = ("-f", *options) if victim.threads else options
    return subprocess.run(
        ["strace", *options, sys.executable, "-m", "repro", *_words(command, victim.words)],
        cwd=command.project,
        env={**command.environ, "PYTHONPATH": HERE},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _counted(command, victim):
    """Give every system call of a command that may change something: its name and its number."""
    victim.prepare(command)
    log = os.path.join(command.root, "calls")
    done = _traced(command, victim, "-o", log, "-e", f"trace={','.join(CALLS)}")
    if done.returncode not in victim.good:
        return []
    counts, points = collections.Counter(), []
    for line in scene.read(log).decode("utf-8", "replace").splitlines():
        match = re.match(r"(\d+ +)?(\w+)\(", line)
        if match:
            counts[match[0]] += 1  # of each thread
            reading = match[2] == "openat" and "O_CREAT" not in line
            if not reading or "store" in line or "remote" in line:
                points.append((match[2], counts[match[0]]))
    return points


def _kill(command, victim, point, tally):
    name, number = point
    victim.prepare(command)
    inject = f"inject={name}:signal=KILL:when={number}"
    done = _traced(command, victim, "-o", os.devnull, "-e", f"trace={name}", "-e", inject)
    tally.done += done.returncode in KILLED
    where = f"{victim.name}, killed at {name} {number}"
    status, printed, _told, _count = _call(command, victim.words)
    if status not in victim.good or "Traceback" in printed:
        tally.fault(f"{where}: again, it ends with {status}: {printed[-400:]}")
    if wrong := victim.wrong(command):
        tally.fault(f"{where}: again, and {wrong}: {printed[-400:]}")
    status, printed, _told, _count = command.call(("run", *LOCAL))
    path = os.path.join(command.project, "o")
    found = scene.read(path) if os.path.exists(path) else b""
    if status or found != b"1\n":
        tally.fault(f"{where}: the next run ends with {status}, {found!r}: {printed[-400:]}")
    status, printed, _told, _count = command.call(("cache", "verify"))
    if status:
        tally.fault(f"{where}: `cache verify` ends with {status}: {printed[-400:]}")
    command.call(("cache", "prune"))
    left = os.listdir(os.path.join(command.root, "store", "tmp"))
    if _halves(command):
        time.sleep(1.1)  # what is younger may belong to somebody
        files_unlink(path)
        command.call(("run", *LOCAL))
        left += _halves(command)
    if left:
        tally.fault(f"{where}: left behind {left}")


def _halves(command):
    return [name for name in os.listdir(command.project) if name.endswith("~repro")]

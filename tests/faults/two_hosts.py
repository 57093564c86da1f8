"""One store, several machines and many processes: two namespaces, and a crowd with a collector."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time

from faults import errors, scene, shim

from repro.system import files

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COUNTED = """\
entry_points:
  main:
    parameters: {{a: {{default: 0}}}}
    command: "echo x >> {count}; sleep 0.2; echo {{a}} > o"
"""
PLAIN = "entry_points: {main: {parameters: {a: {default: 0}}, command: 'echo {a} > o'}}\n"
VALUES = 8


def namespaces():
    """Give the command that starts something on a machine of its own; nothing if none can."""
    for options in (["--fork"], ["--user", "--map-root-user", "--fork"]):
        command = ["unshare", "--pid", "--uts", "--mount", "--mount-proc", *options]
        try:
            done = subprocess.run([*command, "true"], capture_output=True, check=False)
        except OSError:
            return []
        if done.returncode == 0:
            return command
    return []


def run(rounds, *, mutant="", first_fault=False):
    """Run one step on two machines at once, `rounds` times: both get it, and it runs once."""
    tally = scene.Tally("F8", "rounds of two machines on one store", rounds)
    unshare = namespaces()
    if not unshare:
        return tally.end("needs namespaces")
    root = scene.folder()
    try:
        count = os.path.join(root, "count")
        for number in range(rounds):
            hosts = [_host(root, name, number, (count, unshare, mutant)) for name in "ab"]
            answers = [(host.communicate()[1], host.returncode) for host in hosts]
            for error, status in answers:
                if status or b"Traceback" in error:
                    tally.fault(f"round {number}: ends with {status}: {error[-400:]!r}")
            for name in "ab":
                path = os.path.join(root, name, "project", "o")
                found = scene.read(path) if os.path.exists(path) else b""
                if found != b"%d\n" % number:
                    tally.fault(f"round {number}: machine {name} has {found!r}")
            ran = scene.read(count).count(b"x") if os.path.exists(count) else 0
            if ran != 1:
                tally.fault(f"round {number}: the step ran {ran} times")
            files.unlink(count)
            tally.done += 1
            if tally.faults and first_fault:
                break
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return tally.end()


def _host(root, name, number, how):
    """Start a run, and a collection after it, on the machine `name`."""
    count, unshare, mutant = how
    folder = os.path.join(root, name, "project")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "MLproject"), "w") as file:
        file.write(COUNTED.format(count=count))
    words = f"run . --env-manager local -P a={number}"
    program = f'{sys.executable} -m faults.mutants "{mutant}"'
    others = "; ".join(["/bin/true"] * (20 * (name == "b")) + [f"hostname {name}"])
    script = f"{others}; {program} {words} && {program} cache prune"  # no process id is twice
    return subprocess.Popen(
        [*unshare, "sh", "-c", script],
        cwd=folder,
        env={
            "HOME": os.path.join(root, name),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{HERE}:{os.path.dirname(HERE)}",
            "REPRO_HOME": os.path.join(root, "store"),
            "REPRO_DATA": os.path.join(root, name, "data"),
            "REPRO_SANDBOX": "none",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


# -- a crowd


def crowd(processes, steps, *, seed=1):
    """Let `processes` run `steps` steps each on one store, while another one collects."""
    what = f"steps of {processes} processes, while garbage is collected"
    tally = scene.Tally("F8", what, processes * steps)
    root = scene.folder()
    try:
        ended = os.path.join(root, "ended")
        collector = shim.start(lambda: _collect(errors.Command(_sub(root, "collector")), root))
        workers = [
            shim.start(lambda number=number: _work(root, number, steps, seed))
            for number in range(processes)
        ]
        for pid in workers:
            os.waitpid(pid, 0)
        with open(ended, "wb"):
            pass
        os.waitpid(collector, 0)
        for number in [*range(processes), "collector"]:
            _told(os.path.join(root, str(number), "told"), tally)
        place = scene.Scene(root)
        tally.faults += place.faults()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return tally.end()


def _sub(root, name):
    folder = os.path.join(root, str(name))
    os.mkdir(folder)
    return folder


def _shared(command, root):
    command.environ["REPRO_HOME"] = os.path.join(root, "store")
    return command


def _work(root, number, steps, seed):
    """Run steps; write a line for each that went well, and one for each that did not."""
    rng = random.Random(seed + number)
    command = _shared(errors.Command(_sub(root, number)), root)
    with open(os.path.join(command.project, "MLproject"), "w") as file:
        file.write(PLAIN)
    with open(os.path.join(command.root, "told"), "w") as told:
        for _step in range(steps):
            value = rng.randrange(VALUES)
            words = ("run", "--env-manager", "local", "-P", f"a={value}")
            status, printed, _told, _count = command.call(words)
            path = os.path.join(command.project, "o")
            found = scene.read(path) if os.path.exists(path) else b""
            if status == 0 and found == b"%d\n" % value:
                print("good", file=told)
            else:
                print(f"a={value}: status {status}, {found!r}, {printed[-400:]!r}", file=told)
            files.unlink(path)


def _collect(command, root):
    _shared(command, root)
    rounds = (("--older-than", "0"), ("--max-size", "1"), ("--older-than", "30"))
    with open(os.path.join(command.root, "told"), "w") as told:
        count = 0
        while not os.path.exists(os.path.join(root, "ended")):
            options = rounds[count % len(rounds)]
            status, printed, _told, _count = command.call(("cache", "prune", *options))
            count += 1
            if status:
                print(f"prune {options}: status {status}: {printed[-400:]!r}", file=told)
            time.sleep(0.01)


def _told(path, tally):
    for line in scene.read(path).decode().splitlines() if os.path.exists(path) else ():
        if line == "good":
            tally.done += 1
        else:
            tally.fault(line)

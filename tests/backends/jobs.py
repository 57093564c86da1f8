"""Jobs whose processes can be found, and what to run them with."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import uuid

from repro.backends.local import Local
from repro.ports import Job
from repro.value import dump

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(FOLDER))
SHAPE = os.path.join(FOLDER, "shapes.py")


class Output:
    """A sink that keeps everything."""

    def __init__(self):
        self.chunks = []
        self.heard = threading.Condition()

    def __call__(self, stream, data):
        with self.heard:
            self.chunks.append((stream, data))
            self.heard.notify_all()

    def of(self, stream):
        return b"".join(data for name, data in self.chunks if name == stream)

    @property
    def out(self):
        return self.of("stdout")

    @property
    def err(self):
        return self.of("stderr")

    def wait_for(self, text):
        with self.heard:
            assert self.heard.wait_for(lambda: text in self.out, 20), self.chunks


def marked(*argv, **changes):
    """Make a job whose processes can be found by their environment."""
    variables = {"PATH": os.environ["PATH"], "MARK": uuid.uuid4().hex, **changes.pop("more", {})}
    return Job(**{"run_id": "r", "argv": argv, "variables": variables, "folder": "/", **changes})


def shape(name, *words, **changes):
    return marked(sys.executable, "-I", "-S", SHAPE, name, *words, **changes)


def python(text, **changes):
    return marked(sys.executable, "-I", "-S", "-c", text, **changes)


def bash(text, **changes):
    return marked("bash", "-c", text, **changes)


def run(job):
    output = Output()
    return Local().submit(job, output).wait(), output


def processes(*jobs):
    """Find the processes of each job, by the mark that they inherit."""
    marks = {b"MARK=" + job.variables["MARK"].encode(): [] for job in jobs}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            for mark in marks.keys() & file.read().split(b"\0"):
                marks[mark].append(int(name))
    return list(marks.values())


def left(*jobs):
    """Count what `processes` finds."""
    return [len(found) for found in processes(*jobs)]


def gone(seconds, *jobs):
    """Wait until nothing is left of the jobs."""
    end = time.monotonic() + seconds
    while any(left(*jobs)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(left(*jobs))


@contextlib.contextmanager
def host(how, *jobs):
    """Start a program that runs these jobs; give it, and itself as a job, once all are ready."""
    own = marked()
    with subprocess.Popen(
        [sys.executable, "-W", "error", os.path.join(FOLDER, "host.py"), how],
        env={**os.environ, **own.variables, "PYTHONPATH": ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(json.dumps(dump(list(jobs))).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        yield process, own
        process.kill()


def children():
    """The processes below this one, those of engines that other tests share among them."""
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found |= set(pathlib.Path(f"/proc/self/task/{thread}/children").read_text().split())
    return found

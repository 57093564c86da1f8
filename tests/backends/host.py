"""A program that uses the local backend and may be killed: `host.py HOW`, jobs as JSON on stdin.

Prints `ready` when every job has. Then it waits for them (`wait`), cancels them (`cancel`),
leaves them running (`leave`), or waits with a child that shares all its descriptors (`fork`).
With `+`, all but the first come from a nursery. Confined jobs are so by the means after a colon.
"""

import json
import os
import signal
import sys
import threading
import time

from repro.backends.local import Local
from repro.backends.nursery import Nursery
from repro.backends.sandbox.means import Available
from repro.ports import Confinement, Job
from repro.spec import Resources
from repro.value import load

CLASSES = {kind.__name__: kind for kind in (Job, Confinement, Resources)}


def submitted(plain, means, nursery):
    heard = threading.Event()
    job = load(plain, CLASSES)
    available = Available(means={job.confinement.level: means}, program="/usr/bin/bwrap")
    sink = lambda _, data: b"ready" in data and heard.set()  # noqa: E731
    return Local(available, nursery).submit(job, sink), heard


def main(how):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    how, _, means = how.partition(":")
    nursery = Nursery() if how.endswith("+") else None
    how = how.removesuffix("+")
    under_way = [submitted(plain, means, nursery) for plain in json.load(sys.stdin)]
    for _, heard in under_way:
        heard.wait(30)
    if how == "fork" and os.fork() == 0:
        time.sleep(2)
        os.write(1, b"fork ends\n")
        os._exit(0)
    os.write(1, b"ready\n")
    for job, _ in under_way:
        if how == "cancel":
            threading.Thread(target=job.cancel).start()
        elif how != "leave":
            job.wait()


if __name__ == "__main__":
    main(sys.argv[1])

"""A program that uses the local backend and may be killed: `host.py HOW`, jobs as JSON on stdin.

Prints `ready` when every job has. Then it waits for them (`wait`), cancels them (`cancel`),
leaves them running (`leave`), or waits with a child that shares all its descriptors (`fork`).
"""

import json
import os
import signal
import sys
import threading
import time

from repro.backends.local import Local
from repro.ports import Job


def submitted(fields):
    heard = threading.Event()
    job = Job(**{**fields, "argv": tuple(fields["argv"])})
    return Local().submit(job, lambda _, data: b"ready" in data and heard.set()), heard


def main(how):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    under_way = [submitted(fields) for fields in json.load(sys.stdin)]
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

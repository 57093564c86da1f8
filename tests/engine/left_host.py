"""Runs a project and is killed with no warning when its step says `ready`: run by test_leftovers."""

import os
import signal
import sys

from repro import api, events
from repro.plan import Request

folder, backend, config = sys.argv[1:]


def watch(event):
    if isinstance(event, events.Started):
        sys.stdout.write(event.run_id + "\n")
        sys.stdout.flush()
    if isinstance(event, events.Output) and b"ready" in event.data:
        os.kill(os.getpid(), signal.SIGKILL)


request = Request(
    uri=folder,
    backend=backend,
    config=config or None,
    parameters={},
    caller=folder,
)
api.submit(request, emit=watch)

"""Faults at the system calls of a forked copy of this process: kills, errors, and stops.

The parent stays warm, so that a point costs a fork and no start of an interpreter.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback

CALLS = (
    *("open", "write", "fsync", "rename", "replace", "link", "mkdir", "unlink", "rmdir"),
    *("fchmod", "utime", "ftruncate", "pwrite", "close", "read", "stat", "lstat", "scandir"),
    "listdir",
)
CHANGING = CALLS[: CALLS.index("close")]
MOMENTS = ("before", "half", "after")
FINE, FAILED, BROKEN = 0, 7, 70


class Trap:
    """Counts the calls of some functions of `os`, and springs at number `at`."""

    def __init__(self, at, spring, names=CHANGING):
        self.at, self.spring, self.names = at, spring, names
        self.count = 0

    def set(self):
        for name in self.names:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):
        def call(*args, **options):
            self.count += 1
            if self.count == self.at:
                return self.spring(name, real, args, options)
            return real(*args, **options)

        return call


def die(moment):
    """Give a spring that kills the process before, in the middle of, or after a call."""

    def spring(name, real, args, options):
        if moment == "half" and name in ("write", "pwrite"):
            real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
        if moment == "after":
            real(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return spring


def fail(number, told):
    """Give a spring that fails a call with an error number, and notes in `told` which it was."""

    def spring(name, real, args, options):
        told.append(name)
        path = args[0] if args and isinstance(args[0], (str, bytes)) else None
        raise OSError(number, os.strerror(number), path)

    return spring


def pause(to_parent, from_parent):
    """Give a spring that waits before a call until the parent has done something."""

    def spring(name, real, args, options):
        real_write(to_parent, b"x")
        real_read(from_parent, 1)
        return real(*args, **options)

    return spring


real_write, real_read = os.write, os.read


def forked(work):
    """Run `work` in a copy of this process; give its exit status, negative for a signal.

    0 is for success, 7 for an error that a user would be told, 70 for any other exception.
    """
    pid = start(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start(work):
    """Start `work` in a copy of this process; give its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # pages with old objects stay shared
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        status = outcome(work)
    finally:
        os._exit(status)


def outcome(work):
    from repro.errors import ReproError

    try:
        done = work()
    except (OSError, ReproError):
        return FAILED
    except BaseException:  # noqa: BLE001  (reported by the status)
        if os.environ.get("REPRO_FAULTS_DEBUG"):
            traceback.print_exc()
        return BROKEN
    return done if isinstance(done, int) else FINE


def calls_of(work, names=CHANGING):
    """Count the calls that `work` makes in a copy of this process."""
    reader, writer = os.pipe()

    def counted():
        trap = Trap(0, None, names)
        trap.set()
        work()
        real_write(writer, b"%d" % trap.count)

    forked(counted)
    os.close(writer)
    count = os.read(reader, 20)
    os.close(reader)
    return int(count or 0)

"""A process that supervisors come from: one interpreter is started for all jobs, not one for each.

What it is made of is in `supervisor`; here is the end of it that repro holds.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# The module beside this one without the package around it; run as a file, it would be compiled
# each time.
SUPERVISOR = "import sys; sys.path.append(sys.argv[1]); import supervisor; supervisor.{}()"
PATIENCE = 10.0
"""Seconds that a fork may take; then supervisors are made in another way."""
HERE = os.path.dirname(os.path.abspath(__file__))


def command(function: str) -> tuple[str, ...]:
    """Give the command that does what a function of `supervisor` says."""
    return (sys.executable, "-I", "-S", "-c", SUPERVISOR.format(function), HERE)


class Nursery:
    """Makes supervisors by a fork, from the second on: a single one is made as fast without.

    Threads may share it. Without `close` its process ends when ours does.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._guard = threading.Lock()
        self._was_asked = False
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, means: str, descriptors: Sequence[int]) -> bool:
        """Make a supervisor, or say that it has to be made in another way.

        `descriptors` are the folder it is to stand in, and its standard input, output and error.
        `means` are those of the sandbox that it is going to need, empty for none.
        """
        with self._guard:
            if not self._was_asked:
                self._was_asked = True
                return False
            try:
                line = self._line or self._begin()
                socket.send_fds(line, [means.encode() + b"\n"], descriptors)
                return line.recv(1) == b"f"
            except OSError:
                if self._process is not None:
                    self._process.kill()  # what it has made lives on without it
                self._end()
                return False

    def _begin(self) -> socket.socket:
        line, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command("serve"),
                    cwd="/",
                    start_new_session=True,  # Ctrl-C on a terminal is for repro to act on
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                line.close()
                raise
        line.settimeout(PATIENCE)
        self._line = line
        return line

    def close(self) -> None:
        """End the process, after the last supervisor has ended."""
        with self._guard:
            self._end()

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.wait()
        self._line = self._process = None

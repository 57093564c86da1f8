"""What a run of Databricks starts: it starts the agent, and runs files of Python for it.

It runs in a thread of the driver's process, which is Spark's and must not be disturbed, and which
takes a SystemExit for a failure, even one with code 0. Nothing but the standard library of Python
3.8 is used: this file goes to the cluster as it stands, see `databricksjob.program`.

The command of a Spark job is a process below the agent, as that of any other step. But `python`
is `bridge` there: it has the driver run the file, in its own process where Spark is, with the
output, the folder and the variables of who asked, and ends as the file does.
"""

from __future__ import annotations

import array
import base64
import ctypes
import io
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

SPARK = "spark"
NAMES = ("python", "python3")
STOP = b"stop"
HEAD = 12  # digits of the size of a request
PAUSE = 0.1
DEATH_SIGNAL = 1
UNUSABLE = 2
KILLED = 128 + signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM


def main(source: str, program: str, given: Mapping[str, Any]) -> None:
    """Run the job that the first argument names; for one of Spark, the second says so.

    `source` is this file, `program` the agent in base64. The names that are `given` to us, such
    as `spark`, a file of Python gets too. Raises RuntimeError where the command fails.
    """
    with tempfile.TemporaryDirectory(prefix="repro-agent-") as folder:
        agent = _written(folder, "agent.pyz", base64.b64decode(program))
        desk, spec = None, sys.argv[1]
        if sys.argv[2:] == [SPARK]:
            desk = Desk(folder, source, given)
            spec = desk.prepared(spec)
        code, text = _ended([sys.executable, "-I", agent, spec], folder, desk)
    if text:
        sys.stderr.write(text + "\n")
    if code:
        why = text.splitlines()[-1] if text else "its output is with repro"
        raise RuntimeError(f"the step has ended with code {code}: {why}")


def _ended(argv: list[str], folder: str, desk: Desk | None) -> tuple[int, str]:
    """Run the agent to its end; give its exit code, and what it says of itself."""
    log = os.path.join(folder, "log")
    with open(log, "wb") as said:
        agent = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=said,
            cwd="/",
            preexec_fn=_bound_to_us(),  # noqa: PLW1509  (it takes no lock)
        )
    try:
        if desk:
            desk.serve(agent)
        code = agent.wait()
    except BaseException:
        agent.terminate()
        agent.wait()
        raise
    with open(log, encoding="utf-8", errors="replace") as file:
        return code, file.read().strip()


def _bound_to_us() -> Callable[[], int] | None:
    """Give what asks the kernel to end a new process with us, where that is Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork
    return lambda: int(prctl(DEATH_SIGNAL, signal.SIGTERM))


def _written(folder: str, name: str, data: bytes, mode: int = 0o600) -> str:
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    return path


class Desk:
    """Where the command asks for its files of Python to be run, one after the other."""

    def __init__(self, folder: str, source: str, given: Mapping[str, Any]) -> None:
        """Listen in a private folder, and put there the programs that ask."""
        self._folder = folder
        self._given = {name: given[name] for name in given if not name.startswith("__")}
        place = os.path.join(folder, "line")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(place)
        self._listener.listen()
        driver = _written(folder, "driver.py", source.encode("utf-8"))
        words = " ".join(map(shlex.quote, (sys.executable, "-I", driver, place)))
        self._programs = os.path.join(folder, "bin")
        os.mkdir(self._programs)
        for name in NAMES:
            _written(self._programs, name, f'#!/bin/sh\nexec {words} "$@"\n'.encode(), 0o700)

    def prepared(self, spec: str) -> str:
        """Give a copy of a specification in which our programs come first, then the driver's."""
        with open(spec, encoding="ascii") as file:
            asked = json.load(file)
        path = os.pathsep.join((self._programs, os.environ.get("PATH", os.defpath)))
        asked["variables"]["PATH"] = os.fsencode(path).decode("latin-1")
        return _written(self._folder, "spec.json", json.dumps(asked).encode("ascii"))

    def serve(self, agent: subprocess.Popen[bytes]) -> None:
        """Run what is asked for, in this thread, until the agent has ended."""
        with self._listener:
            while agent.poll() is None:
                if select.select([self._listener], [], [], PAUSE)[0]:
                    line, _ = self._listener.accept()
                    with line, suppress(OSError, EOFError):
                        Call(line, agent, self._folder).answer(self._given)


class Call:
    """One file of Python that is asked for, over a line that is closed when nobody waits for it."""

    def __init__(self, line: socket.socket, agent: subprocess.Popen[bytes], folder: str) -> None:
        """Know what is to be waited for, and removed, where the file does not end."""
        self._line, self._agent, self._folder = line, agent, folder
        self._thread = threading.get_ident()
        self._over = threading.Event()
        self._is_stopped = False

    def answer(self, given: Mapping[str, Any]) -> None:
        """Run it and tell the exit code. Raises OSError and EOFError where nobody is there."""
        asked, outputs = _received(self._line)
        threading.Thread(target=self._watch, daemon=True).start()
        with _lent(asked, outputs):
            code = self._ran(asked["words"][0], given)
        self._over.set()
        self._line.sendall(b"%d" % code)

    def _ran(self, path: str, given: Mapping[str, Any]) -> int:
        code = 0
        try:
            runpy.run_path(path, init_globals=dict(given), run_name="__main__")
        except SystemExit as error:
            code = _code_of(error.code)
        except BaseException as error:  # noqa: BLE001  (whatever the file raises is its end)
            code = 1
            if not self._is_stopped:
                _show(error, path)
        return TERMINATED if self._is_stopped else code

    def _watch(self) -> None:
        """End it when that is wished; end the driver, last of all, where it does not listen."""
        with suppress(OSError):
            while self._line.recv(len(STOP)):
                self._interrupt()
        if not self._over.is_set():
            self._interrupt()
            self._agent.wait()
        if not self._over.is_set():
            shutil.rmtree(self._folder, ignore_errors=True)
            os._exit(1)

    def _interrupt(self) -> None:
        # It need not be the main thread that runs it, and signals are for that one.
        self._is_stopped = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread), ctypes.py_object(KeyboardInterrupt)
        )


def _received(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read a request: who asks, with what words, and the descriptors for the output."""
    numbers = array.array("i")
    size, others, _, _ = line.recvmsg(HEAD, socket.CMSG_SPACE(2 * numbers.itemsize))
    for _level, _kind, data in others:
        numbers.frombytes(data)
    if not size:
        raise EOFError
    request = b""
    while len(request) < int(size):
        piece = line.recv(1 << 16)
        if not piece:
            raise EOFError
        request += piece
    return json.loads(request), list(numbers)


@contextmanager
def _lent(asked: Mapping[str, Any], outputs: list[int]) -> Iterator[None]:
    """Be who has asked, as far as a process can: the search path for programs stays ours."""
    variables, folder, written = dict(os.environ), os.getcwd(), sys.dont_write_bytecode
    words, paths, streams = sys.argv, list(sys.path), (sys.stdout, sys.stderr)
    kept = os.dup(1), os.dup(2)
    try:
        _point(outputs)
        sys.stdout, sys.stderr = _stream(1, "strict"), _stream(2, "backslashreplace")
        os.chdir(asked["folder"])
        os.environ.update({n: v for n, v in asked["variables"].items() if n != "PATH"})
        sys.argv, sys.dont_write_bytecode = asked["words"], True
        sys.path.insert(0, os.path.dirname(os.path.realpath(sys.argv[0])))
        tempfile.tempdir = None
        yield
    finally:
        sys.stdout, sys.stderr = streams
        _point(kept)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        sys.argv, sys.dont_write_bytecode = words, written
        sys.path[:] = paths
        tempfile.tempdir = None


def _point(outputs: tuple[int, ...] | list[int]) -> None:
    """Have the standard output and error go to other descriptors, which are closed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)


def _stream(number: int, errors: str) -> io.TextIOWrapper:
    """Give a stream as Python itself makes it without buffers; a driver's may go elsewhere."""
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)


def _code_of(said: object) -> int:
    """Give the exit code that a SystemExit stands for."""
    if said is None or isinstance(said, int):
        return int(said or 0) & 0xFF
    sys.stderr.write(f"{said}\n")
    return 1


def _show(error: BaseException, path: str) -> None:
    """Write a traceback that begins in the file."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def bridge(place: str, words: list[str]) -> int:
    """Have the driver run a file of Python with its arguments; give the exit code."""
    if not words or words[0].startswith("-"):
        sys.stderr.write("repro: `python` of a Spark job takes a file and its arguments only\n")
        return UNUSABLE
    if not os.path.exists(words[0]):
        sys.stderr.write(f"python: there is no file `{words[0]}`\n")
        return UNUSABLE
    asked = {"words": words, "folder": os.getcwd(), "variables": dict(os.environ)}
    request = json.dumps(asked).encode("ascii")
    outputs = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (1, 2)))
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(place)
        line.sendmsg([b"%*d" % (HEAD, len(request))], [outputs])
        line.sendall(request)
        signal.signal(signal.SIGTERM, lambda *_: _stopped(line))
        told = b""
        with suppress(ConnectionError):
            told = line.recv(HEAD)
    if not told:
        sys.stderr.write("repro: the driver's process has ended\n")
    return int(told or KILLED)


def _stopped(line: socket.socket) -> None:
    with suppress(OSError):  # the driver has just ended
        line.sendall(STOP)


if __name__ == "__main__":
    sys.exit(bridge(sys.argv[1], sys.argv[2:]))

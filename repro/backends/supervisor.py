"""Runs one command, and outlives everything that the command starts.

A process of its own, since only that can promise two things: orphans of the command come back to
it (it is their subreaper), and it is still there when repro itself is killed. It imports nothing
of repro and little of the standard library, since every step pays for that: `signal`, `json` and
`ctypes` would double the cost of a bare interpreter.

Standard input is a socket to the parent, and standard output and error are the command's. From
the parent comes a line of JSON that says what to run, later perhaps a byte, which means to
cancel; the end of the stream means that it has died. Back goes a line of JSON when the command
has started, and another when nothing of it is left.
"""

from __future__ import annotations

import os
import resource
import select
import sys
from time import monotonic_ns as now

try:
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:  # an interpreter that names its parts otherwise
    import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MILLISECOND = 10**6
SHORT = 200 * MILLISECOND  # the grace of what was left behind, or has nobody waiting for it
PATIENCE = 10_000 * MILLISECOND  # with processes that even SIGKILL does not end
PAUSE = 10 * MILLISECOND
NEVER = 2**63

STOPS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM))
TERMINATED: int = 128 + signal.SIGTERM
KILLED: int = 128 + signal.SIGKILL
NOT_EXECUTABLE = 126
NOT_FOUND = 127

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class Line:
    """The line to the parent, and all else that can wake us: a child's end, a signal."""

    def __init__(self, parent: int) -> None:
        """Listen; from here on a signal that asks us to end cancels the step instead.

        `parent` is what `_watched` gave for it: it may die while a fork of it holds our line open.
        """
        self.cancelled = False
        self.orphaned = NEVER  # when the parent was found dead
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._bells = self._listen()
        self._parent = parent
        if parent >= 0:
            self._poll.register(parent, select.POLLIN)

    def _listen(self) -> int:
        bells, bell = os.pipe()
        os.set_blocking(bells, False)
        os.set_blocking(bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._poll.register(bells, select.POLLIN)
        return bells

    def request(self) -> bytes:
        """Give the line that says what to run; it is empty if the parent has died."""
        text = b""
        while b"\n" not in text:
            data = _read(0)
            if not data:
                return b""
            text += data
        text, _, word = text.partition(b"\n")
        self.cancelled = bool(word)
        return text

    def tell(self, fact: bytes) -> None:
        """Send a line of JSON, which a dead parent does not get."""
        _attempt(os.write, 0, fact + b"\n")

    def wait(self, until: int) -> None:
        """Sleep until something happens, at most until that time."""
        left = -(-(until - now()) // MILLISECOND)
        for descriptor, _ in self._poll.poll(None if until >= NEVER else max(0, left)):
            self._hear(descriptor)

    def _hear(self, descriptor: int) -> None:
        data = b"" if descriptor == self._parent else _read(descriptor)
        if descriptor == self._bells:
            self.cancelled |= not STOPS.isdisjoint(data)
        elif data:
            self.cancelled = True
        else:
            self.orphaned = min(self.orphaned, now())
            self._poll.unregister(descriptor)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except OSError:  # the parent has died without reading all that we told it
        return b""


class Step:
    """The command and all that it started.

    `tree` says that every orphan becomes our child and that /proc shows it. Elsewhere the
    command's process group is all that can be reached. `status` and `wall` are the command's,
    once it has ended; `buried` is when the last process did.
    """

    def __init__(self, argv: list[bytes], variables: dict[bytes, bytes], room: Any = None) -> None:
        """Start it in a session of its own; with a `room` of the sandbox, in that."""
        self.tree = _prctl(PR_SET_CHILD_SUBREAPER, 1) and os.path.isdir("/proc/self")
        self.status: int | None = None
        self.wall = 0
        self.buried = self._started = now()
        self.is_guarded = room is not None and room.GUARDED
        us = os.getpid()
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        self.main = room.fork() if room else os.fork()
        if not self.main:
            _become(argv, variables, us, room)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def alive(self) -> bool:
        """Bury the dead, and say whether anything is left.

        Having no child means having no descendant, since orphans become our children.
        """
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return True
                self.buried = now()
                if pid == self.main:
                    self.status, self.wall = status, self.buried - self._started
        except ChildProcessError:
            return not self.tree and _attempt(os.killpg, self.main, 0)

    def send(self, *numbers: int) -> None:
        """Send these to every process of the step, once.

        The group comes first: the kernel reaches it as a whole, so that no fork gets away. Its
        number is ours only until the command is buried, or while a process is in it. The others
        were seen a moment ago, and a pid comes back only after all others had their turn.
        Where a guard of the sandbox is in the command's place, being asked to end is not for it:
        with it, all would end at once.
        """
        found = _descendants() if self.tree else {}
        ours = self.status is None or not self.tree or self.main in found.values()
        for number in numbers:
            if ours and not (self.is_guarded and number == signal.SIGTERM):
                _attempt(os.killpg, self.main, number)
            for pid, group in found.items():
                if group != self.main:
                    _attempt(os.kill, pid, number)


def _attempt(call: Callable[..., object], *arguments: object) -> bool:
    """Do what fails where the other side is gone, or has become another user's."""
    try:
        call(*arguments)
    except OSError:
        return False
    return True


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    arguments = (option, value, 0, 0, 0)
    try:  # what ctypes itself uses
        from _ctypes import call_cdeclfunction, dlopen, dlsym
    except ImportError:
        from ctypes import CDLL

        return bool(CDLL(None).prctl(*arguments) == 0)
    return bool(call_cdeclfunction(dlsym(dlopen(None, 0), "prctl"), arguments) == 0)  # type: ignore[arg-type]


def _descendants() -> dict[int, int]:
    """Find every process below this one, with its process group."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent, group = _stat(name)
            children.setdefault(parent, []).append((int(name), group))
    found: dict[int, int] = {}
    below = children.pop(os.getpid(), [])
    while below:
        pid, group = below.pop()
        found[pid] = group
        below += children.pop(pid, [])
    return found


def _stat(pid: str) -> tuple[int, int]:
    """Read the parent and the group, which follow a name that may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            _, parent, group, _ = file.read().rpartition(b") ")[2].split(None, 3)
    except OSError:
        return 0, 0
    return int(parent), int(group)


def _become(
    argv: list[bytes], variables: dict[bytes, bytes], supervisor: int, room: Any
) -> NoReturn:
    """Turn this fork into the command, as if nobody had ever touched the process.

    Signals stay blocked until none goes to a handler of ours any more, where it would be lost.
    """
    code = NOT_EXECUTABLE
    try:
        os.setsid()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() not in {supervisor, 0}:  # 0 is seen from namespaces, which look themselves
            os._exit(KILLED)
        argv = room.enter(argv) if room else argv
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _execute(argv, variables)
    except (FileNotFoundError, NotADirectoryError) as error:
        code = _explained(argv, error, NOT_FOUND)
    except Exception as error:  # noqa: BLE001  (a fork must never return into its parent's code)
        code = _explained(argv, error, NOT_EXECUTABLE)
    finally:
        os._exit(code)


def _execute(argv: list[bytes], variables: dict[bytes, bytes]) -> NoReturn:
    """Replace this process, looking for the command as a shell does: a refusal is remembered."""
    name = argv[0]
    path = variables.get(b"PATH", os.fsencode(os.defpath))
    places = [name] if b"/" in name else [os.path.join(p, name) for p in path.split(b":")]
    refusal: OSError | None = None
    for place in places:
        try:
            os.execve(place, argv, variables)  # noqa: S606  (no shell: that is the point)
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
        except PermissionError as error:
            refusal = refusal or error
    raise refusal or missing


def _explained(argv: list[bytes], error: Exception, code: int) -> int:
    reason = getattr(error, "strerror", None) or str(error)
    os.write(2, b"repro: cannot run `%b`: %b\n" % (argv[0], os.fsencode(reason)))
    return code


class _Plain:
    """What the scanner of JSON asks for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _decoded(text: bytes) -> Any:
    try:
        from _json import make_scanner
    except ImportError:
        from json import loads

        return loads(text)
    return make_scanner(_Plain)(text.decode("ascii"), 0)[0]  # type: ignore[arg-type]


def _watch(step: Step, line: Line, until: int) -> str:
    """Wait for the end of the command, or of its time, or of the wish for it; say which."""
    while True:
        step.alive()
        if step.status is not None:
            return "exit"
        if line.cancelled or line.orphaned < NEVER:
            return "cancel"
        if now() >= until:
            return "timeout"
        line.wait(until)


def _end(step: Step, line: Line, grace: int) -> None:
    """Ask all that is left to end, then end it.

    What forks faster than it can be killed is stopped first: stopped processes do not fork.
    """
    if step.tree:  # thousands of them would leave us no time to run; only root may do this
        _attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
    step.send(signal.SIGTERM, signal.SIGCONT)
    limit = now() + grace
    while step.alive() and now() < min(limit, line.orphaned + SHORT):
        line.wait(now() + PAUSE)
    limit = now() + PATIENCE
    while step.alive() and now() < max(limit, step.buried + PATIENCE):
        step.send(signal.SIGSTOP)
        step.send(signal.SIGKILL)
        line.wait(now() + PAUSE)


def _code(status: int | None, cause: str) -> int:
    """Give the command's exit code; one that we ended has that of the signal that it took."""
    code = KILLED if status is None else os.waitstatus_to_exitcode(status)
    code = code if code >= 0 else 128 - code
    if cause == "exit" or code == KILLED:
        return code
    return TERMINATED


def _report(step: Step, cause: str) -> bytes:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return b'{"code":%d,"cause":"%b","wall_ns":%d,"user_ns":%d,"system_ns":%d,"peak_bytes":%d}' % (
        _code(step.status, cause),
        cause.encode(),
        step.wall,
        round(usage.ru_utime * 10**9),
        round(usage.ru_stime * 10**9),
        usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _run(request: Any, line: Line) -> bytes:
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    variables = {_raw(name): _raw(value) for name, value in request["variables"].items()}
    step = Step([_raw(word) for word in request["argv"]], variables, _room(request))
    line.tell(b'{"group":%d}' % step.main)
    limit, grace = request["timeout_ms"] * MILLISECOND, request["grace_ms"] * MILLISECOND
    cause = _watch(step, line, now() + limit if limit else NEVER)
    if step.is_guarded and cause == "exit":  # the kernel ends what is left
        limit = now() + SHORT
        while step.alive() and now() < limit:
            line.wait(limit)
    if step.alive():
        _end(step, line, SHORT if cause == "exit" else grace)
    return _report(step, cause)


def _room(request: Any) -> Any:
    """Give the sandbox that a request asks for, if it does. Its modules lie beside this one."""
    if "means" not in request:
        return None
    return __import__(f"sandbox.{request['means']}", fromlist=["Room"]).Room(request["orders"])


def _raw(text: str) -> bytes:
    """Undo the parent's way to get any bytes through JSON: one character for each."""
    return text.encode("latin-1")


def main() -> NoReturn:
    """Run what the parent asks for, report the end to it, and exit."""
    _supervise(_watched(os.getppid()))


def _supervise(parent: int) -> NoReturn:
    line = Line(parent)
    request = line.request()
    if request:
        line.tell(_run(_decoded(request), line))
    os._exit(0)  # there is nothing to tidy up, and doing so would take a millisecond


def _watched(process: int) -> int:
    """Give what can be read when a process has died; below 0 where the system has no such thing."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return -1


def serve() -> NoReturn:
    """Fork for each job that the parent has, until it hangs up or dies; bury all, and exit.

    Standard input is a socket. For each job a line comes that names the means of its sandbox, with
    four descriptors: its folder, and the standard input, output and error of `main`. A byte goes
    back when the fork has been made.
    """
    import gc
    from _socket import socket as Socket  # noqa: N812  (a class)

    gc.disable()  # a fork would copy all that a collection touches
    parent = _watched(os.getppid())
    line = Socket(fileno=0)
    poll = select.poll()
    for descriptor in (0, parent) if parent >= 0 else (0,):
        poll.register(descriptor, select.POLLIN)
    while any(ready == 0 for ready, _ in poll.poll()) and (asked := _asked(line)):
        means, descriptors = asked
        if means:
            __import__(f"sandbox.{means}")
        if os.fork() == 0:
            _begin(parent, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(b"f")
        _bury(os.WNOHANG)
    _bury(0)
    os._exit(0)


def _asked(line: Any) -> tuple[str, list[int]] | None:
    """Read what the parent of many jobs wants: a word, and descriptors."""
    word, said, _, _ = line.recvmsg(1 << 10, 1 << 10)
    data = b"".join(part for _, _, part in said)
    size = 4
    numbers = [
        int.from_bytes(data[at : at + size], sys.byteorder) for at in range(0, len(data), size)
    ]
    return (word[:-1].decode(), numbers) if word else None


def _begin(parent: int, folder: int, *streams: int) -> NoReturn:
    """Be, in a fork, what `main` is in a process of its own."""
    try:
        os.setsid()
        os.fchdir(folder)
        os.close(folder)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        _supervise(parent)
    finally:
        os._exit(1)  # a fork must never return into its parent's code


def _bury(options: int) -> None:
    try:
        while os.waitpid(-1, options)[0]:
            pass
    except ChildProcessError:
        pass

"""What Slurm says about jobs, asked for all jobs in flight with one call."""

from __future__ import annotations

import subprocess
import threading
import time

from repro.backends import slurmjob
from repro.errors import Unreachable, Unsupported, UsageError
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.backends.slurmjob import Directive

WAIT = 120.0  # seconds for one of Slurm's commands
FIRST_PAUSE = 0.5
GROWTH = 1.5
TOGETHER = 300  # jobs named in one call
MISSES = 2  # answers without a job after which it is gone
OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
        "GONE",
    ]
)
UNKNOWN = "invalid job id specified"
PASSING = (
    "unable to contact slurm controller",
    "socket timed out",
    "connection refused",
    "connection failure",
    "connection timed out",
    "zero bytes were transmitted",
    "temporarily unable",
    "resource temporarily unavailable",
    "protocol authentication error",
    "unable to establish",
)


class Down(Unreachable):
    """Slurm did not answer; it may when it is asked again."""


class State(Value):
    """What Slurm says: its word, such as `RUNNING`, and its reason. `GONE` is our own word."""

    word: str
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Say whether the job has ended, unless it is started again."""
        return self.word in OVER


class Commands:
    """Slurm's commands."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Call them with these variables, as far as they concern Slurm."""
        self.environ = environ

    def call(self, *argv: str, needs: tuple[Directive, ...] = ()) -> str:
        """Give the output. Raises Down, UsageError with Slurm's words, Unsupported."""
        try:
            done = subprocess.run(
                argv,
                env=slurmjob.variables(self.environ, needs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=WAIT,
                check=False,
                start_new_session=True,  # Ctrl-C is for repro to act on
            )
        except FileNotFoundError:
            raise Unsupported(
                f"there is no command `{argv[0]}` on this machine",
                hints=["run where jobs can be submitted, for example on a login node"],
            ) from None
        except subprocess.TimeoutExpired:
            raise Down(f"`{argv[0]}` did not answer in {WAIT:g} seconds") from None
        if done.returncode:
            raise _refusal(argv[0], done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")


def _refusal(name: str, text: str) -> Down | UsageError:
    lines = [line.partition(": ")[2].removeprefix("error: ") for line in text.splitlines()]
    lines = [line.partition(" failed: ")[2] or line for line in lines if line.strip()]
    said = "; ".join(line[:1].lower() + line[1:] for line in lines) or "it said nothing"
    if any(words in text.lower() for words in PASSING):
        return Down(f"slurm does not answer `{name}`: {said}")
    return UsageError(f"`{name}` refuses: {said}")


class Queue:
    """The states of the jobs that are watched, asked by one thread as long as there are any."""

    def __init__(self, commands: Commands, longest: float) -> None:
        """Ask with ever longer pauses, of `longest` seconds at most."""
        self._commands, self._longest = commands, longest
        self._states: dict[str, State | None] = {}
        self._misses: dict[str, int] = {}
        self._watchers: dict[str, int] = {}
        self._changed = threading.Condition(threading.RLock())
        self._pause = FIRST_PAUSE
        self._thread: threading.Thread | None = None
        self._accounted = True
        self.answered = time.monotonic()

    def watch(self, job: str) -> None:
        """Begin to ask for a job: its number, or that of a task of an array, as `12_3`."""
        with self._changed:
            self._states.setdefault(job, None)
            self._watchers[job] = self._watchers.get(job, 0) + 1
            if self._thread is None:
                self.answered = time.monotonic()
                self._thread = threading.Thread(target=self._ask, name="repro-squeue", daemon=True)
                self._thread.start()
            self.hurry()

    def forget(self, job: str) -> None:
        """Ask no more, unless others watch it too."""
        with self._changed:
            self._watchers[job] -= 1
            if not self._watchers[job]:
                for known in (self._watchers, self._states, self._misses):
                    known.pop(job, None)
                self._changed.notify_all()

    def hurry(self) -> None:
        """Ask soon again."""
        with self._changed:
            self._pause = FIRST_PAUSE
            self._changed.notify_all()

    def state(self, job: str) -> State | None:
        """Give what was last said of a job, None before anything was."""
        with self._changed:
            return self._states.get(job)

    def _ask(self) -> None:
        while True:
            with self._changed:
                if not self._states:
                    self._thread = None
                    return
                jobs = list(self._states)
            try:
                self._take(jobs, self.look(jobs))
            except Down:
                pass  # `answered` tells how long this goes on
            except (UsageError, OSError):
                pass  # the same; not even an explained refusal must end this thread
            with self._changed:
                self._changed.wait(self._pause)
                self._pause = min(self._pause * GROWTH, self._longest)

    def _take(self, jobs: Iterable[str], found: Mapping[str, State]) -> None:
        with self._changed:
            self.answered = time.monotonic()
            for job in jobs:
                if job not in self._states:
                    continue
                if job in found:
                    self._states[job] = found[job]
                    self._misses.pop(job, None)
                    continue
                self._misses[job] = self._misses.get(job, 0) + 1
                if self._misses[job] >= MISSES:
                    self._states[job] = State(word="GONE")

    def look(self, jobs: Iterable[str]) -> dict[str, State]:
        """Ask now for these: the controller, and the accounting for those it has forgotten."""
        wanted = list(jobs)
        numbers = sorted({job.partition("_")[0] for job in wanted})
        found: dict[str, State] = {}
        for at in range(0, len(numbers), TOGETHER):
            found |= self._queued(",".join(numbers[at : at + TOGETHER]))
        missing = [job for job in wanted if job not in found]
        if missing and self._accounted:
            found |= self._recorded(",".join(missing))
        return found

    def _queued(self, numbers: str) -> dict[str, State]:
        try:
            text = self._commands.call(
                "squeue", "-h", "-r", "-t", "all", "-j", numbers, "-o", "%i|%T|%r"
            )
        except UsageError as error:
            if UNKNOWN in error.message:
                return {}
            raise
        return read_states(text)

    def _recorded(self, numbers: str) -> dict[str, State]:
        try:
            text = self._commands.call(
                "sacct", "-n", "-X", "-P", "-j", numbers, "-o", "JobID,State"
            )
        except UsageError:
            self._accounted = False
            return {}
        return read_states(text)


def read_states(text: str) -> dict[str, State]:
    """Read lines of job, state and perhaps reason; `CANCELLED by 0` is a state of sacct's."""
    found = {}
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) > 1 and words[1]:
            reason = words[2] if len(words) > 2 and words[2] != "None" else ""  # noqa: PLR2004
            found[words[0]] = State(word=words[1].split()[0].rstrip("+"), reason=reason)
    return found


_QUEUES: dict[tuple[str, str, float], Queue] = {}
_CHOOSING = threading.Lock()


def shared(environ: Mapping[str, str], longest: float) -> Queue:
    """Give the one queue of this process for a cluster, whoever asks."""
    key = (environ.get("SLURM_CONF", ""), environ.get("PATH", ""), longest)
    with _CHOOSING:
        if key not in _QUEUES:
            _QUEUES[key] = Queue(Commands(dict(environ)), longest)
        return _QUEUES[key]

"""The seams to the world. The engine knows these protocols and never what stands behind them."""

from __future__ import annotations

from repro.spec import Resources
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    from repro.capture import Capture
    from repro.events import Emit, Event
    from repro.lock import EnvironmentLock
    from repro.manifest import Entry
    from repro.params import Argument
    from repro.record import RunRecord
    from repro.source import Selection, Source
    from repro.spec import Environment, Project, SparkJob

    Sink = Callable[[str, bytes], None]
    Progress = Callable[[str], None]


class Confinement(Value):
    """What a job may see, write and reach beside the system.

    `level` is `none`, `mounts` (files), or `hermetic` (also no network). Under every level but
    `none`, `writable` are the only folders that can be written to, and `temporary`, one of them,
    is what `/tmp` shows; `readable` are (path, path inside), of files or folders, the two being
    the same but for means that can show things elsewhere. Without a `network`, nothing answers
    but `port` of the loopback interface.
    """

    level: str = "none"
    writable: tuple[str, ...] = ()
    temporary: str = ""
    readable: tuple[tuple[str, str], ...] = ()
    network: bool = True
    port: int = 0


class Job(Value):
    """What a backend starts: one command, complete, with nothing left to decide.

    `argv` is never joined into a shell text. `variables` are the whole environment of the
    command. `folder` is its working directory. `timeout_ms` 0 means no limit. `grace_ms` is the
    time between asking a process tree to end and ending it.

    What follows is for backends that isolate: `base` is the folder that holds everything private
    of the job, `folder` among it; `image` is the image to run in (its id, or a reference by
    digest), `binds` are (host path, path inside, `ro` or `rw`), `container` the caller's own
    options for the engine as (name, value), a value of None being a flag. `network` False means
    none but what `variables` point to on the loopback interface. `confinement` is for processes
    of this machine; `starter` are the words of programs that such a process is started by, each
    of which becomes what follows it. `lock` is that of the environment, for backends that make it
    elsewhere. `labels` name the job for those who look at the engine: `project`, `step`, `key`.
    `entry_point` and `parameters`, as text by name, are for backends that run a whole project.
    `spark` is for a command whose `python` has to be the process of a cluster where Spark is.
    """

    run_id: str
    argv: tuple[str, ...]
    variables: Mapping[str, str]
    folder: str
    timeout_ms: int = 0
    grace_ms: int = 5000
    base: str = ""
    image: str = ""
    binds: tuple[tuple[str, str, str], ...] = ()
    container: tuple[tuple[str, str | None], ...] = ()
    network: bool = True
    resources: Resources = Resources()
    confinement: Confinement = Confinement()
    starter: tuple[str, ...] = ()
    lock: EnvironmentLock | None = None
    labels: Mapping[str, str] = {}
    entry_point: str = ""
    parameters: Mapping[str, str] = {}
    spark: SparkJob | None = None


class LockRequest(Value):
    """What is to be locked, and how.

    `platforms` are conda's names, such as `linux-64`; none means this machine's. `keep` are
    earlier locks of the same request: what still satisfies stays as it was, except for the names
    in `upgrade` (`*` is all). `exclude_newer` is a date (RFC 3339); younger packages are not
    taken.
    """

    environment: Environment
    platforms: tuple[str, ...] = ()
    keep: tuple[EnvironmentLock, ...] = ()
    upgrade: tuple[str, ...] = ()
    exclude_newer: str = ""


class Unmet(Value):
    """One thing that a lock does not give as its request asks: what was asked, and why not.

    `code` is that of the audit rule: `D01` not in the lock, `D02` not satisfied, `D04` a package
    of the lock needs what is not in it, `D05` other channels or index, `D06` conda and pip
    disagree, `D07` another Python.
    """

    code: str
    entry: str
    why: str


class JobEnd(Value):
    """How a job ended, and what it took. A failed command is a `JobEnd`, never an exception.

    `code` is the command's exit code, or 128 plus the signal that ended it. `cause` is `exit`,
    `timeout`, `cancel`, or `lost` where the end could not be learned. Times are in nanoseconds,
    `peak_bytes` is the largest resident size of a single process.
    """

    code: int
    cause: str = "exit"
    wall_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    peak_bytes: int = 0


class ChildRun(Value):
    """A run that a step's code started below, or beside, the step's own; fields as in `Tracked`.

    `parent` is the position, among the children, of the run it is nested in; -1 is the step's own.
    """

    name: str
    status: str
    parent: int = -1
    started_ms: int = 0
    ended_ms: int = 0
    metrics: tuple[tuple[str, str, int, int], ...] = ()
    parameters: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    artifacts: str = ""
    datasets: tuple[Mapping[str, Any], ...] = ()


class Tracked(Value):
    """What a step logged: metrics as (key, value, timestamp_ms, step), values as `repr` text.

    `parameters` and `tags` are the last values. `artifacts` is the folder with the logged files,
    empty where there are none. `datasets` are MLflow's dataset inputs, as its protocol writes them.
    """

    metrics: tuple[tuple[str, str, int, int], ...] = ()
    parameters: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    artifacts: str = ""
    datasets: tuple[Mapping[str, Any], ...] = ()
    children: tuple[ChildRun, ...] = ()


class Asked(Value):
    """A run that the code of a step asks for, in MLflow's words.

    `folder` is where the code stands, and `variables` are those of its environment.
    """

    uri: str
    folder: str
    entry_point: str = "main"
    version: str = ""
    parameters: Mapping[str, str | None] = {}
    env_manager: str = ""
    experiment_name: str = ""
    run_id: str = ""
    run_name: str = ""
    storage: str = ""
    container: Mapping[str, str | None] = {}
    variables: Mapping[str, str] = {}


class Called(Value):
    """How a run stands that the code of a step has asked for; fields as in `Tracked`.

    `artifacts` is the digest of the manifest of the files it logged. `error` says why it did not
    succeed.
    """

    run_id: str
    status: str
    entry_point: str
    name: str = ""
    key: str = ""
    cached: bool = False
    error: str = ""
    parameters: Mapping[str, str] = {}
    metrics: tuple[tuple[str, str, int, int], ...] = ()
    tags: Mapping[str, str] = {}
    artifacts: str = ""


if TYPE_CHECKING:

    class Calls(Protocol):
        """Runs what the code of one running step asks for, outside of it. Any thread may call."""

        def begin(self, asked: Asked, ended: Callable[[Called], None]) -> Called:
            """Start a run; `ended` is called when it is over, before `wait` says so.

            Raises ReproError for whatever keeps it from running.
            """

        def wait(self, run_id: str, seconds: float) -> Called | None:
            """Give a run that is over, or None after that time. Raises UsageError."""

        def cancel(self, run_id: str) -> None:
            """End a run with everything it started."""

        def write(self, called: Called, folder: str) -> None:
            """Write the files that a run logged below a folder."""

    class Session(Calls, Protocol):
        """The same, from the side of the step's execution."""

        problem: str

        def emit(self, event: Event, /) -> None:
            """Pass an event on, one at a time."""

        def open(self, capture: Capture) -> None:
            """Begin with nothing asked; `capture` learns what others make in the step's tree."""

        def variables(self, given: Mapping[str, str]) -> dict[str, str]:
            """Give the step's variables with those that lead its code to us."""

        def close(self, *, good: bool) -> None:
            """Wait for what still runs, or end it where the step itself did no good."""

        def kept(self) -> tuple[Mapping[str, Any], ...]:
            """Give what was asked for, so that it can be asked for again."""

    class SubmittedJob(Protocol):
        """A job under way. Any thread may call any method at any time."""

        def wait(self) -> JobEnd:
            """Block until it and all that it started have ended and all output was delivered."""

        def poll(self) -> JobEnd | None:
            """Give the end if it has ended."""

        def cancel(self) -> None:
            """End it and everything it started; return when nothing is left. Twice is harmless."""

    class Backend(Protocol):
        """A place where steps run.

        `environments` says what a job brings: `files`, a folder of this machine that the place
        sees too; `images`, an image in the engine of this machine; `references`, an image by the
        digest that a registry gave it where there is one, else as `images`; `locks`, nothing but
        the lock, and the place makes the environment itself; `projects`, nothing: the place runs
        the whole project its own way, so that its result serves no other run.
        """

        name: str
        environments: str

        def submit(self, job: Job, sink: Sink) -> SubmittedJob:
            """Start `job`; `sink("stdout" | "stderr", data)` gets its output, in order, live.

            Raises ReproError when it cannot start; a command that is not there is exit code 127.
            """

    class Lasting(Backend, Protocol):
        """A place whose jobs go on when the process that submitted them has died."""

        def find(
            self, run_id: str, sink: Sink | None = None, base: str = ""
        ) -> SubmittedJob | None:
            """Give the job of a run that some process has submitted, to wait for or to cancel.

            `sink` gets its output from the beginning, as far as the engine has kept it. What the
            command changed is in the folder `base` at the end, which has to hold what the job's
            own one held; without it, nothing is brought. The caller need not be the submitter.
            """

        def orphans(self) -> tuple[str, ...]:
            """Name the runs whose jobs may be there, and whose processes are gone from here."""

    class Environments(Protocol):
        """One kind of environment: request to lock, lock to something that runs."""

        kind: str

        def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
            """Resolve a request; give one lock for each platform, in the order asked for.

            The same request gives the same locks on every machine. Raises EnvironmentFailed with
            the resolver's reason, InterpreterMissing or Unreachable.
            """

        def unmet(self, wanted: Environment, lock: EnvironmentLock) -> tuple[Unmet, ...]:
            """Say what of a request its lock does not satisfy. Nothing is resolved or fetched."""

        def realize(self, lock: EnvironmentLock, progress: Progress) -> Realized:
            """Make what `lock` says, once, however many processes ask; give how to enter it."""

    class Realized(Protocol):
        """An environment that is there. Its use is announced until `release`.

        `image` is the id of the image to run in, empty for what runs on the machine itself.
        """

        variables: Mapping[str, str]
        path: tuple[str, ...]
        prefix: str
        image: str

        def release(self) -> None:
            """Say that nothing runs in it any more."""

    class Receiver(Protocol):
        """Takes the MLflow calls of one running step."""

        variables: Mapping[str, str]

        @property
        def unknown(self) -> tuple[str, ...]:
            """Name what the step asked for and did not get."""

        def close(self) -> Tracked:
            """Stop listening and give what was logged."""

    class Tree(Protocol):
        """The files of a project at one moment."""

        @property
        def source(self) -> Source:
            """Say where they came from."""

        def entries(self) -> tuple[Entry, ...]:
            """Give all files of the project."""

        def selected(self, chosen: Selection, step: str) -> tuple[Entry, ...]:
            """Give the inputs of a step. Raises SourceUnusable."""

        def inputs(self, chosen: Selection, step: str) -> str:
            """Give the manifest digest of a step's inputs. Raises SourceUnusable."""

        def read(self, path: str) -> bytes | None:
            """Give a regular file by its path relative to the project."""

        def materialize(self, entries: Iterable[Entry], folder: str) -> None:
            """Write files into a folder, each checked against its digest."""

        def project(self, load: Callable[[Tree], tuple[Project, tuple[str, ...]]]) -> Project:
            """Give the project, decoded by `load` unless it is known.

            `load` gives the project with the paths that it read.
            """

        def knows_project(self) -> bool:
            """Say whether `project` would give what it gave the last time, without giving it."""

        def remember(self) -> None:
            """Keep what was learned for the next time."""

    class Paths(Protocol):
        """Files outside of the project that are in the key by their content."""

        def local(self, argument: Argument, index: int, storage: Callable[[], str]) -> str:
            """Give the absolute path of a `path` parameter's value, fetched if it is remote."""

        def identify(self, path: str) -> str:
            """Give the digest of a file, or of all files below a folder."""

        def mounted(self, path: str) -> str:
            """Give what stands for a mounted path in the key."""

    class Tracking(Protocol):
        """Shows runs on a tracking server, where there is one."""

        def check(self) -> None:
            """Ask whether it is there. Raises Unreachable."""

        def begin(self, record: RunRecord, emit: Emit) -> RunRecord:
            """Create the run there. Raises Unreachable before anything has started."""

        def finish(self, record: RunRecord, tracked: Tracked, emit: Emit) -> RunRecord:
            """Write what was logged and the final status; never fails a run."""

"""Every error that a user can meet, with its stable code, exit status and hints.

ReproError                      exit
├── UsageError                     2  flags, arguments, names that are not there
│   ├── ProjectMissing             2  no MLproject
│   ├── ProjectInvalid             2  its text is wrong; carries every problem found
│   ├── EntryPointUnknown          2
│   ├── GraphInvalid               2  steps in a circle, or two that make the same output
│   ├── ParameterInvalid           2  missing, mistyped or impossible values
│   ├── SourceRefused              2  a URI, version or subdirectory outside the grammar
│   ├── SourceUnusable             2  a tree that cannot be a step's input
│   ├── RunUnknown                 2
│   ├── LockInvalid                2  a lock file that cannot be read, or is of a later version
│   ├── StoreTooNew                2  written by a later version
│   └── Unsupported                2  asked for what this version or installation lacks
├── ExecutionException             1  the project's own command failed; carries the run
├── OutputMissing                  1  a declared output was not made
├── Stale                          3
├── EnvironmentFailed              6  an environment could not be locked or made
│   └── InterpreterMissing         6
├── Unreachable                    7  a server, remote or file system; worth a retry
│   └── NoSpace                    7
└── Interrupted                  130  or 128 + the signal
"""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

OK = 0
FAILED = 1
USAGE = 2
STALE = 3
FINDINGS = 4
DIFFERENCE = 5
ENVIRONMENT = 6
UNREACHABLE = 7
BUG = 70
INTERRUPTED = 130
TERMINATED = 143

EXIT_MEANINGS = (
    (OK, "done, or nothing to do"),
    (FAILED, "a step of the project failed"),
    (USAGE, "wrong use: flags, MLproject, parameters, URI"),
    (STALE, "stale: a lock is missing or out of date, or `status --check` found steps to run"),
    (FINDINGS, "`audit` or `validate` found something at or above its threshold"),
    (DIFFERENCE, "`verify`, `diff --check` or `env verify` found a difference"),
    (ENVIRONMENT, "an environment could not be made"),
    (UNREACHABLE, "a server, remote or disk did not serve: worth a retry"),
    (BUG, "a bug of repro; a report file was saved"),
    (INTERRUPTED, "interrupted"),
    (TERMINATED, "terminated"),
)


class Where(Value):
    """A place in a text that the user wrote. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int = 0
    column: int = 0
    text: str = ""

    def __str__(self) -> str:
        """Write it as compilers do: file:line:column."""
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return ":".join(parts)


class Problem(Value):
    """One thing that is wrong, or unwise, in a project's text."""

    code: str
    message: str
    where: Where | None = None
    hint: str = ""
    level: str = "error"


class ReproError(Exception):
    """Root of everything that repro explains instead of failing with a traceback.

    `message` states what is wrong; `hints` say what to do; `where` is the place in the user's
    text. `code` is stable for programs, `exit` for shells.
    """

    code = "error"
    exit = FAILED

    def __init__(
        self, message: str, *, where: Where | None = None, hints: Iterable[str] = ()
    ) -> None:
        """Keep the parts apart, so that they can be shown as text or as JSON."""
        super().__init__(message)
        self.message = message
        self.where = where
        self.hints = tuple(hints)


class UsageError(ReproError):
    """The command line or the call asks for something that makes no sense."""

    code = "usage"
    exit = USAGE


class ProjectMissing(UsageError):
    """There is no MLproject file where one was named."""

    code = "project-missing"


class ProjectInvalid(UsageError):
    """The text of a project is wrong; `problems` holds everything that was found."""

    code = "project-invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Take the first problem as the message, and keep them all."""
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.message, where=first.where, hints=[first.hint] if first.hint else [])


class EntryPointUnknown(UsageError):
    """No entry point has that name, and it is no script either."""

    code = "entry-point-unknown"


class GraphInvalid(UsageError):
    """The steps of a project cannot be put into an order, or get into each other's way."""

    code = "graph-invalid"


class ParameterInvalid(UsageError):
    """A parameter is missing, has a value that its type refuses, or cannot reach a shell."""

    code = "parameter-invalid"


class SourceRefused(UsageError):
    """A URI, version or subdirectory that the grammar of sources does not allow."""

    code = "source-refused"


class SourceUnusable(UsageError):
    """The files of a project cannot be the input of a step."""

    code = "source-unusable"


class RunUnknown(UsageError):
    """No run has that id, or several begin with it."""

    code = "run-unknown"


class LockInvalid(UsageError):
    """A lock file cannot be read, contradicts itself, or was written by a later version."""

    code = "lock-invalid"


class StoreTooNew(UsageError):
    """The store or the history was written by a later version of repro."""

    code = "store-too-new"


class Unsupported(UsageError):
    """This version, or this installation, cannot do what was asked."""

    code = "unsupported"


class ExecutionException(ReproError):
    """The project's own command failed. `run` is the submitted run, to be looked into."""

    code = "step-failed"

    def __init__(self, message: str, *, run: Any = None, hints: Iterable[str] = ()) -> None:
        """Carry the run, so that its log, exit code and id are at hand."""
        super().__init__(message, hints=hints)
        self.run = run


class OutputMissing(ReproError):
    """The command succeeded without making an output that it declares."""

    code = "output-missing"


class Stale(ReproError):
    """Something is out of date that was asked to be up to date."""

    code = "stale"
    exit = STALE


class EnvironmentFailed(ReproError):
    """An environment could not be locked or made; `log` is the file with the tool's output."""

    code = "environment-failed"
    exit = ENVIRONMENT

    def __init__(
        self,
        message: str,
        *,
        where: Where | None = None,
        hints: Iterable[str] = (),
        log: str = "",
    ) -> None:
        """Keep the path of the build's log beside the message."""
        super().__init__(message, where=where, hints=hints)
        self.log = log


class InterpreterMissing(EnvironmentFailed):
    """No Python on this machine is the one that was asked for."""

    code = "interpreter-missing"


class Unreachable(ReproError):
    """A server, remote or file system did not serve. Trying again may help."""

    code = "unreachable"
    exit = UNREACHABLE


class NoSpace(Unreachable):
    """A disk is full, out of inodes or over its quota. Nothing half-written stays behind."""

    code = "no-space"


class Interrupted(ReproError):
    """A signal ended the run; it is recorded, and nothing of it is left running."""

    code = "interrupted"

    def __init__(self, message: str, *, signal: int) -> None:
        """Exit as shells do: 128 plus the number of the signal."""
        super().__init__(message)
        self.signal = signal
        self.exit = 128 + signal

"""Outside tools at work, with a private folder, the caller's settings and a log of all they say."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time

from repro.environments import indexes
from repro.errors import EnvironmentFailed
from repro.mirrors import Mirrors
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import IO

    from repro.errors import ReproError

    Creating = contextlib.AbstractContextManager[object]

LOG_PREFIX = "env-"
DROPPED = (
    # what leads a tool to another environment than the one it is told
    *("VIRTUAL_ENV", "CONDA_PREFIX"),
    *("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_VENV_SEED"),
    *("PIP_PYTHON", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV"),
    # what weakens or hides what it does
    *("UV_NO_VERIFY_HASHES", "UV_REQUIRE_HASHES", "PIP_REQUIRE_HASHES", "PIP_QUIET", "UV_QUIET"),
)
FIXED = {
    "GIT_TERMINAL_PROMPT": "0",
    "NO_COLOR": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PYTHONUTF8": "1",
    "UV_NO_PROGRESS": "1",
}


NOTHING: Mapping[str, str] = {}


class Running:
    """A tool at work; `told` is what it wrote to standard output, as far as that was read."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Read nothing yet."""
        self._process = process
        self.told = b""

    def line(self) -> bytes:
        """Wait for the next line; nothing where none comes any more."""
        line = self._process.stdout.readline() if self._process.stdout else b""
        self.told += line
        return line

    def end(self) -> None:
        """Wait for its end."""
        self.told += self._process.communicate()[0]


class Session:
    """One piece of work: every tool runs in `folder`, and what it prints goes to the file `log`.

    `failure` is the message of the error when a tool fails for a reason of its own. `keep` are
    file descriptors that the tools inherit: a lock then stays held for as long as one of them
    runs, even when this process is killed. `mirrors` are those of the caller.
    """

    def __init__(
        self,
        folder: str,
        log: str,
        environ: Mapping[str, str],
        failure: str,
        keep: Sequence[int] = (),
    ) -> None:
        """Prepare the environment of the tools: the caller's, without what misleads them."""
        self.folder = folder
        self.log = log
        self._failure = failure
        self._keep = keep
        self.mirrors = Mirrors(environ)
        kept = {n: v for n, v in environ.items() if n not in DROPPED and n[:6] != "PYTHON"}
        self._environ = kept | FIXED | indexes.variables(environ, self.mirrors)

    def write_lines(self, name: str, lines: Iterable[str]) -> str:
        """Put a text file into the folder; give its path."""
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)
        return path

    def write_requirements(self, name: str, lines: Iterable[str]) -> str:
        """Put a file of requirements into the folder, with mirrors; give its path."""
        return self.write_lines(name, (indexes.option(line, self.mirrors) for line in lines))

    def usual_index(self, tool: str, options: Iterable[str] = ()) -> dict[str, str]:
        """Give the variable that leads a tool to the mirror of the usual index, if it has one."""
        return indexes.default(tool, options, self._environ, self.mirrors)

    def run(self, *argv: str, variables: Mapping[str, str] = NOTHING) -> str:
        """Run a tool to its end, with more `variables`; give what it wrote to standard output.

        Raises EnvironmentFailed when it fails, or Unreachable or NoSpace where that was why.
        """
        with self.running(*argv, variables=variables) as tool:
            pass
        return tool.told.decode("utf-8", "replace")

    @contextlib.contextmanager
    def running(self, *argv: str, variables: Mapping[str, str] = NOTHING) -> Iterator[Running]:
        """Run a tool while the caller is at work, whose end then waits for that of the tool.

        It is killed when the caller fails. Raises what `run` does.
        """
        with open(self.log, "a+b") as log:
            log.write(f"$ {shlex.join(argv)}\n".encode("utf-8", "surrogateescape"))
            log.flush()
            start = log.tell()
            with self._started(argv, variables, log) as process:
                tool = Running(process)
                try:
                    yield tool
                    tool.end()
                except BaseException:
                    process.kill()
                    raise
            log.write(tool.told)
            if process.returncode == 0:
                return
            log.seek(start)
            text = log.read().decode("utf-8", "replace")
        raise self._failed(argv[0], process.returncode, text)

    def _failed(self, tool: str, code: int, text: str) -> ReproError:
        from repro.environments import failures

        if code < 0:
            text += f"\nerror: `{tool}` was ended by signal {-code}"
        return failures.explain(text, self._failure, self.log)

    def _started(
        self, argv: Sequence[str], variables: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**self._environ, **variables},
                cwd=self.folder,
                pass_fds=self._keep,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EnvironmentFailed(f"`{argv[0]}` cannot be started: {reason}") from None


@contextlib.contextmanager
def session(
    home: str, environ: Mapping[str, str], failure: str, keep: Sequence[int] = ()
) -> Iterator[Session]:
    """Work with tools below the store `home`. The log stays only when the work fails.

    The folder lies in the store's `tmp/` under a lease, so that it is collected if this process
    dies.
    """
    name = f"{os.getpid():x}-{os.urandom(6).hex()}"
    for part in ("leases", "tmp", "logs"):
        os.makedirs(os.path.join(home, part), mode=0o700, exist_ok=True)
    folder = os.path.join(home, "tmp", name)
    log = os.path.join(home, "logs", f"{LOG_PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-{name}.log")
    with files.Lock(os.path.join(home, "leases", f"tmp-{name}")) as lease:
        os.mkdir(folder, 0o700)
        try:
            yield Session(folder, log, environ, failure, keep)
        except EnvironmentFailed as error:
            error.log = log if os.path.exists(log) else ""
            raise
        finally:
            files.remove_tree(folder)
            files.unlink(lease.path)
    files.unlink(log)

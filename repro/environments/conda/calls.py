"""Jobs for the process that works with rattler: started, followed, and ended with this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading

from repro.environments import failures
from repro.environments.tools import DROPPED
from repro.errors import EnvironmentFailed
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from repro.environments.tools import Session
    from repro.errors import ReproError
    from repro.ports import Progress

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
SHOWN = 12
WRONG = re.compile(
    r"hash mismatch when extracting \S*?(?P<what>[^/\s]+) to .*?"
    r"expected (?P<expected>[0-9a-f]{64}), got (?P<found>[0-9a-f]{64})",
    re.DOTALL,
)
BROKEN = re.compile(
    r"failed to fetch (?P<what>\S+).*?(Invalid checksum|failed to unpack|invalid Zip|zip"
    r"|unexpected end of file|bzip|incomplete frame)",
    re.DOTALL | re.IGNORECASE,
)
DENIED = re.compile(r"HTTP status client error \((401|403)[^)]*\) for url \((?P<url>[^)]*)\)")
CUT = re.compile(r"error decoding response body|end of file before message length reached")
CAUSE = re.compile(r"^Caused by: ", re.MULTILINE)


class Calls:
    """Starts the process below the store `home`, for one piece of work.

    `python` is the interpreter that has rattler; `keep` are file descriptors that the process
    inherits. `logins` is the content of rattler's file of logins, to be used instead of the
    user's own; empty for theirs.
    """

    def __init__(
        self,
        work: Session,
        environ: Mapping[str, str],
        progress: Progress,
        *,
        keep: Sequence[int] = (),
        logins: Mapping[str, Any] | None = None,
        python: str = sys.executable,
    ) -> None:
        """Prepare the environment of the process: the caller's, without what misleads it."""
        kept = {n: v for n, v in environ.items() if n not in DROPPED and n[:6] != "PYTHON"}
        self._environ = {**kept, "NO_COLOR": "1", "RUST_BACKTRACE": "0"}
        self._work = work
        self._progress = progress
        self._keep = keep
        self._python = python
        if logins:
            path = os.path.join(work.folder, "logins.json")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(logins, file)
            self._environ["RATTLER_AUTH_FILE"] = path

    def call(self, job: Mapping[str, Any], failure: str, seconds: float | None = None) -> Any:
        """Do a job and give its answer; `failure` is the message for a reason of its own.

        After `seconds`, if given, it is given up. Raises EnvironmentFailed, Unreachable or NoSpace.
        """
        with open(self._work.log, "ab") as log:
            log.write(f"$ {job['do']}\n".encode())
            log.flush()
            ending = self._ended(job, log.fileno(), seconds)
        if ending.answer is not None:
            return ending.answer
        log_text = f"{ending.kind}: {ending.text}\n"
        with open(self._work.log, "a", encoding="utf-8", errors="replace") as log_file:
            log_file.write(log_text)
        raise explained(ending, failure, self._work.log)

    def _ended(self, job: Mapping[str, Any], log: int, seconds: float | None) -> Ending:
        process = subprocess.Popen(
            [self._python, "-P", "-B", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=self._environ,
            cwd=self._work.folder,
            pass_fds=self._keep,
        )
        limit = None if seconds is None else threading.Timer(seconds, process.kill)
        if limit:
            limit.start()
        try:
            ending = self._follow(process, job)
            if ending.answer is None and not ending.kind:
                code = process.wait()
                return Ending(kind="Ended", text=f"the process ended with code {code}")
            return ending
        finally:
            if limit:
                limit.cancel()
            process.kill()
            process.communicate()

    def _follow(self, process: subprocess.Popen[bytes], job: Mapping[str, Any]) -> Ending:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()  # and stays open: the process ends when it closes
        except BrokenPipeError:
            return Ending()
        for line in process.stdout:
            message = json.loads(line)
            if "progress" in message:
                self._progress(message["progress"])
            elif "failed" in message:
                return Ending(**message["failed"])
            else:
                return Ending(answer=message["answer"])
        return Ending()


class Ending(Value):
    """How a job ended: with an answer, or with a kind of failure and what was said about it."""

    answer: Any = None
    kind: str = ""
    text: str = ""
    hint: str = ""


def explained(ending: Ending, failure: str, log: str) -> ReproError:
    """Give the error to raise for a job that failed."""
    if ending.kind == "ImportError":
        return EnvironmentFailed(
            "conda environments need py-rattler, which is not installed",
            hints=["`pip install 'repro-projects[conda]'`"],
        )
    if ending.kind == "Refused":
        hints = [*_lines(ending.text), *filter(None, [ending.hint])]
        return EnvironmentFailed(failure, hints=hints, log=log)
    if found := WRONG.search(ending.text):
        return EnvironmentFailed(
            f"`{found['what']}` is not what the lock says: its SHA-256 differs",
            hints=[
                f"expected {found['expected']}",
                f"found    {found['found']}",
                "the file was replaced since it was locked; if that is right, `repro lock`",
            ],
            log=log,
        )
    return _fetch_failure(ending, failure, log)


def _fetch_failure(ending: Ending, failure: str, log: str) -> ReproError:
    if found := DENIED.search(ending.text):
        url = failures.USERINFO.sub(r"\1****@", found["url"])
        return EnvironmentFailed(
            "a channel refuses these credentials, or none were given",
            hints=[
                f"asked for {url}",
                "name the channel with its login in `REPRO_CONDA_CHANNELS`",
            ],
            log=log,
        )
    if CUT.search(ending.text):
        ending = Ending(kind=ending.kind, text=f"{ending.text}\nConnection aborted")
    elif found := BROKEN.search(ending.text):
        return EnvironmentFailed(
            f"`{found['what']}` is damaged: it cannot be unpacked",
            hints=[*_lines(ending.text), "the channel serves a broken file; try again later"],
            log=log,
        )
    text = "\n".join(f"error: {line}" for line in _lines(ending.text))
    return failures.explain(text, failure, log)


def _lines(text: str) -> list[str]:
    """Give what was said as a few lines, the wording of the library taken off."""
    bare = CAUSE.sub("", text).replace("Cannot solve the request because of: ", "")
    return [line.rstrip() for line in bare.splitlines() if line.strip()][:SHOWN]

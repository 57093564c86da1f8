"""Makes the environment of a command on the node, once for all jobs there that want the same."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import suppress

from repro.backends.agent.carriage import Failed
from repro.backends.agent.command import Command, Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.backends.agent.command import Bell, Record

UNMADE = "the environment could not be made on the node: "
FOLDER = "repro-environments"
DONE = "complete"
KEPT = 1 << 16  # bytes of the log of a step that failed
GRACE = 2.0
PROBE = "import platform as p; print(p.python_implementation().lower(), p.python_version())"
# What a step gets of the node's own variables: the way to the net, and nothing of the job.
PASSED = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CONFIG_FILE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


class Interrupted(Exception):
    """We were asked to end before the environment was made."""


class Log:
    """Keeps the end of what a step writes."""

    lost = ""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.text = b""

    def add(self, kind: int, data: bytes = b"") -> None:  # noqa: ARG002  (all is one log)
        """Take a piece."""
        self.text = (self.text + data)[-KEPT:]


def made(asked: Mapping[str, Any], scratch: str, bell: Bell, record: Record) -> str:
    """Make an environment unless it is there; give the folder of its programs.

    `asked` has a `name` that stands for all the rest; the `python` to make it with, as
    implementation and version, or nothing for the one that runs us and no new environment;
    `files` by their names; and the `steps`, each the words of a command, in which `{python}` is
    that interpreter and `{folder}` the environment's. Of a step that fails, the output is told.
    Raises Failed, and Interrupted when we are asked to end.
    """
    if not asked["python"]:
        return os.path.dirname(sys.executable)
    python = _interpreter(asked["python"])
    place = os.path.join(scratch, FOLDER, asked["name"])
    os.makedirs(place, exist_ok=True)
    folder = os.path.join(place, "env")
    with open(os.path.join(place, "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(os.path.join(place, DONE)):
            shutil.rmtree(folder, ignore_errors=True)
            for name, text in asked["files"].items():
                with open(os.path.join(place, name), "w", encoding="utf-8") as file:
                    file.write(text)
            for words in asked["steps"]:
                names = {"{python}": python, "{folder}": folder, "{place}": place}
                _step([_filled(word, names) for word in words], place, bell, record)
            with open(os.path.join(place, DONE), "wb"):
                pass
    return os.path.join(folder, "bin")


def _filled(word: str, names: Mapping[str, str]) -> bytes:
    for name, value in names.items():
        word = word.replace(name, value)
    return os.fsencode(word)


def _interpreter(wanted: str) -> str:
    """Find the Python of exactly that version."""
    version = wanted.rpartition(" ")[2]
    found = []
    for name in (sys.executable, f"python{version.rpartition('.')[0]}", "python3"):
        path = shutil.which(name)
        with suppress(OSError, subprocess.SubprocessError):
            argv = [path or name, "-I", "-c", PROBE]
            told = subprocess.check_output(argv, stderr=subprocess.DEVNULL, timeout=60)
            found.append(told.decode("ascii", "replace").strip())
            if found[-1] == wanted:
                return path or name
    there = ", ".join(dict.fromkeys(found)) or "none"
    raise Failed(f"{UNMADE}there is no {wanted}, but {there}")


def _step(argv: list[bytes], folder: str, bell: Bell, record: Record) -> None:
    log = Log()
    try:
        command = Command(argv, _variables(folder), os.fsencode(folder))
    except OSError as error:
        raise Failed(f"{UNMADE}{os.fsdecode(argv[0])}: {error.strerror}") from None
    pump = Pump(command.pipes, log)
    cause = command.watch(bell, log, 0)
    if command.alive():
        command.end(bell, GRACE)
    pump.finish()
    if cause == "cancel":
        raise Interrupted
    if command.code(cause):
        text = os.fsdecode(log.text).strip()
        record.say(f"{' '.join(map(os.fsdecode, argv))}\n{text}")
        last = text.splitlines()[-1] if text else f"exit code {command.code(cause)}"
        raise Failed(UNMADE + last)


def _variables(folder: str) -> dict[bytes, bytes]:
    wanted = {*PASSED, *PROXIES, *map(str.upper, PROXIES)}
    found = {n: v for n, v in os.environ.items() if n in wanted}
    found = {"PATH": os.defpath, **found, "HOME": folder, "TMPDIR": folder}
    return {os.fsencode(n): os.fsencode(v) for n, v in found.items()}

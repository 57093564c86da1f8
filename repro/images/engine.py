"""A container engine by its API: what it is, which images it has, and containers in it.

Images come and go by `daemon`, with the help of the docker package. This is what it takes to run
a step in an image that is there, and loads nothing that is not needed for it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing, contextmanager

from repro import platforms
from repro.errors import EnvironmentFailed
from repro.images import configuration
from repro.images.line import Broken, Line, Refused, is_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from repro.images.borrowed import Attached, Borrowed, Lent
    from repro.images.line import Answer

    Stream = Answer | Lent | Attached

USUAL = "unix:///var/run/docker.sock"
CHOOSE = "or name another engine in `DOCKER_HOST`"
OLDEST, NEWEST = (1, 40), (1, 51)
"""The versions of the API that we speak."""
OLDEST_NAME = "docker 19.03"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PROGRAMS = ("dockerd", "podman", "systemd")
"""What listens for an engine; the last one starts it when it is first needed."""
SECONDS = 60.0
FAILURES = (Refused, OSError)
"""What every method of an engine may raise: its no, or that it does not answer."""
CHUNK = 1 << 16
LARGEST = 64 << 20
ILLEGIBLE = "what it answers cannot be read"
FAILED = 400
NOT_FOUND = 404
SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:")

_known: dict[tuple[str, ...], dict[str, Any]] = {}


class Engine:
    """An engine that answers; close it. Every method may be called from any thread.

    `version` is that of the API which it is spoken to in.
    """

    def __init__(self, line: Line | Borrowed, where: str) -> None:
        """Ask it what it is. Raises EnvironmentFailed for one that is too old."""
        self._line, self._where = line, where
        self._prefix = ""
        with self._asked("GET", "/_ping") as answer:
            headers = answer.headers
        self.is_podman = "libpod-api-version" in headers
        self._known_by = (where, headers.get("server", ""), headers.get("api-version", ""))
        told = _numbers(headers.get("api-version") or str(self.about().get("ApiVersion", "")))
        if told < OLDEST:
            raise EnvironmentFailed(
                f"the container engine is too old: {self.name}",
                hints=[f"install {OLDEST_NAME} or newer", CHOOSE],
            )
        self.version = ".".join(str(number) for number in min(told, NEWEST))
        self._prefix = f"/v{self.version}"

    def close(self) -> None:
        """Close the connections that are kept."""
        self._line.close()

    # -- what it is

    @property
    def name(self) -> str:
        """Name it with its version."""
        kind = "podman" if self.is_podman else "docker"
        return f"{kind} {self.about().get('Version', '')}".strip()

    def about(self) -> dict[str, Any]:
        """Give what it says of itself, which takes it some milliseconds, once in a process."""
        return self._remembered("/version")

    @property
    def is_machines(self) -> bool:
        """Say whether it is this machine's own, run by its root.

        It is not asked: only the kernel tells it from one that a socket of root's leads to. Where
        the kernel does not know, no.
        """
        return self._line.program() in PROGRAMS

    def is_rootless(self) -> bool:
        """Say whether the root of its containers is the user whom it belongs to.

        The machine's own is not asked: the answer takes as long as a tenth of a container.
        """
        if self.is_machines:
            return False
        options = self._remembered("/info").get("SecurityOptions") or ()
        return any("rootless" in option for option in options)

    def platform(self) -> str:
        """Say what its containers run on, as `linux/amd64`; the machine's own is not asked."""
        here = platforms.named(platforms.of_machine(sys.platform, os.uname().machine))
        if here is not None and self.is_machines:
            return here.docker
        told = self.about()
        architecture = str(told.get("Arch", ""))
        return f"{told.get('Os', '')}/{ARCHITECTURES.get(architecture, architecture)}"

    def _remembered(self, path: str) -> dict[str, Any]:
        key = (*self._known_by, path)
        if key not in _known:
            _known[key] = self._document("GET", path)
        return _known[key]

    # -- images

    def image(self, name: str) -> dict[str, Any] | None:
        """Give what it knows of an image by id, name or digest; None where it has none."""
        try:
            return self._document("GET", f"/images/{quoted(name)}/json")
        except Refused as error:
            if error.status == NOT_FOUND:
                return None
            raise

    # -- containers

    def containers(self, label: str) -> list[dict[str, Any]]:
        """List all containers with a label, also those that have ended."""
        filters = quoted(json.dumps({"label": [label]}))
        return list(self._told("GET", f"/containers/json?all=1&filters={filters}"))

    def create(self, config: Mapping[str, Any], name: str | None) -> str:
        """Make a container, with a name if there is one; give its id."""
        query = f"?name={quoted(name)}" if name else ""
        return str(self._document("POST", f"/containers/create{query}", config).get("Id"))

    def start(self, identity: str) -> None:
        """Start a container."""
        self._do("POST", f"/containers/{identity}/start")

    def inspect(self, identity: str) -> dict[str, Any]:
        """Give all about a container."""
        return self._document("GET", f"/containers/{identity}/json")

    def attach(self, identity: str) -> Stream:
        """Listen to a container from now on, in frames."""
        return _accepted(self._line.attach(self._prefix, identity))

    def recorded(self, identity: str) -> Stream:
        """Listen to a container from its beginning, in frames, until it ends."""
        path = f"{self._prefix}/containers/{identity}/logs?stdout=1&stderr=1&follow=1"
        return _accepted(self._line.follow(path))

    def stats(self, identity: str) -> dict[str, Any]:
        """Give what a container takes; the engine may think about it for a second."""
        path = f"/containers/{identity}/stats?stream=false&one-shot=true"
        return self._document("GET", path)

    def execute(self, identity: str, argv: Sequence[str]) -> int | None:
        """Run a command in a container to its end; give its exit code, None if it is not known."""
        wanted = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        made = self._document("POST", f"/containers/{identity}/exec", wanted).get("Id")
        how = {"Detach": False, "Tty": False}
        with self._asked("POST", f"/exec/{made}/start", how) as answer:
            while answer.read(CHUNK):
                pass
        code: int | None = self._document("GET", f"/exec/{made}/json").get("ExitCode")
        return code

    def kill(self, identity: str, name: str = "SIGKILL") -> None:
        """Send a signal to the first process of a container."""
        self._do("POST", f"/containers/{identity}/kill?signal={name}")

    def remove(self, identity: str) -> None:
        """End a container if need be, and remove it with its own volumes."""
        self._do("DELETE", f"/containers/{identity}?v=1&force=1")

    # -- asking

    def _do(self, method: str, path: str) -> None:
        with self._asked(method, path):
            pass

    def _document(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        found = self._told(method, path, document)
        if not isinstance(found, dict):
            raise Broken(ILLEGIBLE)
        return found

    def _told(self, method: str, path: str, document: Any = None) -> Any:
        with self._asked(method, path, document) as answer:
            data = _whole(answer)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise Broken(ILLEGIBLE) from None

    @contextmanager
    def _asked(self, method: str, path: str, document: Any = None) -> Iterator[Stream]:
        answer = self._line.ask(method, f"{self._prefix}{path}", document)
        with closing(_accepted(answer)):
            yield answer


def connect(
    environ: Mapping[str, str], seconds: float = SECONDS, *, ssh_program: bool = False
) -> Engine:
    """Give the engine that `DOCKER_HOST` names, or the usual one; close it.

    `seconds` is the longest time between two pieces of an answer. Raises Broken where none
    answers, Refused by one that does not want us, EnvironmentFailed for one that is too old, and
    Unsupported where it takes the docker package to reach it, and that is not there.
    """
    where = environ.get("DOCKER_HOST") or USUAL
    headers = configuration.headers(environ)
    line: Line | Borrowed
    if is_plain(where, environ):
        line = Line(where, seconds, headers)
    else:
        from repro.images.borrowed import Borrowed

        line = Borrowed(environ, seconds, headers, shell=ssh_program)
    try:
        return Engine(line, where)
    except BaseException:
        line.close()
        raise


def quoted(text: str) -> str:
    """Write a text as a part of a path, without loading the module that does it for all URLs."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(one) if one in SAFE else f"%{one:02X}" for one in data)


def _accepted(answer: Stream) -> Stream:
    """Give an answer if it is a yes; else close it and raise Refused."""
    if answer.status < FAILED:
        return answer
    with closing(answer):
        text = _whole(answer).decode("utf-8", "replace")
    try:
        said = json.loads(text)["message"]
    except (ValueError, RecursionError, TypeError, KeyError):
        said = text
    raise Refused(answer.status, str(said))


def _whole(answer: Stream) -> bytes:
    pieces, size = [], 0
    while data := answer.read(CHUNK):
        pieces.append(data)
        size += len(data)
        if size > LARGEST:
            raise Broken("it does not end to answer")
    return b"".join(pieces)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".") if word.isascii() and word.isdigit())

"""Steps in containers of a Docker daemon, none of which survives its step."""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from importlib.util import find_spec

from repro.backends import container, daemon
from repro.backends.following import LOST, Following, nowhere
from repro.errors import UsageError
from repro.images import engine
from repro.images.engine import FAILURES, NOT_FOUND, USUAL
from repro.ports import JobEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from repro.images.engine import Engine, Stream
    from repro.ports import Job, Sink

KILLED = 128 + signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM
STREAMS = {1: "stdout", 2: "stderr"}
HEADER = struct.Struct(">BxxxL")
CHUNK = 1 << 16
OVER = "over"
GRACE_MS = 5000
PATIENCE = 30.0  # seconds, with a daemon that does not end what it was told to kill
FIRST, SELDOM = 0.1, 1.0  # seconds between two looks at what a container takes
SOON, LATER = 0.002, 0.5  # seconds between two looks at whether it has ended
# Reaches every process but the init and the shell itself, also stopped ones.
ASK_ALL = ("/bin/sh", "-c", "kill -TERM -1; kill -CONT -1")


class Docker:
    """Runs each step in a container of its own, as the caller, with its folder at `/repro/work`.

    The network is this machine's own, so that a receiver on the loopback interface is reached.
    With `network=False`, or with another network among the job's options, the ports that its
    variables name are carried into the container, which only root can do; for others a line on
    standard error says that nothing is received.

    What the command leaves behind is killed with the container as soon as the command has ended.
    `DOCKER_HOST` is honoured, and may be that of Podman. The daemon has to see this machine's
    files. A container outlives a repro that is killed: see `orphans` and `find`.
    """

    name = "docker"
    environments = "images"

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Use the daemon that these variables name, by default those of this process."""
        self.environ = os.environ if environ is None else environ

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start `job`, as `repro.ports.Backend` says.

        All calls of `sink` come from one thread. What it raises ends the delivery, not the job,
        and is raised again by `wait`. Raises Unreachable where no daemon answers, EnvironmentFailed
        where it does not have the image, UsageError for what it refuses.
        """
        if not job.image:
            raise UsageError(
                "the docker backend runs steps in images, and this one has none",
                hints=["give the project a `docker_env:`"],
            )
        running = Running(self.environ, sink)
        running.begin(job)
        return running

    def find(self, run_id: str, sink: Sink | None = None, base: str = "") -> Running | None:
        """Give the job of a run that some process has begun; see `repro.ports.Lasting`.

        It works in the folders that it was given, so there is nothing to bring to `base`.
        """
        del base
        found = self._containers(f"{container.RUN}={run_id}")
        if not found:
            return None
        running = Running(self.environ, sink or nowhere)
        running.adopt(found[0])
        return running

    def orphans(self) -> tuple[str, ...]:
        """Name the runs whose containers are there, and whose processes on this machine are not."""
        found = (one["Labels"] for one in self._containers(container.RUN))
        orphaned = (o for o in found if container.is_orphan(o.get(container.OWNER, "")))
        return tuple(sorted(labels[container.RUN] for labels in orphaned))

    def _containers(self, label: str) -> list[Any]:
        with (
            closing(daemon.connect(self.environ)) as client,
            daemon.explained("find", self.environ),
        ):
            return client.containers(label)


class Running(Following):
    """A job in a container, as `repro.ports.SubmittedJob` says.

    Two threads serve it: one delivers the output and learns the end, the other keeps the time,
    ends the container when that is wished, and looks at what it takes.
    """

    def __init__(self, environ: Mapping[str, str], sink: Sink) -> None:
        """Prepare to give output to `sink`. Raises as `daemon.connect` does."""
        super().__init__(sink)
        self._environ = environ
        self._client = daemon.connect(environ)
        self._cause = "exit"
        self._hopeless = False
        self._stream: Stream | None = None
        self._timeout, self._grace = 0.0, GRACE_MS / 1000
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()  # a signal handler may cancel
        self._reader = threading.Thread(target=self._follow, name="repro-docker", daemon=True)
        self._keeper = threading.Thread(target=self._keep, name="repro-docker-time", daemon=True)
        self._held = ExitStack()
        self._held.callback(self._client.close)

    def begin(self, job: Job) -> None:
        """Start it; nothing stays behind if that fails."""
        try:
            with daemon.explained("start", self._environ, job.image):
                self._start(job)
            self._timeout, self._grace = job.timeout_ms / 1000, job.grace_ms / 1000
            self._serve()
        except BaseException:
            self._held.close()
            raise

    def adopt(self, found: Mapping[str, Any]) -> None:
        """Take over a container that is there already."""
        self._id = found["Id"]
        self._grace = int(found["Labels"].get(container.GRACE) or GRACE_MS) / 1000
        self._held.callback(self._remove)
        # whoever made it died before it was started, and nobody will start it any more
        self._hopeless = found["State"] == "created" and container.is_orphan(
            found["Labels"].get(container.OWNER, "")
        )
        if not self._hopeless:
            with daemon.explained("find", self._environ):
                self._stream = self._client.recorded(self._id)
            self._held.callback(self._stream.close)
        self._serve()

    def _serve(self) -> None:
        self._usage = Usage(self._another, self._id)
        self._held.callback(self._usage.stop)
        self._keeper.start()
        self._reader.start()

    def _start(self, job: Job) -> None:
        client = self._client
        config = container.specification(job, daemon.user(client), self._environ)
        _look(config)
        if client.is_podman:
            container.bare(config)
        ports = _carried(job, config)
        gate = self._held.enter_context(Gate()) if ports and _reaches_networks() else None
        if gate:
            container.hold(config, gate.folder)
        name = config.pop("Name", None)
        self._id = client.create(config, name)
        self._held.callback(self._remove)
        self._stream = client.attach(self._id)
        self._held.callback(self._stream.close)
        client.start(self._id)
        if gate:
            self._carry(ports)
            gate.open()
        elif ports:
            self._say("nothing that the step logs is received: only root can reach its network")

    def _carry(self, ports: tuple[int, ...]) -> None:
        from repro.backends import loopback

        pid = self._client.inspect(self._id)["State"]["Pid"]
        try:
            if not loopback.is_ours(pid, self._id):
                self._say("nothing that the step logs is received: it runs on another machine")
            else:
                self._held.callback(loopback.Relay(pid, ports).close)
        except OSError as error:
            self._say(f"nothing that the step logs is received: {error.strerror}")

    def _another(self) -> Engine:
        return engine.connect(self._environ)

    # -- what others may call

    def cancel(self) -> None:
        """End it, and return when nothing is left of it; called by `sink`, return at once."""
        self._words.put("cancel")
        if threading.current_thread() is not self._reader:
            self._join()

    # -- the output, and the end

    def _follow(self) -> None:
        end = LOST
        try:
            whole = self._stream is None or self._listen(self._stream)
            end = self._ended() if whole else LOST
            if end is LOST:
                self._say("the container is gone, or the docker daemon; how it ended is not known")
        except BaseException as error:  # noqa: BLE001  (`wait` raises it)
            self._failure = error
        finally:
            self._words.put(OVER)
            self._keeper.join()
            try:
                self._held.close()
            finally:
                self._end = end
                self._over.release()

    def _listen(self, stream: Stream) -> bool:
        """Deliver output until there is no more; say whether it came to an orderly end."""
        rest = b""
        try:
            while data := stream.read(CHUNK):
                rest = self._frames(rest + data)
        except OSError:
            return False
        return not rest

    def _frames(self, data: bytes) -> bytes:
        """Deliver what is complete, neighbours of one stream together; give the rest."""
        at, stream = 0, ""
        parts: list[bytes] = []
        while len(data) - at >= HEADER.size:
            number, size = HEADER.unpack_from(data, at)
            start = at + HEADER.size
            if len(data) - start < size:
                break
            if parts and STREAMS.get(number) != stream:
                self._deliver(stream, b"".join(parts))
                parts = []
            stream = STREAMS.get(number, "stdout")
            parts.append(data[start : start + size])
            at = start + size
        if parts:
            self._deliver(stream, b"".join(parts))
        return data[at:]

    def _say(self, text: str) -> None:
        self._deliver("stderr", f"repro: {text}\n".encode())

    def _ended(self) -> JobEnd:
        """Wait for the end, which the output's end announces, and say how it was."""
        pause = SOON
        while not self._hopeless:
            try:
                state = self._client.inspect(self._id)["State"]
            except FAILURES as error:
                return self._gone() if daemon.status(error) == NOT_FOUND else LOST
            if state["Status"] in {"removing", "dead"}:
                return self._gone()
            if state["Status"] == "exited":
                return self._described(state)
            time.sleep(pause)
            pause = min(pause * 2, LATER)
        return LOST

    def _gone(self) -> JobEnd:
        """Give the end of a container that others removed: who looks for a run may end it too."""
        return LOST if self._cause == "exit" else JobEnd(code=KILLED, cause=self._cause)

    def _described(self, state: Mapping[str, Any]) -> JobEnd:
        code = int(state["ExitCode"])
        if state.get("OOMKilled") and code:
            self._say("the container's memory was not enough, and a process in it was killed")
        if self._cause != "exit" and code != KILLED:
            code = TERMINATED
        wall = _nanoseconds(state["FinishedAt"]) - _nanoseconds(state["StartedAt"])
        usage = self._usage
        return JobEnd(
            code=code,
            cause=self._cause,
            wall_ns=max(wall, 0),
            user_ns=usage.user,
            system_ns=usage.system,
            peak_bytes=usage.peak,
        )

    def _remove(self) -> None:
        with suppress(*FAILURES):
            self._client.remove(self._id)

    # -- the time

    def _keep(self) -> None:
        word = self._heard(self._timeout or None)
        if word == OVER:
            return
        self._cause = word
        self._ask()
        if self._is_over(self._grace):
            return
        with suppress(*FAILURES):
            self._client.kill(self._id)
        if not self._is_over(PATIENCE):
            self._give_up()

    def _heard(self, seconds: float | None) -> str:
        """Wait for a word; give `timeout` when the time is over."""
        try:
            return self._words.get(timeout=seconds)
        except queue.Empty:
            return "timeout"

    def _is_over(self, seconds: float) -> bool:
        """Wait for the end, whatever else is said."""
        end = time.monotonic() + seconds
        while (word := self._heard(max(0.0, end - time.monotonic()))) != OVER:
            if word == "timeout":
                return False
        return True

    def _ask(self) -> None:
        """Ask all processes to end; without a shell in the image, the command alone."""
        try:
            if self._client.execute(self._id, ASK_ALL) == 0:
                return
        except FAILURES:
            pass
        with suppress(*FAILURES):
            self._client.kill(self._id, "SIGTERM")

    def _give_up(self) -> None:
        """Leave a daemon that does not answer any more."""
        self._hopeless = True
        if self._stream is not None:
            self._stream.end()


class Usage:
    """What a container was seen to take. What it took after the last look is not in it.

    The daemon takes up to a second for an answer, so a thread with a line of its own asks.
    """

    def __init__(self, connect: Callable[[], Engine], identity: str) -> None:
        """Look at the container of that id, until told to stop."""
        self.user = self.system = self.peak = 0
        self._stopped = threading.Event()
        asking = (connect, identity)
        threading.Thread(target=self._ask, args=asking, name="repro-usage", daemon=True).start()

    def stop(self) -> None:
        """Look no more; an answer on its way is not waited for."""
        self._stopped.set()

    def _ask(self, connect: Callable[[], Engine], identity: str) -> None:
        if self._stopped.wait(FIRST):
            return
        with suppress(*FAILURES), closing(connect()) as client:
            while True:
                self.take(client.stats(identity))
                if self._stopped.wait(SELDOM):
                    return

    def take(self, stats: Mapping[str, Any]) -> None:
        """Learn from the daemon's statistics, which are empty where nothing runs."""
        memory = (stats.get("memory_stats") or {}).get("stats") or {}
        self.peak = max(self.peak, memory.get("anon") or memory.get("rss") or 0)
        taken = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
        self.user = max(self.user, taken.get("usage_in_usermode") or 0)
        self.system = max(self.system, taken.get("usage_in_kernelmode") or 0)


class Gate:
    """A pipe that a container reads before it begins."""

    def __enter__(self) -> Gate:
        """Make it, in a folder of its own."""
        import tempfile

        self.folder = tempfile.mkdtemp(prefix="repro-gate-")
        os.chmod(self.folder, 0o755)  # noqa: S103  (the command may run as another user)
        path = os.path.join(self.folder, "go")
        os.mkfifo(path)
        os.chmod(path, 0o644)
        self._pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return self

    def open(self) -> None:
        """Let the command begin."""
        os.write(self._pipe, b"\n")

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        import shutil

        os.close(self._pipe)
        shutil.rmtree(self.folder, ignore_errors=True)


def lacks(environ: Mapping[str, str]) -> str:
    """Say what is missing here for this backend, or nothing; a remote daemon is not asked."""
    if find_spec("docker") is None:
        return "the package `docker` is not installed"
    host = environ.get("DOCKER_HOST") or USUAL
    if host.startswith("unix://"):
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(host.removeprefix("unix://"))
        except OSError:
            return f"no docker daemon answers at {host}"
    return ""


def _reaches_networks() -> bool:
    from repro.backends import loopback

    return loopback.is_possible()


def _look(config: Mapping[str, Any]) -> None:
    """Refuse to bind what is not there: Podman would make it."""
    for mount in config["HostConfig"]["Mounts"]:
        if mount["Type"] == "bind" and not os.path.exists(mount.get("Source", "")):
            raise UsageError(f"docker cannot bind `{mount.get('Source', '')}`, which is not there")


def _carried(job: Job, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Give the ports of the loopback interface that the container does not have by itself."""
    if config["HostConfig"]["NetworkMode"] == "host":
        return ()
    return container.loopback_ports(job.variables)


def _nanoseconds(text: str) -> int:
    """Read a time as the daemon writes it, with up to nine digits after the second."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    digits = fraction.partition("+")[0].partition("-")[0]
    seconds = int(datetime.fromisoformat(whole[:19] + "+00:00").timestamp())
    return seconds * 10**9 + int(digits.ljust(9, "0")[:9] or 0)

"""A job as the Docker API takes it. Nothing is asked or started here."""

from __future__ import annotations

import os

from repro.backends import dockerargs
from repro.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.ports import Job

# Where the job's private folders are inside; the same everywhere, so that no path of this
# machine gets into a result.
ROOT = "/repro"
WORK = f"{ROOT}/work"
GATE = "/.repro-gate"
RUN = "repro.run"
OWNER = "repro.owner"
GRACE = "repro.grace_ms"
PODMANS = ("HOSTNAME", "TERM", "container")
LOOPBACK = ("127.0.0.1", "localhost")

# Holds the command back until the line is there that says to go on.
HELD = ("/bin/sh", "-c", f'read -r _ <{GATE}/go; exec "$@"', "sh")


class Inside:
    """The job's paths, as they are inside of the container."""

    def __init__(self, job: Job) -> None:
        """Put the private folder at `/repro`, or the working folder alone at `/repro/work`."""
        base = job.base.rstrip("/")
        self._folders = {base: ROOT} if base else {}
        if self(job.folder) == job.folder:
            self._folders[job.folder.rstrip("/") or "/"] = WORK

    def __call__(self, text: str) -> str:
        """Replace paths of the private folder that `text` is or holds."""
        for outside, inside in self._folders.items():
            if text == outside or f"{outside}/" in text:
                text = inside if text == outside else text.replace(f"{outside}/", f"{inside}/")
        return text

    def mounts(self) -> list[dict[str, Any]]:
        """Bind the folders, to be written."""
        return [bind(outside, inside, "rw") for outside, inside in self._folders.items()]


def bind(source: str, target: str, mode: str) -> dict[str, Any]:
    """Bind a path that has to be there; a source that is not would be made otherwise, as root."""
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": mode == "ro"}


def specification(job: Job, user: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Say how to create the job's container.

    `user` runs the command unless the job's options say otherwise. Variables of the image stay
    where the job gives no others; the daemon adds none of its own but a `PATH` and a `HOME` that
    nobody gives. Raises UsageError for options that are not known, contradict the job, or are not
    text.
    """
    inside = Inside(job)
    config: dict[str, Any] = {
        "Image": job.image,
        "Cmd": [inside(word) for word in job.argv],
        "Env": {name: inside(value) for name, value in job.variables.items()},
        "User": user,
        "WorkingDir": inside(job.folder),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Init": True,
            # kept in whole while the container is there: another process may go on with it
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1000g"}},
            "Mounts": [*inside.mounts(), *(bind(*one) for one in job.binds)],
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            **_resources(job),
        },
    }
    dockerargs.apply(job.container, config, environ)
    config["HostConfig"]["NetworkMode"] = _network(job, config["HostConfig"].get("NetworkMode"))
    config["Env"] = _variables(config["Env"])
    if "Entrypoint" in config:
        config["Entrypoint"] = [config["Entrypoint"]]
    config["Labels"] = {
        **config.get("Labels", {}),
        RUN: job.run_id,
        OWNER: owner(os.getpid()),
        GRACE: str(job.grace_ms),
    }
    _check(job)
    return config


def _resources(job: Job) -> dict[str, Any]:
    asked = job.resources
    found: dict[str, Any] = {}
    if asked.cpus:
        found["NanoCpus"] = asked.cpus * 10**9
    if asked.memory:
        found["Memory"] = asked.memory
    if asked.gpus and not any(name == "gpus" for name, _ in job.container):
        found["DeviceRequests"] = dockerargs.accelerators(asked.gpus)
    return found


def _network(job: Job, given: str | None) -> str:
    if job.network:
        return given or "host"
    if given not in {None, "none"}:
        raise UsageError(
            f"docker's option `network={given}` is against the step's `network: false`",
            hints=["leave out one of them"],
        )
    return "none"


def _variables(wanted: Mapping[str, str]) -> list[str]:
    """List the variables; a name alone takes away what would be set."""
    listed = [f"{name}={value}" for name, value in wanted.items()]
    return listed if "HOSTNAME" in wanted else [*listed, "HOSTNAME"]


def _check(job: Job) -> None:
    """Refuse what is not text: the API would replace it without a word."""
    for text in (*job.argv, *job.variables, *job.variables.values()):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"docker takes only UTF-8 in commands and variables, not {text[:40]!a}"
            ) from None
        if "\0" in text:
            raise UsageError(f"no process can be given a null byte, as in {text[:40]!a}")


def bare(config: dict[str, Any]) -> None:
    """Take away the variables that Podman adds, which a variable without a value does not."""
    given = {variable.partition("=")[0] for variable in config["Env"] if "=" in variable}
    words = [word for name in PODMANS if name not in given for word in ("-u", name)]
    config["Cmd"] = ["env", *words, *config["Cmd"]]


def hold(config: dict[str, Any], gate: str) -> None:
    """Let the command begin only when a line comes through the pipe `go` in the folder `gate`."""
    config["Cmd"] = [*HELD, *config["Cmd"]]
    config["HostConfig"]["Mounts"].append(bind(gate, GATE, "ro"))


def loopback_ports(variables: Mapping[str, str]) -> tuple[int, ...]:
    """Find the ports of this machine's loopback interface that URLs in variables name."""
    found = set()
    for value in variables.values():
        if value.startswith(("http://", "https://")) and (port := _loopback_port(value)):
            found.add(port)
    return tuple(sorted(found))


def _loopback_port(text: str) -> int:
    """Give the port of a URL of the loopback interface, 0 for all others."""
    from urllib.parse import urlsplit

    try:
        url = urlsplit(text)
        port = url.port or 0
    except ValueError:
        return 0
    return port if url.hostname in LOOPBACK else 0


# --- whose container it is -----------------------------------------------------------------


def owner(pid: int) -> str:
    """Name a process of this machine, so that no later one with its number is taken for it."""
    return f"{os.uname().nodename} {_boot()} {pid} {_started(pid)}"


def is_orphan(label: str) -> bool:
    """Say whether the process of that name was one of this machine's, and is gone."""
    words = label.split(" ")
    if len(words) != len(owner(1).split(" ")) or words[0] != os.uname().nodename:
        return False
    return words[1] != _boot() or owner(int(words[2])) != label


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip().decode()
    except OSError:
        return "-"


def _started(pid: int) -> str:
    """Give when a process began, in the kernel's own measure; `gone` if it is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].split()[19].decode()
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "-"

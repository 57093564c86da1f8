"""Finds out what this machine can keep a step from, by doing it: no version says that.

What was found is remembered until the machine is started again, or what it depends on changes.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from contextlib import suppress

from repro.backends.sandbox.means import LEVELS, MEANS, Available
from repro.errors import ReproError
from repro.ports import Confinement, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.store.memos import Memos

PATIENCE_MS = 10_000
SWITCHES = (
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/sys/user/max_user_namespaces",
)
TRIAL = """
(: < "$0") 2> /dev/null && { echo sees everything; exit 1; }
echo work > it || exit 1
(echo free > "$1/it") 2> /dev/null && { echo writes everywhere; exit 1; }
test -z "$2" || { exec 3<> "/dev/tcp/127.0.0.1/$2" && read -r <&3; } || exit 1
"""


def available(environ: Mapping[str, str], memos: Memos | None = None) -> Available:
    """Say what this machine can do, trying what is not known yet.

    Takes some hundredths of a second, and none where `memos` remember. Nothing is raised.
    """
    if sys.platform != "linux":
        return Available(reasons=dict.fromkeys(MEANS, "only Linux has it"))
    program = shutil.which("bwrap", path=environ.get("PATH", os.defpath)) or ""
    subject = _state(program)
    known = memos.get("sandbox", subject) if memos else None
    if not isinstance(known, dict):
        known = _found(program)
        if memos:
            memos.put("sandbox", subject, known)
    return Available(program=program, **known)


def _state(program: str) -> str:
    """Write down all that the answer depends on."""
    words = [*os.uname(), str(os.getuid()), str(os.getgid()), sys.executable, program]
    for path in SWITCHES:
        with suppress(OSError), open(path, encoding="ascii") as file:
            words.append(file.read())
    with suppress(OSError):
        found = os.stat(program)
        words += [str(found.st_mtime_ns), str(found.st_ino), str(found.st_mode)]
    return "\n".join(words)


def _found(program: str) -> dict[str, Any]:
    means: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name in MEANS:
        for level in LEVELS[:0:-1]:
            if level not in means:
                reason = attempt(name, level, program)
                if reason:
                    reasons.setdefault(name, reason)
                else:
                    means[level] = name
        if len(means) == len(LEVELS) - 1:
            break
    return {"means": means, "reasons": reasons}


def attempt(name: str, level: str, program: str) -> str:
    """Run something under these means; say why that fails, or nothing."""
    if name == "bubblewrap" and not program:
        return "it is not installed (there is no `bwrap` on the PATH)"
    if name == "landlock":
        from repro.backends.sandbox import landlock

        wanted = landlock.NETWORK_SINCE if level == "hermetic" else landlock.FILES_SINCE
        if landlock.version() < wanted:
            return f"the kernel has version {landlock.version()} of it, not {wanted}"
    try:
        with tempfile.TemporaryDirectory(prefix="repro-probe-") as folder:
            return _trial(Available(means={level: name}, program=program), level, folder)
    except (OSError, ReproError) as error:
        return str(error)


def _trial(means: Available, level: str, folder: str) -> str:
    from repro.backends.local import Local

    inside, outside = os.path.join(folder, "in"), os.path.join(folder, "out")
    os.mkdir(inside)
    os.mkdir(outside)
    hidden = os.path.join(outside, "hidden")
    with open(hidden, "w", encoding="ascii"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if level == "hermetic" else 0
        greeter = threading.Thread(target=_greet, args=(server,), daemon=True)
        greeter.start()
        job = Job(
            run_id="probe",
            argv=("bash", "-c", TRIAL, hidden, outside, str(port or "")),
            variables={"PATH": os.defpath},
            folder=inside,
            timeout_ms=PATIENCE_MS,
            confinement=Confinement(level=level, writable=(inside,), port=port),
        )
        said: list[bytes] = []
        end = Local(means).submit(job, lambda _, data: said.append(data)).wait()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        greeter.join()
    text = b"".join(said).decode(errors="replace").strip()
    reason = text.partition("no sandbox: ")[2] or text
    return "" if end.code == 0 else reason or f"a trial ended with exit code {end.code}"


def _greet(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            visitor, _ = server.accept()
            with visitor:
                visitor.sendall(b"hello\n")

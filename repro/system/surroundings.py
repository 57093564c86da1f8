"""What of a machine can be made to look otherwise to one process, and by what means."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FAKETIME = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib*/faketime/libfaketimeMT.so.1",
)
LOCALES = ("de_DE", "fr_FR", "tr_TR", "et_EE", "ja_JP", "en_GB", "en_US")
SHARED_MEMORY = "/dev/shm"  # noqa: S108  (folders in it are made for us alone)
SECONDS = 10
ROOM = 4
"""How many times what is put there must fit into a file system in memory."""


def program(name: str) -> str:
    """Give the path of a program of the system; empty where there is none."""
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") or ""


def fault(argv: Iterable[str]) -> str:
    """Run a command that should succeed at once; say why it does not, or nothing."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def faketime() -> str:
    """Give the path of the library of faketime; empty where it is not installed."""
    found = [path for pattern in FAKETIME for path in sorted(glob.glob(pattern))]
    return found[0] if found else ""


def other_locale() -> str:
    """Give a locale that is not C.UTF-8: of another language where one is installed."""
    listing = program("locale")
    if not listing:
        return "POSIX"
    done = subprocess.run([listing, "-a"], capture_output=True, timeout=SECONDS, check=False)
    names = done.stdout.decode("utf-8", "replace").split()
    for wanted in LOCALES:
        for name in names:
            if name.startswith(wanted):
                return name
    return "POSIX"


def processors() -> tuple[int, ...]:
    """Give the processors that this process may use; none where the system does not tell."""
    known = getattr(os, "sched_getaffinity", None)
    return tuple(sorted(known(0))) if known else ()


def newest_process() -> int:
    """Give the number of the process that was started last; 0 where the system does not tell."""
    words = (_read("/proc/loadavg") or b"").split()
    return int(words[-1]) if words else 0


def _read(path: str) -> bytes | None:
    try:
        return files.read(path)
    except OSError:
        return None


def ordered(scratch: str, size: int) -> str:
    """Give a new folder where files are listed in an order that depends on how they were made.

    It is below `scratch`, or in memory where `size` bytes fit amply; empty where there is none.
    """
    for parent in (scratch, SHARED_MEMORY):
        if not os.access(parent, os.W_OK | os.X_OK) or _free(parent) < ROOM * size:
            continue
        folder = os.path.join(parent, f"repro-{os.getpid():x}-{os.urandom(6).hex()}")
        os.mkdir(folder, 0o700)
        if _lists(folder, "first", 1) != _lists(folder, "second", -1):
            return folder
        files.remove_tree(folder)
    return ""


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _lists(folder: str, name: str, step: int) -> list[str]:
    """Make some files in one order, and see in which they are listed."""
    inside = os.path.join(folder, name)
    os.mkdir(inside)
    for letter in "abcdefgh"[::step]:
        with open(os.path.join(inside, letter), "wb"):
            pass
    found = os.listdir(inside)
    files.remove_tree(inside)
    return found

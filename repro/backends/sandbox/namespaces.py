"""A view of the machine made of mounts, in namespaces of its own, without any other program.

It runs in the supervisor. The process that it makes is the init of the namespaces: it builds the
view, starts the command, and ends with it, whereupon the kernel ends all that is left.
"""

from __future__ import annotations

import os
import select

from . import kernel, landlock, loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn


CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
SIGCHLD = 17

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
AT_FDCWD = -100
AT_RECURSIVE = 0x8000

OLD = b"/.old"
STAGE = b"/tmp"
STREAMS = ((b"fd", b"fd"), (b"stdin", b"fd/0"), (b"stdout", b"fd/1"), (b"stderr", b"fd/2"))


class Room:
    """Namespaces that are not made yet, for a view as `means.wrap` writes it."""

    GUARDED = True  # the main process is not the command: only SIGKILL means it

    def __init__(self, view: Mapping[str, Any]) -> None:
        """Remember who we are, which the new namespaces do not know."""
        self._view = view
        self._ids = (os.geteuid(), os.getegid())
        self._mapped = self._ids[0] != 0
        self._parent = os.pidfd_open(os.getpid())
        self._problem: OSError | None = None

    def fork(self) -> int:
        """Fork into new namespaces; where that is not allowed, `enter` says so in the child."""
        flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | SIGCHLD
        if not self._view["network"]:
            flags |= CLONE_NEWNET | CLONE_NEWUTS
        try:
            return self._cloned(flags)
        except OSError as error:
            self._problem = error
            return os.fork()

    def _cloned(self, flags: int) -> int:
        if not self._mapped:
            try:
                return kernel.call("clone", flags, 0, 0, 0, 0)
            except PermissionError:  # root by name only, as in a container
                self._mapped = True
        return kernel.call("clone", flags | CLONE_NEWUSER, 0, 0, 0, 0)

    def enter(self, argv: list[bytes]) -> list[bytes]:
        """Build the view and give the command, in a child; the caller stays behind as init.

        Raises RuntimeError where the view cannot be made.
        """
        try:
            self._enter()
        except OSError as error:
            raise RuntimeError(f"no sandbox: {error.strerror}: {error.filename}") from None
        # Nothing of our memory can be read, until the command replaces it in its process.
        kernel.call("prctl", kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)
        command = os.fork()
        if command:
            _preside(command)
        os.setsid()
        return argv

    def _enter(self) -> None:
        if self._problem:
            raise self._problem
        self._leave_if_orphaned()
        if self._mapped:
            self._map()
        self._build()
        if not self._view["network"]:
            loopback.bring_up()
            loopback.name_host()
            if self._view["port"]:
                loopback.open_door(self._view["port"], 0)
        kernel.leave_keyring()
        kernel.forgo_privileges()
        landlock.narrow()

    def _leave_if_orphaned(self) -> None:
        """End if the supervisor has died before the kernel was told to end us with it."""
        poll = select.poll()
        poll.register(self._parent, select.POLLIN)
        if poll.poll(0):
            os._exit(137)

    def _map(self) -> None:
        """Be outside who we are inside."""
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "{0} {0} 1".format(self._ids[0])),
            ("gid_map", "{0} {0} 1".format(self._ids[1])),
        ):
            with open(f"/proc/self/{name}", "wb", buffering=0) as file:
                file.write(text.encode())

    def _build(self) -> None:
        _mount(None, b"/", None, MS_REC | MS_PRIVATE)
        _mount(b"tmpfs", STAGE, b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755")
        os.mkdir(STAGE + OLD)
        kernel.call("pivot_root", STAGE, STAGE + OLD)
        os.chdir("/")
        for kind, target, source in self._view["shown"]:
            _show(kind, target.encode("latin-1"), source.encode("latin-1"))
        kernel.call("umount2", OLD, MNT_DETACH)
        os.rmdir(OLD)
        _restrict(b"/", read_only=True, below=0)
        os.chdir(self._view["folder"].encode("latin-1"))


def _show(kind: str, target: bytes, source: bytes) -> None:
    """Make one thing of the view appear at `target`."""
    if kind == "link":
        _make_folders(os.path.dirname(target))
        os.symlink(source, target)
    elif kind == "text":
        _make_folders(os.path.dirname(target))
        with open(target, "wb") as file:
            file.write(source)
    elif kind == "proc":
        _show_processes(target)
    elif kind == "dev":
        _show_devices(target)
    else:
        _bind(kind, OLD + source, target)


def _bind(kind: str, source: bytes, target: bytes) -> None:
    if os.path.isdir(source):
        _make_folders(target)
    elif not os.path.lexists(target):
        _make_folders(os.path.dirname(target))
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _mount(source, target, None, MS_BIND | MS_REC)
    if kind != "device":
        _restrict(target, read_only=kind == "read")


def _show_processes(target: bytes) -> None:
    _make_folders(target)
    _mount(b"proc", target, b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if os.geteuid() == 0:
        for name in kernel.PROTECTED:
            place = os.path.join(target, name)
            if os.path.exists(place):
                _mount(place, place, None, MS_BIND | MS_REC)
                _restrict(place, read_only=True)


def _show_devices(target: bytes) -> None:
    """Show the devices that change nothing, memory to share, and terminals of our own.

    The latter take a root, if only by name.
    """
    for name in landlock.DEVICES:
        _bind("device", os.path.join(OLD + b"/dev", name), os.path.join(target, name))
    for name, place in STREAMS:
        os.symlink(b"/proc/self/" + place, os.path.join(target, name))
    shared = os.path.join(target, b"shm")
    os.mkdir(shared)
    _mount(b"tmpfs", shared, b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777")
    if os.geteuid() == 0:
        terminals = os.path.join(target, b"pts")
        os.mkdir(terminals)
        options = b"newinstance,ptmxmode=0666,mode=620"
        _mount(b"devpts", terminals, b"devpts", MS_NOSUID | MS_NOEXEC, options)
        os.symlink(b"pts/ptmx", os.path.join(target, b"ptmx"))


def _make_folders(path: bytes) -> None:
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o755, exist_ok=True)


def _mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    try:
        kernel.call("mount", source, target, kind, flags, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(target)) from None


def _restrict(target: bytes, *, read_only: bool, below: int = AT_RECURSIVE) -> None:
    """Take away set-uid programs, devices and perhaps writing, here and in mounts below."""
    added = MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
    attributes = added.to_bytes(8, "little") + bytes(24)
    kernel.call("mount_setattr", AT_FDCWD, target, below, attributes, len(attributes))


def _preside(command: int) -> NoReturn:
    """Be the init of the namespaces: bury all, and end as the command does.

    Nothing is kept open that a step could take from us.
    """
    os.closerange(0, 1 << 16)
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)

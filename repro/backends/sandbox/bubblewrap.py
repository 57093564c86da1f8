"""The view of a step made by bubblewrap: its arguments, and the door into its network.

It runs in the supervisor, in the process that becomes bubblewrap.
"""

from __future__ import annotations

import os

from . import kernel, landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn


OPTIONS = {"read": b"--ro-bind", "write": b"--bind", "device": b"--dev-bind", "link": b"--symlink"}
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID")


class Room:
    """What bubblewrap is told, from a view as `means.wrap` writes it."""

    GUARDED = True  # the main process is not the command: only SIGKILL means it

    def __init__(self, view: Mapping[str, Any]) -> None:
        """Nothing happens yet."""
        self._view = view

    def fork(self) -> int:
        """Fork as ever."""
        return os.fork()

    def enter(self, argv: list[bytes]) -> list[bytes]:
        """Give the command that runs `argv` in the view.

        Raises RuntimeError if that fails, and OSError where bubblewrap would not find the command:
        it would end as a command may.
        """
        view = self._view
        if view["refusal"]:
            raise OSError(view["refusal"], os.strerror(view["refusal"]))
        try:
            options = _namespaces(network=view["network"])
            for kind, target, source in view["shown"]:
                options += _shown(kind, target.encode("latin-1"), source.encode("latin-1"))
            if not view["network"] and view["port"]:
                options += _door(view["port"])
            kernel.leave_keyring()
            if os.geteuid():  # as root, bubblewrap needs privileges, and gives them up by itself
                kernel.forgo_privileges()
            landlock.narrow()
        except OSError as error:
            raise RuntimeError(f"no sandbox: {error.strerror}: {error.filename}") from None
        program = view["program"].encode("latin-1")
        folder = view["folder"].encode("latin-1")
        return [program, *options, b"--remount-ro", b"/", b"--chdir", folder, b"--", *argv]


def _namespaces(*, network: bool) -> list[bytes]:
    options = [b"--unshare-ipc", b"--unshare-pid", b"--die-with-parent", b"--new-session"]
    if not network:
        options += [b"--unshare-net", b"--unshare-uts", b"--hostname", b"localhost"]
    if os.geteuid():
        return [*options, b"--unshare-user"]
    options += [b"--cap-drop", b"ALL"]
    for name in CAPABILITIES:
        options += [b"--cap-add", b"CAP_" + name.encode()]
    return options


def _shown(kind: str, target: bytes, source: bytes) -> list[bytes]:
    if kind in OPTIONS:
        return [OPTIONS[kind], source, target]
    if kind == "text":
        return [b"--ro-bind-data", b"%d" % _with(source), target]
    options = [b"--" + kind.encode(), target]
    if kind == "proc" and not os.geteuid():  # bubblewrap does not see that root could write there
        for name in kernel.PROTECTED:
            place = os.path.join(target, name)
            options += [b"--ro-bind-try", os.path.join(b"/proc", name), place]
    return options


def _with(data: bytes) -> int:
    """Give a descriptor to read `data` from; less than a pipe holds."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return _kept(reading)


def _kept(descriptor: int) -> int:
    """Leave a descriptor open for bubblewrap, which closes it."""
    os.set_inheritable(descriptor, True)  # noqa: FBT003  (it has no other form)
    return descriptor


def _door(port: int) -> list[bytes]:
    """Have the door opened, by a process that bubblewrap tells its child and that it waits for."""
    told, tell = os.pipe()
    waited, ready = os.pipe()
    if os.fork() == 0:
        os.close(tell)
        os.close(waited)
        _serve(told, ready, port)
    os.close(told)
    os.close(ready)
    return [b"--info-fd", b"%d" % _kept(tell), b"--block-fd", b"%d" % _kept(waited)]


def _serve(told: int, ready: int, port: int) -> NoReturn:
    """Open the door in the network of the child, which does not live on without it."""
    from . import loopback

    process = 0
    try:
        text = b""
        while data := os.read(told, 1 << 10):
            text += data
        process = int(text.partition(b":")[2].split(b"}")[0].split(b",")[0])
        loopback.join(process)
        loopback.open_door(port, 0)
        os.write(ready, b"r")
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  (a fork must never return into its parent's code)
        if process:
            os.kill(process, 9)
            os.write(2, b"repro: no sandbox: %b\n" % os.fsencode(str(error)))
    finally:
        os._exit(1)

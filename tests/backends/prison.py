"""A host of escape attempts: `prison.py MEANS LEVEL FOLDER`, run as the user who is to be kept in.

Prints as JSON what `escapes.py` got through, corrected by what had no effect out here.
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

from repro.backends.local import Local
from repro.backends.sandbox import surroundings
from repro.backends.sandbox.means import Available
from repro.ports import Confinement, Job

ESCAPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "escapes.py")
LOOPBACK = "127.0.0.1"
ADD_KEY, KEYCTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3
IPC_CREAT, IPC_RMID = 0o1000, 0


def made(path, text="", mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def served(server):
    """Echo for everybody."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as visitor:
                    visitor.sendall(visitor.recv(100))

    threading.Thread(target=serve, daemon=True).start()
    return server


def echoed(server):
    def serve():
        with contextlib.suppress(OSError):
            while True:
                data, address = server.recvfrom(100)
                server.sendto(data, address)

    threading.Thread(target=serve, daemon=True).start()
    return server


class Knock:
    """Tries to get in at a port until it is stopped."""

    def __init__(self, port):
        self.opened = False
        self._over = False
        self._thread = threading.Thread(target=self._knock, args=(port,))
        self._thread.start()

    def _knock(self, port):
        while not self._over and not self.opened:
            with contextlib.suppress(OSError):
                socket.create_connection((LOOPBACK, port), 1).close()
                self.opened = True
            time.sleep(0.02)

    def stop(self):
        self._over = True
        self._thread.join()


def free_port():
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def listener(family, address):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    return served(server)


def main(means, level, folder):
    name = uuid.uuid4().hex
    outside, base = os.path.join(folder, "outside"), os.path.join(folder, "room")
    rooms = [os.path.join(base, room) for room in ("work", "home", "tmp")]
    for room in rooms:
        os.makedirs(room)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind((LOOPBACK, 0))
    tcp, door = (served(socket.create_server((LOOPBACK, 0))) for _ in range(2))
    keep = [listener(socket.AF_UNIX, "\0" + name), echoed(udp)]
    libc = ctypes.CDLL(None)
    segment = libc.shmget(int(name[:7], 16), 4096, IPC_CREAT | 0o600)
    libc.syscall(KEYCTL, JOIN_SESSION_KEYRING, None)
    libc.syscall(ADD_KEY, b"user", name.encode(), b"secret", 6, SESSION_KEYRING)
    facts = {
        "outside": outside,
        "secret": made(os.path.join(outside, "secret"), "secret"),
        "spare": made(os.path.join(outside, "spare"), "spare"),
        "program": made(os.path.join(outside, "program"), "#!/bin/sh\n", 0o755),
        "prefix": os.path.dirname(made(os.path.join(folder, "prefix", "there"), "there")),
        "system": f"/usr/{name}",
        "temporary": f"/tmp/{name}",
        "abstract": name,
        "socket": os.path.join(outside, "s"),
        "door": door.getsockname()[1],
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "listening": free_port(),
        "shared": name,
        "segment": int(name[:7], 16),
        "mark": uuid.uuid4().hex,
        "key": name,
    }
    os.environ["MARK"] = facts["mark"]
    here = os.getcwd()
    os.chdir(outside)  # the path of a socket is short
    keep.append(listener(socket.AF_UNIX, "s"))
    os.chdir(here)
    shared = made(os.path.join("/dev/shm", name))
    knock = Knock(facts["listening"])
    victim = subprocess.Popen(["sleep", "60"], env={"SECRET": "x"})
    facts["victim"] = victim.pid
    python = os.path.realpath(sys.executable)
    readable = [
        *surroundings.of_environment([os.path.dirname(python)]),
        (ESCAPES, ESCAPES),
        (facts["prefix"], facts["prefix"]),
    ]
    job = Job(
        run_id="r",
        argv=(python, "-B", ESCAPES, json.dumps(facts)),
        variables={"PATH": "/usr/bin:/bin", "HOME": rooms[1], "TMPDIR": rooms[2]},
        folder=rooms[0],
        timeout_ms=60_000,
        confinement=Confinement(
            level=level,
            writable=tuple(rooms),
            temporary=rooms[2],
            readable=tuple(readable),
            port=facts["door"],
        ),
    )
    said = {"stdout": b"", "stderr": b""}

    def sink(stream, data):
        said[stream] += data

    available = Available(means={level: means}, program="/usr/bin/bwrap")
    try:
        end = Local(available).submit(job, sink).wait()
        assert end.code == 0, (end, said)
        outcomes = json.loads(said["stdout"])
        for attempt, effect in (
            ("kill_process", victim.poll() is not None),
            ("listen_to_the_machine", knock.opened),
            ("temporary_file", os.path.exists(facts["temporary"])),
            ("create_file", os.path.exists(os.path.join(outside, "new"))),
        ):
            outcomes[attempt] = "through" if effect else "stopped"
        sys.stdout.write(json.dumps(outcomes))
    finally:
        victim.kill()
        victim.wait()
        knock.stop()
        libc.shmctl(segment, IPC_RMID, None)
        for path in (shared, facts["temporary"], facts["system"]):
            with contextlib.suppress(OSError):
                os.unlink(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

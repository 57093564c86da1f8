"""Attempts to get out of a sandbox, run inside of it: `escapes.py FACTS`, outcomes as JSON.

FACTS, as JSON, tell what there is outside. Each attempt that raises an OSError was stopped. What
comes through harmlessly inside, and may not have had an effect outside, is for the host to see.
"""

import contextlib
import ctypes
import json
import mmap
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000
MS_REMOUNT_BIND = 0x20 | 0x1000
MNT_DETACH = 2
PTRACE_SEIZE = 0x4206
PR_GET_NO_NEW_PRIVS = 39
MSG_FASTOPEN = 0x20000000
IPPROTO_MPTCP = 262
KEYCTL_SEARCH, SESSION_KEYRING = 10, -3
LOOPBACK = "127.0.0.1"
FACTS = {}


def called(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def read_file():
    with open(FACTS["secret"]) as file:
        file.read()


def list_folder():
    os.listdir(FACTS["outside"])


def read_through_symlink():
    os.symlink(FACTS["secret"], "link")
    with open("link") as file:
        file.read()


def read_through_hard_link():
    os.link(FACTS["secret"], "hard")
    with open("hard") as file:
        file.read()


def read_through_dots():
    with open(os.path.join("..", "..", "outside", "secret")) as file:
        file.read()


def read_through_the_root_of_a_process():
    with open(f"/proc/{FACTS['victim']}/root{FACTS['secret']}") as file:
        file.read()


def execute_file():
    subprocess.run([FACTS["program"]], check=True, capture_output=True)


def map_file():
    fd = os.open(FACTS["secret"], os.O_RDONLY)
    mmap.mmap(fd, 1, prot=mmap.PROT_READ)


def look_at_file():
    os.stat(FACTS["secret"])


def create_file():
    with open(os.path.join(FACTS["outside"], "new"), "w"):
        pass


def create_folder():
    os.mkdir(os.path.join(FACTS["outside"], "folder"))


def overwrite_file():
    with open(FACTS["spare"], "r+") as file:
        file.write("x")


def truncate_file():
    os.truncate(FACTS["spare"], 0)


def remove_file():
    os.unlink(FACTS["spare"])


def rename_file():
    os.rename(FACTS["spare"], FACTS["spare"] + "-renamed")
    os.rename(FACTS["spare"] + "-renamed", FACTS["spare"])


def change_mode():
    os.chmod(FACTS["secret"], 0o666)


def change_times():
    os.utime(FACTS["secret"], (1, 1))


def write_environment():
    with open(os.path.join(FACTS["prefix"], "new"), "w"):
        pass


def write_system():
    with open(FACTS["system"], "w"):
        pass
    os.unlink(FACTS["system"])


def mount():
    called(LIBC.mount(b"tmpfs", os.fsencode(os.getcwd()), b"tmpfs", 0, None))
    called(LIBC.umount2(os.fsencode(os.getcwd()), MNT_DETACH))


def in_a_fork(attempt):
    """Attempt what would change all that follows."""
    pid = os.fork()
    if not pid:
        with contextlib.suppress(OSError):
            attempt()
            os._exit(0)
        os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise OSError


def write_system_in_a_namespace_of_its_own():
    """Have all capabilities in a namespace, and make what is read-only writable."""

    def attempt():
        called(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        called(LIBC.mount(None, b"/usr", None, MS_REMOUNT_BIND, None))
        write_system()

    in_a_fork(attempt)


def change_root():
    in_a_fork(lambda: os.chroot("."))


def kill_process():
    os.kill(FACTS["victim"], 9)


def trace_process():
    called(LIBC.ptrace(PTRACE_SEIZE, FACTS["victim"], None, None))


def see_process():
    os.stat(f"/proc/{FACTS['victim']}/status")


def read_variables_of_a_process():
    with open(f"/proc/{FACTS['victim']}/environ", "rb") as file:
        file.read()


def read_variables_of_the_host():
    """Those of whoever started us: the supervisor, or the init of our namespace."""
    for process in {1, os.getppid()}:
        with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as file:
            if FACTS["mark"].encode() in file.read():
                return
    raise OSError


def find_open_files():
    if set(os.listdir("/proc/self/fd")) <= {"0", "1", "2", "3"}:
        raise OSError


def connect(family, address, *, kind=socket.SOCK_STREAM, protocol=0):
    with socket.socket(family, kind, protocol) as ours:
        ours.settimeout(5)
        ours.connect(address)


def abstract_socket():
    connect(socket.AF_UNIX, "\0" + FACTS["abstract"])


def socket_file():
    connect(socket.AF_UNIX, FACTS["socket"])


def tcp_to_the_door():
    with socket.create_connection((LOOPBACK, FACTS["door"]), 5) as ours:
        ours.sendall(b"hello")
        assert ours.recv(100) == b"hello"


def tcp_elsewhere():
    connect(socket.AF_INET, (LOOPBACK, FACTS["tcp"]))


def tcp_over_ipv6():
    connect(socket.AF_INET6, ("::ffff:" + LOOPBACK, FACTS["tcp"]))


def tcp_without_connect():
    with socket.socket() as ours:
        ours.sendto(b"x", MSG_FASTOPEN, (LOOPBACK, FACTS["tcp"]))


def tcp_by_many_paths():
    connect(socket.AF_INET, (LOOPBACK, FACTS["tcp"]), protocol=IPPROTO_MPTCP)


def udp():
    with socket.socket(type=socket.SOCK_DGRAM) as ours:
        ours.settimeout(5)
        ours.connect((LOOPBACK, FACTS["udp"]))
        ours.send(b"hello")
        ours.recv(100)


def raw_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def listen_to_the_machine():
    """The host tries to get in all the time."""
    with socket.create_server((LOOPBACK, FACTS["listening"])) as ours:
        ours.settimeout(1)
        ours.accept()[0].close()


def name_servers():
    with open("/etc/resolv.conf") as file:
        file.read()


def device_node():
    os.mknod("zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with open("zero", "rb") as file:
        file.read(1)


def memory_device():
    os.close(os.open("/dev/mem", os.O_RDONLY))


def terminals_of_others():
    if not [name for name in os.listdir("/dev/pts") if name.isdigit()]:
        raise OSError


def kernel_setting():
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


def kernel_command():
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))


def host_name():
    socket.sethostname(socket.gethostname())


def clock():
    time.clock_settime(time.CLOCK_REALTIME, time.time())


def set_user_id():
    """Programs that belong to root and lend its rights lend nothing."""
    if LIBC.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1:
        raise OSError


def file_handles():
    """Open the root of a file system by its number, past all paths."""
    handle = (ctypes.c_uint * 4)(8, 1, 2, 0)
    mount_fd = os.open("/usr", os.O_RDONLY)
    called(LIBC.open_by_handle_at(mount_fd, handle, os.O_RDONLY))


def shared_memory():
    os.stat(os.path.join("/dev/shm", FACTS["shared"]))


def shared_memory_of_old():
    called(LIBC.shmget(FACTS["segment"], 0, 0))


def key_of_the_session():
    number = 250 if os.uname().machine == "x86_64" else 219
    name = FACTS["key"].encode()
    called(LIBC.syscall(number, KEYCTL_SEARCH, SESSION_KEYRING, b"user", name, 0))


def temporary_file():
    with open(FACTS["temporary"], "w"):
        pass


# --- what has to work ------------------------------------------------------------------------


def writing_where_allowed():
    for folder in (".", os.environ["HOME"], os.environ["TMPDIR"]):
        os.makedirs(os.path.join(folder, "a", "b"))
        with open(os.path.join(folder, "a", "file"), "w") as file:
            file.write("x")
        os.rename(os.path.join(folder, "a", "file"), os.path.join(folder, "a", "b", "file"))
        os.truncate(os.path.join(folder, "a", "b", "file"), 0)


def reading_the_environment():
    with open(os.path.join(FACTS["prefix"], "there")) as file:
        assert file.read() == "there"


def devices():
    with open("/dev/null", "w") as null, open("/dev/urandom", "rb") as random:
        null.write("x")
        assert random.read(1)
    with open("/dev/fd/1", "ab"):
        pass


def programs():
    done = subprocess.run(
        ["bash", "-c", "ls /usr | sort | head -1"], check=True, capture_output=True
    )
    assert done.stdout


def processes():
    lock = multiprocessing.Lock()
    with lock:
        worker = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(7))
        worker.start()
        worker.join()
    assert worker.exitcode == 7


def names():
    assert socket.gethostbyname("localhost") == LOOPBACK


NEEDED = (
    *(writing_where_allowed, reading_the_environment, devices, programs, processes, names),
    tcp_to_the_door,
)
ATTEMPTS = (
    *(read_file, list_folder, read_through_symlink, read_through_hard_link, read_through_dots),
    *(read_through_the_root_of_a_process, execute_file, map_file, look_at_file),
    *(create_file, create_folder, overwrite_file, truncate_file, rename_file, remove_file),
    *(change_mode, change_times, write_environment, write_system, temporary_file),
    *(write_system_in_a_namespace_of_its_own, mount, change_root),
    *(trace_process, see_process, read_variables_of_a_process, read_variables_of_the_host),
    *(find_open_files, abstract_socket, socket_file, tcp_elsewhere, tcp_over_ipv6),
    *(tcp_without_connect, tcp_by_many_paths, udp, raw_packets, listen_to_the_machine),
    *(name_servers, device_node, memory_device, terminals_of_others, kernel_setting),
    *(kernel_command, host_name, clock, set_user_id, file_handles),
    *(shared_memory, shared_memory_of_old, key_of_the_session, kill_process),
)


def outcome(attempt):
    try:
        attempt()
    except OSError:
        return "stopped"
    return "through"


def main(facts):
    FACTS.update(facts)
    for need in NEEDED:
        need()
    outcomes = {attempt.__name__: outcome(attempt) for attempt in ATTEMPTS}
    os.write(1, json.dumps(outcomes).encode())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

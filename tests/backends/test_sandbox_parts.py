import os
import socket
import sys
import threading
import time

import pytest
from backends.jobs import bash
from backends.rooms import confined, made

from repro.backends.sandbox import explanation, means, plan, seccomp, surroundings
from repro.backends.sandbox.relay import Relay
from repro.errors import Unsupported
from repro.ports import Confinement
from repro.value import replace

if sys.platform != "linux":
    pytest.skip("sandboxes are Linux's", allow_module_level=True)


@pytest.fixture
def room(tmp_path):
    return made(tmp_path)


# --- the view ------------------------------------------------------------------------------

MACHINE = {
    "/usr": "",
    "/usr/bin": "",
    "/bin": "usr/bin",
    "/lib": "usr/lib",
    "/usr/lib": "",
    "/etc/localtime": "/usr/share/zoneinfo/UTC",
    "/usr/share/zoneinfo/UTC": "",
    "/etc/passwd": "",
    "/etc/shadow": "",
    "/home/me/env": "",
    "/home/me/now": "env",
    "/mnt/data": "/mnt/disk/data",
    "/mnt/disk/data": "",
    "/loop": "/pool",
    "/pool": "/loop",
    "/room/work": "",
    "/room/tmp": "",
}


def seen(**changes):
    confinement = Confinement(level="mounts", **changes)
    return plan.view(confinement, plan.system(MACHINE.get, network=True), MACHINE.get)


def test_the_view_shows_the_system_and_what_is_declared_and_nothing_else():
    found = seen(
        readable=(("/home/me/now", "/home/me/now"), ("/mnt/data", "/mnt/data")),
        writable=("/room/work",),
    )
    assert set(found.shown) == {
        ("read", "/usr", "/usr"),
        ("link", "/bin", "usr/bin"),
        ("link", "/lib", "usr/lib"),
        ("read", "/etc/localtime", "/usr/share/zoneinfo/UTC"),
        ("read", "/etc/passwd", "/etc/passwd"),
        ("proc", "/proc", ""),
        ("dev", "/dev", ""),
        ("link", "/home/me/now", "env"),
        ("read", "/home/me/env", "/home/me/env"),
        ("link", "/mnt/data", "/mnt/disk/data"),
        ("read", "/mnt/disk/data", "/mnt/disk/data"),
        ("write", "/room/work", "/room/work"),
    }


@pytest.mark.parametrize(
    ("path", "original"),
    [
        ("/usr/bin/env", "/usr/bin/env"),
        ("/bin/sh", "/usr/bin/sh"),
        ("/usr/../bin/./sh", "/usr/bin/sh"),
        ("/mnt/data/x", "/mnt/disk/data/x"),
        ("/etc/localtime", "/usr/share/zoneinfo/UTC"),
        ("/etc/shadow", None),
        ("/tmp/x", "/room/tmp/x"),
        ("/tmpx", None),
        ("/", None),
        ("/proc/self", "/proc/self"),
    ],
)
def test_the_view_knows_where_things_come_from(path, original):
    found = seen(readable=(("/mnt/data", "/mnt/data"),), temporary="/room/tmp")
    assert found.original(path) == original


def test_the_view_leaves_out_what_is_seen_anyway_and_puts_deeper_things_on_top():
    found = seen(readable=(("/usr/lib", "/usr/lib"), ("/room", "/room")), writable=("/room/work",))
    assert "/usr/lib" not in {place for _, place, _ in found.shown}
    places = [place for _, place, _ in found.shown]
    assert places == sorted(places, key=lambda place: place.count("/"))


def test_the_whole_machine_and_circles_cannot_be_declared():
    with pytest.raises(Unsupported, match="`/` cannot be declared"):
        seen(readable=(("/", "/"),))
    with pytest.raises(Unsupported, match="circle"):
        seen(readable=(("/loop", "/loop"),))


def test_hermetic_has_no_name_servers_and_knows_itself():
    found = plan.view(
        Confinement(level="hermetic"),
        plan.system({**MACHINE, "/etc/resolv.conf": ""}.get, network=False),
        MACHINE.get,
    )
    assert not found.network
    assert ("text", "/etc/hosts", plan.HOSTS) in found.shown
    assert found.original("/etc/resolv.conf") is None


# --- what an environment needs -------------------------------------------------------------


def test_an_environment_brings_its_interpreter_and_no_home(tmp_path):
    base, venv, local = tmp_path / "base", tmp_path / "venv", tmp_path / ".local"
    (base / "lib" / "python3.11").mkdir(parents=True)
    (base / "lib" / "python3.11" / "os.py").touch()
    for place in (base, venv, local):
        (place / "bin").mkdir(parents=True)
    (base / "bin" / "python3.11").touch()
    (base / "bin" / "python3").symlink_to("python3.11")
    (venv / "pyvenv.cfg").touch()
    (venv / "bin" / "python").symlink_to(tmp_path / "current" / "bin" / "python3")
    (tmp_path / "current").symlink_to("base")
    (local / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    path = [str(venv / "bin"), str(local / "bin"), str(tmp_path / "none")]
    found = {os.path.relpath(place, tmp_path) for place, _ in surroundings.of_environment(path)}
    assert found == {"venv", "current", ".local/bin"}


# --- hints ---------------------------------------------------------------------------------


@pytest.fixture
def missing(tmp_path, room):
    """Give what finds what a step missed, for a project with data and a file elsewhere."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "in.csv").write_text("1")
    (tmp_path / "else where").mkdir()
    (tmp_path / "else where" / "x.bin").write_text("2")
    (tmp_path / "plain").write_text("3")
    confinement = confined(bash("true"), room).confinement

    def missed(said, level="mounts"):
        given = replace(confinement, level=level)
        text = said.replace("@", str(tmp_path)).encode()
        found = explanation.undeclared(
            text, given, means.view(given), str(room / "work"), str(project)
        )
        return [(f.path.replace(str(tmp_path), "@"), f.under) for f in found]

    return missed


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "FileNotFoundError: [Errno 2] No such file or directory: 'data/in.csv'",
            [("data/in.csv", "inputs")],
        ),
        ("cat: data/in.csv: No such file or directory", [("data/in.csv", "inputs")]),
        ("cat: ./data/in.csv: No such file or directory", [("data/in.csv", "inputs")]),
        ("Error: cannot open file '@/plain': No such file", [("@/plain", "mounts")]),
        ("cat: @/plain: Permission denied", [("@/plain", "mounts")]),
        ("sh: 1: cannot create @/plain: Read-only file system", [("@/plain", "mounts")]),
        ("OSError: could not find '@/else where/x.bin'", [("@/else where/x.bin", "mounts")]),
        (
            "python: can't open file '@/project/data/in.csv': [Errno 2] No such file",
            [("data/in.csv", "inputs")],
        ),
        ("cat: /no/such/file: No such file or directory", []),
        ("cat: nothing.csv: No such file or directory", []),
        ("cat: /etc/passwd: Permission denied", []),
        ("wrote @/plain", []),
        ("", []),
    ],
)
def test_a_missing_file_is_named_with_what_to_declare(missing, said, found):
    assert missing(said) == found


def test_hints_are_few_and_none_without_a_sandbox(missing, tmp_path):
    assert missing("cat: @/plain: No such file or directory", level="none") == []
    for number in range(9):
        (tmp_path / f"n{number}").touch()
    said = "".join(f"cat: @/n{number}: No such file or directory\n" for number in range(9))
    assert missing(said) == [("@/n8", "mounts"), ("@/n7", "mounts"), ("@/n6", "mounts")]


def test_a_hint_says_the_line_to_add(tmp_path, room):
    (tmp_path / "file").touch()
    confinement = confined(bash("true"), room).confinement
    (found,) = explanation.undeclared(
        f"cat: {tmp_path}/file: No such file or directory".encode(),
        confinement,
        means.view(confinement),
        str(room / "work"),
    )
    assert found.hint.endswith(f"add `- {tmp_path}/file` to `mounts:`")


def test_hostile_output_costs_no_time(missing):
    started = time.process_time()
    for text in ("/" * 200_000, "a/" * 100_000, "'" * 200_000, "not found " + "./" * 100_000):
        missing(text + " No such file or directory")
        missing("No such file or directory " + text)
    assert time.process_time() - started < 20


# --- parts ---------------------------------------------------------------------------------


def test_the_relay_cuts_what_is_under_way_when_it_is_closed():
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as far:
        relay = Relay(door := socket.create_server(("127.0.0.1", 0)), far.getsockname()[1])
        with socket.create_connection(door.getsockname()) as near:
            near.sendall(b"hello")
            with far.accept()[0] as other:
                assert other.recv(10) == b"hello"
                relay.close()
                assert near.recv(10) == other.recv(10) == b""
    assert threading.active_count() == threads


def test_the_relay_closes_on_those_that_nobody_serves():
    with socket.create_server(("127.0.0.1", 0)) as gone_soon:
        port = gone_soon.getsockname()[1]
    relay = Relay(door := socket.create_server(("127.0.0.1", 0)), port)
    with socket.create_connection(door.getsockname()) as near:
        assert near.recv(10) == b""
    relay.close()


def test_the_filter_is_well_formed_for_every_machine():
    for numbers in seccomp.MACHINES.values():
        lines = seccomp.program(*numbers)
        code = seccomp.assembled(lines)
        count = sum(not isinstance(line, str) for line in lines)
        assert len(code) == 8 * count < 8 * 256
        for at in range(count):
            operation, yes, no = code[8 * at], code[8 * at + 2], code[8 * at + 3]
            assert at + 1 + max(yes, no) < count or operation == seccomp.RETURN

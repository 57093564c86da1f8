import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from backends.shapes import SHAPES
from backends.test_local import SHAPE, Output, gone, host, left, marked

from repro.backends.local import Local
from repro.backends.sandbox import explanation, landlock, means, plan, probe, seccomp, surroundings
from repro.backends.sandbox.means import MEANS, Available
from repro.backends.sandbox.relay import Relay
from repro.errors import Unsupported
from repro.ports import Confinement, Job
from repro.store.home import Home
from repro.store.memos import Memos
from repro.value import replace

if sys.platform != "linux":
    pytest.skip("sandboxes are Linux's", allow_module_level=True)

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(FOLDER))
PROGRAM = shutil.which("bwrap") or ""
PYTHON = os.path.realpath(sys.executable)
NOBODY = 65534
PATH = "/usr/bin:/bin"


def need(name, level="hermetic"):
    """Skip where the machine lacks these means, but not in CI, which has them all."""
    reason = probe.attempt(name, level, PROGRAM)
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{name}: {reason}")
    if reason:
        pytest.skip(f"{name}: {reason}; `apt-get install bubblewrap`, or allow user namespaces")


@pytest.fixture(scope="module", params=MEANS)
def by(request):
    need(request.param)
    return request.param


@pytest.fixture
def room(tmp_path):
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def backend(name, *levels):
    return Local(
        Available(means=dict.fromkeys(levels or ("mounts", "hermetic"), name), program=PROGRAM)
    )


def confined(job, room, level="mounts", **changes):
    """Put a job into a room; Python and the shapes can be read."""
    writable = tuple(str(room / name) for name in ("work", "home", "tmp"))
    readable = (*surroundings.of_environment([os.path.dirname(PYTHON)]), (FOLDER, FOLDER))
    confinement = Confinement(
        level=level,
        writable=writable,
        temporary=writable[2],
        readable=readable,
        **changes,
    )
    variables = {**job.variables, "HOME": writable[1], "TMPDIR": writable[2]}
    return replace(job, folder=writable[0], variables=variables, confinement=confinement)


def run(name, job):
    output = Output()
    return backend(name).submit(job, output).wait(), output


def bash(text, **changes):
    return marked("bash", "-c", text, **changes)


def shape(name, *words, **changes):
    return marked(PYTHON, "-I", "-S", SHAPE, name, *words, **changes)


# --- escapes -------------------------------------------------------------------------------

NETWORK = {
    *("tcp_elsewhere", "tcp_over_ipv6", "tcp_without_connect", "tcp_by_many_paths"),
    *("udp", "listen_to_the_machine", "name_servers"),
}
OF_LANDLOCK = {
    *("look_at_file", "change_mode", "change_times", "see_process", "socket_file"),
    *("shared_memory", "shared_memory_of_old"),
}
OF_OLD_LANDLOCK = {"abstract_socket", "kill_process"}
CONDITIONAL = {"tcp_over_ipv6", "tcp_without_connect", "tcp_by_many_paths", "name_servers"}
OF_ROOT_OR_NOWHERE = {
    *("write_system", "write_system_in_a_namespace_of_its_own", "mount", "change_root"),
    *("raw_packets", "device_node", "memory_device", "terminals_of_others", "kernel_setting"),
    *("kernel_command", "host_name", "clock", "file_handles", "find_open_files"),
}


def python_of(user):
    """Give an interpreter that a user may run, with this code."""
    for python in (sys.executable, PYTHON, "/usr/bin/python3"):
        trial = [
            python,
            "-B",
            "-c",
            "import sys, repro.backends.local; sys.version_info < (3, 11) and 0 / 0",
        ]
        with contextlib.suppress(OSError):
            if subprocess.run(trial, **as_user(user), check=False).returncode == 0:
                return python
    return pytest.skip("no interpreter, or not this code, can be read by another user")


def as_user(user):
    other = {"user": user, "group": user, "extra_groups": []} if user else {}
    environ = {"PYTHONPATH": ROOT, "PATH": PATH}
    return {**other, "env": environ, "cwd": "/", "capture_output": True}


def escaped(user, name, level):
    """Give what got through, and all that was attempted."""
    folder = tempfile.mkdtemp(prefix="repro-prison-")
    try:
        os.chown(folder, user, -1) if user else None
        done = subprocess.run(
            [python_of(user), "-B", os.path.join(FOLDER, "prison.py"), name, level, folder],
            **as_user(user),
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        outcomes = json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)
    return {attempt for attempt, what in outcomes.items() if what == "through"}, set(outcomes)


USERS = (0, NOBODY) if os.geteuid() == 0 else (0,)  # 0 is whoever we are
NAMES = {0: "us", NOBODY: "nobody"}


@pytest.mark.parametrize("user", USERS, ids=NAMES.get)
@pytest.mark.parametrize("level", ["mounts", "hermetic"])
def test_nothing_gets_out_but_what_is_written_down(by, level, user):
    expected = set(NETWORK) if level == "mounts" else set()
    if by == "landlock":
        expected |= OF_LANDLOCK
        expected |= OF_OLD_LANDLOCK if landlock.version() < landlock.SCOPES_SINCE else set()
    found, attempted = escaped(user, by, level)
    assert len(attempted) >= 40
    assert found <= expected
    assert found >= expected - CONDITIONAL


@pytest.mark.parametrize("user", USERS, ids=NAMES.get)
def test_without_a_sandbox_the_attempts_do_get_through(user):
    found, attempted = escaped(user, "none", "none")
    assert attempted - found <= OF_ROOT_OR_NOWHERE | CONDITIONAL


def test_a_fork_bomb_ends_with_its_time(by, room):
    bomb = "import os\nprint('ready', flush=True)\nfor _ in range(9): os.fork()\nwhile True: pass"
    job = confined(marked(PYTHON, "-c", bomb, timeout_ms=600, grace_ms=100), room)
    end, _ = run(by, job)
    assert end.cause == "timeout"
    assert left(job) == [0]


# --- the same as without -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ],
)
def test_the_end_is_the_commands_own(by, room, command, code):
    end, _ = run(by, confined(bash(command), room))
    assert (end.code, end.cause) == (code, "exit")


@pytest.mark.parametrize("place", ["no-such-command", "./no-such-command", "/root/no-such-command"])
def test_a_command_that_is_not_there_is_127(by, room, place):
    end, output = run(by, confined(marked(place), room))
    assert (end.code, end.cause) == (127, "exit")
    expected = f"repro: cannot run `{place}`: No such file or directory\n".encode()
    assert output.chunks == [("stderr", expected)]


def test_a_file_that_is_no_program_is_126(by, room):
    (room / "work" / "it").write_text("#!/bin/sh\n")
    end, output = run(by, confined(marked("./it"), room))
    assert (end.code, output.err) == (126, b"repro: cannot run `./it`: Permission denied\n")


def test_the_command_gets_its_variables_its_folder_and_no_more(by, room):
    job = confined(
        bash("env -0; pwd; umask; ulimit -c; ls /proc/self/fd; grep Sig /proc/self/status"), room
    )
    _, output = run(by, job)
    variables, _, rest = output.out.rpartition(b"\0")
    given = {os.fsencode(f"{name}={value}") for name, value in job.variables.items()}
    ignored = (b"PWD=", b"SHLVL=", b"_=", b"OLDPWD=")  # of bash
    assert {v for v in variables.split(b"\0") if not v.startswith(ignored)} == given
    words = rest.decode().split()
    assert words[:3] == [str(room / "work"), "0022", "0"]
    assert words[3:7] == ["0", "1", "2", "3"]
    assert words[words.index("SigBlk:") + 1] == words[words.index("SigIgn:") + 1] == "0" * 16


def test_output_comes_live_and_in_the_order_of_writing(by, room):
    text = """
for word in o1 e1 o2 e2; do
    case $word in o*) echo $word;; e*) echo $word >&2;; esac
    until [ -e $word ]; do sleep 0.01; done
done"""
    chunks = []

    def sink(stream, data):
        chunks.append((stream, data))
        (room / "work" / data.decode().strip()).touch()

    job = confined(bash(text, timeout_ms=20_000), room)
    assert backend(by).submit(job, sink).wait().cause == "exit"
    assert [data for _, data in chunks] == [b"o1\n", b"e1\n", b"o2\n", b"e2\n"]


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_the_command_has_its_grace(by, room, how):
    text = "trap 'echo asked; sleep 0.3; echo done; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    limits = {"timeout_ms": 1000} if how == "timeout" else {}
    output = Output()
    running = backend(by).submit(confined(bash(text, grace_ms=20_000, **limits), room), output)
    output.wait_for(b"ready")
    if how == "cancel":
        running.cancel()
    end = running.wait()
    assert (end.code, end.cause) == (143, how)
    assert output.out == b"ready\nasked\ndone\n"


def test_the_measures_are_the_commands(by, room):
    text = "s = b'x' * 200_000_000; import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
    end, _ = run(by, confined(marked(PYTHON, "-c", text), room))
    assert end.user_ns + end.system_ns > 200_000_000
    assert end.wall_ns > 200_000_000
    assert end.peak_bytes > 200_000_000


def test_cancel_leaves_nothing_of_any_shape(by, tmp_path):
    def after_cancel(name):
        place = tmp_path / name
        for folder in ("work", "home", "tmp"):
            (place / folder).mkdir(parents=True)
        output, job = Output(), confined(shape(name, grace_ms=300), place)
        running = backend(by).submit(job, output)
        output.wait_for(b"ready")
        assert left(job) > [0]
        running.cancel()
        return name, left(job), running.wait()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(after_cancel, SHAPES))
    assert {name: count for name, count, _ in results if count != [0]} == {}
    assert {end.cause for *_, end in results} == {"cancel"}
    assert {end.code for *_, end in results} <= {143, 137}


def test_the_end_of_the_command_ends_what_it_leaves_behind(by, room):
    def after_end(name):
        job = confined(shape(name, "leave"), room)
        end, _ = run(by, job)
        return name, left(job), (end.code, end.cause)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(after_end, SHAPES))
    assert {name: count for name, count, _ in results if count != [0]} == {}
    assert {end for *_, end in results} == {(0, "exit")}


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_our_death_leaves_nothing_of_any_shape(by, room, number):
    jobs = [confined(shape(name), room) for name in SHAPES]
    with host(f"wait:{by}", *jobs) as (process, own):
        assert 0 not in left(own, *jobs)
        process.send_signal(signal.Signals[number])
        process.wait()
        assert gone(6, own, *jobs), dict(zip(SHAPES, left(*jobs), strict=True))


def test_a_supervisor_that_is_killed_takes_everything_along(by, room):
    job = confined(bash("echo ready; sleep 60 & sleep 60"), room)
    with host(f"wait:{by}", job) as (process, own):
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        assert gone(3, own, job)


def test_nothing_is_kept_after_the_end(by, room):
    descriptors, threads = os.listdir("/proc/self/fd"), threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(3):
            run(by, confined(bash("sleep 60 & exit 1"), room, "hermetic", port=port))
    assert threading.active_count() == threads
    assert os.listdir("/proc/self/fd") == descriptors


# --- what it sees --------------------------------------------------------------------------


def test_declared_files_are_seen_under_every_spelling(by, tmp_path, room):
    real = tmp_path / "data" / "real"
    real.mkdir(parents=True)
    (real / "file").write_text("declared")
    (tmp_path / "data" / "undeclared").write_text("no")
    (tmp_path / "alias").symlink_to("data")
    spelled = tmp_path / "alias" / "real"
    job = confined(bash(f"cat {spelled}/file {real}/file; cat {tmp_path}/data/undeclared"), room)
    declared = replace(
        job.confinement, readable=(*job.confinement.readable, (str(spelled), str(spelled)))
    )
    end, output = run(by, replace(job, confinement=declared))
    assert (end.code, output.out) == (1, b"declareddeclared")


def test_what_is_written_where_it_may_be_stays_and_belongs_to_us(by, room):
    run(
        by,
        confined(bash("mkdir a; echo x > a/b; ln -s a c; cp -p a/b d; echo y > $TMPDIR/t"), room),
    )
    work = room / "work"
    assert (work / "a" / "b").read_text() == "x\n"
    assert os.readlink(work / "c") == "a"
    assert {path.lstat().st_uid for path in work.rglob("*")} == {os.geteuid()}
    assert (room / "tmp" / "t").exists()


def test_root_unpacks_what_belonged_to_others(by, room):
    if os.geteuid():
        pytest.skip("for root only")
    text = (
        "echo x > f; tar --owner=1234 --group=1234 -cf f.tar f; rm f; tar -xf f.tar && stat -c %u f"
    )
    end, output = run(by, confined(bash(text), room))
    assert (end.code, output.out) == (0, b"1234\n")


def test_a_folder_elsewhere_is_shown_or_refused(by, tmp_path, room):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("moved")
    job = confined(bash("cat /moved/here/file"), room)
    moved = (str(tmp_path / "data"), "/moved/here")
    job = replace(
        job, confinement=replace(job.confinement, readable=(*job.confinement.readable, moved))
    )
    if by == "landlock":
        with pytest.raises(Unsupported, match="Landlock cannot") as caught:
            run(by, job)
        assert caught.value.hints
    else:
        assert run(by, job)[1].out == b"moved"


def test_the_door_serves_many_at_once_and_large_answers(by, room):
    size = 3_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    visitor = server.accept()[0]
                    threading.Thread(target=answer, args=(visitor,), daemon=True).start()

        def answer(visitor):
            with visitor:
                got = 0
                while data := visitor.recv(1 << 16):
                    got += len(data)
                visitor.sendall(b"%d " % got + b"x" * size)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        text = f"""
import socket, threading
def talk():
    s = socket.create_connection(("127.0.0.1", {port}))
    s.sendall(b"y" * {size}); s.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: s.recv(1 << 16), b""))
    print(got[:8], len(got))
threads = [threading.Thread(target=talk) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]"""
        end, output = run(by, confined(marked(PYTHON, "-c", text), room, "hermetic", port=port))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert end.code == 0, output.err
    assert output.out.splitlines() == [f"b'{size} ' {size + 8}".encode()] * 8


def test_a_sandbox_that_cannot_be_made_is_126_with_a_line_that_says_why(room):
    need("namespaces")
    job = confined(bash("echo ran"), room)
    nowhere = (str(room / "home"), "/usr/no-such-folder/inside")
    job = replace(job, confinement=replace(job.confinement, readable=(nowhere,)))
    end, output = run("namespaces", job)
    assert (end.code, output.out) == (126, b"")
    said = output.err.decode()
    assert said.startswith("repro: cannot run `bash`: no sandbox: Read-only file system: ")


# --- which means ---------------------------------------------------------------------------


def test_a_level_that_is_not_there_is_refused_with_the_reason():
    available = Available(reasons={"landlock": "the kernel has version 0 of it, not 3"})
    with pytest.raises(Unsupported, match="`mounts` is not available") as caught:
        Local(available).submit(
            Job(
                run_id="r",
                argv=("true",),
                variables={},
                folder="/",
                confinement=Confinement(level="mounts"),
            ),
            Output(),
        )
    assert caught.value.hints == ("landlock: the kernel has version 0 of it, not 3",)
    with pytest.raises(Unsupported, match="no sandbox level `full`"):
        available.means_for("full")
    assert available.means_for("none") == ""
    assert available.best == "none"


def test_the_probe_names_means_for_each_level_and_remembers(tmp_path):
    memos = Memos(Home(str(tmp_path / "home")).open())
    first = probe.available(os.environ, memos)
    assert set(first.means) | set(first.reasons)
    assert set(first.means.values()) <= set(MEANS)
    remembered = os.listdir(tmp_path / "home" / "memo")
    assert probe.available(os.environ, memos) == first
    assert os.listdir(tmp_path / "home" / "memo") == remembered != []


def test_the_probe_says_what_is_missing():
    assert "not installed" in probe.attempt("bubblewrap", "mounts", "")
    assert probe.attempt("bubblewrap", "mounts", "/bin/false")


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


def test_a_real_failure_leads_to_the_hint(by, tmp_path, room):
    (tmp_path / "data.csv").write_text("x")
    job = confined(marked(PYTHON, "-c", f"open({str(tmp_path / 'data.csv')!r})"), room)
    end, output = run(by, job)
    assert end.code == 1
    found = explanation.undeclared(
        output.err, job.confinement, means.view(job.confinement), job.folder
    )
    assert [f.path for f in found] == [str(tmp_path / "data.csv")]


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

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
from concurrent.futures import ThreadPoolExecutor

import pytest
from backends.jobs import FOLDER, ROOT, Output, bash, gone, host, left, marked
from backends.rooms import PROGRAM, PYTHON, backend, confined, made, need, run_by, shape
from backends.shapes import SHAPES

from repro.backends.local import Local
from repro.backends.sandbox import explanation, landlock, means, probe
from repro.backends.sandbox.means import MEANS, Available
from repro.errors import Unsupported
from repro.ports import Confinement, Job
from repro.store.home import Home
from repro.store.memos import Memos
from repro.value import replace

if sys.platform != "linux":
    pytest.skip("sandboxes are Linux's", allow_module_level=True)

NOBODY = 65534
PATH = "/usr/bin:/bin"


@pytest.fixture(scope="module", params=MEANS)
def by(request):
    need(request.param)
    return request.param


@pytest.fixture
def room(tmp_path):
    return made(tmp_path)


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
    end, _ = run_by(by, job)
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
    end, _ = run_by(by, confined(bash(command), room))
    assert (end.code, end.cause) == (code, "exit")


@pytest.mark.parametrize(
    "place", ["no-such-command", "./no-such-command", "/no-such-folder/no-such-command"]
)
def test_a_command_that_is_not_there_is_127(by, room, place):
    end, output = run_by(by, confined(marked(place), room))
    assert (end.code, end.cause) == (127, "exit")
    expected = f"repro: cannot run `{place}`: No such file or directory\n".encode()
    assert output.chunks == [("stderr", expected)]


def test_a_file_that_is_no_program_is_126(by, room):
    (room / "work" / "it").write_text("#!/bin/sh\n")
    end, output = run_by(by, confined(marked("./it"), room))
    assert (end.code, output.err) == (126, b"repro: cannot run `./it`: Permission denied\n")


def test_the_command_gets_its_variables_its_folder_and_no_more(by, room):
    job = confined(
        bash("env -0; pwd; umask; ulimit -c; ls /proc/self/fd; grep Sig /proc/self/status"), room
    )
    _, output = run_by(by, job)
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
    end, _ = run_by(by, confined(marked(PYTHON, "-c", text), room))
    assert end.user_ns + end.system_ns > 200_000_000
    assert end.wall_ns > 200_000_000
    assert end.peak_bytes > 200_000_000


def test_cancel_leaves_nothing_of_any_shape(by, tmp_path):
    def after_cancel(name):
        place = made(tmp_path / name)
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
        end, _ = run_by(by, job)
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
            run_by(by, confined(bash("sleep 60 & exit 1"), room, "hermetic", port=port))
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
    end, output = run_by(by, replace(job, confinement=declared))
    assert (end.code, output.out) == (1, b"declareddeclared")


def test_what_is_written_where_it_may_be_stays_and_belongs_to_us(by, room):
    run_by(
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
    end, output = run_by(by, confined(bash(text), room))
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
            run_by(by, job)
        assert caught.value.hints
    else:
        assert run_by(by, job)[1].out == b"moved"


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
        end, output = run_by(by, confined(marked(PYTHON, "-c", text), room, "hermetic", port=port))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert end.code == 0, output.err
    assert output.out.splitlines() == [f"b'{size} ' {size + 8}".encode()] * 8


def test_a_sandbox_that_cannot_be_made_is_126_with_a_line_that_says_why(room):
    need("namespaces")
    job = confined(bash("echo ran"), room)
    nowhere = (str(room / "home"), "/usr/no-such-folder/inside")
    job = replace(job, confinement=replace(job.confinement, readable=(nowhere,)))
    end, output = run_by("namespaces", job)
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


def test_landlock_serves_where_namespaces_are_forbidden():
    need("bubblewrap")
    need("landlock")
    text = """
import json, os
from repro.backends.sandbox import probe
from repro.value import dump
print(json.dumps(dump(probe.available(os.environ))))"""
    inside = ("--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--cap-drop", "ALL")
    done = subprocess.run(
        [PROGRAM, *inside, sys.executable, "-c", text],
        env={"PATH": PATH, "PYTHONPATH": ROOT},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["means"] == {"mounts": "landlock", "hermetic": "landlock"}
    assert found["reasons"]["namespaces"] == "No space left on device: clone"
    assert "namespace" in found["reasons"]["bubblewrap"]


def test_the_probe_says_what_is_missing():
    assert "not installed" in probe.attempt("bubblewrap", "mounts", "")
    assert probe.attempt("bubblewrap", "mounts", "/bin/false")


# --- hints -----------------------------------------------------------------------------------


def test_a_real_failure_leads_to_the_hint(by, tmp_path, room):
    (tmp_path / "data.csv").write_text("x")
    job = confined(marked(PYTHON, "-c", f"open({str(tmp_path / 'data.csv')!r})"), room)
    end, output = run_by(by, job)
    assert end.code == 1
    found = explanation.undeclared(
        output.err, job.confinement, means.view(job.confinement), job.folder
    )
    assert [f.path for f in found] == [str(tmp_path / "data.csv")]

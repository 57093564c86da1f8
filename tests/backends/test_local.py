import contextlib
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from backends.jobs import (
    Output,
    bash,
    children,
    gone,
    host,
    left,
    marked,
    processes,
    python,
    run,
    shape,
)
from backends.shapes import SHAPES

from repro.backends.local import Local
from repro.backends.nursery import HERE
from repro.errors import Unreachable
from repro.ports import Job, JobEnd

linux = pytest.mark.skipif(sys.platform != "linux", reason="sees processes through /proc")
MINUTE = ("sleep", "60")


# --- what is run ---------------------------------------------------------------------------


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
def test_end_has_the_code_that_a_shell_would_give(command, code):
    end, _ = run(bash(command))
    assert (end.code, end.cause) == (code, "exit")


def test_a_command_that_is_not_there_is_127_with_a_line_that_says_so():
    end, output = run(marked("no-such-command"))
    assert (end.code, end.cause) == (127, "exit")
    assert output.chunks == [
        ("stderr", b"repro: cannot run `no-such-command`: No such file or directory\n")
    ]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"#!/bin/sh\n", 0o644, b"Permission denied"),
        (b"no program", 0o755, b"Exec format error"),
    ],
)
def test_a_file_that_is_no_program_is_126_with_a_line_that_says_so(tmp_path, content, mode, reason):
    (tmp_path / "it").write_bytes(content)
    (tmp_path / "it").chmod(mode)
    end, output = run(marked("./it", folder=str(tmp_path)))
    assert (end.code, end.cause) == (126, "exit")
    assert output.err == b"repro: cannot run `./it`: " + reason + b"\n"


def test_an_argument_that_no_process_can_have_is_explained():
    end, output = run(marked("echo", "a\0b"))
    assert end.code == 126
    assert output.err == b"repro: cannot run `echo`: embedded null byte\n"


def test_the_command_is_looked_for_in_its_own_path_past_files_that_are_none(tmp_path):
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "tool").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    assert run(marked("tool", more={"PATH": path}))[1].out == b"second\n"
    only = run(marked("tool", more={"PATH": f"{tmp_path}/first:{tmp_path}/none"}))
    assert only[0].code == 126


def test_the_command_gets_exactly_the_variables_given():
    variables = {
        "EMPTY": "",
        "LINES": "a\nb=c",
        "WORD": "käse 🧀",
        "BYTES": os.fsdecode(b"\xff\xfe"),
        "BIG": "x" * 100_000,
    }
    job = Job(run_id="r", argv=(shutil.which("env"), "-0"), variables=variables, folder="/")
    _, output = run(job)
    expected = {os.fsencode(f"{name}={value}") for name, value in variables.items()}
    assert set(output.out.split(b"\0")) == {*expected, b""}


def test_a_request_larger_than_any_buffer_arrives():
    more = {f"V{n}": "x" * 10_000 for n in range(100)}
    end, output = run(bash("echo ${#V0} ${#V99}", more=more))
    assert (end.code, output.out) == (0, b"10000 10000\n")


def test_arguments_are_bytes_and_never_a_shell_text():
    words = ("$HOME", "a b", "", "*", "`id`", os.fsdecode(b"\xff\n"), '"')
    _, output = run(marked("printf", r"%s\0", *words))
    assert output.out.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_the_command_starts_in_its_folder_with_nothing_to_read(tmp_path):
    _, output = run(bash("pwd -P; cat; echo end", folder=str(tmp_path)))
    assert output.out == os.fsencode(tmp_path.resolve()) + b"\nend\n"


@linux
def test_the_command_inherits_nothing_from_us():
    mine = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(mine, True)
    old_mask = os.umask(0o077)
    old_hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        _, output = run(bash("ls /proc/self/fd; umask; ulimit -c; grep Sig /proc/self/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGTERM})
        signal.signal(signal.SIGHUP, old_hup)
        os.umask(old_mask)
        os.close(mine)
    words = output.out.decode().split()
    assert words[:6] == ["0", "1", "2", "3", "0022", "0"]  # 3 is what `ls` reads
    assert words[words.index("SigBlk:") + 1] == words[words.index("SigIgn:") + 1] == "0" * 16


def test_a_folder_that_is_not_there_is_explained_and_costs_no_descriptor(tmp_path):
    before = os.listdir("/dev/fd")
    with pytest.raises(Unreachable, match="no such file or directory") as caught:
        Local().submit(marked("true", folder=str(tmp_path / "none")), Output())
    assert caught.value.hints
    assert os.listdir("/dev/fd") == before


@linux
def test_too_few_descriptors_are_explained_and_none_is_lost():
    Local().submit(marked("true"), Output()).wait()  # what is loaded once is loaded
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = set(os.listdir("/proc/self/fd"))
    highest = max(map(int, before))
    refused = 0
    for room in range(highest + 30):
        # the limit is on the number of a descriptor, and there may be gaps below the highest
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, limits[1]))
        try:
            running = Local().submit(marked("true"), Output())
        except Unreachable:
            refused += 1
            running = None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        if running is not None:
            assert running.wait().code == 0
            break
        assert set(os.listdir("/proc/self/fd")) <= before
    assert refused > 5


# --- what comes out ------------------------------------------------------------------------


def test_nothing_of_a_hundred_megabytes_is_lost_or_doubled():
    text = """
import hashlib, os, sys
digest = hashlib.sha256()
for n in range(1600):
    data = bytes([n % 251]) * 62500
    digest.update(data)
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
os.write(2, digest.hexdigest().encode())
"""
    digest, size, said = hashlib.sha256(), 0, b""

    def sink(stream, data):
        nonlocal size, said
        if stream == "stderr":
            said += data
        else:
            digest.update(data)
            size += len(data)

    Local().submit(python(text), sink).wait()
    assert size == 100_000_000
    assert said.decode() == digest.hexdigest()


def test_output_is_bytes_and_needs_no_last_line():
    _, output = run(marked("printf", r"\377\0\r\nend"))
    assert output.chunks == [("stdout", b"\xff\0\r\nend")]


def test_output_of_both_streams_comes_live_and_in_the_order_of_writing(tmp_path):
    text = """
for word in o1 e1 o2 e2; do
    case $word in o*) echo $word;; e*) echo $word >&2;; esac
    until [ -e $word ]; do sleep 0.01; done
done"""
    chunks = []

    def sink(stream, data):
        chunks.append((stream, data))
        (tmp_path / data.decode().strip()).touch()

    end = Local().submit(bash(text, folder=str(tmp_path), timeout_ms=20_000), sink).wait()
    assert end.cause == "exit"
    assert chunks == [
        ("stdout", b"o1\n"),
        ("stderr", b"e1\n"),
        ("stdout", b"o2\n"),
        ("stderr", b"e2\n"),
    ]


def test_output_written_just_before_the_end_is_whole():
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(run, [bash("printf %65000d 1; printf %65000d 2 >&2")] * 40))
    assert {(len(o.out), len(o.err)) for _, o in outputs} == {(65000, 65000)}


@linux
def test_more_than_one_read_may_be_left_in_a_pipe_at_the_end():
    text = (
        "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20); os.write(1, b'x' * 900_000)"
    )
    chunks = []

    def slow(_, data):
        time.sleep(0.02)
        chunks.append(data)

    Local().submit(python(text), slow).wait()
    assert sum(map(len, chunks)) == 900_000


def test_a_sink_that_fails_is_not_called_again_and_wait_says_so(tmp_path):
    calls = []

    def sink(_, data):
        calls.append(data)
        raise ZeroDivisionError

    text = f"echo a; sleep 0.2; echo b; head -c 200000 /dev/zero; echo done > {tmp_path}/file"
    running = Local().submit(bash(text), sink)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            running.wait()
    assert calls == [b"a\n"]
    assert (tmp_path / "file").read_text() == "done\n"
    assert running.poll().code == 0


def test_a_sink_may_cancel():
    box = []
    running = Local().submit(bash("sleep 0.2; echo x; sleep 60"), lambda *_: box[0].cancel())
    box.append(running)
    assert running.wait().cause == "cancel"


# --- what it took --------------------------------------------------------------------------


def test_peak_memory_is_that_of_the_largest_process():
    end, _ = run(python("len(bytearray(b'x') * 200_000_000)"))
    assert 200_000_000 < end.peak_bytes < 260_000_000
    assert run(marked("true"))[0].peak_bytes < 50_000_000


def test_times_are_plausible():
    text = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(0.2)"
    end, _ = run(python(text))
    assert 250e6 < end.user_ns + end.system_ns < 1000e6
    assert end.wall_ns > 490e6
    started = time.monotonic_ns()
    assert run(marked("true"))[0].wall_ns < time.monotonic_ns() - started


# --- its time is over ----------------------------------------------------------------------


def test_a_timeout_asks_politely_first():
    end, output = run(bash("trap 'echo bye; exit 0' TERM; sleep 60 & wait", timeout_ms=300))
    assert (end.code, end.cause) == (143, "timeout")
    assert 300e6 <= end.wall_ns < 2000e6
    assert output.out == b"bye\n"


@linux
def test_a_timeout_ends_what_does_not_listen():
    job = shape("ignores_term", timeout_ms=500, grace_ms=300)
    end, _ = run(job)
    assert (end.code, end.cause) == (137, "timeout")
    assert 800e6 <= end.wall_ns < 3000e6
    assert left(job) == [0]


@linux
def test_every_process_is_asked_however_deep_in_whatever_session():
    output = Output()
    deep = "trap 'echo asked; exit 0' TERM; echo ready; sleep 60 & wait"
    text = '(setsid bash -c "$DEEP" & wait) & wait'
    running = Local().submit(bash(text, more={"DEEP": deep}, grace_ms=20_000), output)
    output.wait_for(b"ready")
    running.cancel()
    assert output.out == b"ready\nasked\n"
    assert running.wait().code == 143


def test_a_stopped_command_is_asked_too():
    text = "trap 'echo bye; exit 0' TERM; kill -STOP $$; sleep 60"
    end, output = run(bash(text, timeout_ms=300, grace_ms=20_000))
    assert (end.code, end.cause, output.out) == (143, "timeout", b"bye\n")


def test_a_command_that_ends_in_time_has_no_timeout():
    end, _ = run(bash("exit 3", timeout_ms=20_000))
    assert (end.code, end.cause) == (3, "exit")


# --- cancel --------------------------------------------------------------------------------


@linux
def test_cancel_from_many_threads_at_once_returns_when_nothing_is_left():
    output = Output()
    job = shape("daemon", grace_ms=200)
    running = Local().submit(job, output)
    output.wait_for(b"ready")
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: (running.cancel(), left(job))[1], range(4)))
    assert counts == [[0]] * 4
    assert running.wait().cause == "cancel"
    running.cancel()
    assert running.wait().cause == "cancel"


def test_cancel_after_the_end_changes_nothing():
    running = Local().submit(bash("exit 5"), Output())
    end = running.wait()
    running.cancel()
    assert running.wait() == running.poll() == end
    assert (end.code, end.cause) == (5, "exit")


@linux
def test_cancel_at_any_moment_of_the_start_ends_it():
    """Before the supervisor is there, while it reads, forks, executes."""
    jobs = [marked(*MINUTE) for _ in range(60)]

    def cancelled(number):
        running = Local().submit(jobs[number], Output())
        time.sleep(number * 0.0004)
        started = time.monotonic()
        running.cancel()
        return running.wait(), time.monotonic() - started

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(cancelled, range(60)))
    assert {(end.code, end.cause) for end, _ in ends} == {(143, "cancel")}
    assert max(seconds for _, seconds in ends) < 4
    assert not any(left(*jobs))


def test_cancel_just_as_the_command_ends_is_one_or_the_other():
    seen = set()
    for number in range(60):
        running = Local().submit(bash("sleep 0.01; exit 4"), Output())
        time.sleep(number * 0.0006)
        running.cancel()
        end = running.wait()
        seen.add((end.code, end.cause))
    assert seen <= {(4, "exit"), (143, "cancel")}


# --- waiting -------------------------------------------------------------------------------


def test_many_threads_may_wait():
    running = Local().submit(bash("sleep 0.2; exit 3"), Output())
    assert running.poll() is None
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: running.wait(), range(8)))
    assert [end.code for end in ends] == [3] * 8
    assert running.poll() == ends[0]


class Alarm(Exception):
    pass


@contextlib.contextmanager
def alarm(seconds, handler):
    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.signal(signal.SIGALRM, old)


def test_an_exception_of_a_signal_handler_comes_out_of_wait():
    def handler(*_):
        raise Alarm

    running = Local().submit(marked(*MINUTE), Output())
    with alarm(0.1, handler), pytest.raises(Alarm):
        running.wait()
    assert running.poll() is None
    running.cancel()
    assert running.wait().cause == "cancel"


def test_a_signal_handler_may_cancel_what_its_thread_waits_for():
    for number in range(20):
        running = Local().submit(marked(*MINUTE), Output())
        with alarm(0.0001 + number * 0.001, lambda *_, job=running: job.cancel()):
            assert running.wait().cause == "cancel"


# --- nothing survives ----------------------------------------------------------------------


@linux
def test_cancel_leaves_nothing_of_any_shape():
    def after_cancel(name):
        output, job = Output(), shape(name, grace_ms=300)
        running = Local().submit(job, output)
        output.wait_for(b"ready")
        assert left(job) > [0]
        started = time.monotonic()
        running.cancel()
        return name, left(job), running.wait(), time.monotonic() - started

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(after_cancel, SHAPES))
    assert {name: count for name, count, _, _ in results if count != [0]} == {}
    assert {end.cause for *_, end, _ in results} == {"cancel"}
    assert {end.code for *_, end, _ in results} == {143, 137}
    assert max(seconds for *_, seconds in results) < 6


@linux
def test_the_end_of_the_command_ends_what_it_leaves_behind():
    def after_end(name):
        job = shape(name, "leave")
        end, output = run(job)
        return name, left(job), end, output.out

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(after_end, SHAPES))
    assert {name: count for name, count, _, _ in results if count != [0]} == {}
    assert {name: (end.code, end.cause) for name, _, end, _ in results} == dict.fromkeys(
        SHAPES, (0, "exit")
    )


@linux
@pytest.mark.parametrize(
    ("name", "seconds"),
    [("SIGINT", 6), ("SIGTERM", 6), ("SIGHUP", 6), ("SIGQUIT", 6), ("SIGKILL", 3)],
)
def test_our_death_leaves_nothing_of_any_shape(name, seconds):
    jobs = [shape(name) for name in SHAPES]
    with host("wait", *jobs) as (process, own):
        assert 0 not in left(own, *jobs)
        process.send_signal(signal.Signals[name])
        assert process.wait() == -signal.Signals[name]
        assert gone(seconds, own, *jobs), dict(zip(SHAPES, left(*jobs), strict=True))


@linux
def test_our_death_counts_even_while_a_fork_of_us_lives():
    job = shape("daemon")
    with host("fork", job) as (process, own):
        process.kill()
        assert gone(1.5, job)
        assert left(own) == [1]
        assert process.stdout.readline() == b"fork ends\n"


@linux
def test_our_death_cuts_short_the_grace_of_a_cancelled_job():
    job = shape("ignores_term", grace_ms=60_000)
    with host("cancel", job) as (process, own):
        time.sleep(0.3)
        assert left(job) != [0]
        process.kill()
        process.wait()
        assert gone(1.5, own, job)


@linux
def test_leaving_the_interpreter_ends_what_still_runs():
    job = shape("daemon")
    with host("leave", job) as (process, own):
        assert process.wait(10) == 0
        assert process.stderr.read() == b""
        assert gone(1.5, own, job)


@linux
def test_nothing_is_kept_after_the_end():
    """No descriptor, thread, zombie or warning, whichever way it ended."""
    gc.collect()
    before, threads, others = set(os.listdir("/proc/self/fd")), threading.active_count(), children()
    for number in range(6):
        run(bash("echo $0; sleep 60 & exit 1"))
        run(marked("no-such-command"))
        running = Local().submit(marked(*MINUTE), Output())
        time.sleep(number * 0.004)
        running.cancel()
    del running
    gc.collect()  # a resource that was not closed would warn, and fail this test
    assert children() <= others
    assert threading.active_count() <= threads
    assert set(os.listdir("/proc/self/fd")) <= before


# --- the supervisor itself -----------------------------------------------------------------


@linux
def test_a_supervisor_that_is_killed_takes_the_group_along_and_the_job_is_lost():
    output = Output()
    job = bash("trap '' TERM; sleep 60 & echo $PPID; wait")
    running = Local().submit(job, output)
    output.wait_for(b"\n")
    os.kill(int(output.out), signal.SIGKILL)
    assert running.wait() == JobEnd(code=137, cause="lost")
    assert gone(1.5, job)
    running.cancel()


@linux
def test_killing_us_and_the_supervisor_at_once_still_ends_the_command():
    job = shape("polite")
    with host("wait", job) as (_, own):
        for pid in processes(own)[0]:
            os.kill(pid, signal.SIGSTOP)  # neither shall see the other die
        for pid in processes(own)[0]:
            os.kill(pid, signal.SIGKILL)
        assert gone(1.5, own, job)


@linux
def test_a_lost_process_that_holds_the_output_keeps_nobody_waiting():
    output = Output()
    job = bash("echo $PPID; setsid bash -c 'while echo; do :; done' & wait")
    running = Local().submit(job, output)
    output.wait_for(b"\n\n")
    os.kill(int(output.out.split()[0]), signal.SIGKILL)
    assert running.wait().cause == "lost"
    assert gone(5, job)


@linux
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_to_the_supervisor_cancels_the_job(name):
    output = Output()
    job = bash("echo $PPID; sleep 60")
    running = Local().submit(job, output)
    output.wait_for(b"\n")
    os.kill(int(output.out), signal.Signals[name])
    end = running.wait()
    assert (end.code, end.cause) == (143, "cancel")
    assert left(job) == [0]


def elsewhere(job, word=b""):
    """Run `job` under a supervisor that believes to be on macOS; give its report."""
    start = (
        f"import sys; sys.platform = 'darwin'; sys.path.append({HERE!r}); import supervisor as s"
    )
    request = {name: getattr(job, name) for name in ("argv", "variables", "timeout_ms", "grace_ms")}
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"{start}; s.main()"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
        ),
    ):
        theirs.close()
        ours.sendall(json.dumps(request).encode() + b"\n" + word)
        return json.loads(ours.makefile().read().splitlines()[1])


@linux
def test_without_a_subreaper_the_process_group_is_what_ends():
    deaf = "trap '' TERM; sleep 60 & sleep 60"
    cancelled = bash(deaf, grace_ms=100)
    behind = bash("(trap '' TERM; sleep 60; sleep 60) & exit 3")
    with ThreadPoolExecutor(2) as pool:
        cancel, end = pool.map(elsewhere, (cancelled, behind), (b"c", b""))
    assert (cancel["cause"], end["cause"], end["code"]) == ("cancel", "exit", 3)
    assert cancel["code"] in {137, 143}
    assert left(cancelled, behind) == [0, 0]

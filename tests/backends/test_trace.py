import os
import shutil
import signal
import sys

import pytest
from backends.jobs import FOLDER, Output, bash, left, marked
from backends.reads import WAYS

from repro.backends.local import Local
from repro.backends.sandbox import means, surroundings, trace
from repro.ports import Confinement
from repro.value import replace

STRACE = shutil.which("strace") or ""
PYTHON = os.path.realpath(sys.executable)
MADE = {"loaded", "renamed", "listed", "of_a_strange_name"}
"""What the step itself writes, or moves, before it reads it."""
LOOKED = {"looked_at", "looked_at_itself", "found_to_be_there", "asked_for_attributes"}


@pytest.fixture
def strace():
    if not STRACE and os.environ.get("CI") == "true":
        pytest.fail("strace is not installed")
    if not STRACE:
        pytest.skip("strace is not here: `apt-get install strace`")
    return STRACE


def watched(job, tmp_path):
    """Run a job watched; give its end, what it wrote and what strace did."""
    output, said = str(tmp_path / "trace"), Output()
    end = Local().submit(replace(job, argv=trace.argv(job.argv, STRACE, output)), said).wait()
    with open(output, encoding="utf-8") as file:
        return end, said, file.read()


# --- real ----------------------------------------------------------------------------------


def test_every_kind_of_read_is_seen_and_nothing_that_is_declared(strace, tmp_path):
    planted, work = tmp_path / "planted", tmp_path / "work"
    planted.mkdir()
    work.mkdir()
    for name in WAYS:
        (planted / name).write_text("#!/bin/sh\nexit 0\n")
        (planted / name).chmod(0o755)
    job = marked(PYTHON, "-B", os.path.join(FOLDER, "reads.py"), str(planted), "1")
    end, said, text = watched(replace(job, folder=str(work)), tmp_path)
    assert end.code == 0, said.err
    confinement = Confinement(
        level="mounts",
        writable=(str(work),),
        readable=(*surroundings.of_environment([os.path.dirname(PYTHON)]), (FOLDER, FOLDER)),
    )
    found = trace.undeclared(trace.parse(text, str(work)), means.view(confinement), port=7)
    named = {os.path.basename(path) for path in found.read}
    assert {name for name in WAYS if name not in MADE | LOOKED} <= named
    assert str(planted / 'of_a_strange_name "x"\n\\é (deleted)') in found.written
    assert {os.path.basename(path) for path in found.seen} >= LOOKED
    assert {os.path.basename(path) for path in found.written} >= MADE
    everything = (*found.read, *found.seen, *found.written)
    assert [p for p in everything if not p.startswith(str(planted))] == []
    assert set(found.hosts) >= {"127.0.0.1:1", "127.0.0.2:1", "example.org", "/run/no-such-socket"}


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_commands(strace, tmp_path, code):
    end, said, _ = watched(bash(f"echo out; echo err >&2; exit {code}"), tmp_path)
    assert (end.code, end.cause, said.out, said.err) == (code, "exit", b"out\n", b"err\n")


def test_a_signal_ends_the_command_as_without(strace, tmp_path):
    assert watched(bash("kill -SEGV $$"), tmp_path)[0].code == 128 + signal.SIGSEGV


def test_cancelling_gives_the_command_its_grace_and_leaves_nothing(strace, tmp_path):
    text = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    job, output = bash(text), Output()
    job = replace(job, argv=trace.argv(job.argv, STRACE, str(tmp_path / "trace")))
    running = Local().submit(job, output)
    output.wait_for(b"ready")
    running.cancel()
    end = running.wait()
    assert (end.code, end.cause) == (143, "cancel")
    assert output.out == b"ready\nasked\n"
    assert left(job) == [0]


# --- the notation --------------------------------------------------------------------------


def x(text):
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def parsed(*lines):
    return trace.parse("\n".join(lines), "/work")


def test_a_relative_path_is_relative_to_the_folder_of_its_process():
    found = parsed(
        f'1 stat("{x("a")}", {{st_mode=S_IFREG}}) = 0',
        f'1 chdir("{x("below")}") = 0',
        "1 clone(child_stack=NULL, flags=SIGCHLD) = 2",
        f'2 chdir("{x("/other")}") = 0',
        f'2 stat("{x("b")}", {{}}) = 0',
        f'1 stat("{x("../c")}", {{}}) = 0',
        "1 clone(child_stack=0x7, flags=CLONE_VM|CLONE_FS|CLONE_THREAD) = 3",
        f'3 chdir("{x("/shared")}") = 0',
        f'1 stat("{x("d")}", {{}}) = 0',
    )
    assert found.seen == (
        "/other",
        "/other/b",
        "/shared",
        "/shared/d",
        "/work/a",
        "/work/below",
        "/work/c",
    )


def test_what_fails_was_not_read():
    found = parsed(
        f'1 open("{x("/no")}", O_RDONLY) = -1 ENOENT (No such file or directory)',
        f'1 execve("{x("/no")}", ["{x("no")}"], 0x7 /* 1 var */) = -1 EACCES (Permission denied)',
    )
    assert found == trace.Trace()


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ("O_RDONLY|O_CLOEXEC", "read"),
        ("O_RDWR", "read"),
        ("O_RDWR|O_CREAT, 0644", "read"),
        ("O_WRONLY|O_CREAT|O_TRUNC, 0666", "written"),
        ("O_RDWR|O_CREAT|O_EXCL, 0600", "written"),
        ("O_WRONLY|O_APPEND", "written"),
        ("O_RDONLY|O_PATH", "seen"),
    ],
)
def test_flags_say_what_is_done(flags, field):
    found = parsed(f'1 openat(AT_FDCWD<{x("/w")}>, "{x("f")}", {flags}) = 3<{x("/w/f")}>')
    assert getattr(found, field) == ("/w/f",)


def test_a_call_in_two_parts_is_one():
    found = parsed(
        f'1 openat(AT_FDCWD<{x("/w")}>, "{x("f")}", O_RDONLY <unfinished ...>',
        f'2 stat("{x("/g")}", {{}}) = 0',
        f"1 <... openat resumed>) = 3<{x('/real')}>",
    )
    assert (found.read, found.seen) == (("/real", "/w/f"), ("/g",))


def test_what_was_made_first_is_no_input_and_what_was_read_first_is():
    made = f'openat(AT_FDCWD<{x("/w")}>, "{x("f")}", O_WRONLY|O_CREAT|O_TRUNC) = 3<{x("/w/f")}>'
    read = f'openat(AT_FDCWD<{x("/w")}>, "{x("f")}", O_RDONLY) = 3<{x("/w/f")}>'
    assert parsed("1 " + made, "1 " + read).read == ()
    assert parsed("1 " + read, "1 " + made).read == ("/w/f",)


@pytest.mark.parametrize(
    ("words", "host"),
    [
        (
            f'{{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("{x("1.2.3.4")}")}}',
            "1.2.3.4:80",
        ),
        (
            f'{{sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "{x("fe80::1")}", &sin6_addr)}}',
            "[fe80::1]:443",
        ),
        (f'{{sa_family=AF_UNIX, sun_path="{x("/run/x")}"}}', "/run/x"),
    ],
)
def test_hosts_are_those_that_were_called(words, host):
    line = f"1 connect(3<{x('socket:[1]')}>, {words}, 16) = -1 ECONNREFUSED (Connection refused)"
    assert parsed(line).hosts == (host,)


def test_text_that_is_no_trace_is_passed_over():
    lines = (
        "",
        "nonsense",
        "1 +++ exited with 0 +++",
        "1 <... read resumed>",
        "x open(",
        '1 open("\\x2',
    )
    assert parsed(*lines) == trace.Trace()


def test_the_door_and_the_ways_to_what_is_declared_do_not_count():
    confinement = Confinement(level="mounts", readable=((FOLDER, FOLDER),))
    found = trace.Trace(
        read=("/", os.path.dirname(FOLDER), FOLDER + "/x", "/nowhere/x"),
        hosts=("127.0.0.1:5", "127.0.0.1:6"),
    )
    rest = trace.undeclared(found, means.view(confinement), port=5)
    assert (rest.read, rest.hosts) == (("/nowhere/x",), ("127.0.0.1:6",))

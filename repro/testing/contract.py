"""What every backend has to fulfil, as a class that pytest collects.

Derive from `BackendContract`, give it a backend, and say what else a job of yours needs:

    import pytest
    from repro.ports import Job
    from repro.testing.contract import BackendContract

    class TestMine(BackendContract):
        def backend(self):
            return Mine()

        def job(self, **fields):
            return Job(image="...", **fields)

The commands need a POSIX shell with the usual tools, on the search path that `PATH` names.
Call `pytest.register_assert_rewrite("repro.testing.contract")` before the import to see values
in failures.
"""

# ruff: noqa: S101, PLR2004  (asserts and expected values are what a suite is made of)

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from repro.errors import ReproError
from repro.ports import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from repro.ports import Backend, JobEnd, SubmittedJob

    T = TypeVar("T")

# Says every now and then that it is alive, in the file `alive`.
ALIVE = "while :; do echo >>alive; sleep 0.05; done"
BEGUN = "until [ -s alive ]; do sleep 0.01; done; echo ready"
# Does not end when asked to.
DEAF = "trap '' TERM INT HUP QUIT;"
CODES = (0, 1, 7, 126, 255)
ENDED = {143, 137}


class Output:
    """A sink that keeps all it gets."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.chunks: list[tuple[str, bytes]] = []
        self._heard = threading.Condition()

    def __call__(self, stream: str, data: bytes) -> None:
        """Take a piece."""
        with self._heard:
            self.chunks.append((stream, data))
            self._heard.notify_all()

    def of(self, stream: str) -> bytes:
        """Give all of one stream."""
        return b"".join(data for name, data in self.chunks if name == stream)

    @property
    def out(self) -> bytes:
        """Give the standard output."""
        return self.of("stdout")

    @property
    def err(self) -> bytes:
        """Give the standard error."""
        return self.of("stderr")

    def heard(self, text: bytes, seconds: float) -> bool:
        """Wait until that came, on whatever stream."""
        with self._heard:
            return self._heard.wait_for(lambda: text in self.out + self.err, seconds)


class BackendContract:
    """The contract; `patience` is how many seconds a test waits for what should come at once."""

    patience = 60.0

    def backend(self) -> Backend:
        """Give the backend to test; it is called once for each test."""
        raise NotImplementedError

    def job(self, **fields: object) -> Job:
        """Make a job; add the fields that the backend needs."""
        return Job(**fields)  # type: ignore[arg-type]

    # -- tools

    def setup_method(self) -> None:
        """Begin without folders."""
        self._bases: list[str] = []

    def teardown_method(self) -> None:
        """Remove the folders."""
        for base in self._bases:
            shutil.rmtree(base, ignore_errors=True)

    def folders(self) -> str:
        """Give a private folder with `work`, `home` and `tmp` in it."""
        base = tempfile.mkdtemp(prefix="repro-contract-")
        self._bases.append(base)
        for name in ("work", "home", "tmp"):
            os.mkdir(os.path.join(base, name))
        return base

    def made(self, *argv: str, **fields: object) -> Job:
        """Make a job in a new folder."""
        base = self.folders()
        variables = {"PATH": os.environ["PATH"], "HOME": os.path.join(base, "home")}
        folder = os.path.join(base, "work")
        given = {"run_id": os.path.basename(base), "base": base, "folder": folder, **fields}
        given["variables"] = {**variables, **dict(fields.get("variables") or {})}  # type: ignore[call-overload]
        return self.job(argv=argv, **given)

    def shell(self, text: str, **fields: object) -> Job:
        """Make a job of a shell's text."""
        return self.made("sh", "-c", text, **fields)

    def begun(self, job: Job) -> tuple[SubmittedJob, Output]:
        """Submit a job."""
        output = Output()
        return self.within(lambda: self.backend().submit(job, output)), output

    def run(self, job: Job) -> tuple[JobEnd, Output]:
        """Run a job to its end."""
        submitted, output = self.begun(job)
        return self.within(submitted.wait), output

    def within(self, call: Callable[[], T]) -> T:
        """Call what has to come back; fail if it does not."""
        found: list[T] = []
        failures: list[BaseException] = []

        def called() -> None:
            try:
                found.append(call())
            except BaseException as error:  # noqa: BLE001  (raised below)
                failures.append(error)

        thread = threading.Thread(target=called, daemon=True)
        thread.start()
        thread.join(self.patience)
        assert not thread.is_alive(), f"nothing came back in {self.patience} s"
        if failures:
            raise failures[0]
        return found[0]

    def hears(self, output: Output, text: bytes) -> None:
        """Wait for output that has to come."""
        assert output.heard(text, self.patience), f"{text!r} did not come, but {output.chunks}"

    def is_quiet(self, job: Job) -> bool:
        """Say whether nothing in the job's folder lives any more, see `ALIVE`."""
        before = _size(job, "alive")
        time.sleep(0.5)
        return _size(job, "alive") == before > 0

    # -- how it ends

    def test_the_end_has_the_exit_code_of_the_command(self) -> None:
        """A failed command is an end like any other."""
        for code in CODES:
            end, output = self.run(self.shell(f"exit {code}"))
            assert (end.code, end.cause) == (code, "exit")
            assert output.chunks == []

    def test_a_command_ended_by_a_signal_has_the_code_of_a_shell(self) -> None:
        """It is 128 plus the signal's number."""
        for number in (9, 15):
            end, _ = self.run(self.shell(f"sh -c 'kill -{number} $$'; exit $?"))
            assert (end.code, end.cause) == (128 + number, "exit")

    def test_a_command_that_is_not_there_is_127_and_named(self) -> None:
        """It is no exception, since the command belongs to the project."""
        end, output = self.run(self.made("no-such-command"))
        assert (end.code, end.cause) == (127, "exit")
        assert b"no-such-command" in output.err

    def test_a_folder_that_is_not_there_is_explained(self) -> None:
        """It cannot start; there is something to do about it."""
        job = self.made("true", base="", folder="/no/such/folder")
        refused = None
        try:
            self.begun(job)
        except ReproError as error:
            refused = error
        assert refused is not None, "it was started"
        assert refused.message

    def test_the_time_that_it_took_is_told(self) -> None:
        """In nanoseconds, from its start to its end."""
        end, _ = self.run(self.shell("sleep 0.3"))
        assert end.wall_ns > 250_000_000

    # -- what it gets

    def test_it_gets_exactly_the_variables_given(self) -> None:
        """Nothing of the backend's own, and nothing of ours."""
        odd = {"EMPTY": "", "LINES": "a\nb=c", "WORD": "käse 🧀", "BIG": "x" * 50_000}
        job = self.made("env", "-0", variables={**odd, "LC_ALL": "C"})
        end, output = self.run(job)
        assert end.code == 0, output.err
        found = dict(text.split(b"=", 1) for text in output.out.split(b"\0") if text)
        assert {name.decode() for name in found} == {"PATH", "HOME", "LC_ALL", *odd}
        assert {name: found[name.encode()].decode() for name in odd} == odd

    def test_arguments_are_never_a_shell_text(self) -> None:
        """They arrive as they are."""
        words = ("$HOME", "a b", "", "*", "`id`", '"', "'", "\\", "-n", "ü\n")
        _, output = self.run(self.made("printf", r"%s\n--\n", *words))
        assert output.out.decode().split("\n--\n")[:-1] == list(words)

    def test_there_is_nothing_to_read(self) -> None:
        """Standard input is at its end."""
        _, output = self.run(self.shell("cat; echo end"))
        assert output.out == b"end\n"

    def test_it_starts_in_its_folder_and_what_it_writes_is_ours(self) -> None:
        """Inputs are there; outputs belong to the caller."""
        job = self.made("sh", "-c", "cat in; mkdir sub; cat in >sub/out; chmod 600 sub/out")
        with open(os.path.join(job.folder, "in"), "w", encoding="utf-8") as file:
            file.write("input")
        end, output = self.run(job)
        assert (end.code, output.out) == (0, b"input")
        made = os.path.join(job.folder, "sub", "out")
        with open(made, encoding="utf-8") as file:
            assert file.read() == "input"
        assert os.stat(made).st_uid == os.stat(os.path.dirname(made)).st_uid == os.getuid()

    def test_its_home_is_there_and_can_be_written(self) -> None:
        """A variable may name a folder of the job, wherever that is inside."""
        job = self.shell('echo text >"$HOME/file" && cat "$HOME/file"')
        end, output = self.run(job)
        assert (end.code, output.out) == (0, b"text\n")
        assert _size(job, "../home/file") == 5

    # -- what comes out

    def test_output_comes_live(self) -> None:
        """Lines come while the command still runs."""
        submitted, output = self.begun(self.shell("echo one; echo two >&2; sleep 600"))
        self.hears(output, b"one\n")
        self.hears(output, b"two\n")
        assert submitted.poll() is None
        self.within(submitted.cancel)
        assert (output.out, output.err) == (b"one\n", b"two\n")

    def test_streams_are_told_apart(self) -> None:
        """Each has its own output, in order."""
        text = "for i in 1 2 3; do echo o$i; echo e$i >&2; done"
        _, output = self.run(self.shell(text))
        assert (output.out, output.err) == (b"o1\no2\no3\n", b"e1\ne2\ne3\n")

    def test_of_many_lines_none_is_lost_or_doubled(self) -> None:
        """All come in the order of writing."""
        _, output = self.run(self.shell("seq 100000; seq 100001 110000 >&2"))
        same = output.out == b"".join(b"%d\n" % n for n in range(1, 100_001))
        assert same, "stdout is not what was written"  # without a comparison of 100,000 lines
        same = output.err == b"".join(b"%d\n" % n for n in range(100_001, 110_001))
        assert same, "stderr is not what was written"

    def test_both_streams_may_be_written_at_once(self) -> None:
        """Neither waits for the other."""
        _, output = self.run(self.shell("seq 20000 & seq 20000 >&2; wait"))
        expected = b"".join(b"%d\n" % n for n in range(1, 20_001))
        same = (output.out == expected, output.err == expected)
        assert same == (True, True)

    def test_output_may_be_big(self) -> None:
        """Of fifty megabytes nothing is lost."""
        text = "head -c 50000000 /dev/zero | tr '\\000' x"
        digest, size = hashlib.sha256(), 0

        def sink(_stream: str, data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += len(data)

        self.within(self.within(lambda: self.backend().submit(self.shell(text), sink)).wait)
        assert size == 50_000_000
        assert digest.hexdigest() == hashlib.sha256(b"x" * size).hexdigest()

    def test_output_is_bytes_and_needs_no_last_line(self) -> None:
        """Nothing is decoded or completed."""
        _, output = self.run(self.made("printf", r"\377\000\r\nend"))
        assert output.out == b"\xff\0\r\nend"

    def test_output_written_just_before_the_end_is_whole(self) -> None:
        """The end is told after all output was delivered."""
        jobs = [self.shell("printf %65000d 1; printf %65000d 2 >&2") for _ in range(8)]
        with ThreadPoolExecutor(4) as pool:
            outputs = [output for _, output in pool.map(self.run, jobs)]
        assert {(len(o.out), len(o.err)) for o in outputs} == {(65_000, 65_000)}

    def test_a_command_may_close_its_output_and_go_on(self) -> None:
        """Its end is that of the command, not of its output."""
        end, output = self.run(self.shell("echo a; exec >&- 2>&-; sleep 0.5; exit 3"))
        assert (end.code, output.out) == (3, b"a\n")
        assert end.wall_ns > 400_000_000

    def test_a_sink_that_fails_is_not_called_again_and_wait_says_so(self) -> None:
        """The job itself is not harmed."""
        calls = []

        def sink(_stream: str, data: bytes) -> None:
            calls.append(data)
            raise ZeroDivisionError

        job = self.shell("echo a; sleep 0.3; echo b; head -c 200000 /dev/zero; echo >done")
        submitted = self.within(lambda: self.backend().submit(job, sink))
        for _ in range(2):
            with suppress(ZeroDivisionError):
                self.within(submitted.wait)
                raise AssertionError("it was not said")
        assert calls == [b"a\n"]
        assert _size(job, "done") == 1

    def test_a_sink_may_cancel(self) -> None:
        """It is called by the thread that others wait for."""
        box: list[SubmittedJob] = []
        begun = threading.Event()

        def sink(_stream: str, _data: bytes) -> None:
            begun.wait(self.patience)
            box[0].cancel()

        job = self.shell("echo x; sleep 600")
        box.append(self.within(lambda: self.backend().submit(job, sink)))
        begun.set()
        assert self.within(box[0].wait).cause == "cancel"

    # -- waiting

    def test_several_threads_may_wait_and_get_the_same_end(self) -> None:
        """Also those that come late."""
        submitted, _ = self.begun(self.shell("sleep 0.5; exit 4"))
        assert submitted.poll() is None
        with ThreadPoolExecutor(4) as pool:
            ends = list(pool.map(lambda _: self.within(submitted.wait), range(4)))
        assert {end.code for end in ends} == {4}
        assert submitted.wait() == submitted.poll() == ends[0]

    def test_jobs_at_the_same_time_do_not_disturb_each_other(self) -> None:
        """Each has its own output, folder and end."""
        jobs = [self.shell(f"echo {n}; sleep 0.2; echo {n} >file; exit {n}") for n in range(6)]
        with ThreadPoolExecutor(len(jobs)) as pool:
            ends = list(pool.map(self.run, jobs))
        assert [(end.code, output.out) for end, output in ends] == [
            (n, b"%d\n" % n) for n in range(6)
        ]
        assert all(_size(job, "file") == 2 for job in jobs)

    # -- ending it

    def test_cancel_ends_all_of_it_and_twice_is_harmless(self) -> None:
        """When it returns, nothing is left, also of what was started in the background."""
        job = self.shell(f"({DEAF} {ALIVE}) & ({ALIVE}) & {BEGUN}; wait", grace_ms=300)
        submitted, output = self.begun(job)
        self.hears(output, b"ready")
        self.within(submitted.cancel)
        assert self.is_quiet(job)
        end = submitted.wait()
        assert end.cause == "cancel"
        assert end.code in ENDED
        self.within(submitted.cancel)
        assert submitted.wait() == submitted.poll() == end

    def test_cancel_from_several_threads_is_one(self) -> None:
        """All of them return when nothing is left."""
        job = self.shell(f"({ALIVE}) & {BEGUN}; wait", grace_ms=300)
        submitted, output = self.begun(job)
        self.hears(output, b"ready")
        with ThreadPoolExecutor(4) as pool:
            quiet = list(
                pool.map(lambda _: (self.within(submitted.cancel), self.is_quiet(job))[1], range(4))
            )
        assert all(quiet)
        assert submitted.wait().cause == "cancel"

    def test_cancel_after_the_end_changes_nothing(self) -> None:
        """The command's own end stays."""
        submitted, _ = self.begun(self.shell("exit 5"))
        end = self.within(submitted.wait)
        self.within(submitted.cancel)
        assert submitted.wait() == submitted.poll() == end
        assert (end.code, end.cause) == (5, "exit")

    def test_cancel_right_after_the_start_ends_it(self) -> None:
        """However far it has come."""
        submitted, _ = self.begun(self.shell("sleep 600", grace_ms=500))
        self.within(submitted.cancel)
        end = submitted.wait()
        assert end.cause == "cancel"
        assert end.code in ENDED

    def test_a_timeout_asks_politely_first(self) -> None:
        """The command may tidy up; it has ended by the signal all the same."""
        text = "trap 'echo bye; exit 0' TERM; sleep 600 & wait"
        end, output = self.run(self.shell(text, timeout_ms=1500, grace_ms=30_000))
        assert (end.code, end.cause, output.out) == (143, "timeout", b"bye\n")
        assert end.wall_ns > 1_000_000_000

    def test_every_process_is_asked(self) -> None:
        """Also those that the command waits for, as long as it does."""
        inner = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
        text = f'trap : TERM; sh -c "{inner}"; :'
        submitted, output = self.begun(self.shell(text, grace_ms=30_000))
        self.hears(output, b"ready")
        self.within(submitted.cancel)
        assert output.out == b"ready\nbye\n"

    def test_a_timeout_ends_what_does_not_listen(self) -> None:
        """After the grace nobody is asked."""
        job = self.shell(f"{DEAF} {ALIVE}", timeout_ms=800, grace_ms=300)
        end, _ = self.run(job)
        assert (end.code, end.cause) == (137, "timeout")
        assert self.is_quiet(job)

    def test_a_stopped_command_can_be_cancelled(self) -> None:
        """It does not listen, but it can be ended."""
        submitted, output = self.begun(self.shell("echo ready; kill -STOP $$", grace_ms=500))
        self.hears(output, b"ready")
        self.within(submitted.cancel)
        assert submitted.wait().cause == "cancel"

    def test_a_command_that_ends_in_time_has_no_timeout(self) -> None:
        """The limit leaves no trace."""
        end, _ = self.run(self.shell("exit 3", timeout_ms=50_000))
        assert (end.code, end.cause) == (3, "exit")

    def test_what_the_command_leaves_behind_ends_with_it(self) -> None:
        """Nobody waits for it, and it does not live on."""
        job = self.shell(f"({DEAF} {ALIVE}) & {BEGUN}; exit 6")
        end, output = self.run(job)
        assert (end.code, end.cause, output.out) == (6, "exit", b"ready\n")
        assert self.is_quiet(job)


def _size(job: Job, name: str) -> int:
    try:
        return os.stat(os.path.join(job.folder, name)).st_size
    except FileNotFoundError:
        return -1

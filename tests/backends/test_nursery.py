"""Jobs whose supervisors come from one process; what the contract asks of all of them holds."""

import contextlib
import gc
import os
import signal
import sys
import threading

import pytest
from backends.jobs import Output, bash, children, gone, host, left, marked, shape

from repro.backends.local import Local
from repro.backends.nursery import Nursery
from repro.backends.sandbox.means import Available
from repro.errors import Unreachable
from repro.ports import Confinement, JobEnd
from repro.testing.contract import BackendContract

MINUTE = ("sleep", "60")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sees processes through /proc")


@contextlib.contextmanager
def warm():
    """Give a backend whose next job comes from a nursery, and the nursery."""
    with contextlib.closing(Nursery()) as nursery:
        backend = Local(nursery=nursery)
        assert backend.submit(bash("exit 3"), Output()).wait().code == 3
        yield backend, nursery


def parent_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(") ")[2].split()[1])


class TestWarm(BackendContract):
    @pytest.fixture(autouse=True)
    def _nursery(self):
        with warm() as (self.local, _):
            yield

    def backend(self):
        return self.local


def test_the_first_supervisor_is_our_child_and_the_others_have_one_parent():
    parents = []
    with contextlib.closing(Nursery()) as nursery:
        for _ in range(3):
            output = Output()
            running = Local(nursery=nursery).submit(bash("echo $PPID; sleep 60"), output)
            output.wait_for(b"\n")
            parents.append(parent_of(int(output.out)))
            running.cancel()
    assert parents[0] == os.getpid() != parents[1] == parents[2]


def test_a_job_of_it_gets_what_another_one_would():
    text = "ls /proc/self/fd; umask; ulimit -c; grep Sig[BI] /proc/self/status; env; pwd"
    with warm() as (backend, _):
        said = []
        for one in (Local(), backend):
            output = Output()
            one.submit(marked("bash", "-c", text, more={"MARK": "x"}), output).wait()
            said.append(output.out)
    assert said[0] == said[1]
    assert b"MARK=x" in said[0]


def test_jobs_of_all_threads_come_from_one_process():
    ends, parents = [], set()
    with warm() as (backend, _):

        def one(number):
            output = Output()
            end = backend.submit(bash(f"echo $PPID; exit {number}"), output).wait()
            ends.append((number, end.code))
            parents.add(int(output.out))

        threads = [threading.Thread(target=one, args=[n]) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ends) == [(n, n) for n in range(24)]
    assert len(parents) == 24


def test_nothing_is_left_once_it_is_closed():
    gc.collect()
    before, others = set(os.listdir("/proc/self/fd")), children()
    with warm() as (backend, _):
        for _ in range(3):
            backend.submit(bash("sleep 60 & exit 1"), Output()).wait()
    assert children() <= others
    assert set(os.listdir("/proc/self/fd")) <= before


def test_when_its_process_dies_jobs_go_on_and_another_takes_its_place():
    with warm() as (backend, _):
        output, after = Output(), Output()
        running = backend.submit(bash("echo $PPID; sleep 0.5; echo whole"), output)
        output.wait_for(b"\n")
        os.kill(parent_of(int(output.out)), signal.SIGKILL)
        assert backend.submit(bash("echo later"), after).wait().code == 0
        assert running.wait().code == 0
        assert backend.submit(bash("echo again"), after).wait().code == 0
    assert output.out.endswith(b"whole\n")
    assert after.out == b"later\nagain\n"


def test_a_supervisor_of_it_that_is_killed_takes_the_group_along():
    with warm() as (backend, _):
        output = Output()
        job = bash("trap '' TERM; sleep 60 & echo $PPID; wait")
        running = backend.submit(job, output)
        output.wait_for(b"\n")
        os.kill(int(output.out), signal.SIGKILL)
        assert running.wait() == JobEnd(code=137, cause="lost")
        assert gone(1.5, job)


@pytest.mark.parametrize("how", ["wait", "leave", "cancel", "fork"])
def test_with_us_die_the_jobs_of_it(how):
    jobs = [shape("daemon", grace_ms=200), shape("polite"), marked(*MINUTE)]
    with host(f"{how}+", *jobs) as (process, own):
        if how in ("wait", "fork"):
            process.kill()
        process.wait(20)
        assert gone(5, own, *jobs)


def test_a_folder_that_is_not_there_is_explained(tmp_path):
    with warm() as (backend, _), pytest.raises(Unreachable, match="no such file or directory"):
        backend.submit(marked("true", folder=str(tmp_path / "none")), Output())


@pytest.mark.parametrize("means", ["bubblewrap", "namespaces", "landlock"])
def test_a_confined_job_of_it_is_confined(tmp_path, means):
    hidden = tmp_path / "hidden"
    hidden.write_text("secret")
    work = tmp_path / "work"
    work.mkdir()
    available = Available(means={"mounts": means}, program="/usr/bin/bwrap")
    with contextlib.closing(Nursery()) as nursery:
        backend = Local(available, nursery)
        for number in range(3):
            output = Output()
            job = bash(
                f"cat {hidden}; echo {number} > made",
                folder=str(work),
                confinement=Confinement(level="mounts", writable=(str(work),)),
            )
            assert backend.submit(job, output).wait().code == 0
            assert b"secret" not in output.out
            assert (work / "made").read_text() == f"{number}\n"
    assert left(job) == [0]

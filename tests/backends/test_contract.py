"""Every backend of ours under the contract that is shipped, and the contract under bad backends."""

import contextlib

import pytest
from support.docker_engine import docker_engine  # noqa: F401  (a fixture)

from repro.backends.docker import Docker
from repro.backends.local import Local
from repro.errors import Unreachable
from repro.ports import Job, JobEnd
from repro.testing.contract import BackendContract
from repro.value import replace


class TestLocal(BackendContract):
    def backend(self):
        return Local()


class TestDocker(BackendContract):
    @pytest.fixture(autouse=True)
    def _engine(self, docker_engine):  # noqa: F811
        self.engine = docker_engine
        yield
        with contextlib.closing(docker_engine.client()) as client:
            left = client.api.containers(all=True, filters={"label": "repro.run"})
        assert not [c for c in left if c["Labels"]["repro.run"].startswith("repro-contract-")]

    def backend(self):
        return Docker(self.engine.environ)

    def job(self, **fields):
        return Job(image=self.engine.image, **fields)


# --- a bad backend fails -------------------------------------------------------------------


class Flawed:
    """The local backend with one fault in its jobs, sinks or answers."""

    name = "flawed"

    def __init__(self, fault):
        self.fault = fault
        self.begun = []

    def submit(self, job, sink):
        job, sink = self.fault.job(job), self.fault.sink(sink)
        running = self.fault.submit(job, sink)
        self.begun.append(running)
        return self.fault.running(running)


class Fault:
    def job(self, job):
        return job

    def sink(self, sink):
        return sink

    def submit(self, job, sink):
        return Local().submit(job, sink)

    def running(self, running):
        return running


class Loses(Fault):
    def sink(self, sink):
        return lambda stream, data: sink(stream, data.replace(b"\n77777\n", b"\n"))


class Doubles(Fault):
    def sink(self, sink):
        return lambda stream, data: (sink(stream, data), sink(stream, data))


class Merges(Fault):
    def sink(self, sink):
        return lambda _, data: sink("stdout", data)


class Decodes(Fault):
    def sink(self, sink):
        return lambda stream, data: sink(stream, data.decode("utf-8", "replace").encode())


class Completes(Fault):
    def sink(self, sink):
        return lambda stream, data: sink(stream, data.rstrip(b"\n") + b"\n")


class Adds(Fault):
    def job(self, job):
        return replace(job, variables={**job.variables, "OWN": "1"})


class Splits(Fault):
    def job(self, job):
        return replace(job, argv=("sh", "-c", " ".join(job.argv)))


class Elsewhere(Fault):
    def job(self, job):
        return replace(job, folder="/")


class Forgets(Fault):
    """Has no time limit."""

    def job(self, job):
        return replace(job, timeout_ms=0, argv=("timeout", "-s", "KILL", "3", *job.argv))


class Raises(Fault):
    def submit(self, job, sink):
        if job.argv[0] == "no-such-command":
            raise Unreachable("it is not there")
        return super().submit(job, sink)


class Wrapped(Fault):
    def running(self, running):
        self.inner = running
        return self

    def wait(self):
        return self.inner.wait()

    def poll(self):
        return self.inner.poll()

    def cancel(self):
        self.inner.cancel()


class Detached(Wrapped):
    """Says that it was cancelled, and leaves all of it alone."""

    def wait(self):
        return JobEnd(code=143, cause="cancel")

    poll = wait

    def cancel(self):
        pass


class Blames(Wrapped):
    """Calls every end a cancelled one after `cancel`."""

    cause = "exit"

    def cancel(self):
        self.cause = "cancel"
        self.inner.cancel()

    def wait(self):
        return replace(self.inner.wait(), cause=self.cause)

    poll = wait


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (Loses, "of_many_lines_none_is_lost_or_doubled"),
        (Doubles, "of_many_lines_none_is_lost_or_doubled"),
        (Doubles, "output_may_be_big"),
        (Merges, "streams_are_told_apart"),
        (Decodes, "output_is_bytes_and_needs_no_last_line"),
        (Completes, "output_is_bytes_and_needs_no_last_line"),
        (Adds, "it_gets_exactly_the_variables_given"),
        (Splits, "arguments_are_never_a_shell_text"),
        (Elsewhere, "it_starts_in_its_folder_and_what_it_writes_is_ours"),
        (Forgets, "a_timeout_ends_what_does_not_listen"),
        (Raises, "a_command_that_is_not_there_is_127_and_named"),
        (Detached, "cancel_ends_all_of_it_and_twice_is_harmless"),
        (Detached, "a_timeout_asks_politely_first"),
        (Blames, "cancel_after_the_end_changes_nothing"),
    ],
)
def test_a_backend_with_a_fault_breaks_a_law(fault, law):
    flawed = Flawed(fault())

    class Contract(BackendContract):
        def backend(self):
            return flawed

    contract = Contract()
    contract.setup_method()
    try:
        with pytest.raises((AssertionError, Unreachable)):
            getattr(contract, f"test_{law}")()
    finally:
        for running in flawed.begun:
            running.cancel()
        contract.teardown_method()

import pytest

from repro.ports import Job, JobEnd
from repro.testing.contract import Output
from repro.testing.fake import FakeBackend

JOB = Job(run_id="r", argv=("train",), variables={}, folder="/")


def test_a_fake_keeps_its_jobs_and_succeeds():
    backend = FakeBackend()
    assert backend.submit(JOB, Output()).wait() == JobEnd(code=0)
    assert backend.jobs == [JOB]


def test_a_function_stands_for_the_command(tmp_path):
    def act(job, sink):
        sink("stdout", b"said")
        (tmp_path / job.argv[0]).touch()
        return 3

    output = Output()
    assert FakeBackend(act).submit(JOB, output).wait() == JobEnd(code=3)
    assert output.chunks == [("stdout", b"said")]
    assert (tmp_path / "train").exists()


def test_it_may_give_any_end_or_fail():
    lost = JobEnd(code=137, cause="lost")
    assert FakeBackend(lambda *_: lost).submit(JOB, Output()).wait() == lost
    submitted = FakeBackend(lambda *_: 1 // 0).submit(JOB, Output())
    with pytest.raises(ZeroDivisionError):
        submitted.wait()


def test_held_jobs_go_on_until_they_are_released_or_cancelled():
    backend = FakeBackend(hold=True)
    first, second, third = (backend.submit(JOB, Output()) for _ in range(3))
    assert first.poll() is None
    first.cancel()
    assert first.wait() == first.poll() == JobEnd(code=143, cause="cancel")
    backend.release()
    assert second.wait() == JobEnd(code=0)
    third.cancel()
    assert third.wait() == JobEnd(code=0)


def test_what_stands_for_a_command_may_cancel_its_job():
    box = []
    backend = FakeBackend(lambda _job, sink: sink("stdout", b"x") or 0, hold=True)
    box.append(backend.submit(JOB, lambda *_: None))
    box[0].cancel()
    assert box[0].wait().cause == "cancel"

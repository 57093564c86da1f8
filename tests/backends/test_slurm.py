"""Jobs of a real Slurm of two nodes on loopback."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import REPOSITORY
from support import slurm_engine as engines
from support.slurm_engine import slurm_accounts, slurm_engine  # noqa: F401  (fixtures)

from repro import schemas
from repro.backends import slurmjob, slurmqueue
from repro.backends.slurm import Slurm
from repro.backends.slurmjob import Settings
from repro.errors import ProjectInvalid, Unreachable, Unsupported, UsageError
from repro.ports import Job
from repro.spec import Resources
from repro.testing.contract import BackendContract, Output

HOST = pathlib.Path(__file__).with_name("slurm_host.py")
LIVES = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
JOB = Job(run_id="r", argv=("true",), variables={}, folder="/")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(tmp_path_factory.mktemp("store"))


class TestContract(BackendContract):
    @pytest.fixture(autouse=True)
    def _engine(self, slurm_engine, store):  # noqa: F811
        self.environ, self.store = slurm_engine.environ, store
        yield
        assert os.listdir(f"{store}/slurm/runs") == []

    def backend(self):
        return Slurm({"poll": 1}, store=self.store, environ=self.environ)


class Site:
    """A cluster with a store, and jobs for it."""

    def __init__(self, cluster, root):
        self.cluster, self.root = cluster, root
        self.store = str(root / "store")
        self.count = 0

    def backend(self, environ=None, **config):
        environ = {**self.cluster.environ, **(environ or {})}
        return Slurm({"poll": 0.5, **config}, store=self.store, environ=environ)

    def job(self, text, **fields):
        self.count += 1
        base = self.root / f"job-{self.count}"
        (base / "work").mkdir(parents=True)
        variables = {"PATH": os.environ["PATH"], **fields.pop("variables", {})}
        return Job(
            run_id=f"run{self.count}",
            argv=("sh", "-c", text),
            variables=variables,
            folder=str(base / "work"),
            base=str(base),
            **fields,
        )

    def begun(self, text, until=b"ready", backend=None, **fields):
        output = Output()
        running = (backend or self.backend()).submit(self.job(text, **fields), output)
        assert not until or output.heard(until, 60), output.chunks
        return running, output

    def runs(self):
        return os.listdir(f"{self.store}/slurm/runs")


@pytest.fixture
def site(slurm_engine, tmp_path):  # noqa: F811
    return Site(slurm_engine, tmp_path)


@pytest.fixture
def lonely(tmp_path, slurm_engine):  # noqa: F811  (for what it skips or fails)
    """A cluster of its own, for what disturbs others."""
    with engines.running() as cluster:
        yield Site(cluster, tmp_path)


# --- what Slurm is told --------------------------------------------------------------------


def test_the_script_is_this():
    given = slurmjob.settings(
        {
            "partition": "gpu",
            "account": "lab",
            "qos": "high",
            "time": "1-00:00:00",
            "memory": "4GiB",
            "gpus": "a100:2",
            "constraint": "skylake|cascade",
            "requeue": False,
            "options": {
                "mail-user": "me@x.org",
                "exclusive": True,
                "nodes": 2,
                "hold": False,
                "reservation": 'a "b" \\ #c',
            },
        }
    )
    needs = slurmjob.directives(given, Job(**{**_fields(JOB), "resources": Resources(cpus=3)}))
    command = ("python3", "/shared/it's/agent", "/shared/it's/spec.json")
    assert (
        slurmjob.script("repro-1", needs, "/shared/it's", command).decode()
        == """\
#!/bin/sh
#SBATCH --job-name=repro-1
#SBATCH --chdir="/shared/it's"
#SBATCH --output=slurm.out
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=3
#SBATCH --mem=4194304K
#SBATCH --gpus=a100:2
#SBATCH --time=1-00:00:00
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=high
#SBATCH --constraint=skylake|cascade
#SBATCH --no-requeue
#SBATCH --exclusive
#SBATCH --mail-user=me@x.org
#SBATCH --reservation="a \\"b\\" \\\\ #c"
exec python3 '/shared/it'"'"'s/agent' '/shared/it'"'"'s/spec.json'
"""
    )


def test_the_script_of_an_array_is_this():
    command = ("python3", "/s/agent", "/s/b/spec.json")
    assert (
        slurmjob.script("repro-1", (), "/s/b", command, "0-9%2").decode()
        == """\
#!/bin/sh
#SBATCH --job-name=repro-1
#SBATCH --chdir=/s/b
#SBATCH --output=%a.out
#SBATCH --open-mode=append
#SBATCH --array=0-9%2
exec python3 /s/agent /s/b/"$SLURM_ARRAY_TASK_ID"/spec.json
"""
    )


def test_what_a_step_asks_for_comes_before_the_settings():
    given = Settings(cpus=1, memory=1, gpus="1")
    asked = Resources(cpus=2, memory=2048, gpus=3)
    needs = dict(slurmjob.directives(given, Job(**{**_fields(JOB), "resources": asked})))
    assert (needs["cpus-per-task"], needs["mem"], needs["gpus"]) == ("2", "2K", "3")


def test_a_limit_follows_from_the_time_limit_of_the_step():
    limited = Job(**{**_fields(JOB), "timeout_ms": 60_001})
    assert dict(slurmjob.directives(Settings(), limited))["time"] == "12"
    assert dict(slurmjob.directives(Settings(time="5"), limited))["time"] == "5"
    assert "time" not in dict(slurmjob.directives(Settings(), JOB))


def test_defaults_of_the_user_hold_unless_a_setting_says_otherwise():
    environ = {
        "SBATCH_PARTITION": "mine",
        "SBATCH_QOS": "low",
        "SBATCH_WAIT": "1",
        "SECRET": "x",
        "SLURM_JOB_ID": "7",
        "PATH": "/bin",
        "SLURM_CONF": "/c",
    }
    needs = (("partition", "theirs"),)
    assert slurmjob.variables(environ, needs) == {
        "SBATCH_QOS": "low",
        "PATH": "/bin",
        "SLURM_CONF": "/c",
        "LC_ALL": "C",
    }


def _fields(job):
    return {name: getattr(job, name) for name in job.__fields__}


# --- the settings --------------------------------------------------------------------------

WRONG = """\
partiton: gpu
time: soon
cpus: 0
memory: lots
options:
  Partition: x
  exclusive: [1]
shared_folder: here
"""


def test_every_wrong_setting_is_named_with_its_line(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(WRONG)
    with pytest.raises(ProjectInvalid) as raised:
        slurmjob.settings(str(path))
    found = [(p.where.line, p.message) for p in raised.value.problems]
    assert [line for line, _ in found] == [1, 2, 3, 4, 6, 7, 8]
    assert found[0][1] == "unknown setting `partiton`"
    assert raised.value.problems[0].hint == "did you mean `partition`?"
    assert all(p.where.file == str(path) for p in raised.value.problems)
    assert found[1][1].startswith("time: ")


@pytest.mark.parametrize("name", sorted(schemas.load("backend-slurm")["properties"]))
def test_a_wrong_value_of_each_setting_is_named_with_its_line(tmp_path, name):
    path = tmp_path / "slurm.yaml"
    path.write_text(f"# a comment\n{name}: [[]]\n")
    with pytest.raises(ProjectInvalid) as raised:
        slurmjob.settings(str(path))
    (problem,) = raised.value.problems
    assert (problem.where.file, problem.where.line) == (str(path), 2)
    assert problem.message.startswith(f"{name}: ")


def test_the_page_describes_every_setting_and_its_example_is_good(tmp_path):
    page = (REPOSITORY / "docs" / "how-to" / "run-on-slurm.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "slurm.yaml").write_text(example)
    assert slurmjob.settings(str(tmp_path / "slurm.yaml")).memory == 4 << 30
    described = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE)))
    )
    assert set(schemas.load("backend-slurm")["properties"]) <= described
    assert set(Settings.__fields__) == set(schemas.load("backend-slurm")["properties"])


@pytest.mark.parametrize("given", ['{"partition": "gpu"}', {"partition": "gpu"}])
def test_settings_may_be_text_or_a_mapping(given):
    assert slurmjob.settings(given) == Settings(partition="gpu")
    assert slurmjob.settings(None) == Settings()


def test_settings_may_be_a_file_of_json(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"cpus": 2, "memory": "1GiB", "time": 5}))
    expected = Settings(cpus=2, memory=1 << 30, time="5")
    assert slurmjob.settings(str(tmp_path / "c.json")) == expected
    with pytest.raises(UsageError, match="there is no file"):
        slurmjob.settings(str(tmp_path / "other.json"))


@pytest.mark.parametrize("name", ["array", "output", "export", "wrap", "partition", "mem"])
def test_options_that_are_given_otherwise_are_refused(name):
    with pytest.raises(UsageError, match=f"`{name}`"):
        slurmjob.settings({"options": {name: "x"}})


# --- what Slurm says -----------------------------------------------------------------------


def test_states_are_read():
    text = "7|RUNNING|None\n8_1|PENDING|Resources\n9|CANCELLED by 0\n\n10|NODE_FAIL+|x\n"
    found = {job: (state.word, state.reason) for job, state in slurmqueue.read_states(text).items()}
    assert found == {
        "7": ("RUNNING", ""),
        "8_1": ("PENDING", "Resources"),
        "9": ("CANCELLED", ""),
        "10": ("NODE_FAIL", "x"),
    }


def test_the_accounting_is_asked_for_what_the_controller_has_forgotten(tmp_path):
    said = "slurm_load_jobs error: Invalid job id specified"
    scripts(tmp_path, squeue=f"echo '{said}' >&2; exit 1", sacct="echo '7|TIMEOUT'")
    queue = slurmqueue.Queue(slurmqueue.Commands({"PATH": f"{tmp_path}:/bin:/usr/bin"}), 1)
    assert queue.look(["7", "8"]) == {"7": slurmqueue.State(word="TIMEOUT")}


def scripts(folder, **texts):
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def test_without_slurm_it_says_so(tmp_path):
    (tmp_path / "work").mkdir()
    backend = Slurm(store=str(tmp_path), environ={"PATH": str(tmp_path)})
    with pytest.raises(Unsupported, match="no command `sbatch`"):
        backend.submit(Job(**{**_fields(JOB), "folder": str(tmp_path / "work")}), Output())
    assert os.listdir(tmp_path / "slurm" / "runs") == []


def test_an_image_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="image"):
        Slurm(store=str(tmp_path)).submit(Job(**{**_fields(JOB), "image": "x"}), Output())


def test_slurm_says_in_its_words_what_it_refuses(site):
    for config, words in (
        ({"partition": "none"}, "invalid partition name specified"),
        ({"memory": "100TiB"}, "requested node configuration is not available"),
        ({"options": {"no-such-option": True}}, "unrecognized option"),
    ):
        with pytest.raises(UsageError, match=words):
            site.backend(**config).submit(site.job("true"), Output())
    assert site.runs() == []


def test_a_job_that_cannot_begin_is_explained(site):
    running, _ = site.begun("true", until=b"", backend=site.backend(python="/no/python"))
    with pytest.raises(Unreachable, match=r"could not begin: .*/no/python") as raised:
        running.wait()
    assert "/no/python" in raised.value.hints[0]
    assert site.runs() == []


def test_a_job_that_somebody_else_cancels_is_cancelled(site):
    running, output = site.begun(LIVES)
    site.cluster.call("scancel", running.number)
    end = running.wait()
    assert (end.cause, end.code) == ("cancel", 143)
    assert output.out == b"ready\nbye\n"
    assert b"it was cancelled in Slurm" in output.err


def test_the_limit_of_slurm_is_a_timeout(site):
    running, output = site.begun(LIVES, backend=site.backend(time=5))
    site.cluster.call("scontrol", "update", f"JobId={running.number}", "EndTime=now")
    end = running.wait()
    assert (end.cause, end.code) == ("timeout", 143)
    assert output.out == b"ready\nbye\n"
    assert b"Slurm's time limit was over" in output.err


def test_a_pending_job_is_cancelled(site):
    running, _ = site.begun("true", until=b"", backend=site.backend(options={"hold": True}))
    running.cancel()
    assert (running.wait().cause, running.wait().code) == ("cancel", 143)
    assert site.cluster.call("squeue", "-h", "-t", "pending").strip() == ""


def test_a_killed_program_is_a_lost_job(site):
    running, output = site.begun("echo ready; sleep 1; kill -KILL $PPID; exec sleep 600")
    end = running.wait()
    assert (end.cause, end.code) == ("lost", 137)
    assert b"FAILED" in output.err


def test_too_much_memory_is_explained(site):
    text = (
        f"echo ready; {sys.executable} -c 'x = b\"1\" * 400_000_000; import time; time.sleep(60)'"
    )
    running, output = site.begun(text, backend=site.backend(memory="50MiB"))
    end = running.wait()
    assert end.code == 137
    assert b"its memory was not enough" in output.err


# --- without us, and without Slurm ---------------------------------------------------------


def submitted_by_another(site, text):
    job = site.job(text)
    asked = json.dumps({"store": site.store, "base": job.base, "text": text, "run": job.run_id})
    variables = {**site.cluster.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(HOST)],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(asked.encode() + b"\n")
    process.stdin.flush()
    return job, process


def test_a_job_outlives_us_and_is_found_again_with_all_it_said(site):
    text = "echo one; until [ -e ../../go ]; do sleep 0.05; done; echo two; echo out >out"
    text = text.replace("../..", str(site.root))
    job, process = submitted_by_another(site, text)
    assert process.stdout.readline() == b"one\n"
    process.kill()
    process.communicate()
    backend = site.backend()
    assert backend.orphans() == (job.run_id,)
    output = Output()
    running = backend.find(job.run_id, output, job.base)
    assert output.heard(b"one\n", 60)
    (site.root / "go").touch()
    assert running.wait().code == 0
    assert output.out == b"one\ntwo\n"
    assert pathlib.Path(job.folder, "out").read_text() == "out\n"
    assert (backend.find(job.run_id), backend.orphans(), site.runs()) == (None, (), [])


def test_a_job_that_outlives_us_can_be_cancelled(site):
    job, process = submitted_by_another(site, LIVES)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate()
    running = site.backend().find(job.run_id)
    running.cancel()
    assert running.wait().cause == "cancel"
    assert site.runs() == []


def test_a_job_is_found_by_its_name_where_its_number_was_not_noted(site):
    running, _ = site.begun(LIVES)
    order = running.parcel.order()
    running.parcel.note(id="")
    again = site.backend().find("run1")
    assert again.number == order["id"]
    running.cancel()
    again.wait()


def test_somebody_who_only_looks_takes_nothing_away(site):
    running, _ = site.begun("echo ready; sleep 1; echo out >out")
    output = Output()
    assert site.backend().find("run1", output).wait().code == 0
    assert running.wait().code == 0
    assert output.out == b"ready\n"
    assert (site.root / "job-1" / "work" / "out").exists()


def test_slurm_may_be_away_while_a_job_runs_and_when_it_is_submitted(lonely):
    text = f"echo ready; until [ -e {lonely.root}/go ]; do sleep 0.05; done; exit 5"
    running, _ = lonely.begun(text)
    lonely.cluster.stop_controller()
    later = []
    thread = threading.Thread(target=lambda: later.append(lonely.begun("exit 6", until=b"")[0]))
    thread.start()
    time.sleep(1)
    assert (running.poll(), later) == (None, [])
    (lonely.root / "go").touch()
    lonely.cluster.start_controller()
    assert running.wait().code == 5
    thread.join(60)
    assert later[0].wait().code == 6


def test_slurm_may_not_be_away_for_ever(lonely):
    backend = lonely.backend(patience=1)
    running, _ = lonely.begun(
        "echo ready; sleep 1; kill -STOP $PPID; exec sleep 600", backend=backend
    )
    lonely.cluster.stop_controller()
    with pytest.raises(Unreachable, match="has not answered for"):
        running.wait()
    assert lonely.runs() == ["run1"]
    with pytest.raises(Unreachable, match="does not answer `sbatch`"):
        backend.submit(lonely.job("true"), Output())
    assert lonely.runs() == ["run1"]


def test_a_job_that_slurm_has_forgotten_is_lost(lonely):
    running, output = lonely.begun("echo ready; sleep 1; kill -KILL $PPID; exec sleep 600")
    lonely.cluster.stop_controller()
    shutil.rmtree(lonely.cluster.root / "state")
    (lonely.cluster.root / "state").mkdir()
    lonely.cluster.start_controller()
    assert running.wait().cause == "lost"
    assert b"does not know it any more" in output.err


def test_a_job_whose_node_fails_is_lost_or_starts_again_elsewhere(lonely):
    backend = lonely.backend(requeue=False, partition="second")
    once, first = lonely.begun("echo ready; exec sleep 600", backend=backend)
    twice, second = lonely.begun(
        f"[ ! -e in ] || exit 9; echo in >in; if [ -e {lonely.root}/again ]; then exit 3; fi;"
        f" touch {lonely.root}/again; echo ready; exec sleep 600",
        backend=lonely.backend(requeue=True, options={"nodelist": "n2"}),
    )
    lonely.cluster.lose_node("n2")
    assert once.wait().cause == "lost"
    assert b"its node has failed" in first.err
    lonely.cluster.start_node("n2")
    assert (twice.wait().code, twice.wait().cause) == (3, "exit")
    assert second.out == b"ready\n"
    assert b"started again by Slurm" in second.err
    assert lonely.runs() == []


# --- many ----------------------------------------------------------------------------------


def test_jobs_that_ask_for_the_same_are_one_array(site):
    jobs = [site.job(f"echo {n}; echo {n} >out; exit {n}") for n in range(5)]
    jobs.append(site.job("exit 9", resources=Resources(cpus=2)))
    outputs = [Output() for _ in jobs]
    backend = site.backend(concurrent=3)
    runnings = backend.submit_many(jobs, outputs)
    assert [r.wait().code for r in runnings] == [0, 1, 2, 3, 4, 9]
    assert [o.out for o in outputs[:5]] == [b"%d\n" % n for n in range(5)]
    assert [pathlib.Path(j.folder, "out").read_text() for j in jobs[:5]] == [
        f"{n}\n" for n in range(5)
    ]
    numbers = [r.number.partition("_")[0] for r in runnings]
    assert len(set(numbers[:5])) == 1
    assert "_" not in runnings[5].number
    assert (site.runs(), os.listdir(f"{site.store}/slurm/batches")) == ([], [])


def together(site, jobs):
    """Submit from a thread each; give the jobs, or what was raised."""
    begun = [None] * len(jobs)

    def submit(n):
        try:
            begun[n] = site.backend().submit(jobs[n], Output())
        except UsageError as error:
            begun[n] = error

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return begun


def test_what_threads_submit_in_one_moment_is_one_array(site):
    runnings = together(site, [site.job(f"exit {n}") for n in range(4)])
    assert [r.wait().code for r in runnings] == [0, 1, 2, 3]
    assert len({r.number.partition("_")[0] for r in runnings}) == 1
    alone = site.backend().submit(site.job("exit 5"), Output())
    assert "_" not in alone.number
    assert alone.wait().code == 5


def test_one_that_is_refused_keeps_none_of_the_others(site):
    jobs = [site.job("exit 1"), site.job("exit 2", resources=Resources(memory=1 << 50))]
    good, refused = together(site, jobs)
    assert isinstance(refused, UsageError)
    assert good.wait().code == 1
    assert site.runs() == []


def test_one_of_an_array_is_cancelled_alone(site):
    jobs = [site.job(LIVES), site.job("sleep 1; exit 2")]
    outputs = [Output(), Output()]
    first, second = site.backend().submit_many(jobs, outputs)
    assert outputs[0].heard(b"ready", 60)
    first.cancel()
    assert (first.wait().cause, second.wait().code) == ("cancel", 2)


def test_all_jobs_in_flight_are_asked_for_in_one_call(site):
    log = site.root / "calls"
    tools = site.root / "tools"
    tools.mkdir()
    scripts(tools, squeue=f'echo "$*" >>{log}; exec /usr/bin/squeue "$@"')
    backend = site.backend({"PATH": f"{tools}:{os.environ['PATH']}"})
    begun = [site.begun("echo ready; sleep 3", backend=backend)[0] for _ in range(4)]
    assert [r.wait().code for r in begun] == [0] * 4
    asked = [line.split("-j ")[1].split()[0] for line in log.read_text().splitlines()]
    assert ",".join(sorted(r.number for r in begun)) in asked
    assert len(asked) < 20


# --- what a step logs ----------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


GET = "import os, urllib.request as r; print(r.urlopen(os.environ['U']).read(), os.environ['U'])"


def test_what_a_step_logs_reaches_us_at_an_advertised_address(site, receiver):
    backend = site.backend(advertise="localhost")
    variables = {"U": f"{receiver}/x?a=127.0.0.1"}
    text = f'{sys.executable} -c "{GET}"'
    running, output = site.begun(text, until=b"", backend=backend, variables=variables)
    assert running.wait().code == 0
    said, url = output.out.decode().split()
    assert said == "b'ok'"
    assert url.startswith("http://localhost:")
    assert url.endswith("/x?a=127.0.0.1")
    assert receiver.rpartition(":")[2] not in url


def test_a_step_that_cannot_reach_us_says_so(site):
    running, output = site.begun("true", until=b"", variables={"U": "http://127.0.0.1:1/"})
    assert running.wait().code == 0
    assert b"nothing that the step logs with MLflow is received" in output.err


# --- with accounting -----------------------------------------------------------------------


def test_a_job_that_the_controller_has_forgotten_is_in_the_accounts(slurm_accounts, tmp_path):  # noqa: F811
    site = Site(slurm_accounts, tmp_path)
    queue = site.backend().queue
    good, _ = site.begun("exit 0", until=b"")
    assert good.wait().code == 0
    number = good.number
    site.cluster.until(lambda: not queue._queued(number))
    site.cluster.until(lambda: queue.look([number]))
    assert queue.look([number])[number].word == "COMPLETED"


def test_an_end_that_only_the_accounts_know_is_not_a_job_gone(slurm_accounts, tmp_path):  # noqa: F811
    site = Site(slurm_accounts, tmp_path)
    running, output = site.begun("echo ready; sleep 1; kill -KILL $PPID; exec sleep 600")
    site.cluster.until(lambda: not running._queue._queued(running.number))
    end = running.wait()
    assert (end.cause, end.code) == ("lost", 137)
    assert b"FAILED" in output.err


class TestContractWithAccounts(BackendContract):
    @pytest.fixture(autouse=True)
    def _engine(self, slurm_accounts, store):  # noqa: F811
        self.environ, self.store = slurm_accounts.environ, store

    def backend(self):
        return Slurm({"poll": 5}, store=self.store, environ=self.environ)

"""Projects whose steps run on Databricks: their environments, their ends, and Spark jobs."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from conftest import interpreter_variables
from environments.served import Index
from support import databricks_server as servers

from repro import attaching, leftovers
from repro.errors import EnvironmentFailed, Unsupported, UsageError
from repro.repeating import Recalling

HOST = pathlib.Path(__file__).with_name("left_host.py")
CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "i3.xlarge", "num_workers": 0}
STEP = "{inputs: [in.txt], outputs: [out.txt], command: 'echo said; tr a-z A-Z < in.txt > out.txt'}"
PREFIX = (
    "{inputs: [], command: 'python -c \"import sys; print(sys.prefix, sys.version_info[:2])\"'}"
)
SLOW = (
    "entry_points: {main: {inputs: [in.txt], outputs: [out.txt], command: "
    "'echo ready; sleep 3; echo later; tr a-z A-Z < in.txt > out.txt'}}\n"
)
SPARK = """\
databricks_spark_job:
  python_file: jobs/count.py
  parameters: [--name, "two words", "{x}"]
  python_libraries: [numpy==2]
"""
COUNT = """\
import pathlib
import sys
print(spark.split()[0], sys.argv[1:])
pathlib.Path("out.txt").write_text("made")
"""


class Lab:
    """A workspace, and runs of projects there."""

    def __init__(self, workspace, run, root):
        self.workspace, self.run = workspace, run
        self.scratch = root / "scratch"
        config = {
            "new_cluster": CLUSTER,
            "poll": 0.2,
            "mount": str(workspace.dbfs),
            "scratch": str(self.scratch),
        }
        self.config = json.dumps(config)
        access = {n: v for n, v in workspace.environ.items() if n != "HOME"}
        run.environ = {**run.environ, **access}

    def __call__(self, folder, **options):
        return self.run(folder, backend="databricks", config=self.config, **options)

    def submitted(self):
        return len(self.workspace.calls("runs/submit"))

    def is_clean(self):
        runs = list((self.workspace.dbfs / "repro" / "runs").iterdir())
        rooms = [path for path in self.scratch.iterdir() if path.name != "repro-environments"]
        return (runs, rooms) == ([], [])


@pytest.fixture
def lab(run, tmp_path):
    (tmp_path / "workspace").mkdir()
    with servers.running(tmp_path / "workspace") as workspace:
        yield Lab(workspace, run, tmp_path)


# --- steps ---------------------------------------------------------------------------------


def test_a_step_runs_there_and_its_result_is_a_hit_that_asks_nothing(lab, run, project):
    folder = project({"MLproject": f"entry_points: {{main: {STEP}}}\n", "in.txt": "words"})
    first = lab(folder)
    assert first.wait()
    assert run.printed == "said\n"
    assert (folder / "out.txt").read_text() == "WORDS"
    assert (first.record.backend, first.record.environment_kind) == ("databricks", "local")
    assert lab.is_clean()
    asked = len(lab.workspace.asked)
    assert lab(folder).cached
    assert run(folder).cached  # where it was made is no part of the key
    assert len(lab.workspace.asked) == asked
    with pytest.raises(Unsupported, match="`databricks` has no sandbox"):
        lab(folder, sandbox="mounts")


def test_a_python_environment_is_made_on_the_cluster(lab, run, project):
    folder = project(
        {
            "MLproject": f"python_env: env.yaml\nentry_points: {{main: {PREFIX}}}\n",
            "env.yaml": "dependencies: []\n",
        }
    )
    first = lab(folder, env_manager="")
    assert first.wait()
    assert first.record.environment_kind == "python"
    prefix, version = run.printed.split(" ", 1)
    assert pathlib.Path(prefix).parents[1] == lab.scratch / "repro-environments"
    assert pathlib.Path(prefix).parent.name == first.record.environment
    assert version == f"{sys.version_info[:2]}\n"
    assert lab.is_clean()
    assert run(folder, env_manager="").cached


def test_packages_are_installed_on_the_cluster(lab, run, project, tmp_path):
    servers.wheel(tmp_path / "wheels")
    step = "{inputs: [], command: 'greet; python -c \"import greeting; greeting.main()\"'}"
    index = Index(tmp_path / "wheels")
    folder = project(
        {
            "MLproject": f"python_env: env.yaml\nentry_points: {{main: {step}}}\n",
            "env.yaml": f"dependencies: ['--index-url {index.url}', greeting]\n",
        }
    )
    with index.running():
        assert lab(folder, env_manager="").wait()
    assert run.printed == "hello\nhello\n"
    assert lab.is_clean()


def test_an_environment_that_the_cluster_cannot_make_fails_the_run(lab, run, project):
    lab.scratch.mkdir()
    (lab.scratch / "repro-environments").touch()  # where a folder should be
    text = f"python_env: env.yaml\nentry_points: {{main: {PREFIX}}}\n"
    folder = project({"MLproject": text, "env.yaml": "dependencies: []\n"})
    with pytest.raises(EnvironmentFailed):
        lab(folder, env_manager="")
    assert lab.is_clean()


def test_a_step_that_fails_there_has_failed(lab, run, project):
    folder = project(MLproject="entry_points: {main: {command: 'echo no >&2; exit 3'}}\n")
    found = lab(folder)
    assert (found.get_status(), found.record.exit_code) == ("FAILED", 3)
    assert run.printed == "no\n"
    assert lab.is_clean()


# --- runs that were left behind ------------------------------------------------------------


@pytest.fixture
def left(lab, project):
    """A project of which a run was killed while its job goes on: its folder, and the run."""
    folder = project({"MLproject": SLOW, "in.txt": "words"})
    done = subprocess.run(
        [sys.executable, HOST, folder, "databricks", lab.config],
        env={**lab.run.environ, **interpreter_variables()},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    return folder, done.stdout.strip()


def test_a_run_that_was_left_is_attached_to(lab, left):
    folder, run_id = left
    heard = []
    machine = Recalling(lab.run.environ, heard.append)
    assert leftovers.is_left(machine.history.get(run_id), machine)
    done = attaching.attach(run_id[:8], machine, machine.emit)
    said = b"".join(e.data for e in heard if type(e).__name__ == "Output")
    assert (done.run_id, done.status, said) == (run_id, "FINISHED", b"ready\nlater\n")
    assert (folder / "out.txt").read_text() == "WORDS"
    with pytest.raises(UsageError, match="has left no job"):
        attaching.attach(run_id, machine, machine.emit)
    machine.close()
    assert lab.is_clean()
    again = lab.run(folder, env_manager="")
    assert (again.cached, again.record.origin_run) == (True, run_id)


def test_the_next_run_goes_on_with_the_job_that_was_left(lab, left):
    folder, run_id = left
    found = lab(folder, env_manager="")
    assert (found.cached, found.record.origin_run) == (True, run_id)
    assert (folder / "out.txt").read_text() == "WORDS"
    assert (lab.submitted(), lab.is_clean()) == (1, True)


def test_the_job_that_was_left_is_cancelled(lab, left, repro):
    _folder, run_id = left
    answer = repro("cancel", run_id[:12], env=lab.run.environ)
    assert answer.code == 0, answer.text
    machine = Recalling(lab.run.environ)
    assert not leftovers.is_left(machine.history.get(run_id), machine)
    machine.close()
    assert lab.is_clean()


# --- Spark jobs ----------------------------------------------------------------------------


def test_a_spark_project_runs_in_the_driver_each_time_anew(lab, run, project):
    folder = project({"MLproject": SPARK, "jobs/count.py": COUNT})
    for count in (1, 2):
        found = lab(folder, env_manager="")
        assert found.wait()
        assert not found.cached
        assert run.printed == "session ['--name', 'two words', '{x}']\n"
        assert run.reason == "it runs on Spark, whose cluster and tables are in no key"
        (warned,) = run.named("Warned")
        assert "the result is not kept for reuse" in warned.text
        assert (folder / "out.txt").read_text() == "made"
        assert (found.record.entry_point, lab.submitted()) == ("main", count)
        (folder / "out.txt").unlink()
    (task,) = lab.workspace.calls("runs/submit")[0]["tasks"]
    assert task["libraries"] == [{"pypi": {"package": "numpy==2"}}]
    assert found.record.command == "python jobs/count.py --name 'two words' '{x}'"
    assert lab.is_clean()


def test_what_a_spark_project_ignores_is_said(lab, run, project):
    folder = project({"MLproject": SPARK, "jobs/count.py": COUNT})
    found = lab(folder, entry_point="other", parameters={"a": 1})
    assert found.wait()
    assert "runs `jobs/count.py` with parameters of its own" in run.named("Warned")[0].text
    assert run.printed == "session ['--name', 'two words', '{x}']\n"
    assert (found.record.entry_point, found.record.parameters) == ("main", ())


def test_entry_points_of_a_spark_project_run_in_the_driver(lab, run, project):
    text = (
        "databricks_spark_job: {python_libraries: [x]}\n"
        "entry_points:\n"
        "  first: {outputs: [made.txt], command: 'python jobs/count.py >made.txt'}\n"
        "  main: {inputs: [made.txt, jobs], parameters: {a: {default: 1}},"
        " command: 'cat made.txt; python jobs/count.py {a}'}\n"
    )
    folder = project({"MLproject": text, "jobs/count.py": COUNT})
    assert lab(folder, parameters={"a": "b c"}).wait()
    assert run.printed == "session []\nsession ['b c']\n"
    assert lab.submitted() == 2
    assert (folder / "made.txt").read_text() == "session []\n"


def test_a_spark_project_that_fails_there_has_failed(lab, run, project):
    folder = project({"MLproject": SPARK, "jobs/count.py": "raise ValueError('no')\n"})
    found = lab(folder)
    assert (found.get_status(), found.record.exit_code) == ("FAILED", 1)
    assert run.printed.endswith("ValueError: no\n")
    assert lab.is_clean()


def test_a_spark_project_is_refused_elsewhere_and_with_an_environment(lab, run, project):
    folder = project({"MLproject": SPARK, "jobs/count.py": COUNT})
    with pytest.raises(Unsupported, match="runs on Databricks only"):
        run(folder)
    text = (
        "databricks_spark_job: {}\nentry_points: {main: {command: python a.py,"
        " python_env: env.yaml}}\n"
    )
    folder = project({"MLproject": text, "env.yaml": "dependencies: []\n"}, name="other")
    with pytest.raises(Unsupported, match="`main` has an environment"):
        lab(folder)

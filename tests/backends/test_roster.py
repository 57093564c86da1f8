"""The backends that there are, among them those that other packages bring."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time

import jsonschema
import pytest
from conftest import REPOSITORY

from repro import schemas
from repro.backends import roster
from repro.backends.local import Local
from repro.errors import ProjectInvalid, Unsupported, UsageError
from repro.ports import Job
from repro.tracking import receiver

PLUGIN = """\
from repro.backends.local import Local
from repro.errors import UsageError


class Moon(Local):
    name = "moon"
    environments = "files"

    def __init__(self, config, *, store, environ):
        super().__init__()
        if "crew" not in config:
            raise UsageError("nobody flies")
        self.given = (config, store, environ["HOME"])

    @staticmethod
    def lacks(environ):
        return "" if "ROCKET" in environ else "no rocket is set"


class Found(Moon):
    def find(self, run_id, sink=None, base=""):
        return run_id

    def orphans(self):
        return ("r",)


def shapeless(config, *, store, environ):
    return object()


def strange(config, *, store, environ):
    made = Moon({"crew": 1}, store=store, environ=environ)
    made.environments = "stars"
    return made


def failing(config, *, store, environ):
    return {}["orbit"]


number = 7
"""
THEIRS = """\
import os
import subprocess
import threading

import mlflow
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.projects.utils import load_project


class Run(SubmittedRun):
    def __init__(self, run_id, command, folder):
        self.id = run_id
        self.child = subprocess.Popen(["bash", "-c", command], cwd=folder)

    @property
    def run_id(self):
        return self.id

    def wait(self):
        return self.child.wait() == 0

    def get_status(self):
        return "FINISHED" if self.child.poll() == 0 else "FAILED"

    def cancel(self):
        print("told to cancel", flush=True)
        self.child.terminate()
        self.child.wait()


class Backend(AbstractBackend):
    def run(self, uri, entry_point, params, version, config, tracking_uri, experiment_id):
        command = load_project(uri).get_entry_point(entry_point).compute_command(params, None)
        client = mlflow.MlflowClient(tracking_uri)
        run = client.create_run(experiment_id, tags={"quarter": config["quarter"]})
        client.log_param(run.info.run_id, "rank", 3)
        for step in range(2):
            client.log_metric(run.info.run_id, "loss", 0.5 - step, step=step)
        print("by the plug-in", sorted(config["DOCKER_ARGS"].items()), flush=True)
        return Run(run.info.run_id, command, uri)
"""
MLPROJECT = """\
entry_points:
  main: {parameters: {word: string, out: string}, command: "echo said {word} > {out}"}
  bad: {command: "exit 4"}
  slow: {command: "touch begun; exec sleep 60"}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution on the path of this process and of those that it starts."""

    def put(group, points, *, name="moonware", module="moonware_plugin", text=PLUGIN):
        folder = tmp_path / name
        place = folder / f"{name}-1.2.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Name: {name}\nVersion: 1.2\n")
        lines = [f"{point} = {value}" for point, value in points.items()]
        (place / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
        (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    yield put
    sys.modules.pop("moonware_plugin", None)


@pytest.fixture
def ask(environ):
    """Make a backend by its name."""
    return lambda name, config=None: roster.make(
        name, config, store=environ["REPRO_HOME"], environ=environ
    )


def one(found, name):
    return next(row for row in found if row[0] == name)


# -- ours


def test_ours_are_there_without_any_plugin(environ):
    assert roster.names(environ)[:5] == ("local", "docker", "slurm", "kubernetes", "databricks")
    assert [row[:2] for row in roster.described(environ)][:5] == [
        (name, "repro") for name in ("local", *roster.OURS)
    ]


def test_what_ours_lack_is_said(environ, tmp_path):
    away = {**environ, "PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    found = roster.described(away)
    assert one(found, "local")[2] == ""
    assert one(found, "slurm")[2] == "`sbatch` is not on the PATH"
    assert one(found, "docker")[2] == f"no docker daemon answers at unix://{tmp_path}/none.sock"


def test_a_backend_that_has_all_it_needs_lacks_nothing(environ, tmp_path):
    for program in ("sbatch", "squeue", "scancel"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    there = {**environ, "PATH": str(tmp_path), "DOCKER_HOST": "tcp://192.0.2.1:1"}
    found = roster.described(there)
    assert (one(found, "slurm")[2], one(found, "docker")[2]) == ("", "")


def test_an_unknown_backend_is_refused_with_what_there_is(ask, environ, tmp_path, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    with pytest.raises(Unsupported, match="no backend `mooon`") as caught:
        ask("mooon")
    hints = caught.value.hints
    assert hints[0] == "a similar one exists: `moon`"
    assert "there is `local`" in hints
    assert "there is `moon` of moonware 1.2, but no rocket is set" in hints


def test_our_own_are_made_without_a_look_at_plugins(environ, tmp_path, repro):
    script = (
        "import os, sys; from repro.backends import roster\n"
        "roster.make('slurm', None, store=os.environ['REPRO_HOME'], environ=os.environ)\n"
        "sys.exit('importlib.metadata' in sys.modules)\n"
    )
    done = repro(command=[sys.executable, "-c", script])
    assert done.code == 0, done.err


# -- those of others


def test_a_plugin_is_made_by_its_name(ask, environ, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    made = ask("moon", '{"crew": 3}')
    assert (made.name, made.environments) == ("moon", "files")
    assert made.find("r") is None
    assert made.orphans() == ()
    assert "moon" in roster.names(environ)


def test_a_plugin_runs_jobs(ask, install, tmp_path):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    heard = []
    job = Job(run_id="r", argv=("/bin/echo", "up"), variables={}, folder=str(tmp_path))
    end = ask("moon", {"crew": 3}).submit(job, lambda _stream, data: heard.append(data)).wait()
    assert (end.code, b"".join(heard)) == (0, b"up\n")


def test_a_plugin_that_can_find_its_jobs_is_left_as_it_is(ask, environ, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Found"})
    made = ask("moon", {"crew": 3})
    assert made.given == ({"crew": 3}, environ["REPRO_HOME"], environ["HOME"])
    assert (made.find("r"), made.orphans()) == ("r", ("r",))


def test_a_plugin_says_what_it_lacks(environ, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    assert one(roster.described(environ), "moon")[1:] == ("moonware 1.2", "no rocket is set")
    assert one(roster.described({**environ, "ROCKET": "1"}), "moon")[2] == ""


def test_ours_come_before_a_plugin_of_the_same_name(ask, environ, install):
    install(roster.GROUP, {"slurm": "moonware_plugin:Moon"})
    assert type(ask("slurm")).__module__ == "repro.backends.slurm"
    rows = [row for row in roster.described(environ) if row[0] == "slurm"]
    assert rows[1][1:] == ("moonware 1.2", "another backend has its name")


@pytest.mark.parametrize(
    ("value", "text", "words"),
    [
        ("moonware_plugin:Moon", "raise OSError('no disk')", "cannot be loaded: OSError: no disk"),
        ("moonware_plugin:Moon", "def broken(:", "cannot be loaded: SyntaxError"),
        ("moonware_nowhere:Moon", "", "cannot be loaded: ModuleNotFoundError"),
        ("moonware_plugin:Mars", PLUGIN, "cannot be loaded: AttributeError"),
        ("moonware_plugin:number", PLUGIN, "is no factory"),
        ("moonware_plugin:failing", PLUGIN, "cannot be made: KeyError: 'orbit'"),
        ("moonware_plugin:shapeless", PLUGIN, "is no backend: it has no method `submit`"),
        ("moonware_plugin:strange", PLUGIN, "`environments` is `stars`"),
    ],
)
def test_a_broken_plugin_is_named_with_what_is_wrong(ask, install, value, text, words):
    install(roster.GROUP, {"moon": value}, text=text)
    with pytest.raises(Unsupported, match="^the backend `moon` of moonware 1.2 ") as caught:
        ask("moon")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_broken_plugin_does_not_keep_the_others_from_being_listed(environ, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"}, text="1 / 0")
    assert "ZeroDivisionError" in one(roster.described(environ), "moon")[2]


def test_a_plugins_own_error_is_told_as_it_is(ask, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    with pytest.raises(UsageError, match="^nobody flies$"):
        ask("moon", {})


def test_settings_of_a_plugin_are_a_mapping(ask, install, tmp_path):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    with pytest.raises(UsageError, match="there is no file `nothing.yaml`"):
        ask("moon", "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- crew\n")
    with pytest.raises(ProjectInvalid):
        ask("moon", str(tmp_path / "list.yaml"))
    (tmp_path / "crew.yaml").write_text("crew: 2\n")
    assert ask("moon", str(tmp_path / "crew.yaml")).name == "moon"


def test_two_packages_with_one_name_are_told_apart_by_nobody(ask, install):
    install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    install(roster.GROUP, {"moon": "moonware_plugin:Found"}, name="lunar")
    with pytest.raises(Unsupported, match="lunar 1.2 and moonware 1.2 both bring"):
        ask("moon", {"crew": 1})


# -- those that are made for MLflow


@pytest.fixture
def theirs(install, environ):
    """A plug-in for MLflow, and how to run a job through it."""
    if not importlib.util.find_spec("mlflow"):
        reason = "no mlflow in this environment: pip install '.[test]'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = install(
        roster.FOREIGN, {"luna": "luna_plugin:Backend"}, module="luna_plugin", text=THEIRS
    )
    environ["PYTHONPATH"] = f"{folder}:{REPOSITORY}"
    environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return environ


@pytest.fixture
def receiving(tmp_path):
    """What takes the MLflow calls of a step."""
    folder = str(tmp_path / "logged")
    started = receiver.start("r" * 32, "0", "Default", folder, inherited_tags={})
    yield started
    started.close()


@pytest.fixture
def job(tmp_path, receiving):
    """Make a job whose private folder holds a project."""

    def make(entry_point, **parameters):
        folder = tmp_path / "base" / "work"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "MLproject").write_text(MLPROJECT)
        return Job(
            run_id="r" * 32,
            argv=("false",),
            variables={**receiving.variables, "OTHER": "x"},
            folder=str(folder),
            base=str(tmp_path / "base"),
            container=(("shm-size", "1g"), ("tty", None)),
            entry_point=entry_point,
            parameters=parameters,
        )

    return make


def through(theirs, job, heard):
    made = roster.make("luna", {"quarter": "full"}, store="/", environ=theirs)
    return made.submit(job, lambda _stream, data: heard.append(data))


def test_a_plugin_for_mlflow_runs_the_project(theirs, job, tmp_path, receiving):
    heard = []
    end = through(theirs, job("main", word="a 'b' $c", out="o"), heard).wait()
    text = b"".join(heard).decode()
    assert end.code == 0, text
    assert "by the plug-in [('shm-size', '1g'), ('tty', True)]" in text
    assert (tmp_path / "base/work/o").read_text() == "said a 'b' $c\n"
    assert sorted(os.listdir(tmp_path / "base/work")) == ["MLproject", "o"]
    logged = receiving.close()
    assert [(key, value, step) for key, value, _at, step in logged.metrics] == [
        ("loss", "0.5", 0),
        ("loss", "-0.5", 1),
    ]
    assert (logged.parameters, logged.tags) == ({"rank": "3"}, {"quarter": "full"})
    assert [child.status for child in logged.children] == ["FINISHED"]


def test_a_run_of_such_a_plugin_that_fails_is_a_failure(theirs, job):
    heard = []
    end = through(theirs, job("bad"), heard).wait()
    assert (end.code, end.cause) == (1, "exit")
    text = b"".join(heard).decode()
    assert "repro: luna: ExecutionException: Run (ID '" in text
    assert "Traceback" not in text


def test_such_a_plugin_is_asked_to_cancel(theirs, job, tmp_path):
    heard = []
    submitted = through(theirs, job("slow"), heard)
    deadline = time.monotonic() + 60
    while not (tmp_path / "base/work/begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    canceller = threading.Thread(target=submitted.cancel)
    canceller.start()
    end = submitted.wait()
    canceller.join()
    assert (end.code, end.cause) == (143, "cancel")
    assert b"told to cancel" in b"".join(heard)


def test_a_run_through_such_a_plugin_has_its_numbers_and_serves_no_other(theirs, run, project):
    folder = project(MLproject=MLPROJECT)
    given = {"word": "w", "out": "o"}
    done = run(folder, parameters=given, backend="luna", config={"quarter": "full"})
    assert done.get_status() == "FINISHED"
    assert (done.metrics, done.record.logged) == ({"loss": -0.5}, {"rank": "3"})
    assert any("luna" in note for note in done.record.notes)
    assert not run(folder, parameters=given).cached


def test_such_a_plugin_is_listed_and_brings_the_whole_project(theirs):
    assert one(roster.described(theirs), "luna")[1:] == ("moonware 1.2", "")
    made = roster.make("luna", None, store="/", environ=theirs)
    assert (made.environments, made.find("r"), made.orphans()) == ("projects", None, ())


def test_such_a_plugin_needs_to_see_the_project(theirs, job):
    asked = job("main")
    os.unlink(os.path.join(asked.folder, "MLproject"))
    with pytest.raises(UsageError, match="does not see it") as caught:
        through(theirs, asked, [])
    assert "inputs:" in caught.value.hints[0]


def test_runs_of_such_a_plugin_are_on_the_callers_server(theirs, job):
    theirs["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    heard = []
    theirs["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    end = through(theirs, job("main", word="w", out="o"), heard).wait()
    assert end.code == 1
    assert b"127.0.0.1" in b"".join(heard)


def test_what_leads_back_to_repro_is_no_backend(environ, install):
    install(roster.FOREIGN, {"repro": "repro.mlflow_backend:project_backend_builder"})
    assert "repro" not in roster.names(environ)


# -- the command


def test_the_command_lists_them(repro, install, environ):
    folder = install(roster.GROUP, {"moon": "moonware_plugin:Moon"})
    path = {"PYTHONPATH": f"{folder}:{REPOSITORY}"}
    rows = [line.split("\t") for line in repro("backends", env=path).out.splitlines()]
    assert rows[0] == ["BACKEND", "FROM", "STATE"]
    assert ["local", "repro", "ready"] in rows
    assert ["moon", "moonware 1.2", "no rocket is set"] in rows
    document = json.loads(repro("backends", "--json", env=path).out)
    jsonschema.validate(document, schemas.load("backends"))
    assert {"name": "moon", "from": "moonware 1.2", "lacks": "no rocket is set"} in (
        document["backends"]
    )


def test_every_kind_of_environment_is_known():
    assert Local.environments in roster.BROUGHT

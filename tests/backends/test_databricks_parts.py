"""What of the Databricks backend needs no workspace: credentials, settings, the run's parts."""

import ast
import base64
import json
import pathlib
import re
import sys

import pytest
from conftest import REPOSITORY

from repro import schemas
from repro.backends import databricks, databricksaccess, databricksdriver, databricksjob
from repro.backends.databricksjob import Settings
from repro.backends.databricksrun import read_state
from repro.errors import ProjectInvalid, Unsupported, UsageError
from repro.lock import Artifact, EnvironmentLock, Image, Interpreter

CLUSTER = {"spark_version": "15.4.x-scala2.12", "num_workers": 2}
PYTHON = Interpreter(implementation="cpython", version="3.11.7", abi="", platform="linux-x86_64")
PROFILES = """
[DEFAULT]
host = https://default.cloud.databricks.com/
token = dapi-default

[lab]
host = adb-1.2.azuredatabricks.net
username = alice
password = 50%:secret

[empty]
host = https://x.databricks.com

[none]
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".databrickscfg").write_text(PROFILES)
    return str(tmp_path)


BY_HOST = {"DATABRICKS_HOST": "https://env.databricks.com", "DATABRICKS_TOKEN": "dapi-env"}
DEFAULT, LAB, ENV = (
    "https://default.cloud.databricks.com",
    "https://adb-1.2.azuredatabricks.net",
    "https://env.databricks.com",
)


@pytest.mark.parametrize(
    ("variables", "profile", "host"),
    [
        ({}, "", DEFAULT),
        ({"DATABRICKS_CONFIG_PROFILE": "lab"}, "", LAB),
        ({}, "lab", LAB),
        ({"MLFLOW_TRACKING_URI": "databricks://lab"}, "", LAB),
        ({"MLFLOW_TRACKING_URI": "databricks://lab:prefix"}, "", LAB),
        ({"MLFLOW_TRACKING_URI": "databricks"}, "", DEFAULT),
        ({"MLFLOW_TRACKING_URI": "https://lab"}, "", DEFAULT),
        (BY_HOST, "", ENV),
        ({**BY_HOST, "DATABRICKS_CONFIG_PROFILE": "lab"}, "", ENV),
        ({**BY_HOST, "MLFLOW_TRACKING_URI": "databricks://lab"}, "", LAB),
        (BY_HOST, "lab", LAB),
        ({"DATABRICKS_HOST": "https://env.databricks.com"}, "", DEFAULT),
    ],
)
def test_the_workspace_is_found_as_databricks_own_tools_find_it(home, variables, profile, host):
    found = databricksaccess.find({"HOME": home, **variables}, profile)
    assert found.host == host
    assert databricksaccess.lacks({"HOME": home, **variables}, profile) == ""


def test_the_credentials_are_a_token_or_a_user_with_a_password(home):
    assert databricksaccess.find({"HOME": home}).header == "Bearer dapi-default"
    found = databricksaccess.find({"HOME": home}, "lab")
    assert base64.b64decode(found.header.removeprefix("Basic ")) == b"alice:50%:secret"
    assert "secret" not in f"{found!r}{found}"
    assert found.secrets == ("50%:secret",)
    variables = {"DATABRICKS_USERNAME": "bob", "DATABRICKS_PASSWORD": "p"}
    given = {"HOME": "/", "DATABRICKS_HOST": "http://localhost:8080/?o=1", **variables}
    assert databricksaccess.find(given).host == "http://localhost:8080"


def test_the_file_of_profiles_may_be_elsewhere(home, tmp_path):
    (tmp_path / "other").write_text("[DEFAULT]\nhost = h.example\ntoken = t\n")
    for name in (str(tmp_path / "other"), "~/other"):
        given = {"HOME": home, "DATABRICKS_CONFIG_FILE": name}
        assert databricksaccess.find(given).host == "https://h.example"


@pytest.mark.parametrize(
    ("variables", "profile", "words"),
    [
        ({"HOME": "/nowhere"}, "", "no host and token for Databricks: `DATABRICKS_HOST` and"),
        ({"HOME": "/nowhere", "DATABRICKS_HOST": "x"}, "", "`DATABRICKS_TOKEN` not set"),
        ({}, "absent", "no profile `absent` in"),
        ({"DATABRICKS_CONFIG_PROFILE": "absent"}, "", "no profile `absent` in"),
        ({}, "empty", "no `token` in profile `empty`"),
        ({}, "none", "no `host` in profile `none`"),
        ({**BY_HOST, "DATABRICKS_HOST": "http://env.example"}, "", "has no TLS"),
        ({**BY_HOST, "DATABRICKS_HOST": "https://a:b@env.example"}, "", "no address"),
        ({**BY_HOST, "DATABRICKS_HOST": "ftp://env.example"}, "", "no address"),
        ({**BY_HOST, "DATABRICKS_HOST": "https://[x"}, "", "no address"),
    ],
)
def test_what_is_missing_is_said(home, variables, profile, words):
    with pytest.raises(UsageError, match=re.escape(words)) as raised:
        databricksaccess.find({"HOME": home, **variables}, profile)
    assert raised.value.hints
    assert words in databricksaccess.lacks({"HOME": home, **variables}, profile)
    assert "dapi" not in raised.value.message


@pytest.mark.parametrize("data", [b"host = x\n", b"[a\n", b"\xff", b"[a]\nx = 1\nx = 2\n"])
def test_a_file_that_is_none_of_profiles_is_refused_without_its_text(tmp_path, data):
    (tmp_path / ".databrickscfg").write_bytes(data)
    with pytest.raises(UsageError, match="cannot be read as profiles"):
        databricksaccess.find({"HOME": str(tmp_path)})


def test_what_is_lacking_needs_no_workspace():
    assert databricks.lacks({"HOME": "/nowhere"}).startswith("no host and token")
    assert databricks.lacks({"HOME": "/nowhere", **BY_HOST}) == ""


# --- settings ------------------------------------------------------------------------------


def test_settings_may_be_nothing_but_a_cluster():
    assert databricksjob.settings(CLUSTER) == Settings(new_cluster=CLUSTER)
    text = json.dumps({"new_cluster": CLUSTER, "poll": 1})
    assert databricksjob.settings(text) == Settings(new_cluster=CLUSTER, poll=1)
    libraries = [{"pypi": {"package": "x"}}]
    found = databricksjob.settings({"new_cluster": CLUSTER, "libraries": libraries})
    assert found.libraries == tuple(libraries)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "needs the specification of a cluster"),
        ({"poll": 1}, "needs the specification of a cluster"),
        ({"existing_cluster_id": "1"}, "`existing_cluster_id`"),
        ({"existing_cluster_id": "1", "new_cluster": CLUSTER}, "`existing_cluster_id`"),
        ({**CLUSTER, "existing_cluster_id": "1"}, "`existing_cluster_id`"),
    ],
)
def test_without_a_new_cluster_nothing_runs(given, words):
    with pytest.raises(UsageError, match=words) as raised:
        databricksjob.settings(given)
    assert "new_cluster" in raised.value.hints[0]


WRONG = """\
new_clusters: {}
new_cluster:
  num_workers: 1
libraries: [x]
folder: dbfs:/Volumes/a
poll: 0
mount: dbfs
profile: "[x]"
timeout_seconds: 0
"""


def test_every_wrong_setting_is_named_with_its_line(tmp_path):
    path = tmp_path / "databricks.yaml"
    path.write_text(WRONG)
    with pytest.raises(ProjectInvalid) as raised:
        databricksjob.settings(str(path))
    problems = raised.value.problems
    assert [p.where.line for p in problems] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert problems[0].message == "unknown setting `new_clusters`"
    assert problems[0].hint == "did you mean `new_cluster`?"
    assert problems[1].message == "new_cluster: no `spark_version`"


@pytest.mark.parametrize(
    ("folder", "is_good"),
    [
        ("dbfs:/repro", True),
        ("dbfs:/mnt/team/jobs", True),
        ("/Volumes/main/lab/jobs/repro", True),
        ("/Volumes/main/lab/jobs", True),
        ("/Volumes/main/lab", False),
        ("dbfs:/Volumes/main/lab/jobs/repro", False),
        ("/repro", False),
        ("dbfs:/", False),
        ("dbfs:/a b", False),
        ("s3://bucket", False),
    ],
)
def test_a_folder_is_one_of_dbfs_or_below_a_volume(folder, is_good):
    given = {"new_cluster": CLUSTER, "folder": folder}
    if is_good:
        assert databricksjob.settings(given).folder == folder
    else:
        with pytest.raises(ProjectInvalid):
            databricksjob.settings(given)


def test_the_page_describes_every_setting_and_its_example_is_good(tmp_path):
    page = (REPOSITORY / "docs" / "how-to" / "run-on-databricks.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "databricks.yaml").write_text(example)
    found = databricksjob.settings(str(tmp_path / "databricks.yaml"))
    assert found.folder.startswith("/Volumes/")
    rows = "".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE))
    described = set(re.findall(r"`(\w+)`", rows))
    schema = schemas.load("backend-databricks")
    assert set(schema["properties"]) <= described
    assert set(Settings.__fields__) == set(schema["properties"])
    assert set(schema["else"]["properties"]) == {*schema["properties"], "existing_cluster_id"}


# --- environments --------------------------------------------------------------------------


def artifact(name="a", **fields):
    given = {"name": name, "version": "1.0", "kind": "wheel", "digest": "0" * 64, **fields}
    return Artifact(**given)


def lock(*artifacts, kind="python", **fields):
    return EnvironmentLock(kind=kind, interpreter=PYTHON, artifacts=artifacts, **fields)


def test_an_environment_is_made_of_exactly_what_is_locked():
    found = databricksjob.environment(lock(artifact(), artifact("b", kind="sdist")))
    assert found["name"] == lock(artifact(), artifact("b", kind="sdist")).digest
    assert found["python"] == "cpython 3.11.7"
    text = f"a==1.0 --hash=sha256:{'0' * 64}\nb==1.0 --hash=sha256:{'0' * 64}\n"
    assert found["files"] == {"requirements.txt": text}
    venv, pip = found["steps"]
    assert venv == ["{python}", "-I", "-m", "venv", "--without-pip", "{folder}"]
    assert {"--no-deps", "--require-hashes", "{place}/requirements.txt"} <= set(pip)
    assert len(databricksjob.environment(lock())["steps"]) == 1


@pytest.mark.parametrize(
    ("indexes", "options"),
    [
        (["", "https://pypi.org/simple"], []),
        (["https://a/"], ["--index-url https://a/"]),
        (["https://b/", "https://a/"], ["--index-url https://a/", "--extra-index-url https://b/"]),
        (["", "https://a/"], ["--extra-index-url https://a/"]),
    ],
)
def test_packages_are_sought_where_they_were_found(indexes, options):
    wanted = lock(*(artifact(f"n{i}", index=index) for i, index in enumerate(indexes)))
    text = databricksjob.environment(wanted)["files"]["requirements.txt"]
    assert text.splitlines()[: -len(indexes)] == options


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (lock(kind="conda"), "clusters have no conda"),
        (lock(artifact(kind="vcs")), "`a` is from a repository"),
        (lock(artifact(kind="directory")), "`a` is from a folder"),
    ],
)
def test_environments_that_no_cluster_makes_are_refused(wanted, words):
    with pytest.raises(Unsupported, match=words) as raised:
        databricksjob.environment(wanted)
    assert "image" in raised.value.hints[-1]


def test_the_clusters_own_python_is_for_those_who_want_it():
    assert databricksjob.environment(None) is None
    assert databricksjob.environment(EnvironmentLock(kind="local"))["python"] == ""


# --- images --------------------------------------------------------------------------------

MANIFEST = f"sha256:{'1' * 64}"
IMAGE = Image(reference="registry.example/team/image:1", id=f"sha256:{'2' * 64}", manifest=MANIFEST)
GIVEN = Settings(new_cluster=CLUSTER)


def test_an_image_is_that_of_the_cluster_with_the_login_for_it(tmp_path):
    pair = base64.b64encode(b"alice:secret").decode()
    auths = {"registry.example": {"auth": pair}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    wanted = lock(kind="docker", image=IMAGE)
    image = {"url": f"registry.example/team/image@{MANIFEST}"}
    found = databricksjob.cluster(GIVEN, wanted, {"DOCKER_CONFIG": "/nowhere"})
    assert found == {**CLUSTER, "docker_image": image}
    found = databricksjob.cluster(GIVEN, wanted, {"DOCKER_CONFIG": str(tmp_path)})
    assert found["docker_image"].pop("basic_auth") == {"username": "alice", "password": "secret"}
    assert found == {**CLUSTER, "docker_image": image}
    assert databricksjob.cluster(GIVEN, lock(), {}) == CLUSTER
    assert databricksjob.environment(wanted)["python"] == ""


def test_an_image_that_no_cluster_gets_is_refused():
    local = lock(kind="docker", image=Image(reference="mine", id=IMAGE.id))
    with pytest.raises(Unsupported, match="`mine` is in no registry"):
        databricksjob.cluster(GIVEN, local, {})
    other = Settings(new_cluster={**CLUSTER, "docker_image": {"url": "x"}})
    with pytest.raises(UsageError, match="`docker_image`"):
        databricksjob.cluster(other, lock(kind="docker", image=IMAGE), {})
    assert databricksjob.cluster(other, lock(), {})["docker_image"] == {"url": "x"}


# --- the run -------------------------------------------------------------------------------


def test_the_driver_needs_python_3_8_and_nothing_else():
    text = pathlib.Path(databricksdriver.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    found = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, "module", None) or node.names[0].name for node in found}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_same_agent_gives_the_same_program():
    text = databricksjob.program(b"agent").decode()
    compile(text, "program", "exec")
    assert base64.b64encode(b"agent").decode() in text
    assert databricksjob.program(b"agent") == databricksjob.program(b"agent")


@pytest.mark.parametrize(
    ("life", "result", "word", "is_over"),
    [
        ("PENDING", "", "PENDING", False),
        ("QUEUED", "", "QUEUED", False),
        ("RUNNING", "", "RUNNING", False),
        ("TERMINATING", "", "TERMINATING", False),
        ("BLOCKED", "", "BLOCKED", False),
        ("WAITING_FOR_RETRY", "", "WAITING_FOR_RETRY", False),
        ("TERMINATED", "SUCCESS", "SUCCESS", True),
        ("TERMINATED", "FAILED", "FAILED", True),
        ("TERMINATED", "TIMEDOUT", "TIMEDOUT", True),
        ("TERMINATED", "CANCELED", "CANCELED", True),
        ("SKIPPED", "", "SKIPPED", True),
        ("INTERNAL_ERROR", "", "INTERNAL_ERROR", True),
        ("", "", "", False),
    ],
)
def test_states_are_read(life, result, word, is_over):
    task = {"run_id": 2, "state": {"state_message": " of\n the task "}}
    run = {"state": {"life_cycle_state": life, "result_state": result}, "tasks": [task]}
    state = read_state(run)
    assert (state.word, state.is_over, state.why, state.task) == (word, is_over, "of the task", 2)
    assert not read_state({}).is_over

"""A job as Databricks takes it: the settings, and the run that they make. Nothing is asked here."""

from __future__ import annotations

import base64
import os

from repro import digest
from repro.backends import configuration
from repro.errors import Unsupported, UsageError
from repro.images import logins
from repro.lockfiles import references
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from repro.lock import Artifact, EnvironmentLock
    from repro.ports import Job
    from repro.spec import SparkJob

SCHEMA = "backend-databricks"
PYPI = ("", "https://pypi.org/simple", "https://pypi.org/simple/")
REQUIREMENTS = "requirements.txt"
TASK = "step"
LONGEST_NAME = 60
BEAT_S, FLUSH_S = 30.0, 5.0
"""Each sign of life, and each piece of output, is a file of its own there."""

START = """\
given = dict(globals())
SOURCE = {source!r}
PROGRAM = "{program}"
driver = {{"__name__": "driver"}}
exec(compile(SOURCE, "driver.py", "exec"), driver)
driver["main"](SOURCE, PROGRAM, given)
"""


class Settings(Value):
    """The settings of the backend, as `schemas/backend-databricks.schema.json` describes them.

    `poll` and `patience` are in seconds; what is empty or 0 is unsaid.
    """

    new_cluster: Mapping[str, Any]
    libraries: tuple[Mapping[str, Any], ...] = ()
    profile: str = ""
    folder: str = "dbfs:/repro"
    mount: str = "/dbfs"
    scratch: str = ""
    timeout_seconds: int = 0
    poll: float = 10.0
    patience: float = 600.0


def settings(given: Mapping[str, Any] | str | None) -> Settings:
    """Read the settings: a mapping, the path of a JSON or YAML file, or JSON text.

    As with MLflow, they may be nothing but the specification of a cluster. Raises ProjectInvalid
    with every mistake, and UsageError where there is no specification of a new cluster.
    """
    found = configuration.read(given, SCHEMA)
    if "existing_cluster_id" in found:
        raise UsageError(
            "a step runs on a new cluster, and `existing_cluster_id` names one that is there",
            hints=[
                "give the specification of a cluster as `new_cluster`: what else runs on one "
                "that is there, and is installed there, could change a result"
            ],
        )
    if "spark_version" in found:
        return Settings(new_cluster=found)
    if "new_cluster" not in found:
        raise UsageError(
            "the databricks backend needs the specification of a cluster",
            hints=["give `--backend-config FILE` with `new_cluster:` in it"],
        )
    libraries = tuple(found.pop("libraries", ()))
    return Settings(**found, libraries=libraries)


def program(agent: bytes) -> bytes:
    """Give the file of Python that a run starts, see `databricksdriver.main`."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "databricksdriver.py"), encoding="utf-8") as file:
        source = file.read()
    packed = base64.b64encode(agent).decode("ascii")
    return START.format(source=source, program=packed).encode("utf-8")


def named(job: Job) -> str:
    """Give a name that no other run has, by which one can be found."""
    words = [job.labels.get("project", ""), job.labels.get("step", "")]
    shown = " ".join(word for word in words if word)[:LONGEST_NAME]
    return f"repro {shown or job.run_id} {os.urandom(6).hex()}"


def submission(
    given: Settings,
    cluster: Mapping[str, Any],
    name: str,
    task: Mapping[str, Any],
    spark: SparkJob | None = None,
) -> dict[str, Any]:
    """Give the body of `runs/submit`; one with the same `name` never starts a second run.

    The libraries of a Spark job come after those of the settings.
    """
    step: dict[str, Any] = {
        "task_key": TASK,
        "new_cluster": dict(cluster),
        "spark_python_task": dict(task),
    }
    wanted = spark.python_libraries if spark else ()
    libraries = [dict(library) for library in given.libraries]
    libraries += [{"pypi": {"package": package}} for package in wanted]
    if libraries:
        step["libraries"] = libraries
    token = digest.of_bytes(name.encode())
    asked: dict[str, Any] = {"run_name": name, "idempotency_token": token, "tasks": [step]}
    if given.timeout_seconds:
        asked["timeout_seconds"] = given.timeout_seconds
    return asked


# -- environments


def environment(lock: EnvironmentLock | None) -> dict[str, Any] | None:
    """Say what the agent is to make of a lock, see `agent.setup.made`. Raises Unsupported."""
    if lock is None:
        return None
    if lock.kind in ("local", "docker"):
        return {"name": "", "python": "", "files": {}, "steps": []}
    if lock.kind != "python":
        raise Unsupported(
            f"the databricks backend cannot make a {lock.kind} environment: clusters have no conda",
            hints=[
                "give the project a `python_env`",
                "or a `docker_env`, with an image that Databricks Container Services can run",
            ],
        )
    python = lock.interpreter
    target = "{folder}/bin/python"
    pip = ["{python}", "-I", "-m", "pip", "--python", target, "--disable-pip-version-check"]
    install = ["install", "--no-input", "--no-deps", "--require-hashes"]
    steps = [["{python}", "-I", "-m", "venv", "--without-pip", "{folder}"]]
    if lock.artifacts:
        steps.append([*pip, *install, "-r", f"{{place}}/{REQUIREMENTS}"])
    return {
        "name": lock.digest,
        "python": f"{python.implementation} {python.version}",
        "files": {REQUIREMENTS: _requirements(lock.artifacts)},
        "steps": steps,
    }


def _requirements(artifacts: Sequence[Artifact]) -> str:
    """Write the packages for pip; the hashes say what is taken, wherever it is found."""
    others = sorted({a.index for a in artifacts} - set(PYPI))
    options = [f"--extra-index-url {url}" for url in others]
    if others and all(a.index in others for a in artifacts):
        options[0] = f"--index-url {others[0]}"
    return "\n".join([*options, *map(_pinned, artifacts), ""])


def _pinned(artifact: Artifact) -> str:
    if artifact.kind not in ("wheel", "sdist"):
        raise Unsupported(
            f"the databricks backend installs packages from an index, and `{artifact.name}` is"
            f" from a {'repository' if artifact.kind == 'vcs' else 'folder'}",
            hints=["publish it, or run the project in an image"],
        )
    return f"{artifact.name}=={artifact.version} --hash=sha256:{artifact.digest}"


def cluster(
    given: Settings, lock: EnvironmentLock | None, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Give the cluster for a step, with its image where it has one, and the login for that."""
    found = dict(given.new_cluster)
    if lock is None or lock.image is None:
        return found
    if "docker_image" in found:
        raise UsageError(
            "the project has a `docker_env`, and `new_cluster` has a `docker_image`",
            hints=["leave `docker_image` out: the image of the project is used"],
        )
    image = references.parse(lock.image.reference) if lock.image.manifest else None
    if image is None:
        raise Unsupported(
            f"the image `{lock.image.reference}` is in no registry from which a cluster gets it",
            hints=["push it, name it in `docker_env` as `image:`, and lock again"],
        )
    wanted: dict[str, Any] = {"url": f"{image.name}@{lock.image.manifest}"}
    login = logins.of(image.registry, environ)
    if login and login.password:
        wanted["basic_auth"] = {"username": login.name, "password": login.password}
    return {**found, "docker_image": wanted}

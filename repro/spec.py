"""A project as frozen values: what an MLproject says, after decoding, with nothing to check."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAIN = "main"
SCRIPTS = (".py", ".sh", ".R")


class Parameter(Value):
    """One declared parameter of an entry point.

    `type` is the word in the file; only `path`, `uri`, `float`, `int`, `number` and `bool` (with
    their long forms) mean something. `default` is the text that reaches the command, or None for
    a required parameter. `optional` and `flag` are ours: an optional parameter without a value
    expands to nothing, a flag to its name or to nothing.
    """

    name: str
    type: str = "string"
    default: str | None = None
    description: str = ""
    choices: tuple[str, ...] = ()
    minimum: str = ""
    maximum: str = ""
    optional: bool = False
    flag: bool = False
    secret: bool = False
    line: int = 0


class Mount(Value):
    """A host path that a step may read: part of the key by content or by a declared version."""

    source: str
    target: str = ""
    version: str = ""


class Need(Value):
    """Another entry point whose outputs come first."""

    step: str
    parameters: Mapping[str, str] = {}


class Resources(Value):
    """What a step asks of a machine: processors, bytes of memory, accelerators; 0 is unsaid."""

    cpus: int = 0
    memory: int = 0
    gpus: int = 0


class Compare(Value):
    """How `verify` compares the outputs that `pattern` matches."""

    pattern: str
    rule: str = "exact"
    rtol: str = ""
    atol: str = ""


class PythonEnvironment(Value):
    """A virtual environment to make: the request, not the lock.

    `python` is a version or a prefix of one, empty for the running interpreter's. `requirements`
    and `build_requirements` are single PEP 508 lines, with `-r` files already followed.
    `options` are index options found in them. `directories` are local packages, relative to the
    project, each with the digest of its files; `archives` are local wheels and the like among the
    requirements, each with its SHA-256. `uv_project` is the folder of the `pyproject.toml` that
    `uv_env` names, `.` for the project's own; `pinned` are files that say which versions to take,
    `uv.lock` and hashed requirement files, each with its SHA-256. `source` is where the request
    stands, for messages.
    """

    python: str = ""
    build_requirements: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    directories: tuple[tuple[str, str], ...] = ()
    archives: tuple[tuple[str, str], ...] = ()
    uv_project: str = ""
    pinned: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def is_bound(self) -> bool:
        """Say whether it takes anything from the project's own files."""
        local = any("://" not in option for option in self.options if " " in option)
        return bool(self.directories or self.archives or self.uv_project or self.pinned or local)


class CondaEnvironment(Value):
    """A conda environment file: as its text, and as what it asks for.

    `channels` are as written. `packages` are the conda dependencies, MatchSpecs as written.
    `python` is what a virtual environment can take of the file: its Python version and its
    `pip:` part; None where the file cannot be read. `dropped` are the conda packages that a
    virtual environment leaves out. `variables` are set in the environment.
    """

    file: str
    text: str = ""
    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    python: PythonEnvironment | None = None
    dropped: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


class DockerEnvironment(Value):
    """An image to run in, with MLflow's volumes and environment.

    `dockerfile` is built in the project folder; `context` is the digest of the files that the
    build can see, empty without a build.
    """

    image: str = ""
    dockerfile: str = ""
    context: str = ""
    volumes: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()


class OtherEnvironment(Value):
    """An environment key that repro knows by name and cannot make, such as `renv_env`."""

    key: str
    value: str = ""


if TYPE_CHECKING:
    Environment = PythonEnvironment | CondaEnvironment | DockerEnvironment | OtherEnvironment


class EntryPoint(Value):
    """One step of a project, as declared; defaults mean what MLflow does.

    `inputs` and `outputs` are globs relative to the project folder; None means undeclared: every
    file of the tree, and everything that was made or changed. `backend` is where it runs unless
    the call says so, empty for no wish. `spark` is that of the project, for a step that is
    prepared.
    """

    name: str
    command: str
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    needs: tuple[Need, ...] = ()
    metrics: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    pass_env: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    network: bool = True
    mounts: tuple[Mount, ...] = ()
    sandbox: str = ""
    shell: str = ""
    cache: bool = True
    timeout_ms: int = 0
    retries: int = 0
    resources: Resources = Resources()
    compare: tuple[Compare, ...] = ()
    environment: Environment | None = None
    backend: str = ""
    spark: SparkJob | None = None
    line: int = 0
    command_line: int = 0


class SparkJob(Value):
    """A `databricks_spark_job` project: it runs on Databricks alone."""

    python_file: str = ""
    parameters: tuple[str, ...] = ()
    python_libraries: tuple[str, ...] = ()


class Project(Value):
    """A whole project. `file` is the name of its MLproject file, empty where there is none.

    `lockfiles` are the lock files beside it: their paths with the SHA-256 of their content.
    """

    name: str = ""
    file: str = ""
    lockfiles: Mapping[str, str] = {}
    entry_points: tuple[EntryPoint, ...] = ()
    environment: Environment | None = None
    spark_job: SparkJob | None = None
    other: Mapping[str, str] = {}

    def entry_point(self, name: str) -> EntryPoint | None:
        """Give the declared entry point of that name."""
        return next((e for e in self.entry_points if e.name == name), None)


def installs_itself(project: Project) -> bool:
    """Say whether an environment of the project holds something of the project's own files."""
    wanted = [project.environment, *(entry.environment for entry in project.entry_points)]
    pythons = [e.python if isinstance(e, CondaEnvironment) else e for e in wanted]
    if any(isinstance(e, DockerEnvironment) and e.dockerfile for e in wanted):
        return True
    return any(isinstance(e, PythonEnvironment) and e.is_bound for e in pythons)


CLASSES = {
    c.__name__: c
    for c in (
        Parameter,
        Mount,
        Need,
        Resources,
        Compare,
        PythonEnvironment,
        CondaEnvironment,
        DockerEnvironment,
        OtherEnvironment,
        EntryPoint,
        SparkJob,
        Project,
    )
}

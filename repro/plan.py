"""From a project and a request to the one step that is asked for, by MLflow's rules."""

from __future__ import annotations

from repro import params
from repro.errors import EntryPointUnknown, Unsupported, UsageError
from repro.spec import (
    MAIN,
    SCRIPTS,
    CondaEnvironment,
    DockerEnvironment,
    EntryPoint,
    OtherEnvironment,
    PythonEnvironment,
)
from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from repro.spec import Environment, Project

MANAGERS = ("local", "virtualenv", "uv", "conda")
LOCAL = "local"
BACKENDS = (LOCAL, "docker", "slurm", "kubernetes", "databricks")
"""Those of our own. Other packages may bring more."""
CONFINED = (LOCAL, "docker", "kubernetes")
"""Backends that keep a step apart from the machine it runs on."""
PLAIN = (LOCAL, "docker")
"""Backends without settings."""
BLOCKING = (LOCAL, "docker")
"""Backends that can take the network away from a step."""
IMAGES = ("docker", "kubernetes")
"""Backends that run every environment as an image."""
LASTING = ("docker", "slurm", "kubernetes", "databricks")
"""Backends whose jobs go on when the process that submitted them is gone."""
LEVELS = ("none", "mounts", "hermetic")
"""Of the sandbox, from the loosest to the strictest."""


class Request(Value):
    """What a user asks for, in MLflow's words.

    `parameters` are raw. `env_manager` is empty for the project's own kind. `use_results` and
    `keep_result` are the two halves of caching: reading and writing. `locking` says what becomes
    of a lock that is out of date, as in `repro.locking`. `container` are options of the container
    engine, by name; None stands for a flag. `trace` asks for a list of what the step
    reads without saying so. `stand_ins` are (path, text): what stands in the key
    for paths in parameters that are others each time. `output` is a folder for the outputs, empty
    for the project's own. `caller` is the folder that relative paths of the user start from.
    `backend` is where all steps run, empty for where the project says; `backends` are others for
    some of them, by entry point. With `build_image`, the files of a step are in its image too.
    `config` are the settings of the backend, and `configs` those of
    several, by name.
    """

    uri: str
    entry_point: str = MAIN
    version: str = ""
    parameters: Mapping[str, Any] = {}
    env_manager: str = ""
    backend: str = ""
    backends: Mapping[str, str] = {}
    use_results: bool = True
    keep_result: bool = True
    output: str = ""
    caller: str = ""
    storage: str = ""
    sandbox: str = ""
    run_id: str = ""
    run_name: str = ""
    experiment_name: str = ""
    experiment_id: str = ""
    parent_run: str = ""
    timeout_ms: int = 0
    locking: str = ""
    container: Mapping[str, str | None] = {}
    config: Any = None
    configs: Mapping[str, Any] = {}
    build_image: bool = False
    trace: bool = False
    stand_ins: tuple[tuple[str, str], ...] = ()


class Course(Value):
    """How the steps of a run are gone through.

    `jobs` is how many may be executed at once. With `keep_going`, a failure stops only what needs
    the failed step. `again` are steps that are executed whatever results there are, with all
    that comes after them.
    """

    jobs: int = 1
    keep_going: bool = False
    again: tuple[str, ...] = ()


def entry_point(project: Project, name: str, shell: str) -> EntryPoint:
    """Give the entry point of that name, or the script that it names.

    As MLflow: an undeclared name with a known extension is run by `python`, the caller's `shell`
    or Rscript, and `main` is the `python_file` of a `databricks_spark_job`. Raises
    EntryPointUnknown with what there is.
    """
    found = project.entry_point(name)
    if found is not None:
        return found
    spark = project.spark_job
    if spark is not None and spark.python_file and name == MAIN:
        words = " ".join(map(_verbatim, (spark.python_file, *spark.parameters)))
        return EntryPoint(name=name, command=f"python {words}")
    quoted = _verbatim(name)
    if name.endswith(".py"):
        return EntryPoint(name=name, command=f"python {quoted}")
    if name.endswith(".sh"):
        return EntryPoint(name=name, command=f"{params.quote(shell or 'bash')} {quoted}")
    if name.endswith(".R"):
        inside = f"mlflow::mlflow_source('{quoted}')"
        return EntryPoint(name=name, command=f'Rscript -e "{inside}" --args')
    raise _unknown(project, name)


def _verbatim(word: str) -> str:
    """Quote a word for a command in which nothing of it stands for a parameter."""
    return params.quote(word).replace("{", "{{").replace("}", "}}")


def heeded(request: Request, project: Project) -> tuple[Request, tuple[str, ...]]:
    """Give a request without what means nothing to a project, and warnings of that.

    As MLflow: the `python_file` of a `databricks_spark_job` is all that such a project runs.
    """
    spark = project.spark_job
    asked = (request.entry_point, dict(request.parameters))
    if spark is None or not spark.python_file or asked == (MAIN, {}):
        return request, ()
    heeded = replace(request, entry_point=MAIN, parameters={})
    text = f"the project runs `{spark.python_file}` with parameters of its own"
    return heeded, (f"{text}: entry points and parameters that are asked for are ignored",)


def on_spark(project: Project, entry: EntryPoint) -> EntryPoint:
    """Give an entry point as it runs in its project: where that is on Spark, it is never reused.

    The cluster, and the tables that it reaches, are in no key.
    """
    if project.spark_job is None:
        return entry
    return replace(entry, spark=project.spark_job, cache=False)


def uncached(entry: EntryPoint) -> str:
    """Say why no result of an entry point is ever reused, where that is so."""
    if entry.spark is not None:
        return "it runs on Spark, whose cluster and tables are in no key"
    return "" if entry.cache else "`cache: false` is declared"


def _unknown(project: Project, name: str) -> EntryPointUnknown:
    names = [e.name for e in project.entry_points]
    where = f"`{project.file}`" if project.file else "a project without an MLproject file"
    hints = []
    if names:
        hints.append("entry points: " + "; ".join(signature(e) for e in project.entry_points[:5]))
        close = [n for n in names if n.lower() == name.lower() or n.startswith(name)]
        if close:
            hints.insert(0, f"a similar entry point exists: `{close[0]}`")
    hints.append(f"a script is named with its extension, one of {', '.join(SCRIPTS)}")
    return EntryPointUnknown(f"no entry point `{name}` in {where}", hints=hints)


def signature(entry: EntryPoint) -> str:
    """Show an entry point with its parameters in one line."""
    shown = ", ".join(
        p.name
        if p.default is None and not p.optional and not p.flag
        else f"{p.name}={p.default or ''}"
        for p in entry.parameters
    )
    return f"{entry.name}({shown})"


def environment(project: Project, entry: EntryPoint, manager: str) -> Environment | None:
    """Choose the environment of a step; None stands for the caller's own.

    `manager` overrules the kind where MLflow lets it. Raises UsageError for combinations that
    make no sense and Unsupported for kinds that are not there.
    """
    if manager and manager not in MANAGERS:
        raise UsageError(
            f"no environment manager `{manager}`", hints=[f"choose one of {', '.join(MANAGERS)}"]
        )
    if project.spark_job is not None:
        return None  # that of the cluster
    wanted = entry.environment or project.environment or PythonEnvironment()
    if isinstance(wanted, DockerEnvironment):
        return wanted  # as MLflow: an image is not another kind of the same environment
    if manager == "local":
        return None
    if isinstance(wanted, PythonEnvironment) and manager == "conda":
        raise UsageError(
            "a python_env project cannot be run with conda",
            hints=["leave `--env-manager` out, or use `virtualenv` or `uv`"],
        )
    if isinstance(wanted, OtherEnvironment):
        raise Unsupported(
            f"the project asks for `{wanted.key}`, an environment that repro cannot make",
            hints=["give it a `python_env`, or run it in your own with `--env-manager local`"],
        )
    if isinstance(wanted, CondaEnvironment) and (
        wanted.python is None or manager in ("virtualenv", "uv")
    ):
        if wanted.python is None:
            from repro import condafile

            condafile.check(wanted)  # raises ProjectInvalid, with every mistake and its place
            raise UsageError(f"`{wanted.file}` is no conda environment that can be read")
        return wanted.python
    return wanted


def backend(request: Request, entry: EntryPoint, wanted: Environment | None) -> str:
    """Name the backend that runs a step: an image needs docker, as `local` does in MLflow."""
    name = _asked(request, entry)
    return "docker" if name == LOCAL and isinstance(wanted, DockerEnvironment) else name


def _asked(request: Request, entry: EntryPoint) -> str:
    return request.backends.get(entry.name) or request.backend or entry.backend or LOCAL


def foreign(request: Request, entries: Sequence[EntryPoint]) -> tuple[str, ...]:
    """Name the backends of a run that are not ours.

    Raises UsageError where a backend is given for what is no step of the run.
    """
    if request.backends:
        names = [entry.name for entry in entries]
        unknown = sorted(request.backends.keys() - set(names))
        if unknown:
            raise UsageError(
                f"a backend is given for `{unknown[0]}`, which is no step of this run",
                hints=[f"its steps: {', '.join(names)}"],
            )
    wanted = dict.fromkeys(_asked(request, entry) for entry in entries)
    return tuple(name for name in wanted if name not in BACKENDS)


def settings(request: Request, name: str) -> Any:
    """Give the settings of a backend, None where none were given."""
    general = None if name in PLAIN else request.config
    return request.configs.get(name, general)


def check(request: Request, project: Project, entry: EntryPoint) -> None:
    """Refuse what cannot be done, before anything is fetched, made or recorded."""
    asked = _asked(request, entry)
    if request.configs.get("docker") or (request.config and request.backend == "docker"):
        raise UsageError(
            "the docker backend has no settings",
            hints=["options of `docker run` are given with `--docker-args`"],
        )
    has_image = isinstance(entry.environment or project.environment, DockerEnvironment)
    if request.container and not has_image and asked != "docker":
        raise UsageError(
            "options for docker were given, and the project has no `docker_env`",
            hints=["leave out `--docker-args`", "or run it in a container with `-b docker`"],
        )
    if request.build_image and not has_image and asked not in IMAGES:
        raise UsageError(
            "an image with the project was asked for, and the project has no `docker_env`",
            hints=["leave out `--build-image`", "or run it in a container with `-b docker`"],
        )
    if project.spark_job is not None and asked != "databricks":
        raise Unsupported(
            "a databricks_spark_job project runs on Databricks only",
            hints=["say `-b databricks`, with the settings of a cluster"],
        )
    if project.spark_job is not None and entry.environment is not None:
        raise Unsupported(
            f"`{entry.name}` has an environment, and a databricks_spark_job has its cluster's",
            hints=["name its packages as `python_libraries`"],
        )
    if request.experiment_name and request.experiment_id:
        raise UsageError("give either an experiment name or an experiment id, not both")


def check_sandbox(name: str, asked: str) -> None:
    """Refuse a level of the sandbox that a backend does not have."""
    if name not in CONFINED and asked not in ("", "none"):
        raise Unsupported(
            f"the backend `{name}` has no sandbox, and the level `{asked}` is asked for",
            hints=["say `--sandbox none`"],
        )
    if name not in BLOCKING and asked == "hermetic":
        raise Unsupported(
            f"the backend `{name}` cannot take the network away from a step",
            hints=["say `--sandbox mounts`"],
        )


def environment_variables(wanted: Environment | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that an environment sets for its steps.

    As MLflow, docker's are pairs, or names whose values are the caller's. Raises UsageError for a
    name that is not set.
    """
    if isinstance(wanted, CondaEnvironment):
        return dict(wanted.variables)
    if not isinstance(wanted, DockerEnvironment):
        return {}
    missing = [name for name, text in wanted.environment if text is None and name not in environ]
    if missing:
        raise UsageError(
            f"docker_env passes on the variable `{missing[0]}`, which is not set",
            hints=[f'set it, or give it a value: `- ["{missing[0]}", "..."]`'],
        )
    return {name: environ[name] if text is None else text for name, text in wanted.environment}


def volumes(wanted: Environment | None) -> tuple[tuple[str, str, str], ...]:
    """Give the volumes of a docker_env as (path here, path inside, `ro` or `rw`).

    Raises UsageError for one that is not `PATH:PATH` or `PATH:PATH:MODE`.
    """
    found = []
    for text in wanted.volumes if isinstance(wanted, DockerEnvironment) else ():
        host, _, rest = text.partition(":")
        inside, _, mode = rest.partition(":")
        if not host or not inside.startswith("/") or mode not in ("", "ro", "rw"):
            raise UsageError(
                f"docker_env: the volume `{text}` is not `PATH:PATH`, with `:ro` or `:rw`",
                hints=["write `- /data/here:/data/inside:ro`"],
            )
        found.append((host, inside, mode or "rw"))
    return tuple(found)


def variables(
    entry: EntryPoint, environ: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give the declared variables of a step, and those to pass that the caller has not set.

    Unset and empty are different things to a program, so they are in the key as such. Raises
    UsageError for a declared secret that is not set.
    """
    missing = [name for name in entry.secrets if name not in environ]
    if missing:
        raise UsageError(
            f"entry point `{entry.name}` needs the secret `{missing[0]}`, which is not set",
            hints=[f"set it, for example with `read -rs {missing[0]}; export {missing[0]}`"],
        )
    given = {name: environ[name] for name in entry.pass_env if name in environ}
    unset = tuple(sorted(name for name in entry.pass_env if name not in environ))
    return {**given, **entry.env}, unset

"""E: whether a step runs in its environment as it was locked, and in nothing else."""

from __future__ import annotations

import re

from repro import params
from repro.audit.rules import places
from repro.audit.rules.demands import literal
from repro.audit.rules.rule import Hit
from repro.errors import Where
from repro.spec import OtherEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts

START = r"(?:^|[\s;&|(`\"'/])"
INSTALL = re.compile(
    START + r"((?:uv )?pip[0-9.]* (?:install|uninstall|sync)|uv (?:sync|add|remove)|"
    r"(?:conda|mamba|micromamba) (?:install|update|create|env (?:create|update))|"
    r"(?:poetry|pipenv|pixi|npm|brew) (?:install|add|update)|easy_install|"
    r"apt(?:-get)? (?:-\w+ )*install|install\.packages)\b"
)
NESTED = re.compile(
    START + r"(dvc (?:repro|exp run)|mlflow run|snakemake|nextflow run|"
    r"repro run|guild run|metaflow|make|papermill|kedro run)(?![\w.=/-])"
)
VARIABLE = re.compile(r"([A-Za-z_]\w*)")
GIVEN = frozenset(
    [
        "MLFLOW_RUN_ID",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_ID",
        "HOME",
        "PATH",
        "TMPDIR",
        "PWD",
        "LC_ALL",
        "LANG",
        "TZ",
        "PYTHONHASHSEED",
        "SOURCE_DATE_EPOCH",
        "OLDPWD",
        "SHELL",
        "UID",
        "EUID",
        "PPID",
        "RANDOM",
        "SECONDS",
        "LINENO",
        "IFS",
        "BASHPID",
        "HOSTNAME",
        "OSTYPE",
        "BASH_SOURCE",
        "REPLY",
        "FUNCNAME",
        "PIPESTATUS",
        "CONDA_PREFIX",
        "VIRTUAL_ENV",
    ]
)


def installing(facts: Facts) -> Iterator[Hit]:
    """E01: a step changes its environment."""
    for entry in facts.project.entry_points:
        for found in sorted(set(INSTALL.findall(literal(entry.command)))):
            yield Hit(
                message=f"`{entry.name}` changes its environment: it calls `{found}`",
                where=places.command(facts, entry),
                subject=entry.name,
                fix="name the packages in the environment file, and lock them",
            )


def nested(facts: Facts) -> Iterator[Hit]:
    """E02: a step calls another workflow tool."""
    for entry in facts.project.entry_points:
        for found in sorted(set(NESTED.findall(literal(entry.command)))):
            yield Hit(
                message=f"`{entry.name}` calls `{found}`: what that reads and caches is not seen",
                where=places.command(facts, entry),
                subject=entry.name,
                fix="make its steps entry points, joined by `needs:`",
            )


def variables(facts: Facts) -> Iterator[Hit]:
    """E03: a command reads an undeclared variable."""
    for entry in facts.project.entry_points:
        declared = GIVEN.union(entry.env, entry.pass_env, entry.secrets)
        for name in used(literal(entry.command)):
            if name not in declared:
                yield Hit(
                    message=f"`{entry.name}` reads the variable `{name}`, which it does not "
                    "declare: its value is in no key",
                    where=places.command(facts, entry),
                    subject=f"{entry.name}.{name}",
                    fix=f"`pass_env: [{name}]`, or make it a parameter",
                )


def used(command: str) -> list[str]:
    """Give the variables that a shell would take from outside, in their order."""
    shell = params.Shell()
    found: dict[str, None] = {}
    for index, char in enumerate(command):
        if char == "$" and not shell.escaped and shell.frames[-1] not in ("single", "comment"):
            rest = command[index + 1 :].removeprefix("{").lstrip("#!")
            name = VARIABLE.match(rest)
            if name and not command.startswith("$(", index):
                found[name[1]] = None
        shell.feed(char)
    return [name for name in found if not _is_set(name, command)]


def _is_set(name: str, command: str) -> bool:
    patterns = rf"(?:^|[\s;&|(]){name}\+?=|\bfor {name}\b|\bread (?:-\w+ )*{name}\b"
    return re.search(patterns, command) is not None


def unmakable(facts: Facts) -> Iterator[Hit]:
    """E04: an environment cannot be made."""
    project = facts.project
    wanted = [project.environment, *(entry.environment for entry in project.entry_points)]
    for env in wanted:
        if isinstance(env, OtherEnvironment):
            yield Hit(
                message=f"`{env.key}` is a kind of environment that repro cannot make: "
                "steps run in whatever is there",
                where=places.find(facts, project.file, env.key) or Where(file=project.file),
                subject=env.key,
                fix="use `python_env`, `conda_env`, `docker_env` or `uv_env`",
            )


def altered(facts: Facts) -> Iterator[Hit]:
    """E05: a run changed its environment."""
    for step in facts.history or ():
        for what in step.altered or ():
            entry = facts.project.entry_point(step.step)
            yield Hit(
                message=f"the last run of `{step.step}` changed its environment: {what}",
                where=places.step(facts, entry) if entry else None,
                subject=step.step,
                fix="find what installs or writes there, and put it into the environment file",
                extra={"run": step.last_good},
            )

"""M: whether a project speaks of one machine only."""

from __future__ import annotations

import re

from repro.audit.rules import places
from repro.audit.rules.demands import literal
from repro.audit.rules.rule import Hit
from repro.spec import CondaEnvironment, DockerEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.facts import Facts
    from repro.errors import Where
    from repro.spec import EntryPoint

PATH = re.compile(
    r"(?<![\w./$}-])("
    r"/(?:home|Users|root|mnt|media|scratch|Volumes|workspace|content|kaggle|lustre|gpfs|nfs)"
    r"(?:/[^\s'\";:,&|)]*)?|[A-Za-z]:[\\/](?!/)[^\s'\";,&|)]*|~/[^\s'\";:,&|)]*|"
    r"\$\{?HOME\}?/[^\s'\";:,&|)]*)"
)
SYSTEM = ("/usr/", "/etc/ssl", "/etc/localtime", "/dev/", "/var/run/docker.sock")
BUILD = re.compile(r"[^=\s<>!~]+=[^=\s]+=[^=\s]+")
ADVICE = "make it a parameter of type `path`, or keep the file in the project"


def paths(facts: Facts) -> Iterator[Hit]:
    """M01: a path of one machine."""
    for entry in facts.project.entry_points:
        if isinstance(entry.environment or facts.project.environment, DockerEnvironment):
            continue  # such paths are those of the image
        for found in dict.fromkeys(PATH.findall(literal(entry.command))):
            yield Hit(
                message=f"the command of `{entry.name}` names `{found}`, a path of one machine",
                where=places.command(facts, entry),
                subject=entry.name,
                fix=ADVICE,
            )
        yield from _defaults(facts, entry)


def _defaults(facts: Facts, entry: EntryPoint) -> Iterator[Hit]:
    for one in entry.parameters:
        found = PATH.match(one.default or "")
        if found and not one.secret:
            yield Hit(
                message=f"the default of `{one.name}` is `{found[1]}`, a path of one machine",
                where=places.parameter(facts, one),
                subject=f"{entry.name}.{one.name}",
                fix="remove the default, or keep the file in the project",
            )


def mounts(facts: Facts) -> Iterator[Hit]:
    """M02: a mount of one machine."""
    for entry in facts.project.entry_points:
        for mount in entry.mounts:
            if _is_personal(mount.source):
                yield _mount(entry.name, mount.source, places.step(facts, entry))
    for env in facts.environments:
        for volume in env.request.volumes if isinstance(env.request, DockerEnvironment) else ():
            source = volume.split(":", 1)[0]
            if _is_personal(source):
                where = places.requested(facts, env, volume)
                yield _mount(env.label or "docker_env", source, where)


def _is_personal(source: str) -> bool:
    return source.startswith(("/", "~")) and not source.startswith(SYSTEM)


def _mount(owner: str, source: str, where: Where) -> Hit:
    return Hit(
        message=f"`{owner}` mounts `{source}`, a path of one machine",
        where=where,
        subject=source,
        fix="mount a path relative to the project, or fetch the data by a parameter",
    )


def platform(facts: Facts) -> Iterator[Hit]:
    """M03: an environment file of one machine."""
    for env in facts.environments:
        request = env.request
        if not isinstance(request, CondaEnvironment):
            continue
        builds = [text for text in request.packages if BUILD.fullmatch(text.rpartition("::")[2])]
        prefix = re.search(r"^prefix:.*$", request.text, re.MULTILINE)
        if builds:
            yield Hit(
                message=f"`{request.file}` names builds, such as `{builds[0]}` "
                f"({len(builds)} in all), which exist for one platform only",
                where=places.requested(facts, env, builds[0]),
                subject=request.file,
                fix="write versions without builds (`conda env export --from-history`), and lock",
            )
        elif prefix:
            yield Hit(
                message=f"`{request.file}` has a `prefix:`, a path of one machine",
                where=places.requested(facts, env, prefix[0]),
                subject=request.file,
                fix="remove the line",
            )

"""What a prepared step is for a backend: words, variables, files that it sees."""

from __future__ import annotations

import os

from repro import params, step
from repro.ports import Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.conditions import Room
    from repro.engine import Prepared
    from repro.ports import Confinement, Realized

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def job(
    prepared: Prepared,
    run_id: str,
    room: Room,
    realized: Realized,
    variables: Mapping[str, str],
    confinement: Confinement,
) -> Job:
    """Give the job of a step, complete; `variables` are all that its command gets."""
    return Job(
        run_id=run_id,
        argv=_argv(prepared.entry.shell, prepared.command),
        variables=variables,
        folder=room.work,
        timeout_ms=prepared.request.timeout_ms or prepared.entry.timeout_ms,
        base=room.base,
        image=realized.image,
        binds=_binds(prepared),
        container=tuple(prepared.request.container.items()),
        network=prepared.entry.network and prepared.sandbox != "hermetic",
        resources=prepared.entry.resources,
        confinement=confinement,
        lock=prepared.lock,
        labels={
            "project": prepared.source.name,
            "step": prepared.name,
            "key": prepared.key,
        },
        entry_point=prepared.entry.name,
        parameters={a.name: a.text for a in prepared.arguments if a.text is not None},
        spark=prepared.entry.spark,
    )


def variables(
    prepared: Prepared,
    run_id: str,
    room: Room,
    realized: Realized,
    tracking: Mapping[str, str],
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Give the variables of a command: ours, those of the environment, the declared, the secret.

    `tracking` are those of the receiver of MLflow calls, `environ` the caller's own, of which
    secrets are taken.
    """
    secrets = {name: environ[name] for name in prepared.entry.secrets}
    secrets |= {v: text for v, _name, text in params.secret_variables(prepared.arguments)}
    path = ":".join(realized.path)
    if prepared.lock.kind != "local":
        path = f"{path}:{PATH}" if path else PATH
    # an image knows best where its programs are
    paths = {} if realized.image else {"PATH": path or PATH}
    return {
        **step.SETTINGS,
        "HOME": room.home,
        "TMPDIR": room.temporary,
        **paths,
        **realized.variables,
        **tracking,
        **prepared.step.variables,
        **secrets,
        "REPRO_RUN_ID": run_id,
        "REPRO_KEY": prepared.key,
    }


def shown(prepared: Prepared) -> tuple[str, ...]:
    """Give the paths of this machine that a step may read: its mounts, and `path` parameters."""
    mounts = [os.path.expanduser(mount.source) for mount in prepared.entry.mounts]
    others = [path for path, _identity in prepared.host_paths if path not in mounts]
    return tuple(os.path.abspath(path) for path in (*mounts, *others))


def _binds(prepared: Prepared) -> tuple[tuple[str, str, str], ...]:
    """Give what a container sees of this machine beside the private folders of the step."""
    caller = prepared.request.caller or os.getcwd()
    volumes = [
        (os.path.abspath(os.path.join(caller, os.path.expanduser(host))), inside, mode)
        for host, inside, mode in prepared.volumes
    ]
    known = {host for host, _inside, _mode in volumes}
    others = [path for path in shown(prepared) if path not in known]
    return (*volumes, *((path, path, "ro") for path in others))


def _argv(shell: str, command: str) -> tuple[str, ...]:
    strict = ("-e", "-u", "-o", "pipefail") if shell == "strict" else ()
    return ("bash", *strict, "-c", command)

"""`repro env shell`: a shell, or one command, in an environment."""

from __future__ import annotations

import os
import sys

from repro import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.cli.options import Options
    from repro.machine import Machine

MISLEADING = ("VIRTUAL_ENV", "CONDA_", "MAMBA_", "PYENV_", "PYTHON", "PIP_", "UV_")
"""How variables begin that lead to another environment, or install into one."""

FIXED = {
    "PS1": r"(repro) \w \$ ",
    "PYTHONNOUSERSITE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
PLAIN = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}
"""How shells start without the files of a user, which would put other folders first on PATH."""


def execute(options: Options) -> int:
    """Become the command; does not return but to raise."""
    from repro.cli import session
    from repro.machine import Machine

    machine = Machine(os.environ, session.narrator(options))
    try:
        variables = _entered(machine, options)
    finally:
        machine.close()
    return _become(options.list("words") or _shell(), variables)


def _entered(machine: Machine, options: Options) -> dict[str, str]:
    """Make the environment if need be; give the variables of whoever is in it.

    Its lock stays open for the command, and is freed when that and all it starts have ended.
    """
    from repro.cli import target
    from repro.environments import cache

    progress = target.progress(options)
    found = target.find(machine, options, progress)
    if found.lock is None:
        raise found.not_made()
    realized = machine.supply.kind(found.lock.kind, found.tree).realize(found.lock, progress)
    try:
        if not realized.prefix:
            raise errors.UsageError(
                "the environment is an image, and no folder on this machine",
                hints=[f"`docker run -it {realized.image}` starts a shell in it"],
            )
        held = cache.Place(machine.home.root, found.digest).lock(shared=True)
        held.take()
        os.set_inheritable(held.fd, True)  # noqa: FBT003  (its only argument)
        return _variables(realized.variables, realized.path)
    finally:
        realized.release()


def _variables(given: Mapping[str, str], path: Iterable[str]) -> dict[str, str]:
    from repro.jobs import PATH  # the folders of the system, as every step has them

    kept = {n: v for n, v in os.environ.items() if not n.startswith(MISLEADING)}
    return {**kept, **FIXED, **given, "PATH": os.pathsep.join((*path, PATH))}


def _shell() -> list[str]:
    shell = os.environ.get("SHELL") or "/bin/sh"
    return [shell, *PLAIN.get(os.path.basename(shell), ())]


def _become(argv: list[str], variables: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(argv[0], argv, variables)  # noqa: S606  (the user's own command)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise errors.UsageError(f"`{argv[0]}` cannot be started: {reason}") from None

"""A Python from a conda channel, where a machine has none of the version that is asked for."""

from __future__ import annotations

import os

from repro.environments.conda.adapter import Conda, CondaPrefix, here
from repro.errors import EnvironmentFailed, LockInvalid
from repro.lockfiles import condalock
from repro.ports import LockRequest
from repro.spec import CondaEnvironment, PythonEnvironment
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.lock import EnvironmentLock
    from repro.ports import Progress

CHANNEL = "REPRO_PYTHON_CHANNEL"
_in_use: list[CondaPrefix] = []
"""What this process has taken a Python from: it must not be removed meanwhile."""


def python_from_channel(
    home: str, environ: Mapping[str, str], version: str, progress: Progress
) -> str:
    """Give the path of a Python of `version` from the channel that `REPRO_PYTHON_CHANNEL` names.

    It is locked once, so that the same one is given ever after, also offline. Empty where the
    variable is not set. Raises EnvironmentFailed or Unreachable.
    """
    channel = environ.get(CHANNEL, "")
    if not channel:
        return ""
    conda = Conda(home, environ)
    text = f"channels: ['{channel}']\ndependencies: ['python={version}']\n"
    wanted = CondaEnvironment(
        file=CHANNEL,
        text=text,
        channels=(channel,),
        packages=(f"python={version}",),
        python=PythonEnvironment(),
    )
    path = os.path.join(home, "memo", f"python-{version}-{here()}.yml")
    lock = _known(path)
    if lock is None or conda.unmet(wanted, lock):
        (lock,) = conda.lock(LockRequest(environment=wanted), progress)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.replace(path, condalock.encode((lock,), {}), durable=False)
    found = conda.realize(lock, progress)
    _in_use.append(found)
    python = os.path.join(found.prefix, "bin", "python")
    if not os.access(python, os.X_OK):
        raise EnvironmentFailed(f"the python {version} of `{channel}` has no `bin/python`")
    return python


def _known(path: str) -> EnvironmentLock | None:
    data = files.read(path)
    try:
        return condalock.decode(path, data).locks[0] if data else None
    except (LockInvalid, IndexError):
        return None

"""Locks made by an installed `conda-lock`, with the conda or mamba that it finds."""

from __future__ import annotations

import os
import shutil
import sys

from repro import condafile
from repro.environments.conda.adapter import Conda, here
from repro.environments.tools import session
from repro.errors import EnvironmentFailed, Unsupported
from repro.lockfiles import condalock
from repro.spec import CondaEnvironment
from repro.system import files
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.lock import EnvironmentLock
    from repro.ports import LockRequest, Progress

NAME = "conda-lock"
OUTPUT = "conda-lock.yml"


class CondaLock(Conda):
    """Conda environments whose locks `conda-lock` makes; what was locked is made as ever.

    Its own variables hold, such as `CONDA_LOCK_CONDA`, the conda to solve with. It always solves
    anew: what an earlier lock says is not kept.
    """

    def lock(self, request: LockRequest, progress: Progress) -> tuple[EnvironmentLock, ...]:
        """Let `conda-lock` solve a request; give the locks in the order of the platforms.

        Raises ProjectInvalid for a file that is wrong, EnvironmentFailed with the reason of the
        tool, or Unsupported for a date, which it knows nothing of.
        """
        wanted = request.environment
        if not isinstance(wanted, CondaEnvironment):
            raise Unsupported("this environment is no conda environment")
        if request.exclude_newer:
            raise Unsupported(
                "conda-lock cannot leave out packages that are newer than a date",
                hints=["lock without `--engine conda-lock`, which can"],
            )
        condafile.check(wanted)
        binary = self._binary()
        names = request.platforms or (here(),)
        progress(f"{NAME} is solving for {', '.join(names)}")
        failure = f"{NAME} cannot resolve the packages of `{wanted.file}`"
        try:
            with session(self._home, self._environ, failure) as work:
                asked = work.write_lines("environment.yml", [wanted.text])
                chosen = [word for name in names for word in ("--platform", name)]
                written = os.path.join(work.folder, OUTPUT)
                work.run(binary, "lock", "--file", asked, "--lockfile", written, *chosen)
                version = work.run(binary, "--version").rpartition(" ")[2].strip()
                found = condalock.decode(OUTPUT, files.read(written) or b"").locks
        except OSError as error:
            raise files.explained(error, "resolving packages") from None
        made = {lock.platform: replace(lock, tool=f"{NAME} {version}") for lock in found}
        return tuple(made[name] for name in names)

    def _binary(self) -> str:
        named = self._environ.get("REPRO_CONDA_LOCK", "")
        beside = os.path.join(os.path.dirname(sys.executable), NAME)
        found = named or shutil.which(beside)
        found = found or shutil.which(NAME, path=self._environ.get("PATH", ""))
        if not found:
            raise EnvironmentFailed(
                f"`{NAME}` is not here",
                hints=[
                    f"`pip install {NAME}`, and conda or mamba beside it",
                    "or set `REPRO_CONDA_LOCK` to its path",
                    "or lock without `--engine conda-lock`: repro solves by itself",
                ],
            )
        return found

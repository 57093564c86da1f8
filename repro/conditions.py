"""What may be other in one execution of a step than in an ordinary one, without another key."""

from __future__ import annotations

from repro.value import Value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro.ports import Job

VARIATIONS = {
    "path": "the folder that the step runs in",
    "home": "the home folder, and that of temporary files",
    "user": "the user id",
    "umask": "the mode of new files",
    "timezone": "the time zone",
    "locale": "the locale",
    "hashseed": "the seed of Python's hashes: the order of sets",
    "cpus": "the number of processors",
    "threads": "the number of threads of numerical libraries",
    "fileorder": "the order in which a folder lists its files",
    "environment": "the order of the environment variables",
    "hostname": "the name of the machine",
    "clock": "the date and the time",
}
"""What `verify --vary` can change, one at a time, in the order in which it does."""


class Room(Value):
    """The folders of one execution, all below the private folder of this process."""

    base: str
    names: tuple[str, str, str] = ("work", "home", "tmp")

    @property
    def work(self) -> str:
        """Give the folder that the command runs in: exactly its inputs, at first."""
        return f"{self.base}/{self.names[0]}"

    @property
    def home(self) -> str:
        """Give the command's home."""
        return f"{self.base}/{self.names[1]}"

    @property
    def temporary(self) -> str:
        """Give the command's folder for temporary files."""
        return f"{self.base}/{self.names[2]}"

    @property
    def tracking(self) -> str:
        """Give the folder for what the command logs through MLflow."""
        return f"{self.base}/tracking"


class Conditions(Value):
    """The circumstances of one execution. The default is an ordinary one.

    `base` is the private folder, empty for one named after the run; `names` are those of the
    work tree, the home and the temporary files in it. `starter` is as in `ports.Job`, `preface` is
    shell text at the beginning of the command, which must end with `;`. `variables` are set after
    all others. What is `backwards` is done in the opposite order: `files` are made,
    `variables` are handed over.
    """

    base: str = ""
    names: tuple[str, str, str] = ("work", "home", "tmp")
    starter: tuple[str, ...] = ()
    preface: str = ""
    variables: Mapping[str, str] = {}
    backwards: tuple[str, ...] = ()
    timeout_ms: int = 0

    def room(self, scratch: str, run_id: str) -> Room:
        """Give the folders of an execution, below the private folder of this process."""
        return Room(base=self.base or f"{scratch}/{run_id[:16]}", names=self.names)


def applied(job: Job, conditions: Conditions) -> Job:
    """Give a job under other conditions, as far as they are not a matter of its folders."""
    variables = {**job.variables, **conditions.variables}
    if "variables" in conditions.backwards:
        variables = dict(reversed(variables.items()))
    *words, command = job.argv
    limits = [limit for limit in (job.timeout_ms, conditions.timeout_ms) if limit]
    return replace(
        job,
        argv=(*words, conditions.preface + command),
        starter=conditions.starter,
        variables=variables,
        timeout_ms=min(limits, default=0),
    )

"""Shows every run on a tracking server without ever letting the server decide over a run."""

from __future__ import annotations

import os
import shutil

from repro.errors import Unreachable
from repro.events import Progress, Warned
from repro.system import files
from repro.tracking import outbox
from repro.tracking.mirror import Mirror
from repro.tracking.server import Refusal
from repro.value import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.events import Emit
    from repro.ports import Tracked
    from repro.record import RunRecord


class Relay:
    """A tracking server for our runs, and the outbox for when it is down."""

    def __init__(
        self,
        uri: str,
        environ: Mapping[str, str],
        folder: str,
        served: dict[str, str] | None = None,
    ) -> None:
        """Name the server and the folder of the outbox. Raises UsageError for a bad address.

        `served` are the ids that runs of ours have there, of those that other relays began too.
        """
        self.served = {} if served is None else served
        self.mirror = Mirror(uri, environ=environ)
        self.folder = folder
        self.environ = environ

    def check(self) -> None:
        """Ask the server whether it is there. Raises Unreachable."""
        self.mirror.check()

    def begin(self, record: RunRecord, emit: Emit) -> RunRecord:
        """Create the run there before it starts; first send what is left from earlier.

        Raises Unreachable when the server is down: nothing has started then.
        """
        self.mirror.check()
        delivered, _left = outbox.deliver(self.folder, self.mirror)
        if delivered:
            earlier = f"{delivered} earlier run{'s' * (delivered > 1)}"
            text = f"sent {earlier} to `{self.mirror.name}`"
            emit(Progress(step=record.entry_point, text=text))
        experiment_id, name = self._experiment(record)
        run_id = self.mirror.begin(self._run(record, experiment_id))
        self.served[record.run_id] = run_id
        tracking = {
            "server": self.mirror.name,
            "run_id": run_id,
            "experiment_id": experiment_id,
        }
        return replace(record, experiment=name, tracking=tracking)

    def finish(self, record: RunRecord, tracked: Tracked, emit: Emit) -> RunRecord:
        """Write what was logged and the final status, now or, if the server is gone, later."""
        if "run_id" not in record.tracking:
            return record
        ended_ms = record.ended_ns // 1_000_000
        try:
            self.mirror.finish(record.tracking["run_id"], record.status, tracked, ended_ms)
        except Unreachable as error:
            hint = self._postponed(record, tracked, ended_ms, error)
            text = f"the tracking server does not show this run whole: {error.message}"
            emit(Warned(step=record.entry_point, text=text, hint=hint))
        return record

    def deliver(self) -> tuple[int, int]:
        """Send what is kept; give how many runs were sent and how many are left."""
        self.mirror.check()
        return outbox.deliver(self.folder, self.mirror)

    def _postponed(
        self, record: RunRecord, tracked: Tracked, ended_ms: int, error: Unreachable
    ) -> str:
        """Keep what did not get there, unless it never will; say what becomes of it."""
        if isinstance(error, Refusal) and error.reason:
            return error.hints[0]
        try:
            self._keep(record, tracked, ended_ms)
        except (Unreachable, OSError) as problem:
            self._drop(record.run_id)
            return f"the run cannot be kept for later either: {problem}"
        return "the run is kept and sent with the next one, or by `repro log --deliver`"

    def _keep(self, record: RunRecord, tracked: Tracked, ended_ms: int) -> None:
        run = self._run(record, record.tracking["experiment_id"])
        children = tuple(
            replace(child, artifacts=self._copied(child.artifacts, f"{record.run_id}-{number}"))
            for number, child in enumerate(tracked.children)
        )
        artifacts = self._copied(tracked.artifacts, record.run_id)
        tracked = replace(tracked, artifacts=artifacts, children=children)
        outbox.keep(
            self.folder,
            outbox.Pending(
                server=self.mirror.name,
                run=run,
                status=record.status,
                tracked=tracked,
                ended_ms=ended_ms,
                run_id=record.tracking["run_id"],
            ),
        )

    def _copied(self, folder: str, name: str) -> str:
        """Copy logged files into the outbox: the folders of a run go when the run ends."""
        if not folder or not os.path.isdir(folder):
            return ""
        kept = os.path.join(self.folder, f"{name}-files")
        shutil.copytree(folder, kept, symlinks=True, dirs_exist_ok=True)
        return kept

    def _drop(self, run_id: str) -> None:
        """Remove the files of a run that could not be kept whole."""
        for name in os.listdir(self.folder) if os.path.isdir(self.folder) else ():
            if name.startswith(run_id):
                files.remove_tree(os.path.join(self.folder, name))

    def _experiment(self, record: RunRecord) -> tuple[str, str]:
        """Choose as MLflow does: what the call says, then the variables, a name before an id."""
        name, experiment_id = record.experiment, record.tracking.get("experiment_id", "")
        if not (name or experiment_id):
            name = self.environ.get("MLFLOW_EXPERIMENT_NAME", "")
            experiment_id = "" if name else self.environ.get("MLFLOW_EXPERIMENT_ID", "")
        return self.mirror.experiment(name, experiment_id)

    def _run(self, record: RunRecord, experiment_id: str) -> dict[str, Any]:
        tags = {
            "repro.key": record.key,
            "repro.cache": "hit" if record.cached else "miss",
            "repro.environment": record.environment,
        }
        if record.origin_run:
            tags["repro.origin_run"] = record.origin_run
        if record.dirty:
            tags["mlflow.source.git.dirty"] = "true"
        return {
            "id": record.run_id,
            "experiment_id": experiment_id,
            "name": record.run_name,
            "user": _user(),
            "started_ms": record.started_ns // 1_000_000,
            "parameters": {name: text for name, text, _origin in record.parameters},
            "source": record.project,
            "entry_point": record.entry_point,
            "commit": record.commit,
            "repository": record.repo_url,
            "branch": record.branch if record.version else "",
            "parent": self.served.get(record.parent_run, record.parent_run),
            "environment": {"python": "virtualenv"}.get(record.environment_kind, ""),
            "backend": record.backend,
            "tags": tags,
        }


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return str(os.getuid())

"""Shows our runs on a real MLflow tracking server too: parameters, numbers, tags, files, status.

The server is never needed to run anything. Whatever it refuses is named in a tag of the run, and
whatever does not reach it can be kept with `outbox.keep` and sent later: everything here may be
done twice without showing twice.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

from repro import errors
from repro.tracking.server import Refusal, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from repro.ports import ChildRun, Tracked

    Way = Callable[[str], None]

    Logged = Tracked | ChildRun
    Item = dict[str, Any]

RUN_TAG = "repro.run"
CHILD_TAG = "repro.child"
ARTIFACTS_TAG = "repro.artifacts"
TRUNCATED_TAG = "repro.truncated"
REFUSED_TAG = "repro.refused"
LOGGED_TAG = "repro.logged."
SYSTEM_TAGS = {
    "user": "mlflow.user",
    "source": "mlflow.source.name",
    "entry_point": "mlflow.project.entryPoint",
    "commit": "mlflow.source.git.commit",
    "repository": "mlflow.source.git.repoURL",
    "branch": "mlflow.source.git.branch",
    "parent": "mlflow.parentRunId",
    "environment": "mlflow.project.env",
    "backend": "mlflow.project.backend",
}
BATCH = {"metrics": 1000, "params": 100, "tags": 100}
LONGEST_PARAMETER = 6000
LONGEST_TAG = 8000
ABSENT = "RESOURCE_DOES_NOT_EXIST"
PRESENT = "RESOURCE_ALREADY_EXISTS"
UNFIT = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})
DEFAULT_EXPERIMENT = "0"
WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Mirror:
    """A tracking server at an http or https address. `name` is that address without secrets."""

    def __init__(self, uri: str, *, environ: Mapping[str, str]) -> None:
        """Read the credentials from `environ`. Raises UsageError for what is no such address."""
        self._server = Server(uri, environ)
        self.name = self._server.name

    def check(self) -> None:
        """Ask the server whether it is there and knows us. Raises Unreachable."""
        self._server.call("POST", "experiments/search", {"max_results": 1})

    def experiment(self, name: str = "", experiment_id: str = "") -> tuple[str, str]:
        """Give the id and the name of an experiment; one that is named and not there is made.

        Raises UsageError for an id that is not there, and for an experiment that was deleted.
        """
        try:
            found = self._experiment(name, experiment_id)
        except Refusal as refusal:
            if not refusal.reason:
                raise
            raise errors.UsageError(
                refusal.message, hints=[f"the experiments are listed at `{self.name}`"]
            ) from refusal
        if found.get("lifecycle_stage") == "deleted":
            raise errors.UsageError(
                f"experiment `{found['name']}` is deleted on `{self.name}`",
                hints=["restore it there, or choose another name"],
            )
        return str(found["experiment_id"]), str(found["name"])

    def _experiment(self, name: str, experiment_id: str) -> Item:
        if not name:
            fields = {"experiment_id": experiment_id or DEFAULT_EXPERIMENT}
            return self._field(self._server.call("GET", "experiments/get", fields), "experiment")
        path, fields = "experiments/get-by-name", {"experiment_name": name}
        try:
            return self._field(self._server.call("GET", path, fields), "experiment")
        except Refusal as refusal:
            if refusal.reason != ABSENT:
                raise
        try:
            self._server.call("POST", "experiments/create", {"name": name})
        except Refusal as refusal:
            if refusal.reason != PRESENT:  # somebody else made it meanwhile
                raise
        return self._field(self._server.call("GET", path, fields), "experiment")

    def begin(self, run: Mapping[str, Any]) -> str:
        """Create a run there, with status RUNNING, and give its id. Raises Unreachable.

        `run` has `id` (ours), `experiment_id`, `name`, `started_ms`, `parameters` and `tags`, and
        what MLflow has tags of its own for, where known: the keys of `SYSTEM_TAGS`.
        """
        tags = {
            **{tag: run[key] for key, tag in SYSTEM_TAGS.items() if run.get(key)},
            "mlflow.source.type": "PROJECT",
            **run.get("tags", {}),
            RUN_TAG: run["id"],
        }
        run_id = self._create(
            {
                "experiment_id": run["experiment_id"],
                "run_name": run.get("name", ""),
                "user_id": run.get("user", ""),
                "start_time": run["started_ms"],
            },
            tags,
        )
        try:
            self._log(run_id, run.get("parameters", {}), {}, noted={})
        except BaseException:  # a signal too
            with suppress(errors.Unreachable):  # no run stays RUNNING that nobody runs
                self._end(run_id, "FAILED", run["started_ms"])
            raise
        return run_id

    def find(self, run: Mapping[str, Any]) -> str:
        """Give the id of a run that `begin` has created there; empty where it has not."""
        return self._tagged(run["experiment_id"], RUN_TAG, run["id"])

    def finish(self, run_id: str, status: str, tracked: Tracked, ended_ms: int) -> None:
        """Write what was logged, then the final status; that also when the rest does not get there.

        Raises Unreachable when something has to be sent again.
        """
        try:
            info = self._fill(run_id, tracked)
            children: dict[int, str] = {}
            for number, child in enumerate(tracked.children):
                parent = children.get(child.parent, run_id)
                marker = f"{run_id}/{number}"
                children[number] = self._child(child, info["experiment_id"], parent, marker)
                final = child.status if child.status in ENDED else status
                self._end(children[number], final, child.ended_ms or ended_ms)
        finally:
            self._end(run_id, status, ended_ms)

    def _child(self, child: ChildRun, experiment_id: str, parent: str, marker: str) -> str:
        run_id = self._tagged(experiment_id, CHILD_TAG, marker)
        if not run_id:
            fields = {
                "experiment_id": experiment_id,
                "run_name": child.name,
                "start_time": child.started_ms,
            }
            tags = {"mlflow.parentRunId": parent, "mlflow.source.type": "PROJECT"}
            run_id = self._create(fields, {**tags, CHILD_TAG: marker})
        self._fill(run_id, child)
        return run_id

    def _create(self, fields: Item, tags: Mapping[str, str]) -> str:
        items, cut = _cut(_pairs(tags), LONGEST_TAG)
        items += [{"key": TRUNCATED_TAG, "value": _names(cut)}] if cut else []
        fields = {**fields, "tags": items}
        reply = self._server.call("POST", "runs/create", fields, repeat=False)
        return str(self._field(reply, "run")["info"]["run_id"])

    def _tagged(self, experiment_id: str, tag: str, value: str) -> str:
        fields = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.`{tag}` = '{value}'",
            "max_results": 1,
        }
        runs = self._server.call("POST", "runs/search", fields).get("runs", [])
        return str(runs[0]["info"]["run_id"]) if runs else ""

    def _end(self, run_id: str, status: str, ended_ms: int) -> None:
        fields = {"run_id": run_id, "status": status, "end_time": ended_ms}
        self._server.call("POST", "runs/update", fields)

    def _fill(self, run_id: str, logged: Logged) -> Item:
        """Bring a run to show all that was logged, whatever it shows by now; give its info."""
        run = self._field(self._server.call("GET", "runs/get", {"run_id": run_id}), "run")
        info: Item = run["info"]
        if info.get("lifecycle_stage") == "deleted":
            raise Refusal(f"run `{run_id}` is deleted on `{self.name}`", reason=ABSENT)
        shown = {
            kind: {item["key"]: item["value"] for item in run.get("data", {}).get(kind, [])}
            for kind in ("params", "tags")
        }
        tags, params = dict(logged.tags), {}
        for key, value in _clean(logged.parameters).items():
            if key not in shown["params"]:
                params[key] = value
            elif shown["params"][key] != value[:LONGEST_PARAMETER]:
                tags[LOGGED_TAG + key] = value  # a parameter of the step keeps its own value
        refused = self._send_datasets(run_id, logged)
        way = self._way(logged.artifacts, info["artifact_uri"])
        if way:
            refused += _send_all(logged.artifacts, way)
        elif logged.artifacts:
            tags[ARTIFACTS_TAG] = "not-mirrored"
        refused += self._put(run_id, "metrics", _numbers(logged))
        self._log(run_id, params, tags, refused, noted=shown["tags"])
        return info

    def _log(
        self,
        run_id: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        refused: Sequence[str] = (),
        *,
        noted: Mapping[str, str],
    ) -> None:
        """Log texts, and note in tags, beside what is `noted`, which did not get there whole."""
        shortened, cut = _cut(_pairs(params), LONGEST_PARAMETER)
        marked, long = _cut(_pairs(tags), LONGEST_TAG)
        refused = [*refused, *self._put(run_id, "params", shortened)]
        refused += self._put(run_id, "tags", marked)
        for tag, names in ((TRUNCATED_TAG, cut + long), (REFUSED_TAG, refused)):
            if names:
                before = [name for name in noted.get(tag, "").split(", ") if name]
                self._put(run_id, "tags", _pairs({tag: _names(before + names)}))

    def _put(self, run_id: str, field: str, items: Sequence[Item]) -> list[str]:
        """Log in batches and give the names that the server does not take."""
        size = BATCH[field]
        refused = []
        for start in range(0, len(items), size):
            refused += self._put_batch(run_id, field, items[start : start + size])
        return refused

    def _put_batch(self, run_id: str, field: str, items: Sequence[Item]) -> list[str]:
        try:
            self._server.call("POST", "runs/log-batch", {"run_id": run_id, field: items})
        except Refusal as refusal:
            if refusal.reason not in UNFIT:
                raise
        else:
            return []
        if len(items) == 1:
            return [items[0]["key"]]
        half = len(items) // 2  # one bad name must not cost the others of its batch
        first = self._put_batch(run_id, field, items[:half])
        return first + self._put_batch(run_id, field, items[half:])

    def _send_datasets(self, run_id: str, logged: Logged) -> list[str]:
        if not logged.datasets:
            return []
        fields = {"run_id": run_id, "datasets": list(logged.datasets)}
        try:
            self._server.call("POST", "runs/log-inputs", fields)
        except Refusal:  # a server from before data sets
            return ["datasets"]
        return []

    def _way(self, folder: str, uri: str) -> Way | None:
        """Give what brings a file of `folder` to a run's artifacts, None where nothing does."""
        url, place = self._server.artifact_url(uri), _reachable(uri)
        if not os.path.isdir(folder) or not (url or place):
            return None
        if url:
            return lambda file: self._server.upload(
                f"{url}/{quote(os.fsencode(file))}", os.path.join(folder, file)
            )
        return lambda file: _copy(os.path.join(folder, file), os.path.join(place, file))

    def _field(self, reply: Item, name: str) -> Item:
        if not isinstance(reply.get(name), dict):
            raise Refusal(f"`{self.name}` answers without `{name}`")
        return reply[name]  # type: ignore[no-any-return]


def _clean(values: Mapping[str, str]) -> dict[str, str]:
    """Replace what no database takes, so that it is not for ever answered with HTTP 500."""
    return {_sound(key): _sound(value) for key, value in values.items()}


def _sound(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _pairs(values: Mapping[str, str]) -> list[Item]:
    return [{"key": key, "value": value} for key, value in _clean(values).items()]


def _numbers(logged: Logged) -> list[Item]:
    return [
        {
            "key": _sound(key),
            "value": WORDS.get(text) or float(text),
            "timestamp": time_ms,
            "step": step,
        }
        for key, text, time_ms, step in logged.metrics
    ]


def _cut(items: Sequence[Item], longest: int) -> tuple[list[Item], list[str]]:
    """Shorten long values; give the names of those that were."""
    cut = [item["key"] for item in items if len(item["value"]) > longest]
    return [{**item, "value": item["value"][:longest]} for item in items], cut


def _names(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))[:LONGEST_TAG]


def _send_all(folder: str, way: Way) -> list[str]:
    """Send every file; give the names of those that the other side does not take."""
    refused = []
    for file in _files(folder):
        try:
            way(file)
        except (OSError, Refusal):
            refused.append(file)
    return refused


def _files(folder: str) -> Iterator[str]:
    """Give the paths of all files, relative; links are left out, they may lead out of the step."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)


def _reachable(uri: str) -> str:
    """Give the folder that an artifact URI names, where it lies on a file system that we see."""
    url = urlsplit(uri)
    path = uri if not url.scheme else unquote(url.path) if url.scheme == "file" else ""
    experiment = os.path.dirname(os.path.dirname(path))
    known = os.path.isdir(experiment) or os.path.isdir(os.path.dirname(experiment))
    return path if os.path.isabs(path) and not url.netloc and known else ""


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)

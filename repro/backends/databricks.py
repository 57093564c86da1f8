"""Steps as runs of Databricks, each on a new cluster, which outlive the repro that began them."""

from __future__ import annotations

import os
import time

from repro import digest
from repro.backends import container, databricksaccess, databricksjob, errand
from repro.backends.agent import carrier
from repro.backends.agent.depot import Depot
from repro.backends.databrickscarriage import BLOBS, Remote, Stock
from repro.backends.databricksdisk import disk
from repro.backends.databricksdriver import SPARK
from repro.backends.databricksrest import Client
from repro.backends.databricksrun import JOBS, Running
from repro.backends.following import nowhere
from repro.errors import UsageError
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from repro.backends.agent.depot import Parcel
    from repro.ports import Job, Sink

AGENTS, RUNS, SPEC = "agents", "runs", "spec.json"
PAGES = 20  # of the list of runs, in which one is looked for
EARLIER_MS = 3_600_000  # by which clocks may differ


def lacks(environ: Mapping[str, str]) -> str:
    """Say what is missing for using Databricks, nothing where all is there. Asks nobody."""
    return databricksaccess.lacks(environ)


class Databricks:
    """Runs each step on a new cluster, through files that this machine and the cluster reach.

    The inputs go there over the REST API, a small program on the cluster's first node makes the
    environment and runs the command in a folder of its own, and what the command changed comes
    back before the end is told. Paths of the job's private folder are replaced in the command and
    its variables. `python` in the command of a Spark job runs in the driver's process. A job goes
    on when repro dies: see `find` and `orphans`.
    """

    name = "databricks"
    environments = "locks"

    def __init__(
        self,
        config: Mapping[str, Any] | str | None = None,
        *,
        store: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Take the settings, see `databricksjob.settings`; `store` is the folder of the store.

        Raises ProjectInvalid and UsageError for wrong settings, and without credentials.
        """
        self.environ = os.environ if environ is None else environ
        self.settings = databricksjob.settings(config)
        access = databricksaccess.find(self.environ, self.settings.profile)
        self.client = Client(access, self.settings.patience)
        self.disk = disk(self.client, self.settings.folder, self.settings.mount)
        self.stock = Stock(self.disk)
        self.depot = Depot(os.path.join(store, "databricks"))
        self._agent = ""

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start `job`, as `repro.ports.Backend` says.

        All calls of `sink` come from one thread. What it raises ends the delivery, not the job,
        and is raised again by `wait`, which also raises EnvironmentFailed, and Unreachable where
        the job could not begin on its cluster, where its outputs cannot be had, or where
        Databricks does not answer for long.

        Raises UsageError in the words of Databricks for what it refuses, Unreachable where it
        does not answer, and Unsupported for environments that no cluster makes.
        """
        errand.check(job)
        cluster = databricksjob.cluster(self.settings, job.lock, self.environ)
        running = self._prepared(job, sink)
        try:
            words = [f"{self.disk.seen}/{running.remote.folder}/{SPEC}"]
            if job.spark:
                words.append(SPARK)
            task = {"python_file": f"{self.disk.uri}/{self._program()}", "parameters": words}
            name = databricksjob.named(job)
            running.parcel.note(name=name, noted_ms=time.time_ns() // 1_000_000)
            body = databricksjob.submission(self.settings, cluster, name, task, job.spark)
            answer = self.client.insist("POST", f"{JOBS}/runs/submit", body=body)
            running.begin(int(answer["run_id"]))
        except BaseException:
            running.abandon()
            raise
        return running

    # -- jobs of earlier processes

    def find(self, run_id: str, sink: Sink | None = None, base: str = "") -> Running | None:
        """Give the job of a run that some process has submitted, to wait for it or to cancel it.

        `sink` gets all of its output from the beginning. What the command changed is brought to
        the folder `base`, which has to hold what the job's own one held; without it, nowhere.
        """
        parcel = self.depot.found(run_id)
        order = parcel.order() if parcel else {}
        if parcel is None or not order:
            return None
        if order["host"] != self.client.access.host or order["root"] != self.disk.root:
            raise UsageError(
                f"the job of the run is in `{order['root']}` at `{order['host']}`",
                hints=["use the settings and the profile with which it was submitted"],
            )
        number = order.get("id") or self._number(order)
        if not number:
            return None
        remote = Remote(self.disk, order["folder"])
        running = Running(self, parcel, remote, sink or nowhere, base)
        running.adopt(number, order)
        return running

    def orphans(self) -> tuple[str, ...]:
        """Name the runs whose jobs may be there, and whose processes on this machine are not."""
        return errand.orphans(self.depot)

    def _number(self, order: Mapping[str, Any]) -> int:
        """Find a run by its name: we died before its number was noted."""
        name = order.get("name", "")
        found = (run for run in self._listed(order) if name and run.get("run_name") == name)
        return int(next(found, {}).get("run_id", 0))

    def _listed(self, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        start = order.get("noted_ms", 0) - EARLIER_MS
        query = {"run_type": "SUBMIT_RUN", "start_time_from": max(0, start)}
        for _ in range(PAGES):
            page = self.client.insist("GET", f"{JOBS}/runs/list", query=query)
            yield from page.get("runs", ())
            if not page.get("next_page_token"):
                break
            query["page_token"] = page["next_page_token"]

    # -- the submission

    def _prepared(self, job: Job, sink: Sink) -> Running:
        """Put all that a job needs to where it is taken from."""
        more = {
            "environment": None if job.spark else databricksjob.environment(job.lock),
            "beat_s": databricksjob.BEAT_S,
            "flush_s": databricksjob.FLUSH_S,
        }
        parcel = self.depot.parcel(job.run_id)
        remote = Remote(self.disk, f"{RUNS}/{job.run_id}-{os.urandom(6).hex()}")
        running = Running(self, parcel, remote, sink, carrier.root_of(job))
        try:
            shipment = self._shipped(job, parcel)
            variables, ports = running.reached(job, "")
            spec = carrier.specification(
                job,
                shipment.tree,
                {
                    "kind": "parts",
                    "path": f"{self.disk.seen}/{remote.folder}",
                    "blobs": f"{self.disk.seen}/{BLOBS}",
                },
                variables=variables,
                scratch=self.settings.scratch,
                ports=ports,
                more=more,
            )
            parcel.note(
                owner=container.owner(os.getpid()),
                host=self.client.access.host,
                root=self.disk.root,
                folder=remote.folder,
                tree=shipment.tree,
                grace_ms=job.grace_ms,
            )
            self.disk.write(f"{remote.folder}/{SPEC}", spec)
            running.prepare(shipment.entries, job.grace_ms)
        except OSError as error:
            running.abandon()
            raise files.explained(error, "sending a job to Databricks") from error
        except BaseException:
            running.abandon()
            raise
        return running

    def _shipped(self, job: Job, parcel: Parcel) -> carrier.Shipment:
        load = self.stock.load()
        tree = os.path.join(parcel.path, "tree")
        try:
            shipment = carrier.ship(
                job,
                lambda name, path: (load.put_now if path == tree else load.put)(name, path),
                tree,
            )
            load.finish()
        finally:
            load.close()
        return shipment

    def _program(self) -> str:
        """Give the name of the program that runs jobs, which is there once."""
        if not self._agent:
            data = databricksjob.program(carrier.program())
            name = f"{digest.of_bytes(data)[:16]}.py"
            if self.disk.files(AGENTS).get(name, (0, 0))[0] != len(data):
                self.disk.write(f"{AGENTS}/{name}", data)
            self._agent = f"{AGENTS}/{name}"
        return self._agent

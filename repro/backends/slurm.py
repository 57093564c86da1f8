"""Steps as jobs of a Slurm cluster, which outlive the repro that submitted them."""

from __future__ import annotations

import os
import shutil
import time

from repro.backends import container, errand, slurmjob, slurmqueue, slurmsweep
from repro.backends.agent import carrier
from repro.backends.agent.depot import SPEC, Depot
from repro.backends.following import nowhere
from repro.backends.slurmrun import Running
from repro.errors import Unsupported
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from repro.backends.slurmjob import Directive
    from repro.ports import Job, Sink

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
PROGRAMS = ("sbatch", "squeue", "scancel")


class Slurm:
    """Runs each step as a job of Slurm, through a folder that this machine and the nodes share.

    The inputs go there, a small program on the node runs the command in a folder of its own, and
    what the command changed comes back before the end is told. Paths of the job's private folder
    are replaced in the command and its variables. A job goes on when repro dies: see `find` and
    `orphans`. What a job leaves behind on its node ends with it.
    """

    name = "slurm"
    environments = "files"

    def __init__(
        self,
        config: Mapping[str, Any] | str | None = None,
        *,
        store: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Take the settings, see `slurmjob.settings`; `store` is the folder of the store.

        Raises ProjectInvalid and UsageError for wrong settings, Unreachable without the folder.
        """
        self.environ = os.environ if environ is None else environ
        self.settings = slurmjob.settings(config)
        self.depot = Depot(self.settings.shared_folder or os.path.join(store, "slurm"))
        self.commands = slurmqueue.Commands(self.environ)
        self.queue = slurmqueue.shared(self.environ, self.settings.poll)
        place = (self.environ.get(name, "") for name in ("SLURM_CONF", "PATH"))
        self._sweep = slurmsweep.shared(*place, self.depot.path, repr(self.settings))

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start `job`, as `repro.ports.Backend` says.

        All calls of `sink` come from one thread. What it raises ends the delivery, not the job,
        and is raised again by `wait`, which also raises Unreachable where the job could not begin
        on its node, where its outputs cannot be had, or where Slurm does not answer for long.

        Jobs that other threads submit in the same moment become one array with it.

        Raises UsageError in Slurm's words for what it refuses, Unreachable where it does not
        answer, Unsupported for images.
        """
        return self._sweep.submit(job, sink, self.submit_many)

    def _submit_one(self, job: Job, sink: Sink) -> Running:
        running = self._prepared(job, sink)
        try:
            needs = slurmjob.directives(self.settings, job)
            name = slurmjob.named(job.run_id)
            running.parcel.note(name=name)
            command = (
                self.settings.python,
                self.depot.agent(),
                os.path.join(running.parcel.path, SPEC),
            )
            text = slurmjob.script(name, needs, running.parcel.path, command)
            path = running.parcel.write("job.sh", text)
            running.begin(self._sbatch(path, name, needs))
        except BaseException:
            running.abandon()
            raise
        return running

    def submit_many(self, jobs: Sequence[Job], sinks: Sequence[Sink]) -> list[Running]:
        """Start several jobs, those that ask for the same as one array; as `submit` otherwise.

        If one of them cannot be started, those that were are cancelled.
        """
        groups: dict[tuple[Directive, ...], list[int]] = {}
        for index, job in enumerate(jobs):
            groups.setdefault(slurmjob.directives(self.settings, job), []).append(index)
        begun: dict[int, Running] = {}
        try:
            for needs, members in groups.items():
                for at in range(0, len(members), self.settings.array):
                    part = members[at : at + self.settings.array]
                    if len(part) == 1:
                        begun[part[0]] = self._submit_one(jobs[part[0]], sinks[part[0]])
                        continue
                    pairs = [(jobs[i], sinks[i]) for i in part]
                    begun.update(zip(part, self._submit_array(pairs, needs), strict=True))
        except BaseException:
            for running in begun.values():
                running.cancel()
            raise
        return [begun[index] for index in range(len(jobs))]

    def _submit_array(
        self, pairs: Sequence[tuple[Job, Sink]], needs: tuple[Directive, ...]
    ) -> list[Running]:
        prepared: list[Running] = []
        batch = self.depot.batch()
        name = slurmjob.named("array")
        try:
            for task, (job, sink) in enumerate(pairs):
                running = self._prepared(job, sink)
                prepared.append(running)
                running.parcel.note(name=name, task=task, batch=batch)
                os.symlink(running.parcel.path, os.path.join(batch, str(task)))
            limit = f"%{self.settings.concurrent}" if self.settings.concurrent else ""
            command = (self.settings.python, self.depot.agent(), os.path.join(batch, SPEC))
            array = f"0-{len(pairs) - 1}{limit}"
            path = os.path.join(batch, "job.sh")
            files.replace(path, slurmjob.script(name, needs, batch, command, array), durable=False)
            number = self._sbatch(path, name, needs)
            os.unlink(path)
        except BaseException:
            for running in prepared:
                running.abandon()
            files.remove_tree(batch)
            raise
        for task, running in enumerate(prepared):
            running.begin(f"{number}_{task}")
        return prepared

    # -- jobs of earlier processes

    def find(self, run_id: str, sink: Sink | None = None, base: str = "") -> Running | None:
        """Give the job of a run that some process has submitted, to wait for it or to cancel it.

        `sink` gets all of its output from the beginning. What the command changed is brought to
        the folder `base`, which has to hold what the job's own one held; without it, nowhere.
        """
        parcel = self.depot.found(run_id)
        if parcel is None:
            return None
        order = parcel.order()
        number = order.get("id") or self._number(order.get("name", ""), order.get("task"))
        if not number:
            return None
        running = Running(self, parcel, sink or nowhere, base)
        running.adopt(number, order)
        return running

    def orphans(self) -> tuple[str, ...]:
        """Name the runs whose jobs may be there, and whose processes on this machine are not."""
        return errand.orphans(self.depot)

    def _number(self, name: str, task: int | None) -> str:
        """Find a job by its name: we died, or Slurm did, before its number was noted."""
        if not name:
            return ""
        listed = self.commands.call("squeue", "-h", "-t", "all", "-n", name, "-o", "%i")
        number = listed.split()[0].partition("_")[0] if listed.split() else ""
        return f"{number}_{task}" if number and task is not None else number

    # -- the submission

    def _prepared(self, job: Job, sink: Sink) -> Running:
        """Put all that a job needs into its folder."""
        _check(job)
        parcel = self.depot.parcel(job.run_id)
        running = Running(self, parcel, sink, carrier.root_of(job))
        try:
            shipment = carrier.ship(job, parcel.put, os.path.join(parcel.path, "tree"))
            variables, ports = running.reached(job, self.settings.advertise)
            spec = carrier.specification(
                job,
                shipment.tree,
                {"kind": "folder", "path": parcel.path},
                variables=variables,
                scratch=self.settings.scratch,
                ports=ports,
            )
            parcel.write(SPEC, spec)
            parcel.note(
                owner=container.owner(os.getpid()), tree=shipment.tree, grace_ms=job.grace_ms
            )
            running.prepare(shipment.entries, job.grace_ms)
        except OSError as error:
            running.abandon()
            raise files.explained(error, "writing a job into the shared folder") from error
        except BaseException:
            running.abandon()
            raise
        return running

    def _sbatch(self, path: str, name: str, needs: tuple[Directive, ...]) -> str:
        """Submit; where no answer came, ask whether it came through before trying again."""
        end, pause = time.monotonic() + self.settings.patience, FIRST_PAUSE
        tried = False
        while True:
            try:
                number = self._number(name, None) if tried else ""
                tried = True
                if not number:
                    answer = self.commands.call("sbatch", "--parsable", path, needs=needs)
                    number = answer.strip().partition(";")[0]
            except slurmqueue.Down:
                if time.monotonic() + pause > end:
                    raise
            else:
                return number
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def lacks(environ: Mapping[str, str]) -> str:
    """Say what is missing here for this backend, or nothing."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=environ.get("PATH"))]
    return f"`{missing[0]}` is not on the PATH" if missing else ""


def _check(job: Job) -> None:
    if job.image:
        raise Unsupported(
            "the slurm backend runs steps in environments of files, and this one has an image",
            hints=["give the project a `python_env` or a `conda_env`"],
        )
    errand.check(job)

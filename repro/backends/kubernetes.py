"""Steps as Jobs of a Kubernetes cluster, which outlive the repro that submitted them."""

from __future__ import annotations

import base64
import json
import os
import stat
import tempfile
import threading
import time

from repro.backends import container, errand, kubeapi, kubeimage, kubejob, webcache
from repro.backends.agent import carrier
from repro.backends.agent.carriage import Folder, connect
from repro.backends.agent.depot import Depot, Parcel
from repro.backends.following import nowhere
from repro.backends.kubeapi import CONFLICT, MISSING, Api, Refused
from repro.backends.kubejob import GRACE, NOBODY, OWNER, PARCEL, RUN, RUN_ID, SPEC, TREE
from repro.backends.kuberun import Running
from repro.backends.kubewatch import shared
from repro.errors import Unreachable, Unsupported, UsageError
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.backends.agent.carriage import Carriage
    from repro.ports import Job, Sink

    Object = dict[str, Any]

SENDING = 15.0  # seconds to try to send a file to the cache
lacks = kubeapi.lacks


class Kubernetes:
    """Runs each step as a Job, whose inputs and outputs travel by a volume or a cache on the web.

    A small program in the pod runs the command in a folder of its own, and what the command
    changed comes back before the end is told. Paths of the job's private folder are replaced in
    the command and its variables; variables of the image stay. A job goes on when repro dies: see
    `find` and `orphans`.
    """

    name = "kubernetes"
    environments = "references"

    def __init__(
        self,
        config: Mapping[str, Any] | str | None = None,
        *,
        store: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Take the settings, see `kubejob.settings`; the store is not used. Nothing is asked.

        Raises ProjectInvalid and UsageError for wrong settings or without a cluster, Unsupported
        without the package for it.
        """
        del store
        self.environ = os.environ if environ is None else environ
        self.settings = kubejob.settings(config)
        self.template = kubejob.template(self.settings.kube_job_template_path)
        self.api = _api(self.environ, self.settings.kube_context)
        said = (self.template.get("metadata") or {}).get("namespace")
        self.namespace = self.settings.namespace or said or self.api.namespace
        self.lookout = shared(self.api, self.namespace)

    @property
    def cache(self) -> str:
        """Give the URL of the cache by which jobs travel, empty where there is none."""
        return self.settings.cache or webcache.usual(self.environ)

    @property
    def way(self) -> str:
        """Name that by which jobs travel."""
        if self.settings.volume:
            return f"the volume `{self.settings.volume['claim']}`"
        return f"the cache `{self.cache.rpartition('@')[2]}`"

    def path(self, kind: str) -> str:
        """Give where the API has a kind of object."""
        return f"/api/v1/namespaces/{self.namespace}/{kind}"

    def job_path(self, name: str = "") -> str:
        """Give where the API has a Job, or all of them."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        return f"{path}/{name}" if name else path

    def submit(self, job: Job, sink: Sink) -> Running:
        """Start `job`, as `repro.ports.Backend` says.

        All calls of `sink` come from one thread. What it raises ends the delivery, not the job,
        and is raised again by `wait`, which also raises Unreachable where the job could not begin,
        where its image cannot be pulled, where its outputs cannot be had, or where the cluster
        does not answer for long.

        Raises UsageError for what the cluster refuses or a pod cannot have, Unreachable where it
        does not answer, and what pushing an image does.
        """
        _check(job)
        image = kubeimage.reachable(job.image, self.settings.repository_uri, self.environ)
        way = self._way_for(job)
        running = Running(self, way.carriage, sink, carrier.root_of(job), way.parcel)
        try:
            self._begin(running, job, image, way)
        except OSError as error:
            running.abandon()
            raise files.explained(error, "sending a job's inputs") from error
        except carrier.Failed as error:
            running.abandon()
            raise Unreachable(f"a job's inputs cannot be sent by {self.way}: {error}") from None
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
        asked = {"labelSelector": f"{RUN}={kubejob.label(run_id)}"}
        found = [job for job in self._jobs(asked) if _notes(job).get(RUN_ID) == run_id]
        if not found:
            return None
        job = max(found, key=lambda one: str(one["metadata"].get("creationTimestamp", "")))
        way = self._way_of(job)
        if way is None:
            return None
        running = Running(self, way.carriage, sink or nowhere, base, way.parcel)
        name = job["metadata"]["name"]
        self.api.steadily(self.settings.patience, lambda: running.watch(name))
        running.adopt(job)
        return running

    def orphans(self) -> tuple[str, ...]:
        """Name the runs whose jobs may be there, and whose processes on this machine are not."""
        notes = [_notes(job) for job in self._jobs({"labelSelector": RUN})]
        found = {n[RUN_ID] for n in notes if RUN_ID in n and container.is_orphan(n.get(OWNER, ""))}
        return tuple(sorted(found))

    def _jobs(self, query: Mapping[str, str]) -> list[Object]:
        answer = self._ask("GET", self.job_path(), query=query)
        return list(answer.get("items") or ())

    # -- the ways by which jobs travel

    def _way_for(self, job: Job) -> Way:
        """Give the way for a new job."""
        volume = self.settings.volume
        if volume:
            parcel = Depot(volume["folder"]).parcel(job.run_id)
            inside = os.path.relpath(parcel.path, os.path.abspath(volume["folder"]))
            there = {"kind": "folder", "path": os.path.join(volume["path"], inside)}
            return Way(parcel.carriage, there, parcel, inside)
        if not self.cache:
            raise UsageError(
                "there is no way for files to get to the cluster and back",
                hints=["give the backend a `volume`, or a `cache` with an `https://` URL"],
            )
        asked = webcache.carriage(self.cache, self.environ)
        return Way(connect(asked), asked, None, "")

    def _way_of(self, job: Object) -> Way | None:
        """Give the way of a job that is under way; None where that cannot be known any more."""
        inside = _notes(job).get(PARCEL)
        if inside:
            folder = self.settings.volume.get("folder", "")
            path = os.path.join(folder, inside)
            if not folder or not os.path.isdir(path):
                return None
            parcel = Parcel(path, os.path.join(folder, "cas"))
            return Way(Folder(path), {}, parcel, inside)
        try:
            secret = self._ask("GET", f"{self.path('secrets')}/{job['metadata']['name']}")
        except Refused as error:
            if error.status == MISSING:
                return None
            raise
        spec = json.loads(base64.b64decode(secret["data"][SPEC]))
        return Way(connect(spec["carriage"]), spec["carriage"], None, "")

    # -- the submission

    def _begin(self, running: Running, job: Job, image: str, way: Way) -> None:
        """Send a job's inputs, then create its objects."""
        given = self.settings
        with tempfile.TemporaryDirectory(prefix="repro-") as scratch:
            shipment = carrier.ship(job, way.put, os.path.join(scratch, "tree"))
        running.prepare(shipment.entries)
        variables, ports = running.reached(job, given.advertise)
        spec = carrier.specification(
            job,
            shipment.tree,
            way.there,
            variables=variables,
            scratch=kubejob.SCRATCH,
            ports=ports,
            more={"inherit": True},
        )
        waybill = self._waybill(job, image, shipment.tree, way)
        if way.parcel:
            _hand_over(way.parcel.path, *self._user(waybill))
        wanted = kubejob.manifest(given, self.template, job, waybill)
        self.api.steadily(given.patience, lambda: running.watch(waybill.name))
        made = self._created(wanted)
        secret = kubejob.secret(job, made, carrier.program(), spec)
        self._ask("POST", self.path("secrets"), secret)
        running.adopt(made)

    def _waybill(self, job: Job, image: str, tree: str, way: Way) -> kubejob.Waybill:
        notes = {
            RUN_ID: job.run_id,
            OWNER: container.owner(os.getpid()),
            TREE: tree,
            GRACE: str(job.grace_ms),
        }
        if way.inside:
            notes[PARCEL] = way.inside
        me = way.parcel is not None and os.getuid() != 0
        return kubejob.Waybill(
            name=kubejob.named(job),
            namespace=self.namespace,
            image=image,
            notes=notes,
            user=os.getuid() if me else NOBODY,
            group=os.getgid() if me else NOBODY,
        )

    def _user(self, waybill: kubejob.Waybill) -> tuple[int, int]:
        uid, gid = self.settings.uid, self.settings.gid
        return (waybill.user if uid is None else uid, waybill.group if gid is None else gid)

    def _created(self, wanted: Object) -> Object:
        """Create a Job. An answer may have got lost: one that is there already is ours."""
        try:
            return self._ask("POST", self.job_path(), wanted)
        except Refused as error:
            if error.status != CONFLICT:
                raise
        return self._ask("GET", self.job_path(wanted["metadata"]["name"]))

    def _ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Ask until there is an answer. Raises Down, Refused; what is there need not be made."""
        try:
            return self.api.steadily(
                self.settings.patience, lambda: self.api.call(method, path, body, query)
            )
        except Refused as error:
            if error.status == CONFLICT and path == self.path("secrets") and body:
                return body
            raise


class Way:
    """How a job travels: by `carriage` here, and by what `there` says in its pod.

    With a volume there is a `parcel`, whose folder is `inside` of the volume.
    """

    def __init__(
        self, carriage: Carriage, there: Mapping[str, Any], parcel: Parcel | None, inside: str
    ) -> None:
        """Keep all that."""
        self.carriage, self.there, self.parcel, self.inside = carriage, there, parcel, inside

    def put(self, digest: str, source: str) -> None:
        """Send a file, trying again for a while. Raises OSError, Failed."""
        if self.parcel:
            self.parcel.put(digest, source)
            return
        end = time.monotonic() + SENDING
        while True:
            try:
                self.carriage.put(digest, source)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
            else:
                return


_APIS: dict[tuple[str, ...], Api] = {}
_CHOOSING = threading.Lock()


def _api(environ: Mapping[str, str], context: str) -> Api:
    """Give the one API of this process for a context, whoever asks."""
    names = ("KUBECONFIG", "HOME", kubeapi.HOST, kubeapi.PORT)
    key = (context, *(environ.get(name, "") for name in names))
    with _CHOOSING:
        if key not in _APIS:
            _APIS[key] = Api(environ, context)
        return _APIS[key]


def _hand_over(path: str, user: int, group: int) -> None:
    """Let the pod's user work in a folder, which is root's if it is not that user's."""
    if os.getuid() != 0 or user == 0:
        return
    for place in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        os.chmod(place, os.stat(place).st_mode | stat.S_IXOTH)  # to be passed, not to be read
    for base, _folders, names in os.walk(path):
        os.chown(base, user, group)
        for place in (os.path.join(base, name) for name in names):
            if os.stat(place).st_nlink == 1:
                os.chown(place, user, group)
            else:  # other jobs have it, too
                os.chmod(place, os.stat(place).st_mode | stat.S_IROTH)


def _notes(job: Object) -> Mapping[str, str]:
    return job["metadata"].get("annotations") or {}


def _check(job: Job) -> None:
    """Refuse what a pod cannot have."""
    if not job.image:
        raise Unsupported(
            "the kubernetes backend runs steps in images, and this one has none",
            hints=["give the project a `docker_env`, a `python_env` or a `conda_env`"],
        )
    if job.binds:
        raise UsageError(
            f"a pod does not see `{job.binds[0][0]}` of this machine",
            hints=["take it out of `volumes` or `mounts`; the setting `pod` can mount volumes"],
        )
    if job.container:
        raise UsageError(
            f"docker's option `{job.container[0][0]}` means nothing to Kubernetes",
            hints=["the setting `pod` has more of the pod's spec"],
        )
    errand.check(job)

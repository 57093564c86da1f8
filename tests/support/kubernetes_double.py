"""A stand-in for a cluster's API over real HTTP, which fails on command.

Its one node runs the program of a Job as a process of this machine; `holds` keeps it from that.
What it cannot do, a real cluster is there for: see `kubernetes_engine`.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

KINDS = ("jobs", "pods", "secrets", "events")


class Api(ThreadingHTTPServer):
    """The API; `url` is where it listens, `calls` what it was asked as (method, path, query)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = pathlib.Path(root)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.RLock()
        self.version, self.oldest = 1, 0
        self.objects = {kind: {} for kind in KINDS}
        self.log, self.watchers, self.calls, self.faults = [], [], [], []
        self.holds = False
        self.processes = {}
        self.bookmarks = threading.Event()
        self.sockets = set()
        self.environ = self._environ()

    def _environ(self):
        """Give the variables with which it is found."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "secret-of-me"}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "me"}}],
            "current-context": "double",
        }
        path = self.root / "config"
        path.write_text(json.dumps(document))
        return {"KUBECONFIG": str(path), "PATH": os.environ["PATH"]}

    # -- what tests do to it

    def fail(self, method, kind, status, times=1, *, watch=None, after=False, headers=None):
        """Answer so to the next requests; `after` has done what was asked nevertheless.

        A status of 0 closes the connection without an answer.
        """
        fault = {"method": method, "kind": kind, "status": status, "times": times}
        self.faults.append({**fault, "watch": watch, "after": after, "headers": headers or {}})

    def drop(self):
        """Cut all watches."""
        with self.lock:
            found, self.watchers = self.watchers, []
        for watcher in found:
            watcher["queue"].put(None)

    def forget(self):
        """Know no version but the newest; who watches is told so at the next event."""
        with self.lock:
            self.version += 1
            self.oldest = self.version
        self.drop()

    def change(self, kind, name, **fields):
        """Merge fields into an object, and tell those who watch."""
        with self.lock:
            if name not in self.objects[kind]:
                return
            one = copy.deepcopy(self.objects[kind][name])
            _merge(one, fields)
            self.put(kind, one, "MODIFIED")

    def warn(self, name, reason, message):
        """Add an event about an object."""
        self.put(
            "events",
            {
                "metadata": {"name": f"{name}.{os.urandom(3).hex()}"},
                "involvedObject": {"name": name},
                "type": "Warning",
                "reason": reason,
                "message": message,
                "lastTimestamp": _now(),
            },
            "ADDED",
        )

    def only(self, kind):
        """Give the one object of a kind, once there is one."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with self.lock:
                found = list(self.objects[kind].values())
            if found:
                assert len(found) == 1, found
                return found[0]
            time.sleep(0.01)
        pytest.fail(f"there are no {kind}")

    def asked(self, method, kind):
        return [call for call in self.calls if call[0] == method and f"/{kind}" in call[1]]

    # -- what it has

    def put(self, kind, one, what):
        with self.lock:
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            if what == "DELETED":
                self.objects[kind].pop(one["metadata"]["name"], None)
            else:
                self.objects[kind][one["metadata"]["name"]] = one
            event = {"type": what, "object": copy.deepcopy(one)}
            self.log.append((self.version, kind, event))
            for watcher in self.watchers:
                if watcher["kind"] == kind:
                    watcher["queue"].put(event)

    def make(self, kind, one):
        head = one["metadata"]
        head.setdefault("uid", os.urandom(8).hex())
        head.setdefault("creationTimestamp", _now())
        self.put(kind, one, "ADDED")
        if kind == "jobs":
            self._pod(one)

    def _pod(self, job):
        head, inner = job["metadata"], copy.deepcopy(job["spec"]["template"])
        name = f"{head['name']}-{os.urandom(3).hex()}"
        inner["metadata"] |= {"name": name, "uid": os.urandom(8).hex()}
        inner["metadata"]["creationTimestamp"] = _now()
        self.put("pods", {**inner, "status": {"phase": "Pending"}}, "ADDED")
        threading.Thread(target=self._run, args=(head["name"], name), daemon=True).start()

    def _run(self, job, pod):
        """Be the node: wait for the secret, run the program, tell its end."""
        while self.holds or job not in self.objects["secrets"]:
            if pod not in self.objects["pods"]:
                return
            time.sleep(0.01)
        folder = self.root / pod
        folder.mkdir()
        with self.lock:
            if pod not in self.objects["pods"] or job not in self.objects["secrets"]:
                return
            data = self.objects["secrets"][job]["data"]
            command = self.objects["pods"][pod]["spec"]["containers"][0]["command"]
        (folder / "agent").write_bytes(base64.b64decode(data["agent"]))
        spec = json.loads(base64.b64decode(data["spec.json"]))
        (folder / "spec.json").write_text(json.dumps({**spec, "scratch": str(folder)}))
        with self.lock, (folder / "log").open("wb") as log:
            if pod not in self.objects["pods"]:
                return
            process = self.processes[pod] = subprocess.Popen(
                [command[0], str(folder / "agent"), str(folder / "spec.json")],
                env={"PATH": os.environ["PATH"], "HOSTNAME": pod, "KUBERNETES_PORT": "1"},
                stdout=log,
                stderr=log,
            )
        running = {"containerStatuses": [{"name": "step", "state": {"running": {}}}]}
        self.change("pods", pod, status={"phase": "Running", **running})
        self._ended(job, pod, process.wait())

    def _ended(self, job, pod, code):
        code = 128 - code if code < 0 else code
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        status = {"containerStatuses": [{"name": "step", "state": state}]}
        phase = "Failed" if code else "Succeeded"
        with self.lock:
            if pod in self.objects["pods"]:
                known = self.objects["pods"][pod]["status"]
                self.change(
                    "pods", pod, status={"phase": phase, **({} if "reason" in known else status)}
                )
            if job in self.objects["jobs"]:
                kind = "Failed" if code else "Complete"
                condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}
                self.change("jobs", job, status={"conditions": [condition]})

    def remove(self, kind, name, body):
        """Delete an object, as `body` says."""
        if kind == "jobs":
            policy = body.get("propagationPolicy", "Background")
            with self.lock:
                pods = [n for n, p in self.objects["pods"].items() if n.startswith(name)]
                if policy == "Background":
                    self._gone("jobs", name)
                elif name in self.objects["jobs"]:
                    self.change("jobs", name, metadata={"deletionTimestamp": _now()})
            words = (name, pods, policy)
            threading.Thread(target=self._stop, args=words, daemon=True).start()
        elif kind == "pods":
            threading.Thread(target=self._stop_pod, args=(name, body), daemon=True).start()
        else:
            self._gone(kind, name)

    def _stop(self, job, pods, policy):
        for pod in pods:
            self._stop_pod(pod, {})
        self._gone("secrets", job)
        if policy != "Background":
            self._gone("jobs", job)

    def _stop_pod(self, pod, body):
        with self.lock:
            known, process = self.objects["pods"].get(pod), self.processes.get(pod)
            grace = (known or {"spec": {}})["spec"].get("terminationGracePeriodSeconds", 30)
            if process is None:  # and none will be
                self._gone("pods", pod)
                return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(body.get("gracePeriodSeconds", grace))
        except subprocess.TimeoutExpired:
            process.kill()
        self._gone("pods", pod)

    def _gone(self, kind, name):
        with self.lock:
            if name in self.objects[kind]:
                self.put(kind, self.objects[kind][name], "DELETED")

    # -- its life

    def crash(self):
        """Answer nothing any more, and cut what is open."""
        self.shutdown()
        self.socket.close()
        self.drop()
        with self.lock:
            found = list(self.sockets)
        for one in found:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def revive(self):
        """Be there again, at the same place."""
        port = self.server_port
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.server_address = ("127.0.0.1", port)
        self.server_bind()
        self.server_activate()
        self.start()

    def start(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def end(self):
        self.holds = False
        self.crash()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.sockets.add(self.request)

    def finish(self):
        with self.server.lock:
            self.server.sockets.discard(self.request)
        super().finish()

    def log_message(self, *_):
        pass

    def _handle(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.server.lock:
            self.server.calls.append((self.command, url.path, query))
        words = url.path.strip("/").split("/")
        words = words[words.index("namespaces") + 2 :]
        kind, name = words[0], words[1] if len(words) > 1 else ""
        if self.headers["Authorization"] != "Bearer secret-of-me":
            self._refuse(401, "Unauthorized")
            return
        fault = self._fault(kind, query)
        if fault and not fault["after"]:
            self._fail(fault)
            return
        if fault:
            self._answer = lambda *_: self._fail(fault)
        getattr(self, f"_{self.command.lower()}")(kind, name, body, query, words)

    def do_GET(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_DELETE(self):
        self._handle()

    def _fault(self, kind, query):
        with self.server.lock:
            for fault in self.server.faults:
                is_watch = "watch" in query
                is_it = fault["method"] == self.command and fault["kind"] == kind
                if is_it and fault["times"] > 0 and fault["watch"] in {None, is_watch}:
                    fault["times"] -= 1
                    return fault
        return None

    def _fail(self, fault):
        if not fault["status"]:
            self.close_connection = True
            self.request.shutdown(socket.SHUT_RDWR)
            return
        self._refuse(fault["status"], f"the double says {fault['status']}", fault["headers"])

    def _get(self, kind, name, _body, query, words):
        if words[2:] == ["log"]:
            path = self.server.root / name / "log"
            self._send(200, path.read_bytes() if path.exists() else b"")
        elif "watch" in query:
            self._watch(kind, query)
        elif name:
            with self.server.lock:
                found = copy.deepcopy(self.server.objects[kind].get(name))
            self._answer(found) if found else self._missing(kind, name)
        else:
            with self.server.lock:
                items = [copy.deepcopy(one) for one in self.server.objects[kind].values()]
                version = str(self.server.version)
            items = [one for one in items if _matches(one, query)]
            self._answer({"items": items, "metadata": {"resourceVersion": version}})

    def _post(self, kind, _name, body, _query, _words):
        with self.server.lock:
            if body["metadata"]["name"] in self.server.objects[kind]:
                self._refuse(409, f'{kind} "{body["metadata"]["name"]}" already exists')
                return
            self.server.make(kind, body)
            made = copy.deepcopy(self.server.objects[kind][body["metadata"]["name"]])
        self._answer(made, 201)

    def _delete(self, kind, name, body, _query, _words):
        if name not in self.server.objects[kind]:
            self._missing(kind, name)
            return
        self.server.remove(kind, name, body)
        self._answer({"kind": "Status", "status": "Success"})

    def _watch(self, kind, query):
        heard = queue.Queue()
        watcher = {"kind": kind, "queue": heard}
        with self.server.lock:
            since = int(query["resourceVersion"])
            if since < self.server.oldest:
                self._refuse(410, f"too old resource version: {since}")
                return
            for version, of, event in self.server.log:
                if version > since and of == kind:
                    heard.put(event)
            self.server.watchers.append(watcher)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + int(query.get("timeoutSeconds", 60))
        try:
            self._tell(heard, query, end)
        except OSError:
            self.close_connection = True
        with self.server.lock:
            if watcher in self.server.watchers:
                self.server.watchers.remove(watcher)

    def _tell(self, heard, query, end):
        while (left := end - time.monotonic()) > 0:
            try:
                event = heard.get(timeout=left)
            except queue.Empty:
                break
            if event is None:  # cut: without the end of the stream
                self.close_connection = True
                self.request.shutdown(socket.SHUT_RDWR)
                return
            if _matches(event["object"], query):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _missing(self, kind, name):
        self._refuse(404, f'{kind} "{name}" not found')

    def _refuse(self, status, message, headers=None):
        said = {"kind": "Status", "status": "Failure", "message": message, "code": status}
        self._send(status, json.dumps(said).encode(), headers)

    def _answer(self, document, status=200):
        self._send(status, json.dumps(document).encode())

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _matches(one, query):
    """Say whether the selectors of a query take an object: `label`, `label=value`, one field."""
    known = one["metadata"].get("labels") or {}
    name, equals, value = query.get("labelSelector", "").partition("=")
    if name and (name not in known or (equals and known[name] != value)):
        return False
    about = query.get("fieldSelector", "").partition("involvedObject.name=")[2]
    return not about or (one.get("involvedObject") or {}).get("name") == about


def _merge(one, fields):
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(one.get(name), dict):
            _merge(one[name], value)
        else:
            one[name] = value


def _now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Blobs(ThreadingHTTPServer):
    """A cache on the web in a folder: GET, HEAD, PUT. While it is `away`, it answers 503."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Keeper)
        self.root = pathlib.Path(root)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.away = False
        self.proofs = set()


class Keeper(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._begin()
        path = self.server.root / self.path.strip("/").replace("/", "-")
        if self.server.away or not path.exists():
            self._end(503 if self.server.away else 404, b"")
        else:
            self._end(200, path.read_bytes())

    def do_HEAD(self):
        self.do_GET()

    def do_PUT(self):
        self._begin()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.away:
            self._end(503, b"")
            return
        half = self.server.root / os.urandom(8).hex()
        half.write_bytes(data)
        half.replace(self.server.root / self.path.strip("/").replace("/", "-"))
        self._end(201, b"")

    def _begin(self):
        self.server.proofs.add(self.headers.get("Authorization", ""))

    def _end(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def double(tmp_path):
    """A stand-in for a cluster."""
    root = tmp_path / "double"
    root.mkdir()
    api = Api(root).start()
    yield api
    api.end()
    for name in list(api.processes):
        shutil.rmtree(root / name, ignore_errors=True)


@pytest.fixture
def blobs(tmp_path):
    """A cache on the web."""
    root = tmp_path / "blobs"
    root.mkdir()
    with Blobs(root) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


PYTHON = sys.executable

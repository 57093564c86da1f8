"""A Databricks workspace on loopback: it checks each request, keeps files, and runs tasks.

The shapes are those of the published references of the Jobs API 2.1, the DBFS API and the Files
API. A cluster is a process of this machine: it runs the file of a `spark_python_task` in a thread
that is not the main one, as Spark does, with `spark` and with a standard output of its own, and
takes any SystemExit for a failure.
"""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema

TOKEN = "dapi-0123456789-secret"
MB = 1 << 20
DRIVER = """
import io, os, runpy, sys, threading, traceback
ended = []
def run():
    sys.argv = sys.argv[1:]
    sys.stdout = io.StringIO()
    names = {"spark": f"session {os.getpid()}"}
    try:
        runpy.run_path(sys.argv[0], names, run_name="__main__")
        ended.append(0)
    except BaseException:
        traceback.print_exc()
thread = threading.Thread(target=run)
thread.start()
thread.join()
sys.exit(0 if ended else 1)
"""

STRING, INTEGER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
NUMERAL = {"type": "string", "pattern": "^[0-9]+$"}
WORDS = {"type": "array", "items": STRING}


def closed(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


PATH = {"type": "string", "pattern": "^/"}
CLUSTER = closed(
    ["spark_version"],
    spark_version=STRING,
    node_type_id=STRING,
    driver_node_type_id=STRING,
    num_workers=INTEGER,
    autoscale=closed(["min_workers", "max_workers"], min_workers=INTEGER, max_workers=INTEGER),
    spark_conf={"type": "object", "additionalProperties": STRING},
    spark_env_vars={"type": "object", "additionalProperties": STRING},
    custom_tags={"type": "object", "additionalProperties": STRING},
    instance_pool_id=STRING,
    policy_id=STRING,
    data_security_mode=STRING,
    single_user_name=STRING,
    runtime_engine=STRING,
    init_scripts={"type": "array"},
    cluster_log_conf={"type": "object"},
    aws_attributes={"type": "object"},
    azure_attributes={"type": "object"},
    gcp_attributes={"type": "object"},
    docker_image=closed(
        ["url"],
        url=STRING,
        basic_auth=closed(["username", "password"], username=STRING, password=STRING),
    ),
)
TASK = closed(
    ["task_key", "new_cluster", "spark_python_task"],
    task_key={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$"},
    new_cluster=CLUSTER,
    libraries={
        "type": "array",
        "items": closed(
            pypi=closed(["package"], package=STRING, repo=STRING),
            whl=STRING,
            jar=STRING,
            egg=STRING,
            requirements=STRING,
            maven={"type": "object"},
            cran={"type": "object"},
        ),
    },
    spark_python_task=closed(
        ["python_file"],
        python_file={"type": "string", "pattern": "^(dbfs:/|s3:/|/)"},
        parameters=WORDS,
        source={"enum": ["WORKSPACE", "GIT"]},
    ),
    timeout_seconds=INTEGER,
    max_retries=INTEGER,
)
SHAPES = {
    ("POST", "/api/2.1/jobs/runs/submit"): closed(
        ["tasks"],
        run_name=STRING,
        tasks={"type": "array", "items": TASK, "minItems": 1},
        timeout_seconds=INTEGER,
        idempotency_token={"type": "string", "maxLength": 64},
    ),
    ("POST", "/api/2.1/jobs/runs/cancel"): closed(["run_id"], run_id=INTEGER),
    ("GET", "/api/2.1/jobs/runs/get"): closed(
        ["run_id"], run_id=NUMERAL, include_history=STRING, page_token=STRING
    ),
    ("GET", "/api/2.1/jobs/runs/get-output"): closed(["run_id"], run_id=NUMERAL),
    ("GET", "/api/2.1/jobs/runs/list"): closed(
        run_type={"enum": ["JOB_RUN", "WORKFLOW_RUN", "SUBMIT_RUN"]},
        active_only={"enum": ["true", "false"]},
        completed_only={"enum": ["true", "false"]},
        limit=NUMERAL,
        start_time_from=NUMERAL,
        start_time_to=NUMERAL,
        page_token=STRING,
    ),
    ("POST", "/api/2.0/dbfs/put"): closed(["path"], path=PATH, contents=STRING, overwrite=BOOLEAN),
    ("POST", "/api/2.0/dbfs/create"): closed(["path"], path=PATH, overwrite=BOOLEAN),
    ("POST", "/api/2.0/dbfs/add-block"): closed(["handle", "data"], handle=INTEGER, data=STRING),
    ("POST", "/api/2.0/dbfs/close"): closed(["handle"], handle=INTEGER),
    ("POST", "/api/2.0/dbfs/delete"): closed(["path"], path=PATH, recursive=BOOLEAN),
    ("GET", "/api/2.0/dbfs/read"): closed(["path"], path=PATH, offset=NUMERAL, length=NUMERAL),
    ("GET", "/api/2.0/dbfs/list"): closed(["path"], path=PATH),
    ("GET", "/api/2.0/dbfs/get-status"): closed(["path"], path=PATH),
}
FILES, FOLDERS = "/api/2.0/fs/files", "/api/2.0/fs/directories"


class Answer(Exception):
    """An answer that is none of success."""

    def __init__(self, status, word="", message="", headers=None):
        self.status, self.word, self.message = status, word, message
        self.headers = headers or {}
        self.body = {"error_code": word, "message": message}


def absent(path):
    return Answer(404, "RESOURCE_DOES_NOT_EXIST", f"No file or directory exists on path {path}.")


def wrong(message):
    return Answer(400, "INVALID_PARAMETER_VALUE", message)


class Workspace:
    """Files, runs, and what a test does to them."""

    def __init__(self, root):
        self.root = root
        self.dbfs, self.volumes = root / "dbfs", root / "Volumes"
        for folder in (self.dbfs, self.volumes):
            folder.mkdir()
        self.runs, self.tokens, self.handles = {}, {}, {}
        self.asked = []  # (method, path, what)
        self.faults = []  # (substring of "METHOD path file", Answer or None for none, times)
        self.holds = threading.Event()
        self.holds.set()
        self.refused_cluster = ""
        self.driver, self.python = DRIVER, sys.executable
        self.lock = threading.RLock()
        self.next = 1000

    def fail(self, where, answer, times=1):
        """Answer the next requests to a place with that; None closes the connection."""
        self.faults.append([where, answer, times])

    def fault(self, name):
        with self.lock:
            for one in self.faults:
                if one[0] in name and one[2] > 0:
                    one[2] -= 1
                    return one
        return None

    def calls(self, path):
        return [what for _, where, what in self.asked if where.endswith(path)]

    def stop(self):
        self.holds.set()
        for run in list(self.runs.values()):
            run.kill()
        for run in list(self.runs.values()):
            run.thread.join(60)


class Run:
    """One run with its one task."""

    def __init__(self, workspace, number, asked):
        self.workspace, self.number, self.asked = workspace, number, asked
        self.task = number + 1
        self.started = time.time_ns() // 1_000_000
        self.life, self.result, self.message = "PENDING", "", ""
        self.wished = ""
        self.process = None
        self.error = ""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        workspace = self.workspace
        while not workspace.holds.wait(0.02):
            if self.wished:
                self._over(self.wished, "Run cancelled.")
                return
        if workspace.refused_cluster:
            self.life, self.result = "INTERNAL_ERROR", "FAILED"
            self.message = workspace.refused_cluster
            return
        task = self.asked["tasks"][0]["spark_python_task"]
        file = self._place(task["python_file"].removeprefix("dbfs:"))
        self.life = "RUNNING"
        self.process = subprocess.Popen(
            [workspace.python, "-c", workspace.driver, str(file), *task.get("parameters", ())],
            env={"PATH": os.environ["PATH"], "SPARK_HOME": "/databricks/spark"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        _, said = self.process.communicate()
        lines = said.decode("utf-8", "replace").strip().splitlines()
        self.error = lines[-1] if lines else ""
        if self.wished:
            self._over(self.wished, "Run cancelled.")
        elif self.process.returncode:
            self._over("FAILED", "Workload failed, see run output for details")
        else:
            self._over("SUCCESS", "")

    def _place(self, path):
        workspace = self.workspace
        if path.startswith("/Volumes/"):
            return workspace.root / path.removeprefix("/")
        return workspace.dbfs / path.removeprefix("/")

    def _over(self, result, message):
        self.result, self.message, self.life = result, message, "TERMINATED"

    def end(self, result="CANCELED"):
        """End it as Databricks does when it is cancelled, or its time is over."""
        self.wished = self.wished or result
        if self.process and self.process.poll() is None:
            self.life = "TERMINATING"
            self.process.terminate()

    def kill(self):
        """Take the node away."""
        self.wished = self.wished or ""
        if self.process:
            for pid in [self.process.pid, *children(self.process.pid)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        elif self.life == "PENDING":
            self.wished = "CANCELED"

    def shown(self):
        state = {"life_cycle_state": self.life, "state_message": self.message}
        if self.result:
            state["result_state"] = self.result
        host = "https://dbc-1.cloud.databricks.com"
        return {
            "run_id": self.number,
            "job_id": 7,
            "run_name": self.asked.get("run_name", "Untitled"),
            "run_page_url": f"{host}/?o=1#job/7/run/{self.number}",
            "run_type": "SUBMIT_RUN",
            "start_time": self.started,
            "state": state,
            "tasks": [{"run_id": self.task, "task_key": "step", "state": dict(state)}],
        }


def children(pid):
    found = []
    path = pathlib.Path(f"/proc/{pid}/task")
    if path.is_dir():
        for task in path.iterdir():
            try:
                found += map(int, (task / "children").read_text().split())
            except OSError:
                continue
    return found


class Handler(BaseHTTPRequestHandler):
    """Answers as the workspace does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def _handle(self):
        size = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(size)
        try:
            status, body = 200, self._answered(data)
            headers = {}
        except Answer as answer:
            status, body, headers = answer.status, answer.body, answer.headers
        except ConnectionAbortedError:
            self.close_connection = True
            return
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_PUT(self):
        self._handle()

    def do_DELETE(self):
        self._handle()

    def _answered(self, data):
        workspace = self.server.workspace
        url = urlsplit(self.path)
        path, query = url.path, dict(parse_qsl(url.query, keep_blank_values=True))
        if self.headers.get("Authorization") not in self.server.proofs:
            raise Answer(403, "", "Invalid access token.")
        is_raw = path.startswith((FILES, FOLDERS))
        what = {**query} if self.command != "POST" else json.loads(data or b"{}")
        workspace.asked.append((self.command, path, what))
        fault = workspace.fault(f"{self.command} {path} {query.get('path', '')}")
        if fault and isinstance(fault[1], Answer):
            raise fault[1]
        if is_raw:
            found = self._fs(workspace, unquote(path), query, data)
        else:
            found = self._api(workspace, path, what)
        if fault:  # it was done, and no answer comes
            raise ConnectionAbortedError
        return found

    def _api(self, workspace, path, what):
        shape = SHAPES.get((self.command, path))
        if shape is None:
            raise Answer(404, "ENDPOINT_NOT_FOUND", f"No API found for '{self.command} {path}'")
        for error in jsonschema.Draft202012Validator(shape).iter_errors(what):
            raise Answer(400, "MALFORMED_REQUEST", f"{path}: {error.message}")
        name = path.partition("/api/2.")[2][2:].replace("/", "_").replace("-", "_")
        with workspace.lock:
            return getattr(self, name)(workspace, what)

    # -- the Jobs API

    def jobs_runs_submit(self, workspace, what):
        token = what.get("idempotency_token")
        if token in workspace.tokens:
            return {"run_id": workspace.tokens[token]}
        cluster = what["tasks"][0]["new_cluster"]
        if "num_workers" not in cluster and "autoscale" not in cluster:
            raise wrong("Cluster validation error: Missing required field: settings.num_workers")
        workspace.next += 10
        number = workspace.next
        workspace.runs[number] = Run(workspace, number, what)
        if token:
            workspace.tokens[token] = number
        return {"run_id": number}

    def _run(self, workspace, number):
        run = workspace.runs.get(int(number))
        if run is None:
            raise wrong(f"Run {number} does not exist.")
        return run

    def jobs_runs_get(self, workspace, what):
        return self._run(workspace, what["run_id"]).shown()

    def jobs_runs_cancel(self, workspace, what):
        self._run(workspace, what["run_id"]).end()
        return {}

    def jobs_runs_get_output(self, workspace, what):
        number = int(what["run_id"])
        if number in workspace.runs:
            raise wrong("Retrieving the output of runs with multiple tasks is not supported.")
        run = self._run(workspace, number - 1)
        return {"metadata": run.shown(), "error": run.error, "logs": "", "logs_truncated": False}

    def jobs_runs_list(self, workspace, what):
        start = int(what.get("start_time_from", 0))
        found = [r.shown() for r in workspace.runs.values() if r.started >= start]
        found.reverse()
        at, limit = int(what.get("page_token", 0)), int(what.get("limit", 2))
        page = {"runs": found[at : at + limit], "has_more": len(found) > at + limit}
        return {**page, **({"next_page_token": str(at + limit)} if page["has_more"] else {})}

    # -- the DBFS API

    def _dbfs(self, workspace, path):
        place = workspace.dbfs / path.lstrip("/")
        if ".." in place.parts:
            raise wrong("Path must be absolute.")
        return place

    def _new(self, workspace, what):
        place = self._dbfs(workspace, what["path"])
        if place.exists() and not what.get("overwrite"):
            raise Answer(400, "RESOURCE_ALREADY_EXISTS", f"A file exists on path {what['path']}.")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def dbfs_put(self, workspace, what):
        data = base64.b64decode(what["contents"], validate=True)
        if len(data) > MB:
            raise Answer(400, "MAX_BLOCK_SIZE_EXCEEDED", "The block is too big.")
        _written(self._new(workspace, what), data)
        return {}

    def dbfs_create(self, workspace, what):
        handle = len(workspace.handles) + 1
        workspace.handles[handle] = (self._new(workspace, what), bytearray())
        return {"handle": handle}

    def dbfs_add_block(self, workspace, what):
        data = base64.b64decode(what["data"], validate=True)
        if len(data) > MB:
            raise Answer(400, "MAX_BLOCK_SIZE_EXCEEDED", "The block is too big.")
        self._open(workspace, what)[1].extend(data)
        return {}

    def dbfs_close(self, workspace, what):
        _written(*self._open(workspace, what))
        workspace.handles[what["handle"]] = None
        return {}

    def _open(self, workspace, what):
        found = workspace.handles.get(what["handle"])
        if not found:
            raise Answer(404, "RESOURCE_DOES_NOT_EXIST", "No stream has that handle.")
        return found

    def dbfs_read(self, workspace, what):
        length = int(what.get("length", 1 << 19))
        if length > MB:
            raise Answer(400, "MAX_READ_SIZE_EXCEEDED", "The read is too long.")
        try:
            with self._dbfs(workspace, what["path"]).open("rb") as file:
                file.seek(int(what.get("offset", 0)))
                data = file.read(length)
        except FileNotFoundError:
            raise absent(what["path"]) from None
        return {"bytes_read": len(data), "data": base64.b64encode(data).decode()}

    def dbfs_get_status(self, workspace, what):
        place = self._dbfs(workspace, what["path"])
        if not place.exists():
            raise absent(what["path"])
        return self._shown(workspace, place)

    def _shown(self, workspace, place):
        status = place.stat()
        return {
            "path": f"/{place.relative_to(workspace.dbfs)}",
            "is_dir": place.is_dir(),
            "file_size": 0 if place.is_dir() else status.st_size,
            "modification_time": status.st_mtime_ns // 1_000_000,
        }

    def dbfs_list(self, workspace, what):
        place = self._dbfs(workspace, what["path"])
        if not place.exists():
            raise absent(what["path"])
        return {"files": [self._shown(workspace, one) for one in sorted(place.iterdir())]}

    def dbfs_delete(self, workspace, what):
        place = self._dbfs(workspace, what["path"])
        if place.is_dir():
            if not what.get("recursive"):
                raise Answer(400, "IO_ERROR", "The directory is not empty.")
            shutil.rmtree(place, ignore_errors=True)
        elif place.exists():
            place.unlink()
        return {}

    # -- the Files API

    def _fs(self, workspace, path, query, data):
        is_file = path.startswith(FILES)
        name = path.removeprefix(FILES if is_file else FOLDERS)
        place = workspace.root / name.lstrip("/")
        if not name.startswith("/Volumes/") or ".." in place.parts:
            raise Answer(400, "INVALID_PARAMETER_VALUE", "The path is in no volume.")
        allowed = {("PUT", True): {"overwrite"}, ("GET", False): {"page_size", "page_token"}}
        if not set(query) <= allowed.get((self.command, is_file), set()):
            raise Answer(400, "MALFORMED_REQUEST", f"unknown parameters in {query}")
        call = getattr(self, f"fs_{self.command.lower()}_{'file' if is_file else 'folder'}")
        return call(place, query, data)

    def fs_put_file(self, place, query, data):
        if not place.parent.is_dir():
            raise Answer(404, "NOT_FOUND", "The directory being accessed is not found.")
        if place.exists() and query.get("overwrite") != "true":
            raise Answer(409, "ALREADY_EXISTS", "The file being created already exists.")
        _written(place, data)
        return b""

    def fs_get_file(self, place, _query, _data):
        if not place.is_file():
            raise Answer(404, "NOT_FOUND", "The file being accessed is not found.")
        return place.read_bytes()

    def fs_delete_file(self, place, _query, _data):
        if not place.is_file():
            raise Answer(404, "NOT_FOUND", "The file being accessed is not found.")
        place.unlink()
        return b""

    def fs_put_folder(self, place, _query, _data):
        place.mkdir(parents=True, exist_ok=True)
        return b""

    def fs_get_folder(self, place, query, _data):
        if not place.is_dir():
            raise Answer(404, "NOT_FOUND", "The directory being accessed is not found.")
        found = sorted(place.iterdir())
        at = int(query.get("page_token", 0))
        size = int(query.get("page_size", 3))  # small, so that there are pages
        root = self.server.workspace.root
        shown = [
            {
                "path": f"/{one.relative_to(root)}",
                "name": one.name,
                "is_directory": one.is_dir(),
                **(
                    {}
                    if one.is_dir()
                    else {
                        "file_size": one.stat().st_size,
                        "last_modified": one.stat().st_mtime_ns // 1_000_000,
                    }
                ),
            }
            for one in found[at : at + size]
        ]
        more = {"next_page_token": str(at + size)} if len(found) > at + size else {}
        return {"contents": shown, **more}

    def fs_delete_folder(self, place, _query, _data):
        if not place.is_dir():
            raise Answer(404, "NOT_FOUND", "The directory being accessed is not found.")
        if any(place.iterdir()):
            raise Answer(400, "DIRECTORY_NOT_EMPTY", "The directory is not empty.")
        place.rmdir()
        return b""


def _written(place, data):
    """Make a file appear whole, as object storage does."""
    half = place.with_name(f".{place.name}.{os.urandom(4).hex()}")
    half.write_bytes(bytes(data))
    half.replace(place)


def wheel(folder):
    """Write a wheel with one module and one program; give its digest."""
    name = "greeting-1.0.dist-info"
    files = {
        "greeting.py": "def main():\n    print('hello')\n",
        f"{name}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{name}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}/entry_points.txt": "[console_scripts]\ngreet = greeting:main\n",
    }
    files[f"{name}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{name}/RECORD"])
    folder.mkdir(parents=True)
    path = folder / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    (folder / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Server(ThreadingHTTPServer):
    """Listens on loopback."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


@contextmanager
def running(root, proofs=(f"Bearer {TOKEN}",)):
    """Give a workspace; `url` is its address, and `environ` what leads there."""
    workspace = Workspace(root)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.workspace, server.proofs = workspace, proofs
        workspace.url = f"http://127.0.0.1:{server.server_port}"
        workspace.environ = {
            "DATABRICKS_HOST": workspace.url,
            "DATABRICKS_TOKEN": TOKEN,
            "HOME": str(root),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield workspace
        finally:
            workspace.stop()
            server.shutdown()
            thread.join()

"""A package index on the loopback interface that can fail in many ways."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading


class Index:
    """Serves the files of a folder as a simple index (PEP 691).

    `login` is the one that is asked for, as `name:password` in base 64. `cut` are files of which
    only half is sent, `busy` is how many requests for files are answered by 503 first, and
    `closing_after` how many are served before the connection is only closed. `uploaded` are the
    times of files, by name.
    """

    def __init__(self, folder):
        self.folder = folder
        self.login = ""
        self.cut = set()
        self.busy = 0
        self.closing_after = None
        self.uploaded = {}
        self.requests = []
        handler = type("Handler", (_Handler,), {"index": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/simple"

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    @property
    def downloads(self):
        return [path.rpartition("/")[2] for path in self.requests if path.startswith("/files/")]

    def page(self, name):
        found = [
            path
            for path in sorted(self.folder.iterdir())
            if path.name.partition("-")[0].replace("_", "-") == name
        ]
        files = [
            {
                "filename": path.name,
                "url": f"http://{self.host}/files/{path.name}",
                "hashes": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
                "upload-time": self.uploaded.get(path.name, "2020-01-01T00:00:00Z"),
                "size": path.stat().st_size,
            }
            for path in found
        ]
        return {"meta": {"api-version": "1.1"}, "name": name, "files": files} if files else None


class _Handler(http.server.BaseHTTPRequestHandler):
    index = None

    def do_GET(self):
        index = self.index
        index.requests.append(self.path)
        if index.login and self.headers.get("Authorization") != f"Basic {index.login}":
            self.answer(401, b"", {"WWW-Authenticate": "Basic"})
        elif self.path.startswith("/simple/"):
            page = index.page(self.path.strip("/").rpartition("/")[2])
            kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
            self.answer(200 if page else 404, json.dumps(page or {}).encode(), kind)
        else:
            self.file(self.path.rpartition("/")[2])

    def file(self, name):
        index = self.index
        if index.closing_after is not None and len(index.downloads) > index.closing_after:
            self.close_connection = True
            self.connection.close()
            return
        if index.busy:
            index.busy -= 1
            self.answer(503, b"")
            return
        path = index.folder / name
        if not path.exists():
            self.answer(404, b"")
            return
        data = path.read_bytes()
        if name in index.cut:
            self.answer(200, data[: len(data) // 2], {"Content-Length": str(len(data))})
            self.close_connection = True
        else:
            self.answer(200, data)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_arguments):
        pass

"""A folder of advisories in OSV's form, and a server of the part of OSV that pip-audit asks."""

from __future__ import annotations

import http.server
import json
import threading
import zipfile

import pytest


def document(identifier, package="tiny", *, events=(), versions=(), **more):
    """One advisory; `events` are (kind, version) of one range."""
    affected = {"package": {"ecosystem": "PyPI", "name": package}}
    if events:
        rows = [{kind: version} for kind, version in events]
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": rows}]
    if versions:
        affected["versions"] = list(versions)
    return {
        "id": identifier,
        "modified": "2026-01-02T03:04:05Z",
        "summary": f"about {package}",
        "affected": [affected],
        **more,
    }


class Source:
    """A folder of advisories."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def add(self, *documents):
        for one in documents:
            (self.folder / f"{one['id']}.json").write_text(json.dumps(one))
        return self

    def zipped(self, path):
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(self.folder.iterdir()):
                archive.write(file, file.name)
        return path


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "osv")


@pytest.fixture
def home(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def serve():
    """Start a server on the loopback interface from a function (method, path, headers, body)."""
    running = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                length = int(self.headers.get("Content-Length") or 0)
                told = answer(self.command, self.path, self.headers, self.rfile.read(length))
                status, headers, body = told
                self.send_response(status)
                for name, text in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                self.do_GET()

            def log_message(self, *_words):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()

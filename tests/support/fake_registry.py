"""A registry that answers as a test tells it to, and notes what it was asked."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from repro import digest
from repro.images import manifests
from repro.images.registry import Registry
from repro.lockfiles.references import parse

LAYER = b"a layer"


def pin(data):
    return f"sha256:{digest.of_bytes(data)}"


def config(architecture="amd64", system="linux"):
    return json.dumps(
        {
            "architecture": architecture,
            "os": system,
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [pin(LAYER)]},
        }
    ).encode()


def manifest(data):
    """The manifest of a configuration."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": pin(data), "size": len(data)},
            "layers": [{"digest": pin(LAYER), "size": len(LAYER)}],
        }
    ).encode()


class Asked:
    """One request."""

    def __init__(self, handler):
        self.method, self.path = handler.command, handler.path
        self.headers = handler.headers
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.handler = handler


class FakeRegistry:
    """`answers` are functions by the beginning of a path: they get what was asked."""

    def __init__(self):
        self.asked = []
        self.answers = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                asked = Asked(self)
                outer.asked.append(asked)
                for path in sorted(outer.answers, key=len, reverse=True):
                    if asked.path.startswith(path):
                        reply = outer.answers[path](asked)
                        break
                else:
                    reply = (404, {}, b"{}")
                if reply is None:
                    self.close_connection = True
                    return
                status, headers, body = reply
                self.send_response(status)
                for name, text in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def __getattr__(self, name):
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, path, body, status=200, **headers):
        headers = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answers[path] = lambda _asked: (status, headers, body)

    def serve(self, repository="x", tag="1", data=None):
        """Serve an image; give the name of it."""
        data = data or config()
        text = manifest(data)
        for name in (tag, pin(text)):
            self.put(
                f"/v2/{repository}/manifests/{name}", text, Content_Type=manifests.MANIFESTS[0]
            )
        self.put(f"/v2/{repository}/blobs/{pin(data)}", data)
        self.put(f"/v2/{repository}/blobs/{pin(LAYER)}", LAYER)
        return f"{self.host}/{repository}:{tag}"

    @property
    def paths(self):
        return [asked.path for asked in self.asked]


@pytest.fixture
def fake():
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def other():
    """Another host, which has no business with us."""
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def registry(fake, tmp_path):
    with Registry(fake.host, {"HOME": str(tmp_path), "PATH": ""}) as opened:
        yield opened


@pytest.fixture
def reference(fake):
    return parse(f"{fake.host}/x:1")

"""Real servers for remote caches on loopback: nginx, two that speak S3, and a registry."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

ACCESS, SECRET = "reprokey", "reprosecret"
BUCKET = "cache"

NGINX = """\
{user}
worker_processes 2;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 100000;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    root {root}/data;
    location / {{
      dav_methods PUT;
      create_full_put_path on;
      autoindex on;
      autoindex_format json;
    }}
    location /private/ {{
      alias {root}/data/;
      auth_basic cache;
      auth_basic_user_file {root}/users;
    }}
    location /readonly/ {{ alias {root}/data/; }}
  }}
}}
"""
REGISTRY = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}/data}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


class Server:
    """A server: its URL for `REPRO_REMOTE`, the folder of its files, and variables it needs."""

    def __init__(self, url, data, environ=None):
        self.url = url
        self.data = pathlib.Path(data)
        self.environ = environ or {}

    def apart(self):
        """Give the URL of a place on this server where nothing is yet."""
        name = os.urandom(6).hex()
        if self.url.startswith("file:"):
            (self.data / name).mkdir()
        place, mark, query = self.url.partition("?")
        return f"{place}/{name}{mark}{query}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name, advice):
    """Give the path of a program; without it, skip, or fail where everything must run."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.path.exists(beside) else shutil.which(name, path="/usr/sbin:/usr/bin:/bin")
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed: {advice}")
        pytest.skip(advice)
    return found


@contextlib.contextmanager
def running(argv, port, log, environ=None):
    """Run a server until it is not needed any more."""
    with open(log, "wb") as out:
        child = subprocess.Popen(
            argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environ
        )
        try:
            _wait(child, port, log)
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait(child, port, log):
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert child.poll() is None, pathlib.Path(log).read_text()
        time.sleep(0.05)
    pytest.fail("the server does not listen: " + pathlib.Path(log).read_text())


@contextlib.contextmanager
def nginx(root):
    binary = program("nginx", "apt-get install nginx-light")
    port = free_port()
    for folder in ("data", "body"):
        (root / folder).mkdir()
    (root / "users").write_text("team:{PLAIN}sesame77\n")
    config = root / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(NGINX.format(root=root, port=port, user=user))
    argv = [binary, "-p", str(root), "-c", str(config), "-g", "daemon off;"]
    with running(argv, port, root / "log"):
        yield Server(f"http://127.0.0.1:{port}", root / "data")


@contextlib.contextmanager
def registry(root, more=""):
    binary = program("docker-registry", "apt-get install docker-registry")
    port = free_port()
    (root / "registry.yml").write_text(REGISTRY.format(root=root, port=port, more=more))
    argv = [binary, "serve", str(root / "registry.yml")]
    with running(argv, port, root / "log", {"PATH": "/usr/bin", "OTEL_TRACES_EXPORTER": "none"}):
        yield Server(f"oci://127.0.0.1:{port}/team/results", root / "data")


@contextlib.contextmanager
def rclone(root):
    binary = program("rclone", "pip install '.[test]'")
    port = free_port()
    (root / "data" / BUCKET).mkdir(parents=True)
    argv = [binary, "serve", "s3", "--auth-key", f"{ACCESS},{SECRET}"]
    argv += ["--addr", f"127.0.0.1:{port}", "--config", "/dev/null", str(root / "data")]
    with running(argv, port, root / "log", {"PATH": "/usr/bin", "HOME": str(root)}):
        url = f"s3://{BUCKET}/team/results?endpoint=http://127.0.0.1:{port}&region=us-east-1"
        yield Server(url, root / "data", aws())


@contextlib.contextmanager
def moto(root):
    program("moto_server", "pip install '.[test]'")
    from repro.remote import sigv4
    from repro.remote.credentials import AwsKeys

    port = free_port()
    start = "import sys; from moto.server import main; main(sys.argv[1:])"
    argv = [sys.executable, "-W", "ignore", "-c", start, "-H", "127.0.0.1", "-p", str(port)]
    with running(argv, port, root / "log", {"PATH": "/usr/bin:/bin", "HOME": str(root)}):
        import requests

        url = f"http://127.0.0.1:{port}/{BUCKET}"
        empty = {"x-amz-content-sha256": sigv4.digest.EMPTY}
        keys = AwsKeys(access=ACCESS, secret=SECRET)
        signed = sigv4.headers(keys, "us-east-1", "PUT", url, empty, at=time.time())
        requests.put(url, headers={**signed, **empty}, timeout=30).raise_for_status()
        yield Server(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{port}", root, aws())


def aws():
    return {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}


@contextlib.contextmanager
def folder(root):
    (root / "data").mkdir()
    yield Server(f"file://{root}/data", root / "data")


KINDS = {
    "nginx": nginx,
    "rclone": rclone,
    "moto": moto,
    "registry": registry,
    "folder": folder,
}

"""Repositories, remotes on loopback, and looks at projects as the engine takes them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from repro.machine import Machine
from repro.plan import Request

PROJECT = "entry_points: {main: {command: cat data.txt}}\n"
IDENTITY = {
    **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ada@example.org" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "1700000000 +0000" for who in ("AUTHOR", "COMMITTER")},
}
SETTINGS = [
    *("-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"),
    *("-c", "core.fsync=none", "-c", "maintenance.auto=false"),  # for speed alone
]


@pytest.fixture(autouse=True)
def own_variables(monkeypatch, environ):
    """Give Git, which reads the variables of this process, an empty home."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "XDG_", "REPRO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", environ["HOME"])


def git(folder, *words, data=None, fails=False, **variables):
    """Run Git as a user would; give what it prints."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *SETTINGS, *words],
        cwd=folder,
        env={**kept, **IDENTITY, **variables},
        input=data,
        stdin=None if data is not None else subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert fails or done.returncode == 0, done.stderr
    return os.fsdecode(done.stdout).strip()


@pytest.fixture(name="git")
def git_fixture():
    return git


@pytest.fixture(scope="session")
def git_once():
    """Run Git for what is made once a session, with no configuration but the repository's."""
    return functools.partial(git, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")


@pytest.fixture
def commit():
    """Commit everything in a work tree; give the commit id."""

    def make(folder, message="more"):
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
        return git(folder, "rev-parse", "HEAD")

    return make


@pytest.fixture(scope="session")
def blank(tmp_path_factory, git_once):
    """What `git init` makes."""
    folder = tmp_path_factory.mktemp("blank")
    git_once(folder, "init", "--quiet", "--template=")
    for name in ("info", "hooks"):
        (folder / ".git" / name).mkdir()
    return folder / ".git"


@pytest.fixture
def repository(project, commit, blank):
    """Make a work tree from file names and texts, with one commit."""

    def make(files=None, name="work"):
        folder = project(files or {"MLproject": PROJECT, "data.txt": "one\n"}, name=name)
        shutil.copytree(blank, folder / ".git", dirs_exist_ok=True)
        commit(folder)
        return folder

    return make


# -- looks at projects


@pytest.fixture
def told():
    """What the machine told of its progress."""
    return []


@pytest.fixture
def look(machine, told):
    """Take a project as the engine does, with a memory from one time to the next."""

    def take(uri, version="", caller="/"):
        tree = machine.tree(Request(uri=str(uri), version=version, caller=str(caller)), told.append)
        tree.remember()
        return tree

    return take


@pytest.fixture
def fresh(environ, tmp_path):
    """Take a project with a store that knows nothing; give its source."""

    def take(uri, version="", caller="/"):
        with tempfile.TemporaryDirectory(dir=tmp_path) as store:
            machine = Machine({**environ, "REPRO_HOME": store})
            try:
                request = Request(uri=str(uri), version=version, caller=str(caller))
                return machine.tree(request, lambda _text: None).source
            finally:
                machine.close()

    return take


@pytest.fixture
def rest():
    """Wait until a change is older than the ticks of the kernel's clock."""
    return lambda: time.sleep(0.03)


class Watch:
    """Every path that this process opened or listed, and every program it started, while on."""

    def __init__(self):
        self.on = False
        self.opened = []
        self.started = []
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if not self.on:
            return
        if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], (str, bytes)):
            self.opened.append(os.fsdecode(arguments[0]))
        elif event == "subprocess.Popen":
            self.started.append(list(arguments[1]))

    def below(self, folder):
        return [path for path in self.opened if path.startswith(str(folder))]

    def __enter__(self):
        self.opened, self.started, self.on = [], [], True
        return self

    def __exit__(self, *_error):
        self.on = False


@pytest.fixture(scope="session")
def watch():
    return Watch()


def state(folder):
    """Give everything of a folder: names, kinds, modes, times, contents."""
    found = {}
    for base, folders, names in os.walk(os.fsencode(folder)):
        for name in [b"", *folders, *names]:
            path = os.path.join(base, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(pathlib.Path(os.fsdecode(path)).read_bytes()).digest()
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found[path] = (status.st_mode, status.st_size, status.st_ino, *times, content)
    return found


@pytest.fixture(name="state")
def state_fixture():
    return state


@pytest.fixture
def canary(tmp_path):
    """A program that leaves a file when it runs, and that file."""

    class Canary:
        file = tmp_path / "canary-sang"
        program = tmp_path / "canary.sh"

        @property
        def sang(self):
            return self.file.exists()

    bird = Canary()
    bird.program.write_text(f"#!/bin/sh\ntouch '{bird.file}'\nexit 1\n")
    bird.program.chmod(0o755)
    return bird


# -- remotes


class Web(http.server.ThreadingHTTPServer):
    """Files, and the repositories below a folder by Git's own HTTP program."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.environ = dict(os.environ)
        self.files = {}
        self.password = ""
        self.protocol = 2
        self.asked = []
        self.authority = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.authority}"

    def handle_error(self, _request, _address):
        pass  # a client that hangs up is no news


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        path, _, query = self.path.partition("?")
        if self.server.password and not self.is_known():
            self.reply(401, b"", {"WWW-Authenticate": 'Basic realm="test"'})
        elif path in self.server.files:
            given = self.server.files[path]
            self.reply(*(given if isinstance(given, tuple) else (200, given)))
        elif "/info/refs" in path or path.endswith("/git-upload-pack"):
            self.git(path, query)
        else:
            self.reply(404, b"nothing here")

    def is_known(self):
        import base64

        words = self.headers.get("Authorization", "").split()
        return bool(words) and base64.b64decode(words[-1]).decode() == self.server.password

    def reply(self, code, body, headers=None):
        self.send_response(code)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def git(self, path, query):
        size = int(self.headers.get("Content-Length") or 0)
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(size),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if self.server.protocol else "",
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env={**self.server.environ, **variables},
            input=self.rfile.read(size),
            capture_output=True,
            check=False,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        code = int(headers.pop("Status", "200").split()[0])
        self.reply(code, body, headers)

    def log_message(self, *_words):
        pass


class Daemon(socketserver.ThreadingTCPServer):
    """Serves the repositories below a folder by the git protocol."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), DaemonHandler)
        self.folder = folder
        self.environ = dict(os.environ)
        self.url = f"git://127.0.0.1:{self.server_address[1]}"


class DaemonHandler(socketserver.BaseRequestHandler):
    def handle(self):
        subprocess.run(
            ["git", "daemon", "--inetd", "--export-all", f"--base-path={self.server.folder}"],
            stdin=self.request,
            stdout=self.request,
            stderr=subprocess.DEVNULL,
            env=self.server.environ,
            check=False,
        )


def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def served(tmp_path):
    """The folder whose repositories the servers serve."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def web(served):
    yield from serving(Web(served))


@pytest.fixture
def daemon(served):
    yield from serving(Daemon(served))


@pytest.fixture
def publish(served):
    """Put the commits of a work tree where the servers serve them; give the bare repository."""

    def copy(folder, name="p.git"):
        bare = served / name
        shutil.rmtree(bare, ignore_errors=True)
        shutil.copytree(folder / ".git", bare, ignore=shutil.ignore_patterns("index"))
        (bare / "config").write_text("[core]\nrepositoryformatversion = 0\nbare = true\n")
        return bare

    return copy

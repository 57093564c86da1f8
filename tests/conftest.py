"""What most tests begin with: an empty home, projects in folders, and a way to run them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from repro import api
from repro.api import ONE_BY_ONE
from repro.machine import Machine
from repro.plan import Request

pytest.register_assert_rewrite("repro.testing.contract")  # a suite of asserts that is shipped

REPOSITORY = pathlib.Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture
def environ(tmp_path):
    """Environment variables of a user with an empty home and a store of their own."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HOME": str(home),
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
        "REPRO_HOME": str(tmp_path / "store"),
        "REPRO_DATA": str(tmp_path / "data"),
        "LC_ALL": "C.UTF-8",
        "REPRO_SANDBOX": "none",  # many steps here leave marks outside of their tree
    }


@pytest.fixture
def network():
    """What a call needs that talks to a package index: certificates, mirrors and uv's cache."""
    prefixes = ("SSL_", "PIP_", "UV_", "REQUESTS_", "CURL_")
    found = {
        k: v
        for k, v in os.environ.items()
        if k.startswith(prefixes) or k.lower().endswith("_proxy")
    }
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "uv")
    return {"UV_CACHE_DIR": cache, **found}


@pytest.fixture
def machine(environ):
    opened = Machine(environ)
    yield opened
    opened.close()


@pytest.fixture
def project(tmp_path):
    """Make a project folder from file names and texts."""

    def make(files=None, /, name="project", **more):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for path, text in {**(files or {}), **more}.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text) if isinstance(text, str) else place.write_bytes(text)
        return folder

    return make


class Runner:
    """Runs projects in this process and keeps the events."""

    def __init__(self, environ):
        self.environ = environ
        self.events = []

    def __call__(
        self, folder, entry_point="main", *, synchronous=True, course=ONE_BY_ONE, **options
    ):
        self.events = []
        options.setdefault("env_manager", "local")
        request = Request(
            uri=str(folder), entry_point=entry_point, caller=options.pop("caller", "/"), **options
        )
        return api.submit(
            request,
            environ=self.environ,
            emit=self.events.append,
            synchronous=synchronous,
            course=course,
        )

    def named(self, name):
        return [e for e in self.events if type(e).__name__ == name]

    @property
    def printed(self):
        return b"".join(e.data for e in self.named("Output")).decode()

    @property
    def reason(self):
        return self.named("Missed")[0].reason


@pytest.fixture
def run(environ):
    return Runner(environ)


class Answer:
    """What a command line call gave."""

    def __init__(self, done):
        self.code = done.returncode
        self.out = done.stdout.decode("utf-8", "replace")
        self.err = done.stderr.decode("utf-8", "replace")

    @property
    def text(self):
        return self.out + self.err


def interpreter_variables():
    """Let a subprocess import repro from this checkout where it is not installed."""
    return {"PYTHONPATH": str(REPOSITORY)}


@pytest.fixture
def repro(environ, tmp_path):
    """Call the command line in a process of its own; a traceback always fails the test."""

    def call(*words, cwd=None, timeout=120, env=None, stdin=None, command=None):
        done = subprocess.run(
            [*(command or [sys.executable, "-m", "repro"]), *map(str, words)],
            cwd=cwd or tmp_path,
            env={**interpreter_variables(), **environ, **(env or {})},
            capture_output=True,
            timeout=timeout,
            check=False,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
        )
        answer = Answer(done)
        assert "Traceback" not in answer.err, answer.err
        return answer

    return call

"""Several machines at once, machines that die, and the commands that people type."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from conftest import REPOSITORY, interpreter_variables
from support import cache_rounds

from repro import digest, schemas
from repro.remote import envelope

ALL = ["folder", "moto", "nginx", "rclone", "registry"]


def start(tmp_path, name, url, environ):
    folder = tmp_path / name
    folder.mkdir()
    path = f"{REPOSITORY}:{REPOSITORY}/tests"
    return subprocess.Popen(
        [sys.executable, "-m", "support.cache_rounds", str(folder), url, name],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("kind", ALL)
def test_two_machines_share_for_twenty_rounds(servers, tmp_path, kind):
    server = servers(kind)
    url = server.apart()
    children = [start(tmp_path, name, url, server.environ) for name in ("one", "other")]
    told = [child.communicate(timeout=240)[0] for child in children]
    made = fetched = 0
    for child, text in zip(children, told, strict=True):
        assert child.returncode == 0, text
        counts = [int(word) for word in text.split()[:4]]
        assert counts[2:] == [0, 0], text
        made, fetched = made + counts[0], fetched + counts[1]
    assert made + fetched == 2 * cache_rounds.ROUNDS
    assert made >= cache_rounds.ROUNDS


# -- kill -9


def sound(server, url):
    """Whether every result in a remote of files names only blobs that are there and right."""
    name = url.partition("?")[0].rpartition("/")[2]
    root = next(p for p in server.data.rglob(name) if p.is_dir())
    wrong = [p.name for p in root.glob("cas/*") if digest.of_bytes(p.read_bytes()) != p.name]
    for place in root.glob("ac/*"):
        blobs = envelope.blobs_of(place.read_bytes())
        wrong += [n for n, size in blobs.items() if not is_there(root / "cas" / n, size)]
    return wrong == []


def is_there(path, size):
    return path.is_file() and path.stat().st_size == size


def command(one, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "repro", "cache", *words],
        env={**interpreter_variables(), **one.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def done(one, *words):
    child = command(one, *words)
    out, err = child.communicate(timeout=120)
    assert "Traceback" not in err, err
    return child.returncode, out, err


@pytest.mark.parametrize("kind", ["folder", "nginx", "rclone"])
@pytest.mark.parametrize("action", ["push", "pull"])
def test_the_next_command_heals_what_a_kill_left(servers, host, kind, action):
    """Kill the command at random moments; whatever it left, the next one ends well."""
    server = servers(kind)
    url = server.apart()
    environ = {"REPRO_REMOTE": url, **server.environ}
    one = host(environ)
    keys = fill(one)
    if action == "pull":
        assert done(one, "push")[0] == 0
    began = time.monotonic()
    probe = host(environ)
    fill(probe, "probe") if action == "push" else None
    assert done(probe, action)[0] == 0
    whole = time.monotonic() - began
    dice = random.Random(kind + action)
    killed = 0
    for number in range(20):
        if killed == 4:
            break
        victim = one if action == "push" else host(environ)
        fill(victim, f"more {number}") if action == "push" else None
        child = command(victim, action)
        time.sleep(dice.uniform(0.2, 0.9) * whole)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            killed += 1
        else:
            whole *= 0.7  # the machine is faster than it was
        child.communicate()
        assert kind == "rclone" or sound(server, url)  # it shows what it has got half of
        status, _out, err = done(victim, action)
        assert status == 0, err
        assert all(victim.read(key) is not None for key in keys)
        assert action == "pull" or sound(server, url)
        nothing_corrupt(victim)
    assert killed == 4
    fresh = host(environ)
    assert done(fresh, "pull")[0] == 0
    assert all(fresh.read(key) == one.read(key) for key in keys)


def fill(one, label="first"):
    return [
        one.make(f"{label} {i}", {"a": os.urandom(600_000), "b": os.urandom(2000)})
        for i in range(6)
    ]


def nothing_corrupt(one):
    for name, _size in list(one.machine.blobs.names()):
        assert one.machine.blobs.get(name) is not None


def test_what_was_offered_outlives_a_kill(servers, host, tmp_path):
    server = servers("folder")
    url = server.apart()
    one = host({"REPRO_REMOTE": url})
    hidden = pathlib.Path(url.removeprefix("file://"))
    hidden.rename(hidden.with_name("hidden"))
    key = one.make("x")
    code = (
        "import os, sys, pathlib; from support.cache_hosts import Host; "
        "h = Host(pathlib.Path(sys.argv[1])); s = h.share(sys.argv[2]); s.offer(sys.argv[3]); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(one.folder), url, key],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"},
        check=False,
    )
    hidden.with_name("hidden").rename(hidden)
    sharing = one.share()
    assert sharing.outbox.waiting() == [key]
    sharing.offer(one.make("y"))
    sharing.close()
    assert sharing.outbox.waiting() == []
    other = host({"REPRO_REMOTE": url})
    assert done(other, "pull", key)[0] == 0
    assert other.read(key) == one.read(key)


# -- the commands


PROJECT = (
    "name: p\nentry_points:\n  main:\n    command: 'echo made > out.txt'\n    outputs: [out.txt]\n"
)


def test_a_run_on_one_machine_is_a_hit_on_another(servers, project, repro, tmp_path):
    server = servers("nginx")
    homes = [
        {"REPRO_HOME": str(tmp_path / name / "store"), "REPRO_DATA": str(tmp_path / name / "data")}
        for name in ("one", "other")
    ]
    url = server.apart()
    folder = project(MLproject=PROJECT)
    ran = repro("run", folder, "--env-manager", "local", "--json", env=homes[0])
    run = json.loads(ran.out)
    assert (ran.code, run["cached"]) == (0, False)
    pushed = repro("cache", "push", run["run_id"][:8], "--remote", url, "--json", env=homes[0])
    document = json.loads(pushed.out)
    jsonschema.validate(document, schemas.load("cache-transfer"))
    assert (pushed.code, document["results"], document["action"]) == (0, 1, "push")
    (folder / "out.txt").unlink()
    pulled = repro("cache", "pull", env={**homes[1], "REPRO_REMOTE": url})
    assert pulled.code == 0, pulled.text
    assert pulled.out.startswith("pulled 1 result with ")
    again = repro("run", folder, "--env-manager", "local", "--json", env=homes[1])
    assert json.loads(again.out)["cached"] is True
    assert (folder / "out.txt").read_text() == "made\n"


def test_what_cannot_be_done_is_said(repro, servers):
    nothing = repro("cache", "push")
    assert (nothing.code, "no remote cache is named" in nothing.err) == (2, True)
    bad = repro("cache", "pull", "--remote", "ftp://x/y")
    assert bad.code == 2
    dead = repro("cache", "pull", "--remote", "http://127.0.0.1:9")
    assert (dead.code, "connection refused" in dead.err) == (7, True)
    assert repro("cache", "size", "1a2b").code == 2
    url = servers("folder").apart()
    assert repro("cache", "push", "--remote", url).code == 0
    absent = repro("cache", "pull", "0" * 64, "--remote", url)
    assert (absent.code, "1 failed" in absent.out) == (7, True)
    unknown = repro("cache", "pull", "abcdef", "--remote", url)
    assert unknown.code == 2
    unlistable = repro("cache", "pull", "--remote", f"{servers('nginx').url}/readonly")
    assert unlistable.code == 7
    assert "cannot list" in unlistable.err

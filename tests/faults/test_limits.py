"""Disks that are full, stores that are not ours, many processes at once, and kills at any time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

COUNTED = """\
entry_points:
  main:
    parameters: {{a: {{default: 0}}}}
    command: "echo x >> {count}; sleep {delay}; for i in 1 2 3; do echo {{a}} $i > o$i; done"
"""


@pytest.fixture
def command(environ):
    variables = {**environ, "PYTHONPATH": str(REPOSITORY)}

    def start(*words, **more):
        return subprocess.Popen(
            [sys.executable, "-m", "repro", *map(str, words)],
            env={**variables, **more.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )

    return start


def test_64_processes_on_one_step_execute_it_once(project, command, tmp_path):
    count = tmp_path / "count"
    folder = project(MLproject=COUNTED.format(count=count, delay=1))
    running = [command("run", folder, "--env-manager", "local", "--json") for _ in range(64)]
    answers = [(p.communicate(timeout=300), p.returncode) for p in running]
    assert [code for _out, code in answers] == [0] * 64, answers[0]
    runs = [json.loads(out) for (out, _err), _code in answers]
    assert count.read_text() == "x\n"
    assert sum(not run["cached"] for run in runs) == 1
    assert len({run["outputs"] for run in runs}) == 1


def test_the_others_go_on_when_the_leader_is_killed(project, command, tmp_path):
    count = tmp_path / "count"
    folder = project(MLproject=COUNTED.format(count=count, delay=2))
    leader = command("run", folder, "--env-manager", "local")
    while not count.exists():
        time.sleep(0.02)
    followers = [command("run", folder, "--env-manager", "local", "--json") for _ in range(8)]
    time.sleep(0.7)
    leader.kill()
    leader.communicate()
    answers = [(p.communicate(timeout=120), p.returncode) for p in followers]
    assert [code for _out, code in answers] == [0] * 8
    assert count.read_text().count("x") == 2
    waited = [err for (_out, err), _code in answers]
    assert any(b"waiting for process" in err for err in waited)


def test_kills_at_random_times_leave_nothing_wrong(project, command, repro, tmp_path):
    count = tmp_path / "count"
    folder = project(MLproject=COUNTED.format(count=count, delay=0.05))
    rng = random.Random(7)
    for round_ in range(25):
        process = command("run", folder, "--env-manager", "local", "-P", f"a={round_ % 3}")
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for value in range(3):
        answer = repro("run", folder, "--env-manager", "local", "-P", f"a={value}")
        assert answer.code == 0, answer.err
        assert [(folder / f"o{i}").read_text() for i in (1, 2, 3)] == [
            f"{value} {i}\n" for i in (1, 2, 3)
        ]
    runs = json.loads(repro("log", "-n", "0", "--json").out)["runs"]
    assert {run["status"] for run in runs} <= {"FINISHED", "KILLED"}
    repro("cache", "prune")
    assert os.listdir(tmp_path / "store/tmp") == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a given size, for root."""
    mounted = []

    def make(options):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
            check=False,
            capture_output=True,
        )
        if done.returncode:
            if os.environ.get("CI"):
                pytest.fail(f"cannot mount a tmpfs: {done.stderr.decode()}")
            pytest.skip("needs root: sudo mount -t tmpfs")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("options", ["size={n}k", "size=20m,nr_inodes={n}"])
def test_a_full_disk_is_one_clear_error(project, repro, small_disk, tmp_path, options):
    """At every level of fullness: success, or one line and exit 7; afterwards all is well."""
    text = "entry_points: {main: {command: 'head -c 200000 /dev/zero > big; echo 1 > small'}}\n"
    folder = project(MLproject=text)
    codes = []
    levels = [4, 24, 48, 80, 120, 200, 280, 360, 440, 520, 700, 2000]
    if "inodes" in options:
        levels = [2, 6, 10, 14, 18, 22, 26, 30, 34, 40, 50, 200]
    for level in levels:
        disk = small_disk(options.format(n=level))
        places = {"REPRO_HOME": f"{disk}/store", "REPRO_DATA": f"{disk}/data"}
        answer = repro("run", folder, "--env-manager", "local", env=places)
        codes.append(answer.code)
        assert answer.code in (0, 1, 7), answer.err
        if answer.code == 7:
            assert "no space left" in answer.err or "full" in answer.err, answer.err
        else:
            assert answer.code == 0 or "No space" in answer.err, answer.err
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=9999", str(disk)], check=True)
        again = repro("run", folder, "--env-manager", "local", env=places)
        assert again.code == 0, again.err
        assert (folder / "big").stat().st_size == 200_000
    assert 7 in codes
    assert codes[-1] == 0


def test_a_read_only_store_still_serves_hits(project, repro, small_disk):
    disk = small_disk("size=64m")
    places = {"REPRO_HOME": f"{disk}/store", "REPRO_DATA": f"{disk}/data"}
    folder = project(MLproject="entry_points: {main: {command: 'echo 1 > o'}}\n")
    assert repro("run", folder, "--env-manager", "local", env=places).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    hit = repro("run", folder, "--env-manager", "local", env=places)
    assert hit.code == 0, hit.err
    assert "hit" in hit.err
    miss = repro("run", folder, "-P", "x=1", "--env-manager", "local", env=places)
    assert miss.code == 7
    assert "read-only file system" in miss.err


def test_a_read_only_project_is_said_and_loses_nothing(project, repro, small_disk):
    disk = small_disk("size=8m")
    (disk / "MLproject").write_text("entry_points: {main: {command: 'echo 1 > o'}}\n")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    answer = repro("run", disk, "--env-manager", "local", "--json")
    assert answer.code == 7, answer.err
    (run,) = json.loads(repro("log", "--json").out)["runs"]
    assert run["status"] != "RUNNING"
    other = repro("run", disk, "--env-manager", "local", "-o", disk.parent / "out")
    assert other.code == 0
    assert (disk.parent / "out/o").read_text() == "1\n"


def test_a_store_of_a_later_version_is_left_alone(repro, environ, project):
    folder = project(MLproject="entry_points: {main: {command: 'true'}}\n")
    os.makedirs(environ["REPRO_HOME"])
    with open(environ["REPRO_HOME"] + "/FORMAT", "w") as file:
        file.write("repro-store 99\n")
    answer = repro("run", folder, "--env-manager", "local")
    assert answer.code == 2
    assert "upgrade repro" in answer.err
    assert os.listdir(environ["REPRO_HOME"]) == ["FORMAT"]


def test_a_store_that_is_open_to_everybody_is_refused(repro, environ, project):
    folder = project(MLproject="entry_points: {main: {command: 'true'}}\n")
    repro("run", folder, "--env-manager", "local")
    os.chmod(environ["REPRO_HOME"], 0o777)
    assert repro("run", folder, "--env-manager", "local").code == 7


def test_files_of_the_store_are_private(repro, environ, project):
    folder = project(MLproject="entry_points: {main: {command: 'echo 1 > o'}}\n")
    repro(
        "run",
        folder,
        "--env-manager",
        "local",
        command=["sh", "-c", f'umask 000; exec {sys.executable} -m repro "$@"', "sh"],
    )
    for base, folders, names in os.walk(environ["REPRO_HOME"]):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(base, name)).st_mode
            assert not mode & 0o022, (base, name, oct(mode))


def test_without_a_home(repro, project, tmp_path):
    folder = project(MLproject="entry_points: {main: {command: 'true'}}\n")
    places = {
        "HOME": "",
        "REPRO_HOME": "",
        "REPRO_DATA": "",
        "XDG_CACHE_HOME": str(tmp_path / "c"),
        "XDG_DATA_HOME": str(tmp_path / "d"),
    }
    assert repro("run", folder, "--env-manager", "local", env=places).code == 0
    assert (tmp_path / "c/repro/FORMAT").exists()
    assert (tmp_path / "d/repro/history.db").exists()


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "new\nline",
        "-dash",
        "~tilde",
        "ünï",
        "$(x)",
        "'quote'",
        '"double"',
        b"\xff\xfe",
        "a" * 200,
    ],
)
def test_project_folders_of_any_name(repro, tmp_path, name):
    folder = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    os.mkdir(folder)
    with open(os.path.join(folder, b"MLproject"), "w") as file:
        file.write("entry_points: {main: {command: 'echo 1 > o'}}\n")
    for word in ("miss", "hit"):
        answer = repro("run", ".", "--env-manager", "local", cwd=folder)
        assert answer.code == 0, answer.err
        assert word in answer.err
    assert os.path.exists(os.path.join(folder, b"o"))
    assert repro("log", "--json").code == 0
    assert repro("log").code == 0

"""What is Docker's own; what every backend has to do is in `repro.testing.contract`."""

import contextlib
import gc
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.parse

import pytest
from support.docker_engine import Line, docker_engine  # noqa: F401

from repro.backends import container
from repro.backends.docker import Docker
from repro.errors import EnvironmentFailed, Unreachable, UsageError
from repro.ports import Job
from repro.spec import Resources
from repro.testing.contract import Output

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(FOLDER))
HOST = os.path.join(FOLDER, "container_host.py")
PATH = {"PATH": "/bin:/usr/bin", "HOME": "/repro/home"}
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may be another user; run as root")


class Room:
    """An engine, and folders for jobs in it."""

    def __init__(self, engine, base):
        self.engine, self.base = engine, base
        self.backend = Docker(engine.environ)
        for name in ("work", "home", "tmp"):
            (base / name).mkdir()

    def job(self, *argv, **fields):
        variables = {**PATH, **fields.pop("variables", {})}
        given = {"run_id": self.base.name, "image": self.engine.image, "base": str(self.base)}
        return Job(
            argv=argv,
            variables=variables,
            folder=str(self.base / "work"),
            **{**given, **fields},
        )

    def run(self, *argv, **fields):
        output = Output()
        return self.backend.submit(self.job(*argv, **fields), output).wait(), output

    def sh(self, text, **fields):
        return self.run("sh", "-c", text, **fields)

    @contextlib.contextmanager
    def client(self):
        with contextlib.closing(self.engine.client()) as client:
            yield client.api

    def containers(self):
        with self.client() as client:
            return client.containers(
                all=True, filters={"label": f"{container.RUN}={self.base.name}"}
            )


@pytest.fixture
def room(docker_engine, tmp_path_factory):  # noqa: F811
    base = tmp_path_factory.mktemp("room")
    made = Room(docker_engine, base)
    made.base = base.rename(f"{base}-{os.urandom(4).hex()}")
    yield made
    assert made.containers() == []


@pytest.fixture
def variant(room):
    """Make an image that differs from the base by Dockerfile instructions."""
    made = []

    def build(*changes):
        with room.client() as client:
            identity = client.create_container(room.engine.image)["Id"]
            made.append(client.commit(identity, changes=list(changes))["Id"])
            client.remove_container(identity)
        return made[-1]

    yield build
    with room.client() as client:
        for identity in made:
            client.remove_image(identity)


# --- in a container ------------------------------------------------------------------------


def test_paths_inside_do_not_depend_on_this_machine(room):
    variables = {"HOME": str(room.base / "home"), "TMPDIR": str(room.base / "tmp")}
    end, output = room.sh('pwd; echo $HOME $TMPDIR; echo x >"$TMPDIR/file"', variables=variables)
    assert (end.code, output.out) == (0, b"/repro/work\n/repro/home /repro/tmp\n")
    assert (room.base / "tmp" / "file").read_text() == "x\n"


def test_options_reach_the_container(room):
    (room.base / "data").mkdir()
    (room.base / "data" / "file").write_text("bound")
    options = (
        ("volume", f"{room.base}/data:/data:ro"),
        ("tmpfs", "/scratch:size=1m"),
        ("hostname", "box"),
        ("user", "1234:5678"),
        ("env", "MORE=one"),
        ("shm-size", "3m"),
        ("memory", "100m"),
        ("network", "none"),
        ("t", None),
    )
    text = "cat /data/file; touch /data/x 2>/dev/null || echo; hostname; id -u; id -g; echo $MORE; df -k /dev/shm /scratch | awk '{print $2}'; ls /sys/class/net; [ -t 1 ] || echo no terminal"
    _, output = room.sh(text, container=options)
    words = output.out.decode().split("\n")
    assert words[:5] == ["bound", "box", "1234", "5678", "one"]
    assert words[6:8] == ["3072", "1024"]
    assert words[8:] == ["lo", "no terminal", ""]


def test_binds_are_as_they_are_asked_for(room, tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "file").write_text("in")
    binds = ((f"{tmp_path}/in", "/in", "ro"), (f"{tmp_path}/out", f"{tmp_path}/out", "rw"))
    text = f"cat /in/file >{tmp_path}/out/file; touch /in/x"
    end, output = room.sh(text, binds=binds)
    assert end.code != 0
    assert b"Read-only" in output.err
    assert (tmp_path / "out" / "file").read_text() == "in"


def test_a_bind_that_is_not_there_is_refused_and_not_made(room, tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path}/none"):
        room.sh("true", binds=((f"{tmp_path}/none", "/x", "rw"),))
    assert not (tmp_path / "none").exists()


def test_variables_and_entry_point_of_the_image_stay_where_the_job_has_none(room, variant):
    image = variant("ENV OWN=1", "ENV GIVEN=1", 'ENTRYPOINT ["env", "BEFORE=1"]', "WORKDIR /odd")
    _, output = room.run("sh", "-c", "pwd; env", image=image, variables={"GIVEN": "2"})
    assert set(output.out.decode().split()) == {
        "/repro/work", "PWD=/repro/work", "SHLVL=1", "OWN=1", "GIVEN=2", "BEFORE=1",
        *(f"{name}={value}" for name, value in PATH.items()),
    }  # fmt: skip
    _, output = room.run("echo", "a", image=image, container=(("entrypoint", ""),))
    assert output.out == b"a\n"


def test_a_volume_of_the_image_goes_with_the_container(room, variant):
    image = variant("VOLUME /data")
    with room.client() as client:
        before = len(client.volumes()["Volumes"] or ())
        assert room.sh("echo x >/data/x", image=image)[0].code == 0
        assert len(client.volumes()["Volumes"] or ()) == before


@as_root
def test_the_command_runs_as_the_caller_and_what_it_makes_is_the_callers(room):
    group = os.stat(urllib.parse.urlsplit(room.engine.host).path).st_gid
    for folder in (room.base, *room.base.iterdir()):
        os.chown(folder, 12345, 12345)
    for folder in list(room.base.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    asked = room.job("sh", "-c", "id -u; mkdir made; echo x >made/file")
    done = subprocess.run(
        [sys.executable, HOST, "12345"],
        input=json.dumps({**dumped(asked)}).encode(),
        env={"PYTHONPATH": ROOT, **room.engine.environ},
        extra_groups=[group],
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"12345\nended 0 exit\n", done.stderr
    made = room.base / "work" / "made" / "file"
    assert (made.stat().st_uid, made.parent.stat().st_uid) == (12345, 12345)


def dumped(job):
    fields = ("run_id", "argv", "variables", "folder", "base", "image")
    return {name: getattr(job, name) for name in fields}


def test_what_a_container_takes_is_seen(room):
    end, _ = room.sh(
        "x=$(head -c 60000000 /dev/zero | tr '\\0' x); while [ $((n += 1)) -lt 300000 ]; do :; done; sleep 2; :"
    )
    assert 40_000_000 < end.peak_bytes < 400_000_000
    assert 100e6 < end.user_ns + end.system_ns < end.wall_ns * 2


def test_a_step_in_an_image_that_is_there_loads_neither_the_docker_package_nor_http(room):
    environ = {**room.engine.environ, "HOME": str(room.base)}
    done = subprocess.run(
        [sys.executable, os.path.join(FOLDER, "container_loads.py"), room.engine.digest],
        input=json.dumps(dumped(room.job("echo", "said"))).encode(),
        env={"PYTHONPATH": ROOT, **environ},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"said\nended 0\n", done.stderr


# --- the loopback interface ----------------------------------------------------------------

ASK = "exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n%s' ${#BODY} \"$BODY\" >&3 && cat <&3"


@pytest.fixture
def receiver():
    """A server on the loopback interface that answers with what it got."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"got " + data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def asking(port, **more):
    return {
        "PORT": str(port),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "BODY": "b" * 50_000,
        **more,
    }


@as_root
@pytest.mark.parametrize(
    "fields", [{}, {"network": False}, {"container": (("network", "bridge"),)}]
)
def test_a_receiver_is_reached_from_any_network_from_the_first_moment(room, receiver, fields):
    end, output = room.run("bash", "-c", ASK, variables=asking(receiver), **fields)
    assert end.code == 0, output.err
    assert output.out.endswith(b"\r\n\r\ngot " + b"b" * 50_000)
    assert output.err == b""


@as_root
def test_without_a_network_nothing_else_is_reached(room, receiver):
    variables = asking(receiver, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    end, _ = room.run("bash", "-c", ASK, variables=variables, network=False)
    assert end.code != 0
    _, output = room.run("ls", "/sys/class/net", network=False)
    assert output.out == b"lo\n"


@as_root
@pytest.mark.parametrize(
    ("argv", "code"),
    [(("no-such",), 127), (("sh", "-c", "exit 7"), 7), (("printf", "%s", "$HOME ''"), 0)],
)
def test_a_command_that_was_held_back_is_run_as_it_is(room, receiver, argv, code):
    end, output = room.run(*argv, variables=asking(receiver), network=False)
    assert (end.code, output.out) == (code, b"$HOME ''" if code == 0 else b"")


@as_root
def test_a_user_without_rights_is_told_that_nothing_is_received(room, receiver):
    group = os.stat(urllib.parse.urlsplit(room.engine.host).path).st_gid
    for folder in list(room.base.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    asked = {**dumped(room.job("echo", "run", variables=asking(receiver))), "network": False}
    done = subprocess.run(
        [sys.executable, HOST, "12345"],
        input=json.dumps(asked).encode(),
        env={"PYTHONPATH": ROOT, **room.engine.environ},
        extra_groups=[group],
        capture_output=True,
        check=False,
    )
    assert done.stdout.endswith(b"run\nended 0 exit\n"), done.stderr
    assert b"only root" in done.stdout


# --- what goes wrong -----------------------------------------------------------------------


def test_a_job_without_an_image_is_refused(room):
    with pytest.raises(UsageError, match="has none"):
        room.sh("true", image="")


def test_an_image_that_is_not_there_is_explained(room):
    missing = "sha256:" + "0" * 64
    with pytest.raises(EnvironmentFailed, match="no image `sha256:000") as caught:
        room.sh("true", image=missing)
    assert "docker pull" in caught.value.hints[0]


@pytest.mark.parametrize("host", ["unix:///no/such/socket", "tcp://127.0.0.1:9"])
def test_a_daemon_that_is_not_there_is_explained(host):
    with pytest.raises(Unreachable, match=f"no docker daemon answers at {host}") as caught:
        Docker({"DOCKER_HOST": host}).submit(
            Job(run_id="r", argv=("true",), variables={}, folder="/", image="i"), Output()
        )
    assert "DOCKER_HOST" in caught.value.hints[0]


def test_accelerators_that_are_not_there_are_explained(room):
    with pytest.raises(UsageError, match="accelerators") as caught:
        room.sh("true", resources=Resources(gpus=1))
    assert "toolkit" in caught.value.hints[0]


def test_what_the_daemon_refuses_is_said_in_its_words(room):
    with pytest.raises(UsageError, match="CPUs"):
        room.sh("true", resources=Resources(cpus=10_000))
    with pytest.raises(UsageError, match="invalid mount"):
        room.sh("true", container=(("tmpfs", "relative"),))


def test_too_little_memory_is_said_in_words(room):
    text = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"
    end, output = room.run("bash", "-c", text, resources=Resources(memory=32 << 20))
    assert (end.code, end.cause) == (137, "exit")
    assert b"repro: the container's memory was not enough" in output.err


def begun(room, text="echo ready; sleep 600", **fields):
    output = Output()
    running = room.backend.submit(room.job("sh", "-c", text, **fields), output)
    assert output.heard(b"ready", 60)
    return running, output


def test_a_container_deleted_behind_our_back_is_lost(room):
    running, output = begun(room)
    with room.client() as client:
        client.remove_container(room.containers()[0]["Id"], force=True)
    end = running.wait()
    assert (end.code, end.cause) == (137, "lost")
    assert b"the container is gone" in output.err
    running.cancel()
    assert running.wait() == end


def test_a_container_killed_behind_our_back_has_ended_by_that(room):
    running, _ = begun(room)
    with room.client() as client:
        client.kill(room.containers()[0]["Id"])
    end = running.wait()
    assert (end.code, end.cause) == (137, "exit")


def test_a_container_is_found_by_its_run_and_can_be_cancelled(room):
    running, _ = begun(room)
    assert room.base.name not in room.backend.orphans()
    assert room.backend.find("no-such-run") is None
    found = room.backend.find(room.base.name)
    assert found.poll() is None
    found.cancel()
    assert found.wait().cause == "cancel"
    assert running.wait().code in (143, 137)


def test_the_container_of_a_process_that_was_killed_is_found_by_the_next(room):
    job = room.job("sh", "-c", "echo ready; sleep 600", grace_ms=200)
    process = subprocess.Popen(
        [sys.executable, HOST, "0" if os.getuid() == 0 else str(os.getuid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ROOT, **room.engine.environ},
    )
    with process:
        process.stdin.write(json.dumps({**dumped(job), "grace_ms": 200}).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert room.base.name in room.backend.orphans()
    room.backend.find(room.base.name).cancel()
    assert room.base.name not in room.backend.orphans()


def test_a_container_that_was_never_started_is_no_success(room):
    labels = {container.RUN: room.base.name, container.OWNER: f"{os.uname().nodename} earlier 1 1"}
    with room.client() as client:
        client.create_container(room.engine.image, ["true"], labels=labels)
    output = Output()
    assert room.backend.find(room.base.name, output).wait().cause == "lost"
    assert b"how it ended is not known" in output.err


@pytest.fixture
def line(room):
    if not room.engine.host.startswith("unix://"):
        pytest.skip("needs a daemon on a socket; unset DOCKER_HOST")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        made = Line(folder, room.engine.host)
        yield made
        made.cut()


def test_a_daemon_that_ends_half_way_is_said(room, line):
    output = Output()
    backend = Docker({"DOCKER_HOST": f"unix://{line.path}"})
    running = backend.submit(room.job("sh", "-c", "echo ready; sleep 600"), output)
    assert output.heard(b"ready", 60)
    line.cut()
    end = running.wait()
    assert (end.code, end.cause) == (137, "lost")
    assert b"or the docker daemon" in output.err
    running.cancel()
    with pytest.raises(Unreachable, match="no docker daemon answers"):
        backend.find(room.base.name)
    room.backend.find(room.base.name).cancel()
    gc.collect()

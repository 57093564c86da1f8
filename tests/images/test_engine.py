"""An engine by its API: a real one, by the line and by the docker package, and some that are not."""

import contextlib
import http.server
import json
import socketserver
import struct
import threading
import urllib.parse
import uuid

import pytest
from support.docker_engine import WORD

from repro.errors import EnvironmentFailed
from repro.images import daemon, engine
from repro.images.borrowed import Borrowed
from repro.images.engine import Engine
from repro.images.line import Broken, Line, Refused

# --- real ones -----------------------------------------------------------------------------


class Forwarder(socketserver.ThreadingTCPServer):
    """The engine's socket as a port."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, path):
        self.path = path
        super().__init__(("127.0.0.1", 0), Forwarded)


class Forwarded(socketserver.BaseRequestHandler):
    def handle(self):
        import socket

        with socket.socket(socket.AF_UNIX) as far:
            far.connect(self.server.path)
            there = threading.Thread(target=copied, args=(self.request, far))
            there.start()
            copied(far, self.request)
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_RD)
            there.join()


def copied(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(1)


@pytest.fixture(params=["socket", "port", "package"])
def real(request, docker_engine):
    """Variables for a real engine, by each of the ways to it."""
    path = urllib.parse.urlsplit(docker_engine.host).path
    if request.param == "socket" or not path:
        yield docker_engine.environ
        return
    with Forwarder(path) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        where = f"tcp://127.0.0.1:{server.server_address[1]}"
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9"} if request.param == "package" else {}
        yield {"DOCKER_HOST": where, **proxy}
        server.shutdown()


def frames(stream):
    data = b"".join(iter(lambda: stream.read(1 << 16), b""))
    while data:
        number, size = struct.unpack_from(">BxxxL", data)
        yield number, data[8 : 8 + size]
        data = data[8 + size :]


@contextlib.contextmanager
def container(found, image, text, **config):
    config = {"Image": image, "Cmd": ["sh", "-c", text], "Labels": {"mark": uuid.uuid4().hex}}
    made = found.create(config, None)
    try:
        yield made, config["Labels"]["mark"]
    finally:
        with contextlib.suppress(Refused):
            found.remove(made)


def test_a_container_goes_its_way(real, docker_engine):
    with (
        contextlib.closing(engine.connect(real)) as found,
        container(found, docker_engine.image, "echo out; echo \u00fc >&2; exit 3") as (made, mark),
    ):
        assert isinstance(found._line, Borrowed) == ("HTTP_PROXY" in real)
        with contextlib.closing(found.attach(made)) as stream:
            found.start(made)
            assert sorted(frames(stream)) == [(1, b"out\n"), (2, "\u00fc\n".encode())]
        with contextlib.closing(found.recorded(made)) as stream:
            assert sorted(frames(stream)) == [(1, b"out\n"), (2, "\u00fc\n".encode())]
        assert found.inspect(made)["State"]["ExitCode"] == 3
        (listed,) = found.containers(f"mark={mark}")
        assert (listed["Id"], listed["State"]) == (made, "exited")
        found.remove(made)
        assert found.containers(f"mark={mark}") == []
        with pytest.raises(Refused, match="(?i)no such container") as caught:
            found.inspect(made)
        assert caught.value.status == 404


def test_a_container_that_runs_is_reached(real, docker_engine):
    with (
        contextlib.closing(engine.connect(real)) as found,
        container(
            found, docker_engine.image, "trap 'exit 7' TERM; while :; do sleep 0.05; done"
        ) as (
            made,
            _,
        ),
    ):
        found.start(made)
        assert found.execute(made, ["sh", "-c", "echo much; exit 5"]) == 5
        assert found.execute(made, ["no-such-command"]) not in {0, None}
        assert found.stats(made)["memory_stats"]["usage"] > 0
        with contextlib.closing(found.attach(made)) as stream:
            found.kill(made, "SIGTERM")
            assert list(frames(stream)) == []
        assert found.inspect(made)["State"]["ExitCode"] == 7


def test_what_an_engine_is_and_has(real, docker_engine):
    with contextlib.closing(engine.connect(real)) as found:
        assert found.about()["Os"] == "linux"
        assert found.image(docker_engine.image)["Id"] == docker_engine.image
        assert found.image(docker_engine.digest)["Id"] == docker_engine.image
        assert found.image("no/such:image") is None
        assert not found.is_rootless()


def test_a_name_is_given_and_refused_the_second_time(real, docker_engine):
    name = f"repro-{uuid.uuid4().hex}"
    wanted = {"Image": docker_engine.image}
    with contextlib.closing(engine.connect(real)) as found:
        made = found.create(wanted, name)
        try:
            assert found.inspect(name)["Id"] == made
            with pytest.raises(Refused, match="already in use") as caught:
                found.create(wanted, name)
            assert caught.value.status == 409
        finally:
            found.remove(made)


# --- others --------------------------------------------------------------------------------


class Fake:
    """What answers is by path: status, headers and body."""

    def __init__(self, path):
        self.path, self.asked = path, []
        self.answers = {"/_ping": (200, {"Api-Version": "1.41", "Server": uuid.uuid4().hex}, b"OK")}
        handler = type("Handler", (Handler,), {"fake": self})
        self.server = socketserver.ThreadingUnixStreamServer(path, handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def environ(self):
        return {"DOCKER_HOST": f"unix://{self.path}", "DOCKER_CONFIG": "/nowhere"}

    def connect(self):
        return engine.connect(self.environ, 10)

    def says(self, path, document, status=200):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[path] = (status, {}, body)

    def ping(self, **headers):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers["/_ping"] = (200, {"Server": uuid.uuid4().hex, **given}, b"OK")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.fake.asked.append(self.path)
        status, headers, body = self.fake.answers.get(self.path, (404, {}, b'{"message": "none"}'))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        with contextlib.suppress(OSError):  # the head may have been enough
            self.end_headers()
            self.wfile.write(body)

    def address_string(self):
        return "unix"

    def send_header(self, name, value):
        if name != "Server" or "/" not in value:  # its own
            super().send_header(name, value)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def fake(tmp_path):
    made = Fake(str(tmp_path / "engine.sock"))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize(
    ("offered", "spoken"), [("1.40", "1.40"), ("1.41", "1.41"), ("1.51", "1.51"), ("1.99", "1.51")]
)
def test_the_newest_version_that_both_know_is_spoken(fake, offered, spoken):
    fake.ping(Api_Version=offered)
    fake.says(f"/v{spoken}/images/a/b:c/json", {"Id": "x"})
    assert fake.connect().image("a/b:c") == {"Id": "x"}
    assert fake.asked == ["/_ping", f"/v{spoken}/images/a/b:c/json"]


@pytest.mark.parametrize("offered", ["1.39", "1.9", "0.1", "", "new"])
@pytest.mark.parametrize("way", ["ping", "version"])
def test_an_engine_that_is_too_old_is_refused(fake, offered, way):
    fake.ping(**({"Api_Version": offered} if way == "ping" else {}))
    fake.says("/version", {"ApiVersion": offered, "Version": "18.09"})
    with pytest.raises(EnvironmentFailed, match=r"too old: docker 18\.09"):
        fake.connect()


def test_an_engine_that_says_its_version_only_when_asked_is_spoken_to(fake):
    fake.ping()
    fake.says("/version", {"ApiVersion": "1.43"})
    assert fake.connect().version == "1.43"


def test_podman_is_known_by_its_header(fake):
    assert not fake.connect().is_podman
    fake.ping(Api_Version="1.41", Libpod_Api_Version="4.3.1")
    assert fake.connect().is_podman


def test_what_an_engine_is_is_asked_once_until_it_is_another(fake):
    fake.says("/v1.41/version", {"Version": "one"})
    assert [fake.connect().name for _ in range(3)] == ["docker one"] * 3
    assert fake.asked.count("/v1.41/version") == 1
    fake.ping(Api_Version="1.41")
    fake.says("/v1.41/version", {"Version": "two"})
    assert fake.connect().name == "docker two"


def test_an_engine_that_is_not_known_to_be_the_machines_own_is_asked_once(fake):
    fake.says("/v1.41/info", {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]})
    fake.says("/v1.41/version", {"Os": "linux", "Arch": "aarch64"})
    for _ in range(2):
        found = fake.connect()
        assert not found.is_machines
        assert found.is_rootless()
        assert found.platform() == "linux/arm64"
    assert sorted(fake.asked) == ["/_ping", "/_ping", "/v1.41/info", "/v1.41/version"]
    fake.ping(Api_Version="1.41")
    fake.says("/v1.41/info", {"SecurityOptions": None})
    fake.says("/v1.41/version", {"Os": "linux", "Arch": "s390x"})
    assert not fake.connect().is_rootless()
    assert fake.connect().platform() == "linux/s390x"


def test_the_machines_own_engine_is_what_it_would_say(docker_engine):
    with contextlib.closing(engine.connect(docker_engine.environ)) as found:
        before = set(engine._known)
        assert found.platform() == WORD
        assert not found.is_rootless()
        assert set(engine._known) == before or not found.is_machines
        told = found.about()
        options = found._remembered("/info")["SecurityOptions"]
        assert f"{told['Os']}/{told['Arch']}" == WORD
        assert not any("rootless" in option for option in options)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "no \u00fc\u4e2d"}, "no \u00fc\u4e2d"),
        (b"plain words\n", "plain words\n"),
        (b'{"message": "\xff\xfe"}', "\ufffd\ufffd"),
        (b'{"other": 1}', '{"other": 1}'),
        (b"[" * 100_000, "[" * 100_000),
        (b"", ""),
    ],
)
def test_a_refusal_is_told_in_the_engines_words(fake, body, said):
    fake.says("/v1.41/containers/x/json", body, status=418)
    with pytest.raises(Refused) as caught:
        fake.connect().inspect("x")
    assert (caught.value.status, caught.value.said, str(caught.value)) == (418, said, said)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_document_that_is_none_is_broken(fake, body):
    fake.says("/v1.41/containers/x/json", body)
    with pytest.raises(Broken, match="cannot be read"):
        fake.connect().inspect("x")


@pytest.mark.parametrize("status", [401, 500])
def test_an_engine_that_refuses_or_breaks_is_named_to_whoever_wants_its_images(fake, status):
    fake.says("/v1.41/images/x/json", {"message": "why"}, status=status)
    with (
        pytest.raises(EnvironmentFailed, match="fails") as caught,
        daemon.connected(fake.environ) as found,
    ):
        found.inspect("x")
    assert caught.value.hints == ("why",)


def test_names_are_quoted_for_a_path():
    assert engine.quoted("host:5000/a/b@sha256:0") == "host:5000/a/b%40sha256:0"
    assert engine.quoted("\u00fc x?#%\r\n") == "%C3%BC%20x%3F%23%25%0D%0A"


def test_a_line_to_nowhere_is_no_engine(tmp_path):
    with pytest.raises(Broken):
        Engine(Line(f"unix://{tmp_path}/none", 1, {}), "")

"""The line to an engine against real sockets whose other ends say what an engine never would."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest

from repro.images import configuration, line
from repro.images.line import Broken, Line

OK = b"HTTP/1.1 200 OK\r\n"
LISTEN = """
import os, socket, sys
os.setuid(1234)
socket.socket(fileno=int(sys.argv[1])).listen()
print("listening", flush=True)
sys.stdin.read()
"""
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Other:
    """The other end: gives what `say` writes for each request, and keeps the requests."""

    def __init__(self, listener, say):
        self.asked, self._listener, self._say = [], listener, say
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    self.asked.append(received(connection))
                    self._say(connection)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def received(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    while len(body) < size:
        body += connection.recv(65536)
    return head.decode(), body


@pytest.fixture
def other(tmp_path):
    """Start another end that says some bytes, or does what it is told; give a line to it."""
    made = []

    def start(say, seconds=10.0, **headers):
        text = say if isinstance(say, bytes) else b""
        path = str(tmp_path / f"{len(made)}.sock")
        listener = socket.create_server(path, family=socket.AF_UNIX)
        made.append(Other(listener, say if callable(say) else lambda c: c.sendall(text)))
        found = Line(f"unix://{path}", seconds, headers)
        found.other = made[-1]
        return found

    yield start
    for one in made:
        one.close()


def told(answer, most=65536):
    with contextlib.closing(answer):
        return b"".join(iter(lambda: answer.read(most), b""))


# --- what is as it should be ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello and more", b"hello"),
        (OK + b"content-length:5\r\n\r\nhello", b"hello"),
        (OK + b"\r\nhello\r\n", b"hello\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200\n\nhello", b"hello"),
        (CHUNKED + b"5\r\nhello\r\n1;why=x\r\n!\r\n0\r\n\r\n", b"hello!"),
        (CHUNKED + b"0A\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n", b"0123456789"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        (b"HTTP/1.1 101 UPGRADED\r\nContent-Length: 0\r\n\r\n\1\0raw", b"\1\0raw"),
        (b"HTTP/1.1 500 \xff\xfe\r\nX: \xe9\r\nContent-Length: 2\r\n\r\n\xff\xfe", b"\xff\xfe"),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 16])
def test_an_answer_is_read_however_it_comes(other, said, body, step):
    def say(connection):
        for start in range(0, len(said), step):
            connection.sendall(said[start : start + step])

    answer = other(say).ask("GET", "/x")
    assert answer.status == int(said.split()[1])
    assert told(answer, 3) == body


def test_a_request_is_sent_as_an_engine_takes_it(other):
    way = other(OK + b"\r\n", **{"X-Meta": "mine"})
    told(way.ask("POST", "/v1.41/x?y=1", {"name": "\u00fc\u4e2d"}))
    told(way.ask("GET", "/y"))
    told(way.attach("/v1.41", "id"))
    (post, body), (get, nothing), (attach, _) = way.other.asked
    lines = post.split("\r\n")
    assert lines[0] == "POST /v1.41/x?y=1 HTTP/1.1"
    assert {"Host: localhost", "X-Meta: mine", "Connection: close"} < set(lines)
    assert json.loads(body) == {"name": "\u00fc\u4e2d"}
    assert get.startswith("GET /y HTTP/1.1\r\n")
    assert nothing == b""
    assert attach.startswith("POST /v1.41/containers/id/attach?stdout=1&stderr=1&stream=1 ")
    assert "\r\nUpgrade: tcp\r\n" in attach


def test_an_engine_is_reached_over_tcp():
    listener = socket.create_server(("127.0.0.1", 0))
    far = Other(listener, lambda connection: connection.sendall(OK + b"\r\nhello"))
    where = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    assert told(Line(where, 10, {}).ask("GET", "/")) == b"hello"
    assert f"Host: {where[6:]}\r\n" in far.asked[0][0]
    far.close()


def test_what_never_ends_is_followed_beyond_any_limit_and_can_be_ended(other):
    over = threading.Event()

    def say(connection):
        connection.sendall(CHUNKED + b"5\r\nfirst\r\n")
        time.sleep(0.3)
        connection.sendall(b"5\r\nlater\r\n")
        over.wait(30)

    answer = other(say, 0.1).follow("/logs")
    with contextlib.closing(answer):
        assert (answer.read(100), answer.read(100)) == (b"first", b"later")
        threading.Timer(0.05, answer.end).start()
        with pytest.raises(Broken, match="half-way"):
            answer.read(100)
    over.set()


def test_what_is_raw_is_at_its_end_when_it_is_ended(other):
    over = threading.Event()

    def say(connection):
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\nfirst")
        over.wait(30)

    answer = other(say).attach("", "id")
    with contextlib.closing(answer):
        assert answer.read(100) == b"first"
        threading.Timer(0.05, answer.end).start()
        assert answer.read(100) == b""
    over.set()


def test_memory_does_not_grow_with_what_is_said(other):
    piece = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))

    def say(connection):
        connection.sendall(CHUNKED)
        for _ in range(200):
            connection.sendall(piece)
        connection.sendall(b"0\r\n\r\n")

    with contextlib.closing(other(say).follow("/logs")) as answer:
        tracemalloc.start()
        size = sum(len(data) for data in iter(lambda: answer.read(1 << 16), b""))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert size == 200 << 20
    assert peak < 2 << 20


# --- what is not ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK",
        OK,
        OK + b"Content-Length: 5\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        CHUNKED,
        CHUNKED + b"5\r\nhell",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhello world\r\n0\r\n\r\n",
        CHUNKED + b"\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5_0\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"f" * 16 + b"\r\nhello",
        CHUNKED + "\u0665\r\nhello\r\n0\r\n\r\n".encode(),
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 1000,
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: five\r\n\r\nhello",
        OK + b"Content-Length: \r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        OK + b"Content-Length: \xb2\r\n\r\nhello",
        OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"no header\r\n\r\nhello",
        OK + b"A: b\r\n" * 1000 + b"\r\nhello",
        OK + b"A: " + b"b" * 100_000 + b"\r\n\r\nhello",
        b"x" * 200_000,
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"\0\n" * 100,
    ],
)
def test_what_is_no_whole_answer_is_broken_and_nothing_else(other, said):
    with pytest.raises(Broken) as caught:
        told(other(said).ask("GET", "/"))
    assert str(caught.value)


@pytest.mark.parametrize("said", [b"", OK, OK + b"Content-Length: 9\r\n\r\nhello", CHUNKED + b"5"])
def test_an_engine_that_does_not_go_on_is_not_waited_for(other, said):
    over = threading.Event()

    def say(connection):
        connection.sendall(said)
        over.wait(30)

    with pytest.raises(Broken, match="timed out"):
        told(other(say, 0.1).ask("GET", "/"))
    over.set()


def test_an_engine_that_hangs_up_at_once_is_broken(other):
    way = other(lambda connection: connection.close())
    with pytest.raises(Broken):
        way.ask("POST", "/", {"much": "x" * 10_000_000})


def test_where_nobody_listens_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for where, why in (
        (f"unix://{tmp_path}/none", "No such file"),
        (f"unix://{tmp_path}/{'long' * 50}", "too long"),
        (f"unix://{tmp_path}/a\0b", "No such file"),
        (f"tcp://{'a' * 100}.x:1", "too long"),
        (f"unix://{tmp_path}", "refused|denied"),
        (f"tcp://127.0.0.1:{port}", "refused"),
    ):
        with pytest.raises(Broken, match=why):
            Line(where, 10, {}).ask("GET", "/")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who listens")
def test_the_program_that_listens_is_known_if_it_is_roots(other):
    way = other(OK + b"\r\n")
    with open("/proc/self/comm") as file:
        ours = file.read().strip()
    assert way.program() == (ours if os.getuid() == 0 else "")
    assert Line("tcp://127.0.0.1:9", 10, {}).program() == ""


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes others; run as root")
def test_the_program_of_another_user_is_not_known(tmp_path):
    path = f"{tmp_path}/theirs"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    child = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child, listener:
        assert child.stdout.readline() == b"listening\n"
        assert Line(f"unix://{path}", 10, {}).program() == ""
        child.communicate()


# --- which engines are spoken to -----------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "environ", "is_plain"),
    [
        ("unix:///var/run/docker.sock", {}, True),
        ("unix:///var/run/docker.sock", {"DOCKER_TLS_VERIFY": "1", "HTTP_PROXY": "x"}, True),
        ("tcp://127.0.0.1:2375", {}, True),
        ("tcp://127.0.0.1:2375/", {"DOCKER_TLS_VERIFY": "", "HTTP_PROXY": ""}, True),
        ("tcp://[::1]:2375", {}, True),
        ("tcp://host:2376", {"DOCKER_TLS_VERIFY": "1"}, False),
        ("tcp://host:2376", {"DOCKER_CERT_PATH": "/certs"}, False),
        ("tcp://host:2375", {"http_proxy": "http://proxy:1"}, False),
        ("tcp://host:2375", {"ALL_PROXY": "http://proxy:1"}, False),
        ("tcp://host:2375/below", {}, False),
        ("tcp://host", {}, False),
        ("tcp://:2375", {}, False),
        ("https://host:2376", {}, False),
        ("ssh://me@host", {}, False),
        ("npipe:////./pipe/docker_engine", {}, False),
        ("host:2375", {}, False),
    ],
)
def test_only_plain_ways_are_gone_alone(where, environ, is_plain):
    assert line.is_plain(where, environ) is is_plain


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ('{"HttpHeaders": {"X-A": "b"}, "auths": {}}', {"X-A": "b"}),
        ('{"HttpHeaders": {"X-A": "b\\r\\nX-B: c", "X\\n": "c", "X-C": 1}}', {}),
        ('{"HttpHeaders": ["X-A"]}', {}),
        ("[]", {}),
        ("{", {}),
        ("[" * 100_000, {}),
    ],
)
def test_headers_of_the_users_configuration_are_taken_if_they_are_headers(tmp_path, text, headers):
    (tmp_path / "config.json").write_text(text)
    assert configuration.headers({"DOCKER_CONFIG": str(tmp_path)}) == headers
    assert configuration.headers({"DOCKER_CONFIG": str(tmp_path / "none")}) == {}

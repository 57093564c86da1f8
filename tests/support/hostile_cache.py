"""A cache over HTTP that works, until it is told to misbehave in one of many ways."""

from __future__ import annotations

import gzip
import http.server
import re
import threading
import time

import pytest

PATH = re.compile(r"/(ac|cas)/([0-9a-f]{64})")
SLOW = 0.05


class Cache(http.server.ThreadingHTTPServer):
    """`stored` is what it has, by path. `mood` misbehaves for the kinds in `kinds`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored = {}
        self.mood = self.put_mood = self.head_mood = None
        self.kinds = ("ac", "cas")
        self.seen = []
        self.ended = threading.Event()
        self.counts = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def good(self):
        self.mood = self.put_mood = self.head_mood = None
        self.seen.clear()
        self.counts.clear()

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up are what is tested."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_args):
        pass

    def data(self):
        """What a well-behaved cache would answer with."""
        return self.server.stored.get(self.path)

    def times(self):
        """How often this path was asked for, this time included."""
        counts = self.server.counts
        counts[self.path] = counts.get(self.path, 0) + 1
        return counts[self.path]

    def reply(self, status, body=b"", /, **headers):
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        data = self.data()
        if data is None:
            self.reply(404)
        else:
            self.reply(200, data)

    def is_meant(self):
        found = PATH.match(self.path)
        return found is not None and found[1] in self.server.kinds

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        mood = self.server.mood if self.command == "GET" else self.server.head_mood
        if mood is not None and (self.is_meant() or not PATH.match(self.path)):
            mood(self)
        else:
            self.serve()
        self.wfile.flush()

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.server.put_mood is not None and self.is_meant():
            self.server.put_mood(self)
            return
        self.keep()

    def keep(self, status=201):
        self.server.stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(status)

    def drop(self):
        self.close_connection = True

    def wait(self):
        """Do nothing until the test is over."""
        self.close_connection = True
        self.server.ended.wait(30)


@pytest.fixture
def cache():
    """Start a cache."""
    server = Cache()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


# -- ways to misbehave when something is read


def cut_short(h):
    data = h.data() or b"x" * 20
    h.reply(200, data[: len(data) // 2], Content_Length=str(len(data)))
    h.drop()


def cut_short_and_said_so(h):
    h.reply(200, (h.data() or b"xx")[:-1])


def cut_short_without_a_length(h):
    h.close_connection = True
    h.send_response(200)
    h.end_headers()
    h.wfile.write((h.data() or b"xx")[:-1])


def wrong_bytes(h):
    data = bytearray(h.data() or b"xx")
    data[len(data) // 2] ^= 4
    h.reply(200, bytes(data))


def too_much(h):
    h.reply(200, (h.data() or b"") + b"more")


def endless(h):
    h.reply(200, Transfer_Encoding="chunked")
    while not h.server.ended.is_set():
        h.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def promises_more(h):
    h.reply(200, h.data() or b"", Content_Length="99999999")
    h.drop()


def promises_less(h):
    h.reply(200, h.data() or b"xxxxx", Content_Length="3")
    h.drop()


def negative_length(h):
    h.reply(200, h.data() or b"x", Content_Length="-5")
    h.drop()


def a_length_that_is_no_number(h):
    h.reply(200, h.data() or b"x", Content_Length="many")
    h.drop()


def drips(h):
    h.reply(200, Content_Length="1000000")
    drip(h, b"x")


def drips_headers(h):
    h.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    drip(h, b"y")


def drip(h, piece):
    h.close_connection = True
    while not h.server.ended.is_set():
        h.wfile.write(piece)
        h.wfile.flush()
        time.sleep(SLOW)


def hangs(h):
    h.wait()


def hangs_in_the_middle(h):
    h.reply(200, (h.data() or b"xx")[:1], Content_Length=str(len(h.data() or b"xx")))
    h.wfile.flush()
    h.wait()


def hangs_up(h):
    h.drop()


def speaks_no_http(h):
    h.wfile.write(b"\x00\x01\x02 220 ftp ready\r\n\r\n")
    h.drop()


def redirects_in_circles(h):
    h.reply(302, Location=h.path)


def redirects_for_ever(h):
    h.reply(307, Location=f"/x{time.monotonic_ns()}")


def redirects_elsewhere_without_tls(h):
    h.reply(302, Location=f"http://localhost:{h.server.server_port}/stolen")


def redirects_to_a_file(h):
    h.reply(302, Location="file:///etc/passwd")


def redirects_nowhere(h):
    h.reply(302)


def redirects_to_nonsense(h):
    h.reply(302, Location="http://[::1")


def redirects_to_a_login_page(h):
    if PATH.match(h.path):
        h.reply(302, Location="/login")
    else:
        login_page(h)


def login_page(h):
    h.reply(200, b"<!doctype html><title>Log in</title>" * 20, Content_Type="text/html")


def always(status, **headers):
    def mood(h):
        h.reply(status, b"no", **headers)

    mood.__name__ = f"answers_{status}" + "".join(f"_{v}" for v in headers.values())
    return mood


def gzip_bomb(h):
    h.reply(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")


def compressed_unasked(h):
    h.reply(200, gzip.compress(h.data() or b""), Content_Encoding="gzip")


def nothing(h):
    h.reply(200)


def a_part_unasked(h):
    h.reply(206, (h.data() or b"xx")[1:], Content_Range="bytes 1-9/10")


def swaps(h):
    """Answer with what is stored under another name of the same kind."""
    kind = PATH.match(h.path)[1] if PATH.match(h.path) else "cas"
    others = [d for p, d in sorted(h.server.stored.items()) if f"/{kind}/" in p and p != h.path]
    h.reply(200, others[0] if others else b"other")


def many_headers(h):
    h.send_response(200)
    for number in range(500):
        h.send_header(f"X-{number}", "x")
    h.end_headers()
    h.drop()


def a_long_header(h):
    h.reply(200, b"x", X="y" * 100_000)
    h.drop()


def resumes_wrongly(h):
    if "Range" not in h.headers:
        cut_short(h)
    else:
        h.reply(206, b"something else", Content_Range="bytes 0-13/99")


def resumes_with_other_bytes(h):
    asked = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
    if asked is None:
        cut_short(h)
    else:
        data = h.data() or b"x" * 20
        start = int(asked[1])
        rest = b"z" * (len(data) - start)
        h.reply(206, rest, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")


def breaks_every_time(h):
    """Give ten bytes whatever is asked, and hang up."""
    h.reply(200, (h.data() or b"x" * 20)[:10], Content_Length="20")
    h.drop()


HARMFUL = [
    cut_short,
    cut_short_and_said_so,
    cut_short_without_a_length,
    wrong_bytes,
    too_much,
    endless,
    promises_more,
    promises_less,
    drips,
    drips_headers,
    hangs,
    hangs_in_the_middle,
    hangs_up,
    speaks_no_http,
    redirects_in_circles,
    redirects_for_ever,
    redirects_elsewhere_without_tls,
    redirects_to_a_file,
    redirects_nowhere,
    redirects_to_nonsense,
    redirects_to_a_login_page,
    login_page,
    always(500),
    always(503, Retry_After="3600"),
    always(429, Retry_After="7200"),
    always(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"),
    always(204),
    always(304),
    always(400),
    always(401),
    always(403),
    always(404),
    always(410),
    always(418),
    gzip_bomb,
    compressed_unasked,
    nothing,
    a_part_unasked,
    swaps,
    many_headers,
    a_long_header,
    resumes_wrongly,
    resumes_with_other_bytes,
    breaks_every_time,
]


# -- hiccups that are got over


def fails_once(h):
    if h.times() == 1:
        h.reply(500)
    else:
        h.serve()


def busy_once(h):
    if h.times() == 1:
        h.reply(429, Retry_After="1")
    else:
        h.serve()


def hangs_up_once(h):
    if h.times() == 1:
        h.drop()
    else:
        h.serve()


def cut_once_and_resumes(h):
    asked = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
    data = h.data()
    if data is None:
        h.serve()
    elif asked is None:
        cut_short(h)
    else:
        start = int(asked[1])
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        h.reply(206, data[start:], Content_Range=span)


def cut_once_and_begins_again(h):
    if h.times() == 1 and h.data():
        cut_short(h)
    else:
        h.serve()


def redirects_once(h):
    if h.path.startswith("/x/"):
        h.path = h.path.removeprefix("/x")
        h.serve()
    else:
        h.reply(307, Location=f"/x{h.path}")


def without_a_length(h):
    data = h.data()
    h.close_connection = True
    h.send_response(200 if data is not None else 404)
    h.end_headers()
    h.wfile.write(data or b"")


def in_chunks(h):
    data = h.data()
    if data is None:
        h.reply(404)
        return
    h.reply(200, Transfer_Encoding="chunked")
    for at in range(0, len(data), 100):
        piece = data[at : at + 100]
        h.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    h.wfile.write(b"0\r\n\r\n")


HARMLESS = [
    fails_once,
    busy_once,
    hangs_up_once,
    cut_once_and_resumes,
    cut_once_and_begins_again,
    redirects_once,
    without_a_length,
    in_chunks,
]


# -- ways to misbehave when something is written


def loses_what_it_takes(h):
    h.rfile.read(int(h.headers["Content-Length"]))
    h.reply(201)


def keeps_half(h):
    data = h.rfile.read(int(h.headers["Content-Length"]))
    h.server.stored[h.path] = data[: len(data) // 2]
    h.reply(201)


def says_no_at_once(h):
    h.reply(403)
    h.drop()


def refuses_after_reading(status, **headers):
    def mood(h):
        h.rfile.read(int(h.headers["Content-Length"]))
        h.reply(status, b"no", **headers)

    mood.__name__ = f"uploads_answered_{status}"
    return mood


def hangs_on_uploads(h):
    h.rfile.read(int(h.headers["Content-Length"]))
    h.wait()


def never_reads(h):
    h.wait()


def hangs_up_on_uploads(h):
    h.drop()


UPLOADS = [
    loses_what_it_takes,
    keeps_half,
    says_no_at_once,
    *(refuses_after_reading(status) for status in (400, 401, 403, 405, 409, 412, 413, 500, 507)),
    refuses_after_reading(307, Location="http://localhost/stolen"),
    refuses_after_reading(429, Retry_After="3600"),
    hangs_on_uploads,
    never_reads,
    hangs_up_on_uploads,
]

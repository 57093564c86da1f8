"""The parts of sharing on their own: the message, the crew, the fuse."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import digest
from repro.remote import envelope
from repro.remote.crew import Crew
from repro.remote.fuse import Fuse
from repro.remote.port import Bytes, Denied, File, Part, Unanswered, Unfit

names = st.binary(max_size=5).map(digest.of_bytes)


@given(st.binary(max_size=300), st.dictionaries(names, st.integers(0, 2**62), max_size=5))
def test_a_message_comes_back(record, blobs):
    if envelope.MARK in record:
        return
    signature = envelope.MARK + b"abc\n"
    data = envelope.encode(record, signature, blobs)
    assert envelope.decode(data) == (record, signature)
    assert envelope.blobs_of(data) == blobs


def test_the_message_is_the_one_of_the_protocol():
    """Written by hand after remote_execution.proto: output_files = 2, stdout_raw = 5."""
    name = digest.of_bytes(b"x")
    inner = b"\x0a\x40" + name.encode() + b"\x10\xac\x02"
    file = b"\x0a\x40" + name.encode() + b"\x12" + bytes([len(inner)]) + inner
    expected = b"\x12" + bytes([len(file) & 0x7F | 0x80, len(file) >> 7]) + file + b"\x2a\x02hi"
    assert envelope.encode(b"hi", b"", {name: 300}) == expected


def test_fields_that_a_server_adds_are_left_out():
    data = envelope.encode(b"hi", b"", {})
    added = b"\x20\x07" + b"\x4a\x03\x0a\x01w" + b"\x09" + bytes(8) + b"\x0d" + bytes(4)
    assert envelope.decode(added + data + added) == (b"hi", b"")


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(data):
    for read in (envelope.decode, envelope.blobs_of):
        try:
            read(data)
        except Unfit:
            pass


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_damage_makes_the_reader_fail_otherwise(at, byte):
    data = bytearray(envelope.encode(b"record", b"", {digest.EMPTY: 5, digest.of_bytes(b"x"): 9}))
    data[at % len(data)] = byte
    try:
        envelope.decode(bytes(data))
        envelope.blobs_of(bytes(data))
    except Unfit:
        pass


def test_a_crew_gives_what_came_of_each():
    def work(item):
        if item == 3:
            raise Denied("three")
        return item * 2

    found = Crew(4, 5).each(work, range(6))
    assert isinstance(found.pop(3), Denied)
    assert found == [0, 2, 4, 8, 10]
    assert Crew(4, 5).each(work, []) == []


def test_a_crew_passes_on_what_is_a_bug():
    def work(_item):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Crew(2, 5).each(work, [1, 2])


def test_a_crew_that_is_stuck_is_left_behind():
    stuck = threading.Event()
    began = time.monotonic()
    found = Crew(2, 0.2).each(lambda item: stuck.wait(20) if item else "done", [0, 1, 2])
    assert time.monotonic() - began < 10
    assert found[0] == "done"
    assert all(isinstance(f, Unanswered) and f.dead for f in found[1:])
    stuck.set()


def test_a_crew_that_moves_is_waited_for():
    crew = Crew(1, 0.3)
    sink = crew.sink(lambda _data: None)

    def work(_item):
        for _ in range(8):
            time.sleep(0.1)
            sink(b"x")
        return "done"

    assert crew.each(work, [1]) == ["done"]


class Scripted:
    """A remote whose every answer is an error, or nothing."""

    name = "it"
    read_only = False

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    def get(self, *_args, **_options):
        self.asked += 1
        error = self.errors.pop(0) if self.errors else None
        if error:
            raise error
        return True

    put = has = get

    def close(self):
        pass


def outcomes(fuse, times, action=lambda fuse: fuse.get("cas", "x", print)):
    found = []
    for _ in range(times):
        try:
            found.append(action(fuse))
        except (Unanswered, Denied) as error:
            found.append(str(error))
    return found


def test_a_fuse_blows_at_once_where_nobody_is():
    remote = Scripted(Unanswered("gone", dead=True))
    assert outcomes(Fuse(remote), 3) == ["gone"] * 3
    assert remote.asked == 1


def test_a_fuse_blows_after_three_failures_in_a_row():
    failure = Unanswered("500")
    remote = Scripted(failure, failure, None, failure, failure, failure)
    fuse = Fuse(remote)
    assert outcomes(fuse, 8) == ["500", "500", True, "500", "500", "500", "500", "500"]
    assert remote.asked == 6


def test_a_remote_that_forbids_reading_is_not_asked_again():
    remote = Scripted(Denied("403", always=True))
    assert outcomes(Fuse(remote), 2) == ["403", "403"]
    assert remote.asked == 1


def test_a_remote_that_forbids_writing_is_read_on():
    remote = Scripted(Denied("too large"), Denied("405", always=True))
    fuse = Fuse(remote)
    put = lambda fuse: fuse.put("cas", "x", Bytes(b""))  # noqa: E731
    assert outcomes(fuse, 3, put) == ["too large", "405", "takes no uploads"]
    assert outcomes(fuse, 1) == [True]
    assert remote.asked == 3


def test_sources_give_their_parts(tmp_path):
    data = bytes(range(256)) * 3000
    (tmp_path / "f").write_bytes(data)
    for source in (Bytes(data), File(str(tmp_path / "f"), len(data))):
        assert b"".join(source.pieces()) == data
        assert b"".join(source.pieces(5, 300_000)) == data[5:300_000]
        part = Part(source, 10, 400_000)
        assert part.size == 399_990
        assert b"".join(part.pieces()) == data[10:400_000]
        assert b"".join(part.pieces(100, 200)) == data[110:210]

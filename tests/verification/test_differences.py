"""How two contents differ, in the words that suit what they are."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.verification.differences import PNG, Detail, look

EARLY, LATE = (2020, 1, 2, 3, 4, 6), (2021, 1, 2, 3, 4, 6)


def zipped(members, time=EARLY, mode=0o644):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=time)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return file.getvalue()


def tarred(members, mtime=1, uid=0):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(data), mtime, uid
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def png(width, *chunks):
    found = [(b"IHDR", struct.pack(">II5B", width, 1, 8, 0, 0, 0, 0)), *chunks, (b"IEND", b"")]
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in found
    )


def array(*values):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({len(values)},)}}\n".encode()
    body = struct.pack(f"<{len(values)}d", *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


CASES = {
    "lines": (b"a\nb\nc\n", b"a\nB\nc\n", "text", ("line 2", "b", "B")),
    "an added line": (b"a\nc\n", b"a\nb\nc\n", "text", ("line 2", "(none)", "b")),
    "ends of lines": (b"a\n", b"a\r\n", "text", ("ends of the lines", "0 with CR LF, 1 with LF", "1 with CR LF, 0 with LF")),
    "a value of JSON": (b'{"a": {"b": [1, 2]}}', b'{"a": {"b": [1, 3]}}', "JSON", ("$.a.b[1]", "2", "3")),
    "a key of JSON": (b'{"a": 1}', b'{"a": 1, "b": 2}', "JSON", ("$.b", "(none)", "2")),
    "the length of a list": (b"[1]", b"[1, 2]", "JSON", ("$ (length)", "1", "2")),
    "a time in a zip": (zipped({"x": b"1"}), zipped({"x": b"1"}, LATE), "zip", ("x: time", "2020-01-02 03:04:06", "2021-01-02 03:04:06")),
    "a mode in a zip": (zipped({"x": b"1"}), zipped({"x": b"1"}, mode=0o600), "zip", ("x: mode", "0o644", "0o600")),
    "a member of a zip": (zipped({"x": b"1"}), zipped({"x": b"1", "y": b""}), "zip", ("member y", "(none)", "(there)")),
    "a line in a zip": (zipped({"x": b"1\n2\n"}), zipped({"x": b"1\n3\n"}), "zip", ("x: line 2", "2", "3")),
    "an order in a zip": (zipped({"x": b"1", "y": b"2"}), zipped({"y": b"2", "x": b"1"}), "zip", ("order of the members", "x y", "y x")),
    "a time in a tar": (tarred({"x": b"1"}), tarred({"x": b"1"}, mtime=2), "tar", ("x: time", "1", "2")),
    "an owner in a tar": (tarred({"x": b"1"}), tarred({"x": b"1"}, uid=7), "tar", ("x: owner", "0:0 :", "7:0 :")),
    "the header of gzip": (gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=2), "gzip", ("gzip header: time", "1", "2")),
    "a line in gzip": (gzip.compress(b"x\n", mtime=1), gzip.compress(b"y\n", mtime=1), "gzip of text", ("line 1", "x", "y")),
    "a tar in gzip": (gzip.compress(tarred({"x": b"1"}), mtime=1), gzip.compress(tarred({"x": b"1"}, 2), mtime=1), "gzip of tar", ("x: time", "1", "2")),
    "a number of an array": (array(1.0, 2.0), array(1.0, 2.5), "array", ("[1]", "2.0", "2.5")),
    "the shape of an array": (array(1.0), array(1.0, 2.0), "array", ("header", "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}")),
    "arrays in npz": (zipped({"w.npy": array(1.0)}), zipped({"w.npy": array(3.0)}), "zip", ("w.npy: [0]", "1.0", "3.0")),
    "the size of an image": (png(1), png(2), "PNG image", ("size", "1x1", "2x1")),
    "a text in an image": (png(1, (b"tEXt", b"date 1")), png(1, (b"tEXt", b"date 2")), "PNG image", ("chunk tEXt", "date 1", "date 2")),
    "a pickle": (pickle.dumps([1, 2]), pickle.dumps([1, 3]), "pickle", None),
    "bytes": (b"\0\1\2", b"\0\1\3", "binary", ("byte 2", "02", "03")),
    "a number of bytes": (b"\0\1", b"\0\1\2", "binary", ("size", "2 bytes", "3 bytes")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_differs_is_named(name):
    before, after, kind, detail = CASES[name]
    found = look(before, after)
    assert found.kind == kind
    assert found.count >= 1
    if detail:
        assert found.details[0] == Detail(place=detail[0], before=detail[1], after=detail[2])


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (b"a\nb\n", b"b\na\n", "order"),
        (b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}', "order"),
        (zipped({"x": b"", "y": b""}), zipped({"y": b"", "x": b""}), "order"),
        (zipped({"x": b""}), zipped({"x": b""}, LATE), "time"),
        (tarred({"x": b""}), tarred({"x": b""}, mtime=2), "time"),
        (gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=2), "time"),
        (png(1, (b"tIME", b"1234567")), png(1, (b"tIME", b"1234568")), "time"),
    ],
)
def test_what_the_form_tells_is_a_cause(before, after, cause):
    assert cause in look(before, after).causes


def test_only_the_first_of_many_differences_are_shown_and_all_are_counted():
    before = b"".join(b"%d\n" % n for n in range(500))
    found = look(before, before.replace(b"1", b"x"))
    assert len(found.details) == 10
    assert found.count > 100


def test_an_archive_that_holds_very_much_is_compared_as_bytes():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(65 << 20))
    data = file.getvalue()
    assert look(data, data[:-1] + b"x").kind == "binary"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_differs_is_seen(before, after):
    for head in (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x1f\x8b\x08\0", PNG, b"{"):
        if before != after:
            assert look(head + before, head + after).count >= 1


@given(st.integers(0, 600), st.binary(min_size=1, max_size=300))
def test_a_damaged_archive_is_still_compared(at, noise):
    for data in (zipped({"a": b"text\n" * 20}), tarred({"a": b"text\n" * 20})):
        damaged = data[:at] + noise + data[at + len(noise) :]
        if damaged != data:
            assert look(data, damaged).count >= 1

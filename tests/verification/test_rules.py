"""Whether two contents are equal, to the bit or within a tolerance."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.spec import Compare
from repro.verification import rules

EXACT = Compare(pattern="*")
LOOSE = Compare(pattern="*", rule="numeric", rtol="1e-3")
ABSOLUTE = Compare(pattern="*", rule="numeric", atol="0.5")


def npy(values, kind="<f8"):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({len(values)},), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    code = {"<f8": "<d", "<f4": "<f", ">i4": ">i"}[kind]
    body = b"".join(struct.pack(code, value) for value in values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def npz(**arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(f"{name}.npy", npy(values))
    return file.getvalue()


def encoded(value):
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("before", "after", "rule", "expected"),
    [
        (b"1.0", b"1.0", EXACT, True),
        (b"1.0", b"1.00", EXACT, False),
        (b"1.0", b"2.0", Compare(pattern="*", rule="ignore"), True),
        (b"loss 1.0000\n", b"loss 1.0004\n", LOOSE, True),
        (b"loss 1.0000\n", b"loss 1.0020\n", LOOSE, False),
        (b"loss 1.0\n", b"cost 1.0\n", LOOSE, False),
        (b"1.0 2.0\n", b"1.0\n", LOOSE, False),
        (b"a,1e-3\nb,nan\n", b"a,0.001\nb,nan\n", LOOSE, True),
        (b"1", b"1.4", ABSOLUTE, True),
        (b"1", b"1.6", ABSOLUTE, False),
        (b"\xff\xfe1.0", b"\xff\xfe1.0001", LOOSE, False),
        (encoded({"a": 1.0, "b": [1, 2]}), encoded({"b": [1, 2], "a": 1.0001}), LOOSE, True),
        (encoded({"a": 1.0}), encoded({"a": 1.1}), LOOSE, False),
        (encoded({"a": 1.0}), encoded({"a": 1.0, "b": 1}), LOOSE, False),
        (encoded({"a": True}), encoded({"a": 1}), LOOSE, False),
        (encoded([1, 2]), encoded([1, 2, 3]), LOOSE, False),
        (npy([1.0, 2.0]), npy([1.0001, 2.0]), LOOSE, True),
        (npy([1.0, 2.0]), npy([1.1, 2.0]), LOOSE, False),
        (npy([1.0, 2.0]), npy([1.0]), LOOSE, False),
        (npy([1.0], "<f8"), npy([1.0], "<f4"), LOOSE, False),
        (npy([1000], ">i4"), npy([1001], ">i4"), LOOSE, True),
        (npz(w=[1.0], b=[0.5]), npz(w=[1.0001], b=[0.5]), LOOSE, True),
        (npz(w=[1.0]), npz(v=[1.0]), LOOSE, False),
        (npz(w=[1.0]), npz(w=[2.0]), LOOSE, False),
        (gzip.compress(b"1.0", mtime=1), gzip.compress(b"1.0001", mtime=2), LOOSE, True),
        (gzip.compress(b"1.0", mtime=1), gzip.compress(b"1.1", mtime=2), LOOSE, False),
    ],
)
def test_contents_are_equal_by_their_rule(before, after, rule, expected):
    assert rules.agree(before, after, rule) is expected


def test_the_last_rule_that_fits_counts():
    wanted = (Compare(pattern="out", rule="ignore"), Compare(pattern="out/a.json", rule="exact"))
    assert rules.rule_for("out/a.json", wanted).rule == "exact"
    assert rules.rule_for("out/b.json", wanted).rule == "ignore"
    assert rules.rule_for("other", wanted) == rules.EXACT


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_content_is_too_strange_to_be_compared(before, after):
    for head in (b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x1f\x8b\x08", b"{", b"["):
        one, other = head + before, head + after
        assert rules.agree(one, one, LOOSE)
        assert rules.agree(one, other, LOOSE) in (True, False)


def test_an_array_that_runs_code_is_not_read():
    header = b"{'descr': __import__('os').abort()}"
    evil = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    assert not rules.agree(evil, evil + b"x", LOOSE)


def test_a_small_file_that_unpacks_to_very_much_is_left_packed():
    bomb = gzip.compress(bytes(rules.LIMIT + 1))
    assert rules.unpacked(bomb) is bomb
    assert rules.unpacked(gzip.compress(b"fine")) == b"fine"

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import canonical, digest

texts = st.text(st.characters(codec="utf-8")) | st.binary(max_size=20).map(
    lambda b: b.decode("utf-8", "surrogateescape")
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_decode_gives_back_what_encode_took(data):
    assert canonical.decode(canonical.encode(data)) == data


@given(plain)
def test_the_encoding_is_json_without_freedom(data):
    expected = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert canonical.encode(data).decode() == expected


@given(st.dictionaries(texts, st.integers(0, 9), max_size=6))
def test_the_order_of_keys_does_not_matter(data):
    backwards = dict(reversed(data.items()))
    assert canonical.encode(data) == canonical.encode(backwards)


@pytest.mark.parametrize(
    "data", [1.0, float("nan"), {1: 2}, {"a": {2}}, b"x", object(), 2**63, [1.5], (None, {3: 1})]
)
def test_what_two_machines_could_write_differently_is_refused(data):
    with pytest.raises(canonical.NotCanonical):
        canonical.encode(data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"1.5", b"NaN", b"[1] 2", b"{'a':1}", b"\xff", b"[" * 100_000, b'"a']
)
def test_what_is_no_canonical_json_is_refused(data):
    with pytest.raises(canonical.NotCanonical):
        canonical.decode(data)


def test_equal_data_of_two_kinds_has_two_digests():
    assert digest.of_value("a", [1]) != digest.of_value("b", [1])


def test_a_digest_of_many_pieces_is_that_of_the_whole():
    data = bytes(range(256)) * 1000
    pieces = [data[i : i + 777] for i in range(0, len(data), 777)]
    assert digest.of_chunks(pieces) == digest.of_bytes(data)
    assert digest.of_bytes(b"") == digest.EMPTY == digest.of_chunks([])


def test_a_keyed_digest_needs_the_secret():
    assert digest.keyed(b"k1", "value") != digest.keyed(b"k2", "value")
    assert digest.keyed(b"k1", "value") == digest.keyed(b"k1", "value")

"""Conda's package requests: against a table, and against the solver's own reading of them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import matchspec
from repro.matchspec import MatchSpec, Version, parse

BUILDS = [
    ("1.2", "b_0"),
    ("1.2", "c_0"),
    ("1.2.0", "b_0"),
    ("1.2.3", "b_0"),
    ("1.2a1", "b_0"),
    ("1.20", "b_0"),
    ("1.3", "b_0"),
    ("2.5", "b_0"),
    ("3.8.13", "h_0"),
]
ANY = "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0 1.20/b_0 1.3/b_0 2.5/b_0 3.8.13/h_0"
MEANINGS = {
    "numpy": ANY,
    "Numpy": ANY,
    "numpy *": ANY,
    "numpy=*": ANY,
    "numpy=1.2": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0",
    "numpy = 1.2": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0",
    "numpy 1.2.*": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0",
    "numpy 1.2*": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0",
    "numpy==1.2.*": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.2a1/b_0",
    "numpy==1.2": "1.2/b_0 1.2/c_0 1.2.0/b_0",
    "numpy 1.2": "1.2/b_0 1.2/c_0 1.2.0/b_0",
    "numpy=1.2=b_0": "1.2/b_0 1.2.0/b_0",
    "numpy==1.2=b_0": "1.2/b_0 1.2.0/b_0",
    "numpy 1.2 b_0": "1.2/b_0 1.2.0/b_0",
    "numpy=3.8.13=h_0": "3.8.13/h_0",
    "numpy * c_*": "1.2/c_0",
    "numpy=*=h_0": "3.8.13/h_0",
    "numpy >=1.3 ^[hx]_0$": "3.8.13/h_0",
    "numpy >= 1.2, < 2": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.20/b_0 1.3/b_0",
    "numpy >=1.2.*": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.20/b_0 1.3/b_0 2.5/b_0 3.8.13/h_0",
    "numpy!=1.2.*": "1.20/b_0 1.3/b_0 2.5/b_0 3.8.13/h_0",
    "numpy!=1.2": "1.2.3/b_0 1.2a1/b_0 1.20/b_0 1.3/b_0 2.5/b_0 3.8.13/h_0",
    "numpy~=1.2": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.2.3/b_0 1.20/b_0 1.3/b_0",
    "numpy ~=1.2.3": "1.2.3/b_0",
    "numpy 1.2|1.3": "1.2/b_0 1.2/c_0 1.2.0/b_0 1.3/b_0",
    "numpy 1.2|>=2,<3": "1.2/b_0 1.2/c_0 1.2.0/b_0 2.5/b_0",
    "numpy (1.2|1.3),<1.3": "1.2/b_0 1.2/c_0 1.2.0/b_0",
    "numpy >1.3,<=2.5": "1.20/b_0 2.5/b_0",
    "numpy 1!1.2": "",
    'numpy[version=">=1.3,<2",build="b*"]': "1.20/b_0 1.3/b_0",
    "conda-forge::numpy=2": "2.5/b_0",
}
MALFORMED = [
    "",
    "=1",
    "numpy=",
    "numpy==",
    "numpy>=",
    "numpy>=1,",
    "numpy ,>=1",
    "numpy 1..2",
    "numpy 1.2 b c",
    "numpy[",
    "numpy[version]",
    "numpy[color=blue]",
    "numpy@1",
    "numpy ~1.2",
    "numpy===1",
    "numpy (1.2",
    "numpy 1.2)",
    "num:py",
    "https://a.org/linux-64/numpy-1-0.conda",
    "numpy 1.2 ^[$",
    "numpy>1.2<2",
    "x" * 3000,
]


def matching(spec):
    return " ".join(f"{v}/{b}" for v, b in BUILDS if spec.has_version(v) and spec.has_build(b))


@pytest.mark.parametrize(("text", "meant"), MEANINGS.items())
def test_what_a_request_means(text, meant):
    spec = parse(text)
    assert spec.name == "numpy"
    assert matching(spec) == meant
    assert matching(parse(str(spec))) == meant


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_request(text):
    with pytest.raises(ValueError, match="."):
        parse(text)


def test_the_parts_of_a_request():
    assert parse("conda-forge/linux-64::NumPy >=1 b*") == MatchSpec(
        name="numpy", version=">=1", build="b*", channel="conda-forge/linux-64"
    )
    assert parse(f"numpy[sha256={'AB' * 32}]").digest == "ab" * 32


@pytest.mark.parametrize(
    ("requests", "together"),
    [
        (["python >=3.8", "python <4"], ">=3.8,<4"),
        (["python", "python >=3.8"], ">=3.8"),
        (["python 3.8.*|3.9.*", "python !=3.9.1"], "(3.8.*|3.9.*),!=3.9.1"),
        (["python 3.11.*", "python 3.11.* *_cp311"], "3.11.* *_cp311"),
    ],
)
def test_several_requests_for_one_package(requests, together):
    assert matchspec.joined(requests) == together
    parse(f"python {together}")


def test_versions_are_ordered_as_conda_orders_them():
    ordered = [
        "0.4",
        "0.4.1.rc",
        "0.4.1",
        "0.5a1",
        "0.5b3",
        "0.5",
        "0.9.6",
        "0.960923",
        "1.0",
        "1.1dev1",
        "1.1a1",
        "1.1.0dev1",
        "1.1.a1",
        "1.1.0rc1",
        "1.1.0",
        "1.1.0post1",
        "1996.07.12",
        "1!0.4.1",
        "1!3.1.1.6",
        "2!0.4.1",
    ]
    found = [Version(text) for text in ordered]
    for number, one in enumerate(found):
        assert all(one.compare(other) < 0 for other in found[number + 1 :])
        assert one.compare(Version(one.text)) == 0


def test_a_long_number_is_no_trap():
    assert Version("1." + "9" * 1900).compare(Version("2")) < 0


@settings(max_examples=300)
@given(
    st.text(max_size=40)
    | st.from_regex(re.compile(r"[a-z]{1,3}[ =<>!~|,()\[\]0-9a-z.*_:^$\"-]{0,20}"), fullmatch=True)
)
def test_any_text_is_a_request_or_refused(text):
    try:
        spec = parse(text)
    except ValueError:
        return
    spec.has_version("1.2")
    spec.has_build("b_0")
    assert parse(str(spec)).name == spec.name


# What the solver says is asked in a process of its own, which ends at once: see its worker.
JUDGE = """
import json, os, sys
from rattler import BuildString, MatchSpec, PackageRecord, Version
def fits(spec, version, build):
    record = PackageRecord("numpy", version, BuildString(build), 0, "linux-64")
    try:
        return MatchSpec(spec, strict=False).matches(record)
    except Exception:
        return None
def order(left, right):
    try:
        left, right = Version(left), Version(right)
    except Exception:
        return None
    return [(left > right) - (left < right), left.starts_with(right)]
asked = json.load(sys.stdin)
print(json.dumps({"fits": [fits(*one) for one in asked["fits"]], "order": [order(*one) for one in asked["order"]]}))
sys.stdout.flush()
os._exit(0)
"""


def judged(**asked):
    import json

    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_solver_reads_requests_the_same_way():
    cases = [
        (text, version, build) for text in MEANINGS for version, build in BUILDS if "^" not in text
    ]
    found = judged(fits=cases, order=[])["fits"]
    mine = [
        parse(text).has_version(version) and parse(text).has_build(build)
        for text, version, build in cases
    ]
    assert found == mine


PART = st.sampled_from(
    ["0", "1", "2", "10", "1a", "1rc1", "1post2", "1dev", "dev", "post1", "alpha", "a", "2b"]
)
VERSIONS = st.tuples(
    st.sampled_from(["", "", "", "1!"]),
    st.lists(PART, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", "", "", "_", "+1", "+a.2"]),
).map("".join)


# What stands before `.*`; of zeros at its end and words in it, the solver takes a wider view.
PREFIX = re.compile(r"(1!)?([0-9]+\.)*[1-9][0-9]*")


def test_the_solver_orders_versions_the_same_way():
    pairs = []

    @settings(max_examples=3000, database=None)
    @given(VERSIONS, VERSIONS)
    def collect(left, right):
        pairs.append((left, right))

    collect()
    found = judged(fits=[], order=pairs)["order"]
    for (left, right), told in zip(pairs, found, strict=True):
        if told is None:
            continue
        one, other = Version(left), Version(right)
        order = one.compare(other)
        assert (order > 0) - (order < 0) == told[0], (left, right)
        if PREFIX.fullmatch(right):
            assert one.begins_with(other) == told[1], (left, right)

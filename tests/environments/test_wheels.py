"""Which wheel is chosen, compared with what pip itself uses."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from packaging import tags

from repro.environments.wheels import best
from repro.lock import Interpreter

LINUX = [
    "linux_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)),
    *("manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64"),
    *("manylinux_2_5_x86_64", "manylinux1_x86_64"),
    "musllinux_1_2_x86_64",
]
PLATFORMS = {
    "linux": LINUX,
    "arm": list(tags.mac_platforms((14, 0), "arm64")),
    "intel": list(tags.mac_platforms((14, 0), "x86_64")),
}


def ranked(minor, platforms):
    """All tags that CPython 3.`minor` installs, the preferred ones first."""
    own = f"cp3{minor}"
    found = [
        *tags.cpython_tags((3, minor), [own], platforms),
        *tags.compatible_tags((3, minor), own, platforms),
    ]
    return [str(tag) for tag in found]


def interpreter(minor):
    version = f"3.{minor}.1"
    return Interpreter(implementation="cpython", version=version, abi="", platform="")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), minor=st.integers(8, 14), system=st.sampled_from(sorted(PLATFORMS)))
def test_the_wheel_is_chosen_that_pip_prefers(data, minor, system):
    order = ranked(minor, PLATFORMS[system])
    chosen = data.draw(st.lists(st.sampled_from(order), min_size=1, max_size=5, unique=True))
    expected = min(chosen, key=order.index)
    files = [f"some-1.0-{tag}.whl" for tag in chosen]
    assert best(files, interpreter(minor)) == f"some-1.0-{expected}.whl"


def test_the_best_of_compressed_tags_counts():
    names = ["a-1-py2.py3-none-any.whl", "a-1-cp310.cp311-none-any.whl"]
    assert best(names, interpreter(11)) == names[1]
    assert best(names, interpreter(12)) == names[0]


def test_the_highest_build_number_wins():
    names = ["a-1-9-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl"]
    assert best(names, interpreter(11)) == names[1]


def test_other_implementations_take_what_fits_all():
    pypy = Interpreter(implementation="graalpy", version="3.11.7", abi="", platform="")
    names = ["a-1-graalpy311-graalpy240_311_native-linux_x86_64.whl", "a-1-py3-none-any.whl"]
    assert best(names, pypy) == names[1]

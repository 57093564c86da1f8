"""Which wheel is chosen, compared with what an installer on this machine prefers."""

from __future__ import annotations

import sys
import sysconfig

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging import tags

from repro.environments.wheels import best
from repro.lock import Interpreter

HERE = [str(tag) for tag in tags.sys_tags()]


def interpreter(minor=11, platform="linux-x86_64", implementation="cpython", abi=""):
    version = f"3.{minor}.1"
    return Interpreter(
        implementation=implementation,
        version=version,
        abi=abi or f"{implementation}-3{minor}",
        platform=platform,
    )


def chosen(tags_, **more):
    name = best([f"some-1.0-{tag}.whl" for tag in tags_], interpreter(**more))
    return name.removeprefix("some-1.0-").removesuffix(".whl")


@settings(max_examples=200, deadline=None)
@given(offered=st.lists(st.sampled_from(HERE), min_size=1, max_size=5, unique=True))
def test_the_wheel_is_chosen_that_this_python_prefers(offered):
    own = Interpreter(
        implementation=sys.implementation.name,
        version=sys.version.split()[0],
        abi=str(sys.implementation.cache_tag),
        platform=sysconfig.get_platform(),
    )
    common = [tag for tag in offered if best([f"some-1.0-{tag}.whl"], own)]
    if common:
        expected = min(common, key=HERE.index)
        assert best([f"some-1.0-{tag}.whl" for tag in offered], own) == f"some-1.0-{expected}.whl"


@pytest.mark.parametrize(
    ("platform", "fitting", "others"),
    [
        (
            "linux-x86_64",
            ["cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux2014_x86_64"],
            ["cp311-cp311-manylinux_2_29_x86_64", "cp311-cp311-manylinux_2_17_aarch64"],
        ),
        (
            "linux-aarch64",
            ["cp38-abi3-manylinux_2_17_aarch64", "py3-none-linux_aarch64"],
            ["cp311-cp311-manylinux_2_12_aarch64", "cp311-cp311-musllinux_1_2_aarch64"],
        ),
        (
            "macosx-11.0-arm64",
            ["cp311-cp311-macosx_13_0_arm64", "cp311-cp311-macosx_10_9_universal2"],
            ["cp311-cp311-macosx_10_9_x86_64", "cp311-cp311-macosx_14_0_arm64"],
        ),
        (
            "macosx-10.9-x86_64",
            ["cp311-cp311-macosx_10_9_x86_64"],
            ["cp311-cp311-macosx_11_0_arm64"],
        ),
        ("win-amd64", ["cp311-cp311-win_amd64"], ["cp311-cp311-win32", "cp311-cp311-win_arm64"]),
    ],
)
def test_every_platform_takes_its_own(platform, fitting, others):
    assert chosen(others, platform=platform) == ""
    for tag in fitting:
        assert chosen([*others, "py2-none-any", tag], platform=platform) == tag
    assert chosen([*fitting, "py3-none-any"], platform=platform) in fitting


def test_another_python_is_another_abi():
    assert chosen(["cp312-cp312-linux_x86_64", "cp310-cp310-linux_x86_64"]) == ""
    stable = ["cp39-abi3-linux_x86_64", "cp310-abi3-linux_x86_64", "cp312-abi3-linux_x86_64"]
    assert chosen(stable) == stable[1]
    threaded = ["cp313-cp313-linux_x86_64", "cp313-cp313t-linux_x86_64", "cp39-abi3-linux_x86_64"]
    assert chosen(threaded, minor=13, abi="cpython-313t") == threaded[1]
    assert chosen(threaded, minor=13) == threaded[0]


def test_the_best_of_compressed_tags_counts():
    names = ["a-1-py2.py3-none-any.whl", "a-1-cp310.cp311-none-any.whl"]
    assert best(names, interpreter(11)) == names[1]
    assert best(names, interpreter(12)) == names[0]


def test_the_highest_build_number_wins():
    names = ["a-1-9-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-py3-none-any.whl"]
    assert best(names, interpreter()) == names[1]


def test_other_implementations_take_their_own_and_what_fits_all():
    own, any_ = "pp39-pypy39_pp73-manylinux_2_17_x86_64", "py3-none-any"
    others = {"minor": 9, "implementation": "pypy", "abi": "pypy39"}
    assert chosen([any_, own, "cp39-cp39-linux_x86_64"], **others) == own
    assert chosen([any_, "cp39-cp39-linux_x86_64"], **others) == any_


def test_what_is_no_name_of_a_wheel_is_passed_over():
    assert best(["some-1.0.tar.gz", "nonsense.whl", "a-1-py3-none-any.whl"], interpreter()) == (
        "a-1-py3-none-any.whl"
    )

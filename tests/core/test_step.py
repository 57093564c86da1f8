from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import step
from repro.params import Argument
from repro.step import Step
from repro.value import replace

STEP = Step(
    entry_point="train",
    command="python train.py {alpha} {data} {token}",
    arguments=(
        Argument(name="alpha", text="0.5", origin="default"),
        Argument(name="data", text="d.csv", kind="path", landed="/x/d.csv", identity="a" * 64),
        Argument(name="token", text="s3cr3t", kind="secret", identity="b" * 64),
        Argument(name="extra", text="1", origin="extra"),
    ),
    inputs="c" * 64,
    environment="d" * 64,
    platform="linux-x86_64",
    variables={"MODE": "fast"},
    outputs=("model.pkl",),
)
GOLDEN = "9229a8e7bab09e35970c00b63c0fd22a2221a9b50172767ac78e0c1a872578bc"


def test_key_golden():
    """A change here throws every user's results away: raise KEY_FORMAT on purpose."""
    assert step.KEY_FORMAT == 1
    assert step.key_of(STEP) == GOLDEN


def test_the_settings_of_every_step_are_part_of_the_format():
    assert step.SETTINGS == {
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "SOURCE_DATE_EPOCH": "315532800",
        "TZ": "UTC",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"command": "python train.py {alpha} {token} {data}"},
        {"arguments": STEP.arguments[::-1]},
        {"arguments": (replace(STEP.arguments[0], text="0.50"), *STEP.arguments[1:])},
        {"arguments": (replace(STEP.arguments[0], text=None), *STEP.arguments[1:])},
        {"arguments": (replace(STEP.arguments[0], text=""), *STEP.arguments[1:])},
        {"arguments": STEP.arguments[:3]},
        {"inputs": "e" * 64},
        {"environment": "e" * 64},
        {"platform": "darwin-arm64"},
        {"variables": {"MODE": "slow"}},
        {"variables": {}},
        {"unset": ("MODE",)},
        {"secrets": ("TOKEN",)},
        {"outputs": None},
        {"outputs": ()},
        {"metrics": ("m.json",)},
        {"mounts": (("/data", "version 1"),)},
        {"network": False},
        {"container": {"memory": "1g"}},
        {"container": {"privileged": None}},
        {"shell": "strict"},
    ],
)
def test_whatever_can_change_a_result_changes_the_key(change):
    assert step.key_of(replace(STEP, **change)) != step.key_of(STEP)


@pytest.mark.parametrize(
    "change",
    [
        {"entry_point": "renamed"},
        {"arguments": (replace(STEP.arguments[0], origin="given"), *STEP.arguments[1:])},
        {
            "arguments": (
                STEP.arguments[0],
                replace(STEP.arguments[1], text="other.csv", landed="/y/other.csv"),
                *STEP.arguments[2:],
            )
        },
    ],
    ids=["name", "default given by hand", "same file elsewhere"],
)
def test_what_cannot_change_a_result_does_not_change_the_key(change):
    assert step.key_of(replace(STEP, **change)) == step.key_of(STEP)


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_the_order_of_variables_does_not_matter(variables):
    backwards = dict(reversed(variables.items()))
    one, two = replace(STEP, variables=variables), replace(STEP, variables=backwards)
    assert step.key_of(one) == step.key_of(two)


def test_a_secret_is_in_no_key_part():
    assert "s3cr3t" not in str(step.parts(STEP))


def test_kept_parts_give_their_key_again():
    assert step.key_of_parts(step.parts(STEP)) == step.key_of(STEP)

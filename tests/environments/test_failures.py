"""What is made of the output of tools that failed."""

from __future__ import annotations

from repro.environments import failures
from repro.errors import EnvironmentFailed, NoSpace, Unreachable

PIP_CONFLICT = """\
Looking in links: /wheels
ERROR: Cannot install beta>1.2 and gamma because these versions have conflicting dependencies.

The conflict is caused by:
    The user requested beta>1.2
    gamma 1.0 depends on beta<1.2

To fix this you could try to:
1. loosen the range of package versions you've specified
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/
"""
OLD_UV = """\
  \xd7 No solution found when resolving dependencies:
  ╰─▶ Because only alpha<=2.0 is available and you require alpha>=3, we can
      conclude that your requirements are unsatisfiable.
"""
PIP_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated them.
    beta==1.5 from file:///wheels/beta-1.5-py3-none-any.whl (from -r pins.txt (line 1)):
        Expected sha256 {expected}
             Got        {found}
"""
PIP_DOWN = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('refused')'
ERROR: Could not find a version that satisfies the requirement alpha (from versions: none)
ERROR: No matching distribution found for alpha
"""


def explain(text):
    return failures.explain(text, "it failed", "/log")


def test_pip_says_who_wants_what():
    error = explain(PIP_CONFLICT)
    assert type(error) is EnvironmentFailed
    assert "The user requested beta>1.2" in error.hints
    assert "gamma 1.0 depends on beta<1.2" in error.hints
    assert not any("loosen" in hint for hint in error.hints)


def test_the_drawings_of_older_uvs_are_left_out():
    hints = explain(OLD_UV).hints
    assert hints[0] == "No solution found when resolving dependencies:"
    assert hints[1].startswith("Because only alpha<=2.0")


def test_other_bytes_than_locked_are_named_with_both_digests():
    error = explain(PIP_HASH.format(expected="a" * 64, found="b" * 64))
    assert "`beta==1.5`" in error.message
    assert f"expected {'a' * 64}" in error.hints
    assert f"found    {'b' * 64}" in error.hints
    assert error.log == "/log"


def test_a_server_that_is_down_is_no_wrong_requirement():
    assert type(explain(PIP_DOWN)) is Unreachable


def test_a_conflict_stays_one_when_some_index_is_down():
    assert type(explain(PIP_DOWN + PIP_CONFLICT)) is EnvironmentFailed


def test_a_full_disk_is_found_in_any_output():
    assert type(explain("error: failed to write\n  cause: (os error 28)")) is NoSpace
    assert type(explain("OSError: [Errno 28] No space left on device")) is NoSpace


def test_credentials_are_left_out():
    hints = explain("error: cannot get https://ada:hidden@index.example/simple/").hints
    assert hints == ("error: cannot get https://****@index.example/simple/",)


def test_a_python_without_pip_names_the_way_out():
    assert "install uv" in explain("Error: ensurepip is not available.").hints[-1]


def test_unknown_output_gives_its_last_lines():
    hints = explain("\n".join(f"line {n}" for n in range(300))).hints
    assert hints[-1] == "line 299"
    assert len(hints) == failures.SHOWN

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import params
from repro.errors import ParameterInvalid
from repro.spec import EntryPoint, Parameter

HOSTILE = [
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY",
    "| touch CANARY",
    "&& touch CANARY",
    "\ntouch CANARY\n",
    "' ; touch CANARY ; '",
    '" ; touch CANARY ; "',
    "'\"'\"'; touch CANARY",
    "${IFS}touch${IFS}CANARY",
    "a b",
    "",
    "  ",
    "*",
    "~",
    "--help",
    "-rf",
    "\\",
    "\\'",
    "a\\",
    "!x",
    "#no comment",
    "é‮\x1b[31m",
    "{a}",
    "{{a}}",
    "%s",
    "$HOME",
    "x" * 5000,
    "\t\r\n",
]
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def entry(command, *declared):
    return EntryPoint(name="main", command=command, parameters=declared)


def expanded(command, values, *declared):
    names = declared or tuple(Parameter(name=name) for name in values)
    one = entry(command, *names)
    return params.expand(params.parse(command), params.bind(one, values))


def shell_says(command, folder):
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        cwd=folder,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return done.stdout.decode()


@given(texts)
def test_quoting_equals_that_of_the_standard_library(text):
    assert params.quote(text) == shlex.quote(text)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "template", ["printf %s {v}", 'printf %s "{v}"', "printf %s '{v}'", "printf %s --x={v}"]
)
def test_a_hostile_value_reaches_the_program_as_it_is(template, value, tmp_path):
    command = expanded(template, {"v": value})
    prefix = "--x=" if "--x=" in template else ""
    assert shell_says(command, tmp_path) == prefix + value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "template",
    [
        'printf %s "$(printf %s {v})"',
        "bash -c 'printf %s {v}'",
        "eval 'printf %s {v}'",
        "cat <<END\n{v}\nEND\n",
        "printf %s `printf %s {v}`",
        "printf %s $'{v}'",
        "printf %s \\{v}",
        "printf %s ${{X:-{v}}}",
        "true # {v}",
    ],
)
def test_a_hostile_value_never_runs(template, value, tmp_path):
    """Either the value is quoted rightly for the place, or it is refused with a reason."""
    try:
        command = expanded(template, {"v": value})
    except ParameterInvalid as error:
        assert "cannot be written safely" in error.message
        assert error.hints
        return
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=False, capture_output=True)
    assert not (tmp_path / "CANARY").exists()


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from(["{v}", '"{v}"', "'{v}'", '"a{v}b"', "x'{v}'y"]))
def test_what_the_shell_parses_is_the_value(value, place):
    command = expanded(f"printf '%s\\0' {place} end", {"v": value})
    bare = place.replace("'", "").replace('"', "")
    assert shell_says(command, "/").split("\0") == [bare.replace("{v}", value), "end", ""]


def test_undeclared_values_become_options_in_the_order_given():
    assert expanded("run {a}", {"a": "1", "b c": "x y", "d": True}, Parameter(name="a")) == (
        "run 1 --'b c' 'x y' --d True"
    )


def test_declared_and_unused_values_vanish():
    assert expanded("run", {"a": "1"}) == "run"


def test_literal_braces_are_doubled():
    assert expanded("awk '{{print $1}}' {f}", {"f": "x"}) == "awk '{print $1}' x"


@pytest.mark.parametrize(
    "command",
    [
        "{v.__class__}",
        "{v[0]}",
        "{v:>3000000000}",
        "{v!r}",
        "{0}",
        "{}",
        "a { b",
        "a } b",
        "{a{b}}",
    ],
)
def test_only_names_are_placeholders(command):
    (problem, *_rest) = params.parse(command).problems
    assert problem[1]
    assert problem[2]


def test_missing_values_are_named_all_at_once():
    one = entry("x", Parameter(name="a"), Parameter(name="b", default="1"), Parameter(name="c"))
    with pytest.raises(ParameterInvalid, match="`a`, `c`") as caught:
        params.bind(one, {})
    assert "-P a=STRING" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("kind", "value", "good"),
    [
        ("float", "0.5", True),
        ("float", "1e-5", True),
        ("float", "nan", True),
        ("float", "x", False),
        ("int", "3", True),
        ("int", "3.5", False),
        ("number", "3.5", True),
        ("bool", "True", True),
        ("bool", "maybe", False),
        ("uri", "s3://b/k", True),
        ("uri", "c:foo", True),
        ("uri", "relative/path", False),
        ("str", "anything", True),
        ("list[int]", "anything", True),
    ],
)
def test_given_values_are_checked_by_their_type(kind, value, good):
    one = entry("x {p}", Parameter(name="p", type=kind))
    if good:
        assert params.bind(one, {"p": value})[0].text == value
    else:
        with pytest.raises(ParameterInvalid, match="parameter `p`"):
            params.bind(one, {"p": value})


def test_limits_and_choices():
    bounded = entry("x {p}", Parameter(name="p", type="float", minimum="0", maximum="1"))
    for value in ("-0.1", "1.1"):
        with pytest.raises(ParameterInvalid, match="minimum|maximum"):
            params.bind(bounded, {"p": value})
    untyped = entry("x {p}", Parameter(name="p", minimum="0"))
    with pytest.raises(ParameterInvalid, match="not a number"):
        params.bind(untyped, {"p": "x"})
    chosen = entry("x {p}", Parameter(name="p", choices=("a", "b")))
    with pytest.raises(ParameterInvalid, match="choices") as caught:
        params.bind(chosen, {"p": "c"})
    assert "a, b" in caught.value.hints[0]


def test_optional_values_and_flags():
    optional = Parameter(name="p", optional=True)
    flag = Parameter(name="fast", type="bool", flag=True)
    assert expanded("x {p}", {}, optional) == "x "
    assert expanded("x {fast}", {"fast": "true"}, flag) == "x --fast"
    assert expanded("x {fast}", {"fast": False}, flag) == "x "
    assert expanded("x", {"fast": "yes"}, flag) == "x --fast"


def test_a_value_too_long_for_the_system_is_refused_by_name():
    with pytest.raises(ParameterInvalid, match="`v` is the largest") as caught:
        expanded("x {v}", {"v": "y" * 1_000_000})
    assert "path" in caught.value.hints[0]


def test_nul_is_refused():
    with pytest.raises(ParameterInvalid, match="NUL"):
        expanded("x {v}", {"v": "a\0b"})


def test_a_refused_secret_is_not_shown():
    secret = entry("bash -c '{v}'", Parameter(name="v", secret=True))
    with pytest.raises(ParameterInvalid) as caught:
        params.expand(params.parse(secret.command), params.bind(secret, {"v": "s3 cr3t"}))
    assert "cr3t" not in caught.value.message


@pytest.mark.parametrize("place", ["{v}", '"{v}"', "'{v}'", "a{v}b", '"a{v}b"'])
def test_a_secret_reaches_the_program_through_a_variable(place, tmp_path):
    secret = Parameter(name="v", secret=True)
    command = f"printf %s {place}"
    arguments = params.bind(entry(command, secret), {"v": "s3 $cr3t'\""})
    text = params.expand(params.parse(command), arguments)
    assert "cr3t" not in text
    variables = {name: value for name, _parameter, value in params.secret_variables(arguments)}
    done = subprocess.run(
        ["bash", "-c", text],
        capture_output=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **variables},
    )
    bare = place.strip("'\"").replace("{v}", "s3 $cr3t'\"")
    assert done.stdout.decode() == bare

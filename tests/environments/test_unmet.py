"""Whether a lock satisfies a request: by what both mean, never by how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.markers import Marker, default_environment

from repro.environments.python import Python
from repro.environments.unmet import markers
from repro.errors import Unsupported
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.spec import DockerEnvironment, PythonEnvironment
from repro.value import replace

PYTHON = Interpreter(
    implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
)
COMMIT = "c" * 40


def wheel(name, version, depends=(), **more):
    url = f"https://files.example/{name}-{version}-py3-none-any.whl"
    more = {"kind": "wheel", "digest": "a" * 64, "url": url, **more}
    return Artifact(name=name, version=version, depends=depends, **more)


LOCK = EnvironmentLock(
    kind="python",
    interpreter=PYTHON,
    platform="linux-64",
    artifacts=(
        wheel("alpha", "2.0", ("beta",), extras=("plus",)),
        wheel("beta", "1.5"),
        wheel("fetched", "0.3", kind="vcs", digest=COMMIT, url=f"git+https://h.example/x@{COMMIT}"),
        wheel("own", "1.0", digest="e" * 64, url="wheels/own-1.0-py3-none-any.whl"),
        wheel("part", "dddddddddddd", kind="directory", digest="d" * 64, url="part"),
        wheel("pre", "2.0rc1"),
    ),
)


def unmet(*requirements, lock=LOCK, **more):
    wanted = PythonEnvironment(requirements=requirements, **more)
    return Python("/nowhere", {}).unmet(wanted, lock)


def codes(*requirements, **more):
    return [one.code for one in unmet(*requirements, **more)]


@pytest.mark.parametrize(
    "line",
    [
        *("alpha", "Alpha", "alpha>=1,<3", "alpha == 2", "alpha==2.0.0", "alpha[plus]"),
        *("alpha~=2.0  # why", "alpha != 1", "absent; sys_platform == 'win32'"),
        *("absent ; python_version < '3.9'", "pre>=2.0rc1", "pre", "alpha===2.0"),
        f"alpha==2.0 --hash=sha256:{'b' * 64} --hash=sha256:{'a' * 64}",
        *("git+https://h.example/x", "git+https://h.example/x.git@main", "fetched"),
        f"fetched @ git+https://user:word@h.example/x@{COMMIT}",
        "beta @ https://files.example/beta-1.5-py3-none-any.whl#sha256=abc",
        "./wheels/own-1.0-py3-none-any.whl",
        "git+https://other.example/y ; sys_platform == 'win32'",
    ],
)
def test_what_is_satisfied_is_not_told(line):
    assert codes(line.partition("  #")[0]) == []


@pytest.mark.parametrize(
    ("line", "code", "why"),
    [
        ("absent", "D01", "`absent` is not in the lock"),
        ("absent; sys_platform == 'linux'", "D01", "`absent` is not in the lock"),
        ("alpha>2", "D02", "alpha 2.0 is locked"),
        ("alpha==2.0; python_version >= '3.11'", "", ""),
        ("alpha<2; platform_machine == 'x86_64'", "D02", "alpha 2.0 is locked"),
        ("alpha[plus,minus]", "D02", "it is locked without the extra `minus`"),
        ("beta[any]", "D02", "it is locked without the extra `any`"),
        (f"alpha==2.0 --hash=sha256:{'b' * 64}", "D02", "the locked file has another hash, aaa"),
        (f"git+https://h.example/x@{'f' * 40}", "D01", "nothing is locked from there"),
        ("git+https://h.example/y", "D01", "nothing is locked from there"),
        ("git+https://h.example/x#subdirectory=z", "D01", "nothing is locked from there"),
        ("fetched @ git+https://h.example/other", "D02", "`fetched` is locked from git+https"),
        ("beta @ https://files.example/beta-1.6.whl", "D02", "`beta` is locked from https://"),
        ("./wheels/another.whl", "D01", "this file is not in the lock"),
        ("??", "D01", "it cannot be read as a requirement"),
    ],
)
def test_what_is_not_satisfied_says_what_was_asked_and_what_is_locked(line, code, why):
    found = unmet(line)
    assert [one.code for one in found] == ([code] if code else [])
    for one in found:
        assert one.why.startswith(why)
        assert one.entry.split()[0].strip("[") in line


def test_extras_of_another_tools_lock_are_nobodys_guess():
    foreign = replace(LOCK, artifacts=(wheel("alpha", "2.0", extras=("*",)),))
    assert codes("alpha[plus]", lock=foreign) == []


def test_build_requirements_and_constraints_count_too():
    assert codes(build_requirements=("absent",)) == ["D01"]
    assert codes(constraints=("alpha<2", "absent<1", "beta<1; sys_platform == 'win32'")) == ["D02"]


def test_python_is_part_of_what_is_asked():
    assert codes(python="3.11") == codes(python="3.11.7") == codes(python=">=3.10,<3.12") == []
    assert codes(python="3.1") == codes(python="3.12") == codes(python=">=3.12") == ["D07"]
    (one,) = unmet(python="3.12")
    assert (one.entry, one.why) == ("python 3.12", "cpython 3.11.7 is locked")


def test_local_packages_are_compared_by_their_files():
    assert codes(directories=(("part", "d" * 64), ("part[more]", "d" * 64))) == []
    (changed,) = unmet(directories=(("part", "f" * 64),))
    assert (changed.code, changed.why) == ("D02", "its files changed since it was locked")
    assert codes(directories=(("other", "d" * 64),)) == ["D01"]
    own = "./wheels/own-1.0-py3-none-any.whl"
    assert codes(own, archives=((own[2:], "e" * 64),)) == []
    assert codes(own, archives=((own[2:], "f" * 64),)) == ["D02"]


def test_a_lock_that_lacks_what_its_own_packages_need_is_broken():
    without = replace(LOCK, artifacts=(wheel("alpha", "2.0", ("beta",)),))
    (one,) = unmet(lock=without)
    assert (one.code, one.entry) == ("D04", "alpha 2.0")
    assert "`beta`" in one.why
    needs = ("beta>=2", "absent; sys_platform == 'win32'")
    older = replace(LOCK, artifacts=(wheel("alpha", "2.0", needs), wheel("beta", "1.5")))
    (one,) = unmet(lock=older)
    assert (one.code, one.why) == ("D04", "it needs `beta>=2`, and 1.5 is locked")


def test_another_index_than_the_one_asked_for_is_told():
    there = replace(LOCK, artifacts=(wheel("alpha", "2.0", index="https://pypi.org/simple"),))
    assert codes("alpha", lock=there) == []
    assert codes("alpha", lock=there, options=("--index-url https://pypi.org/simple/",)) == []
    assert codes("alpha", lock=there, options=("--index-url https://u:p@pypi.org/simple",)) == []
    options = ("--index-url https://ada:hidden@mirror.example/simple", "--pre")
    (one,) = unmet("alpha", lock=there, options=options)
    assert (one.code, one.why) == ("D05", "packages are locked from https://pypi.org/simple")
    assert "mirror.example" in one.entry
    assert "hidden" not in one.entry


def test_another_kind_of_environment_is_wrong_use():
    with pytest.raises(Unsupported):
        Python("/nowhere", {}).unmet(DockerEnvironment(image="x"), LOCK)


def test_markers_are_those_of_the_platform_of_the_lock():
    here = default_environment()
    own = replace(
        LOCK,
        platform="win-64",
        interpreter=replace(PYTHON, version="3.9.1"),
    )
    assert markers(own).keys() == {*here, "extra"}
    assert (markers(own)["sys_platform"], markers(own)["python_version"]) == ("win32", "3.9")
    assert codes("absent; os_name == 'nt' and python_full_version < '3.9.2'", lock=own) == ["D01"]
    assert codes("absent; platform_system == 'Linux'", lock=own) == []


SPECIFIERS = st.lists(
    st.tuples(
        st.sampled_from(["==", ">=", "<=", "<", ">", "!=", "~="]),
        st.sampled_from(["1.0", "1.5", "2.0", "2.1"]),
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: [operator + version for operator, version in parts])


@settings(max_examples=100, deadline=None)
@given(parts=SPECIFIERS, data=st.data())
def test_neither_order_nor_spelling_matters(parts, data):
    shuffled = data.draw(st.permutations(parts))
    one = "alpha" + ",".join(parts)
    two = "  Alpha [ PLUS ] " + " , ".join(shuffled) + data.draw(st.sampled_from(["", " "]))
    assert codes(one) == codes(two)
    three = data.draw(st.permutations([one, "absent", "beta<1"]))
    assert sorted(codes(*three)) == sorted(codes(one, "absent", "beta<1"))


def test_a_marker_counts_as_packaging_says():
    environment = markers(LOCK)
    for text in ("python_version in '3.10 3.11'", "'linux' in sys_platform and os_name != 'nt'"):
        assert (codes(f"absent; {text}") == ["D01"]) == Marker(text).evaluate(environment)


ARTIFACTS = st.lists(
    st.builds(
        Artifact,
        name=st.sampled_from(["a", "b", "c", "d"]),
        version=st.sampled_from(["1", "2"]),
        kind=st.sampled_from(["wheel", "sdist", "vcs", "directory"]),
        digest=st.text("0123456789abcdef", min_size=64, max_size=64),
        url=st.text(),
    ),
    max_size=6,
)


@settings(max_examples=50, deadline=None)
@given(artifacts=ARTIFACTS, data=st.data())
def test_the_digest_of_a_lock_does_not_depend_on_order_or_origin(artifacts, data):
    lock = EnvironmentLock(kind="python", interpreter=PYTHON, artifacts=tuple(artifacts))
    shuffled = data.draw(st.permutations(artifacts))
    moved = tuple(replace(a, url="https://elsewhere.example/") for a in shuffled)
    assert replace(lock, artifacts=moved, tool="another").digest == lock.digest
    if artifacts:
        changed = replace(artifacts[0], digest="f" * 63 + "!")
        assert replace(lock, artifacts=(changed, *artifacts[1:])).digest != lock.digest

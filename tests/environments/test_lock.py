"""What a request resolves to."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import sys

import pytest
from environments.conftest import local_package, locked, pretend

from repro import platforms, requirements
from repro.environments import pip
from repro.environments.demand import demand
from repro.errors import EnvironmentFailed, InterpreterMissing, Unreachable, UsageError
from repro.lockfiles import pylock
from repro.ports import LockRequest
from repro.spec import PythonEnvironment
from repro.value import replace


def names(lock):
    return {a.name: a.version for a in lock.artifacts}


def test_a_lock_names_one_exact_file_of_every_package(python, wheels, told):
    lock = locked(python(), wheels.request("alpha"), told.append)
    assert names(lock) == {"alpha": "2.0", "beta": "1.5"}
    assert [a.kind for a in lock.artifacts] == ["wheel", "wheel"]
    assert all(len(a.digest) == 64 and a.filename.endswith(".whl") for a in lock.artifacts)
    assert lock.tool.startswith("uv ")
    assert len(told) == 1


def test_neither_order_nor_repetition_of_requirements_matters(python, wheels, told):
    one = locked(python(), wheels.request("alpha", "gamma", "beta"), told.append)
    two = locked(
        python(),
        wheels.request("beta", "gamma", "alpha", build_requirements=("gamma",)),
        told.append,
    )
    assert one == two


def test_a_tool_sees_equal_requests_as_the_same_files():
    one = PythonEnvironment(
        requirements=("b", "a", "git+https://x.example/c"), build_requirements=("d",)
    )
    two = PythonEnvironment(requirements=("git+https://x.example/c", "a", "d", "b", "a"))
    assert demand(one, "", sdists=False) == demand(two, "", sdists=False)


def test_uv_and_pip_lock_the_same(python, wheels, told, tmp_path):
    local_package(tmp_path / "project" / "part", requires=["beta"])
    root = str(tmp_path / "project")
    request = wheels.request("gamma", "alpha>1", directories=(("part", "d" * 64),))
    by_uv = locked(python("uv", root=root), request, told.append)
    by_pip = locked(python("pip", root=root), request, told.append)
    assert by_uv.artifacts == by_pip.artifacts
    assert by_uv.digest == by_pip.digest
    assert (by_uv.tool.split()[0], by_pip.tool.split()[0]) == ("uv", "pip")


def test_build_requirements_and_constraints_are_part_of_the_resolution(python, wheels, told):
    request = wheels.request(build_requirements=("alpha",), constraints=("alpha<2", "beta<1.2"))
    assert names(locked(python(), request, told.append)) == {"alpha": "1.0", "beta": "1.0"}


def test_the_closest_of_several_wheels_is_locked(python, own_wheels, told):
    plain = locked(python(), own_wheels.request("beta"), told.append)
    platform = plain.interpreter.platform.replace("-", "_").replace(".", "_")
    own_wheels.wheel("beta", "1.5", tag=f"py3-none-{platform}")
    special = locked(python(), own_wheels.request("beta"), told.append)
    assert platform in special.artifacts[0].filename
    assert special.digest != plain.digest


def test_a_local_package_is_locked_by_its_content_with_what_it_needs(
    python, wheels, told, tmp_path
):
    local_package(tmp_path / "my project" / "part", requires=["beta>1", "gamma; extra == 'more'"])
    maker = python(root=str(tmp_path / "my project"))
    lock = locked(maker, wheels.request(directories=(("part", "d" * 64),)), told.append)
    assert names(lock) == {"beta": "1.5", "local-one": "d" * 12}
    part = lock.artifacts[-1]
    assert (part.kind, part.digest, part.url) == ("directory", "d" * 64, "part")
    with pytest.raises(EnvironmentFailed, match="cannot be resolved"):
        locked(maker, wheels.request(directories=(("part[more]", "d" * 64),)), told.append)


def test_what_a_local_package_needs_is_not_taken_from_an_earlier_build(
    python, wheels, told, tmp_path
):
    part = local_package(tmp_path / "project" / "part", requires=["beta>1"])
    maker = python(root=str(tmp_path / "project"))
    request = wheels.request(directories=(("part", "d" * 64),))
    assert "gamma" not in names(locked(maker, request, told.append))
    backend = (part / "backend.py").read_text()
    (part / "backend.py").write_text(backend.replace("beta>1", "gamma"))
    assert "gamma" in names(locked(maker, request, told.append))


def test_a_wheel_inside_the_project_is_locked_relative_to_it(python, wheels, told, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    os.link(wheels.folder / "beta-1.0-py3-none-any.whl", project / "beta-1.0-py3-none-any.whl")
    maker = python(root=str(project))
    lock = locked(maker, wheels.request("./beta-1.0-py3-none-any.whl"), told.append)
    assert lock.artifacts[0].url == "beta-1.0-py3-none-any.whl"
    maker.realize(lock, told.append).release()


def test_local_packages_need_a_project_folder(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="in no folder") as failed:
        locked(python(), wheels.request(directories=(("part", "d" * 64),)), told.append)
    assert failed.value.hints


def test_a_checkout_is_locked_by_its_commit(python, wheels, told, tmp_path):
    repository = local_package(tmp_path / "repository", name="fetched", requires=["beta"])
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    for line in (f"git+file://{repository}", f"fetched @ git+file://{repository}"):
        (repository / "fetched.py").write_text(line)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "more"], check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True)
        lock = locked(python(), wheels.request(line), told.append)
        assert names(lock) == {"beta": "1.5", "fetched": "0.3"}
        fetched = lock.artifacts[-1]
        assert (fetched.kind, fetched.digest) == ("vcs", head.stdout.decode().strip())
        assert fetched.url == f"git+file://{repository}@{fetched.digest}"
        python().realize(lock, told.append).release()


def test_a_checkout_stays_at_its_commit_until_it_is_upgraded(python, wheels, told, tmp_path):
    repository = local_package(tmp_path / "repository", name="fetched")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    asked = wheels.request(f"fetched @ git+file://{repository}")
    locks = []
    for upgrade in ((), (), ("fetched",)):
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "more"], check=True)
        keep = tuple(locks[-1:])
        locks.append(locked(python(), asked, told.append, keep=keep, upgrade=upgrade))
    commits = [lock.artifacts[0].digest for lock in locks]
    assert commits[0] == commits[1] != commits[2]


def test_requirements_that_exclude_each_other_are_explained_in_a_few_lines(
    python, wheels, told, home
):
    with pytest.raises(EnvironmentFailed, match=r"`python_env.yaml` cannot be resolved") as failed:
        locked(python(), wheels.request("gamma", "beta>1.2"), told.append)
    reason = " ".join(failed.value.hints)
    assert "gamma" in reason
    assert "beta" in reason
    assert len(failed.value.hints) < 12
    assert failed.value.log.startswith(os.path.join(home, "logs"))
    with open(failed.value.log) as log:
        assert "beta" in log.read()


def test_a_package_that_has_no_wheel_names_the_way_to_build_it(python, wheels, told):
    with pytest.raises(EnvironmentFailed) as failed:
        locked(python(), wheels.request("source_only"), told.append)
    assert any("REPRO_SDISTS=1" in hint for hint in failed.value.hints)


def test_an_index_that_does_not_answer_is_worth_a_retry(python, wheels, told):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"--index-url http://ada:hidden@127.0.0.1:{closed.getsockname()[1]}/simple"
        with pytest.raises(Unreachable) as failed:
            locked(python(), wheels.request("alpha", options=(index,)), told.append)
    assert "hidden" not in " ".join([failed.value.message, *failed.value.hints])


def test_no_requirements_need_no_tool_and_no_network(python, wheels, told):
    maker = python(environ={"REPRO_UV": "/not/here"})
    lock = locked(maker, wheels.request(options=()), told.append)
    assert lock.artifacts == ()
    assert lock.interpreter.version
    assert told == []


def test_a_python_that_is_not_here_is_named_with_those_that_are(python, wheels, told):
    here = locked(python(), wheels.request(), told.append).interpreter.version
    with pytest.raises(InterpreterMissing) as failed:
        locked(python(), wheels.request("alpha", python="3.99"), told.append)
    assert failed.value.message == "python 3.99 was asked for by `python_env.yaml` and is not here"
    assert f"found: {here} (" in failed.value.hints[0] or f", {here} (" in failed.value.hints[0]
    assert any("REPRO_PYTHON_3_99" in hint for hint in failed.value.hints)


def test_without_uv_a_demand_for_it_names_the_ways_out(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="cannot be started") as failed:
        locked(python(environ={"REPRO_UV": "/not/here"}), wheels.request("alpha"), told.append)
    assert "/not/here" in failed.value.message


def test_a_tool_of_another_name_is_wrong_use(python):
    with pytest.raises(UsageError, match="`poetry`") as failed:
        python("poetry")
    assert failed.value.hints == ("known: auto, uv, pip",)


def test_settings_that_lead_elsewhere_are_not_passed_on(python, wheels, told, tmp_path):
    misleading = {
        "VIRTUAL_ENV": "/not/here",
        "PYTHONHOME": "/not/here",
        "PYTHONPATH": "/not/here",
        "UV_PYTHON": "3.99",
        "UV_SYSTEM_PYTHON": "1",
        "PIP_TARGET": str(tmp_path / "elsewhere"),
    }
    plain = locked(python(), wheels.request("alpha"), told.append)
    maker = python(environ=misleading)
    assert locked(maker, wheels.request("alpha"), told.append) == plain
    maker.realize(plain, told.append).release()
    assert not (tmp_path / "elsewhere").exists()


# -- platforms


PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64")
TAGS = {
    "linux-64": "manylinux_2_17_x86_64",
    "linux-aarch64": "manylinux_2_17_aarch64",
    "osx-64": "macosx_10_9_x86_64",
    "osx-arm64": "macosx_11_0_arm64",
    "win-64": "win_amd64",
}


@pytest.fixture
def binary(own_wheels):
    """Wheels of a package that each platform has its own of; on Windows it needs one more."""
    for tag in TAGS.values():
        own_wheels.wheel("binary", "1.0", ["gamma; sys_platform == 'win32'"], tag=f"py3-none-{tag}")
    return own_wheels


def test_one_lock_for_each_platform_names_the_wheel_of_that_platform(python, binary, told):
    request = LockRequest(environment=binary.request("binary"), platforms=PLATFORMS)
    locks = python().lock(request, told.append)
    assert [lock.platform for lock in locks] == list(PLATFORMS)
    for lock in locks:
        own = next(a for a in lock.artifacts if a.name == "binary")
        assert TAGS[lock.platform] in own.filename
        assert ("gamma" in names(lock)) == (lock.platform == "win-64")
        assert lock.interpreter.version == locks[0].interpreter.version
        assert lock.interpreter.platform == platforms.named(lock.platform).python
    assert len({lock.digest for lock in locks}) == len(locks)


def test_a_lock_made_on_another_machine_is_the_same_bytes(python, binary, told, tmp_path):
    """A macOS of any version and another store give what this machine gives."""
    own = locked(python(), binary.request("binary"), told.append, platforms=("osx-arm64",))
    version = own.interpreter.version
    mac = pretend(
        tmp_path / "mac" / "python",
        version,
        platform="macosx-14.4-arm64",
        abi=own.interpreter.abi,
        base=os.path.realpath(sys._base_executable),  # what works in its name
    )
    variable = "REPRO_PYTHON_" + version.replace(".", "_")
    there = python(home=str(tmp_path / "other"), environ={variable: str(mac)})
    other = locked(there, binary.request("binary"), told.append, platforms=("osx-arm64",))
    assert pylock.encode((other,), {}) == pylock.encode((own,), {})


def test_a_platform_without_a_wheel_is_named_with_the_package(python, own_wheels, told):
    own_wheels.wheel("only_linux", "1.0", tag="py3-none-manylinux_2_17_x86_64")
    request = LockRequest(
        environment=own_wheels.request("only_linux"), platforms=("linux-64", "osx-arm64")
    )
    with pytest.raises(EnvironmentFailed) as failed:
        python().lock(request, told.append)
    assert failed.value.message.startswith("`only-linux")
    assert "has no wheel" in failed.value.message
    assert "osx-arm64" in failed.value.message


def test_pip_locks_for_this_machine_only(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="pip cannot lock") as failed:
        locked(python("pip"), wheels.request("alpha"), told.append, platforms=("win-64",))
    assert "pip install uv" in failed.value.hints[0]


# -- as little change as possible


def test_what_still_satisfies_stays_as_it_was(python, own_wheels, told):
    maker = python()
    first = locked(maker, own_wheels.request("alpha"), told.append)
    own_wheels.wheel("beta", "1.6")
    own_wheels.wheel("alpha", "2.1", ["beta>=1"])
    asked = own_wheels.request("alpha", "gamma2")
    own_wheels.wheel("gamma2", "1.0")
    kept = locked(maker, asked, told.append, keep=(first,))
    assert names(kept) == {"alpha": "2.0", "beta": "1.5", "gamma2": "1.0"}
    assert names(locked(maker, asked, told.append)) == {
        **names(kept),
        "alpha": "2.1",
        "beta": "1.6",
    }


def test_what_does_not_satisfy_any_more_changes_alone(python, own_wheels, told):
    maker = python()
    first = locked(maker, own_wheels.request("alpha", "beta<1.4"), told.append)
    own_wheels.wheel("alpha", "2.1", ["beta>=1"])
    second = locked(maker, own_wheels.request("alpha", "beta>1.4"), told.append, keep=(first,))
    assert names(first) == {"alpha": "2.0", "beta": "1.0"}
    assert names(second) == {"alpha": "2.0", "beta": "1.5"}


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        ((), {"alpha": "1.0", "beta": "1.0"}),
        (("Alpha",), {"alpha": "2.0", "beta": "1.0"}),
        (("*",), {"alpha": "2.0", "beta": "1.5"}),
    ],
)
def test_only_what_is_to_be_upgraded_is(python, wheels, told, upgrade, expected):
    maker = python()
    old = locked(maker, wheels.request("alpha<2", "beta<1.4"), told.append)
    new = locked(maker, wheels.request("alpha"), told.append, keep=(old,), upgrade=upgrade)
    assert names(new) == expected


def test_an_unchanged_lock_stays_the_same_bytes(python, own_wheels, told):
    maker = python()
    old = replace(locked(maker, own_wheels.request("alpha"), told.append), tool="uv 0.1.0")
    own_wheels.wheel("beta", "1.5", tag="cp311.cp312.cp313.cp314-none-any")  # a closer one, later
    new = locked(maker, own_wheels.request("beta", "alpha"), told.append, keep=(old,))
    assert new == old


def test_a_new_platform_takes_the_versions_of_the_others(python, binary, told):
    old = locked(python(), binary.request("binary", "beta<1.4"), told.append)
    request = LockRequest(
        environment=binary.request("binary", "beta"),
        platforms=("linux-64", "osx-arm64"),
        keep=(old,),
    )
    linux, mac = python().lock(request, told.append)
    assert linux == old
    assert names(mac) == names(old) == {"binary": "1.0", "beta": "1.0"}
    assert TAGS["osx-arm64"] in mac.artifacts[-1].filename


def test_pip_keeps_all_of_it_or_nothing(python, wheels, told):
    old = locked(python(), wheels.request("alpha<2", "beta<1.4"), told.append)
    kept = locked(python("pip"), wheels.request("alpha", "gamma"), told.append, keep=(old,))
    assert names(kept) == {**names(old), "gamma": "1.0"}
    new = locked(python("pip"), wheels.request("alpha>1"), told.append, keep=(old,))
    assert names(new) == {"alpha": "2.0", "beta": "1.5"}


def test_the_python_that_was_locked_stays_where_it_is_not_installed(python, wheels, told):
    maker = python()
    old = locked(maker, wheels.request("alpha", python="3"), told.append)
    other = replace(old, interpreter=replace(old.interpreter, version="3.11.99"))
    kept = locked(maker, wheels.request("alpha", python="3.11"), told.append, keep=(other,))
    assert kept.interpreter.version == "3.11.99"
    assert kept.artifacts == old.artifacts
    anew = locked(maker, wheels.request("alpha"), told.append, keep=(other,), upgrade=("*",))
    assert anew.interpreter == old.interpreter


def test_nothing_younger_than_a_date_is_taken(python, own_wheels, index, told):
    index.uploaded["beta-1.5-py3-none-any.whl"] = "2024-06-01T00:00:00Z"
    request = own_wheels.request("beta", options=(f"--index-url {index.url}",))
    before = locked(python(), request, told.append, exclude_newer="2024-05-01T00:00:00Z")
    assert (names(before), before.exclude_newer) == ({"beta": "1.0"}, "2024-05-01T00:00:00Z")
    after = locked(python(), request, told.append, exclude_newer="2024-07-01T00:00:00Z")
    assert names(after) == {"beta": "1.5"}


# -- what a lock says beside its files


def test_a_lock_says_who_needs_what_and_which_extras(python, own_wheels, index, told):
    own_wheels.wheel("more", "1.0", ["alpha", "gamma; extra == 'plus'"], extras=("plus",))
    request = own_wheels.request("more[plus]", "beta", options=(f"--index-url {index.url}",))
    found = {a.name: a for a in locked(python(), request, told.append).artifacts}
    assert found["more"].depends == ("alpha", "gamma")
    assert found["more"].extras == ("plus",)
    assert found["alpha"].depends == ("beta",)
    assert (found["beta"].depends, found["beta"].extras) == ((), ())
    assert {a.index for a in found.values()} == {index.url}
    assert all(a.size for a in found.values())


def test_credentials_of_an_index_are_in_no_lock(python, own_wheels, index, told):
    index.login = base64.b64encode(b"ada:hidden").decode()
    option = f"--index-url http://ada:hidden@{index.host}/simple"
    lock = locked(python(), own_wheels.request("alpha", options=(option,)), told.append)
    assert "hidden" not in pylock.encode((lock,), {}).decode()
    assert lock.artifacts[0].index == index.url


# -- hashes that were given


def hashed(wheels, name, *files):
    sha256 = (hashlib.sha256((wheels.folder / file).read_bytes()).hexdigest() for file in files)
    return " ".join((name, *(f"--hash=sha256:{one}" for one in sha256)))


ALPHA, BETA = "alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"


def test_hashes_in_a_requirements_file_are_those_of_the_lock(python, wheels, told):
    good = hashed(wheels, "alpha==1.0", ALPHA, BETA), hashed(wheels, "beta==1.0", BETA)
    lock = locked(python(), wheels.request(*good), told.append)
    assert names(lock) == {"alpha": "1.0", "beta": "1.0"}


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_a_file_with_none_of_the_given_hashes_is_refused(python, wheels, told, tool):
    wrong = hashed(wheels, "alpha==1.0", BETA)
    with pytest.raises(EnvironmentFailed, match="`alpha.*hashes given for it"):
        locked(python(tool), wheels.request(wrong), told.append)


def test_of_several_wheels_one_with_a_given_hash_is_taken(python, own_wheels, told):
    closer = own_wheels.wheel("beta", "1.0", tag="py311.py312.py313.py314-none-any")
    plain = locked(python(), own_wheels.request("beta==1.0"), told.append)
    assert plain.artifacts[0].filename == closer.name
    lock = locked(python(), own_wheels.request(hashed(own_wheels, "beta==1.0", BETA)), told.append)
    assert lock.artifacts[0].filename == BETA


def test_required_hashes_are_required_of_every_package(python, wheels, told):
    strict = (*wheels.options, "--require-hashes")
    asked = hashed(wheels, "alpha==1.0", ALPHA)
    with pytest.raises(EnvironmentFailed, match="no hash is given for `beta`"):
        locked(python(), wheels.request(asked, options=strict), told.append)
    both = asked, hashed(wheels, "beta==1.0", BETA)
    assert locked(python(), wheels.request(*both, options=strict), told.append).artifacts


def test_a_requirements_file_with_hashes_is_among_what_pins(wheels):
    line = hashed(wheels, "alpha==1.0", ALPHA).replace(" --hash", " \\\n    --hash")
    texts = {"hashed.txt": f"{line}\n-r plain.txt\n".encode(), "plain.txt": b"beta\n"}
    data = b"dependencies: ['-r hashed.txt', gamma]\n"
    found, problems = requirements.python_env("python_env.yaml", data, texts.get)
    assert problems == []
    assert found.pinned == (("hashed.txt", hashlib.sha256(texts["hashed.txt"]).hexdigest()),)
    assert [one.split()[0] for one in found.requirements] == ["alpha==1.0", "beta", "gamma"]
    assert "--hash=sha256:" in found.requirements[0]


def test_a_hash_that_is_no_sha256_is_refused(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="none is a SHA-256"):
        locked(python(), wheels.request("alpha==1.0 --hash=md5:0123"), told.append)


def test_a_source_distribution_is_locked_only_when_that_is_allowed(python, own_wheels, told):
    request = own_wheels.request("source_only", "alpha")
    lock = locked(python(sdists=True), request, told.append)
    kinds = {a.name: a.kind for a in lock.artifacts}
    assert kinds == {"alpha": "wheel", "beta": "wheel", "source-only": "sdist"}


@pytest.mark.network
def test_a_package_of_the_index_is_locked_and_installed(python, network, told):
    maker = python(environ=network)
    lock = locked(maker, PythonEnvironment(requirements=("iniconfig",)), told.append)
    assert [a.name for a in lock.artifacts] == ["iniconfig"]
    assert lock.artifacts[0].url.startswith("https://")
    maker.realize(lock, told.append).release()


def test_the_hash_of_a_file_is_read_as_every_pip_writes_it():
    assert pip._sha256("a", {"hash": "sha256=12"}) == "12"
    assert pip._sha256("a", {"hash": "md5=0", "hashes": {"sha256": "34"}}) == "34"
    with pytest.raises(EnvironmentFailed, match="SHA-256 of `a`"):
        pip._sha256("a", {"hash": "md5=0"})

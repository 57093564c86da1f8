"""What a request resolves to."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from environments.conftest import local_package
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from repro.environments.demand import demand
from repro.errors import EnvironmentFailed, InterpreterMissing, Unreachable, UsageError
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.spec import PythonEnvironment
from repro.value import replace


def names(lock):
    return {a.name: a.version for a in lock.artifacts}


def test_a_lock_names_one_exact_file_of_every_package(python, wheels, told):
    lock = python().lock(wheels.request("alpha"), told.append)
    assert names(lock) == {"alpha": "2.0", "beta": "1.5"}
    assert [a.kind for a in lock.artifacts] == ["wheel", "wheel"]
    assert all(len(a.digest) == 64 and a.filename.endswith(".whl") for a in lock.artifacts)
    assert lock.tool.startswith("uv ")
    assert len(told) == 1


def test_neither_order_nor_repetition_of_requirements_matters(python, wheels, told):
    one = python().lock(wheels.request("alpha", "gamma", "beta"), told.append)
    two = python().lock(
        wheels.request("beta", "gamma", "alpha", build_requirements=("gamma",)), told.append
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
    by_uv = python("uv", root=root).lock(request, told.append)
    by_pip = python("pip", root=root).lock(request, told.append)
    assert by_uv.artifacts == by_pip.artifacts
    assert by_uv.digest == by_pip.digest
    assert (by_uv.tool.split()[0], by_pip.tool.split()[0]) == ("uv", "pip")


def test_build_requirements_and_constraints_are_part_of_the_resolution(python, wheels, told):
    request = wheels.request(build_requirements=("alpha",), constraints=("alpha<2", "beta<1.2"))
    assert names(python().lock(request, told.append)) == {"alpha": "1.0", "beta": "1.0"}


def test_the_closest_of_several_wheels_is_locked(python, own_wheels, told):
    plain = python().lock(own_wheels.request("beta"), told.append)
    platform = plain.interpreter.platform.replace("-", "_").replace(".", "_")
    own_wheels.wheel("beta", "1.5", tag=f"py3-none-{platform}")
    special = python().lock(own_wheels.request("beta"), told.append)
    assert platform in special.artifacts[0].filename
    assert special.digest != plain.digest


def test_a_local_package_is_locked_by_its_content_with_what_it_needs(
    python, wheels, told, tmp_path
):
    local_package(tmp_path / "my project" / "part", requires=["beta>1", "gamma; extra == 'more'"])
    maker = python(root=str(tmp_path / "my project"))
    lock = maker.lock(wheels.request(directories=(("part", "d" * 64),)), told.append)
    assert names(lock) == {"beta": "1.5", "local-one": "d" * 12}
    part = lock.artifacts[-1]
    assert (part.kind, part.digest, part.url) == ("directory", "d" * 64, "part")
    with pytest.raises(EnvironmentFailed, match="cannot be resolved"):
        maker.lock(wheels.request(directories=(("part[more]", "d" * 64),)), told.append)


def test_what_a_local_package_needs_is_not_taken_from_an_earlier_build(
    python, wheels, told, tmp_path
):
    part = local_package(tmp_path / "project" / "part", requires=["beta>1"])
    maker = python(root=str(tmp_path / "project"))
    request = wheels.request(directories=(("part", "d" * 64),))
    assert "gamma" not in names(maker.lock(request, told.append))
    backend = (part / "backend.py").read_text()
    (part / "backend.py").write_text(backend.replace("beta>1", "gamma"))
    assert "gamma" in names(maker.lock(request, told.append))


def test_a_wheel_inside_the_project_is_locked_relative_to_it(python, wheels, told, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    os.link(wheels.folder / "beta-1.0-py3-none-any.whl", project / "beta-1.0-py3-none-any.whl")
    maker = python(root=str(project))
    lock = maker.lock(wheels.request("./beta-1.0-py3-none-any.whl"), told.append)
    assert lock.artifacts[0].url == "beta-1.0-py3-none-any.whl"
    maker.realize(lock, told.append).release()


def test_local_packages_need_a_project_folder(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="in no folder") as failed:
        python().lock(wheels.request(directories=(("part", "d" * 64),)), told.append)
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
        lock = python().lock(wheels.request(line), told.append)
        assert names(lock) == {"beta": "1.5", "fetched": "0.3"}
        fetched = lock.artifacts[-1]
        assert (fetched.kind, fetched.digest) == ("vcs", head.stdout.decode().strip())
        assert fetched.url == f"git+file://{repository}@{fetched.digest}"
        python().realize(lock, told.append).release()


def test_requirements_that_exclude_each_other_are_explained_in_a_few_lines(
    python, wheels, told, home
):
    with pytest.raises(EnvironmentFailed, match=r"`python_env.yaml` cannot be resolved") as failed:
        python().lock(wheels.request("gamma", "beta>1.2"), told.append)
    reason = " ".join(failed.value.hints)
    assert "gamma" in reason
    assert "beta" in reason
    assert len(failed.value.hints) < 12
    assert failed.value.log.startswith(os.path.join(home, "logs"))
    with open(failed.value.log) as log:
        assert "beta" in log.read()


def test_a_package_that_has_no_wheel_names_the_way_to_build_it(python, wheels, told):
    with pytest.raises(EnvironmentFailed) as failed:
        python().lock(wheels.request("source_only"), told.append)
    assert any("REPRO_SDISTS=1" in hint for hint in failed.value.hints)


def test_an_index_that_does_not_answer_is_worth_a_retry(python, wheels, told):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"--index-url http://ada:hidden@127.0.0.1:{closed.getsockname()[1]}/simple"
        with pytest.raises(Unreachable) as failed:
            python().lock(wheels.request("alpha", options=(index,)), told.append)
    assert "hidden" not in " ".join([failed.value.message, *failed.value.hints])


def test_no_requirements_need_no_tool_and_no_network(python, wheels, told):
    maker = python(environ={"REPRO_UV": "/not/here"})
    lock = maker.lock(wheels.request(options=()), told.append)
    assert lock.artifacts == ()
    assert lock.interpreter.version
    assert told == []


def test_a_python_that_is_not_here_is_named_with_those_that_are(python, wheels, told):
    here = python().lock(wheels.request(), told.append).interpreter.version
    with pytest.raises(InterpreterMissing) as failed:
        python().lock(wheels.request("alpha", python="3.99"), told.append)
    assert failed.value.message == "python 3.99 was asked for by `python_env.yaml` and is not here"
    assert f"found: {here} (" in failed.value.hints[0] or f", {here} (" in failed.value.hints[0]
    assert any("REPRO_PYTHON_3_99" in hint for hint in failed.value.hints)


def test_without_uv_a_demand_for_it_names_the_ways_out(python, wheels, told):
    with pytest.raises(EnvironmentFailed, match="cannot be started") as failed:
        python(environ={"REPRO_UV": "/not/here"}).lock(wheels.request("alpha"), told.append)
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
    plain = python().lock(wheels.request("alpha"), told.append)
    maker = python(environ=misleading)
    assert maker.lock(wheels.request("alpha"), told.append) == plain
    maker.realize(plain, told.append).release()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.network
def test_a_package_of_the_index_is_locked_and_installed(python, network, told):
    maker = python(environ=network)
    lock = maker.lock(PythonEnvironment(requirements=("iniconfig",)), told.append)
    assert [a.name for a in lock.artifacts] == ["iniconfig"]
    assert lock.artifacts[0].url.startswith("https://")
    maker.realize(lock, told.append).release()


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
INTERPRETER = Interpreter(implementation="cpython", version="3.11.7", abi="a", platform="p")


@effort(max_examples=50, deadline=None)
@given(artifacts=ARTIFACTS, data=st.data())
def test_the_digest_of_a_lock_does_not_depend_on_order_or_origin(artifacts, data):
    lock = EnvironmentLock(kind="python", interpreter=INTERPRETER, artifacts=tuple(artifacts))
    shuffled = data.draw(st.permutations(artifacts))
    moved = tuple(replace(a, url="https://elsewhere.example/") for a in shuffled)
    assert replace(lock, artifacts=moved, tool="another").digest == lock.digest
    if artifacts:
        changed = replace(artifacts[0], digest="f" * 63 + "!")
        assert replace(lock, artifacts=(changed, *artifacts[1:])).digest != lock.digest

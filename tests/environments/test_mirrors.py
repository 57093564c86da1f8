"""Package indexes behind mirrors: fetched from there, and locked by their real addresses."""

from __future__ import annotations

import base64
import os
import tarfile

import pytest
from environments.conftest import local_package, locked, output

from repro.environments import indexes
from repro.errors import EnvironmentFailed
from repro.lock import Artifact
from repro.lockfiles import pylock
from repro.mirrors import Mirrors
from repro.value import replace

INDEX, FILES = "https://pypi.invalid/simple", "https://files.invalid/packages/"
TOOLS = pytest.mark.parametrize("tool", ["uv", "pip"])


@pytest.fixture
def mirrored(python, index):
    """Make environments where `INDEX` is served by a mirror that wants a login."""
    index.login = base64.b64encode(b"me:hidden").decode()
    mirror = f"http://me:hidden@{index.host}"
    pairs = f"{INDEX}/={mirror}/simple/ {FILES}={mirror}/files/"

    def make(tool, more="", **options):
        environ = {"REPRO_MIRRORS": f"{pairs} {more}", **options.pop("environ", {})}
        return python(tool, environ=environ, **options)

    return make


@TOOLS
def test_a_lock_names_the_index_and_its_mirror_gives_the_files(
    mirrored, own_wheels, index, told, tool
):
    request = own_wheels.request("alpha", options=(f"--index-url {INDEX}",))
    lock = locked(mirrored(tool), request, told.append)
    assert {a.url for a in lock.artifacts} == {
        f"{FILES}alpha-2.0-py3-none-any.whl",
        f"{FILES}beta-1.5-py3-none-any.whl",
    }
    assert {a.index for a in lock.artifacts} == {INDEX if tool == "uv" else ""}
    text = pylock.encode((lock,), {}).decode()
    assert [word for word in ("hidden", index.host) if word in text] == []
    index.requests.clear()
    realized = mirrored(tool).realize(lock, told.append)
    assert sorted(index.downloads) == ["alpha-2.0-py3-none-any.whl", "beta-1.5-py3-none-any.whl"]
    assert output(realized, "import alpha; print(alpha.VERSION)") == "2.0"
    realized.release()
    assert "hidden" not in str(told)


def test_the_same_is_locked_without_a_mirror(mirrored, python, own_wheels, index, told):
    request = own_wheels.request("alpha", options=(f"--index-url {INDEX}",))
    by_mirror = locked(mirrored("uv"), request, told.append)
    index.login = ""
    request = own_wheels.request("alpha", options=(f"--index-url {index.url}",))
    direct = locked(python(), request, told.append)
    renamed = tuple(
        replace(a, url=a.url.replace(f"http://{index.host}/files/", FILES), index=INDEX)
        for a in direct.artifacts
    )
    assert by_mirror == replace(direct, artifacts=renamed)


@TOOLS
def test_the_usual_index_may_have_a_mirror(python, own_wheels, index, told, tool):
    environ = {"REPRO_MIRRORS": f"{indexes.USUAL}={index.url}"}
    lock = locked(
        python(tool, environ=environ), own_wheels.request("beta", options=()), told.append
    )
    assert [a.version for a in lock.artifacts] == ["1.5"]
    assert index.requests
    if tool == "uv":
        assert lock.artifacts[0].index == indexes.USUAL


@TOOLS
def test_variables_of_the_caller_lead_to_mirrors_too(mirrored, own_wheels, told, tool):
    name = "UV_INDEX_URL" if tool == "uv" else "PIP_INDEX_URL"
    maker = mirrored(tool, environ={name: f"{INDEX}/"})
    lock = locked(maker, own_wheels.request("beta", options=()), told.append)
    assert lock.artifacts[0].url == f"{FILES}beta-1.5-py3-none-any.whl"


def test_what_is_locked_stays_when_more_is_asked_for(mirrored, own_wheels, index, told):
    options = (f"--index-url {INDEX}",)
    first = locked(mirrored("uv"), own_wheels.request("alpha<2", options=options), told.append)
    wanted = own_wheels.request("alpha", "gamma", options=options)
    second = locked(mirrored("uv"), wanted, told.append, keep=(first,))
    assert {a.name: a.version for a in second.artifacts}["alpha"] == "1.0"


@TOOLS
def test_a_file_that_is_named_by_its_address_comes_from_the_mirror(
    mirrored, own_wheels, index, told, tool
):
    line = f"beta @ {FILES}beta-1.0-py3-none-any.whl"
    lock = locked(mirrored(tool), own_wheels.request(line, options=()), told.append)
    assert lock.artifacts[0].url == f"{FILES}beta-1.0-py3-none-any.whl"
    mirrored(tool).realize(lock, told.append).release()


@TOOLS
def test_what_is_built_comes_from_the_mirror_with_what_its_build_needs(
    mirrored, own_wheels, index, told, tool, tmp_path
):
    own_wheels.wheel("tool", "1.0")
    part = local_package(tmp_path / "source", name="built")
    text = (part / "pyproject.toml").read_text().replace("[]", '["tool"]', 1)
    (part / "pyproject.toml").write_text(text)
    (part / "PKG-INFO").write_text("Metadata-Version: 2.2\nName: built\nVersion: 0.3\n")
    with tarfile.open(own_wheels.folder / "built-0.3.tar.gz", "w:gz") as archive:
        archive.add(part, "built-0.3")
    usual = f"{indexes.USUAL}=http://me:hidden@{index.host}/simple"
    maker = mirrored(tool, usual, sdists=True)
    request = own_wheels.request("built", options=(f"--index-url {INDEX}",))
    lock = locked(maker, request, told.append)
    assert [(a.kind, a.url) for a in lock.artifacts] == [("sdist", f"{FILES}built-0.3.tar.gz")]
    index.requests.clear()
    realized = maker.realize(lock, told.append)
    assert output(realized, "import built; print(built.VERSION)") == "1"
    realized.release()


def test_a_file_that_the_mirror_has_not_is_told_without_a_login(
    mirrored, own_wheels, index, told, home
):
    request = own_wheels.request("beta", options=(f"--index-url {INDEX}",))
    lock = locked(mirrored("uv"), request, told.append)
    os.unlink(own_wheels.folder / "beta-1.5-py3-none-any.whl")
    with pytest.raises(EnvironmentFailed) as failed:
        mirrored("uv").realize(lock, told.append)
    assert f"http://{index.host}/files/beta-1.5-py3-none-any.whl" in str(failed.value.hints)
    assert "hidden" not in str(failed.value.hints)


# -- how addresses are swapped


PAIRS = Mirrors(
    {
        "REPRO_MIRRORS": "https://a.org/simple/=https://me:pw@m.org/a/simple/,"
        "https://f.org=file:///srv/f https://b.org/=https://m.org/b/"
    }
)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("https://a.org/simple", "https://me:pw@m.org/a/simple"),
        ("https://a.org/simple/", "https://me:pw@m.org/a/simple/"),
        ("https://you:their@a.org/simple/x/", "https://me:pw@m.org/a/simple/x/"),
        ("https://f.org/x.whl#sha256=00", "file:///srv/f/x.whl#sha256=00"),
        ("https://you:own@other.org/simple?x=1", "https://you:own@other.org/simple?x=1"),
        ("wheels/x.whl", "wheels/x.whl"),
    ],
)
def test_an_address_is_swapped_for_its_place(given, place):
    assert indexes.place(given, PAIRS) == place


@pytest.mark.parametrize(
    ("option", "swapped"),
    [
        ("--index-url https://b.org/s", "--index-url https://m.org/b/s"),
        ("--extra-index-url=https://b.org/s", "--extra-index-url=https://m.org/b/s"),
        ("one=https://b.org/s two=https://c.org", "one=https://m.org/b/s two=https://c.org"),
        ("x @ https://b.org/x.whl ; extra == 'y'", "x @ https://m.org/b/x.whl ; extra == 'y'"),
        ("six>=1", "six>=1"),
        ("--pre", "--pre"),
    ],
)
def test_addresses_inside_of_lines_are_swapped(option, swapped):
    assert indexes.option(option, PAIRS) == swapped


def test_a_lock_gets_addresses_back_without_logins():
    there = Artifact(
        name="x",
        version="1",
        kind="wheel",
        digest="d",
        url="https://m.org/a/simple/x.whl",
        index="https://m.org/a/simple",
    )
    found = indexes.original(there, PAIRS)
    assert (found.url, found.index) == ("https://a.org/simple/x.whl", "https://a.org/simple")
    mirrors = Mirrors({"REPRO_MIRRORS": "https://you:pw@a.org/=https://m.org/"})
    assert mirrors.origin("https://m.org/x") == "https://a.org/x"


def test_an_index_that_is_named_is_not_overruled_by_the_mirror_of_the_usual_one():
    mirrors = Mirrors({"REPRO_MIRRORS": f"{indexes.USUAL}=https://m.org/simple"})
    mirror = {"UV_DEFAULT_INDEX": "https://m.org/simple"}
    assert indexes.default("uv", (), {}, mirrors) == mirror
    assert indexes.default("uv", ("--extra-index-url https://x.org",), {}, mirrors) == mirror
    for option in ("--index-url https://x.org", "--index-url=https://x.org", "-i https://x.org"):
        assert indexes.default("uv", (option,), {}, mirrors) == {}
    assert indexes.default("uv", (), {"UV_INDEX_URL": "https://x.org"}, mirrors) == {}
    assert indexes.default("pip", (), {}, Mirrors({})) == {}

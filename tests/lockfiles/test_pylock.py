"""`pylock.toml`: what is written is read again, by uv and pip too; nothing else is believed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from environments.conftest import Wheelhouse, fill
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import platforms
from repro.environments import uv
from repro.errors import LockInvalid
from repro.lock import Artifact, EnvironmentLock, Interpreter
from repro.lockfiles import pylock
from repro.value import replace

PATH = "lockfiles/pylock.linux-64.toml"
PYTHON = Interpreter(
    implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
)
ALPHA = Artifact(
    name="alpha",
    version="2.0",
    kind="wheel",
    digest="a" * 64,
    filename="alpha-2.0-py3-none-any.whl",
    url="https://files.example/a/alpha-2.0-py3-none-any.whl",
    index="https://index.example/simple",
    size=1234,
    depends=("beta",),
    extras=("more",),
)
BETA = replace(
    ALPHA,
    name="beta",
    filename="beta-2.0-py3-none-any.whl",
    url="vendored/beta-2.0-py3-none-any.whl",
    index="",
    depends=(),
    extras=(),
)
SDIST = replace(ALPHA, name="delta", kind="sdist", filename="delta-2.0.tar.gz", depends=())
PART = Artifact(name="part", version="d" * 12, kind="directory", digest="d" * 64, url="my part")
FETCHED = Artifact(
    name="fetched",
    version="0.3",
    kind="vcs",
    digest="c" * 40,
    url=f"git+ssh://git@host.example/x.git@{'c' * 40}#subdirectory=sub/x",
)
LOCK = EnvironmentLock(
    kind="python",
    interpreter=PYTHON,
    artifacts=(ALPHA, BETA, SDIST, FETCHED, PART),
    tool="uv 0.8.1",
    platform="linux-64",
    exclude_newer="2026-01-01T00:00:00Z",
)


def text(lock=LOCK, about=None):
    return pylock.encode((lock,), about or {})


def decoded(data, path=PATH):
    (lock,) = pylock.decode(path, data).locks
    return lock


def test_what_is_written_is_read_again():
    found = pylock.decode(PATH, text())
    assert found.locks == (LOCK,)
    assert (found.path, found.kind, found.edited, found.maker) == (PATH, "python", False, "repro")


def test_equal_locks_are_equal_bytes():
    shuffled = replace(LOCK, artifacts=tuple(reversed(LOCK.artifacts)))
    assert text(shuffled) == text()
    assert text(LOCK, {"b": "2", "a": "1"}) == text(LOCK, {"a": "1", "b": "2"})
    assert decoded(text(LOCK, {"a b": "1"})) == LOCK


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.from_regex(r"[a-zà-ü][ -.0-~]{0,12}", fullmatch=True).filter(
    lambda path: "//" not in path and not {".", "..", ""} & {*path.split("/")} and "\\" not in path
)
NAMES = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)
FILES = st.builds(
    Artifact,
    name=NAMES,
    version=st.from_regex(r"[0-9][0-9a-z.!+]{0,8}", fullmatch=True),
    kind=st.just("wheel"),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    filename=st.from_regex(r"[a-z0-9_.]{1,12}\.whl", fullmatch=True),
    url=PATHS | st.just("https://h.example/f.whl"),
    md5=st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32),
    size=st.integers(0, 2**40),
    depends=st.lists(NAMES | st.just("x[y]>=1; z == 'a'"), max_size=3, unique=True).map(
        lambda names: tuple(sorted(names))
    ),
    extras=st.lists(NAMES, max_size=2).map(tuple),
    index=st.just("") | st.just("https://i.example/simple"),
)
LOCKS = st.builds(
    EnvironmentLock,
    kind=st.just("python"),
    interpreter=st.just(PYTHON),
    artifacts=st.lists(FILES, max_size=4, unique_by=lambda a: a.name).map(
        lambda found: tuple(sorted(found, key=lambda a: a.name))
    ),
    tool=TEXTS,
    platform=st.sampled_from(platforms.NAMES),
)


@settings(max_examples=150, deadline=None)
@given(lock=LOCKS, about=st.dictionaries(TEXTS, TEXTS, max_size=2))
def test_every_lock_is_read_again(lock, about):
    data = text(lock, about)
    found = pylock.decode(PATH, data)
    assert found.locks == (lock,)
    assert not found.edited
    assert text(found.locks[0], about) == data


@pytest.mark.parametrize(
    ("old", "new", "edited"),
    [
        ("a" * 64, "b" * 64, True),
        ('version = "2.0"', 'version = "2.1"', True),
        ('"3.11.7"', '"3.11.8"', True),
        ('platform = "linux-64"', 'platform = "osx-64"', True),
        ("[tool.repro]", "# a comment\n[tool.repro]", False),
        ("https://files.example/", "https://mirror.example/", False),
    ],
)
def test_a_change_by_hand_is_noticed_where_it_matters(old, new, edited):
    data = text().decode()
    assert old in data
    assert pylock.decode(PATH, data.replace(old, new).encode()).edited == edited


def test_paths_are_those_of_the_project_wherever_the_file_lies():
    assert 'path = "../vendored/beta-2.0-py3-none-any.whl"' in text().decode()
    moved = text().decode().replace('"../', '"')
    assert decoded(moved.encode(), "pylock.toml") == LOCK


def test_neither_credentials_nor_tokens_are_written_or_read():
    checkout = replace(FETCHED, url=f"git+https://ada:hidden@host.example/x.git@{'c' * 40}")
    secret = replace(
        ALPHA,
        url="https://ada:hidden@files.example/alpha-2.0-py3-none-any.whl?token=hidden",
        index="https://ada:hidden@index.example/simple",
    )
    data = text(replace(LOCK, artifacts=(secret, checkout))).decode()
    assert "hidden" not in data
    foreign = data.replace("https://", "https://ada:hidden@")
    assert "hidden" not in repr(decoded(foreign.encode()))


UV = """
lock-version = "1.0"
created-by = "uv"
requires-python = ">=3.11"

[[packages]]
name = "Alpha_One"
version = "2.0"
marker = "sys_platform == 'linux'"
index = "https://index.example/simple"
dependencies = [{ name = "beta" }]
sdist = { url = "https://f.example/alpha_one-2.0.tar.gz", upload-time = 2024-01-01T00:00:00Z, size = 9, hashes = { sha256 = "ONE" } }
wheels = [
    { url = "https://f.example/alpha_one-2.0-cp311-cp311-manylinux_2_17_x86_64.whl", size = 5, hashes = { sha256 = "TWO" } },
    { url = "https://f.example/alpha_one-2.0-cp311-cp311-macosx_11_0_arm64.whl", hashes = { sha256 = "THREE" } },
]
"""
UV = UV.replace("ONE", "1" * 64).replace("TWO", "2" * 64).replace("THREE", "3" * 64)


def test_a_lock_of_another_tool_keeps_all_that_there_is_to_choose_from():
    found = pylock.decode("pylock.linux-64.toml", UV.encode())
    (lock,) = found.locks
    assert (found.maker, found.edited, lock.platform) == ("uv", False, "linux-64")
    assert (lock.interpreter.implementation, lock.interpreter.version) == ("", ">=3.11")
    assert [(a.name, a.kind, a.digest[0]) for a in lock.artifacts] == [
        ("alpha-one", "wheel", "2"),
        ("alpha-one", "wheel", "3"),
        ("alpha-one", "sdist", "1"),
    ]
    first = lock.artifacts[0]
    assert first.filename == "alpha_one-2.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    assert (first.marker, first.depends, first.extras) == (
        "sys_platform == 'linux'",
        ("beta",),
        ("*",),
    )
    assert pylock.decode("pylock.toml", UV.encode()).locks[0].platform == ""
    named = pylock.decode("pylock.train-osx-arm64.toml", UV.encode())
    assert named.locks[0].platform == "osx-arm64"


def test_a_lock_of_a_later_version_says_so():
    for old, new in (
        ('lock-version = "1.0"', 'lock-version = "2.0"'),
        ("format = 1", "format = 2"),
    ):
        with pytest.raises(LockInvalid, match="later version") as failed:
            pylock.decode(PATH, text().decode().replace(old, new).encode())
        assert failed.value.hints == ("install a newer repro",)
    assert decoded(text().decode().replace('"1.0"', '"1.7"', 1).encode()) == LOCK


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('lock-version = "1.0"', "", "no lock of PEP 751"),
        ('lock-version = "1.0"', "lock-version = 1.0", "no lock of PEP 751"),
        ("[[packages]]", "[[packages]", "no TOML"),
        ("a" * 64, "a" * 63, "without SHA-256"),
        ("a" * 64, "A-" * 32, "without SHA-256"),
        ('name = "beta"\n', 'name = "alpha"\n', "twice"),
        ('name = "beta"\n', 'name = "be ta"\n', "no name of a package"),
        ('name = "beta"\n', "name = 5\n", "no text"),
        ("../vendored", "../../vendored", "outside of the project"),
        ("../my part", "../../../etc", "outside of the project"),
        ("https://files.example", "javascript:x", "no URL that files come from"),
        ("https://files.example", "https://[x", "no URL"),
        ("alpha-2.0-py3-none-any.whl", "../x.whl", "no name of a file"),
        ("c" * 40, "--upload-pack=x", "no checkout"),
        ('type = "git"', 'type = "sh"', "no checkout"),
        ("d" * 64, "xyz", "no digest"),
        ("format = 1", 'format = "1"', "no `format`"),
        ("[tool.repro.interpreter]", "[[tool.repro.interpreter]]", "no table"),
        ('extras = ["more"]', "extras = [1]", "no list of texts"),
        ("dependencies = [", "dependencies = [1, ", "no list of tables"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(old, new, message):
    data = text().decode()
    assert old in data
    with pytest.raises(LockInvalid, match=message) as failed:
        pylock.decode(PATH, data.replace(old, new, 1).encode())
    assert failed.value.where.file == PATH
    assert failed.value.where.line > 0 or not new
    assert failed.value.hints


def test_mistakes_are_found_at_their_line():
    data = text().decode().replace("a" * 64, "a" * 63)
    with pytest.raises(LockInvalid) as failed:
        pylock.decode(PATH, data.encode())
    assert failed.value.where.text == 'name = "alpha"'
    assert data.splitlines()[failed.value.where.line - 1] == 'name = "alpha"'


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_lock_is_a_lock_or_invalid(data):
    good = text()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 60)))
    piece = data.draw(
        st.binary(max_size=8)
        | st.sampled_from([b"[[packages]]\n", b"{}", b"[]", b"1", b'"', b"= 1\n", b"true"])
    )
    try:
        pylock.decode(PATH, good[:start] + piece + good[end:])
    except LockInvalid as error:
        assert error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"a = " + b"[" * 5000,
        b"lock-version = '1.0'\npackages = 5",
        b"lock-version = '1.0'\npackages = [[]]",
        b"lock-version = '1.0'\ntool = 1",
        b"lock-version = '1.0'\n[[packages]]\nname = 'x'",
        b"lock-version = '1.0'\n[[packages]]\nname = 'x'\nwheels = [{url = 'https://h/%00.whl'}]",
        b"lock-version = '" + b"9" * 100_000 + b".0'",
    ],
)
def test_hostile_text_is_invalid(data):
    with pytest.raises(LockInvalid):
        pylock.decode(PATH, data)


# -- other tools


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return fill(Wheelhouse(tmp_path_factory.mktemp("wheels")))


@pytest.fixture
def own(house, tmp_path):
    """A project with a lock of three wheels, one of which is its own; and its path."""
    project = tmp_path / "project"
    (project / "lockfiles").mkdir(parents=True)
    (project / "vendored").mkdir()
    artifacts = []
    for name, version in (("alpha", "2.0"), ("beta", "1.5"), ("gamma", "1.0")):
        file = house.folder / f"{name}-{version}-py3-none-any.whl"
        url = f"file://{file}"
        if name == "gamma":
            os.link(file, project / "vendored" / file.name)
            url = f"vendored/{file.name}"
        sha256 = subprocess.run(
            ["sha256sum", file], capture_output=True, check=True, text=True
        ).stdout[:64]
        artifacts.append(
            Artifact(
                name=name,
                version=version,
                kind="wheel",
                digest=sha256,
                filename=file.name,
                url=url,
                size=file.stat().st_size,
                depends=("beta",) if name == "alpha" else (),
                extras=("some",) if name == "beta" else (),
            )
        )
    version = ".".join(map(str, sys.version_info[:3]))
    python = replace(PYTHON, version=version)
    platform = platforms.of_machine(sys.platform, os.uname().machine)
    lock = EnvironmentLock(
        kind="python", interpreter=python, artifacts=tuple(artifacts), platform=platform
    )
    path = project / "lockfiles" / f"pylock.{platform}.toml"
    path.write_bytes(pylock.encode((lock,), {}))
    return path


LISTING = "import alpha, beta, gamma; print(alpha.VERSION, beta.VERSION, gamma.VERSION)"


def test_uv_installs_from_it_and_refuses_other_bytes(own, tmp_path):
    tool = uv.find(os.environ)
    environ = {
        **os.environ,
        "VIRTUAL_ENV": str(tmp_path / "v"),
        "UV_CACHE_DIR": str(tmp_path / "c"),
    }
    subprocess.run([tool, "venv", "-q", "--python", sys.executable, tmp_path / "v"], check=True)
    sync = [tool, "pip", "sync", "--no-config", "--offline", own]
    subprocess.run(sync, check=True, env=environ, capture_output=True)
    told = subprocess.run(
        [tmp_path / "v/bin/python", "-c", LISTING], capture_output=True, check=True, text=True
    )
    assert told.stdout == "2.0 1.5 1.0\n"
    data = own.read_text()
    at = data.index('sha256 = "') + len('sha256 = "')
    own.write_text(data[:at] + "0" * 64 + data[data.index('"', at) :])
    refused = subprocess.run(
        [*sync[:3], "--reinstall", "--no-cache", *sync[3:]],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert refused.returncode
    assert "Hash mismatch" in refused.stderr


def test_uv_refuses_the_lock_of_another_platform(own, tmp_path):
    environ = {
        **os.environ,
        "VIRTUAL_ENV": str(tmp_path / "v"),
        "UV_CACHE_DIR": str(tmp_path / "c"),
    }
    tool = uv.find(os.environ)
    subprocess.run([tool, "venv", "-q", "--python", sys.executable, tmp_path / "v"], check=True)
    own.write_text(own.read_text().replace(f"'{sys.platform}'", "'plan9'"))
    done = subprocess.run(
        [tool, "pip", "sync", "--no-config", "--offline", own],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert "not supported" in done.stderr


def test_pip_installs_from_it(own, tmp_path):
    """pip is asked what it would install: its support is experimental, its answer is exact."""
    pip = [sys.executable, "-m", "pip", "--isolated"]
    version = subprocess.run([*pip, "--version"], capture_output=True, check=False, text=True)
    if version.returncode or int(version.stdout.split()[1].partition(".")[0]) < 26:
        pytest.skip("needs pip 26: `python -m pip install --upgrade pip`")
    target = tmp_path / "target"
    subprocess.run(
        [*pip, "install", "-q", "--no-index", "--no-deps", "--target", target, "-r", own],
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull},
    )
    assert {path.stem for path in target.glob("*.py")} == {"alpha", "beta", "gamma"}


def test_a_lock_that_uv_wrote_is_read(house, tmp_path):
    (tmp_path / "in.txt").write_text("alpha\n")
    done = subprocess.run(
        [
            *(uv.find(os.environ), "pip", "compile", "--no-config", "-q", "--format=pylock.toml"),
            *("--no-index", "--find-links", house.folder, "--generate-hashes"),
            *("--python", sys.executable, "-o", tmp_path / "pylock.toml", tmp_path / "in.txt"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = pylock.decode(str(tmp_path / "pylock.toml"), (tmp_path / "pylock.toml").read_bytes())
    (lock,) = found.locks
    assert found.maker == "uv"
    assert {a.name: a.version for a in lock.artifacts} == {"alpha": "2.0", "beta": "1.5"}

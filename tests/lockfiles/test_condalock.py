"""conda-lock.yml: written and read again, changed by hand, hostile, and made by conda-lock itself."""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import digest
from repro.errors import LockInvalid
from repro.lock import Artifact, EnvironmentLock
from repro.lockfiles import condalock, yamltext
from repro.value import replace

FORGE = "https://conda.anaconda.org/conda-forge"
PIP = "https://files.pythonhosted.org/packages"


def conda(name, version="1.0", build="h0_0", *, subdir="linux-64", **more):
    file = f"{name}-{version}-{build}.conda"
    return Artifact(
        name=name,
        version=version,
        kind="conda",
        digest=digest.of_bytes(file.encode()),
        md5=digest.of_bytes(file.encode())[:32],
        build=build,
        filename=file,
        url=f"{FORGE}/{subdir}/{file}",
        **more,
    )


def wheel(name, version="1.0"):
    file = f"{name}-{version}-py3-none-any.whl"
    return Artifact(
        name=name,
        version=version,
        kind="wheel",
        digest=digest.of_bytes(file.encode()),
        filename=file,
        url=f"{PIP}/{file}",
        depends=("numpy", "six>=1; python_version < '3.9'"),
    )


def lock(platform="linux-64", **more):
    artifacts = (
        conda(
            "numpy",
            "2.1",
            "py311_0",
            subdir=platform,
            depends=("python >=3.11,<3.12.0a0", "python_abi 3.11.* *_cp311", "zlib"),
        ),
        conda(
            "pytorch", "2.3", "cpu_0", subdir="noarch", provides=("torch==2.3.0", "torchgen==2.3.0")
        ),
        wheel("seaborn"),
        Artifact(
            name="tool",
            version="2.0",
            kind="vcs",
            digest="a" * 40,
            url=f"git+https://example.org/tool@{'a' * 40}#subdirectory=src",
        ),
        Artifact(
            name="mine",
            version="0123456789ab",
            kind="directory",
            digest="b" * 64,
            url="packages/mine",
        ),
        Artifact(
            name="old",
            version="1.0",
            kind="sdist",
            digest="c" * 64,
            filename="old-1.0.tar.gz",
            url=f"{PIP}/old-1.0.tar.gz",
        ),
    )
    more = {"tool": "py-rattler 0.28.0, uv 0.9.1", "exclude_newer": "2025-01-01T00:00:00Z", **more}
    return EnvironmentLock(
        kind="conda",
        platform=platform,
        artifacts=tuple(sorted(artifacts, key=lambda a: a.name)),
        **more,
    )


LOCKS = (lock(), lock("osx-arm64", exclude_newer=""))
DATA = condalock.encode(LOCKS, {})


def decoded(data):
    return condalock.decode("lockfiles/conda-lock.yml", data)


def test_what_is_written_is_read_again():
    found = decoded(DATA)
    assert found.locks == LOCKS
    assert [k.digest for k in found.locks] == [k.digest for k in LOCKS]
    assert (found.kind, found.maker, found.edited) == ("conda", "repro", False)
    assert condalock.encode(found.locks, {}) == DATA


def test_equal_locks_are_equal_bytes_in_whatever_order():
    shuffled = [
        replace(k, artifacts=tuple(random.Random(1).sample(k.artifacts, len(k.artifacts))))
        for k in LOCKS
    ]
    assert condalock.encode(tuple(reversed(shuffled)), {}) == DATA


def test_other_readers_of_yaml_read_the_same():
    plain = yaml.safe_load(DATA)
    assert plain["version"] == 1
    assert plain["metadata"]["platforms"] == ["linux-64", "osx-arm64"]
    assert plain["metadata"]["channels"] == [{"url": FORGE, "used_env_vars": []}]
    numpy = next(p for p in plain["package"] if p["name"] == "numpy")
    assert numpy["dependencies"] == {
        "python": ">=3.11,<3.12.0a0",
        "python_abi": "3.11.* *_cp311",
        "zlib": "",
    }
    assert numpy["hash"] == {
        "md5": LOCKS[0].artifacts[1].md5,
        "sha256": LOCKS[0].artifacts[1].digest,
    }
    assert {p["optional"] for p in plain["package"]} == {False}
    assert all(isinstance(p["version"], str) for p in plain["package"])


def test_a_file_names_where_its_request_stands():
    data = condalock.encode(LOCKS, {"source": "environment.yml"})
    assert yaml.safe_load(data)["metadata"]["sources"] == ["environment.yml"]


NUMPY = LOCKS[0].artifacts[1]
EDITS = [
    (NUMPY.digest, "0" * 64),
    (NUMPY.md5, "0" * 32),
    ('"2.1"', '"2.2"'),
    (NUMPY.url, NUMPY.url.replace("conda-forge", "evil")),
    (">=3.11,<3.12.0a0", ">=3.11"),
    ("zlib", "zlib-ng"),
    ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ("uv 0.9.1", "uv 0.9.2"),
    ("torch==2.3.0", "torch==2.3.1"),
    ('digest.linux-64: "', 'digest.linux-65: "'),
    ("a" * 40, "d" * 40),
]


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_a_change_by_hand_is_found(old, new):
    text = DATA.decode()
    if old.startswith("digest"):
        old, new = "digest.linux-64:", "digest.linux-65:"
    assert old in text
    edited = text.replace(old, new)
    if old == '"2.1"':
        edited = edited.replace("numpy-2.1-", "numpy-2.2-")
    assert decoded(edited.encode()).edited


def test_a_package_removed_by_hand_is_found():
    plain = yaml.safe_load(DATA)
    plain["package"] = [p for p in plain["package"] if p["name"] != "seaborn"]
    assert decoded(yaml.safe_dump(plain).encode()).edited


def test_a_platform_removed_by_hand_is_found():
    plain = yaml.safe_load(DATA)
    plain["package"] = [p for p in plain["package"] if p["platform"] == "linux-64"]
    plain["metadata"]["platforms"] = ["linux-64"]
    assert decoded(yaml.safe_dump(plain).encode()).edited


def test_what_means_the_same_is_no_change():
    plain = yaml.safe_load(DATA)
    random.Random(2).shuffle(plain["package"])
    assert not decoded(yaml.safe_dump(plain, indent=4).encode()).edited
    assert not decoded(b"\xef\xbb\xbf" + DATA.replace(b"\n", b"\r\n")).edited


# As conda-lock 4 writes it, with a category of its own and what it knows of its making.
MADE = f"""
# This lock file was generated by conda-lock
version: 1
metadata:
  content_hash:
    linux-64: 6f5902ac237024bdd0c176cb93063dc4
  channels:
  - url: conda-forge
    used_env_vars: []
  platforms:
  - linux-64
  sources:
  - environment.yml
  time_metadata: {{created_at: '2025-05-05T10:00:00Z'}}
package:
- name: python
  version: 3.11.7
  manager: conda
  platform: linux-64
  dependencies:
    __glibc: '>=2.17,<3.0.a0'
    tzdata: ''
  url: {FORGE}/linux-64/python-3.11.7-hab00c5b_1_cpython.conda
  hash:
    md5: 27cf681282c11dba7b0b1fd266e8f289
    sha256: {"1" * 64}
  category: main
  optional: false
- name: tzdata
  version: 2023d
  manager: conda
  platform: linux-64
  dependencies: {{}}
  url: https://me:secret@example.org/t/token/forge/noarch/tzdata-2023d-h0c530f3_0.tar.bz2
  hash:
    md5: 8dee24b8be2d9ff81e7bd5d7d97ff1b0
    sha256: {"2" * 64}
  category: main
  optional: false
- name: pytest
  version: 8.0.0
  manager: conda
  platform: linux-64
  dependencies: {{}}
  url: {FORGE}/noarch/pytest-8.0.0-pyhd8ed1ab_0.conda
  hash:
    md5: 8dee24b8be2d9ff81e7bd5d7d97ff1b0
    sha256: {"3" * 64}
  category: dev
  optional: true
- name: requests
  version: 2.31.0
  manager: pip
  platform: linux-64
  dependencies:
    idna: '>=2.5,<4'
    certifi: '*'
  url: {PIP}/requests-2.31.0-py3-none-any.whl
  hash:
    sha256: {"4" * 64}
  category: main
  optional: false
""".encode()


def test_a_file_of_conda_lock_itself_is_read():
    found = decoded(MADE)
    assert (found.maker, found.edited) == ("conda-lock", False)
    (one,) = found.locks
    assert [(a.name, a.version, a.kind, a.build) for a in one.artifacts] == [
        ("python", "3.11.7", "conda", "hab00c5b_1_cpython"),
        ("requests", "2.31.0", "wheel", ""),
        ("tzdata", "2023d", "conda", "h0c530f3_0"),
    ]
    assert one.artifacts[0].depends == ("__glibc >=2.17,<3.0.a0", "tzdata")
    assert one.artifacts[1].depends == ("certifi", "idna>=2.5,<4")
    assert (
        one.artifacts[2].url == "https://example.org/forge/noarch/tzdata-2023d-h0c530f3_0.tar.bz2"
    )
    assert b"secret" not in condalock.encode(found.locks, {})


URLS = [
    ("https://a.org/c/linux-64/x-1-0.conda", "https://a.org/c/linux-64/x-1-0.conda"),
    ("https://me:pw@a.org/c", "https://a.org/c"),
    ("https://a.org/t/tk-1/c", "https://a.org/c"),
    ("https://a.org/sub/t/tk-1/c", "https://a.org/sub/c"),
    ("https://a.org/t/tk-1", "https://a.org"),
    ("https://a.org/c?token=x#md5", "https://a.org/c"),
    ("file:///srv/t/x/c", "file:///srv/t/x/c"),
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_what_may_be_seen_of_a_url(url, shown):
    assert condalock.public(url) == shown


def changed(*path, to=None):
    """Give the file with one value changed, or removed."""
    plain = yaml.safe_load(MADE)
    *way, last = path
    place = plain
    for step in way:
        place = place[step]
    if to is None:
        del place[last]
    else:
        place[last] = to
    return yaml.safe_dump(plain, sort_keys=False).encode()


INVALID = [
    (b"", "the file is no mapping"),
    (b"- a\n", "the file is no mapping"),
    (b"\xff\xfe", "no UTF-8"),
    (b"a: [b\n", "no valid YAML"),
    (b"a: &x b\nc: *x\n", "anchors"),
    (b"a: !!python/object:os.system b\n", "tags"),
    (b"a: b\n---\nc: d\n", "a second document"),
    (b"a: b\na: c\n", "twice"),
    (b"[" * 100, "nested too deeply"),
    (b"{a: " * 100, "nested too deeply"),
    (b"[" * 500_000, "cannot be used"),
    (b"a: " + b"x" * (65 << 20), "more than"),
    (changed("version"), "`version` is missing"),
    (changed("version", to=2), "of version 2"),
    (changed("version", to=[1]), "`version` is missing"),
    (changed("metadata"), "`metadata` is no mapping"),
    (changed("metadata", "platforms"), "`platforms` is no list"),
    (changed("metadata", "platforms", to=["amiga-64"]), "no platform that is known"),
    (changed("package", to={"a": "b"}), "`package` is no list"),
    (changed("package", 0, to="python"), "a package is no mapping"),
    (changed("package", 0, "name"), "`name` is missing"),
    (changed("package", 0, "name", to="../evil"), "names no package"),
    (changed("package", 0, "version", to="1 2"), "names no package"),
    (changed("package", 0, "manager", to="npm"), "manages no packages"),
    (changed("package", 0, "platform", to="win-64"), "not among its platforms"),
    (changed("package", 0, "url"), "`url` is missing"),
    (
        changed("package", 0, "url", to="python-3.11.7-hab00c5b_1_cpython.conda"),
        "no place in a channel",
    ),
    (
        changed("package", 0, "url", to=f"{FORGE}/osx-64/python-3.11.7-hab00c5b_1_cpython.conda"),
        "from another",
    ),
    (
        changed("package", 0, "url", to=f"{FORGE}/linux-64/other-1-0.conda"),
        "is not the file of python-3.11.7",
    ),
    (
        changed("package", 0, "url", to=f"{FORGE}/linux-64/python-3.11.7-x.exe"),
        "is not the file of",
    ),
    (
        changed("package", 0, "url", to=f"{FORGE}/linux-64/python-3.11.7-..%2f..%2fx.conda"),
        "is not the build",
    ),
    (changed("package", 0, "build", to="other_0"), "is not the build `other_0`"),
    (changed("package", 0, "hash"), "no SHA256 of `python`"),
    (changed("package", 0, "hash", "sha256"), "no SHA256 of `python`"),
    (changed("package", 0, "hash", "sha256", to="1" * 63), "no SHA256 of `python`"),
    (changed("package", 0, "hash", "md5", to="x"), "no MD5 of `python`"),
    (changed("package", 0, "hash", to=["x"]), "`hash` is no mapping"),
    (changed("package", 0, "dependencies", to={"a": ["b"]}), "is no text"),
    (changed("package", 3, "hash", "sha256"), "no SHA256 of `requests`"),
    (changed("package", 3, "url", to="https://a.org/what"), "is no Python package"),
    (changed("package", 3, "url", to="../outside"), "is no Python package"),
    (changed("package", 3, "url", to="https://[x/a.whl"), "a URL in it cannot be read"),
    (
        changed("package", 3, "url", to="git+https://a.org/r@main"),
        "the commit of `requests` is not locked",
    ),
    (
        changed(
            "package", 1, to=yaml.safe_load(MADE)["package"][0] | {"hash": {"sha256": "9" * 64}}
        ),
        "locked twice",
    ),
]


@pytest.mark.parametrize(("data", "why"), INVALID, ids=[why for _data, why in INVALID])
def test_a_file_that_cannot_be_used_is_explained(data, why):
    with pytest.raises(LockInvalid) as failed:
        decoded(data)
    assert failed.value.message.startswith("`lockfiles/conda-lock.yml` cannot be used: ")
    assert why in failed.value.message
    assert failed.value.where.file == "lockfiles/conda-lock.yml"
    assert failed.value.hints


def test_what_is_wrong_with_a_package_is_told_with_its_line():
    with pytest.raises(LockInvalid) as failed:
        decoded(MADE.replace(b"md5: 8dee24b8be2d9ff81e7bd5d7d97ff1b0", b"md5: x", 1))
    line = failed.value.where.line
    assert MADE.splitlines()[line - 1] == b"- name: tzdata"


def test_a_later_version_says_what_to_do():
    with pytest.raises(LockInvalid) as failed:
        decoded(MADE.replace(b"version: 1\n", b"version: 2\n"))
    assert failed.value.hints == ("take a later repro, or write it again with `repro lock`",)


@settings(max_examples=200)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 40), st.binary(max_size=12))
def test_whatever_happens_to_a_file_it_is_read_or_refused(start, length, new):
    try:
        found = decoded(DATA[:start] + new + DATA[start + length :])
    except LockInvalid:
        return
    assert found.locks == LOCKS or found.edited or found.maker != "repro"


@settings(max_examples=200)
@given(
    st.recursive(
        st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(min_size=1, max_size=10), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_any_data_is_read_as_it_was_written(value):
    plain = {"a": value}
    assert yaml.safe_load(yamltext.write(plain)) == plain
    assert yamltext.Reader("x").read(yamltext.write(plain).encode()) == _empty_is_none(plain)


def _empty_is_none(value):
    """Give what reading makes of data: it keeps all texts."""
    if isinstance(value, dict):
        return {key: _empty_is_none(item) for key, item in value.items()}
    return [_empty_is_none(item) for item in value] if isinstance(value, list) else value

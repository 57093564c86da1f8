from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import schemas
from repro.errors import LockInvalid
from repro.lock import EnvironmentLock, Image
from repro.lockfiles import dockerlock

PATH = "lockfiles/docker-lock.json"


def pin(digit):
    return "sha256:" + digit * 64


def lock(reference="python:3.11", platform="linux-64", *, tool="", **image):
    image = {"id": pin("1"), "manifest": pin("2"), "layers": (pin("3"), pin("4")), **image}
    found = Image(reference=reference, **image)
    return EnvironmentLock(kind="docker", platform=platform, image=found, tool=tool)


def built(platform="linux-64", **image):
    image = {"id": pin("8"), "manifest": "", "dockerfile": "docker/Dockerfile", **image}
    return lock("docker/Dockerfile", platform, tool="buildah 1.28.2", context="c" * 64, **image)


LOCKS = (
    lock(),
    lock(platform="osx-64"),
    lock(platform="linux-aarch64", id=pin("5"), manifest=pin("6")),
    lock("only-here:1", id=pin("7"), manifest="", layers=()),
    built(),
)


def document(locks=LOCKS):
    return json.loads(dockerlock.encode(locks, {"project": "wine"}))


def decoded(doc):
    return dockerlock.decode(PATH, json.dumps(doc).encode())


def test_what_is_written_is_read_back():
    found = dockerlock.decode(PATH, dockerlock.encode(LOCKS, {"project": "wine"}))
    assert sorted(map(repr, found.locks)) == sorted(map(repr, LOCKS))
    assert (found.kind, found.path, found.edited, found.maker) == ("docker", PATH, False, "repro")
    assert dockerlock.encode(found.locks, {"project": "wine"}) == dockerlock.encode(
        LOCKS, {"project": "wine"}
    )


def test_equal_locks_give_equal_bytes_in_any_order():
    assert dockerlock.encode(LOCKS, {}) == dockerlock.encode(LOCKS[::-1], {})
    assert dockerlock.encode(LOCKS, {}) == dockerlock.encode((*LOCKS, LOCKS[0]), {})


def test_it_is_as_its_schema_says():
    jsonschema.Draft202012Validator(schemas.load("docker-lock")).validate(document())


def test_no_images_are_a_lock_too():
    assert dockerlock.decode(PATH, dockerlock.encode((), {})).locks == ()


def test_an_edit_is_noticed_and_another_layout_is_none():
    assert not decoded(document()).edited
    changed = document()
    changed["images"][0]["platforms"]["linux-64"]["id"] = pin("9")
    assert decoded(changed).edited
    unsealed = document()
    del unsealed["digest"]
    assert decoded(unsealed).edited


def test_a_later_version_is_refused_with_what_to_do():
    with pytest.raises(LockInvalid, match="version 2") as caught:
        decoded({**document(), "schema": "repro.docker-lock/2"})
    assert caught.value.hints == ("install a newer repro",)
    assert caught.value.where.file == PATH


def test_text_that_is_no_json_says_where_it_stops():
    with pytest.raises(LockInvalid) as caught:
        dockerlock.decode(PATH, b'{\n  "schema": oops\n}')
    assert str(caught.value.where) == f"{PATH}:2:13"


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b"[]", b'"x"', b"1e999", b"{}", b"9" * 5000]
)
def test_what_is_no_lock_is_refused(data):
    with pytest.raises(LockInvalid):
        dockerlock.decode(PATH, data)


def changed(*path, to):
    doc = copy.deepcopy(document())
    part = doc
    for key in path[:-1]:
        part = part[key]
    if to is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return doc


BUILT, ONLY, PYTHON = 0, 1, 2
BAD = {
    "images is an object": changed("images", to={}),
    "an image is a text": changed("images", 0, to="python"),
    "no reference": changed("images", PYTHON, "reference", to=...),
    "an unknown key": changed("images", PYTHON, "user", to="me"),
    "an unknown key on top": changed("more", to=1),
    "a password": changed("images", PYTHON, "reference", to="me:word@host.io/x"),
    "an unknown platform": changed(
        "images", PYTHON, "platforms", "beos", to={"id": pin("1"), "layers": []}
    ),
    "a platform is a list": changed("images", PYTHON, "platforms", "linux-64", to=[]),
    "a short digest": changed("images", PYTHON, "platforms", "linux-64", "id", to="sha256:12"),
    "an empty manifest": changed("images", PYTHON, "platforms", "linux-64", "manifest", to=""),
    "layers are a text": changed("images", PYTHON, "platforms", "linux-64", "layers", to="abc"),
    "a layer is a list": changed("images", PYTHON, "platforms", "linux-64", "layers", to=[[]]),
    "a tool is a number": changed("images", BUILT, "platforms", "linux-64", "tool", to=1),
    "a dockerfile outside": changed("images", BUILT, "build", "dockerfile", to="../../etc/passwd"),
    "an absolute dockerfile": changed("images", BUILT, "build", "dockerfile", to="/etc/passwd"),
    "no context": changed("images", BUILT, "build", "context", to=""),
    "a build is a text": changed("images", BUILT, "build", to="Dockerfile"),
    "about holds a number": changed("about", to={"x": 10**40}),
    "about is a list": changed("about", to=[]),
    "another schema": changed("schema", to="repro.docker-lock/x"),
    "schema is a number": changed("schema", to=1),
    "two images for one manifest": changed(
        "images", PYTHON, "platforms", "osx-64", "id", to=pin("9")
    ),
    "one image for two platforms": changed(
        "images", PYTHON, "platforms", "linux-aarch64", "id", to=pin("1")
    ),
    "one image twice": changed("images", to=[document()["images"][PYTHON]] * 2),
}


@pytest.mark.parametrize("doc", BAD.values(), ids=BAD.keys())
def test_what_contradicts_itself_or_means_nothing_is_refused(doc):
    with pytest.raises(LockInvalid) as caught:
        decoded(doc)
    assert caught.value.where.file == PATH
    assert caught.value.hints
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "locks",
    [
        (EnvironmentLock(kind="python"),),
        (lock(), lock(id=pin("9"), manifest=pin("8"))),
        (lock("me:word@host.io/x"),),
        (lock(platform="beos"),),
        (lock(id="sha256:1"),),
        (built(), built("linux-aarch64")),
    ],
    ids=["kind", "two locks", "a password", "platform", "digest", "one id for two platforms"],
)
def test_what_could_not_be_read_back_is_not_written(locks):
    with pytest.raises(LockInvalid):
        dockerlock.encode(locks, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(pin("1")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["reference", "platforms", "linux-64", "id", "layers", "build", "x", "context"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(images=JSON, about=JSON, seal=JSON)
def test_no_document_gives_anything_but_a_lock_or_the_error_for_it(images, about, seal):
    doc = {"schema": "repro.docker-lock/1", "images": images, "about": about, "digest": seal}
    try:
        decoded(doc)
    except LockInvalid:
        pass


@given(at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_no_changed_byte_goes_unnoticed(at, byte):
    data = bytearray(dockerlock.encode(LOCKS, {}))
    at %= len(data)
    before, data[at] = data[at], byte
    try:
        found = dockerlock.decode(PATH, bytes(data))
    except LockInvalid:
        return
    same = found.locks == dockerlock.decode(PATH, dockerlock.encode(LOCKS, {})).locks
    assert found.edited or same or byte == before

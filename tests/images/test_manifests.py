import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.images import manifests
from repro.images.manifests import Descriptor, Malformed, Manifest


def pin(digit):
    return "sha256:" + digit * 64


def entry(digit, system="linux", architecture="amd64", **more):
    platform = {"os": system, "architecture": architecture, **more}
    return {"digest": pin(digit), "size": 5, "platform": platform}


INDEX = {
    "schemaVersion": 2,
    "manifests": [
        entry("1", architecture="arm", variant="v7"),
        entry("2", architecture="amd64", variant="v3"),
        entry("3"),
        entry("4", architecture="arm64", variant="v8"),
        entry("5", system="unknown", architecture="unknown"),
        entry("6"),
        {"digest": pin("7"), "size": 5},
    ],
}


@pytest.mark.parametrize(
    ("platform", "digit"),
    [("linux/amd64", "3"), ("linux/arm64", "4"), ("windows/amd64", ""), ("linux/arm", "")],
)
def test_an_index_gives_what_runs_on_every_machine_of_a_platform(platform, digit):
    found = manifests.read(json.dumps(INDEX).encode()).of(platform)
    assert (found.digest if found else "") == (pin(digit) if digit else "")


def test_a_manifest_that_is_written_is_read_back():
    manifest = Manifest(
        config=Descriptor(digest=pin("1"), size=3, media_type=manifests.CONFIG_TYPE),
        layers=(Descriptor(digest=pin("2"), size=9, media_type=manifests.LAYER_TYPE),),
    )
    assert manifests.read(manifests.encode(manifest)) == manifest
    assert manifests.encode(manifest) == manifests.encode(manifest)


BAD = [
    b"",
    b"[]",
    b"[" * 100_000,
    b"{}",
    b'{"schemaVersion": 1, "fsLayers": []}',
    b'{"manifests": {}}',
    b'{"manifests": [1]}',
    b'{"manifests": [{"digest": "md5:1", "size": 1}]}',
    json.dumps({"manifests": [{**entry("1"), "size": -1}]}).encode(),
    json.dumps({"manifests": [{**entry("1"), "size": True}]}).encode(),
    json.dumps({"manifests": [entry("1", system=5)]}).encode(),
    json.dumps({"manifests": [entry("1")] * 20_000}).encode(),
    json.dumps({"schemaVersion": 2, "config": {"digest": pin("1"), "size": 1}}).encode(),
    json.dumps({"schemaVersion": 2, "config": None, "layers": []}).encode(),
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(Malformed):
        manifests.read(data)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"rootfs": []},
        {"rootfs": {"diff_ids": ["x"]}},
        {"rootfs": {"diff_ids": []}, "config": [1]},
        {"rootfs": {"diff_ids": []}, "config": {"Env": [1]}},
        {"rootfs": {"diff_ids": []}, "config": {"Labels": "x"}},
        {"rootfs": {"diff_ids": []}, "os": 1},
    ],
)
def test_what_is_no_configuration_is_refused(document):
    with pytest.raises(Malformed):
        manifests.read_config(json.dumps(document).encode())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["manifests", "config", "layers", "digest", "size", "platform", "rootfs", "os"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_no_answer_gives_anything_but_a_value_or_the_error_for_it(document):
    for read in (manifests.read, manifests.read_config):
        try:
            read(json.dumps(document).encode())
        except Malformed:
            pass

from __future__ import annotations

import pytest

from repro.errors import UsageError
from repro.remote import address
from repro.remote.sharing import for_run


@pytest.mark.parametrize(
    ("text", "kind", "base", "public"),
    [
        ("https://host/", "http", "https://host", "https://host"),
        ("https://host:8443/a/b/", "http", "https://host:8443/a/b", "https://host:8443/a/b"),
        ("http://u:p%40w@h/x", "http", "http://h/x", "http://h/x"),
        ("s3://bucket", "s3", "", "s3://bucket"),
        (
            "s3://bucket/p/q?endpoint=http://h:9000&region=eu-west-1",
            "s3",
            "http://h:9000",
            "s3://bucket/p/q?endpoint=http://h:9000&region=eu-west-1",
        ),
        ("oci://ghcr.io/team/repro", "oci", "https://ghcr.io", "oci://ghcr.io/team/repro"),
        ("oci://localhost:5000/x", "oci", "http://localhost:5000", "oci://localhost:5000/x"),
        ("file:///srv/cache/", "folder", "/srv/cache", "file:///srv/cache"),
        ("file:///srv/a%20b", "folder", "/srv/a b", "file:///srv/a%20b"),
    ],
)
def test_each_kind_is_read(text, kind, base, public):
    found = address.parse(text)
    assert (found.kind, found.base, found.public) == (kind, base, public)


def test_credentials_are_taken_out_of_the_url():
    found = address.parse("https://me:p%40ss@host/x")
    assert (found.user, found.password) == ("me", "p@ss")
    assert "p@ss" not in repr(found)
    assert "p%40ss" not in found.public + found.base


REFUSED = [
    "",
    "x",
    "/srv/cache",
    "ftp://host/x",
    "ext::sh -c touch% x",
    "https://",
    "https://host:port/",
    "https://host:99999/",
    "https://[::1/",
    "https://host/a/../b",
    "https://host/%2e%2e/b",
    "https://host/?x=1",
    "https://host/#x",
    "https://host/\n",
    " https://host/",
    "https://host/\x00",
    "s3://",
    "s3://b/../c",
    "s3://key:secret@bucket/x",
    "s3://bucket?endpoint=ftp://h",
    "s3://bucket?endpoint=http://u:p@h",
    "s3://bucket?secret=x",
    "oci://host",
    "oci://host/Upper",
    "oci://host/a//b",
    "oci://host/-a",
    "oci://u:p@host/a",
    "file://host/x",
    "file:///",
    "file:///a/../b",
    "file:///a%00b",
    "-oProxyCommand=x",
]


@pytest.mark.parametrize("text", REFUSED)
def test_everything_else_is_refused(text):
    with pytest.raises(UsageError) as caught:
        address.parse(text)
    assert caught.value.hints
    assert "secret" not in caught.value.message
    assert caught.value.message.isprintable()


def test_a_run_goes_on_without_a_remote_that_is_wrongly_named(host):
    one = host({"REPRO_REMOTE": "ftp://me:secret@host/x"})
    assert for_run(one.machine) is None
    assert "of no kind" in one.warnings[0]
    assert "secret" not in one.warnings[0]

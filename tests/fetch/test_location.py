"""The grammar of project URIs and versions: what is accepted, as what, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repro import location
from repro.errors import SourceRefused

THERE = {
    "examples/diabetes",
    "examples",
    "a",
    "./-odd",
    "~odd",
    "with space",
    "C:",
    "x:y",
    "src/v1.2",
    ".",
    "..",
}


def parse(uri):
    return location.parse(uri, lambda path: path in THERE or path.startswith("/there"))


@pytest.mark.parametrize(
    ("uri", "kind", "address", "subdirectory"),
    [
        # folders
        ("examples/diabetes", "folder", "examples/diabetes", ""),
        ("examples#diabetes", "folder", "examples", "diabetes"),
        ("'examples/diabetes'", "folder", "examples/diabetes", ""),
        ('"examples/diabetes"', "folder", "examples/diabetes", ""),
        ("'examples#diabetes'", "folder", "examples", "diabetes"),
        ("", "folder", ".", ""),
        (".", "folder", ".", ""),
        ("..", "folder", "..", ""),
        ("#sub", "folder", ".", "sub"),
        ("a#", "folder", "a", ""),
        ("a#b#c", "folder", "a", "b#c"),
        ("a#src/v1.2", "folder", "a", "src/v1.2"),
        ("a#./src//v1.2/", "folder", "a", "src/v1.2"),
        ("a#...", "folder", "a", "..."),
        ("a#-x", "folder", "a", "-x"),
        ("./-odd", "folder", "./-odd", ""),
        ("~odd", "folder", "~odd", ""),
        ("with space", "folder", "with space", ""),
        ("x:y", "folder", "x:y", ""),
        ("/there/é", "folder", "/there/é", ""),
        ("file:///there/p", "folder", "/there/p", ""),
        ("file:///not/there", "folder", "/not/there", ""),
        ("file:///there/a%20b", "folder", "/there/a%20b", ""),
        ("file:///there/p#sub", "folder", "/there/p", "sub"),
        ("file://localhost/there/p", "folder", "/there/p", ""),
        ("file://127.0.0.1/there/p", "folder", "/there/p", ""),
        # zip archives
        ("p.zip", "zip", "p.zip", ""),
        ("/x/p.zip#top/sub", "zip", "/x/p.zip", "top/sub"),
        ("file:///x/p.zip", "zip", "/x/p.zip", ""),
        ("https://host/p.zip", "zip", "https://host/p.zip", ""),
        ("http://host/p.zip#top", "zip", "http://host/p.zip", "top"),
        ("http://127.0.0.1:8000/p.zip", "zip", "http://127.0.0.1:8000/p.zip", ""),
        # Git remotes
        ("https://host/o/p.git", "git", "https://host/o/p.git", ""),
        ("https://host/o/p#sub/dir", "git", "https://host/o/p", "sub/dir"),
        ("https://host/p#v1.2", "git", "https://host/p", "v1.2"),
        ("https://host:8443/p", "git", "https://host:8443/p", ""),
        ("https://host.with-dash_and.dots/p", "git", "https://host.with-dash_and.dots/p", ""),
        ("https://[2001:db8::1]:8443/p", "git", "https://[2001:db8::1]:8443/p", ""),
        ("https://bücher.example/p", "git", "https://bücher.example/p", ""),
        ("ssh://git@host/p", "git", "ssh://git@host/p", ""),
        ("ssh://host:2222/~/p#s", "git", "ssh://host:2222/~/p", "s"),
        ("git://host/p", "git", "git://host/p", ""),
        ("git@host:o/p.git", "git", "git@host:o/p.git", ""),
        ("host:p", "git", "host:p", ""),
        ("git@host:p#sub", "git", "git@host:p", "sub"),
        ("git@host:/abs/p", "git", "git@host:/abs/p", ""),
        ("http://localhost/p", "git", "http://localhost/p", ""),
        ("http://localhost:80/p", "git", "http://localhost:80/p", ""),
        ("http://127.0.0.1:5000/p.git", "git", "http://127.0.0.1:5000/p.git", ""),
        ("http://[::1]/p", "git", "http://[::1]/p", ""),
        ("http://[::1]:5000/p", "git", "http://[::1]:5000/p", ""),
        ("http://me:secret@127.0.0.1:5000/p", "git", "http://me:secret@127.0.0.1:5000/p", ""),
        ("https://host/p.zip.git", "git", "https://host/p.zip.git", ""),
    ],
)
def test_accepted(uri, kind, address, subdirectory):
    place = parse(uri)
    assert (place.kind, place.address, place.subdirectory) == (kind, address, subdirectory)


@pytest.mark.parametrize(
    "uri",
    [
        # transports that run something, or that nobody asked for
        "ext::sh -c touch% canary",
        "ext::sh -c 'touch canary' #sub",
        "EXT::sh -c x",
        "fd::17",
        "fd::17/p",
        "persistent-https::https://host/p",
        "https::https://host/p",
        "ext::https://host/p",
        "ftp://host/p",
        "ftps://host/p",
        "rsync://host/p",
        "s3://bucket/p",
        "javascript://x",
        "git+https://host/p",
        "git+ssh://host/p.zip",
        "ssh+git://host/p",
        "svn://host/p.zip",
        "s3://bucket/p.zip",
        "HTTPS://host/p",
        "://host/p",
        "-ssh://host/p",
        # options
        "-",
        "--upload-pack=touch canary",
        "-u./payload",
        "--help",
        "'--upload-pack=x'",
        "ssh://-oProxyCommand=touch canary/p",
        "ssh://-oProxyCommand=x@host/p",
        "ssh://git@-oProxyCommand=x/p",
        "ssh://[-oProxyCommand=x]/p",
        "ssh://[-oProxyCommand=x]:22/p",
        "git@-oProxyCommand=x:p",
        "-oProxyCommand=x:p",
        "-x@host:p",
        "host:-p",
        "git@host:--upload-pack=x",
        "https://-host/p",
        "ssh://host:-p/x",
        "git://-x/p",
        # control characters
        "https://host/p\n",
        "https://host/p\r",
        "https://ho\nst/p",
        "examples\n",
        "host:p\0",
        "https://host/p\0x",
        "a\tb",
        "host:p\x1b[31m",
        "a#s\nx",
        "a\x7f",
        # in clear
        "http://host/p",
        "http://example.com:127/p",
        "http://127.0.0.1.evil.example/p",
        "http://127.0.0.1@evil.example/p",
        "http://evil.example?@127.0.0.1/p",
        "http://evil.example?@localhost",
        "http://evil.example\\@127.0.0.1/p",
        "http://localhost:x@evil.example/p",
        "http://localhost.evil.example/p",
        # no host, or none that can be one
        "https:///p",
        "https://",
        "ssh://user@/p",
        "https://ho st/p",
        "https://host:port/p",
        "https://[::1/p",
        "https://[::1]x/p",
        "https://host;x/p",
        "https://$(id)/p",
        # other machines' files
        "file://host/p",
        "file://host/p.zip",
        "file://",
        "file://p",
        # subdirectories that leave
        "a#/abs",
        "a#//abs",
        "a#..",
        "a#../x",
        "a#x/../../y",
        "a#x/..",
        "a#./../x",
        "https://host/p#../x",
        "p.zip#/etc",
        # typos
        "exampels/diabetes",
        "no such thing",
        "/not/there",
        "nothere#sub",
        "user@host",
        ":p",
        "host:",
        "@host:p",
        "sub/dir:p",
        "ho st:p",
    ],
)
def test_refused(uri):
    with pytest.raises(SourceRefused) as caught:
        parse(uri)
    message = caught.value.message
    assert message == message.strip()
    assert all(ord(char) >= 32 for char in message)
    assert not message.endswith(".")


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:secret@host/p", "https://host/p"),
        ("https://secret@host/p", "https://host/p"),
        ("https://me:secret@host:8443/p", "https://host:8443/p"),
        ("https://me:se@cret@host/p", "https://host/p"),
        ("https://me:se:cret@host/p", "https://host/p"),
        ("https://me:%2Fsecret%40@host/p", "https://host/p"),
        ("https://me:secret@host", "https://host"),
        ("https://host/p?token=secret", "https://host/p"),
        ("https://host?token=secret", "https://host"),
        ("https://host/p.git?private_token=secret&x=1", "https://host/p.git"),
        ("git://me:secret@host/p", "git://host/p"),
        ("ssh://me:secret@host/p", "ssh://me@host/p"),
        ("ssh://git@host/p", "ssh://git@host/p"),
        ("git@host:p", "git@host:p"),
        ("https://me:secret@host/p.zip", "https://host/p.zip"),
        ("http://me:secret@host/p.zip", "http://host/p.zip"),
        ("https://me:secret@host/users/@me/p", "https://host/users/@me/p"),
        ("http://me:secret@localhost:80/p", "http://localhost:80/p"),
    ],
)
def test_the_public_form_holds_no_credentials(uri, public):
    place = parse(uri)
    assert place.public == public
    assert place.address == uri


@pytest.mark.parametrize(
    "uri",
    [
        # a password with a character that ends the authority: what is left looks like a port
        "https://me:sec/ret@host/p",
        "https://me:sec?ret@host/p",
        "https://me:sec#ret@host/p",
        "https://me:sec/ret@host/p.zip",
        "ssh://me:sec/ret@host/p",
        # and a URL without its scheme, which would pass as scp-like
        "me:secret@host/p",
        "me:secret@host:p",
        "ftp://me:secret@host/p",
        "http://me:secret@host/p",
        "https://me:secret@ho st/p",
        "ext::https://me:secret@host/p",
    ],
)
def test_a_refusal_does_not_repeat_a_password(uri):
    with pytest.raises(SourceRefused) as caught:
        parse(uri)
    told = " ".join([caught.value.message, *caught.value.hints])
    assert "sec" not in told
    assert "ret" not in told.replace("secret", "")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://host/o/p.git", "p"),
        ("git@host:p.git", "p"),
        ("git@host:o/p", "p"),
        ("https://host/o/p/#a/b", "b"),
        ("file:///there/p", "p"),
        ("https://host", "host"),
        ("/there/", "there"),
    ],
)
def test_a_place_has_a_short_name(uri, name):
    assert parse(uri).name == name


def place_or_refused(text):
    try:
        place = location.parse(text, lambda _path: False)
    except SourceRefused:
        return
    assert place.kind in ("folder", "git", "zip")
    assert ".." not in place.subdirectory.split("/")
    assert not place.subdirectory.startswith("/")
    assert not place.address.startswith("-")


@given(st.text())
@example("'")
@example("file:")
@example("::")
@example("#" * 300)
@example("https://[")
@example("\ud800")
@example("\ud800.zip")
def test_every_text_is_a_place_or_refused(text):
    place_or_refused(text)


WORDS = [
    "https",
    "ssh",
    "git",
    "file",
    "ext",
    "://",
    "::",
    ":",
    "/",
    "@",
    "#",
    "?",
    "..",
    "-",
    "host",
    "127.0.0.1",
    "[::1]",
    ".zip",
    "o=x",
    "\\",
]


@given(st.lists(st.sampled_from(WORDS)).map("".join))
def test_every_text_made_of_the_parts_of_uris_is_a_place_or_refused(text):
    place_or_refused(text)


SECRET = st.text(
    st.characters(exclude_characters="/?#'\"", exclude_categories=("Cc", "Cs")), min_size=1
)


@given(
    scheme=st.sampled_from(["https", "ssh", "git"]),
    user=st.text(st.characters(categories=("Ll", "Nd"))),
    secret=SECRET,
    rest=st.sampled_from(["/p", "/o/p.git", "/p?x=y", "", "/@x", ":80/p", "/p#sub"]),
)
def test_no_password_is_in_the_public_form(scheme, user, secret, rest):
    marked = f"QQ{secret}QQ"
    try:
        place = location.parse(f"{scheme}://{user}:{marked}@host{rest}", lambda _path: False)
    except SourceRefused as error:
        assert "QQ" not in error.message
        return
    assert "QQ" not in place.public
    assert "QQ" not in place.name
    assert place.public.partition("://")[2].startswith((f"{user}@host", "host"))


@pytest.mark.parametrize(
    "version",
    [
        "main",
        "v1.2.3",
        "feature/x-1",
        "release_2024.01",
        "deadbeef",
        "0123456789abcdef0123456789abcdef01234567",
        "HEAD",
        "refs/heads/x",
        "user@2024",
        "a#b",
        "ünï",
        "x,y",
        "1",
        "a.lock.b",
        "a=b",
    ],
)
def test_versions_that_git_may_see(version):
    assert location.check_version(version) == version


@pytest.mark.parametrize(
    "version",
    [
        "--upload-pack=touch canary",
        "--upload-pack=x",
        "-f",
        "-",
        "+a:b",
        "+main:refs/heads/evil",
        "a:b",
        "main:refs/heads/evil",
        ":/fix",
        "HEAD~1",
        "HEAD^",
        "HEAD^{tree}",
        "HEAD@{1}",
        "@{upstream}",
        "a..b",
        "a...b",
        "..",
        "../x",
        "/abs",
        ".hidden",
        "a/",
        "a//b",
        "a.lock",
        "a.",
        "a b",
        " a",
        "a\n",
        "a\nb",
        "a\tb",
        "a\0",
        "a\x7f",
        "a?",
        "a*",
        "[a]",
        "a\\b",
        "$(touch canary)",
        "`id`",
        "a;b",
        "a|b",
        "a&b",
        "a>b",
        "a'b",
        'a"b',
        "",
    ],
)
def test_versions_that_are_refused(version):
    with pytest.raises(SourceRefused, match="neither a branch or tag nor a commit"):
        location.check_version(version)


@given(st.text())
def test_every_version_is_plain_or_refused(text):
    try:
        version = location.check_version(text)
    except SourceRefused:
        return
    assert version == text
    assert not version.startswith("-")
    assert not set(version) & set(" \n\0:~^")


def test_commits_are_told_from_other_versions():
    full = "0123456789abcdefABCDEF0123456789abcdef01"
    assert location.is_commit(full)
    assert not location.is_commit(full[:39])
    assert not location.is_commit(full[:39] + "g")
    assert location.is_abbreviated(full[:4])
    assert location.is_abbreviated(full[:39])
    assert not location.is_abbreviated(full[:3])
    assert not location.is_abbreviated(full)
    assert not location.is_abbreviated("mainx")

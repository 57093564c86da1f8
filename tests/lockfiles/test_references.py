import pytest

from repro.lockfiles.references import NotAReference, parse

PIN = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("docker.io/python:3", "docker.io/library/python:3"),
        ("index.docker.io/me/x", "docker.io/me/x:latest"),
        ("me/tool", "docker.io/me/tool:latest"),
        ("localhost/tool", "localhost/tool:latest"),
        ("localhost:5000/tool:1", "localhost:5000/tool:1"),
        ("ghcr.io/a/b/c_d/e--f:V1", "ghcr.io/a/b/c_d/e--f:V1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        (f"r.io/x@{PIN}", f"r.io/x@{PIN}"),
        (f"r.io:443/x:1@{PIN}", f"r.io:443/x:1@{PIN}"),
    ],
)
def test_a_name_is_completed_as_docker_does(text, full):
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Python",
        "user:word@host.io/x",
        "https://host.io/x",
        "host.io/x?y=1",
        "host.io//x",
        "host.io/../x",
        "host.io/x:",
        "host.io/x:a/b@",
        "x:-tag",
        "x:" + "t" * 129,
        "x@sha256:abc",
        "x@md5:" + "a" * 64,
        f"x@{PIN}@{PIN}",
        "x y",
        "x\n",
        "-v",
        "-h.io/x",
        "x" * 400,
        "é",
    ],
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(NotAReference):
        parse(text)

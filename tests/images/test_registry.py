from __future__ import annotations

import base64
import io
import json

import pytest
from support.fake_registry import LAYER, config, manifest, pin

from repro.errors import EnvironmentFailed, Unreachable, UsageError
from repro.images import logins
from repro.images.manifests import INDEXES, LARGEST, Descriptor
from repro.images.registry import Absent, Registry, is_loopback
from repro.images.resolution import resolve
from repro.lockfiles.references import parse

PLATFORM = "linux/amd64"


def found(registry, reference, platform=PLATFORM):
    return resolve(registry, reference, "asked", platform).image


# -- what a name means


def test_a_tag_means_a_manifest_an_id_and_layers(fake, registry, reference):
    fake.serve()
    image = found(registry, reference)
    assert image.reference == "asked"
    assert image.id == pin(config())
    assert image.manifest == pin(manifest(config()))
    assert image.layers == (pin(LAYER),)


def test_an_index_is_followed_to_the_platform_asked_for(fake, registry, reference):
    entries = []
    for architecture in ("amd64", "arm64"):
        text = manifest(config(architecture))
        fake.serve(tag=architecture, data=config(architecture))
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"digest": pin(text), "size": len(text), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    fake.put("/v2/x/manifests/1", index, Content_Type=INDEXES[0])
    assert found(registry, reference, "linux/arm64").id == pin(config("arm64"))
    assert found(registry, reference).manifest == pin(manifest(config()))
    with pytest.raises(EnvironmentFailed, match="not for linux/s390x") as caught:
        found(registry, reference, "linux/s390x")
    assert caught.value.hints[0] == "it is for linux/amd64, linux/arm64"


def test_an_image_for_another_platform_is_refused(fake, registry, reference):
    fake.serve(data=config("arm64"))
    with pytest.raises(EnvironmentFailed, match="not for linux/amd64") as caught:
        found(registry, reference)
    assert caught.value.hints[0] == "it is for linux/arm64"


def test_an_image_that_is_not_there_is_absent(registry, reference):
    with pytest.raises(Absent):
        found(registry, reference)


# -- hostile answers


def test_another_manifest_than_the_one_pinned_is_refused(fake, registry):
    fake.serve()
    wanted = "sha256:" + "0" * 64
    fake.put(f"/v2/x/manifests/{wanted}", manifest(config()))
    with pytest.raises(EnvironmentFailed, match=f"another manifest than {wanted}"):
        found(registry, parse(f"{fake.host}/x@{wanted}"))


def test_a_manifest_that_its_own_header_denies_is_refused(fake, registry, reference):
    wrong = "sha256:" + "0" * 64
    fake.put("/v2/x/manifests/1", manifest(config()), Docker_Content_Digest=wrong)
    with pytest.raises(EnvironmentFailed, match="another manifest"):
        found(registry, reference)


def test_a_huge_manifest_is_not_read_to_its_end(fake, registry, reference):
    sent = []

    def endless(asked):
        asked.handler.send_response(200)
        asked.handler.end_headers()
        try:
            while len(sent) < 10_000:
                asked.handler.wfile.write(b" " * 65536)
                sent.append(1)
        except OSError:
            pass

    fake.answers["/v2/x/manifests/1"] = endless
    with pytest.raises(EnvironmentFailed, match="more than 4096 KiB"):
        found(registry, reference)
    assert len(sent) * 65536 < 16 * LARGEST


def test_a_manifest_is_not_taken_from_another_place(fake, other, registry, reference):
    other.serve()
    place = f"http://{other.host}/v2/x/manifests/1"
    fake.put("/v2/x/manifests/1", b"", status=307, Location=place)
    with pytest.raises(EnvironmentFailed, match="another place for a manifest"):
        found(registry, reference)
    assert other.asked == []


def test_a_blob_is_not_fetched_without_tls_from_another_host(fake, other, registry, reference):
    fake.serve()
    other.put("/", config())
    fake.put(f"/v2/x/blobs/{pin(config())}", b"", status=307, Location=f"http://{other.host}/c")
    with pytest.raises(EnvironmentFailed, match="unsafe place"):
        found(registry, reference)
    assert other.asked == []


def test_a_blob_elsewhere_in_the_same_registry_is_fetched(fake, registry, reference):
    fake.serve()
    fake.put(f"/v2/x/blobs/{pin(config())}", b"", status=307, Location="/kept/here")
    fake.put("/kept/here", config())
    assert found(registry, reference).id == pin(config())


def test_redirects_without_end_are_an_error(fake, registry, reference):
    fake.serve()
    fake.put(f"/v2/x/blobs/{pin(config())}", b"", status=307, Location="/round")
    fake.put("/round", b"", status=307, Location="/round")
    with pytest.raises(EnvironmentFailed, match="circles"):
        found(registry, reference)


@pytest.mark.parametrize("data", [config("arm64")[: len(config())], config()[:-1], config() + b" "])
def test_other_bytes_than_the_digest_names_are_refused(fake, registry, reference, data):
    fake.serve()
    fake.put(f"/v2/x/blobs/{pin(config())}", data)
    with pytest.raises(EnvironmentFailed, match="other bytes"):
        found(registry, reference)


def test_an_enormous_configuration_is_not_even_asked_for(fake, registry, reference):
    huge = json.dumps(
        {"schemaVersion": 2, "config": {"digest": pin(b""), "size": 1 << 40}, "layers": []}
    ).encode()
    fake.put("/v2/x/manifests/1", huge)
    with pytest.raises(EnvironmentFailed, match="too large"):
        found(registry, reference)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"schemaVersion": 1}', b"{" * 9999])
def test_what_describes_no_image_is_an_error_with_one_line(fake, registry, reference, data):
    fake.put("/v2/x/manifests/1", data)
    with pytest.raises(EnvironmentFailed, match="wrongly") as caught:
        found(registry, reference)
    assert "\n" not in caught.value.message


def test_an_index_in_an_index_is_refused(fake, registry, reference):
    inner = json.dumps({"manifests": []}).encode()
    platform = {"os": "linux", "architecture": "amd64"}
    entry = {"digest": pin(inner), "size": len(inner), "platform": platform}
    fake.put("/v2/x/manifests/1", json.dumps({"manifests": [entry]}).encode())
    fake.put(f"/v2/x/manifests/{pin(inner)}", inner)
    with pytest.raises(EnvironmentFailed, match="holds an index"):
        found(registry, reference)


# -- silence


def test_a_registry_that_is_not_there_is_unreachable(tmp_path):
    with (
        Registry("127.0.0.1:1", {"HOME": str(tmp_path)}) as registry,
        pytest.raises(Unreachable, match="connection refused"),
    ):
        found(registry, parse("127.0.0.1:1/x"))


def test_a_registry_that_goes_down_half_way_is_unreachable(fake, registry, reference):
    fake.serve()

    def broken(asked):
        asked.handler.send_response(200)
        asked.handler.send_header("Content-Length", str(len(config())))
        asked.handler.end_headers()
        asked.handler.wfile.write(config()[:10])

    fake.answers[f"/v2/x/blobs/{pin(config())}"] = broken
    with pytest.raises(Unreachable):
        found(registry, reference)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_registry_is_worth_a_retry(fake, registry, reference, status):
    fake.put("/v2/x/manifests/1", b"", status=status)
    with pytest.raises(Unreachable, match=f"HTTP {status}"):
        found(registry, reference)


# -- credentials


def login(tmp_path, host, name="me", password="geheim", **entry):
    folder = tmp_path / ".docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{name}:{password}".encode()).decode()
    entry = entry or {"auth": auth}
    (folder / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    return f"Basic {auth}"


def guarded(fake, challenge, proof):
    """Serve only those who bring `proof`."""
    fake.serve()
    for path, answer in list(fake.answers.items()):

        def checked(asked, answer=answer):
            if asked.headers.get("Authorization") == proof:
                return answer(asked)
            return 401, {"WWW-Authenticate": challenge}, b"{}"

        fake.answers[path] = checked


def test_a_password_is_given_when_asked_for(fake, registry, reference, tmp_path):
    guarded(fake, 'Basic realm="x"', login(tmp_path, fake.host))
    assert found(registry, reference).id == pin(config())


def test_a_token_is_fetched_with_the_password_and_used_instead(fake, registry, reference, tmp_path):
    basic = login(tmp_path, fake.host)
    challenge = f'Bearer realm="http://{fake.host}/token",service="s",scope="repository:x:pull"'
    guarded(fake, challenge, "Bearer abc")
    fake.put("/token", b'{"token": "abc"}')
    assert found(registry, reference).id == pin(config())
    tokens = [asked for asked in fake.asked if asked.path.startswith("/token")]
    assert [asked.headers["Authorization"] for asked in tokens] == [basic]
    assert tokens[0].path == "/token?service=s&scope=repository%3Ax%3Apull"


def test_an_identity_token_is_exchanged(fake, registry, reference, tmp_path):
    login(tmp_path, f"https://{fake.host}/v1/", auth="", identitytoken="refresh")
    guarded(fake, f'Bearer realm="http://{fake.host}/token",service="s"', "Bearer abc")
    fake.put("/token", b'{"access_token": "abc"}')
    assert found(registry, reference).id == pin(config())
    exchange = next(asked for asked in fake.asked if asked.path == "/token")
    assert exchange.method == "POST"
    assert b"refresh_token=refresh" in exchange.body


def test_without_a_login_a_token_is_asked_for_namelessly(fake, registry, reference):
    guarded(fake, f'Bearer realm="http://{fake.host}/token",service="s"', "Bearer abc")
    fake.put("/token", b'{"token": "abc"}')
    assert found(registry, reference).id == pin(config())
    assert all("Basic" not in str(asked.headers) for asked in fake.asked)


def test_credentials_never_go_to_another_host(fake, other, registry, reference, tmp_path):
    login(tmp_path, fake.host)
    guarded(fake, 'Bearer realm="http://tokens.invalid/token",service="s"', "Bearer abc")
    with pytest.raises(EnvironmentFailed, match="unsafe place"):
        found(registry, reference)
    login(tmp_path, other.host)
    guarded(fake, 'Basic realm="x"', "nothing helps")
    with pytest.raises(Absent, match="HTTP 401") as caught:
        found(registry, reference)
    assert f"`docker login {fake.host}` if it is private" in caught.value.hints
    assert all("Authorization" not in asked.headers for asked in fake.asked)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}'])
def test_a_token_server_that_gives_none_is_an_error(fake, registry, reference, data):
    guarded(fake, f'Bearer realm="http://{fake.host}/token",service="s"', "Bearer abc")
    fake.put("/token", data)
    with pytest.raises(EnvironmentFailed, match="gives no token"):
        found(registry, reference)


def test_what_stands_in_netrc_is_not_sent(fake, tmp_path, reference, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password geheim\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    fake.serve()
    with Registry(fake.host, {"HOME": str(tmp_path)}) as registry:
        found(registry, reference)
    assert all("Authorization" not in asked.headers for asked in fake.asked)


def test_a_login_shows_nothing():
    assert repr(logins.Login(name="me", password="geheim")) == "Login(…)"
    told = logins.given({"username": "me", "password": "geheim", "registry": "r.io"})
    assert repr(told) == "Given(registry='r.io', login=Login(…))"


def test_a_login_that_is_told_goes_before_docker_s_and_to_its_registry_alone(
    fake, reference, tmp_path
):
    login(tmp_path, fake.host, password="another")
    told = logins.given({"username": "me", "password": "told", "registry": fake.host})
    guarded(fake, 'Basic realm="x"', told.login.basic)
    environ = {"HOME": str(tmp_path), "PATH": ""}
    with Registry(fake.host, environ, told=told) as registry:
        assert found(registry, reference).id == pin(config())
    with Registry(fake.host, environ) as registry, pytest.raises(Absent):
        found(registry, reference)
    assert logins.of("other.io", environ, told) is None


@pytest.mark.parametrize(
    ("registry", "host"),
    [
        ({}, "docker.io"),
        ({"registry": None}, "docker.io"),
        ({"registry": "https://index.docker.io/v1/"}, "docker.io"),
        ({"registry": "index.docker.io"}, "docker.io"),
        ({"registry": "https://r.io:5000/v2/"}, "r.io:5000"),
        ({"registry": "r.io", "email": "me@r.io"}, "r.io"),
    ],
)
def test_which_registry_a_told_login_is_for(registry, host):
    told = logins.given({"username": "me", "password": "geheim", **registry})
    assert told == logins.Given(registry=host, login=logins.Login(name="me", password="geheim"))
    assert logins.of(host, {"HOME": "/nothing"}, told) == told.login


def test_nothing_is_no_login():
    assert logins.given(None) is None
    assert logins.given({}) is None


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        ({"username": "me"}, "needs `password`"),
        ({"password": "geheim", "registry": "r.io"}, "needs `username`"),
        ({"username": "me", "password": "geheim", "pasword": "geheim"}, "has no `pasword`"),
    ],
)
def test_a_told_login_that_makes_no_sense_is_an_error(auth, text):
    with pytest.raises(UsageError, match=text) as failed:
        logins.given(auth)
    assert "geheim" not in f"{failed.value} {failed.value.hints}"


def test_a_helper_is_asked_for_the_login(tmp_path):
    helper = tmp_path / "bin" / "docker-credential-keys"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread host\necho "{\\"Username\\": \\"me\\", \\"Secret\\": \\"$host\\"}"\n'
    )
    helper.chmod(0o755)
    environ = {"HOME": str(tmp_path), "PATH": f"{helper.parent}:/bin:/usr/bin"}
    folder = tmp_path / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"credHelpers": {"r.io": "keys"}}))
    assert logins.of("r.io", environ) == logins.Login(name="me", password="r.io")
    assert logins.of("other.io", environ) is None
    (folder / "config.json").write_text(json.dumps({"credsStore": "keys"}))
    hub = logins.of("docker.io", environ)
    assert hub == logins.Login(name="me", password=logins.HUB_KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"auths": []}',
        '{"auths": {"r.io": 1}}',
        '{"auths": {"r.io": {"auth": "%"}}}',
        '{"credsStore": "../x"}',
        '{"credsStore": 1, "credHelpers": 2}',
        '{"auths": {"r.io": {"auth": 5}}}',
    ],
)
def test_a_configuration_that_makes_no_sense_is_no_login(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": "/bin"}
    assert logins.of("r.io", environ) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("[::1]:80", True),
        ("localhost.evil.io", False),
        ("10.0.0.1", False),
        ("127.0.0.1.evil.io", False),
        ("a:b:c", False),
    ],
)
def test_only_this_machine_is_trusted_without_tls(host, expected):
    assert is_loopback(host) is expected


# -- uploads


def test_an_upload_is_not_sent_to_another_host(fake, other, registry):
    place = f"http://{other.host}/u"
    fake.put("/v2/x/blobs/uploads/", b"", status=202, Location=place)
    described = Descriptor(digest=pin(LAYER), size=len(LAYER))
    with pytest.raises(EnvironmentFailed, match="another host for an upload"):
        registry.upload("x", described, lambda: io.BytesIO(LAYER))
    assert other.asked == []


def test_a_blob_that_is_there_is_not_sent(fake, registry):
    fake.put(f"/v2/x/blobs/{pin(LAYER)}", LAYER)
    described = Descriptor(digest=pin(LAYER), size=len(LAYER))
    registry.upload("x", described, lambda: io.BytesIO(LAYER))
    assert [asked.method for asked in fake.asked] == ["HEAD"]


def test_a_registry_that_keeps_another_manifest_is_noticed(fake, registry):
    fake.put("/v2/x/manifests/1", b"", status=201, Docker_Content_Digest=pin(b"other"))
    with pytest.raises(EnvironmentFailed, match="another manifest"):
        registry.put_manifest("x", "1", b"{}")

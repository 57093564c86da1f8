from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.cache_hosts import LIMITS
from support.cache_servers import registry

from repro import digest
from repro.remote import address, credentials, sigv4
from repro.remote.credentials import AwsKeys
from repro.remote.port import CAS, Bytes, Denied
from repro.remote.sharing import open_remote

KEYS = AwsKeys(access="AKIAIOSFODNN7EXAMPLE", secret="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = 1369353600  # 20130524T000000Z, the time of the examples in Amazon's documentation


@pytest.mark.parametrize(
    ("url", "given", "signature"),
    [
        (
            "https://examplebucket.s3.amazonaws.com/test.txt",
            {"Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        (
            "https://examplebucket.s3.amazonaws.com/?lifecycle=",
            {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
    ],
)
def test_signatures_are_those_of_the_documentation(url, given, signature):
    headers = {"x-amz-content-sha256": digest.EMPTY, **given}
    found = sigv4.headers(KEYS, "us-east-1", "GET", url, headers, at=AT)
    assert found["Authorization"].endswith(f"Signature={signature}")


def test_keys_come_from_variables_or_from_the_file(tmp_path):
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    assert credentials.for_aws(given) == AwsKeys(access="a", secret="b", session="c")
    assert credentials.for_aws({"HOME": str(tmp_path)}) is None
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = e%f\n"
        "[team]\naws_access_key_id = t\naws_secret_access_key = u\naws_session_token = v\n"
    )
    (tmp_path / ".aws/config").write_text("[default]\nregion = r1\n[profile team]\nregion = r2\n")
    home = {"HOME": str(tmp_path)}
    team = {**home, "AWS_PROFILE": "team"}
    assert credentials.for_aws(home) == AwsKeys(access="d", secret="e%f")
    assert credentials.for_aws(team) == AwsKeys(access="t", secret="u", session="v")
    assert credentials.aws_region(home) == "r1"
    assert credentials.aws_region(team) == "r2"
    assert credentials.aws_region({**team, "AWS_REGION": "r3"}) == "r3"
    assert credentials.aws_region({"HOME": "/nowhere"}) == "us-east-1"


def test_credentials_are_never_shown():
    shown = repr(KEYS) + repr(credentials.Login(user="u", password="hush", token="hush"))
    assert KEYS.secret not in shown
    assert "hush" not in shown


def test_a_registry_login_is_found_where_docker_keeps_it(tmp_path):
    config = tmp_path / ".docker" / "config.json"
    config.parent.mkdir()
    home = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}

    def keeps(document):
        config.write_text(document if isinstance(document, str) else json.dumps(document))
        return credentials.for_registry("r.io", home)

    auth = base64.b64encode(b"me:pa:ss").decode()
    assert keeps({"auths": {"r.io": {"auth": auth}}}).password == "pa:ss"
    assert keeps({"auths": {"https://r.io": {"auth": auth}}}).user == "me"
    assert keeps({"auths": {"r.io": {"identitytoken": "tok"}}}).token == "tok"
    helper = tmp_path / "docker-credential-box"
    helper.write_text('#!/bin/sh\nread host\necho \'{"Username":"h","Secret":"\'$host\'"}\'\n')
    helper.chmod(0o755)
    assert keeps({"credsStore": "box"}).password == "r.io"
    assert keeps({"credHelpers": {"r.io": "box"}}).user == "h"
    helper.write_text('#!/bin/sh\necho \'{"Username":"<token>","Secret":"t"}\'\n')
    assert keeps({"credsStore": "box"}).token == "t"
    helper.write_text("#!/bin/sh\nexit 1\n")
    for nothing in (
        {},
        {"auths": {"other.io": {"auth": auth}}},
        {"auths": {"r.io": {"auth": "?"}}},
        {"auths": {"r.io": 5}},
        {"auths": 5},
        {"credsStore": "box"},
        {"credsStore": "../../bin/sh"},
        {"credsStore": "absent"},
        "[]",
        "{",
        "",
    ):
        assert keeps(nothing) is None, nothing
    config.unlink()
    assert credentials.for_registry("r.io", home) is None


def login(folder, host, user, password):
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(folder)}


def try_out(url, environ):
    remote = open_remote(address.parse(url), environ, LIMITS)
    data = b"some bytes"
    remote.put(CAS, digest.of_bytes(data), Bytes(data))
    pieces = []
    assert remote.get(CAS, digest.of_bytes(data), pieces.append)
    assert b"".join(pieces) == data


def test_a_registry_may_ask_for_a_password(tmp_path):
    (tmp_path / "users").write_text(
        "me:$2b$04$3wv/RzUSX9C0zLM7qzCbJuFTbCgidxq8hFxsyJw1ARZo4Qt5LG0TS\n"
    )
    more = f"auth: {{htpasswd: {{realm: cache, path: {tmp_path}/users}}}}"
    with registry(tmp_path, more) as server:
        host = server.url.split("/")[2]
        try_out(server.url, login(tmp_path / "docker", host, "me", "hush"))
        for environ in (
            {"HOME": str(tmp_path)},
            login(tmp_path / "wrong", host, "me", "guess"),
        ):
            with pytest.raises(Denied) as caught:
                try_out(server.url, environ)
            assert caught.value.always
            assert "guess" not in str(caught.value)


class Gate(BaseHTTPRequestHandler):
    """A registry that wants tokens, with the service that gives them."""

    protocol_version = "HTTP/1.1"
    realm = ""

    def log_message(self, *_args):
        pass

    def do_GET(self):
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/token"):
            form = f"{self.path}{body.decode()}"
            self.server.forms.append(form)
            self.answer(200, b'{"token": "T1"}')
        elif self.headers.get("Authorization") == "Bearer T1":
            self.answer(200, b"some bytes")
        else:
            realm = self.server.realm or f"http://127.0.0.1:{self.server.server_port}/token"
            ask = f'Bearer realm="{realm}",service="reg",scope="repository:x:pull"'
            self.answer(401, b"", ask)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def answer(self, status, body, ask=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if ask:
            self.send_header("WWW-Authenticate", ask)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def gate():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.seen, server.forms, server.realm = [], [], ""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(gate, environ):
    url = f"oci://127.0.0.1:{gate.server_port}/team/x"
    remote = open_remote(address.parse(url), environ, LIMITS)
    pieces = []
    remote.get(CAS, digest.of_bytes(b"some bytes"), pieces.append)
    remote.close()
    return b"".join(pieces)


def test_a_registry_may_ask_for_a_token(gate, tmp_path):
    host = f"127.0.0.1:{gate.server_port}"
    assert ask(gate, login(tmp_path, host, "me", "hush")) == b"some bytes"
    assert "service=reg" in gate.forms[0]
    assert "scope=repository%3Ateam%2Fx%3Apull%2Cpush" in gate.forms[0]
    proofs = [proof for _method, path, proof in gate.seen if path.startswith("/token")]
    assert proofs == [credentials.Login(user="me", password="hush").basic]


def test_a_token_may_be_had_without_a_login(gate, tmp_path):
    assert ask(gate, {"HOME": str(tmp_path)}) == b"some bytes"


def test_a_refresh_token_is_exchanged(gate, tmp_path):
    config = {"auths": {f"127.0.0.1:{gate.server_port}": {"identitytoken": "R1"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ask(gate, {"DOCKER_CONFIG": str(tmp_path)}) == b"some bytes"
    assert "grant_type=refresh_token&refresh_token=R1" in gate.forms[0]


def test_a_login_is_not_sent_to_another_server_without_tls(gate, tmp_path):
    gate.realm = f"http://localhost:{gate.server_port}/token"
    with pytest.raises(Denied, match="without TLS"):
        ask(gate, login(tmp_path, f"127.0.0.1:{gate.server_port}", "me", "hush"))
    assert gate.forms == []

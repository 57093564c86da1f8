"""Results count only if somebody who counts has signed them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from repro.errors import UsageError
from repro.remote import envelope

pytestmark = pytest.mark.skipif(
    not shutil.which("ssh-keygen") and os.environ.get("CI") != "true",
    reason="apt-get install openssh-client",
)


def keygen(folder, name, kind="ed25519"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", path]
    subprocess.run(command, check=True)
    return path


def signers(path, *keys, options='namespaces="repro-result"'):
    rows = [f"{k.name}@team {options} {' '.join(public(k))}\n" for k in keys]
    path.write_text("".join(rows))
    return path


def public(key):
    return key.with_suffix(".pub").read_text().split()[:2]


@pytest.fixture
def team(tmp_path):
    """Keys of two members and of a stranger, and the list of the members."""
    keys = {name: keygen(tmp_path / "keys", name) for name in ("ann", "bob", "eve")}
    keys["list"] = signers(tmp_path / "allowed", keys["ann"], keys["bob"])
    return keys


@pytest.fixture(params=["folder", "nginx"])
def remote(servers, request):
    """A remote of files: one that can tell the first writer, and one that cannot."""
    server = servers(request.param)
    url = server.apart()
    return Remote(url, server.data / url.rpartition("/")[2])


class Remote(str):
    """A URL, with the folder of what is there."""

    __slots__ = ("data",)

    def __new__(cls, url, data):
        made = super().__new__(cls, url)
        made.data = data
        return made


def push(one, remote, key, **settings):
    sharing = one.share(remote, **settings)
    assert sharing.push([key]).results == 1
    sharing.close()


def fetch(one, remote, key, signers, **more):
    settings = {"REPRO_REMOTE_TRUST": "keys", "REPRO_REMOTE_SIGNERS": str(signers), **more}
    sharing = one.share(remote, **settings)
    found = sharing.fetch_result(key)
    sharing.close()
    return found


@pytest.mark.parametrize("member", ["ann", "bob"])
def test_a_result_of_a_member_counts(host, team, remote, member):
    one, other = host(), host()
    key = one.make()
    push(one, remote, key, REPRO_REMOTE_KEY=str(team[member]))
    assert fetch(other, remote, key, team["list"])
    assert other.read(key) == one.read(key)
    assert other.warnings == []


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_sign_too(host, tmp_path, remote, kind):
    key = keygen(tmp_path / "keys", kind, kind)
    one, other = host(), host()
    result = one.make()
    push(one, remote, result, REPRO_REMOTE_KEY=str(key))
    assert fetch(other, remote, result, signers(tmp_path / "allowed", key))


def test_unsigned_and_foreign_results_are_misses(host, team, remote):
    one, other = host(), host()
    unsigned, foreign = one.make("unsigned"), one.make("foreign")
    push(one, remote, unsigned)
    push(one, remote, foreign, REPRO_REMOTE_KEY=str(team["eve"]))
    for key in (unsigned, foreign):
        assert fetch(other, remote, key, team["list"]) is None
        assert other.machine.results.get(key) is None
    assert all("signed" in text for text in other.warnings)
    sharing = other.share(remote, REPRO_REMOTE_TRUST="any")
    assert sharing.fetch_result(unsigned)
    assert sharing.fetch_result(foreign)
    sharing.close()


def test_a_result_that_does_not_count_is_replaced_by_one_that_does(host, team, remote):
    one, unsigning, signing, third = host(), host(), host(), host()
    key = one.make()
    push(one, remote, key, REPRO_REMOTE_KEY=str(team["eve"]))
    foreign = stored(remote, key).read_bytes()
    assert fetch(unsigning, remote, key, team["list"]) is None
    assert unsigning.make() == key  # the step runs
    push(unsigning, remote, key)
    assert stored(remote, key).read_bytes() == foreign
    bob = {"REPRO_REMOTE_KEY": str(team["bob"])}
    assert fetch(signing, remote, key, team["list"], **bob) is None
    signing.make()
    push(signing, remote, key, **bob)
    assert fetch(third, remote, key, team["list"])


def stored(remote, key):
    return remote.data / "ac" / key


def tamper(remote, key, change):
    place = stored(remote, key)
    data = place.read_bytes()
    record, signature = envelope.decode(data)
    place.chmod(0o644)
    place.write_bytes(envelope.encode(*change(record, signature), envelope.blobs_of(data)))


def test_a_signature_covers_every_byte_of_the_record(host, team, remote):
    one, other = host(), host()
    key, second = one.make(), one.make("other")
    push(one, remote, key, REPRO_REMOTE_KEY=str(team["ann"]))
    push(one, remote, second, REPRO_REMOTE_KEY=str(team["ann"]))
    good = stored(remote, key).read_bytes()
    record, signature = envelope.decode(good)
    _, of_second = envelope.decode(stored(remote, second).read_bytes())
    resigned = record.replace(b'"wall_ns":7', b'"wall_ns":8')
    body = resigned.rpartition(b"\n")[0].rpartition(b"\n")[0]
    from repro import digest

    resigned = body + b"\n" + digest.of_bytes(body).encode() + b"\n"
    for change in (
        (resigned, signature),
        (record, of_second),
        (record, signature[:-40]),
        (record, signature.replace(b"U1NI", b"V1NI")),
        (record, b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * 100_000),
        (record, b""),
    ):
        tamper(remote, key, lambda _r, _s, change=change: change)
        assert fetch(other, remote, key, team["list"]) is None
    stored(remote, key).write_bytes(good)
    assert fetch(other, remote, key, team["list"])


def test_a_signature_for_another_purpose_does_not_count(host, team, remote, tmp_path):
    one, other = host(), host()
    key = one.make()
    push(one, remote, key)

    def sign_as_file(record, _signature):
        command = ["ssh-keygen", "-Y", "sign", "-q", "-n", "file", "-f", team["ann"]]
        return record, subprocess.run(command, input=record, capture_output=True, check=True).stdout

    tamper(remote, key, sign_as_file)
    anything = signers(tmp_path / "loose", team["ann"], options="")
    assert fetch(other, remote, key, anything) is None


def test_a_member_who_left_counts_no_more(host, team, remote, tmp_path):
    one, other, third = host(), host(), host()
    key = one.make()
    push(one, remote, key, REPRO_REMOTE_KEY=str(team["bob"]))
    assert fetch(other, remote, key, team["list"])
    assert fetch(third, remote, key, signers(tmp_path / "fewer", team["ann"])) is None
    over = 'namespaces="repro-result",valid-before="20200101"'
    assert fetch(third, remote, key, signers(tmp_path / "over", team["bob"], options=over)) is None


def test_a_result_keeps_its_signature_on_the_way_to_another_remote(host, team, servers):
    first, second = servers("folder").apart(), servers("folder").apart()
    one, between, other = host(), host(), host()
    key = one.make()
    push(one, first, key, REPRO_REMOTE_KEY=str(team["ann"]))
    assert fetch(between, first, key, team["list"])
    push(between, second, key)  # with no key of its own
    assert fetch(other, second, key, team["list"])


def test_a_verdict_is_remembered(host, team, remote, tmp_path):
    one, other = host(), host()
    key = one.make()
    push(one, remote, key, REPRO_REMOTE_KEY=str(team["ann"]))
    assert fetch(other, remote, key, team["list"])
    other.environ["PATH"] = str(tmp_path)  # no ssh-keygen there
    other.machine.results.drop(key)
    assert fetch(other, remote, key, team["list"])
    third = host({"PATH": str(tmp_path)})
    assert fetch(third, remote, key, team["list"]) is None
    assert "ssh-keygen" in third.warnings[0]


def test_no_key_counts_where_none_is_named(host, tmp_path):
    with pytest.raises(UsageError, match="no keys are named"):
        host().share("file:///tmp", REPRO_REMOTE_TRUST="keys")
    with pytest.raises(UsageError, match="names no file"):
        host().share("file:///tmp", REPRO_REMOTE_KEY=str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="everybody"):
        host().share("file:///tmp", REPRO_REMOTE_TRUST="everybody")


def test_a_key_with_a_passphrase_asks_nobody(host, tmp_path, remote):
    path = tmp_path / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path]
    subprocess.run(command, check=True)
    one = host()
    sharing = one.share(remote, REPRO_REMOTE_KEY=str(path))
    assert sharing.push([one.make()]).failed == 1
    sharing.close()
    assert "cannot be signed" in one.warnings[0]


def test_an_agent_may_hold_the_key(host, team, remote):
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    facts = dict(part.split("=") for part in started.replace(";", "\n").split() if "=" in part)
    try:
        environ = {"SSH_AUTH_SOCK": facts["SSH_AUTH_SOCK"]}
        subprocess.run(["ssh-add", "-q", team["ann"]], env={**os.environ, **environ}, check=True)
        one, other = host(environ), host()
        key = one.make()
        team["ann"].rename(team["ann"].with_name("away"))
        push(one, remote, key, REPRO_REMOTE_KEY=str(team["ann"].with_suffix(".pub")))
        assert fetch(other, remote, key, team["list"])
    finally:
        os.kill(int(facts["SSH_AGENT_PID"]), 15)

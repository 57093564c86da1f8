"""What every adapter must do, against a real server of its kind."""

from __future__ import annotations

import os
import re
import threading

import pytest
from support.cache_hosts import LIMITS
from support.cache_servers import free_port
from support.flaky_proxy import Proxy

from repro import digest
from repro.remote import address, envelope
from repro.remote.port import AC, CAS, Bytes, Denied, File, Unanswered
from repro.remote.sharing import open_remote


@pytest.fixture
def remote(server):
    opened = open_remote(address.parse(server.url), server.environ, LIMITS)
    yield opened
    opened.close()


def put(remote, data, **options):
    name = digest.of_bytes(data)
    remote.put(CAS, name, Bytes(data), **options)
    return name


def get(remote, kind, name):
    pieces = []
    return b"".join(pieces) if remote.get(kind, name, pieces.append) else None


def fresh():
    return digest.of_bytes(os.urandom(16))


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000, 12_000_003])
def test_what_is_put_comes_back(remote, size):
    data = os.urandom(size)
    assert get(remote, CAS, put(remote, data)) == data


def test_a_file_comes_back(remote, tmp_path):
    data = os.urandom(2_500_000)
    (tmp_path / "f").write_bytes(data)
    name = digest.of_bytes(data)
    remote.put(CAS, name, File(str(tmp_path / "f"), len(data)))
    assert get(remote, CAS, name) == data


def test_what_was_never_put_is_not_there(remote):
    assert get(remote, CAS, fresh()) is None
    assert get(remote, AC, fresh()) is None


def test_one_can_ask_for_many_at_once(remote):
    there = {put(remote, os.urandom(20 + n)): 20 + n for n in range(5)}
    absent = {fresh() for _ in range(5)}
    assert remote.has(CAS, there.keys() | absent) == there
    assert remote.has(AC, absent) == {}


def test_putting_again_is_harmless(remote):
    data = os.urandom(2000)
    name = put(remote, data)
    put(remote, data)
    put(remote, data, over=True)
    assert get(remote, CAS, name) == data


def result(remote, text=b"a record\n"):
    blob = os.urandom(30)
    return envelope.encode(text, b"", {put(remote, blob): len(blob)})


def test_results_have_keys_of_their_own(remote):
    key, data = fresh(), result(remote)
    remote.put(AC, key, Bytes(data))
    assert get(remote, AC, key) == data
    assert get(remote, CAS, key) is None
    assert set(remote.has(AC, [key, fresh()])) == {key}


def test_a_result_can_be_put_over_another(remote):
    key = fresh()
    remote.put(AC, key, Bytes(result(remote, b"one\n")))
    remote.put(AC, key, Bytes(result(remote, b"two\n")), over=True)
    assert envelope.decode(get(remote, AC, key))[0] == b"two\n"


def test_results_are_listed(remote):
    keys = {fresh() for _ in range(3)}
    for key in keys:
        remote.put(AC, key, Bytes(result(remote)))
    assert keys <= set(remote.keys())


def test_threads_may_share_it(remote):
    wrong = []

    def work():
        for _ in range(10):
            data = os.urandom(3000)
            if get(remote, CAS, put(remote, data)) != data:
                wrong.append(data)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_sink_may_refuse(remote):
    name = put(remote, os.urandom(600_000))

    def refuse(_data):
        raise KeyError

    with pytest.raises(KeyError):
        remote.get(CAS, name, refuse)
    assert len(get(remote, CAS, name)) == 600_000


def test_where_nobody_is_that_is_said_at_once(tmp_path):
    port = free_port()
    urls = [
        f"http://127.0.0.1:{port}/x",
        f"s3://b?endpoint=http://127.0.0.1:{port}",
        f"oci://127.0.0.1:{port}/x",
        f"file://{tmp_path}/absent",
    ]
    for url in urls:
        remote = open_remote(address.parse(url), {}, LIMITS)
        for action in (
            lambda r: r.get(CAS, fresh(), print),
            lambda r: r.has(CAS, [fresh()]),
            lambda r: r.put(CAS, digest.of_bytes(b"x"), Bytes(b"x")),
        ):
            with pytest.raises(Unanswered) as caught:
                action(remote)
            assert caught.value.dead, url


def test_a_bucket_that_is_not_there_takes_nothing(servers):
    server = servers("moto")
    url = server.url.replace("s3://cache", "s3://other")
    remote = open_remote(address.parse(url), server.environ, LIMITS)
    assert get(remote, CAS, fresh()) is None
    with pytest.raises(Denied):
        put(remote, b"x")


def test_wrong_keys_are_refused(servers):
    """rclone checks signatures, so all that passed before was signed rightly."""
    server = servers("rclone")
    environ = {**server.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    remote = open_remote(address.parse(server.url), environ, LIMITS)
    with pytest.raises(Denied) as caught:
        put(remote, b"x")
    assert caught.value.always


def test_the_first_writer_wins_where_the_server_can_tell(servers):
    server = servers("moto")
    remote = open_remote(address.parse(server.url), server.environ, LIMITS)
    key = fresh()
    remote.put(AC, key, Bytes(b"one"))
    remote.put(AC, key, Bytes(b"two"))
    assert get(remote, AC, key) == b"one"
    remote.put(AC, key, Bytes(bytes(11 << 20)))  # in parts
    assert get(remote, AC, key) == b"one"


def test_a_folder_and_a_web_server_on_it_are_the_same_remote(servers):
    server = servers("nginx")
    folder = open_remote(address.parse(f"file://{server.data}"), {}, LIMITS)
    web = open_remote(address.parse(server.url), {}, LIMITS)
    data = os.urandom(5000)
    assert get(web, CAS, put(folder, data)) == data
    assert get(folder, CAS, put(web, data[::-1])) == data[::-1]


@pytest.mark.parametrize("kind", ["nginx", "moto", "rclone", "registry"])
def test_transfers_survive_connections_that_break(servers, kind):
    server = servers(kind)
    port = int(re.search(r"127\.0\.0\.1:(\d+)", server.url)[1])
    proxy = Proxy(port)
    url = server.url.replace(f":{port}", f":{proxy.port}")
    data = os.urandom(12_000_003)
    name = digest.of_bytes(data)
    try:
        proxy.budgets = [1_500_000, 3_000_000]
        sender = open_remote(address.parse(url), server.environ, LIMITS)
        sender.put(CAS, name, Bytes(data))
        sender.close()
        proxy.budgets = [1_500_000, 3_000_000]
        receiver = open_remote(address.parse(url), server.environ, LIMITS)
        assert get(receiver, CAS, name) == data
        receiver.close()
        assert proxy.broken >= 3
    finally:
        proxy.close()

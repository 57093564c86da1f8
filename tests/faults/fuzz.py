"""Inputs made of good ones by damage, for each reader of what others write.

Whatever comes of it, a reader gives a value or the one error that it declares, and within a second.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import time
import zipfile

from faults import scene
from fetch import test_location

from lockfiles import test_condalock, test_dockerlock, test_pylock
from repro import location, mlproject, schemas
from repro.errors import LockInvalid, ProjectInvalid, SourceRefused, SourceUnusable
from repro.fetch import archive
from repro.location import Location
from repro.lockfiles import condalock, dockerlock, pylock
from repro.remote import envelope, validation
from repro.remote.port import Unfit
from repro.store.sealed import seal, unseal

SECOND = 1.0
BYTES = (b"\0", b"\xff", b"\n", b"\x1b[2J", b"\xe2\x80\xae", b"9" * 30, b"-1", b"../", b"A" * 3000)
TEXT = (b"{", b"}", b"[", b"]", b'"', b"'", b":", b"- ", b"null", b"true", b"&a ", b"*a", b"!!map ")


class Reader:
    """One reader: what it takes, what it is fed with, and what it may raise."""

    def __init__(self, name, read, seeds, error, words=TEXT):
        self.name, self.read, self.error = name, read, error
        self.seeds, self.words = seeds, (*BYTES, *words)

    def fed(self, rng):
        """Give a damaged seed."""
        data = bytearray(rng.choice(self.seeds))
        for _change in range(rng.choice((1, 1, 2, 4, 12))):
            at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
            to = min(to, at + rng.choice((1, 4, 30, 3000)))
            kind = rng.randrange(6)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at:at] = rng.choice(self.words)
            elif kind == 2:
                del data[at:to]
            elif kind == 3:
                data[at:at] = data[at:to] * rng.choice((1, 2, 20))
            elif kind == 4:
                other = rng.choice(self.seeds)
                data[at:to] = other[at:to]
            else:
                del data[at if rng.randrange(4) == 0 else len(data) :]
        return bytes(data)


def readers(root):
    """Give the five of them; archives are written below `root`."""
    place = scene.Scene(root).open()
    place.publish(1)
    key = scene.Outputs(number=1).key
    record = scene.read(place.results.path(key))
    message, body = envelope.encode(record, b"x" * 80, {}), unseal(record)
    locks = (
        (pylock, "pylock.toml", pylock.encode((test_pylock.LOCK,), {})),
        (condalock, "conda-lock.yml", condalock.encode(test_condalock.LOCKS[:1], {})),
        (dockerlock, "docker-lock.json", dockerlock.encode(test_dockerlock.LOCKS, {})),
    )
    schema = schemas.load("mlproject")

    def read_record(data):
        """Read a message as it is, or one whose record was damaged before it was sealed."""
        if data[:1] == b"{":
            data = envelope.encode(seal(data), b"", {})
        found, _signature = envelope.decode(data)
        validation.result_of(key, found, place.home.scratch())

    def read_lock(data):
        number = data[0] % len(locks) if data else 0
        locks[number][0].decode(locks[number][1], data[1:])

    def read_project(data):
        mlproject.decode("MLproject", {"MLproject": data}.get, schema)

    def read_uri(data):
        location.parse(os.fsdecode(data), lambda _path: False)

    def read_archive(data):
        path = os.path.join(root, "p.zip")
        with open(path, "wb") as file:
            file.write(data)
        where = Location(kind="zip", address=path, public=path)
        archive.fetch(where, place.home, place.blobs, lambda _text: None)

    refused, accepted = (
        cases(test) for test in (test_location.test_refused, test_location.test_accepted)
    )
    uris = [os.fsencode(case if isinstance(case, str) else case[0]) for case in refused + accepted]
    words = tuple(word.encode() for word in test_location.WORDS)
    return place, (
        Reader("record", read_record, [message, body], Unfit),
        Reader(
            "lock", read_lock, [bytes([n]) + lock[2] for n, lock in enumerate(locks)], LockInvalid
        ),
        Reader("MLproject", read_project, PROJECTS, ProjectInvalid),
        Reader("URI", read_uri, uris, SourceRefused, words),
        Reader("archive", read_archive, [_zip(0), _zip(8)], SourceUnusable, (b"PK\3\4", b"PK\1\2")),
    )


def cases(test):
    """Give what a test is parametrized with."""
    return [case for mark in test.pytestmark for case in mark.args[1]]


def _zip(method):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as made:
        for name in ("MLproject", "sub/data.txt", "run.sh"):
            made.writestr(name, b"some text, more than once; " * 20)
    return data.getvalue()


PROJECTS = [
    b"name: a\nentry_points:\n  main:\n    command: python train.py {lr}\n"
    b"    parameters:\n      lr: {type: float, default: 0.1}\n      d: path\n",
    b"python_env: env.yaml\nentry_points:\n  a: {command: x, outputs: [o], env: {A: b}}\n"
    b"  b: {needs: [{step: a, parameters: {p: '{p}'}}], inputs: [o], command: y, retries: 2}\n",
    b"docker_env: {image: i, volumes: ['/a:/b'], environment: [T, [M, 1]]}\n"
    b"entry_points: {main: {command: &c x, timeout: 1h, resources: {cpus: 2}}, o: {command: *c}}\n",
]


def run(count, *, seed=1):
    """Feed `count` damaged inputs to the readers in turns."""
    root = scene.folder()
    place, found = readers(root)
    names = ", ".join(reader.name for reader in found)
    tally = scene.Tally("F20", f"damaged inputs: {names}", count)
    rng = random.Random(seed)
    taken = dict.fromkeys((reader.name for reader in found), 0)
    try:
        for number in range(count):
            reader = found[number % len(found)]
            taken[reader.name] += _feed(reader, rng, tally)
            tally.done += 1
    finally:
        place.close()
        shutil.rmtree(root)
    more = ", ".join(f"{number} {name}" for name, number in taken.items())
    return tally.end(more=f"good all the same: {more}")


def _feed(reader, rng, tally):
    """Say whether the input was good all the same."""
    data = reader.fed(rng)
    began = time.process_time()
    try:
        reader.read(data)
    except reader.error:
        good = False
    except Exception as error:  # noqa: BLE001  (any other is what we look for)
        good = False
        tally.fault(f"{reader.name}: {error!r} for {data[:300]!r}")
    else:
        good = True
    if time.process_time() - began > SECOND:
        tally.fault(f"{reader.name}: takes long for {data[:300]!r}")
    return good

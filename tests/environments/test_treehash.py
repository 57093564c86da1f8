"""The tree hash: equal wherever the same lock is realised, different for any other content."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest
from environments.realized import SITE, Maker, house

from repro import digest
from repro.environments import cache, treehash

LONG = "a-folder-whose-name-is-so-long-that-a-script-needs-a-shell-to-start-its-interpreter" * 2


def put(folder, files):
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def hash_of(folder):
    return treehash.tree_hash(treehash.scan(str(folder)))


def test_the_same_lock_in_two_stores_gives_the_same_hash(tmp_path, settings):
    wheels = house(tmp_path / "wheels")
    files = [wheels.wheel("alpha", "1.0"), wheels.wheel("beta", "2.0")]
    hashes, prefixes = set(), []
    for name in ("one", f"elsewhere/{LONG}"):
        home = tmp_path / name
        make = Maker(home, settings)
        prefixes.append(pathlib.Path(make(make.lock(*files))))
        hashes.add(cache.marker(str(prefixes[-1]))["tree"])
    assert len(hashes) == 1
    scripts = {(p / "bin" / "alpha").read_bytes().split(b"\n")[0] for p in prefixes}
    assert len(scripts) == 2, "the scripts name their place, and the second one needs a shell"
    for prefix in prefixes:
        told = subprocess.run([prefix / "bin" / "alpha"], capture_output=True, check=True)
        assert told.stdout == b"1.0\n"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("content", lambda site: (site / "alpha.py").write_text("VERSION = 2\n")),
        ("a new file", lambda site: (site / "new.py").write_text("")),
        ("a file less", lambda site: (site / "alpha.py").unlink()),
        ("execution", lambda site: (site / "alpha.py").chmod(0o755)),
        ("a link", lambda site: (site / "link").symlink_to("alpha.py")),
    ],
)
def test_every_change_is_another_hash(tmp_path, name, change):
    site = put(tmp_path / "env", {f"{SITE}/alpha.py": b"VERSION = 1\n"}) / SITE
    before = hash_of(tmp_path / "env")
    change(site)
    assert hash_of(tmp_path / "env") != before, name


def test_where_a_link_leads_counts(tmp_path):
    for name, target in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to(target)
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "c") != hash_of(tmp_path / "b")


def test_links_into_the_prefix_are_the_same_everywhere(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to(tmp_path / name / "target")
    assert hash_of(tmp_path / "a") == hash_of(tmp_path / "b")


def test_what_installers_note_and_a_maker_leaves_is_left_out(tmp_path):
    env = put(tmp_path / "env", {"pyvenv.cfg": b"home = /usr\n", f"{SITE}/a.py": b""})
    before = hash_of(env)
    put(
        env,
        {
            "pyvenv.cfg": b"home = /opt\n",
            "bin/activate": b"x",
            f"{SITE}/__pycache__/a.cpython-311.pyc": b"x",
            f"{SITE}/a-1.dist-info/RECORD": b"x",
            f"{SITE}/a-1.dist-info/direct_url.json": b"x",
        },
    )
    assert hash_of(env) == before
    put(env, {f"{SITE}/a/RECORD": b"data that is only called so"})
    assert hash_of(env) != before


def test_scripts_of_a_conda_prefix_are_no_scaffold(tmp_path):
    env = put(tmp_path / "env", {"conda-meta/a-1-0.json": b"{}", "bin/activate": b"1"})
    before = hash_of(env)
    put(env, {"bin/activate": b"2"})
    assert hash_of(env) != before


def padded(prefix, length, rest=b"/lib\0code\0\0\1"):
    """A binary as conda patches one: the prefix in a field of fixed length."""
    field = os.fsencode(prefix)
    head, _, tail = rest.partition(b"\0")
    return b"\x7fELF\0" + (field + head).ljust(length, b"\0") + b"\0" + tail


@pytest.mark.parametrize("size", [0, treehash.SMALL + 7])
def test_a_padded_prefix_in_a_binary_is_taken_out(tmp_path, size):
    hashes = set()
    for name in ("a", "quite-another-name"):
        env = tmp_path / name
        data = padded(env, 255) + bytes([1]) * size + padded(env, 255, b":x\0end")
        put(env, {"lib/library.so": data})
        hashes.add(hash_of(env))
    assert len(hashes) == 1
    put(env, {"lib/library.so": data[:-1] + b"!"})
    assert hash_of(env) not in hashes


def test_large_files_hash_as_their_bytes(tmp_path):
    data = os.urandom(treehash.SMALL * 2 + 3)
    put(tmp_path / "env", {"large": data, "empty": b""})
    seen = treehash.scan(str(tmp_path / "env"))
    assert seen["large"] == ("file", digest.of_bytes(data), digest.of_bytes(data), len(data))
    assert seen["empty"][1] == digest.EMPTY


def test_a_second_name_of_the_prefix_is_taken_out_too(tmp_path):
    real = put(tmp_path / "real", {"bin/tool": f"#!{tmp_path}/real/bin/python\n".encode()})
    (tmp_path / "link").symlink_to("real")
    other = put(tmp_path / "other", {"bin/tool": f"#!{tmp_path}/link/bin/python\n".encode()})
    expected = hash_of(real)
    (other / "bin/tool").replace(real / "bin/tool")
    assert hash_of(tmp_path / "link") == expected


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert treehash.scan(str(tmp_path)) == {"pipe": ("other", "", "", 0)}


def test_names_that_are_no_text_are_kept(tmp_path):
    home = tmp_path / "store" / "envs" / "key"
    home.mkdir(parents=True)
    name = os.fsdecode(b"b\xffd")
    (home / name).write_text("x")
    told = treehash.keep(str(home), treehash.scan(str(home)))
    assert treehash.kept(str(home), told["files"]) == {name: ("file", digest.of_bytes(b"x"))}
    assert treehash.kept(str(home), "0" * 64) is None


def test_what_an_environment_stands_on_is_noted(tmp_path, settings):
    make = Maker(tmp_path / "store", settings)
    prefix = make(make.lock())
    noted = cache.marker(prefix)["base"]
    program = os.path.realpath(f"{prefix}/bin/python")
    assert noted[program] == digest.of_bytes(pathlib.Path(program).read_bytes())
    assert all(re.search(r"python3[.\d]*$|libpython", path) for path in noted)
    assert treehash.base(str(tmp_path)) == {}


@pytest.mark.parametrize(
    "long",
    [
        "#!/bin/sh\n'''exec' '{0}/bin/python' \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' \"{0}/bin/python\" \"$0\" \"$@\" #'''\n",
        "#!/bin/sh\n'''exec' {0}/bin/python \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_how_a_script_finds_its_python_is_the_same_everywhere(tmp_path, long):
    hashes = set()
    for name, text in (("short", "#!{0}/bin/python\n"), ("long", long)):
        begin = text.format(tmp_path / name)
        put(tmp_path / name, {"bin/tool": f"{begin}print(1)\n".encode()})
        hashes.add(hash_of(tmp_path / name))
    assert len(hashes) == 1

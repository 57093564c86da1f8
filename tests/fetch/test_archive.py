"""Projects in zip archives, local and over HTTP: what is taken, what is refused, and that nothing
is ever written outside of the store."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import warnings
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro.errors import SourceRefused, SourceUnusable, Unreachable, UsageError
from repro.machine import Machine
from repro.plan import Request

PROJECT = "entry_points: {main: {command: cat data.txt}}\n"
FILES = {"MLproject": PROJECT, "data.txt": "one\n", "sub/MLproject": PROJECT, "sub/x": "x\n"}


def member(name, mode=0, *, method=zipfile.ZIP_DEFLATED):
    info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
    info.filename = name  # as it is: the constructor would make it nicer
    info.external_attr = mode << 16
    info.compress_type = method
    return info


def pack(*members):
    """Write members, each a name or (name, mode), and their contents, as they are."""
    data = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of duplicate names, which are meant
        for what, content in members:
            info = what if isinstance(what, zipfile.ZipInfo) else member(what)
            archive.writestr(info, content)
    return data.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Write an archive; give its path."""

    def make(data=None, name="p.zip"):
        path = tmp_path / name
        path.write_bytes(pack(*FILES.items()) if data is None else data)
        return path

    return make


@pytest.fixture
def outside(tmp_path):
    """List everything around the store, which no archive may add to."""

    def names():
        return sorted(
            os.path.join(base, name)
            for base, folders, files in os.walk(tmp_path)
            if not base.startswith(str(tmp_path / "store"))
            for name in (*folders, *files)
        )

    return names


def names(tree):
    return [entry.path for entry in tree.entries()]


def test_a_local_archive(archive, look, project):
    path = archive()
    tree = look(path)
    assert names(tree) == sorted(FILES)
    assert tree.read("data.txt") == b"one\n"
    source = tree.source
    assert (source.kind, source.uri, source.name, source.root) == ("zip", str(path), "p", "")
    assert (source.commit, source.version, source.dirty) == ("", "", False)
    assert source.tree == look(project(FILES)).source.tree


@pytest.mark.parametrize("form", ["p.zip", "./p.zip", "{0}", "file://{0}", "'{0}'"])
def test_forms_of_a_local_archive(archive, look, tmp_path, form):
    path = archive()
    assert look(form.format(path), caller=tmp_path).source.uri.endswith("p.zip")


def test_an_archive_over_http(archive, web, look, told):
    web.files["/a/p.zip"] = archive().read_bytes()
    tree = look(f"{web.url}/a/p.zip")
    assert names(tree) == sorted(FILES)
    assert tree.source.uri == tree.source.project == f"{web.url}/a/p.zip"
    assert told == [f"fetching {web.url}/a/p.zip"]


def test_credentials_of_an_archive_reach_the_server_and_nothing_else(
    archive, web, look, told, machine
):
    web.files["/p.zip"] = archive().read_bytes()
    web.password = "me:s3cret"
    tree = look(f"http://me:s3cret@{web.authority}/p.zip#sub")
    assert tree.source.uri == f"{web.url}/p.zip#sub"
    assert "s3cret" not in "".join(told)
    for base, _folders, files in os.walk(machine.home.root):
        for name in files:
            with open(os.path.join(base, name), "rb") as file:
                assert b"s3cret" not in file.read()
    with pytest.raises(Unreachable, match="401") as caught:
        look(f"http://me:wr0ng@{web.authority}/p.zip")
    assert "wr0ng" not in caught.value.message


@pytest.mark.parametrize("where", ["local", "http"])
def test_a_subdirectory(archive, web, look, where, project):
    path = archive()
    web.files["/p.zip"] = path.read_bytes()
    uri = path if where == "local" else f"{web.url}/p.zip"
    tree = look(f"{uri}#sub")
    assert names(tree) == ["MLproject", "x"]
    assert tree.source.uri == f"{uri}#sub"
    assert tree.source.tree == look(project(FILES) / "sub").source.tree
    for subdirectory in ("nothing", "data.txt", "su"):
        with pytest.raises(UsageError, match=f"there is no folder `{subdirectory}` in `{uri}`"):
            look(f"{uri}#{subdirectory}")
    with pytest.raises(SourceRefused):
        look(f"{uri}#../x")


def test_folders_and_modes(archive, look, tmp_path):
    path = archive(
        pack(
            (member("run.sh", stat.S_IFREG | 0o755), "#!/bin/sh\n"),
            (member("plain", stat.S_IFREG | 0o644), "x"),
            (member("setuid", stat.S_IFREG | 0o6755), "x"),
            (member("no-type", 0o700), "x"),
            (member("dos"), "x"),
            (member("folder/", stat.S_IFDIR | 0o755), ""),
            (member("folder/deep/"), ""),
            (member("folder/deep/x"), "x"),
        )
    )
    tree = look(path)
    kinds = {entry.path: entry.kind for entry in tree.entries()}
    assert kinds == {
        "run.sh": "exec",
        "plain": "file",
        "setuid": "exec",
        "no-type": "exec",
        "dos": "file",
        "folder/deep/x": "file",
    }
    tree.materialize(tree.entries(), str(tmp_path / "out"))
    modes = {name: (tmp_path / "out" / name).stat().st_mode for name in kinds}
    assert all(mode & 0o7022 == 0 for mode in modes.values())
    assert modes["setuid"] & 0o111


def test_odd_names_come_through(archive, look, tmp_path):
    odd = ["new\nline", "é", "e\u0301", "emoji \U0001f984", "-rf", "back\\slash", "a:b", "~", "..."]
    odd += ["n" * 255, "%s", "dir name/x"]
    tree = look(archive(pack(*((name, name) for name in odd))))
    assert sorted(names(tree)) == sorted(odd)
    tree.materialize(tree.entries(), str(tmp_path / "out"))
    assert (tmp_path / "out" / "back\\slash").read_text() == "back\\slash"


def test_an_archive_that_changed_is_another_project(archive, look):
    first = look(archive()).source.tree
    assert look(archive(pack(("MLproject", PROJECT)))).source.tree != first
    assert look(archive()).source.tree == first


def test_an_archive_has_no_versions(archive, web, look):
    for uri in (archive(), f"{web.url}/p.zip"):
        with pytest.raises(UsageError, match="a zip archive has no versions"):
            look(uri, "main")
    assert web.asked == []


def test_an_archive_that_is_not_there(look, tmp_path, web):
    for uri in (tmp_path / "nothing.zip", f"file://{tmp_path}/nothing.zip"):
        with pytest.raises(UsageError, match="there is no archive") as caught:
            look(uri)
        assert caught.value.exit == 2
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UsageError, match="there is no archive"):
        look(tmp_path / "folder.zip")
    with pytest.raises(Unreachable, match="the server answers 404") as caught:
        look(f"{web.url}/nothing.zip")
    assert caught.value.exit == 7


@pytest.mark.parametrize("answer", [(500, b"oops"), (403, b""), (204, b"")])
def test_a_server_that_gives_no_archive(web, look, answer):
    web.files["/p.zip"] = answer
    with pytest.raises((Unreachable, SourceUnusable)):
        look(f"{web.url}/p.zip")


def test_a_server_that_hangs_up_is_unreachable(web, look, archive, machine):
    data = archive().read_bytes()
    web.files["/p.zip"] = (200, data[: len(data) // 2], {"Content-Length": str(len(data))})
    with pytest.raises(Unreachable, match="cannot fetch"):
        look(f"{web.url}/p.zip")


def test_a_closed_port_is_unreachable(look, web):
    with pytest.raises(Unreachable, match="cannot fetch") as caught:
        look("http://127.0.0.1:1/p.zip")
    assert caught.value.hints


# -- archives that mean harm


LINK = stat.S_IFLNK | 0o777
HOSTILE = {
    "parent": [("../escaped", "x")],
    "deep parent": [("a/b/../../../escaped", "x")],
    "parent in the end": [("a/..", "x")],
    "absolute": [("/escaped", "x")],
    "absolute to here": [("{0}/escaped", "x")],
    "double slash": [("a//b", "x")],
    "dot": [("./a", "x")],
    "only a dot": [(".", "x")],
    "symlink": [(member("link", LINK), "/etc/passwd")],
    "symlink inside": [(member("link", LINK), "data.txt")],
    "through a symlink": [(member("a", LINK), "/tmp"), ("a/escaped", "x")],
    "fifo": [(member("fifo", stat.S_IFIFO | 0o644), "")],
    "device": [(member("null", stat.S_IFCHR | 0o666), "")],
    "socket": [(member("socket", stat.S_IFSOCK | 0o666), "")],
    "twice": [("a", "x"), ("a", "y")],
    "twice the same": [("a", "x"), ("a", "x")],
    "file and folder": [("a", "x"), ("a/b", "y")],
    "folder and file": [("a/b/c", "x"), ("a/b", "y")],
    "git": [(".git/hooks/post-checkout", "x")],
    "git in capitals": [("sub/.GIT/config", "x")],
    "bzip2": [(member("a", method=zipfile.ZIP_BZIP2), "x" * 999)],
    "lzma": [(member("a", method=zipfile.ZIP_LZMA), "x" * 999)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_member_that_no_archive_may_have(archive, look, outside, tmp_path, kind):
    members = [
        (what.format(tmp_path) if isinstance(what, str) else what, content)
        for what, content in HOSTILE[kind]
    ]
    path = archive(pack(("MLproject", PROJECT), *members))
    before = outside()
    with pytest.raises(SourceUnusable):
        look(path)
    assert outside() == before
    assert not os.path.exists("/tmp/escaped")
    assert not os.path.exists("/escaped")


def test_a_name_with_a_zero_byte_ends_there(archive, look):
    """As Python reads it; so it cannot hide what it is from one reader and show it to another."""
    data = pack(("harmless.txt_/../../escaped", "x")).replace(b"txt_/", b"txt\0/")
    assert names(look(archive(data))) == ["harmless.txt"]


def patched(data, offset_in_header, form, value, *, central=True):
    """Change a field of the first member in both of its headers, or in the central one."""
    out = bytearray(data)
    at = out.index(b"PK\1\2")
    struct.pack_into(form, out, at + offset_in_header, value)
    if not central:
        struct.pack_into(form, out, offset_in_header - 2, value)
    return bytes(out)


SIZE, FLAGS, METHOD = 24, 8, 10


@pytest.mark.parametrize("declared", [0, 1, 4096, 2**31])
def test_a_size_that_is_not_true(archive, look, outside, declared):
    data = pack(("a", b"0" * 100_000))
    before = outside()
    for both in (True, False):
        path = archive(patched(data, SIZE, "<I", declared, central=both))
        with pytest.raises(SourceUnusable):
            look(path)
        path.unlink()
    assert outside() == before


def test_a_bomb(archive, look, machine):
    """A hundred megabytes from as many kilobytes, as one member or as many."""
    for count in (1, 100):
        path = archive(pack(*((f"{n}", bytes(100_000_000 // count)) for n in range(count))))
        assert path.stat().st_size < 200_000
        with pytest.raises(SourceUnusable, match="refused as a zip bomb"):
            look(path)
    assert sum(size for _name, size in machine.blobs.names()) < 1_000_000


def test_members_that_share_their_bytes(archive, look):
    """Every name of the directory leads to the same packed megabyte."""
    data = pack(("a", bytes(1_000_000)))
    at = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entry = data[at:end]
    count = 2000
    directory = entry * count
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), at, 0)
    with pytest.raises(SourceUnusable, match="refused as a zip bomb"):
        look(archive(data[:at] + directory + tail))


def test_what_packs_well_is_no_bomb(archive, look):
    tree = look(archive(pack(("zeros", bytes(5_000_000)))))
    assert [entry.size for entry in tree.entries()] == [5_000_000]


def test_too_many_members(archive, look):
    data = pack(("", b""))
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    count = 100_001
    directory = data[at:end] * count
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), at)
    where = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(directory), 1)
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with pytest.raises(SourceUnusable, match="100,001 members"):
        look(archive(data[:at] + directory + wide + where + tail))


def test_an_encrypted_member(archive, look):
    data = patched(pack(("secret.txt", "x")), FLAGS, "<H", 1, central=False)
    with pytest.raises(SourceUnusable, match=r"`secret.txt` is encrypted"):
        look(archive(data))


def test_an_unknown_method(archive, look):
    data = patched(pack(("a", "x")), METHOD, "<H", 99, central=False)
    with pytest.raises(SourceUnusable, match="unusual method"):
        look(archive(data))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"PK\3\4", b"PK\5\6", b"not a zip" * 1000, b"\x1f\x8b gzip", b"PK\5\6" + bytes(17)],
)
def test_what_is_no_archive(archive, look, data):
    with pytest.raises(SourceUnusable, match="is not a zip archive to use"):
        look(archive(data))


def test_an_archive_of_nothing_is_a_project_of_nothing(archive, look):
    assert names(look(archive(pack()))) == []


def test_an_archive_cut_short_anywhere(archive, look):
    data = archive().read_bytes()
    for end in range(0, len(data), 7):
        with pytest.raises(SourceUnusable):
            look(archive(data[:end]))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), method=st.sampled_from([0, 8]))
def test_a_damaged_archive_is_right_or_refused(quarry, seed, method):
    """Whatever a decompressor says to garbage, a user never sees its traceback."""
    look, path = quarry
    noise = random.Random(seed)
    data = bytearray(pack(*((member(n, method=method), t * 20) for n, t in FILES.items())))
    for _ in range(noise.randint(1, 4)):
        at = noise.randrange(len(data))
        if noise.random() < 0.8:
            data[at] = noise.choice([0, 255, noise.randrange(256)])
        else:
            del data[at : at + noise.randrange(20)]
    path.write_bytes(data)
    try:
        look(path)
    except SourceUnusable as error:
        assert str(path) in error.message or "archive" in error.message


@pytest.fixture(scope="module")
def quarry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quarry")
    machine = Machine({"REPRO_HOME": str(folder / "store"), "REPRO_DATA": str(folder / "data")})
    yield (
        lambda path: machine.tree(Request(uri=str(path), caller="/"), lambda _text: None),
        folder / "p.zip",
    )
    machine.close()


def test_no_half_of_anything_stays_behind(archive, look, machine, outside):
    for data in (pack(("../x", "x")), b"garbage", pack(("a", "x"), ("a", "y"))):
        with pytest.raises(SourceUnusable):
            look(archive(data))
    look(archive())
    machine.close()
    assert os.listdir(machine.home.path("tmp")) == []


def test_a_run_of_an_archive(archive, web, repro):
    web.files["/p.zip"] = archive().read_bytes()
    first = repro("run", f"{web.url}/p.zip", "--env-manager", "local")
    assert (first.code, "one" in first.text) == (0, True), first.err
    again = repro("run", archive(), "--env-manager", "local", "--json")
    assert '"cached": true' in again.out  # the same files, from elsewhere

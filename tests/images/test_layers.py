import io
import os
import tarfile
import tracemalloc

import pytest

from repro import digest
from repro.errors import EnvironmentFailed
from repro.images import layers
from repro.images.layers import Member


def folder_of(root):
    (root / "b").mkdir(parents=True)
    (root / "b" / "run").write_bytes(b"#!/bin/sh\n")
    (root / "b" / "run").chmod(0o711)
    (root / "a.txt").write_bytes(b"text")
    (root / "a.txt").chmod(0o600)
    (root / "b.txt").write_bytes(b"")
    (root / "link").symlink_to("a.txt")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    return str(root)


def written(members):
    out = io.BytesIO()
    layer = layers.write(out, members)
    return layer, out.getvalue()


def of_folder(root, place="opt"):
    return [layers.of_file(f"{place}/{p}", os.path.join(root, p)) for p in layers.below(root)]


def test_the_same_files_give_the_same_bytes_whatever_their_dates_modes_and_order(tmp_path):
    one = folder_of(tmp_path / "one")
    two = folder_of(tmp_path / "other place" / "two")
    os.utime(os.path.join(two, "a.txt"), (1, 1))
    os.chmod(os.path.join(two, "a.txt"), 0o664)
    first, data = written(of_folder(one))
    second, again = written(reversed(of_folder(two)))
    assert data == again
    assert first == second
    assert first.digest == f"sha256:{digest.of_bytes(data)}"
    assert first.size == len(data)


def test_a_tar_reader_finds_what_was_written(tmp_path):
    root = folder_of(tmp_path / "root")
    _layer, data = written(of_folder(root))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {m.name: (m.type, m.mode, m.uid, m.gid, m.mtime) for m in tar}
        assert tar.extractfile("opt/b/run").read() == b"#!/bin/sh\n"
        assert tar.getmember("opt/link").linkname == "a.txt"
    mark = (0, 0, layers.EPOCH)
    assert found == {
        "opt": (tarfile.DIRTYPE, 0o755, *mark),
        "opt/a.txt": (tarfile.REGTYPE, 0o644, *mark),
        "opt/b": (tarfile.DIRTYPE, 0o755, *mark),
        "opt/b.txt": (tarfile.REGTYPE, 0o644, *mark),
        "opt/b/run": (tarfile.REGTYPE, 0o755, *mark),
        "opt/empty": (tarfile.DIRTYPE, 0o755, *mark),
        "opt/link": (tarfile.SYMTYPE, 0o777, *mark),
    }
    assert list(found) == sorted(found)


def test_long_and_strange_names_survive(tmp_path):
    names = ["x" * 200 + "/" + "y" * 90, os.fsdecode(b"\xff\xfe"), "ü", "a b"]
    _layer, data = written([layers.of_bytes(name, b"1") for name in names])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert set(names) <= set(tar.getnames())


def test_what_is_skipped_is_left_out_with_all_below(tmp_path):
    root = folder_of(tmp_path / "root")
    assert sorted(layers.below(root, lambda path: path == "b")) == [
        *("a.txt", "b.txt", "empty", "link"),
    ]


def test_memory_does_not_depend_on_the_size_of_a_file(tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    with open(os.devnull, "wb") as out:
        layer = layers.write(out, [layers.of_file("big", str(big))])
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert layer.size > 200 << 20
    assert peak < 16 << 20


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_file_that_changes_meanwhile_is_an_error(size):
    member = Member(path="x", kind="file", size=size, open=lambda: iter([b"ab"]))
    with pytest.raises(EnvironmentFailed, match="changed while"):
        written([member])


def test_a_path_may_stand_there_once():
    with pytest.raises(EnvironmentFailed, match="twice"):
        written([layers.of_bytes("x", b"1"), layers.of_bytes("x", b"2")])

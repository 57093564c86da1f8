"""Values of `path` parameters: found, fetched, and known by their content alone."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket

import pytest

from repro.errors import ParameterInvalid, Unreachable, Unsupported
from repro.fetch.paths import Paths
from repro.params import Argument


@pytest.fixture
def paths(machine, tmp_path, told):
    return Paths(machine.memos, str(tmp_path), told.append)


@pytest.fixture
def data(project):
    """A folder of data."""
    folder = project({"a.csv": "1\n", "deep/b.csv": "2\n"}, name="data")
    (folder / "link").symlink_to("deep/b.csv")
    return folder


def argument(text):
    return Argument(name="data", text=str(text), kind="path")


def nowhere():
    return pytest.fail("nothing had to be fetched")


# -- where a value leads


@pytest.mark.parametrize(
    "form",
    [
        "data/a.csv",
        "./data/a.csv",
        "data//a.csv",
        "data/deep/../a.csv",
        "{0}",
        "file://{0}",
        "file:{0}",
    ],
)
def test_local_values(paths, data, form):
    value = argument(form.format(data / "a.csv"))
    assert paths.local(value, 0, nowhere) == str(data / "a.csv")


def test_a_value_may_begin_with_the_home(paths, data, monkeypatch):
    monkeypatch.setenv("HOME", str(data))
    assert paths.local(argument("~/a.csv"), 0, nowhere) == str(data / "a.csv")


@pytest.mark.parametrize("text", ["", "nothing", "data/nothing", "/nothing/at/all", "a\0b", "~/x"])
def test_a_value_that_leads_nowhere(paths, data, text, tmp_path):
    with pytest.raises(ParameterInvalid, match="parameter `data`: there is no file or folder") as c:
        paths.local(argument(text), 0, nowhere)
    assert str(tmp_path) in c.value.hints[0]


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/x",
        "gs://b/x",
        "dbfs:/x".replace(":", "://"),
        "runs://1/x",
        "ftp://h/x",
        "file://host/x",
        "models://m/1",
    ],
)
def test_addresses_that_cannot_be_fetched(paths, text):
    with pytest.raises(Unsupported, match="addresses cannot be fetched"):
        paths.local(argument(text), 0, nowhere)


def test_a_download(paths, web, tmp_path, told):
    web.files["/d/x.csv"] = b"1,2\n"
    path = paths.local(argument(f"{web.url}/d/x.csv?token=s3cret"), 3, lambda: str(tmp_path / "s"))
    assert path == str(tmp_path / "s" / "param_3" / "x.csv")
    assert pathlib.Path(path).read_bytes() == b"1,2\n"
    assert told == [f"fetching {web.url}/d/x.csv"]
    web.files["/d/x.csv"] = b"3,4\n"
    assert paths.local(argument(f"{web.url}/d/x.csv"), 3, lambda: str(tmp_path / "s")) == path
    assert pathlib.Path(path).read_bytes() == b"3,4\n"
    assert os.listdir(tmp_path / "s" / "param_3") == ["x.csv"]


@pytest.mark.parametrize("place", ["", "/", "/.", "/..", "/a/..", "/%2e%2e", "/..%2f..%2fescaped"])
def test_a_download_stays_in_its_folder(paths, web, tmp_path, place):
    for name in ("", "/", "/.", "/..", "/a/..", "/%2e%2e", "/..%2F..%2Fescaped", "/a"):
        web.files[name] = b"x"
    path = paths.local(argument(web.url + place), 0, lambda: str(tmp_path / "s"))
    assert os.path.dirname(os.path.realpath(path)) == str(tmp_path / "s" / "param_0")


def test_credentials_of_a_download_are_not_shown(paths, web, tmp_path, told):
    web.password = "me:s3cret"
    web.files["/x"] = b"x"
    assert paths.local(argument(f"http://me:s3cret@{web.authority}/x"), 0, lambda: str(tmp_path))
    with pytest.raises(Unreachable) as caught:
        paths.local(argument(f"http://me:wr0ng-s3cret@{web.authority}/x"), 0, lambda: str(tmp_path))
    assert "s3cret" not in " ".join([*told, caught.value.message, *caught.value.hints])


def test_a_download_that_fails_leaves_nothing_half_done(paths, web, tmp_path):
    web.files["/x"] = b"before"
    storage = lambda: str(tmp_path / "s")  # noqa: E731
    path = paths.local(argument(f"{web.url}/x"), 0, storage)
    for answer in ((500, b"oops"), (404, b""), (200, b"half", {"Content-Length": "9999"})):
        web.files["/x"] = answer
        with pytest.raises(Unreachable, match="parameter `data`"):
            paths.local(argument(f"{web.url}/x"), 0, storage)
        assert pathlib.Path(path).read_bytes() == b"before"
        assert os.listdir(tmp_path / "s" / "param_0") == ["x"]


def test_a_server_that_is_not_there(paths, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match="parameter `data`: cannot be fetched") as caught:
        paths.local(argument(f"http://127.0.0.1:{port}/x"), 0, lambda: str(tmp_path / "s"))
    assert caught.value.exit == 7


# -- what a value is


def test_a_file_is_its_content(paths, data, tmp_path):
    before = paths.identify(str(data / "a.csv"))
    shutil.copy(data / "a.csv", tmp_path / "other name")
    assert paths.identify(str(tmp_path / "other name")) == before
    (tmp_path / "other name").chmod(0o700)
    os.utime(tmp_path / "other name", (1, 1))
    assert paths.identify(str(tmp_path / "other name")) == before
    (tmp_path / "alias").symlink_to(data / "a.csv")
    assert paths.identify(str(tmp_path / "alias")) == before
    (data / "a.csv").write_text("3\n")
    assert paths.identify(str(data / "a.csv")) != before
    assert paths.identify(str(tmp_path / "alias")) != before


def test_a_folder_is_its_files(paths, data, tmp_path):
    before = paths.identify(str(data))
    shutil.copytree(data, tmp_path / "copy", symlinks=True)
    assert paths.identify(str(tmp_path / "copy")) == before
    data.rename(tmp_path / "renamed")
    assert paths.identify(str(tmp_path / "renamed")) == before
    (tmp_path / "alias").symlink_to("renamed")
    assert paths.identify(str(tmp_path / "alias")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (d / "a.csv").write_text("9\n"),
        lambda d: (d / "deep" / "b.csv").write_text("9\n"),
        lambda d: (d / "a.csv").rename(d / "c.csv"),
        lambda d: (d / "deep").rename(d / "shallow"),
        lambda d: (d / "new").write_text(""),
        lambda d: (d / "deep" / ".hidden").write_text(""),
        lambda d: (d / "a.csv").unlink(),
        lambda d: ((d / "link").unlink(), (d / "link").symlink_to("a.csv")),
        lambda d: ((d / "link").unlink(), (d / "link").write_text("2\n")),
        lambda d: (d / ".git").write_text("no exceptions: this is data"),
    ],
)
def test_any_change_of_content_in_a_folder_counts(paths, data, rest, change):
    rest()
    before = paths.identify(str(data))
    assert paths.identify(str(data)) == before
    change(data)
    assert paths.identify(str(data)) != before


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_behind_a_link_out_of_the_folder_counts(
    paths, data, tmp_path, rest, what, absolute
):
    """Large data is most often such a folder of links."""
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep" / "x").write_text("one")
    target = kept / "deep" / "x" if what == "file" else kept
    (data / "out").symlink_to(target if absolute else os.path.relpath(target, data))
    rest()
    before = paths.identify(str(data))
    assert paths.identify(str(data)) == before
    (kept / "deep" / "x").write_text("two")
    assert paths.identify(str(data)) != before
    (kept / "deep" / "x").write_text("one")
    assert paths.identify(str(data)) == before
    shutil.copytree(data, tmp_path / "real")
    (tmp_path / "real" / "link").unlink()
    (tmp_path / "real" / "link").symlink_to("deep/b.csv")
    assert paths.identify(str(tmp_path / "real")) == before


def test_a_link_behind_a_link_is_followed_as_well(paths, data, tmp_path, rest):
    kept, far = tmp_path / "kept", tmp_path / "far"
    kept.mkdir()
    far.write_text("one")
    (kept / "x").symlink_to("../far")
    (data / "deep" / "out").symlink_to(kept)
    rest()
    before = paths.identify(str(data))
    far.write_text("two")
    assert paths.identify(str(data)) != before


def test_links_in_circles_end(paths, data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("x")
    (data / "there").symlink_to(other)
    (other / "back").symlink_to(data)
    (other / "itself").symlink_to(other)
    (data / "up").symlink_to("..")
    (data / "loop").symlink_to("loop")
    (data / "nowhere").symlink_to("/nothing/at/all")
    before = paths.identify(str(data))
    (other / "x").write_text("y")
    assert paths.identify(str(data)) != before


def test_the_second_time_reads_nothing(paths, data, watch, rest):
    rest()
    first = paths.identify(str(data))
    with watch:
        assert paths.identify(str(data)) == first
    assert [p for p in watch.below(data) if os.path.isfile(p)] == []


def test_what_was_fresh_is_read_once_more_and_then_known(paths, data, watch, rest):
    """A file that was written just before is read again the next time, but not for ever."""
    (data / "a.csv").write_text("fresh\n")
    first = paths.identify(str(data))
    rest()
    assert paths.identify(str(data)) == first
    with watch:
        assert paths.identify(str(data)) == first
    assert [p for p in watch.below(data) if os.path.isfile(p)] == []


def test_quick_edits_of_the_same_size_are_never_missed(paths, tmp_path):
    place = tmp_path / "x"
    place.write_text("0000")
    stamps = os.stat(place)
    known = {}
    for number in range(400):
        place.write_text(f"{number:04d}")
        os.utime(place, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        known[paths.identify(str(place))] = number
    assert len(known) == 400


@pytest.mark.parametrize("how", ["fifo", "device", "socket"])
def test_what_is_neither_file_nor_folder_is_refused(paths, tmp_path, how):
    path = tmp_path / "odd"
    if how == "fifo":
        os.mkfifo(path)
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.relpath(path))
    place = "/dev/null" if how == "device" else str(path)
    with pytest.raises(ParameterInvalid, match="is neither a file nor a folder"):
        paths.identify(place)


def test_special_files_in_a_folder_are_no_content(paths, data):
    before = paths.identify(str(data))
    os.mkfifo(data / "fifo")
    assert paths.identify(str(data)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_error(paths, data):
    """Or its content would be in no key."""
    (data / "deep").chmod(0)
    try:
        with pytest.raises(ParameterInvalid, match="cannot be listed"):
            paths.identify(str(data))
    finally:
        (data / "deep").chmod(0o755)


def test_odd_names_count_as_they_are(paths, project):
    folder = project({"nfc-é": "x"}, name="odd")
    before = paths.identify(str(folder))
    (folder / "nfc-é").rename(folder / "nfc-e\u0301")
    assert paths.identify(str(folder)) != before
    (pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n"))).write_text("x")
    assert paths.identify(str(folder)) == paths.identify(str(folder))


def test_a_mount_is_its_content(paths, data):
    before = paths.mounted(str(data))
    assert before != paths.identify(str(data))
    (data / "a.csv").write_text("changed\n")
    assert paths.mounted(str(data)) != before
    with pytest.raises(ParameterInvalid, match="the mount `/nothing` is not there"):
        paths.mounted("/nothing")


# -- in a run

STEP = """
entry_points:
  main:
    parameters: {data: path}
    command: cat {data}
"""


def test_a_run_is_reused_by_the_content_of_its_paths(project, run, tmp_path, web):
    folder = project(MLproject=STEP)
    (tmp_path / "x").write_text("one\n")
    assert not run(folder, parameters={"data": "x"}, caller=str(tmp_path)).cached
    assert run.printed == "one\n"
    (tmp_path / "x").rename(tmp_path / "y")
    assert run(folder, parameters={"data": "y"}, caller=str(tmp_path)).cached
    web.files["/z"] = b"one\n"
    assert run(folder, parameters={"data": f"{web.url}/z"}).cached
    (tmp_path / "y").write_text("two\n")
    assert not run(folder, parameters={"data": str(tmp_path / "y")}).cached
    assert run.printed == "two\n"

"""Local projects and the memo of their files: what changed is noticed, what did not is not read."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from repro import manifest
from repro.errors import SourceRefused, SourceUnusable, UsageError
from repro.fetch.folder import Folder
from repro.machine import Machine
from repro.source import Selection

FILES = {
    "MLproject": "entry_points: {main: {command: cat data.txt}}\n",
    "data.txt": "one\n",
    "other.txt": "two\n",
    "sub/deep/file.txt": "deep\n",
}


@pytest.fixture
def folder(project):
    made = project(FILES)
    (made / "empty").mkdir()
    (made / "link").symlink_to("data.txt")
    return made


def paths(tree):
    return [entry.path for entry in tree.entries()]


def kind(tree, path):
    return {entry.path: entry.kind for entry in tree.entries()}.get(path)


# -- what a tree is


def test_a_tree_is_the_files_and_links_of_the_folder(folder, look):
    (folder / "sub" / "__pycache__").mkdir()
    (folder / "sub" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    tree = look(folder)
    kinds = {entry.path: entry.kind for entry in tree.entries()}
    assert kinds == {
        "MLproject": "file",
        "data.txt": "file",
        "link": "link",
        "other.txt": "file",
        "run.sh": "exec",
        "sub/deep/file.txt": "file",
    }
    assert tree.source.tree == manifest.of(tree.entries())
    assert tree.source.root == str(folder)
    assert (tree.source.commit, tree.source.dirty) == ("", False)


def test_the_place_and_the_times_of_a_tree_are_not_part_of_its_digest(folder, look, project):
    elsewhere = project(FILES, name="elsewhere")
    (elsewhere / "link").symlink_to("data.txt")
    os.utime(elsewhere / "data.txt", (1, 1))
    assert look(folder).source.tree == look(elsewhere).source.tree


def test_special_files_are_no_part_of_a_tree(folder, look):
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket"))
        tree = look(folder)
        assert not {"fifo", "socket"} & set(paths(tree))
        assert look(folder).source == tree.source


NAMES = [
    b"new\nline",
    b"not-utf8-\xff\xfe",
    b"\xe9tude-latin1",
    b"n" * 255,
    "ü".encode() * 127,
    b"-rf",
    b"--help",
    "nfc-é".encode(),
    "nfd-é".encode(),
    "nfc-\u00e9".encode(),
    "nfd-e\u0301".encode(),
    b"  spaces  ",
    "emoji-\U0001f984".encode(),
    b"trailing.",
    b"~",
    b"~root",
    b"$(id)",
    b"'\"",
    b"back\\slash",
    b"*?[x]",
    b"a:b",
    b"#hash",
    b"!bang",
    b"tab\there",
    b"\x01\x7f",
    b"Case",
    b"case",
    "\u202egnp.exe".encode(),
    b".hidden",
    b"...",
    b"CON",
    b"%s%n",
]


@pytest.fixture
def names(project):
    """A folder with a file of every odd name that the file system takes, and one folder each."""
    folder = project({"MLproject": FILES["MLproject"]}, name="odd")
    kept = []
    for name in dict.fromkeys(NAMES):
        try:
            (pathlib.Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))).write_bytes(name)
        except OSError:  # a file system of Unicode names alone
            continue
        kept.append(name)
        inside = os.path.join(os.fsencode(folder), b"in " + name[:200])
        os.mkdir(inside)
        pathlib.Path(os.fsdecode(os.path.join(inside, name))).write_bytes(name)
    assert len(os.listdir(folder)) > len(kept) > 20
    return folder


def spread(folder):
    found = {}
    for base, _folders, files in os.walk(os.fsencode(folder)):
        for name in files:
            path = os.path.join(base, name)
            if b"/.git/" not in path:
                found[os.path.relpath(path, os.fsencode(folder))] = pathlib.Path(
                    os.fsdecode(path)
                ).read_bytes()
    return found


@pytest.mark.parametrize("in_git", [False, True])
def test_odd_names_come_through_as_they_are(names, look, fresh, tmp_path, git, commit, in_git):
    if in_git:
        git(names, "init", "--quiet")
        commit(names)
    tree = look(names)
    assert {os.fsencode(path) for path in paths(tree)} == set(spread(names))
    assert look(names).source == tree.source == fresh(names)
    assert not tree.source.dirty
    target = tmp_path / "target"
    tree.materialize(tree.entries(), str(target))
    assert spread(target) == spread(names)


@pytest.mark.parametrize("name", ["new\nline", "ends\n", "\udcff\udcfe", "-x", "two  spaces", "é"])
def test_the_folder_itself_may_have_an_odd_name(name, repository, look, fresh, git, rest):
    folder = repository({"MLproject": "", "a.log": "x", ".gitignore": "ignored\n"}, name=name)
    (folder / "ignored").write_text("x")
    rest()
    tree = look(".", caller=folder)
    assert paths(tree) == [".gitignore", "MLproject", "a.log"]
    assert tree.source.commit == git(folder, "rev-parse", "HEAD")
    (folder / ".git" / "info" / "exclude").write_text("*.log\n")
    git(folder, "rm", "--quiet", "--cached", "a.log")
    assert paths(look(".", caller=folder)) == [".gitignore", "MLproject"]
    assert look(".", caller=folder).source == fresh(".", caller=folder)
    assert look(".", "main", caller=folder).source.commit == tree.source.commit


# -- the memo


def test_the_second_look_reads_lists_and_starts_nothing(folder, look, watch, rest):
    rest()
    first = look(folder)
    with watch:
        second = look(folder)
    assert second.source == first.source
    assert watch.below(folder) == []
    assert watch.started == []


def test_the_second_look_at_a_repository_reads_nothing_either(repository, look, watch, rest):
    work = repository({**FILES, ".gitignore": "*.log\n"})
    rest()
    first = look(work)
    with watch:
        second = look(work)
    assert second.source == first.source
    assert watch.below(work) == []
    assert watch.started == []


def test_only_what_changed_is_read_again(folder, look, watch, rest):
    rest()
    look(folder)
    (folder / "data.txt").write_text("new\n")
    rest()
    with watch:
        look(folder)
    assert "other.txt" not in " ".join(watch.below(folder))
    assert str(folder / "data.txt") in watch.below(folder)
    with watch:
        look(folder)
    assert watch.below(folder) == []


def test_a_file_touched_without_a_change_is_read_once_more(folder, look, watch, rest):
    rest()
    first = look(folder)
    (folder / "data.txt").touch()
    rest()
    with watch:
        assert look(folder).source == first.source
    assert watch.below(folder) == [str(folder / "data.txt")]
    assert watch.started == []
    with watch:
        look(folder)
    assert watch.below(folder) == []


def replaced_with_the_same_stamps(folder):
    before = os.stat(folder / "data.txt")
    (folder / "new").write_text("ONE\n")
    os.utime(folder / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "new").rename(folder / "data.txt")


def edited_with_the_time_put_back(folder):
    before = os.stat(folder / "data.txt")
    (folder / "data.txt").write_text("ONE\n")
    os.utime(folder / "data.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(folder):
    (folder / "data.txt").rename(folder / "x")
    (folder / "other.txt").rename(folder / "data.txt")
    (folder / "x").rename(folder / "other.txt")


def relinked(folder):
    (folder / "link").unlink()
    (folder / "link").symlink_to("other.txt")


def link_replaced_by_what_it_named(folder):
    (folder / "link").unlink()
    (folder / "link").write_text("one\n")


def file_replaced_by_a_folder(folder):
    (folder / "data.txt").unlink()
    (folder / "data.txt").mkdir()
    (folder / "data.txt" / "x").write_text("one\n")


def folder_replaced_by_a_link_to_it(folder):
    (folder / "sub").rename(folder / "moved")
    (folder / "sub").symlink_to("moved")


def write(path, text):
    return lambda folder: (folder / path).write_text(text)


CHANGES = {
    "edited": write("data.txt", "longer than before\n"),
    "emptied": write("data.txt", ""),
    "edited to the same size": write("data.txt", "ONE\n"),
    "edited with the time put back": edited_with_the_time_put_back,
    "replaced with the same stamps": replaced_with_the_same_stamps,
    "deep edit": write("sub/deep/file.txt", "DEEP\n"),
    "made executable": lambda f: (f / "data.txt").chmod(0o755),
    "new file": write("new.txt", "x"),
    "new empty file": write("new.txt", ""),
    "new file in an empty folder": write("empty/new.txt", "x"),
    "new file in a nested folder": write("sub/deep/new.txt", "x"),
    "new hidden file": write("sub/.new", "x"),
    "new link": lambda f: (f / "new").symlink_to("sub"),
    "deleted": lambda f: (f / "data.txt").unlink(),
    "deep deletion": lambda f: (f / "sub/deep/file.txt").unlink(),
    "renamed": lambda f: (f / "data.txt").rename(f / "renamed.txt"),
    "moved into another folder": lambda f: (f / "data.txt").rename(f / "sub" / "data.txt"),
    "folder renamed": lambda f: (f / "sub").rename(f / "bus"),
    "two files swapped": swapped,
    "link to another target": relinked,
    "link replaced by what it named": link_replaced_by_what_it_named,
    "file replaced by a folder": file_replaced_by_a_folder,
    "folder replaced by a link to it": folder_replaced_by_a_link_to_it,
}
NO_CHANGES = {
    "nothing": lambda _folder: None,
    "touched": lambda f: (f / "data.txt").touch(),
    "time set back": lambda f: os.utime(f / "data.txt", (1, 1)),
    "time in the far future": lambda f: os.utime(f / "data.txt", (2**33, 2**33)),
    "rewritten with the same": write("data.txt", "one\n"),
    "less readable": lambda f: (f / "data.txt").chmod(0o600),
    "executable by others alone": lambda f: (f / "data.txt").chmod(0o645),
    "new empty folder": lambda f: (f / "void").mkdir(),
    "compiled module": lambda f: (f / "__pycache__").mkdir() or write("__pycache__/x", "x")(f),
    "fifo": lambda f: os.mkfifo(f / "fifo"),
    "second name elsewhere": lambda f: os.link(f / "data.txt", f.parent / "second"),
}


IN_GIT = (
    *("edited to the same size", "edited with the time put back", "replaced with the same stamps"),
    *("made executable", "new file in an empty folder", "new file in a nested folder", "renamed"),
    *("deep deletion", "touched", "compiled module", "new empty folder", "fifo"),
)


@pytest.mark.parametrize(
    ("change", "in_git"),
    [*((name, False) for name in CHANGES | NO_CHANGES), *((name, True) for name in IN_GIT)],
)
def test_a_change_is_what_a_fresh_look_finds(
    folder, look, fresh, git, commit, rest, change, in_git
):
    if in_git:
        git(folder, "init", "--quiet")
        commit(folder)
    rest()
    before = look(folder).source
    (CHANGES | NO_CHANGES)[change](folder)
    after = look(folder).source
    assert (after.tree != before.tree) == (change in CHANGES)
    assert after == fresh(folder)
    assert look(folder).source == after
    assert after.dirty == (in_git and change in CHANGES)


def test_quick_edits_of_the_same_size_are_never_missed(project, look):
    folder = project({"a": "000"})
    place = folder / "a"
    stamps = os.stat(place)
    for number in range(200):
        place.write_text(f"{number:03d}")
        if number % 2:
            os.utime(place, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        (entry,) = look(folder).entries()
        assert (entry.content, entry.size) == (content(f"{number:03d}"), 3)


def test_quick_replacements_and_quick_new_files_are_never_missed(project, look):
    folder = project({"keep": "x"})
    for number in range(60):
        (folder / f"new-{number}").write_text("x")
        assert f"new-{number}" in paths(look(folder))
        (folder / f"new-{number}").rename(folder / f"old-{number}")
        assert f"old-{number}" in paths(look(folder))
        (folder / f"old-{number}").unlink()
        assert paths(look(folder)) == ["keep"]


def test_edits_while_the_tree_is_looked_at_are_never_missed(project, look):
    folder = project({f"{number:02d}": "0000" for number in range(40)})
    over = threading.Event()

    def edit():
        number = 0
        while not over.is_set():
            number += 1
            (folder / f"{number % 40:02d}").write_text(f"{number % 10000:04d}")

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        for _ in range(30):
            try:
                look(folder)
            except SourceUnusable as error:
                assert "changes while it is read" in error.message
    finally:
        over.set()
        thread.join()
    contents = {entry.path: entry.content for entry in look(folder).entries()}
    assert contents == {path.name: content(path.read_text()) for path in folder.iterdir()}


def content(text):
    from repro import digest

    return digest.of_bytes(text.encode())


@pytest.mark.parametrize("delay", [20, 60, 100, 140])
def test_ignore_rules_that_change_during_a_look_are_not_missed(
    repository, look, fresh, rest, delay
):
    """The files are listed first and read then: rules edited between the two must not be lost."""
    work = repository()
    (work / "a.log").write_text("x")
    with (work / "large").open("wb") as file:
        file.truncate(96 << 20)
    rest()
    excluding = work / ".git" / "info" / "exclude"

    def edit():
        time.sleep(delay / 1000)
        excluding.write_text("*.log\n")

    thread = threading.Thread(target=edit)
    thread.start()
    look(work)
    thread.join()
    assert "a.log" not in paths(look(work))


def test_a_memo_of_another_format_or_of_garbage_is_no_harm(folder, look, fresh, machine):
    look(folder)
    place = machine.memos.path("folder", str(folder))
    for garbage in (b"", b"garbage", b'{"format":99}', b"[]", b"null", b'"x"'):
        with open(place, "wb") as file:
            file.write(garbage)
        assert look(folder).source == fresh(folder)


def test_two_projects_do_not_share_a_memo(project, look, fresh):
    first, second = project({"a": "1"}, name="first"), project({"a": "2"}, name="second")
    look(first)
    assert look(second).source == fresh(second)
    assert look(first).source == fresh(first)


def test_a_project_replaced_by_another_folder_is_known_as_new(project, look, fresh, rest):
    first, second = project({"a": "1"}, name="first"), project({"a": "2"}, name="second")
    rest()
    look(first)
    first.rename(first.parent / "gone")
    second.rename(first)
    assert look(first).source == fresh(first)


def test_a_project_is_the_same_by_whatever_path_it_is_named(folder, look, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    named = [
        look(folder),
        look(tmp_path / "alias"),
        look(f"file://{folder}"),
        look(f"file://localhost{folder}"),
        look("alias", caller=tmp_path),
        look("./alias/.", caller=tmp_path),
        look(".", caller=folder),
        look("", caller=folder / "sub" / ".."),
    ]
    assert {tree.source.root for tree in named} == {str(folder)}
    assert len({tree.source.tree for tree in named}) == 1


@pytest.mark.parametrize("through", ["store", "alias/store"])
def test_a_store_inside_the_project_is_no_part_of_it(folder, environ, tmp_path, through):
    (tmp_path / "alias").symlink_to(folder)
    place = folder / "store" if through == "store" else tmp_path / through
    machine = Machine({**environ, "REPRO_HOME": str(place)})
    try:
        tree = Folder(str(folder), ".", machine.memos, avoid=machine.home.root).scan()
        assert not [path for path in paths(tree) if path.startswith("store")]
    finally:
        machine.close()


# -- links and files that cannot be inputs


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../outside", "sub/../../outside", "..", "sub/deep/../../../x"]
)
def test_a_link_that_leaves_the_project_is_refused_unless_it_is_no_input(folder, look, target):
    (folder / "leaving").symlink_to(target)
    tree = look(folder)
    with pytest.raises(SourceUnusable, match="`leaving` is a link that leaves the project"):
        tree.inputs(Selection(), "main")
    assert tree.inputs(Selection(inputs=("data.txt", "sub")), "main")


@pytest.mark.parametrize("target", ["data.txt", "sub/../data.txt", "sub", "nothing-there", "./sub"])
def test_a_link_inside_the_project_stays_a_link(folder, look, target, tmp_path):
    (folder / "inside").symlink_to(target)
    tree = look(folder)
    assert tree.inputs(Selection(), "main")
    tree.materialize(tree.entries(), str(tmp_path / "out"))
    assert os.readlink(tmp_path / "out" / "inside") == target


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["data.txt", "sub"])
def test_what_cannot_be_read_is_named(folder, look, name):
    (folder / name).chmod(0)
    try:
        with pytest.raises(SourceUnusable, match=name) as caught:
            look(folder)
    finally:
        (folder / name).chmod(0o755)
    assert "ignore it in Git" in caught.value.hints[0]


def test_a_missing_declared_input_is_named(folder, look):
    with pytest.raises(SourceUnusable, match="the input `nothing` of step `main` is not there"):
        look(folder).inputs(Selection(inputs=("data.txt", "nothing")), "main")


def test_a_file_that_changes_between_the_look_and_the_copy_is_not_used(folder, look, tmp_path):
    tree = look(folder)
    (folder / "data.txt").write_text("ONE\n")
    with pytest.raises(SourceUnusable, match=r"`data.txt` changed"):
        tree.materialize(tree.entries(), str(tmp_path / "out"))


@pytest.mark.parametrize("how", ["deleted", "a link", "a fifo"])
def test_a_file_that_is_another_thing_at_the_time_of_the_copy_is_not_used(
    folder, look, tmp_path, how
):
    tree = look(folder)
    (folder / "data.txt").unlink()
    if how == "a link":
        (folder / "data.txt").symlink_to("other.txt")
    elif how == "a fifo":
        os.mkfifo(folder / "data.txt")
    with pytest.raises(SourceUnusable, match=r"`data.txt` changed"):
        tree.materialize(tree.entries(), str(tmp_path / "out"))


# -- inputs that are named


@pytest.fixture
def with_data(repository):
    """A work tree whose data Git ignores, as it should."""
    work = repository({**FILES, ".gitignore": "/data/\n*.bin\n"})
    (work / "data" / "deep").mkdir(parents=True)
    (work / "data" / "deep" / "x.csv").write_text("1\n")
    (work / "data" / "y.csv").write_text("2\n")
    (work / "model.bin").write_text("m\n")
    return work


def chosen(*inputs):
    return Selection(inputs=inputs)


def selected(tree, *inputs):
    return [entry.path for entry in tree.selected(chosen(*inputs), "main")]


def test_an_ignored_file_is_an_input_when_it_is_named(with_data, look, tmp_path):
    tree = look(with_data)
    assert "data/y.csv" not in paths(tree)
    assert selected(tree, "data", "./model.bin", "data.txt") == [
        "data.txt",
        "data/deep/x.csv",
        "data/y.csv",
        "model.bin",
    ]
    assert selected(tree, "data/deep/") == ["data/deep/x.csv"]
    tree.materialize(tree.selected(chosen("data"), "main"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "data" / "deep" / "x.csv").read_text() == "1\n"
    for pattern in ("data/*", "*.bin", "data/**", "data/nothing", "data/../data"):
        with pytest.raises(SourceUnusable, match="is not there"):
            tree.inputs(chosen(pattern), "main")


@pytest.mark.parametrize(
    "change",
    [
        write("data/y.csv", "3\n"),
        write("data/deep/new.csv", ""),
        lambda f: (f / "data" / "y.csv").unlink(),
        lambda f: (f / "data" / "y.csv").rename(f / "data" / "z.csv"),
        lambda f: (f / "data" / "y.csv").chmod(0o755),
        lambda f: (f / "data" / "deep").rename(f / "data" / "other"),
        write("model.bin", "M\n"),
    ],
)
def test_a_change_of_a_named_input_is_noticed(with_data, look, rest, change):
    rest()
    named = chosen("data", "model.bin")
    before = look(with_data).inputs(named, "main")
    tree = look(with_data)
    assert tree.inputs(named, "main") == before
    change(with_data)
    after = look(with_data).inputs(named, "main")
    assert after != before
    assert after == manifest.of(look(with_data).selected(named, "main"))


def inputs_of(look, folder, *named):
    tree = look(folder)
    found = tree.inputs(chosen(*named), "main")
    tree.remember()
    return found


def test_named_inputs_are_known_again_without_reading(with_data, look, watch, rest):
    before = inputs_of(look, with_data, "data")
    rest()
    assert inputs_of(look, with_data, "data") == before
    with watch:
        assert inputs_of(look, with_data, "data") == before
    assert [p for p in watch.below(with_data) if os.path.isfile(p)] == []


def test_quick_edits_of_a_named_input_are_never_missed(with_data, look):
    place = with_data / "model.bin"
    stamps = os.stat(place)
    known = set()
    for number in range(100):
        place.write_text(f"{number:03d}")
        os.utime(place, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        known.add(inputs_of(look, with_data, "model.bin"))
    assert len(known) == 100


# -- subdirectories


def test_a_subdirectory_is_a_project_of_its_own(folder, look, project):
    alone = project({"deep/file.txt": "deep\n"}, name="alone")
    assert look(f"{folder}#sub").source.tree == look(alone).source.tree
    assert look(f"file://{folder}#sub").source.root == str(folder / "sub")
    assert look("#sub", caller=folder).source.root == str(folder / "sub")


def test_a_subdirectory_that_is_not_there_is_an_error(folder, look):
    with pytest.raises(UsageError, match="there is no folder `nothing` in"):
        look(f"{folder}#nothing")
    with pytest.raises(UsageError, match="there is no folder `data.txt` in"):
        look(f"{folder}#data.txt")


def test_a_link_as_a_subdirectory_must_not_lead_out(folder, look):
    (folder / "out").symlink_to("/etc")
    (folder / "in").symlink_to("sub")
    with pytest.raises(SourceRefused, match="leads out of the project"):
        look(f"{folder}#out")
    assert look(f"{folder}#in").source.root == str(folder / "sub")


def test_a_subdirectory_may_not_be_a_neighbour_of_the_same_beginning(folder, look, project):
    project({"a": "x"}, name="project-secret")
    (folder / "out").symlink_to("../project-secret")
    with pytest.raises(SourceRefused, match="leads out of the project"):
        look(f"{folder}#out")


@pytest.mark.parametrize("uri", ["data.txt", "file:///nowhere/at/all"])
def test_a_project_that_is_no_folder_is_an_error(folder, look, uri):
    with pytest.raises(UsageError, match="is not a folder"):
        look(uri, caller=folder)


# -- the decoded project


def loaded(look, machine, folder):
    tree = look(folder)
    project = tree.project(lambda t: machine.load(t, lambda _event: None))
    tree.remember()
    return project


ENVIRONMENT = "dependencies: [{}]\n"


@pytest.fixture
def with_environment(project):
    """A project whose environment file is not a file of its tree."""

    def make(how):
        folder = project(
            {
                "MLproject": "python_env: env.yaml\nentry_points: {main: {command: 'true'}}\n",
                "data.txt": "x",
            }
        )
        place = folder.parent / "shared.yaml"
        if how == "link":
            (folder / "env.yaml").symlink_to("../shared.yaml")
        elif how == "path":
            text = (folder / "MLproject").read_text().replace("env.yaml", "../shared.yaml")
            (folder / "MLproject").write_text(text)
        elif how == "included":
            (folder / "env.yaml").write_text("dependencies: ['-r ../shared.yaml']\n")
        elif how == "conda":
            (folder / "conda.yaml").write_text("dependencies: [{pip: ['-r ../shared.yaml']}]\n")
            text = (folder / "MLproject").read_text().replace("python_env: env", "conda_env: conda")
            (folder / "MLproject").write_text(text)
        return folder, place

    return make


def requirements(project):
    environment = project.environment
    return (getattr(environment, "python", None) or environment).requirements


@pytest.mark.parametrize("how", ["path", "link", "included", "conda"])
def test_an_environment_file_outside_of_the_tree_is_watched(
    with_environment, look, machine, how, rest
):
    folder, place = with_environment(how)
    text = "{}\n" if how in ("included", "conda") else ENVIRONMENT
    place.write_text(text.format("alpha"))
    rest()
    assert requirements(loaded(look, machine, folder)) == ("alpha",)
    place.write_text(text.format("bravo"))
    assert requirements(loaded(look, machine, folder)) == ("bravo",)
    place.write_text(text.format("delta"))
    assert requirements(loaded(look, machine, folder)) == ("delta",)


def test_an_environment_file_that_git_ignores_is_watched(repository, look, machine, rest):
    work = repository(
        {
            "MLproject": "python_env: env.yaml\nentry_points: {main: {command: 'true'}}\n",
            ".gitignore": "env.yaml\n",
        }
    )
    for name in ("alpha", "bravo", "delta"):
        (work / "env.yaml").write_text(ENVIRONMENT.format(name))
        rest()
        assert requirements(loaded(look, machine, work)) == (name,)


def test_a_known_project_is_not_decoded_again(folder, look, machine, rest):
    rest()
    loaded(look, machine, folder)
    tree = look(folder)
    assert tree.project(lambda _tree: pytest.fail("decoded again")).file == "MLproject"
    (folder / "MLproject").write_text("entry_points: {other: {command: 'true'}}\n")
    assert [entry.name for entry in loaded(look, machine, folder).entry_points] == ["other"]


# -- without Git


def test_without_git_every_file_belongs_to_the_tree(repository, monkeypatch, look, tmp_path):
    work = repository({**FILES, ".gitignore": "*.log\n", "x.log": "x"})
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    tree = look(work)
    assert {".gitignore", "data.txt"} < set(paths(tree))
    assert not [path for path in paths(tree) if path.startswith(".git/")]
    assert tree.source.commit == ""


def test_git_that_comes_later_is_asked(repository, monkeypatch, look, fresh, tmp_path, rest):
    work = repository({**FILES, ".gitignore": "*.log\n"})
    (work / "x.log").write_text("x")
    rest()
    (tmp_path / "bin").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        assert "x.log" in paths(look(work))
    assert "x.log" not in paths(look(work))
    assert look(work).source == fresh(work)


def test_a_repository_that_is_made_later_is_asked(folder, look, fresh, git, commit, rest):
    project = folder / "sub"
    rest()
    assert look(project).source.commit == ""
    git(folder, "init", "--quiet")
    (folder / ".gitignore").write_text("*.txt\n")
    commit(folder)
    assert paths(look(project)) == []
    assert look(project).source == fresh(project)


def test_a_name_with_a_far_date_is_no_harm(folder, look, fresh):
    subprocess.run(["touch", "-d", "2300-01-01", folder / "data.txt"], check=True)
    before = look(folder).source
    assert before == fresh(folder)
    (folder / "data.txt").write_text("ONE\n")
    assert look(folder).source == fresh(folder) != before


def test_many_files_are_looked_at_quickly(project, look):
    folder = project({f"{n % 40}/{n}": "x" for n in range(2000)})
    look(folder)
    look(folder)
    started = time.process_time()
    look(folder)
    # 2,000 states at a few microseconds each; a tree that is read again takes far longer
    assert time.process_time() - started < 0.5


def test_the_module_is_light():
    """It is loaded on the path of a cache hit."""
    code = "import sys, repro.fetch.folder; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    heavy = {"re", "subprocess", "json", "git", "requests", "dataclasses", "typing", "pathlib"}
    assert not heavy & set(done.stdout.split())

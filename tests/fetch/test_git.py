"""Projects from Git: loopback remotes over http, git and ssh, versions of local repositories,
credentials, submodules, and repositories that mean harm."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from repro import digest, manifest
from repro.errors import SourceRefused, SourceUnusable, Unreachable, UsageError
from repro.machine import Machine
from repro.plan import Request

PROJECT = "entry_points: {main: {command: cat data.txt}}\n"
FILES = {"MLproject": PROJECT, "data.txt": "one\n", "sub/MLproject": PROJECT, "sub/x": "x\n"}
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def work(repository):
    """A work tree whose commits the tests publish."""
    return repository(FILES)


@pytest.fixture(params=["web", "daemon"])
def remote(request, work, publish):
    """A remote with one commit, over smart HTTP and over the git protocol."""
    publish(work)
    return f"{request.getfixturevalue(request.param).url}/p.git"


def names(tree):
    return sorted(entry.path for entry in tree.entries())


def text(tree, path="data.txt"):
    return tree.read(path).decode()


# -- versions


def test_the_default_branch(remote, work, look, git):
    tree = look(remote)
    assert names(tree) == sorted(FILES)
    assert text(tree) == "one\n"
    source = tree.source
    assert source.commit == git(work, "rev-parse", "HEAD")
    assert (source.kind, source.uri, source.repo_url, source.project) == ("git", *[remote] * 3)
    assert (source.root, source.dirty, source.version) == ("", False, "")


def test_a_tree_has_one_digest_wherever_it_comes_from(remote, work, look, git, tmp_path, publish):
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("sub/x")
    (work / "new\nline \udcff é").write_text("x")
    digests = {look(work).source.tree}
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "more")
    bare = publish(work)
    digests.add(look(work, "main").source.tree)
    digests.add(look(f"file://{bare}", "main").source.tree)
    digests.add(look(remote).source.tree)
    assert len(digests) == 1
    modes = {entry.path: entry.kind for entry in look(remote).entries()}
    assert (modes["run.sh"], modes["link"], modes["data.txt"]) == ("exec", "link", "file")
    look(remote).materialize(look(remote).entries(), str(tmp_path / "out"))
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "out" / "data.txt", os.X_OK)
    assert os.readlink(tmp_path / "out" / "link") == "sub/x"


@pytest.fixture(scope="session")
def three(tmp_path_factory, git_once, blank):
    """A work tree of three commits with branches and tags, and their ids."""
    git, work = git_once, tmp_path_factory.mktemp("three")
    for path, content in FILES.items():
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).write_text(content)
    shutil.copytree(blank, work / ".git")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "one")
    ids = [git(work, "rev-parse", "HEAD")]
    git(work, "tag", "light")
    for number in ("two", "three"):
        (work / "data.txt").write_text(f"{number}\n")
        git(work, "commit", "--quiet", "--all", "--message", number)
        ids.append(git(work, "rev-parse", "HEAD"))
    git(work, "tag", "--annotate", "--message", "annotated", "v2", ids[1])
    git(work, "tag", "--annotate", "--message", "of a tag", "v2-again", "v2")
    git(work, "branch", "feature/x-1", ids[0])
    git(work, "branch", "both", ids[0])
    git(work, "tag", "both", ids[1])
    git(work, "update-ref", "refs/pull/1/head", ids[1])
    return work, ids


@pytest.fixture
def versions(three, work, publish):
    """Three commits in the work tree and published; give their ids."""
    made, ids = three
    shutil.rmtree(work)
    shutil.copytree(made, work)
    publish(work)
    return ids


@pytest.mark.parametrize(
    ("version", "index", "branch"),
    [
        ("", 2, ""),
        ("main", 2, "main"),
        ("feature/x-1", 0, "feature/x-1"),
        ("light", 0, ""),
        ("v2", 1, ""),
        ("v2-again", 1, ""),
        ("both", 0, "both"),
        ("{0}", 0, ""),
        ("{1}", 1, ""),
        ("{0:.7}", 0, ""),
        ("{1:.4}", 1, ""),
        ("{1:.39}", 1, ""),
    ],
)
@pytest.mark.parametrize("kind", ["http", "local"])
def test_versions(work, web, look, versions, version, index, branch, kind):
    version = version.format(*versions)
    if kind == "local":
        version = version or "HEAD"  # without a version, a local project is its work tree
    tree = look(f"{web.url}/p.git" if kind == "http" else work, version)
    assert text(tree) == ("one\n", "two\n", "three\n")[index]
    assert (tree.source.commit, tree.source.branch) == (versions[index], branch)
    assert tree.source.version == version


@pytest.fixture
def history(work, commit, publish):
    """Publish three commits, of which only the last has a name; give their ids."""
    ids = []
    for number in ("one", "two", "three"):
        (work / "data.txt").write_text(f"{number}\n")
        ids.append(commit(work))
    publish(work)
    return ids


def test_an_abbreviated_commit_that_is_older_than_what_is_here(web, look, history):
    """A first fetch takes one commit alone; the ones before it have to come later."""
    assert text(look(f"{web.url}/p.git")) == "three\n"
    assert text(look(f"{web.url}/p.git", history[0][:8])) == "one\n"
    assert text(look(f"{web.url}/p.git", history[1][:8])) == "two\n"
    assert text(look(f"{web.url}/p.git", "main")) == "three\n"


def test_a_commit_in_capitals(web, look, versions):
    tree = look(f"{web.url}/p.git", versions[0].upper())
    assert (text(tree), tree.source.commit) == ("one\n", versions[0])


def test_a_commit_of_a_server_that_gives_only_branches(web, look, history):
    """Before protocol 2 servers do not hand out a commit by its id."""
    web.protocol = 0
    assert text(look(f"{web.url}/p.git")) == "three\n"
    assert text(look(f"{web.url}/p.git", history[0])) == "one\n"
    assert text(look(f"{web.url}/p.git", history[1])) == "two\n"


def test_a_server_of_files_alone(web, look, history, served, git):
    bare = served / "p.git"
    git(bare, "update-server-info")
    for path in bare.rglob("*"):
        if path.is_file():
            web.files[f"/plain.git/{path.relative_to(bare)}"] = path.read_bytes()
    assert text(look(f"{web.url}/plain.git")) == "three\n"
    assert text(look(f"{web.url}/plain.git", history[0][:9])) == "one\n"
    assert text(look(f"{web.url}/plain.git", history[1])) == "two\n"


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("mian", "a similar version exists: `main`"),
        ("feature/x-2", "a similar version exists: `feature/x-1`"),
        ("v3", "versions: both, feature/x-1, light, main, v2, v2-again"),
        ("zzzzzzzzzz", "versions: both, feature/x-1, light, main, v2, v2-again"),
        ("0000000", ""),
        ("0" * 40, ""),
        ("refs/heads/nothing", ""),
    ],
)
@pytest.mark.parametrize("kind", ["http", "local"])
def test_an_unknown_version_is_an_error_that_helps(work, web, look, versions, version, hint, kind):
    with pytest.raises(UsageError, match=f"has no version `{version}`") as caught:
        look(f"{web.url}/p.git" if kind == "http" else work, version)
    assert hint in caught.value.hints[0]
    assert caught.value.exit == 2


@pytest.mark.parametrize(
    "version",
    ["--upload-pack=touch canary", "-f", "+main:refs/heads/evil", "HEAD~1", "HEAD@{1}", "a..b"],
)
@pytest.mark.parametrize("kind", ["http", "local"])
def test_a_version_that_is_more_than_a_name_never_reaches_git(
    work, web, look, versions, watch, state, version, kind
):
    before = state(work)
    with watch, pytest.raises(SourceRefused, match="neither a branch or tag nor a commit"):
        look(f"{web.url}/p.git" if kind == "http" else work, version)
    assert not [words for words in watch.started if version in words]
    assert state(work) == before
    assert web.asked == []


def test_a_branch_that_moved_is_noticed(remote, work, look, commit, publish, git):
    first = look(remote, "main").source
    (work / "data.txt").write_text("two\n")
    moved = commit(work)
    publish(work)
    assert (look(remote, "main").source.commit, text(look(remote, "main"))) == (moved, "two\n")
    assert look(remote).source.commit == moved
    git(work, "reset", "--quiet", "--hard", first.commit)
    publish(work)
    assert look(remote, "main").source == first


def test_a_known_commit_needs_no_network(work, publish, look, told, watch, request, git):
    web = request.getfixturevalue("web")
    publish(work)
    commit = git(work, "rev-parse", "HEAD")
    first = look(f"{web.url}/p.git", commit)
    asked = len(web.asked)
    assert asked
    del told[:]
    with watch:
        again = look(f"{web.url}/p.git", commit)
    assert again.source == first.source
    assert text(again) == "one\n"
    assert (len(web.asked), told, watch.started) == (asked, [], [])


def test_a_known_commit_needs_no_server_in_another_process(
    work, publish, environ, git, served, commit
):
    bare = publish(work)
    head = git(work, "rev-parse", "HEAD")
    for _ in range(2):
        machine = Machine(environ)
        tree = machine.tree(Request(uri=f"file://{bare}", version=head), lambda _text: None)
        assert tree.read("data.txt") == b"one\n"
        machine.close()


def test_what_the_store_lost_is_fetched_again(work, web, publish, look, machine, git, tmp_path):
    """The store is a cache: pruned at any time, and sometimes damaged."""
    publish(work)
    head = git(work, "rev-parse", "HEAD")
    url = f"{web.url}/p.git"
    for uri, version in ((url, head), (url, "main"), (url, ""), (work, "main")):
        lost = machine.blobs.path(digest.of_bytes(b"one\n"))
        tree = look(uri, version)
        os.unlink(lost)
        assert text(look(uri, version)) == "one\n"
        os.unlink(lost)
        folder = tmp_path / f"missing-{version}-{uri == work}"
        tree.materialize(tree.entries(), str(folder))
        assert (folder / "data.txt").read_text() == "one\n"
        os.chmod(lost, 0o644)
        pathlib.Path(lost).write_text("two\n")
        folder = tmp_path / f"corrupt-{version}-{uri == work}"
        look(uri, version).materialize(tree.entries(), str(folder))
        assert (folder / "data.txt").read_text() == "one\n"
    os.unlink(machine.blobs.path(tree.whole))
    assert names(look(url, head)) == sorted(FILES)


def test_an_empty_repository(remote, served, look, git):
    git(served, "init", "--quiet", "--bare", "empty.git")
    url = remote.replace("p.git", "empty.git")
    with pytest.raises(UsageError, match="has no commit yet"):
        look(url)
    with pytest.raises(UsageError, match="has no version `main`"):
        look(url, "main")


def test_a_default_branch_that_is_not_there(remote, served, look, git):
    git(served / "p.git", "symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(UsageError, match="has no commit yet") as caught:
        look(remote)
    assert "--version" in caught.value.hints[0]
    assert text(look(remote, "main")) == "one\n"


def test_a_repository_that_is_not_there(remote, look):
    with pytest.raises(Unreachable, match="cannot fetch from") as caught:
        look(remote.replace("p.git", "nothing.git"))
    assert caught.value.exit == 7


# -- subdirectories


@pytest.fixture
def over_http(web, work, publish):
    publish(work)
    return f"{web.url}/p.git"


def test_a_subdirectory_is_a_project_of_its_own(over_http, work, look):
    tree = look(f"{over_http}#sub")
    assert names(tree) == ["MLproject", "x"]
    assert tree.source.tree == look(work / "sub").source.tree
    assert tree.source.uri == f"{over_http}#sub"
    assert tree.source.name == "sub"
    assert look(f"{over_http}#sub/").source.tree == tree.source.tree


@pytest.mark.parametrize("subdirectory", ["nothing", "data.txt", "su", "sub/x", "sub/nothing"])
def test_a_subdirectory_that_is_not_there(over_http, look, subdirectory):
    for _ in range(2):
        with pytest.raises(
            UsageError, match=f"there is no folder `{subdirectory}` in `{over_http}`"
        ):
            look(f"{over_http}#{subdirectory}")


def test_files_outside_of_the_subdirectory_are_no_part_of_it(over_http, look, tmp_path):
    tree = look(f"{over_http}#sub")
    assert tree.read("../data.txt") == b"one\n"  # for environment files
    assert tree.read("../../etc/hostname") is None
    assert tree.read("/etc/hostname") is None
    assert tree.read("/data.txt") is None
    tree.materialize(tree.entries(), str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["MLproject", "x"]


# -- local repositories


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "file://localhost{0}", "."])
def test_a_version_of_a_local_repository(work, look, versions, form, git, state):
    git(work, "checkout", "--quiet", "-b", "elsewhere")
    (work / "data.txt").write_text("dirty\n")
    before = state(work)
    tree = look(form.format(work), "v2", caller=work)
    assert text(tree) == "two\n"
    assert (tree.source.root, tree.source.kind, tree.source.dirty) == ("", "git", False)
    assert state(work) == before


def test_a_version_of_a_folder_of_a_local_repository(work, look, commit, git):
    old = git(work, "rev-parse", "HEAD")
    shutil.rmtree(work / "sub")
    commit(work)
    # the folder is not in the work tree any more, but it is in the version
    assert names(look(f"{work}#sub", old)) == ["MLproject", "x"]
    (work / "sub").mkdir()
    assert names(look(work / "sub", old)) == ["MLproject", "x"]
    with pytest.raises(UsageError, match="there is no folder `sub` in"):
        look(f"{work}#sub", "main")


def test_a_version_of_a_bare_repository(work, look, versions, served):
    assert text(look(f"file://{served}/p.git", "v2")) == "two\n"
    assert names(look(f"{served}/p.git#sub", "v2")) == ["MLproject", "x"]


def test_a_version_of_a_linked_work_tree(work, look, git, tmp_path):
    git(work, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    assert text(look(tmp_path / "side", "main")) == "one\n"
    assert look(tmp_path / "side", "side").source.branch == "side"


def test_a_version_of_what_is_no_repository(project, look):
    folder = project(FILES)
    with pytest.raises(UsageError, match="only supported for Git projects"):
        look(folder, "main")
    with pytest.raises(UsageError, match="is not a folder"):
        look(folder / "data.txt", "main")


def test_replaced_objects_are_not_followed(work, web, publish, look, commit, git):
    """A commit id names one tree, whatever the refs of a repository say of it."""
    honest = git(work, "rev-parse", "HEAD")
    (work / "data.txt").write_text("evil\n")
    evil = commit(work)
    git(work, "replace", honest, evil)
    bare = publish(work)
    assert git(bare, "show", f"{honest}:data.txt") == "evil"
    url = f"{web.url}/p.git"
    with pytest.raises(UsageError):
        look(url, "f" * 40)  # which fetches everything in search of it
    assert text(look(url, honest)) == "one\n"
    assert text(look(url, honest[:8])) == "one\n"
    assert text(look(work, honest)) == "one\n"


def test_a_corrupt_local_repository_does_not_poison_a_commit(
    work, web, publish, look, git, machine
):
    """Git checks what it fetches, but not whether a local object is what its name says."""
    publish(work)
    honest = git(work, "rev-parse", "HEAD")
    (work / "evil").write_text("evil\n")
    evil = git(work, "hash-object", "-w", "evil")
    blob = git(work, "rev-parse", "HEAD:data.txt")
    objects = work / ".git" / "objects"
    (objects / blob[:2] / blob[2:]).unlink()
    shutil.copy(objects / evil[:2] / evil[2:], objects / blob[:2] / blob[2:])
    try:
        look(work, honest)
    except SourceUnusable:
        pass
    assert text(look(f"{web.url}/p.git", honest)) == "one\n"


# -- mirrors


def test_one_mirror_per_remote(work, publish, web, look, machine, versions):
    url = f"{web.url}/p.git"
    for uri in (url, f"{url}#sub", url.replace("http://", "http://me:secret@")):
        for version in ("", "main", "v2", versions[0]):
            look(uri, version)
    publish(work, "q.git")
    look(f"{web.url}/q.git")
    mirrors = os.listdir(machine.home.path("git"))
    assert len(mirrors) == 2


def test_only_what_is_needed_is_fetched(web, look, versions, machine, git):
    look(f"{web.url}/p.git", "v2")
    (mirror,) = os.listdir(machine.home.path("git"))
    folder = machine.home.path("git", mirror)
    assert git(folder, "cat-file", "-t", versions[1]) == "commit"
    for other in (versions[0], versions[2]):
        assert git(folder, "cat-file", "-e", other, fails=True) == ""
        done = subprocess.run(["git", "-C", folder, "cat-file", "-e", other], check=False)
        assert done.returncode != 0


def test_many_at_once(environ, web, work, publish, versions):
    url = f"{web.url}/p.git"
    failures, texts = [], []

    def one(version):
        machine = Machine(environ)
        try:
            tree = machine.tree(Request(uri=url, version=version), lambda _text: None)
            texts.append(tree.read("data.txt"))
        except Exception as error:  # noqa: BLE001
            failures.append(error)
        finally:
            machine.close()

    threads = [
        threading.Thread(target=one, args=(version,))
        for version in ("", "main", "v2", "light", versions[0][:8], versions[1], "main", "v2")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(texts) == sorted([b"three\n"] * 3 + [b"two\n"] * 3 + [b"one\n"] * 2)


def test_the_locks_of_a_fetch_that_was_killed_are_no_harm(web, look, versions, machine):
    look(f"{web.url}/p.git", "v2")
    (mirror,) = os.listdir(machine.home.path("git"))
    folder = pathlib.Path(machine.home.path("git", mirror))
    (folder / "refs" / "heads").mkdir(parents=True, exist_ok=True)
    for name in ("shallow.lock", "packed-refs.lock", "refs/heads/main.lock"):
        (folder / name).write_text("")
    assert text(look(f"{web.url}/p.git", "main")) == "three\n"
    assert text(look(f"{web.url}/p.git", versions[0][:8])) == "one\n"


def test_a_mirror_that_is_garbage_is_made_again(work, publish, web, look, machine):
    publish(work)
    look(f"{web.url}/p.git")
    (mirror,) = os.listdir(machine.home.path("git"))
    assert os.listdir(machine.home.path("git", mirror))
    shutil.rmtree(machine.home.path("git", mirror))
    assert text(look(f"{web.url}/p.git")) == "one\n"


# -- servers that do not serve


@pytest.mark.parametrize("scheme", ["http", "git"])
@pytest.mark.parametrize("version", ["", "main", "abcdef0", "a" * 40])
def test_a_closed_port(look, scheme, version):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(
        Unreachable, match=f"cannot fetch from `{scheme}://127.0.0.1:{port}/p`"
    ) as c:
        look(f"{scheme}://127.0.0.1:{port}/p", version)
    assert c.value.exit == 7
    assert c.value.hints
    assert time.monotonic() - started < 5


def test_a_server_that_never_answers_is_given_up(look, monkeypatch):
    monkeypatch.setenv("GIT_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Unreachable, match="cannot fetch from"),
    ):
        look(f"http://127.0.0.1:{silent.getsockname()[1]}/p")


@pytest.mark.parametrize("answer", [(500, b"oops"), (403, b"no"), (302, b"")])
def test_a_server_that_answers_with_an_error(web, look, answer):
    web.files["/p.git/info/refs"] = answer
    with pytest.raises(Unreachable, match=f"cannot fetch from `{web.url}/p.git`"):
        look(f"{web.url}/p.git")


@pytest.mark.parametrize("answer", [b"", b"garbage", b"\0" * 1000, b"<html>", b"001e# service="])
def test_a_server_that_answers_nonsense(web, look, answer):
    web.files["/p.git/info/refs"] = answer
    with pytest.raises((Unreachable, UsageError)):
        look(f"{web.url}/p.git")


def test_without_git_the_error_says_so(tmp_path, environ, web):
    code = """
import os, sys
from repro.machine import Machine
from repro.plan import Request
from repro.errors import Unreachable
machine = Machine(os.environ)
try:
    machine.tree(Request(uri=sys.argv[1]), lambda _text: None)
except Unreachable as error:
    print(error.message, *error.hints)
"""
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, f"{web.url}/p.git"],
        env={**environ, "PATH": str(tmp_path / "bin"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == (
        "there is no `git` on PATH install Git to run projects from a remote\n"
    ), done.stderr


# -- credentials

PASSWORD = "s3cret-t0ken"


@pytest.fixture
def guarded(web, work, publish):
    """A remote that asks who you are."""
    publish(work)
    web.password = f"me:{PASSWORD}"
    return web


def contents(folder):
    for base, _folders, files in os.walk(folder):
        for name in files:
            yield os.path.join(base, name), pathlib.Path(base, name).read_bytes()


def test_a_remote_that_asks_who_you_are_is_unreachable_and_nobody_is_asked(
    guarded, look, canary, monkeypatch
):
    monkeypatch.setenv("SSH_ASKPASS", str(canary.program))
    monkeypatch.setenv("DISPLAY", ":0")
    started = time.monotonic()
    with pytest.raises(Unreachable, match="cannot fetch from") as caught:
        look(f"{guarded.url}/p.git")
    assert "credential helper" in caught.value.hints[0]
    assert time.monotonic() - started < 5
    assert not canary.sang


AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "repro", *sys.argv[1:]])
"""


def test_nobody_is_asked_at_a_terminal(guarded, environ):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, "run", f"{guarded.url}/p.git"],
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], 20)[0] and (piece := os.read(ours, 4096)):
            shown += piece
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)  # whoever waits for an answer gets a hang-up
    assert process.wait(20) == 7, shown
    assert b"set up a credential helper" in shown
    assert b"Username for" not in shown.replace(b"could not read Username for", b"")


@pytest.mark.parametrize("user", ["me:wrong-s3cret", "wr0ng-s3cret", "me:wr%40ng-s3cret"])
def test_a_wrong_password_is_not_repeated(guarded, look, user):
    with pytest.raises(Unreachable, match="cannot fetch from") as caught:
        look(f"http://{user}@{guarded.authority}/p.git")
    shown = " ".join([caught.value.message, *caught.value.hints])
    assert "s3cret" not in shown
    assert guarded.url in shown
    assert "credential helper" in caught.value.hints[0]


def test_credentials_in_the_url_reach_the_server_and_nothing_else(
    guarded, look, told, machine, git, work, environ
):
    uri = f"http://me:{PASSWORD}@{guarded.authority}/p.git"
    tree = look(f"{uri}#sub")
    assert names(tree) == ["MLproject", "x"]
    assert look(uri, git(work, "rev-parse", "HEAD")[:9]).source.repo_url == f"{guarded.url}/p.git"
    for fact in (tree.source.uri, tree.source.project, tree.source.repo_url):
        assert fact.startswith(guarded.url)
    assert PASSWORD not in "".join(told)
    for folder in (environ["REPRO_HOME"], environ["HOME"]):
        for path, data in contents(folder):
            assert PASSWORD.encode() not in data, path
            assert PASSWORD not in path


def test_a_credential_helper_of_the_user_is_asked(guarded, look, git, machine):
    helper = f'!f() {{ test "$1" = get && echo username=me && echo password={PASSWORD}; }}; f'
    git("/", "config", "--global", "credential.helper", helper)
    assert text(look(f"{guarded.url}/p.git")) == "one\n"
    for path, data in contents(machine.home.root):
        assert PASSWORD.encode() not in data, path


def test_a_program_for_passwords_of_the_caller_is_asked(guarded, look, tmp_path, monkeypatch):
    program = tmp_path / "askpass"
    program.write_text(f"#!/bin/sh\ncase $1 in *sername*) echo me;; *) echo {PASSWORD};; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    assert text(look(f"{guarded.url}/p.git")) == "one\n"


def test_ssh_is_used_as_the_user_set_it_up(work, publish, look, tmp_path, monkeypatch, served):
    """A stand-in for ssh that runs the command here and notes how it was called."""
    publish(work)
    program = tmp_path / "fake-ssh"
    program.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\nwhile [ $# -gt 1 ]; do shift; done\n'
        f"cd '{served}' && eval \"$1\"\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(program))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    assert text(look("git@host.example:p.git")) == "one\n"
    assert text(look(f"ssh://git@host.example{served}/p.git")) == "one\n"
    log = (tmp_path / "fake-ssh.log").read_text()
    assert "git@host.example git-upload-pack 'p.git'" in log
    assert f"git@host.example git-upload-pack '{served}/p.git'" in log


def test_ssh_is_used_as_the_user_configured_it(look, git, canary, monkeypatch):
    git("/", "config", "--global", "core.sshCommand", str(canary.program))
    with pytest.raises(Unreachable):
        look("git@host.example:p")
    assert canary.sang
    canary.file.unlink()
    git("/", "config", "--global", "--unset", "core.sshCommand")
    monkeypatch.setenv("GIT_SSH", str(canary.program))
    with pytest.raises(Unreachable):
        look("git@host.example:p")
    assert canary.sang


def test_addresses_are_rewritten_as_the_user_configured_it(work, publish, daemon, look, git):
    publish(work)
    git("/", "config", "--global", f"url.{daemon.url}/.insteadOf", "https://host.example/")
    tree = look("https://host.example/p.git")
    assert text(tree) == "one\n"
    assert tree.source.uri == "https://host.example/p.git"


def test_ssh_never_asks_for_a_password(tmp_path, look, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nexit 255\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(Unreachable, match="cannot fetch from `git@host.example:p`"):
        look("git@host.example:p")
    assert "BatchMode=yes" in (tmp_path / "bin" / "ssh.log").read_text()


# -- the variables and the place of the caller


@pytest.fixture
def inside_a_hook(repository, monkeypatch, tmp_path):
    """The variables that Git sets for its hooks, and some that are worse."""
    other = repository({"x": "y"}, name="other")
    (tmp_path / "quarantine").mkdir()
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": tmp_path / "quarantine",
        "GIT_QUARANTINE_PATH": tmp_path / "quarantine",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": other / ".git" / "objects",
        "GIT_NAMESPACE": "x",
        "GIT_SHALLOW_FILE": tmp_path / "shallow",
        "GIT_CONFIG_PARAMETERS": "'url.ext::false.insteadOf=http://'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url./nowhere.insteadOf",
        "GIT_CONFIG_VALUE_0": "http://",
        "GIT_ALLOW_PROTOCOL": "ext",
        "GIT_TEMPLATE_DIR": other,
    }.items():
        monkeypatch.setenv(name, str(value))
    return other


def test_variables_of_git_have_no_effect(
    work, publish, web, look, state, tmp_path, request, served, versions
):
    other = request.getfixturevalue("inside_a_hook")
    before = state(other)
    assert text(look(f"{web.url}/p.git", "v2")) == "two\n"
    assert text(look(f"{web.url}/p.git", versions[0][:7])) == "one\n"
    assert text(look(work, "v2")) == "two\n"
    assert state(other) == before
    assert os.listdir(tmp_path / "quarantine") == []


def test_a_store_inside_a_repository_does_not_obey_its_configuration(
    environ, work, publish, web, repository, git, canary
):
    publish(work)
    hostile = repository({"x": "y"}, name="hostile")
    git(hostile, "config", "url.ext::sh.insteadOf", "http://")
    git(hostile, "config", "url./nowhere.insteadOf", "http://")
    git(hostile, "config", "credential.helper", f"!{canary.program}")
    git(hostile, "config", "core.askPass", str(canary.program))
    web.password = "me:x"
    machine = Machine({**environ, "REPRO_HOME": str(hostile / "store")})
    try:
        with pytest.raises(Unreachable):
            machine.tree(Request(uri=f"{web.url}/p.git"), lambda _text: None)
        assert not canary.sang
        web.password = ""
        tree = machine.tree(Request(uri=f"{web.url}/p.git"), lambda _text: None)
        assert text(tree) == "one\n"
    finally:
        machine.close()


@pytest.mark.parametrize("uri", ["ext::sh -c 'touch {}'", "fd::17", "ext::{}"])
def test_transports_that_run_something_are_refused_whatever_the_caller_allows(
    look, canary, monkeypatch, uri
):
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ext:fd")
    with pytest.raises(SourceRefused):
        look(uri.format(canary.file))
    assert not canary.sang


# -- submodules


@pytest.fixture
def modules(repository, publish, git):
    """Publish p.git with the submodule lib.git, which has inner.git, by the given URLs."""

    def make(lib_url="../lib.git", inner_url="../inner.git"):
        folders = {}
        for name, files in {
            "inner": {"deep.txt": "deep\n"},
            "lib": {"lib.txt": "lib\n"},
            "p": FILES,
        }.items():
            folders[name] = repository(files, name=f"work-{name}")
        for outer, inner, path, url in (
            ("lib", "inner", "inner", inner_url),
            ("p", "lib", "libs/lib", lib_url),
        ):
            (folders[outer] / ".gitmodules").write_text(
                f'[submodule "x.path"]\n\tpath = {path}\n\turl = "{url}"\n'
            )
            head = git(folders[inner], "rev-parse", "HEAD")
            git(folders[outer], "update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
            git(folders[outer], "add", ".gitmodules")
            git(folders[outer], "commit", "--quiet", "--message", "submodule")
        for name, folder in folders.items():
            publish(folder, f"{name}.git")
        return folders

    return make


NESTED = sorted(
    [*FILES, ".gitmodules", "libs/lib/.gitmodules", "libs/lib/inner/deep.txt", "libs/lib/lib.txt"]
)


@pytest.mark.parametrize("server", ["web", "daemon"])
def test_submodules_with_relative_urls(request, modules, look, server, told):
    url = request.getfixturevalue(server).url
    modules()
    tree = look(f"{url}/p.git")
    assert names(tree) == NESTED
    assert text(tree, "libs/lib/inner/deep.txt") == "deep\n"
    assert f"fetching submodule libs/lib from {url}/lib.git" in told
    assert names(look(f"{url}/p.git#libs/lib")) == [".gitmodules", "inner/deep.txt", "lib.txt"]


def test_submodules_with_absolute_urls_and_credentials(modules, web, look, machine):
    modules(
        lib_url=f"{web.url}/lib.git", inner_url=f"http://me:{PASSWORD}@{web.authority}/inner.git"
    )
    assert names(look(f"{web.url}/p.git")) == NESTED
    assert PASSWORD not in " ".join(os.listdir(machine.home.path("git")))


def test_submodules_inherit_the_credentials_of_a_relative_url(modules, web, look):
    modules()
    web.password = f"me:{PASSWORD}"
    assert names(look(f"http://me:{PASSWORD}@{web.authority}/p.git")) == NESTED


def test_submodules_over_ssh(modules, look, tmp_path, monkeypatch, served):
    """Their URLs are most often scp-like."""
    modules(lib_url="git@host.example:lib.git", inner_url="../inner.git")
    program = tmp_path / "fake-ssh"
    program.write_text(
        f"#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\ncd '{served}' && eval \"$1\"\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(program))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    assert names(look("git@host.example:p.git")) == NESTED


def test_submodules_of_a_local_repository(modules, look, served):
    folders = modules(lib_url=f"{served}/lib.git", inner_url=f"file://{served}/inner.git")
    assert names(look(folders["p"], "main")) == NESTED


def test_submodules_next_to_a_local_repository(modules, look, served):
    modules()
    assert names(look(f"{served}/p.git", "main")) == NESTED


@pytest.mark.parametrize(
    "url",
    ["{0}/lib.git", "file://{0}/lib.git", "{0}/lib.zip", "./../../{0}", "file:lib.git", "lib.git"],
)
def test_a_submodule_of_a_remote_may_not_name_a_local_path(modules, web, look, served, url):
    modules(lib_url=url.format(served))
    shutil.copytree(served / "lib.git", served / "lib.zip")
    with pytest.raises((SourceRefused, Unreachable)) as caught:
        look(f"{web.url}/p.git")
    if url.startswith(("{0}", "file://")):
        named = "an archive" if url.endswith(".zip") else "a local path"
        assert f"`libs/lib` names {named}" in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch {0}'",
        "--upload-pack=touch {0}",
        "-u{0}",
        "ssh://-oProxyCommand=touch {0}/x",
        "git@-oProxyCommand=touch {0}:x",
        "http://evil.example/x",
        "../../../../../../-x",
        "host:-x",
    ],
)
def test_a_submodule_url_obeys_the_grammar_of_sources(modules, web, look, canary, url):
    modules(lib_url=url.format(canary.file))
    with pytest.raises((SourceRefused, Unreachable)):
        look(f"{web.url}/p.git")
    assert not canary.sang


def test_a_submodule_whose_commit_is_gone(modules, web, look, repository, publish, served):
    modules()
    shutil.rmtree(served / "lib.git")
    publish(repository({"other": "x"}, name="another"), "lib.git")
    with pytest.raises(UsageError, match="has no version"):
        look(f"{web.url}/p.git")


def test_a_submodule_that_is_not_described(modules, web, look, git, publish, commit):
    folders = modules()
    git(folders["p"], "rm", "--quiet", "--cached", ".gitmodules")
    (folders["p"] / ".gitmodules").unlink()
    git(folders["p"], "commit", "--quiet", "--message", "x")
    publish(folders["p"], "p.git")
    with pytest.raises(SourceUnusable, match="`libs/lib` is not described in `.gitmodules`"):
        look(f"{web.url}/p.git")


def test_submodules_that_contain_each_other_end(web, look, repository, git, publish):
    """A commit cannot hold itself, but a long chain costs a fetch for every link."""
    before = git(repository({"end": "x"}, name="m0"), "rev-parse", "HEAD")
    publish(repository({"end": "x"}, name="m0"), "m0.git")
    for number in range(1, 13):
        work = repository(
            {".gitmodules": (f'[submodule "m"]\npath = m\nurl = ../m{number - 1}.git\n')},
            name=f"m{number}",
        )
        git(work, "update-index", "--add", "--cacheinfo", f"160000,{before},m")
        git(work, "commit", "--quiet", "--message", "x")
        before = git(work, "rev-parse", "HEAD")
        publish(work, f"m{number}.git")
    with pytest.raises(SourceUnusable, match="nested deeper"):
        look(f"{web.url}/m12.git")
    assert names(look(f"{web.url}/m9.git"))[-1] == "m/" * 9 + "end"


# -- repositories that mean harm


def raw_tree(git, work, *entries):
    """Write a tree object of (mode, name, content) as it is, with no questions asked."""
    data = b""
    for mode, name, content in entries:
        if isinstance(content, bytes):
            oid = content.decode()
        elif isinstance(content, str):
            oid = git(work, "hash-object", "-w", "--stdin", data=content.encode())
        else:
            oid = raw_tree(git, work, *content)
        data += f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid)
    return git(work, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=data)


@pytest.mark.parametrize(
    "entries",
    [
        [("40000", ".git", [("40000", "hooks", [("100755", "post-checkout", "touch canary")])])],
        [("40000", "sub", [("40000", ".git", [("100644", "config", "x")])])],
        [("40000", ".GIT", [("100644", "config", "x")])],
        [("100644", ".git", "gitdir: /tmp/evil")],
        [("40000", "..", [("100644", "escaped", "x")])],
        [("100644", "..", "x")],
        [("100644", ".", "x")],
        [("100644", "../escaped", "x")],
        [("100644", "/escaped", "x")],
        [("100644", "a//b", "x")],
        [("40000", "sub", [("40000", "..", [("40000", "..", [("100644", "escaped", "x")])])])],
        [("120000", "leaving", "../../../etc/passwd")],
        [("120000", "leaving", "/etc/passwd")],
        [("120000", "leaving", "")],
        [("40000", "sub", [("120000", "leaving", "../../x")])],
        [("120000", "a", "/tmp"), ("40000", "a", [("100644", "escaped", "x")])],
        [("120000", "a", "."), ("40000", "a", [("100644", "b", "x")])],
        [("100644", "a", "x"), ("40000", "a", [("100644", "b", "x")])],
        [("100644", "twice", "x"), ("100644", "twice", "y")],
        [("160000", "sub", b"1" * 40)],
    ],
    ids=lambda entries: "/".join(str(entry[1]) for entry in entries),
)
def test_a_tree_that_no_tree_may_be(work, served, web, look, git, entries, tmp_path, publish):
    tree = raw_tree(git, work, *entries, ("100644", "zz", "x"))
    commit = git(work, "commit-tree", tree, "-m", "x")
    git(work, "update-ref", "refs/heads/evil", commit)
    bare = served / "p.git"
    shutil.copytree(work / ".git", bare)
    outside = sorted(os.listdir(tmp_path))
    for uri, version in ((f"{web.url}/p.git", "evil"), (work, commit)):
        with pytest.raises((SourceUnusable, SourceRefused)):
            look(uri, version)
    assert sorted(os.listdir(tmp_path)) == outside
    assert not (tmp_path / "escaped").exists()


def test_nothing_of_a_remote_is_ever_run(work, served, web, look, git, canary, machine, commit):
    (work / ".gitattributes").write_text("* filter=evil diff=evil merge=evil export-subst\n")
    (work / "sub" / ".lfsconfig").write_text(f"[lfs]\nurl = !{canary.program}\n")
    commit(work)
    bare = served / "p.git"
    shutil.copytree(work / ".git", bare)
    git(bare, "config", "core.bare", "true")
    for name in ("post-checkout", "post-merge", "reference-transaction", "post-index-change"):
        shutil.copy(canary.program, bare / "hooks" / name)
    for key in (
        *("core.fsmonitor", "core.sshCommand", "core.editor", "core.pager"),
        *("filter.evil.smudge", "filter.evil.clean", "filter.evil.process"),
        *("diff.evil.textconv", "diff.external", "credential.helper", "core.askPass"),
    ):
        git(bare, "config", key, str(canary.program))
        git(work, "config", key, str(canary.program))
    shutil.copytree(bare / "hooks", work / ".git" / "hooks", dirs_exist_ok=True)
    for uri in (f"{web.url}/p.git", work, f"file://{bare}"):
        for version in ("main", git(work, "rev-parse", "HEAD")[:10]):
            tree = look(uri, version)
            tree.project(lambda t: machine.load(t, lambda _event: None))
            assert text(tree) == "one\n"
    assert not canary.sang


def test_a_partial_clone_does_not_fetch_what_it_lacks(work, look, git, canary):
    """Its configuration names the program that would be run for it."""
    blob = git(work, "rev-parse", "HEAD:data.txt")
    (work / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(work),
        "remote.origin.promisor": "true",
        "remote.origin.uploadPack": str(canary.program),
    }.items():
        git(work, "config", name, value)
    with pytest.raises(SourceUnusable, match="is missing"):
        look(work, "main")
    assert not canary.sang
    git(work, "cat-file", "blob", blob, fails=True)
    assert canary.sang, "the trap does not work: this test proves nothing"


def test_hooks_of_the_user_are_not_run(work, publish, web, look, git, canary, tmp_path):
    """Neither those of a template nor those of core.hooksPath: a mirror is nobody's work tree."""
    publish(work)
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("reference-transaction", "post-checkout", "pre-auto-gc"):
        shutil.copy(canary.program, hooks / name)
    git("/", "config", "--global", "core.hooksPath", str(hooks))
    git("/", "config", "--global", "init.templateDir", str(hooks.parent))
    assert text(look(f"{web.url}/p.git", git(work, "rev-parse", "HEAD")[:9])) == "one\n"
    assert not canary.sang


def test_files_kept_in_lfs_are_refused_with_advice(work, publish, web, look, commit):
    pointer = (
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
    )
    (work / "model.bin").write_text(pointer)
    commit(work)
    publish(work)
    for uri in (f"{web.url}/p.git", work):
        with pytest.raises(SourceUnusable, match="`model.bin` is kept in Git LFS") as caught:
            look(uri, "main")
        assert "git lfs" in caught.value.hints[0]


def test_large_and_odd_contents_come_through(work, publish, web, look, commit):
    data = {"large": os.urandom(3 << 20), "empty": b"", "lines": b"\r\n\0\n" * 1000, "nul": b"\0"}
    for name, content in data.items():
        (work / name).write_bytes(content)
    commit(work)
    publish(work)
    tree = look(f"{web.url}/p.git")
    assert {name: tree.read(name) for name in data} == data
    assert manifest.of(tree.entries()) == tree.source.tree == look(work).source.tree


# -- the command line, from end to end


def test_a_run_of_a_remote(work, publish, web, repro, git, environ):
    publish(work)
    uri = f"http://me:{PASSWORD}@{web.authority}/p.git#sub"
    web.password = f"me:{PASSWORD}"
    (work / "sub" / "data.txt").write_text("below\n")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "x")
    publish(work)
    head = git(work, "rev-parse", "HEAD")
    first = repro("run", uri, "-v", "main", "--env-manager", "local")
    assert (first.code, "below" in first.text) == (0, True), first.err
    asked = len(web.asked)
    second = repro("run", uri, "-v", head, "--env-manager", "local", "--json")
    assert second.code == 0, second.err
    assert '"cached": true' in second.out
    assert len(web.asked) == asked
    for folder in (environ["REPRO_HOME"], environ["REPRO_DATA"], environ["HOME"]):
        for path, data in contents(folder):
            assert PASSWORD.encode() not in data, path
    assert PASSWORD not in first.text + second.text


def test_a_run_of_a_version_leaves_the_repository_as_it_is(work, repro, versions, state):
    before = state(work)
    answer = repro("run", work, "-v", "v2", "--env-manager", "local")
    assert (answer.code, "two" in answer.text) == (0, True), answer.err
    assert state(work) == before


def test_errors_of_the_command_line(repro, work):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer = repro("run", f"http://me:{PASSWORD}@127.0.0.1:{port}/p", "--env-manager", "local")
    assert (answer.code, answer.out) == (7, "")
    assert PASSWORD not in answer.err
    for uri in ("ext::sh -c x", "examples/nothing", "ssh://-oProxyCommand=x/p"):
        assert repro("run", uri).code == 2
    answer = repro("run", work, "-v", "mian")
    assert answer.code == 2
    assert "`main`" in answer.err

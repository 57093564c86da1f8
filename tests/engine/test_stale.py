"""Changes that are easy to overlook: none of them may leave a result that is not right any more."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from repro import digest
from repro.store import placement

LIST = "entry_points: {main: {outputs: [out.txt], command: 'find . -type f | sort > /tmp/$REPRO_RUN_ID; mv /tmp/$REPRO_RUN_ID out.txt'}}\n"


def git(folder, *words):
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def settle():
    time.sleep(0.06)


@pytest.fixture
def seen(run):
    """Run a project and give whether the ignored file was among its inputs."""

    def look(folder):
        settle()
        assert run(folder).get_status() == "FINISHED"
        return "x.dat" in (folder / "out.txt").read_text()

    return look


def test_a_repository_that_begins_between_the_project_and_the_one_around_it(project, seen):
    outer = project({".gitignore": "*.dat\n", "a/p/MLproject": LIST, "a/p/x.dat": "1"})
    git(outer, "init", "-q")
    folder = outer / "a/p"
    assert not seen(folder)
    assert not seen(folder)
    git(outer / "a", "init", "-q")
    assert seen(folder)


def test_a_relative_file_of_ignore_rules(project, seen):
    outer = project({"rules": "*.dat\n", "p/MLproject": LIST, "p/x.dat": "1"})
    git(outer, "init", "-q")
    git(outer, "config", "core.excludesFile", "rules")
    if seen(outer / "p"):
        pytest.skip("this Git resolves the path elsewhere")
    assert not seen(outer / "p")
    (outer / "rules").write_text("")
    assert seen(outer / "p")


def test_settings_that_are_included_from_elsewhere(project, seen, tmp_path):
    folder = project({"MLproject": LIST, "x.dat": "1"})
    (tmp_path / "rules").write_text("*.dat\n")
    (tmp_path / "included").write_text(f"[core]\nexcludesFile = {tmp_path}/rules\n")
    git(folder, "init", "-q")
    git(folder, "config", "include.path", str(tmp_path / "included"))
    assert not seen(folder)
    assert not seen(folder)
    (tmp_path / "included").write_text("")
    assert seen(folder)


def test_settings_of_one_work_tree(project, seen, tmp_path):
    folder = project({"MLproject": LIST, "x.dat": "1"})
    (tmp_path / "rules").write_text("*.dat\n")
    git(folder, "init", "-q")
    git(folder, "config", "extensions.worktreeConfig", "true")
    git(folder, "config", "--worktree", "core.excludesFile", str(tmp_path / "rules"))
    assert not seen(folder)
    assert not seen(folder)
    git(folder, "config", "--worktree", "--unset", "core.excludesFile")
    assert seen(folder)


def test_an_empty_git_folder_that_becomes_a_repository(project, seen):
    folder = project({"MLproject": LIST, ".gitignore": "*.dat\n", "sub/x.dat": "1"})
    (folder / "sub/.git").mkdir()
    git(folder, "init", "-q")
    assert not seen(folder)
    assert not seen(folder)
    git(folder / "sub", "init", "-q")
    assert seen(folder)


def test_a_git_file_that_is_pointed_elsewhere(project, seen, tmp_path):
    folder = project({"MLproject": LIST, "x.dat": "1"})
    git(folder, "init", "-q", f"--separate-git-dir={tmp_path}/one")
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q", f"--separate-git-dir={tmp_path}/two")
    (tmp_path / "one/info/exclude").write_text("*.dat\n")
    assert not seen(folder)
    assert not seen(folder)
    (folder / ".git").write_text(f"gitdir: {tmp_path}/two\n")
    assert seen(folder)


def test_another_home_with_other_ignore_rules(project, seen, tmp_path, monkeypatch):
    folder = project({"MLproject": LIST, "x.dat": "1"})
    git(folder, "init", "-q")
    (tmp_path / "one/.config/git").mkdir(parents=True)
    (tmp_path / "one/.config/git/ignore").write_text("*.dat\n")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "one"))
    assert not seen(folder)
    assert not seen(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "two"))
    assert seen(folder)


def test_an_output_that_changes_while_it_is_hashed_is_not_believed(tmp_path):
    target = tmp_path / "big"
    target.write_bytes(b"\0" * 200_000_000)
    settle()

    def edit():
        time.sleep(0.02)
        with open(target, "r+b") as file:
            file.write(b"X")

    thread = threading.Thread(target=edit)
    thread.start()
    content, state = placement._seen(str(target))
    thread.join()
    # what is believed under the state that the file has now is what stands in it now
    is_right = content == ("file", digest.of_bytes(target.read_bytes()))
    assert state != placement._state(str(target)) or is_right


def test_a_run_beside_it_does_not_make_a_step_see_its_own_result(project, run, tmp_path):
    text = (
        "entry_points:\n  a: {command: 'x=$(cat in; ls); echo \"$x\" > out.txt'}\n"
        f"  b: {{inputs: [MLproject], outputs: [b], command: 'touch {tmp_path}/started; sleep 1; echo b > b'}}\n"
    )
    folder = project({"MLproject": text, "in": "1\n"})
    run(folder, "a")
    beside = run(folder, "b", synchronous=False)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    (folder / "in").write_text("2\n")
    run(folder, "a")
    beside.wait()
    run(folder, "a")
    assert "out.txt" not in (folder / "out.txt").read_text()


@pytest.mark.parametrize("how", ["path", "mount"])
def test_a_link_that_leaves_through_another_link(project, run, tmp_path, how):
    top = tmp_path / "ext/top"
    (top / "deep/deep").mkdir(parents=True)
    (tmp_path / "ext/secret").write_text("one")
    (top / "deep/deep/sub").symlink_to("../..")
    (top / "l").symlink_to("deep/deep/sub/../secret")
    text = "entry_points: {main: {parameters: {q: path}, command: 'cat {q}/l'}}\n"
    if how == "mount":
        text = f"entry_points: {{main: {{mounts: [{{source: {top}, target: data}}], command: cat data/l}}}}\n"
    folder = project(MLproject=text)
    given = {"parameters": {"q": str(top)}} if how == "path" else {}
    run(folder, **given)
    assert run.printed == "one"
    (tmp_path / "ext/secret").write_text("two")
    run(folder, **given)
    assert run.printed == "two"


@pytest.mark.parametrize("instead", ["link", "file"])
def test_an_empty_folder_that_became_something_else_is_restored(project, run, instead):
    folder = project(MLproject="entry_points: {main: {outputs: [e], command: mkdir -p e/f}}\n")
    run(folder)
    (folder / "e/f").rmdir()
    if instead == "link":
        (folder / "e/f").symlink_to(".")
    else:
        (folder / "e/f").write_text("x")
    assert run(folder).cached
    assert (folder / "e/f").is_dir()
    assert not (folder / "e/f").is_symlink()

"""Which files of a work tree belong to a project, what is known of its commit, and that asking
Git neither changes a repository nor runs anything that stands in it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from repro.source import Selection

FILES = {
    "MLproject": "entry_points: {main: {command: cat data.txt}}\n",
    "data.txt": "one\n",
    ".gitignore": "*.log\n/build/\n",
    "sub/file.txt": "deep\n",
    "forced.log": "tracked although it matches\n",
}


@pytest.fixture
def work(repository, git):
    """A work tree with ignored files, and one that is tracked although it is ignored."""
    made = repository(FILES)
    git(made, "add", "--force", "forced.log")
    git(made, "commit", "--quiet", "--message", "forced")
    (made / "x.log").write_text("ignored\n")
    (made / "sub" / "y.log").write_text("ignored\n")
    (made / "build").mkdir()
    (made / "build" / "out").write_text("ignored\n")
    return made


def paths(tree):
    return [entry.path for entry in tree.entries()]


TRACKED = sorted(FILES)


def test_ignored_files_are_left_out_and_tracked_ones_never_are(work, look):
    assert paths(look(work)) == TRACKED
    assert not look(work).source.dirty


def test_untracked_files_that_are_not_ignored_belong_to_the_tree(work, look):
    (work / "sub" / "new.txt").write_text("x")
    assert paths(look(work)) == sorted([*TRACKED, "sub/new.txt"])
    assert look(work).source.dirty


HALF = ".0123456789ab~repro"
"""What a process that was killed while it wrote an output leaves."""


def test_outputs_that_were_never_whole_are_no_part_of_a_project(work, look, project):
    for place in (work / HALF, work / "sub" / HALF):
        place.write_text("ha")
    assert paths(look(work)) == TRACKED
    assert not look(work).source.dirty
    plain = project({"MLproject": FILES["MLproject"], HALF: "ha", "sub/a": "1"}, name="plain")
    assert paths(look(plain)) == ["MLproject", "sub/a"]
    chosen = Selection(inputs=("sub",))
    (plain / "sub" / HALF).write_text("ha")
    assert [entry.path for entry in look(plain).selected(chosen, "main")] == ["sub/a"]


@pytest.mark.parametrize(
    "name", [".0123456789AB~repro", ".0123456789a~repro", "0123456789abc~repro"]
)
def test_names_that_only_resemble_them_are_files(work, look, name):
    (work / name).write_text("mine")
    assert name in paths(look(work))
    assert look(work).source.dirty


def test_a_tracked_one_is_a_file_all_the_same(work, look, git):
    (work / HALF).write_text("mine")
    git(work, "add", HALF)
    assert HALF in paths(look(work))
    assert look(work).source.dirty


def test_a_tracked_file_in_an_ignored_folder_belongs_to_the_tree(work, look, git):
    (work / "build" / "deep").mkdir()
    (work / "build" / "deep" / "kept").write_text("x")
    (work / "build" / "deep" / "not").write_text("x")
    git(work, "add", "--force", "build/deep/kept")
    assert paths(look(work)) == sorted([*TRACKED, "build/deep/kept"])


def test_facts_of_the_commit(work, look, git):
    git(work, "remote", "add", "origin", "https://me:secret@host/p.git?token=secret")
    source = look(work).source
    assert source.commit == git(work, "rev-parse", "HEAD")
    assert source.branch == "main"
    assert source.repo_url == "https://host/p.git"
    assert not source.dirty
    git(work, "checkout", "--quiet", "--detach")
    assert look(work).source.branch == ""
    assert look(work).source.commit == source.commit


def test_a_repository_without_a_commit(project, look, git, commit):
    folder = project(FILES)
    git(folder, "init", "--quiet")
    tree = look(folder)
    assert (tree.source.commit, tree.source.branch, tree.source.dirty) == ("", "main", True)
    assert "forced.log" not in paths(tree)
    assert commit(folder) == look(folder).source.commit


def hide(flag):
    def edit(work, git):
        git(work, "update-index", flag, "data.txt")
        (work / "data.txt").write_text("ONE\n")

    return edit


def self_ignored_rules(work, git):
    # the rules are edited in place: the folder's own state does not change
    with (work / "sub" / ".gitignore").open("r+") as file:
        file.write(".gitignore\n#idden")


def crlf(work, git):
    git(work, "config", "core.autocrlf", "input")
    (work / "data.txt").write_bytes(b"one\r\n")
    git(work, "add", "data.txt")
    assert git(work, "status", "--porcelain") == ""


def conflict(work, git):
    git(work, "checkout", "--quiet", "-b", "other")
    (work / "data.txt").write_text("theirs\n")
    git(work, "commit", "--quiet", "--all", "--message", "theirs")
    git(work, "checkout", "--quiet", "main")
    (work / "data.txt").write_text("ours\n")
    git(work, "commit", "--quiet", "--all", "--message", "ours")
    git(work, "merge", "other", fails=True)
    assert "<<<<" in (work / "data.txt").read_text()


def text(path, content):
    return lambda work, _git: (work / path).write_text(content)


def home(path, content):
    def edit(_work, _git):
        place = pathlib.Path(os.environ["HOME"], path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    return edit


def words(*arguments):
    return lambda work, git: git(work, *arguments)


def nested_repository(work, git):
    git(work, "init", "--quiet", "sub")
    (work / "sub" / ".gitignore").write_text("file.txt\n")


def renamed_in_the_index(work, git):
    git(work, "mv", "data.txt", "moved.txt")
    (work / "data.txt.log").write_text("x")


# what is done, and whether the tree is another one then
CHANGES = {
    "edited": (text("data.txt", "ONE\n"), True),
    "edited and added": (
        lambda w, g: (text("data.txt", "ONE\n")(w, g), g(w, "add", ".")),
        True,
    ),
    "an ignored file edited": (text("x.log", "other\n"), False),
    "a new ignored file": (text("z.log", "x"), False),
    "a new file in an ignored folder": (text("build/more", "x"), False),
    "rules widened": (text(".gitignore", "*.txt\n*.log\n/build/\n"), True),
    "rules narrowed": (text(".gitignore", "/build/\n"), True),
    "rules removed": (lambda w, _g: (w / ".gitignore").unlink(), True),
    "rules in a folder": (text("sub/.gitignore", "!y.log\nhidden\n"), True),
    "rules that ignore themselves": (self_ignored_rules, True),
    "info/exclude": (text(".git/info/exclude", "forced.log\nfile.txt\n"), False),
    "info/exclude for a new file": (
        lambda w, g: (text("new", "x")(w, g), text(".git/info/exclude", "new\n")(w, g)),
        False,
    ),
    "an ignored file added": (words("add", "--force", "x.log"), True),
    "an ignored file not tracked any more": (words("rm", "-q", "--cached", "forced.log"), True),
    "a file not tracked any more": (words("rm", "-q", "--cached", "data.txt"), False),
    "assume-unchanged": (hide("--assume-unchanged"), True),
    "skip-worktree": (hide("--skip-worktree"), True),
    "autocrlf": (crlf, True),
    "a commit of the same tree": (words("commit", "-q", "--allow-empty", "-m", "x"), False),
    "an amended message": (words("commit", "-q", "--amend", "-m", "y"), False),
    "a branch of the same tree": (words("checkout", "-q", "-b", "b"), False),
    "an earlier commit": (words("checkout", "-q", "HEAD~1"), True),
    "refs packed": (words("pack-refs", "--all"), False),
    "garbage collected": (words("gc", "-q"), False),
    "a commit, packed at once": (
        lambda w, g: (g(w, "commit", "-q", "--allow-empty", "-m", "x"), g(w, "pack-refs", "--all")),
        False,
    ),
    "another branch by name alone": (
        lambda w, g: (g(w, "branch", "b"), g(w, "symbolic-ref", "HEAD", "refs/heads/b")),
        False,
    ),
    "a tag": (words("tag", "v1"), False),
    "a remote": (words("remote", "add", "o", "https://host/p"), False),
    "a merge conflict": (conflict, True),
    "reset": (words("reset", "-q", "--hard", "HEAD~1"), True),
    "renamed in the index": (renamed_in_the_index, True),
    "global configuration": (home(".gitconfig", "[core]\nexcludesFile = ~/mine\n"), False),
    "global rules": (home(".config/git/ignore", "new\n"), False),
    "a nested repository": (nested_repository, True),
    "no repository any more": (lambda w, _g: shutil.rmtree(w / ".git"), True),
    "deleted": (lambda w, _g: (w / "data.txt").unlink(), True),
    "the index removed": (lambda w, _g: (w / ".git" / "index").unlink(), True),
    "stashed": (
        lambda w, g: (text("data.txt", "ONE\n")(w, g), g(w, "stash", "-q")),
        False,
    ),
}


PACKED = (
    *("a commit of the same tree", "a commit, packed at once", "a branch of the same tree"),
    *("another branch by name alone", "refs packed", "reset"),
)


@pytest.mark.parametrize(
    ("change", "packed"), [*((name, False) for name in CHANGES), *((name, True) for name in PACKED)]
)
def test_a_change_is_what_a_fresh_look_finds(work, look, fresh, git, rest, change, packed):
    if packed:
        git(work, "gc", "--quiet")
    text("sub/.gitignore", ".gitignore\nhidden\n")(work, git)
    text("sub/hidden", "x")(work, git)
    rest()
    before = look(work).source
    edit, is_another = CHANGES[change]
    edit(work, git)
    after = look(work).source
    assert after == fresh(work)
    assert (after.tree != before.tree) == is_another
    rest()
    assert look(work).source == look(work).source == after


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_does_not_look_at_makes_the_tree_dirty(work, look, git, flag):
    hide(flag)(work, git)
    assert git(work, "status", "--porcelain") == ""
    assert look(work).source.dirty


def test_a_compiled_module_does_not_make_the_tree_dirty(work, look):
    (work / "sub" / "__pycache__").mkdir()
    (work / "sub" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert not look(work).source.dirty


WHERE = ("exclude", "excludesFile", "XDG rules", "home rules", "home configuration", "above")


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "edited"])
@pytest.mark.parametrize("where", WHERE)
def test_rules_outside_of_the_folder_are_watched(
    work, look, fresh, git, rest, where, tmp_path, monkeypatch, is_there
):
    (tmp_path / "rules").write_text("new\n")
    project, content = work, "new\n"
    if where == "exclude":
        rules = work / ".git" / "info" / "exclude"
    elif where == "excludesFile":
        rules = tmp_path / "excludes"
        git(work, "config", "core.excludesFile", str(rules))
    elif where == "XDG rules":
        rules = tmp_path / "xdg" / "git" / "ignore"
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    elif where == "home rules":
        rules = pathlib.Path(os.environ["HOME"], ".config", "git", "ignore")
    elif where == "home configuration":
        rules = pathlib.Path(os.environ["HOME"], ".gitconfig")
        content = f"[core]\nexcludesFile = {tmp_path}/rules\n"
    else:
        project, rules = work / "sub", work / ".gitignore"
    rules.parent.mkdir(parents=True, exist_ok=True)
    if is_there:
        rules.write_text("# nothing yet\n")
    else:
        rules.unlink(missing_ok=True)
    (project / "new").write_text("x")
    rest()
    assert "new" in paths(look(project))
    rules.write_text(content)
    assert "new" not in paths(look(project))
    assert look(project).source == fresh(project)


# -- repositories inside repositories


@pytest.fixture(scope="session")
def nested_once(git_once, blank, tmp_path_factory):
    """A work tree with a submodule at lib, which has one at inner."""
    git, base = git_once, tmp_path_factory.mktemp("nested")
    for name, files in {
        "inner": {"deep.txt": "deep\n"},
        "lib": {"lib.txt": "lib\n", ".gitignore": "*.tmp\n"},
        "work": FILES,
    }.items():
        shutil.copytree(blank, base / name / ".git")
        for path, content in files.items():
            (base / name / path).parent.mkdir(exist_ok=True)
            (base / name / path).write_text(content)
        git(base / name, "add", "--all", "--force")
        git(base / name, "commit", "--quiet", "--message", "files")
    git(base / "lib", "submodule", "--quiet", "add", str(base / "inner"), "inner")
    git(base / "lib", "commit", "--quiet", "--message", "inner")
    git(base / "work", "submodule", "--quiet", "add", str(base / "lib"), "lib")
    git(base / "work", "submodule", "--quiet", "update", "--init", "--recursive")
    git(base / "work", "commit", "--quiet", "--message", "lib")
    return base / "work"


@pytest.fixture
def nested(nested_once, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(nested_once, work, symlinks=True)
    return work


INSIDE = [".gitmodules", "lib/.gitignore", "lib/.gitmodules", "lib/inner/deep.txt", "lib/lib.txt"]


def test_submodules_belong_to_the_tree(nested, look):
    (nested / "lib" / "x.tmp").write_text("ignored there\n")
    tree = look(nested)
    assert paths(tree) == sorted([*TRACKED, *INSIDE])
    assert not tree.source.dirty


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        (text("lib/lib.txt", "LIB\n"), True),
        (text("lib/inner/deep.txt", "DEEP\n"), True),
        (text("lib/inner/new.txt", "x"), True),
        (text("lib/x.tmp", "ignored"), False),
        (text("lib/.gitignore", "lib.txt\n*.tmp\n"), True),
        (text(".git/modules/lib/info/exclude", "nothing\n"), False),
        (lambda w, g: g(w / "lib", "commit", "-q", "--allow-empty", "-m", "x"), False),
        (lambda w, g: g(w / "lib", "checkout", "-q", "HEAD~1"), True),
        (lambda w, g: g(w, "submodule", "-q", "deinit", "--force", "lib"), True),
    ],
)
def test_a_change_in_a_submodule_is_noticed(nested, look, fresh, git, rest, change, is_another):
    rest()
    before = look(nested).source
    change(nested, git)
    after = look(nested).source
    assert after == fresh(nested)
    assert (after.tree != before.tree) == is_another


@pytest.mark.parametrize("change", ["lib/lib.txt", "lib/inner/deep.txt", "lib/inner/new.txt"])
def test_a_change_in_a_submodule_makes_the_tree_dirty(nested, look, change):
    text(change, "other\n")(nested, None)
    assert look(nested).source.dirty


def test_a_submodule_at_another_commit_makes_the_tree_dirty(nested, look, git):
    git(nested / "lib", "commit", "-q", "--allow-empty", "-m", "x")
    assert look(nested).source.dirty


def test_a_repository_that_is_ignored_is_left_out(work, look, fresh, repository, rest):
    repository({"clone.txt": "x"}, name="clone").rename(work / "build" / "clone")
    repository({"clone.txt": "x"}, name="clone").rename(work / "ignored.log")
    repository({"clone.txt": "x"}, name="clone").rename(work / "sub" / "clone")
    assert paths(look(work)) == sorted([*TRACKED, "sub/clone/clone.txt"])
    assert look(work).source == fresh(work)


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere\n", None])
def test_what_is_only_called_git_is_no_repository(work, look, content):
    place = work / "sub" / ".git"
    place.mkdir() if content is None else place.write_text(content)
    assert "sub/file.txt" in paths(look(work))


@pytest.mark.parametrize("name", ["build", "build/deep"])
def test_an_ignored_folder_of_a_repository_is_a_project_of_its_own(work, look, project, name):
    folder = work / name
    folder.mkdir(exist_ok=True)
    (folder / "a.log").write_text("x")
    (folder / "MLproject").write_text("")
    (folder / "out").unlink(missing_ok=True)
    tree = look(folder)
    assert paths(tree) == ["MLproject", "a.log"]
    # nothing of it is in any commit
    assert (tree.source.commit, tree.source.repo_url, tree.source.dirty) == ("", "", False)


def test_a_folder_of_a_repository_is_listed_by_its_rules(work, look, fresh, git):
    tree = look(work / "sub")
    assert paths(tree) == ["file.txt"]
    assert tree.source.commit == git(work, "rev-parse", "HEAD")
    assert not tree.source.dirty
    (work / "data.txt").write_text("elsewhere\n")
    assert not look(work / "sub").source.dirty
    assert look(work / "sub").source == fresh(work / "sub")


def test_a_linked_work_tree_is_its_own(work, look, fresh, git, tmp_path, rest):
    other = tmp_path / "other"
    git(work, "worktree", "add", "--quiet", "-b", "side", str(other))
    rest()
    before = look(other).source
    assert before.branch == "side"
    assert paths(look(other)) == TRACKED
    (other / "data.txt").write_text("side\n")
    git(other, "commit", "--quiet", "--all", "--message", "side")
    after = look(other).source
    assert after.commit not in ("", before.commit)
    assert after == fresh(other)
    (work / ".git" / "info" / "exclude").write_text("new\n")
    (other / "new").write_text("x")
    assert "new" not in paths(look(other))
    git(work, "gc", "--quiet")
    git(other, "commit", "--quiet", "--amend", "--message", "again")
    assert look(other).source == fresh(other)


def test_variables_of_git_have_no_effect(work, look, git, repository, monkeypatch, tmp_path):
    right = look(work).source
    other = repository({"x": "y"}, name="other")
    variables = {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": tmp_path,
        "GIT_CEILING_DIRECTORIES": tmp_path,
        "GIT_NAMESPACE": "x",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.excludesFile",
        "GIT_CONFIG_VALUE_0": tmp_path / "rules",
        "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
        "GIT_TRACE": tmp_path / "trace",
    }
    (tmp_path / "rules").write_text("*\n")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    (work / ".git" / "info" / "exclude").write_text("# another state\n")
    assert look(work).source == right
    assert not (tmp_path / "trace").exists()


def test_a_work_tree_at_the_root_of_everything_ends(work, look, git):
    """The folders above are looked at for their rules, up to the top of the work tree."""
    git(work, "config", "core.worktree", "/")
    code = f"""
import os
from repro.fetch import listing
print(len(listing.of({str(work)!r}).guards))
"""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert 0 < int(done.stdout) < 100


# -- nothing is changed, nothing is run


def test_looking_leaves_a_repository_as_it_is(nested, look, state, machine):
    # the index is out of date now: `git status` and `git diff` would write it
    for path in ("data.txt", "sub/file.txt", "lib/lib.txt", "lib/inner/deep.txt"):
        os.utime(nested / path, (1, 1))
    (nested / "untracked").write_text("x")
    before = state(nested)
    tree = look(nested)
    machine.patch(tree.source)
    look(f"{nested}#sub")
    look(nested, version="main")
    look(f"{nested}#sub", version="HEAD")
    look(nested)
    assert state(nested) == before


HOOKS = ("post-index-change", "post-checkout", "pre-commit", "reference-transaction", "fsmonitor")


def set_hooks(work, git, bird):
    for name in HOOKS:
        shutil.copy(bird.program, work / ".git" / "hooks" / name)


def set_config(name):
    return lambda work, git, bird: git(work, "config", name, str(bird.program))


def set_attributes(line, name):
    def edit(work, git, bird):
        (work / ".gitattributes").write_text(f"* {line}\n")
        git(work, "add", "--all")
        git(work, "config", name, str(bird.program))
        git(work, "config", f"{name.rpartition('.')[0]}.required", "true")

    return edit


def set_partial_clone(work, git, bird):
    """A missing object, and a remote whose program would be asked for it."""
    tree = git(work, "rev-parse", "HEAD:sub")
    blob = git(work, "rev-parse", "HEAD:data.txt")
    for oid in (tree, blob):
        (work / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": str(work),
        "remote.origin.promisor": "true",
        "remote.origin.partialCloneFilter": "blob:none",
        "remote.origin.uploadPack": f"{bird.program} git-upload-pack",
        "core.sshCommand": str(bird.program),
    }.items():
        git(work, "config", name, value)


def set_included(work, git, bird):
    (work / "more.cfg").write_text(f"[core]\nfsmonitor = {bird.program}\n")
    git(work, "config", "include.path", "../more.cfg")


def in_submodule(change):
    def edit(work, git, bird):
        change(work / "lib", git, bird)
        (work / "lib" / "lib.txt").write_text("changed\n")

    return edit


FILTER = set_attributes("filter=evil", "filter.evil.clean")
TRAPS = {
    "fsmonitor": (set_config("core.fsmonitor"), ("status",)),
    "hooks": (set_hooks, ("checkout", "-q", "-b", "x")),
    "hooks elsewhere": (
        lambda w, g, b: (
            (w / "hooks").mkdir(),
            shutil.copy(b.program, w / "hooks" / "post-index-change"),
            g(w, "config", "core.hooksPath", "hooks"),
        ),
        ("add", "--all"),
    ),
    "clean filter": (FILTER, ("status",)),
    "filter process": (set_attributes("filter=evil", "filter.evil.process"), ("status",)),
    "filter with a sign in its name": (
        set_attributes("filter=a=b", "filter.a=b.clean"),
        ("status",),
    ),
    "textconv": (set_attributes("diff=evil", "diff.evil.textconv"), ("diff",)),
    "diff driver": (set_attributes("diff=evil", "diff.evil.command"), ("diff",)),
    "external diff": (set_config("diff.external"), ("diff",)),
    "included configuration": (set_included, ("status",)),
    "partial clone": (set_partial_clone, ("diff", "HEAD")),
    "submodule with fsmonitor": (in_submodule(set_config("core.fsmonitor")), ("status",)),
    "submodule with a filter": (in_submodule(FILTER), ("status",)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_looking_runs_nothing_of_the_repository(nested, look, git, canary, machine, trap, rest):
    edit, command = TRAPS[trap]
    rest()
    edit(nested, git, canary)
    rest()
    (nested / "data.txt").write_text("ONE\n")  # of the same size: Git has to look into it
    (nested / "lib" / "lib.txt").write_text("LIB\n")
    for _ in range(2):
        canary.file.unlink(missing_ok=True)
        for uri in (nested, nested / "lib"):
            tree = look(uri)
            tree.project(lambda t: machine.load(t, lambda _event: None))
            machine.patch(tree.source)
        assert not canary.sang
        (nested / "data.txt").write_text("TWO\n")
    for version in ("HEAD", "main"):
        try:
            look(nested, version=version)
        except Exception as error:  # noqa: BLE001  (the partial clone lacks a file)
            assert trap == "partial clone", error
    assert not canary.sang
    git(nested, *command, fails=True)
    assert canary.sang, "the trap does not work: this test proves nothing"


def test_the_patch_of_a_dirty_tree_is_what_git_would_apply(work, look, machine, git, tmp_path):
    (work / "data.txt").write_text("ONE\n")
    (work / "sub" / "file.txt").write_bytes(b"\0\xff")
    name = machine.patch(look(work).source)
    (tmp_path / "patch").write_bytes(machine.blobs.get(name))
    git(work, "stash", "--quiet")
    assert machine.patch(look(work).source) == ""
    git(work, "apply", str(tmp_path / "patch"))
    assert (work / "data.txt").read_text() == "ONE\n"
    assert (work / "sub" / "file.txt").read_bytes() == b"\0\xff"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_somebody_else_is_listed_without_git(work, look):
    """Git refuses to read its configuration."""
    for path in (work, work / ".git"):
        os.chown(path, 65534, 65534)
    assert look(work).source.commit == ""
    assert set(TRACKED) < set(paths(look(work)))


def test_a_broken_repository_is_an_error_that_says_so(work, look):
    from repro.errors import SourceUnusable

    (work / ".git" / "index").write_bytes(b"garbage")
    with pytest.raises(SourceUnusable, match="`git status` fails in"):
        look(work)

"""Unpacked wheels in the store: fetched once, linked while they are as they were, or made anew."""

from __future__ import annotations

import base64
import csv
import os
import pathlib
import stat
import subprocess
import sys

import pytest
from environments.conftest import locked, output
from environments.test_realize import environments_on_disk, installed, made

from repro.environments import cache, records, treehash
from repro.errors import EnvironmentFailed, NoSpace, Unreachable
from repro.system import files
from repro.value import replace


@pytest.fixture
def lock(python, wheels):
    """The lock of alpha 2.0 and beta 1.5."""
    return locked(python(), wheels.request("alpha"))


def test_the_files_of_wheels_are_those_of_the_store_and_cannot_be_written_to(python, lock, told):
    realized = python().realize(lock, told.append)
    module, script = installed(realized, "alpha.py"), pathlib.Path(realized.path[0], "alpha")
    assert module.stat().st_nlink == 2
    assert (stat.S_IMODE(module.stat().st_mode), script.stat().st_mode & 0o222) == (0o444, 0)
    realized.release()


@pytest.fixture
def cached(home, lock):
    """The folder of alpha in the store."""
    return pathlib.Path(home, "wheels", lock.artifacts[0].digest)


def tampered(path, text="raise SystemExit('tampered')\n"):
    """Change a file as somebody does who does not want that to be seen."""
    before = path.stat()
    path.chmod(0o644)
    path.write_text(text.ljust(before.st_size, "#")[: before.st_size])
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def prune(home):
    cache.prune(home, older_than_ns=None, everything=True, dry_run=False, now_ns=0)


def imported(realized):
    realized.release()
    return output(realized, "import alpha, beta; print(alpha.VERSION, beta.VERSION)")


def test_a_file_of_the_store_that_was_changed_is_unpacked_again(python, lock, told, cached, home):
    maker = python()
    maker.realize(lock, told.append).release()
    (tree,) = (p for p in cached.iterdir() if p.is_dir())
    compiled = next((tree / "site" / "__pycache__").iterdir())
    for path in (tree / "site" / "alpha.py", compiled):
        prune(home)
        tampered(path)
        assert imported(maker.realize(lock, told.append)) == "2.0 1.5"


def test_what_was_pruned_is_made_again_without_reading_its_files(python, lock, told, home, opened):
    maker = python()
    maker.realize(lock, told.append).release()
    for _ in range(2):
        prune(home)
        opened.clear()
        realized = maker.realize(lock, told.append)
        assert not [p for p in opened if p.endswith(("/site/alpha.py", "/site-packages/alpha.py"))]
        assert imported(realized) == "2.0 1.5"


def test_a_file_and_its_wheel_that_were_changed_are_fetched_again(python, lock, told, cached, home):
    maker = python()
    maker.realize(lock, told.append).release()
    prune(home)
    (tree,) = (p for p in cached.iterdir() if p.is_dir())
    tampered(tree / "site" / "alpha.py")
    (cached / "wheel").write_bytes(b"tampered")
    assert imported(maker.realize(lock, told.append)) == "2.0 1.5"


def test_an_unreadable_or_cut_list_of_a_tree_is_none(python, lock, told, cached, home):
    maker = python()
    maker.realize(lock, told.append).release()
    (known,) = cached.glob("*.json")
    for text in ("", '{"format": 1', '{"format": 99, "files": []}', "[]"):
        prune(home)
        known.write_text(text)
        assert imported(maker.realize(lock, told.append)) == "2.0 1.5"


@pytest.mark.parametrize("change", ["write", "remove", "tamper"])
def test_an_environment_that_was_changed_is_made_again(python, lock, told, change):
    """One in which somebody wrote through a link, so that the store has the change too."""
    maker = python()
    first = maker.realize(lock, told.append)
    module = installed(first, "alpha.py")
    if change == "write":
        module.chmod(0o644)
        module.write_text("raise SystemExit('changed')\n")
    elif change == "remove":
        module.unlink()
    else:
        tampered(module)
    first.release()
    second = maker.realize(lock, told.append)
    if change == "tamper":  # only the audit reads every file; the next one made is right
        other = replace(lock, artifacts=lock.artifacts[:1])
        second.release()
        second = maker.realize(other, told.append)
        assert output(second, "import alpha; print(alpha.VERSION)") == "2.0"
        second.release()
        return
    assert made(told) == 2
    assert imported(second) == "2.0 1.5"


def test_what_a_step_adds_does_no_harm(python, lock, told):
    maker = python()
    first = maker.realize(lock, told.append)
    installed(first, "alpha.py").with_name("added.py").write_text("")
    first.release()
    maker.realize(lock, told.append).release()
    assert made(told) == 1


def test_of_two_wheels_with_one_file_the_last_counts(python, own_wheels, told, home):
    for name, version in (("alpha", "2.0"), ("beta", "1.5"), ("gamma", "1.0")):
        own_wheels.wheel(name, version, more={"shared.txt": name})
    lock = locked(python(), own_wheels.request("alpha", "beta==1.5"), told.append)
    for _ in range(3):
        realized = python().realize(lock, told.append)
        assert installed(realized, "shared.txt").read_text() == "beta"
        assert imported(realized) == "2.0 1.5"
        prune(home)


def test_the_list_of_an_environment_is_what_is_found_in_it(python, own_wheels, told, home):
    own_wheels.wheel("alpha", "2.0", more={"shared.txt": "alpha"})
    own_wheels.wheel(  # has the command of the one before it as a file
        "beta", "1.5", more={"shared.txt": "beta", "beta-1.5.data/scripts/alpha": "#!/bin/sh\n"}
    )
    own_wheels.wheel(  # and this makes a command of such a file
        "gamma", "1.0", more={"gamma-1.0.data/scripts/gamma": "#!/bin/sh\n"}
    )
    lock = locked(python(), own_wheels.request("alpha", "beta==1.5", "gamma"), told.append)
    for _ in range(2):
        realized = python().realize(lock, told.append)
        seen = treehash.scan(realized.prefix)
        marker = cache.marker(realized.prefix)
        listed = treehash.kept(realized.prefix, marker["files"])
        assert listed == {path: found[:2] for path, found in seen.items()}
        assert marker["tree"] == treehash.tree_hash(seen)
        assert pathlib.Path(realized.path[0], "alpha").read_text() == "#!/bin/sh\n"
        assert "import main" in pathlib.Path(realized.path[0], "gamma").read_text()
        realized.release()
        prune(home)


def test_two_environments_share_the_files_and_not_the_commands(python, lock, told):
    maker = python()
    one = maker.realize(lock, told.append)
    two = maker.realize(replace(lock, artifacts=lock.artifacts[:1]), told.append)
    assert os.path.samefile(installed(one, "alpha.py"), installed(two, "alpha.py"))
    for realized in (one, two):
        command = pathlib.Path(realized.path[0], "alpha")
        assert command.read_text().splitlines()[0] == f"#!{realized.path[0]}/python"
        assert subprocess.run([command], capture_output=True, check=True).stdout == b"2.0\n"
        realized.release()


def test_a_wheel_of_every_part_is_installed_as_pip_does(python, own_wheels, told, tmp_path):
    """Folders of data, headers and scripts, odd names of files and of the shebang."""
    parts = {
        "whole-1.0.data/purelib/pure.py": "PURE = 1\n",
        "whole-1.0.data/platlib/plat.py": "PLAT = 1\n",
        "whole-1.0.data/data/share/whole/data.txt": "data\n",
        "whole-1.0.data/headers/whole.h": "#define WHOLE\n",
        "whole-1.0.data/scripts/tool": "#!python\nimport sys; print(sys.prefix)\n",
        "whole-1.0.data/scripts/plain": "#!/bin/sh\necho plain\n",
        "whole/ä ö.txt": "odd\n",
        "whole/broken.py": "print 'python 2'\n",
    }
    own_wheels.wheel("whole", "1.0", more=parts)
    lock = locked(python(), own_wheels.request("whole"), told.append)
    listings = []
    for tool in ("uv", "pip"):
        realized = python(tool, home=str(tmp_path / tool)).realize(lock, told.append)
        prefix = pathlib.Path(realized.prefix)
        assert output(realized, "import pure, plat, whole; print(pure.PURE)") == "1"
        for name, expected in (("tool", str(prefix)), ("plain", "plain"), ("whole", "1.0")):
            done = subprocess.run([prefix / "bin" / name], capture_output=True, check=True)
            assert done.stdout.decode().strip() == expected
        records.verify(str(prefix), lock.artifacts)
        realized.release()
        listings.append(sorted(record(prefix)))
    theirs = tmp_path / "theirs"
    subprocess.run([sys.executable, "-m", "venv", theirs], check=True)
    file = own_wheels.folder / "whole-1.0-py3-none-any.whl"
    subprocess.run(
        [theirs / "bin/pip", "--isolated", "install", "-q", "--no-index", "--no-deps", file],
        check=True,
        env={"PIP_CONFIG_FILE": os.devnull},
    )
    ignored = ("direct_url.json", "REQUESTED")
    expected = sorted(row for row in record(theirs) if not row[0].endswith(ignored))
    assert listings[0] == listings[1] == expected


def record(prefix):
    """The rows of the RECORD of `whole`, without what names the prefix or the installer."""
    (path,) = prefix.glob("lib/*/site-packages/whole-1.0.dist-info/RECORD")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    own = ("bin/tool", "bin/whole", "INSTALLER")
    return [row[:1] if row[0].endswith(own) else row for row in rows if "broken.cpy" not in row[0]]


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../b.py", "a\\b.py"])
def test_a_wheel_that_reaches_outside_is_refused(python, own_wheels, told, home, name):
    own_wheels.wheel("beta", "1.5", more={name: "x"})
    lock = locked(python(), own_wheels.request("beta"), told.append)
    with pytest.raises(EnvironmentFailed, match="`beta==1.5` cannot be unpacked"):
        python().realize(lock, told.append)
    assert environments_on_disk(home) == []


# -- an index that fails


@pytest.fixture
def remote(python, own_wheels, index, told):
    """The lock of alpha and beta from an index that is still well."""
    options = (f"--index-url {index.url}",)
    lock = locked(python(), own_wheels.request("alpha", options=options), told.append)
    index.requests.clear()
    return lock


def test_a_wheel_is_fetched_once_for_all_environments(python, remote, index, told):
    maker = python()
    maker.realize(remote, told.append).release()
    maker.realize(replace(remote, artifacts=remote.artifacts[:1]), told.append).release()
    assert sorted(index.downloads) == [a.filename for a in remote.artifacts]


def test_an_index_that_goes_down_half_way_leaves_nothing_and_heals(
    python, remote, index, told, home
):
    index.closing_after = 1
    with pytest.raises(Unreachable, match="could not be fetched") as failed:
        python().realize(remote, told.append)
    assert failed.value.hints[0].startswith("from http://127.0.0.1")
    assert environments_on_disk(home) == []
    assert os.listdir(os.path.join(home, "tmp")) == []
    index.closing_after = None
    assert imported(python().realize(remote, told.append)) == "2.0 1.5"
    assert sorted(index.downloads).count(index.downloads[0]) <= 2


def test_a_busy_index_is_asked_again(python, remote, index, told):
    index.busy = 1
    with pytest.raises(Unreachable):
        python().realize(remote, told.append)
    index.busy = 1
    maker = python(environ={"UV_HTTP_RETRIES": "1"})
    assert imported(maker.realize(remote, told.append)) == "2.0 1.5"


def test_a_wheel_that_arrives_cut_off_is_not_taken(python, remote, index, told, home):
    index.cut.add(remote.artifacts[0].filename)
    with pytest.raises(Unreachable) as failed:
        python().realize(remote, told.append)
    assert "alpha==2.0" in failed.value.message
    assert environments_on_disk(home) == []
    index.cut.clear()
    assert imported(python().realize(remote, told.append)) == "2.0 1.5"


def test_other_bytes_from_the_index_are_refused(python, remote, index, own_wheels, told, home):
    own_wheels.wheel("alpha", "2.0", ["beta>=1"], body="raise SystemExit('tampered')\n")
    with pytest.raises(EnvironmentFailed, match="`alpha==2.0` is not what the lock says"):
        python().realize(remote, told.append)
    assert environments_on_disk(home) == []


def test_a_file_that_is_gone_is_said_so(python, remote, own_wheels, told):
    (own_wheels.folder / remote.artifacts[0].filename).unlink()
    with pytest.raises(EnvironmentFailed, match="`alpha==2.0` is not there any more") as failed:
        python().realize(remote, told.append)
    assert any("lock again" in hint for hint in failed.value.hints)


@pytest.mark.parametrize("where", ["variable", "netrc"])
def test_a_login_comes_from_the_settings_of_the_caller(
    python, remote, index, told, settings, where
):
    index.login = base64.b64encode(b"ada:hid@den").decode()
    with pytest.raises(EnvironmentFailed, match="without a login") as failed:
        python().realize(remote, told.append)
    assert any("netrc" in hint for hint in failed.value.hints)
    environ = {"UV_INDEX": f"one=http://ada:hid%40den@{index.host}/simple https://other.example"}
    if where == "netrc":
        path = pathlib.Path(settings["HOME"], ".netrc")
        path.write_text("machine 127.0.0.1 login ada password hid@den\n")
        path.chmod(0o600)
        environ = {}
    realized = python(environ=environ).realize(remote, told.append)
    assert imported(realized) == "2.0 1.5"


# -- a disk that is full


@pytest.fixture
def disk(tmp_path):
    """A file system whose size can be set, for root; and how to set it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(mount, check=False, capture_output=True)
    if done.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"cannot mount a tmpfs: {done.stderr.decode()}")
        pytest.skip("needs root: sudo mount -t tmpfs")

    def resize(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    yield place, resize
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    ("option", "levels", "enough"),
    [
        ("size={n}k", (4, 24, 60, 120, 200, 280), "size=64m"),
        ("size=64m,nr_inodes={n}", (6, 16, 24, 32, 40, 52), "nr_inodes=9999"),
    ],
)
def test_a_full_disk_is_said_so_at_every_level(
    python, own_wheels, told, disk, agent, option, levels, enough
):
    place, resize = disk
    own_wheels.wheel("beta", "1.5", more={"beta_big.txt": "x" * 100_000})
    lock = locked(python(), own_wheels.request("alpha"), told.append)
    ended = []
    for number, level in enumerate(levels):
        home = place / f"store{number}"
        resize(option.format(n=level))
        ended.append(agent(lock, home=home).wait(60))
        resize(enough)
        left = environments_on_disk(home) if (home / "envs").exists() else []
        assert len(left) == (ended[-1] == 0)
        assert imported(python(home=str(home)).realize(lock, told.append)) == "2.0 1.5"
        files.remove_tree(str(home))
    assert set(ended) <= {0, NoSpace.exit}
    assert ended.count(NoSpace.exit) > 3

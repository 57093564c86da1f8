"""Conda environments against channels that are made on the spot: on disk, and on loopback."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support import channel as channels
from support.channel import Channel, Package, Server, here, populated, pure

from repro import canonical, condafile, value
from repro.environments import cache, states
from repro.environments.conda import Conda, python_from_channel
from repro.environments.conda.channels import Channels
from repro.errors import EnvironmentFailed, ProjectInvalid, Unreachable, Unsupported, UsageError
from repro.lockfiles import condalock
from repro.ports import LockRequest
from repro.spec import CondaEnvironment, PythonEnvironment
from repro.value import replace

OTHERS = tuple(p for p in channels.PLATFORMS if p != here())
ALL = (here(), *OTHERS)
AGENT = """
import os, sys
from repro import canonical, lock, value
from repro.environments.conda import Conda
home, *files = sys.argv[1:]
print("ready", flush=True)
for file in files:
    wanted = value.load(canonical.decode(open(file, "rb").read()), lock.CLASSES)
    Conda(home, os.environ).realize(wanted, lambda text: print(text, flush=True)).release()
"""


def asked(text, read=lambda _path: None):
    return condafile.fill(CondaEnvironment(file="environment.yml", text=text), read)


def wanting(channel, *packages, pip=()):
    """Give a request for packages of a channel, or of its URL."""
    lines = [f"channels: [{getattr(channel, 'url', channel)}]", "dependencies:"]
    lines += [f"- {json.dumps(package)}" for package in packages]
    lines += ["- pip:", *(f"  - {json.dumps(line)}" for line in pip)] if pip else []
    return asked("\n".join(lines) + "\n")


def silent(_text):
    """Take no interest."""


def locked(conda, wanted, *platforms, **more):
    request = LockRequest(environment=wanted, platforms=platforms, **more)
    return conda.lock(request, silent)


def versions(lock):
    return {a.name: a.version for a in lock.artifacts}


def run(prefix, *argv):
    done = subprocess.run(
        [os.path.join(prefix, "bin", argv[0]), *argv[1:]],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def channel(tmp_path_factory):
    return populated(tmp_path_factory.mktemp("channel"))


@pytest.fixture
def home(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def conda(home, environ):
    return Conda(home, environ)


@pytest.fixture
def serve():
    """Serve channels over HTTP for as long as the test lasts."""
    servers = []

    def start(channel, **more):
        servers.append(Server(channel, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def make(conda):
    """Make environments and leave them when the test ends."""
    made = []

    def made_of(lock, by=conda):
        made.append(by.realize(lock, silent))
        return made[-1].prefix

    yield made_of
    for one in made:
        one.release()


# -- locking


def test_what_is_asked_for_is_locked_and_made_and_runs(conda, channel, make):
    (lock,) = locked(conda, wanting(channel, f"python={channels.VERSION}", "tinyml", "cfgtool"))
    assert lock.platform == here()
    assert versions(lock)["tinyml"] == "0.4.0"
    prefix = make(lock)
    assert run(prefix, "tinyml") == "tinyml 42"
    assert run(prefix, "cfgtool") == run(prefix, "cfgtool-link") == f"prefix={prefix}"
    assert prefix.encode() in pathlib.Path(prefix, "share", "cfgtool.bin").read_bytes()
    assert run(prefix, "python", "-c", "import sys; print(sys.prefix)") == prefix


def test_how_to_enter_an_environment(conda, channel):
    (lock,) = locked(conda, wanting(channel, "cfgtool"))
    found = conda.realize(lock, silent)
    assert found.variables == {"CONDA_PREFIX": found.prefix}
    assert found.path == (f"{found.prefix}/bin",)
    assert found.image == ""
    found.release()


def test_an_environment_is_made_once(conda, channel):
    (lock,) = locked(conda, wanting(channel, "cfgtool"))
    told = []
    for _ in range(3):
        conda.realize(lock, told.append).release()
    assert [text for text in told if text.startswith("making")] == [
        "making a conda environment of 1 packages"
    ]


def test_the_notes_of_a_prefix_say_what_only_the_packages_know(conda, channel, make):
    (lock,) = locked(conda, wanting(channel, "cfgtool"))
    (note,) = pathlib.Path(make(lock), "conda-meta").glob("*.json")
    told = json.loads(note.read_text())
    assert told["license"] == "BSD-3-Clause"
    assert told["sha256"] == lock.artifacts[0].digest


@pytest.mark.parametrize("form", ["conda", "tar.bz2"])
def test_both_forms_of_packages_are_installed(conda, tmp_path, form, make):
    here_ = Channel(tmp_path / "channel").add(
        Package("thing", "1").add("share/thing", "content"), form=form
    )
    (lock,) = locked(conda, wanting(here_, "thing"))
    assert pathlib.Path(make(lock), "share", "thing").read_text() == "content"


def test_a_lock_is_the_same_in_every_store_and_for_every_platform_alone(tmp_path, environ, channel):
    wanted = wanting(channel, "tinyml", "cfgtool")
    together = locked(Conda(str(tmp_path / "one"), environ), wanted, *ALL)
    assert [lock.platform for lock in together] == list(ALL)
    alone = [locked(Conda(str(tmp_path / "two"), environ), wanted, name)[0] for name in ALL]
    assert condalock.encode(together, {}) == condalock.encode(tuple(alone), {})
    assert {versions(lock)["cfgtool"] for lock in together} == {"1.2.3"}
    assert versions(together[1])["python"] == f"{channels.VERSION}.99"


def test_a_lock_file_says_all_of_a_lock(conda, channel):
    locks = locked(conda, wanting(channel, "tinyml", "cfgtool"), *ALL, exclude_newer="2025-06-01")
    again = condalock.decode("conda-lock.yml", condalock.encode(locks, {}))
    assert sorted(again.locks, key=lambda k: k.platform) == sorted(locks, key=lambda k: k.platform)


def test_the_machine_that_locks_is_not_asked_what_it_has(home, environ, tmp_path):
    here_ = Channel(tmp_path / "channel").add(
        Package("modern", "1", depends=["__glibc >=2.34"], subdir="linux-64"),
        Package("fast", "1", depends=["__cuda >=12"], subdir="linux-64"),
    )
    for package, variable, version in (("modern", "GLIBC", "2.35"), ("fast", "CUDA", "12.4")):
        wanted = wanting(here_, package)
        with pytest.raises(EnvironmentFailed) as failed:
            locked(Conda(home, environ), wanted, "linux-64")
        assert f"__{variable.lower()}" in " ".join(failed.value.hints)
        declared = {**environ, f"CONDA_OVERRIDE_{variable}": version}
        assert versions(locked(Conda(home, declared), wanted, "linux-64")[0]) == {package: "1"}


def test_a_request_without_an_answer_is_explained_by_its_reason(conda, channel):
    with pytest.raises(EnvironmentFailed) as failed:
        locked(conda, wanting(channel, "tinyml=0.3", "tinymath=2"))
    assert failed.value.message == "the packages of `environment.yml` cannot be resolved"
    told = "\n".join(failed.value.hints)
    assert f"for {here()}:" in told
    assert "tinyml 0.3" in told
    assert "tinymath >=1,<2" in told
    assert os.path.exists(failed.value.log)


def test_a_package_that_there_is_not_is_named(conda, channel):
    with pytest.raises(EnvironmentFailed) as failed:
        locked(conda, wanting(channel, "tinymaths"))
    assert "tinymaths" in failed.value.hints[0]


def test_nothing_newer_than_a_date_is_taken(conda, channel):
    wanted = wanting(channel, "tinyml")
    for date, tinyml, tinymath in (
        ("2023-01-01", "0.3.0", "1.0.0"),
        ("2024-06-01T12:00:00Z", "0.3.0", "1.1.0"),
        ("2025-06-01T00:00:00+02:00", "0.4.0", "1.1.0"),
    ):
        (lock,) = locked(conda, wanted, exclude_newer=date)
        assert (versions(lock)["tinyml"], versions(lock)["tinymath"]) == (tinyml, tinymath)
        assert lock.exclude_newer.endswith("Z")


def test_a_date_that_is_none_is_refused(conda, channel):
    with pytest.raises(UsageError, match="is no date"):
        locked(conda, wanting(channel, "tinyml"), exclude_newer="yesterday")


def test_a_platform_that_is_none_is_refused(conda, channel):
    with pytest.raises(UsageError, match="no platform is called `amiga-64`"):
        locked(conda, wanting(channel, "tinyml"), "amiga-64")


def test_a_lock_changes_no_more_than_it_must(conda, channel):
    old = locked(conda, wanting(channel, "tinymath"), exclude_newer="2023-01-01")
    grown = wanting(channel, "tinymath", "cfgtool")
    (kept,) = locked(conda, grown, keep=old)
    assert versions(kept) == {**versions(old[0]), "cfgtool": "1.2.3"}
    (upgraded,) = locked(conda, grown, keep=old, upgrade=("tinymath",))
    assert versions(upgraded)["tinymath"] == "2.0.0"
    (anew,) = locked(conda, grown, keep=old, upgrade=("*",))
    assert versions(anew)["tinymath"] == "2.0.0"
    (forced,) = locked(conda, wanting(channel, "tinymath>=1.1"), keep=old)
    assert versions(forced)["tinymath"] == "2.0.0"


def test_what_is_kept_is_left_again_when_a_date_forbids_it(conda, channel):
    old = locked(conda, wanting(channel, "tinymath"))
    (lock,) = locked(conda, wanting(channel, "tinymath"), keep=old, exclude_newer="2023-01-01")
    assert versions(lock)["tinymath"] == "1.0.0"


def test_the_same_lock_comes_back_when_nothing_is_to_be_changed(conda, channel):
    old = locked(conda, wanting(channel, "tinyml"), *ALL)
    assert locked(conda, wanting(channel, "tinyml"), *ALL, keep=old) == old


def test_a_package_that_left_its_channel_is_not_kept(conda, tmp_path):
    here_ = populated(tmp_path / "channel")
    old = locked(conda, wanting(here_, "tinymath=1"))
    assert versions(old[0])["tinymath"] == "1.1.0"
    here_.remove("tinymath-1.1.0-pyh0_0")
    (lock,) = locked(conda, wanting(here_, "tinymath=1"), keep=old)
    assert versions(lock)["tinymath"] == "1.0.0"


def test_a_file_that_is_wrong_is_told_with_its_lines(conda):
    text = "channels: conda-forge\ndependencies:\n  - numpy: 1.2\n  - 3.8\n  - scipy >=\n  - pip: requests\n"
    with pytest.raises(ProjectInvalid) as failed:
        locked(conda, asked(text))
    assert [p.where.line for p in failed.value.problems] == [1, 3, 4, 5, 6]
    assert all(p.where.file == "environment.yml" for p in failed.value.problems)


def test_a_channel_that_publishes_no_hashes_is_refused(conda, tmp_path):
    here_ = Channel(tmp_path / "channel").add(Package("thing", "1"))
    (record,) = here_.records[here()].values()
    del record["sha256"]
    here_.index()
    with pytest.raises(EnvironmentFailed, match="publishes no SHA-256"):
        locked(conda, wanting(here_, "thing"))


def test_another_kind_of_environment_is_refused(conda):
    with pytest.raises(Unsupported):
        locked(conda, PythonEnvironment())


# -- judging


UNMET = [
    ("tinymath>=2", "D02", "tinymath 1.1.0 pyh0_0 is locked"),
    ("tinymath 1.1.0 other_0", "D02", "tinymath 1.1.0 pyh0_0 is locked"),
    ("scipy", "D01", "`scipy` is not in the lock"),
    ("python=3.6", "D07", "is locked"),
    ("conda-forge::tinymath", "D05", "it is locked from file://"),
]


@pytest.mark.parametrize(("package", "code", "why"), UNMET)
def test_what_a_lock_lacks(conda, channel, package, code, why):
    (lock,) = locked(conda, wanting(channel, "tinyml=0.3", "tinymath=1"))
    assert conda.unmet(wanting(channel, "tinyml=0.3", "tinymath=1"), lock) == ()
    (one,) = conda.unmet(wanting(channel, "tinyml=0.3", package), lock)
    assert (one.code, one.entry) == (code, package)
    assert why in one.why


def test_order_comments_and_spelling_of_a_request_do_not_matter(conda, channel):
    (lock,) = locked(conda, wanting(channel, "tinyml=0.3", "cfgtool"))
    other = asked(
        f"# another text\nchannels:\n  - {channel.url}/\ndependencies:\n  - CFGtool >=1, <2\n  - tinyml==0.3.*\n"
    )
    assert conda.unmet(other, lock) == ()


def test_a_lock_that_lacks_what_its_packages_need(conda, channel):
    (lock,) = locked(conda, wanting(channel, "tinyml=0.3"))
    without = replace(lock, artifacts=tuple(a for a in lock.artifacts if a.name != "tinymath"))
    (one,) = conda.unmet(wanting(channel, "tinyml=0.3"), without)
    assert (one.code, one.entry) == ("D04", "tinyml 0.3.0")
    assert one.why == "it needs `tinymath >=1,<2`, which is not in the lock"
    other = replace(
        lock,
        artifacts=tuple(
            replace(a, version="2.0.0") if a.name == "tinymath" else a for a in lock.artifacts
        ),
    )
    (one,) = conda.unmet(wanting(channel, "tinyml=0.3"), other)
    assert "tinymath 2.0.0 pyh0_0 is locked" in one.why


def test_a_lock_from_other_channels(conda, channel):
    (lock,) = locked(conda, wanting(channel, "cfgtool"))
    (one,) = conda.unmet(wanting("https://example.org/other", "cfgtool"), lock)
    assert (one.code, one.entry) == ("D05", channel.url)


# -- channels and their logins


CHANNELS = [
    ((), ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")),
    (("defaults",), ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")),
    (("conda-forge", "nodefaults"), ("https://conda.anaconda.org/conda-forge",)),
    (("pytorch/label/dev",), ("https://conda.anaconda.org/pytorch/label/dev",)),
    (("https://a.org/c/",), ("https://a.org/c",)),
    (("https://me:secret@a.org/c",), ("https://a.org/c",)),
    (("https://a.org/t/secret/c",), ("https://a.org/c",)),
    (("https://a.org/t/secret",), ("https://a.org",)),
    (
        ("https://a.org/t/${TOKEN}/c", "https://u:$TOKEN@a.org/d"),
        ("https://a.org/c", "https://a.org/d"),
    ),
    (("file:///srv/t/x/c",), ("file:///srv/t/x/c",)),
    (("./channel",), ("file:///project/channel",)),
]


@pytest.mark.parametrize(("names", "urls"), CHANNELS)
def test_the_urls_of_channels(names, urls):
    assert Channels({"TOKEN": "secret"}, "/project").urls(names) == urls


def test_an_alias_of_the_user_is_where_names_stand():
    assert Channels({"CONDA_CHANNEL_ALIAS": "https://mirror.org/"}).urls(["x"]) == (
        "https://mirror.org/x",
    )


def needs_login(handler):
    good = "Basic " + base64.b64encode(b"me:s3cret").decode()
    if handler.headers.get("Authorization") == good:
        return False
    handler.send_response(401)
    handler.send_header("WWW-Authenticate", "Basic")
    handler.end_headers()
    return True


def needs_token(handler):
    if handler.path.startswith("/t/s3cret/"):
        handler.path = handler.path.removeprefix("/t/s3cret")
        return False
    handler.send_error(403)
    return True


@pytest.mark.parametrize(
    ("answer", "form"),
    [(needs_login, "http://me:{secret}@{host}"), (needs_token, "http://{host}/t/{secret}")],
)
def test_a_login_serves_and_is_written_nowhere(home, environ, channel, serve, answer, form):
    server = serve(channel, answer=answer)
    with pytest.raises(EnvironmentFailed, match="a channel refuses these credentials"):
        locked(Conda(home, environ), wanting(server, "tinyml"))
    named = form.format(secret="$TOKEN", host=server.host)
    conda = Conda(home, {**environ, "TOKEN": "s3cret"})
    (lock,) = locked(conda, wanting(named, "tinyml", "cfgtool"))
    assert {a.url.rsplit("/", 2)[0] for a in lock.artifacts} == {server.url}
    known = form.format(secret="s3cret", host=server.host)
    made = Conda(home, {**environ, "REPRO_CONDA_CHANNELS": known}).realize(lock, silent)
    assert run(made.prefix, "tinyml") == "tinyml 42"
    made.release()
    assert b"s3cret" not in condalock.encode((lock,), {})
    written = [p for p in pathlib.Path(home).rglob("*") if p.is_file() and not p.is_symlink()]
    assert len(written) > 20
    assert [p for p in written if b"s3cret" in p.read_bytes()] == []


def test_a_mirror_serves_and_the_lock_names_the_channel(home, environ, channel, serve):
    server = serve(channel, answer=needs_login)
    mirrors = f"https://conda.anaconda.org/=http://me:s3cret@{server.host}/"
    conda = Conda(home, {**environ, "REPRO_MIRRORS": mirrors})
    wanted = asked("channels: [conda-forge]\ndependencies: [tinyml]\n")
    server.answer = lambda handler: _below(handler, "/conda-forge") or needs_login(handler)
    (lock,) = locked(conda, wanted)
    found = {a.url.rsplit("/", 2)[0] for a in lock.artifacts}
    assert found == {"https://conda.anaconda.org/conda-forge"}
    made = conda.realize(lock, silent)
    assert run(made.prefix, "tinyml") == "tinyml 42"
    made.release()


def _below(handler, folder):
    """Serve the channel below a folder."""
    handler.path = handler.path.removeprefix(folder)


# -- when fetching goes wrong


def heavy(name="heavy", size=300_000):
    return Package(name, "1").add(f"share/{name}", random.Random(name).randbytes(size))


def test_other_bytes_than_the_locked_ones_are_refused(conda, home, tmp_path, make):
    here_ = Channel(tmp_path / "channel").add(heavy())
    (lock,) = locked(conda, wanting(here_, "heavy"))
    path = here_.path("heavy-1-0")
    good = path.read_bytes()
    path.write_bytes(Package("heavy", "1").add("share/heavy", "evil").archive())
    with pytest.raises(
        EnvironmentFailed, match="`heavy-1-0.conda` is not what the lock says: its SHA-256 differs"
    ) as failed:
        conda.realize(lock, silent)
    assert failed.value.hints[0] == f"expected {lock.artifacts[0].digest}"
    assert os.listdir(os.path.join(home, "envs")) == []
    path.write_bytes(good)
    assert os.path.getsize(os.path.join(make(lock), "share", "heavy")) == 300_000


def test_a_wrong_hash_in_a_lock_is_refused(conda, tmp_path):
    here_ = Channel(tmp_path / "channel").add(heavy())
    (lock,) = locked(conda, wanting(here_, "heavy"))
    wrong = replace(lock, artifacts=(replace(lock.artifacts[0], digest="ab" * 32),))
    for first in (False, True):  # also when the right one is cached
        if first:
            conda.realize(lock, silent).release()
        with pytest.raises(EnvironmentFailed, match="its SHA-256 differs"):
            conda.realize(wrong, silent)


def cut(handler):
    """Announce a whole package and give half of it."""
    if not handler.path.endswith(".conda"):
        return False
    data = pathlib.Path(handler.directory, handler.path[1:]).read_bytes()
    handler.give(data[: len(data) // 2], says=len(data))
    return True


def short(handler):
    """Give half of a package as if that were all."""
    if not handler.path.endswith(".conda"):
        return False
    data = pathlib.Path(handler.directory, handler.path[1:]).read_bytes()
    handler.give(data[: len(data) // 2])
    return True


def broken(handler):
    if handler.path.endswith(".conda"):
        handler.send_error(500)
    return handler.path.endswith(".conda")


@pytest.mark.parametrize(
    ("answer", "error"), [(cut, Unreachable), (broken, Unreachable), (short, EnvironmentFailed)]
)
def test_a_download_that_fails_leaves_nothing_half_made(
    conda, home, tmp_path, serve, answer, error, make
):
    here_ = Channel(tmp_path / "channel").add(heavy())
    server = serve(here_)
    (lock,) = locked(conda, wanting(server, "heavy"))
    server.answer = answer
    with pytest.raises(error):
        conda.realize(lock, silent)
    assert os.listdir(os.path.join(home, "envs")) == []
    server.answer = lambda _handler: False
    make(lock)


def test_a_channel_that_is_down_is_worth_a_retry(conda, tmp_path, serve):
    server = serve(Channel(tmp_path / "channel").add(heavy()))
    server.close()
    with pytest.raises(Unreachable):
        locked(conda, wanting(server, "heavy"))


def test_what_was_fetched_before_a_channel_went_down_is_not_fetched_again(
    conda, tmp_path, serve, make
):
    names = [f"part{n}" for n in range(4)]
    server = serve(Channel(tmp_path / "channel").add(*map(heavy, names)))
    (lock,) = locked(conda, wanting(server, *names))
    server.answer = lambda handler: "part3" in handler.path and broken(handler)
    with pytest.raises(Unreachable):
        conda.realize(lock, silent)
    cached = {n for n in names if os.path.isdir(os.path.join(conda._home, "pkgs", f"{n}-1-0"))}
    server.answer = lambda _handler: False
    server.asked.clear()
    make(lock)
    assert "part3" not in cached
    assert set(server.packages) == {f"{n}-1-0.conda" for n in names if n not in cached}


def test_cached_packages_need_no_channel(conda, tmp_path, serve, make):
    server = serve(populated(tmp_path / "channel"))
    wanted = wanting(server, "tinyml", "cfgtool")
    (lock,) = locked(conda, wanted)
    make(lock)
    (smaller,) = locked(conda, wanting(server, "tinymath=2"))
    server.close()
    assert (
        run(make(smaller), "python", "-c", "import tinymath; print(tinymath.__version__)")
        == "2.0.0"
    )


def test_progress_tells_what_happens(conda, tmp_path, serve):
    def slow(handler):
        time.sleep(0.7 if handler.path.endswith(".conda") else 0)
        return False

    server = serve(Channel(tmp_path / "channel").add(heavy()), answer=slow)
    told = []
    (lock,) = conda.lock(LockRequest(environment=wanting(server, "heavy")), told.append)
    conda.realize(lock, told.append).release()
    assert f"solving for {here()}" in told
    assert any("MB downloaded" in text for text in told)


# -- hostile packages


def absolute(outside):
    package = Package("evil", "1").add("share/x", "evil")
    package.renamed["share/x"] = str(outside / "escaped")
    return [package]


def upward(outside):
    """A file of another cached package, copied to beside the prefix."""
    package = Package("evil", "1", depends=["other"]).add("share/x", "evil")
    package.renamed["share/x"] = "../other-1-0/share/escaped"
    return [package, Package("other", "1").add("share/escaped", "evil")]


def member_upward(outside):
    return [Package("evil", "1").add("../escaped", "evil")]


def member_absolute(outside):
    return [Package("evil", "1").add(str(outside / "escaped"), "evil")]


def through_own_link(outside):
    return [Package("evil", "1").link("share/door", str(outside)).add("share/door/escaped", "evil")]


def through_link_of_another(outside):
    other = Package("other", "1").link("share/door", str(outside))
    return [Package("evil", "1", depends=["other"]).add("share/door/escaped", "evil"), other]


def command_upward(outside):
    package = pure("evil", "1")
    package.entry_points = ["../../escaped = evil:main"]
    return [package, channels.shim(), channels.python_abi()]


def installers_note(outside):
    return [Package("evil", "1").add("conda-meta/other-1-0.json", "{}")]


def other_name(outside):
    package = Package("evil", "1").add("share/x", "evil")
    package.index["name"] = "good"
    return [package]


def no_description(outside):
    package = Package("evil", "1").add("share/x", "evil")
    described = package.described()
    del described["info/paths.json"], described["info/files"]
    package.described = lambda: described
    return [package]


HOSTILE = [
    absolute,
    upward,
    member_upward,
    member_absolute,
    through_own_link,
    through_link_of_another,
    command_upward,
    installers_note,
    other_name,
    no_description,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda h: h.__name__)
def test_a_hostile_package_is_refused_and_writes_nothing_outside(conda, home, tmp_path, hostile):
    outside = tmp_path / "outside"
    outside.mkdir()
    here_ = Channel(tmp_path / "channel").add(*hostile(outside))
    if hostile is other_name:
        next(iter(here_.records[here()].values()))["name"] = "evil"
        here_.index()
    (lock,) = locked(conda, wanting(here_, "evil"))
    with pytest.raises(EnvironmentFailed) as failed:
        conda.realize(lock, silent)
    told = failed.value.message + " ".join(failed.value.hints)
    assert "evil" in told or "`other` is refused: its file `share/door/escaped`" in told
    assert os.listdir(outside) == []
    assert os.listdir(os.path.join(home, "envs")) == []


@pytest.mark.parametrize("moment", ["post-link", "pre-link", "pre-unlink"])
def test_a_script_of_a_package_is_never_run_unasked(conda, environ, tmp_path, moment):
    flag = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {flag}\n"
    package = Package("scripted", "1").add(f"bin/.scripted-{moment}.sh", script, 0o755)
    (lock,) = locked(conda, wanting(Channel(tmp_path / "channel").add(package), "scripted"))
    with pytest.raises(EnvironmentFailed) as failed:
        conda.realize(lock, silent)
    told = " ".join(failed.value.hints)
    assert "scripted" in told
    assert "REPRO_LINK_SCRIPTS=1" in told
    assert not flag.exists()
    allowing = Conda(conda._home, {**environ, "REPRO_LINK_SCRIPTS": "1"})
    allowing.realize(lock, silent).release()
    assert flag.exists() == (moment == "post-link")


def test_a_package_for_a_newer_system_is_refused(conda, home, environ, tmp_path):
    if sys.platform != "linux":
        pytest.skip("there is no glibc")
    here_ = Channel(tmp_path / "channel").add(
        Package("modern", "1", depends=["__glibc >=9"]).add("share/x", "")
    )
    (lock,) = locked(
        Conda(home, {**environ, "CONDA_OVERRIDE_GLIBC": "9.1"}), wanting(here_, "modern")
    )
    with pytest.raises(EnvironmentFailed) as failed:
        conda.realize(lock, silent)
    assert "`modern` needs __glibc >=9" in failed.value.hints[0]


def test_a_package_that_lies_about_its_files_is_refused(conda, home, tmp_path):
    package = Package("liar", "1").add("share/x", "content")
    package.lies["share/x"] = "0" * 64
    (lock,) = locked(conda, wanting(Channel(tmp_path / "channel").add(package), "liar"))
    with pytest.raises(
        EnvironmentFailed, match="files of `liar` are not those that the package names"
    ):
        conda.realize(lock, silent)
    assert os.listdir(os.path.join(home, "envs")) == []


def test_a_lock_for_another_platform_is_refused(conda, channel):
    (lock,) = locked(conda, wanting(channel, "cfgtool"), OTHERS[0])
    with pytest.raises(
        EnvironmentFailed, match=f"locked for {OTHERS[0]}, and this machine is {here()}"
    ):
        conda.realize(lock, silent)


def test_an_activation_script_is_told_and_not_run(conda, tmp_path):
    package = Package("active", "1").add(
        "etc/conda/activate.d/active.sh", f"touch {tmp_path}/ran\n"
    )
    (lock,) = locked(conda, wanting(Channel(tmp_path / "channel").add(package), "active"))
    told = []
    conda.realize(lock, told.append).release()
    assert told[-1] == "`active` has an activation script, which is not run"
    assert not (tmp_path / "ran").exists()


def test_an_environment_of_nothing(conda, channel, make):
    (lock,) = locked(conda, wanting(channel))
    assert lock.artifacts == ()
    assert list(pathlib.Path(make(lock), "conda-meta").glob("*.json")) == []


# -- files that were changed


def written_to(path, text="evil = True\n"):
    """Write in place, as only root can at once; anybody else has to change the mode first."""
    assert path.stat().st_mode & 0o222 == 0
    path.chmod(0o644)
    path.write_text(text)


def test_a_file_written_to_in_one_environment_comes_into_no_other(conda, channel, make):
    (one,) = locked(conda, wanting(channel, "tinymath=1.1"))
    (two,) = locked(conda, wanting(channel, "tinymath=1.1", "cfgtool"))
    first = next(pathlib.Path(make(one)).rglob("tinymath/__init__.py"))
    inside = first.relative_to(make(one))
    assert first.stat().st_nlink == 2, "one name in the cache, one in the environment"
    written_to(first)
    assert "evil" not in pathlib.Path(make(two), inside).read_text()


def test_an_environment_that_shares_a_file_which_was_written_to_is_made_anew(conda, channel):
    (one,) = locked(conda, wanting(channel, "tinymath=1.1"))
    (two,) = locked(conda, wanting(channel, "tinymath=1.1", "cfgtool"))
    conda.realize(one, silent).release()
    second = conda.realize(two, silent)
    second.release()
    written_to(next(pathlib.Path(second.prefix).rglob("tinymath/__init__.py")))
    told = []
    for lock in (one, two):
        made = conda.realize(lock, told.append)
        assert (
            "evil" not in next(pathlib.Path(made.prefix).rglob("tinymath/__init__.py")).read_text()
        )
        made.release()
    assert sum("making a conda environment" in text for text in told) == 2


def test_byte_code_is_compiled_once_for_all_environments(conda, channel, make):
    python = f"python={channels.VERSION}"
    (one,) = locked(conda, wanting(channel, python, "tinymath=1.1"))
    (two,) = locked(conda, wanting(channel, python, "tinymath=1.1", "cfgtool"))
    found = [next(pathlib.Path(make(x)).rglob("tinymath/__pycache__/*.pyc")) for x in (one, two)]
    assert os.path.samefile(*found)
    assert run(make(two), "python", "-c", "import tinymath; print(tinymath.add(1, 2))") == "3"
    (kept,) = pathlib.Path(conda._home, "pkgs").glob("tinymath-1.1.0-*+*")
    written_to(kept / "000000")
    (three,) = locked(conda, wanting(channel, python, "tinymath=1.1", "tinyml"))
    assert (
        b"add" in next(pathlib.Path(make(three)).rglob("tinymath/__pycache__/*.pyc")).read_bytes()
    )


def test_what_was_pruned_is_made_again_without_reading_its_files(conda, channel, home, opened):
    python = f"python={channels.VERSION}"
    (lock,) = locked(conda, wanting(channel, python, "tinymath=1.1"))

    def files_read():
        opened.clear()
        made = conda.realize(lock, silent)
        seen = [path for path in opened if "/pkgs/tinymath-" in path and "/info/" not in path]
        assert run(made.prefix, "python", "-c", "import tinymath; print(tinymath.add(1, 2))") == "3"
        made.release()
        return made.prefix, [path for path in seen if os.path.isfile(path)]

    for number in range(4):
        prefix, read = files_read()
        assert number == 0 or read == []
        cache.prune(home, older_than_ns=None, everything=True, dry_run=False, now_ns=0)
    files_read()
    shutil.rmtree(prefix)
    assert len(files_read()[1]) > 1, "modules and byte-code, since others removed their links"


def test_after_a_boot_an_environment_is_read_before_it_is_used(conda, channel):
    (lock,) = locked(conda, wanting(channel, "tinymath=1.1"))
    made = conda.realize(lock, silent)
    made.release()
    marker = pathlib.Path(made.prefix, cache.MARKER)
    text = marker.read_bytes()
    earlier = text.replace(states.boot().encode(), b"an earlier one")
    assert earlier != text
    module = next(pathlib.Path(made.prefix).rglob("tinymath/__init__.py"))
    told = []
    marker.write_bytes(earlier)
    conda.realize(lock, told.append).release()
    assert told == []
    assert cache.marker(made.prefix)["boot"] == ""  # and never again
    marker.write_bytes(earlier)
    before = module.stat()
    written_to(module, "\0" * before.st_size)  # what the power has taken
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    conda.realize(lock, told.append).release()
    assert told[:1] == [f"making a conda environment of {len(lock.artifacts)} packages"]
    assert "\0" not in next(pathlib.Path(made.prefix).rglob("tinymath/__init__.py")).read_text()


def test_a_file_changed_in_the_package_cache_is_found_and_fetched_anew(conda, channel, make):
    (one,) = locked(conda, wanting(channel, "tinymath=1.1"))
    (two,) = locked(conda, wanting(channel, "tinymath=1.1", "cfgtool"))
    make(one)
    cached = next(pathlib.Path(conda._home, "pkgs").rglob("tinymath/__init__.py"))
    cached.chmod(0o644)
    before = cached.read_text()
    cached.write_text("evil = True\n")
    made = next(pathlib.Path(make(two)).rglob("tinymath/__init__.py"))
    assert made.read_text() == before
    assert cached.read_text() == before


def test_a_file_missing_in_the_package_cache_is_fetched_anew(conda, channel, make):
    (one,) = locked(conda, wanting(channel, "cfgtool"))
    (two,) = locked(conda, wanting(channel, "cfgtool", "tinymath"))
    make(one)
    next(pathlib.Path(conda._home, "pkgs").rglob("cfgtool.bin")).unlink()
    assert os.path.exists(os.path.join(make(two), "share", "cfgtool.bin"))


# -- several processes, and sudden ends


def written(folder, *locks):
    paths = []
    for number, lock in enumerate(locks):
        paths.append(os.path.join(folder, f"lock-{number}.json"))
        pathlib.Path(paths[-1]).write_bytes(canonical.encode(value.dump(lock)))
    return paths


def agent(home, files, environ, **more):
    """Make environments in a process of its own."""
    environ = {**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", AGENT, home, *files],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        **more,
    )


def test_eight_processes_that_want_three_environments_make_each_once(
    conda, home, environ, channel, tmp_path
):
    wanted = [("tinyml",), ("tinymath=1",), ("cfgtool",)]
    locks = [locked(conda, wanting(channel, *packages))[0] for packages in wanted]
    files = written(tmp_path, *locks)
    agents = [agent(home, random.Random(n).sample(files, 3), environ) for n in range(8)]
    told = [process.communicate()[0] for process in agents]
    assert [process.returncode for process in agents] == [0] * 8
    assert sum(text.count("making a conda environment") for text in told) == 3
    entries = cache.environments(home)
    assert sorted(e.digest for e in entries) == sorted(lock.digest for lock in locks)
    assert all(e.complete and not e.in_use for e in entries)


def processes_of(home):
    """Find what runs for a store: the processes that have its path among their open files."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(
                os.readlink(f"/proc/{pid}/fd/{fd}").startswith(home)
                for fd in os.listdir(f"/proc/{pid}/fd")
            ):
                found.append(int(pid))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def gone(home, seconds=10):
    end = time.monotonic() + seconds
    while processes_of(home) and time.monotonic() < end:
        time.sleep(0.02)
    return not processes_of(home)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="processes are found in /proc")
@pytest.mark.parametrize("attempt", range(10))
def test_a_process_that_is_killed_while_building_leaves_nothing_that_matters(
    conda, home, environ, channel, tmp_path, make, attempt
):
    (lock,) = locked(conda, wanting(channel, "tinyml", "cfgtool"))
    (file,) = written(tmp_path, lock)
    process = agent(home, [file], environ)
    assert process.stdout.readline() == "ready\n"
    time.sleep(random.Random(attempt).uniform(0, 0.8))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(home), "the process that installs has outlived its caller"
    prefix = make(lock)
    assert run(prefix, "tinyml") == "tinyml 42"
    assert len(list(pathlib.Path(prefix, "conda-meta").glob("*.json"))) == len(lock.artifacts)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="processes are found in /proc")
def test_the_process_that_fetches_ends_with_its_caller(conda, home, environ, tmp_path, serve):
    hold = []

    def hang(handler):
        if handler.path.endswith(".conda"):
            hold.append(handler.path)
            time.sleep(3)
        return False

    server = serve(Channel(tmp_path / "channel").add(heavy()))
    (lock,) = locked(conda, wanting(server, "heavy"))
    server.answer = hang
    process = agent(home, written(tmp_path, lock), environ)
    while not hold:
        assert process.poll() is None
        time.sleep(0.02)
    assert len(processes_of(home)) > 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gone(home, 2)


# -- what it needs


def test_without_rattler_it_is_said_how_to_get_it(home, environ, channel, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True
    )
    conda = Conda(home, environ, python=str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(
        EnvironmentFailed, match="need py-rattler, which is not installed"
    ) as failed:
        locked(conda, wanting(channel, "cfgtool"))
    assert failed.value.hints == ("`pip install 'repro-projects[conda]'`",)


def test_a_process_that_dies_is_told(home, environ, channel, tmp_path):
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nread line\nkill -9 $$\n")
    dying.chmod(0o755)
    with pytest.raises(EnvironmentFailed) as failed:
        locked(Conda(home, environ, python=str(dying)), wanting(channel, "cfgtool"))
    assert "the process ended with code -9" in failed.value.hints[0]


# -- the pip part


@pytest.fixture
def house(tmp_path):
    """A folder of wheels."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    channels.wheel(folder, "plotlib", "1.0", requires=["tinymath>=1"])
    channels.wheel(folder, "plotlib", "2.0", requires=["tinymath>=3"])
    channels.wheel(folder, "tinymath", "3.0")
    channels.wheel(folder, "helper", "0.1")
    return folder


def piped(channel, house, *packages, pip):
    """Ask for packages of a channel, and for those of a folder of wheels alone."""
    return wanting(channel, *packages, pip=["--no-index", f"--find-links {house}", *pip])


def test_pip_adds_to_conda_and_replaces_nothing(conda, channel, house, make):
    wanted = piped(channel, house, "tinymath=1.1", pip=["plotlib", "helper"])
    (lock,) = locked(conda, wanted)
    assert versions(lock)["plotlib"] == "1.0"
    assert [a.kind for a in lock.artifacts if a.name == "tinymath"] == ["conda"]
    assert conda.unmet(wanted, lock) == ()
    prefix = make(lock)
    code = "import plotlib, helper, tinymath; print(tinymath.__version__, tinymath.__file__.startswith({!r}))"
    assert run(prefix, "python", "-c", code.format(prefix)) == "1.1.0 True"


def test_a_pip_part_brings_python_where_nobody_asked_for_it(conda, channel, house):
    (lock,) = locked(conda, piped(channel, house, "cfgtool", pip=["helper"]))
    assert "python" in versions(lock)


def test_a_pip_part_is_locked_for_other_platforms_too(conda, channel, house):
    locks = locked(conda, piped(channel, house, "tinymath=1.1", pip=["plotlib"]), *ALL)
    assert [versions(lock)["plotlib"] for lock in locks] == ["1.0"] * len(ALL)
    again = condalock.decode("x", condalock.encode(locks, {})).locks
    assert sorted(again, key=lambda k: k.platform) == sorted(locks, key=lambda k: k.platform)


def test_what_conda_and_pip_disagree_about_is_told_with_both_sides(conda, channel, house):
    with pytest.raises(
        EnvironmentFailed, match="conda and pip disagree about `tinymath`"
    ) as failed:
        locked(conda, piped(channel, house, "tinymath=1.1", pip=["tinymath>=3"]))
    told = " ".join(failed.value.hints)
    assert "conda gives tinymath 1.1.0 (tinymath-1.1.0-pyh0_0)" in told
    assert "the pip part of `environment.yml` asks for `tinymath>=3`" in told


def test_what_a_package_of_pip_needs_otherwise_is_told_with_both_sides(conda, channel, house):
    with pytest.raises(EnvironmentFailed) as failed:
        locked(conda, piped(channel, house, "tinymath=1.1", pip=["plotlib==2.0"]))
    told = " ".join(failed.value.hints)
    assert "tinymath>=3" in told
    assert "conda gives tinymath 1.1.0 (tinymath-1.1.0-pyh0_0)" in told
    assert "file:///" not in told.replace("file://" + str(house), "")


def test_a_package_that_conda_calls_otherwise_is_not_installed_twice(conda, tmp_path, house, make):
    other = pure("tinymath", "3.5")
    other.name = other.index["name"] = "py-tiny-mathematics"
    here_ = populated(tmp_path / "channel", other)
    wanted = piped(here_, house, "py-tiny-mathematics", pip=["tinymath>=3", "plotlib"])
    (lock,) = locked(conda, wanted)
    assert "tinymath" not in versions(lock)
    assert next(a for a in lock.artifacts if a.name == "py-tiny-mathematics").provides == (
        "tinymath==3.5",
    )
    assert conda.unmet(wanted, lock) == ()
    assert condalock.decode("x", condalock.encode((lock,), {})).locks == (lock,)
    assert (
        run(make(lock), "python", "-c", "import plotlib, tinymath; print(tinymath.__version__)")
        == "3.5"
    )


def test_an_earlier_choice_of_pip_is_kept(conda, channel, house):
    wanted = piped(channel, house, "tinymath=1.1", pip=["helper"])
    old = locked(conda, wanted)
    channels.wheel(house, "helper", "0.2")
    assert locked(conda, wanted, keep=old) == old
    (new,) = locked(conda, wanted, keep=old, upgrade=("helper",))
    assert versions(new)["helper"] == "0.2"


def test_what_a_lock_lacks_of_a_pip_part(conda, channel, house):
    (lock,) = locked(conda, piped(channel, house, "tinymath=1.1", pip=["helper"]))
    for line, code, why in (
        ("helper>=1", "D02", "helper 0.1 is locked"),
        ("other", "D01", "`other` is not in the lock"),
        ("tinymath>=3", "D06", "conda gives 1.1.0"),
    ):
        (one,) = conda.unmet(piped(channel, house, "tinymath=1.1", pip=[line]), lock)
        assert (one.code, one.entry, one.why) == (code, line, why)


def test_a_lock_in_which_pip_overwrites_conda_is_refused(conda, channel, house):
    (lock,) = locked(conda, piped(channel, house, "tinymath=1.1", pip=["helper"]))
    (other,) = locked(conda, piped(channel, house, "cfgtool", pip=["tinymath"]))
    twice = replace(
        lock, artifacts=(*lock.artifacts, next(a for a in other.artifacts if a.name == "tinymath"))
    )
    assert [
        u.code for u in conda.unmet(piped(channel, house, "tinymath=1.1", pip=["helper"]), twice)
    ] == ["D06"]
    with pytest.raises(EnvironmentFailed, match="conda and pip both give `tinymath`"):
        conda.realize(twice, silent)


def test_a_package_of_pip_that_replaces_a_file_of_conda_is_refused(conda, home, channel, house):
    channels.wheel(house, "thief", "1", files={"tinymath/__init__.py": "stolen = True\n"})
    (lock,) = locked(conda, piped(channel, house, "tinymath=1.1", pip=["thief"]))
    with pytest.raises(
        EnvironmentFailed, match="files of `tinymath` are not those that the package names"
    ) as failed:
        conda.realize(lock, silent)
    assert "a package of the `pip:` part replaced them" in failed.value.hints
    assert os.listdir(os.path.join(home, "envs")) == []


# -- a Python from a channel


def test_a_python_comes_from_a_channel(home, environ, tmp_path):
    here_ = populated(tmp_path / "channel")
    asking = {**environ, "REPRO_PYTHON_CHANNEL": here_.url}
    path = python_from_channel(home, asking, channels.VERSION, silent)
    told = subprocess.run(
        [path, "-c", "import sys; print(sys.version.split()[0])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == sys.version.split()[0]
    shutil.rmtree(here_.folder)
    assert python_from_channel(home, asking, channels.VERSION, silent) == path


def test_no_python_comes_unasked(home, environ):
    assert python_from_channel(home, environ, "3.11", silent) == ""


def test_a_python_that_a_channel_has_not(home, environ, channel):
    with pytest.raises(EnvironmentFailed) as failed:
        python_from_channel(home, {**environ, "REPRO_PYTHON_CHANNEL": channel.url}, "3.99", silent)
    assert "python 3.99" in failed.value.hints[0]


def test_a_full_python_stands_on_its_own(conda, tmp_path, make):
    python = channels.full()
    if python is None:
        pytest.skip("the interpreter of the tests is one of the system")
    here_ = Channel(tmp_path / "channel").add(python, *channels.toys())
    (lock,) = locked(conda, wanting(here_, "python", "tinyml"))
    prefix = make(lock)
    assert run(prefix, "tinyml") == "tinyml 42"
    code = "import sys, ssl, sqlite3, ctypes, sysconfig; print(sys.base_prefix, sysconfig.get_config_var('prefix'))"
    assert run(prefix, "python", "-c", code) == f"{prefix} {prefix}"
    assert run(prefix, "python", "-c", "import os; print(os.__file__)").startswith(prefix)

"""The program that runs jobs where repro is not, alone, with both ways of carriage."""

import ast
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import cache_servers

from repro.backends.agent import carrier, depot, frames, trees
from repro.backends.agent.carriage import Failed, Folder
from repro.backends.agent.depot import Depot
from repro.backends.agent.parts import Parts
from repro.backends.agent.web import Http
from repro.errors import UsageError
from repro.ports import Job
from repro.testing.contract import Output

PACKAGE = pathlib.Path(carrier.__file__).parent
LIVES = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with cache_servers.nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(params=["folder", "http", "parts"])
def sent(request, tmp_path):
    """What sends a job by each way: gives where it is, and a carriage to follow it by."""
    if request.param == "parts":
        carriage = {name: str(tmp_path / name) for name in ("path", "blobs")}
        for path in carriage.values():
            os.mkdir(path)
        return Sent(tmp_path, Stock(tmp_path / "blobs").put, {"kind": "parts", **carriage})
    if request.param == "folder":
        parcel = Depot(tmp_path / "shared").parcel("run")
        return Sent(tmp_path, parcel.put, {"kind": "folder", "path": parcel.path})
    url = request.getfixturevalue("server").url
    carriage = {"kind": "http", "url": url, "token": os.urandom(8).hex(), "headers": {}}
    return Sent(tmp_path, Http(url, "", {}).put, carriage)


class Stock:
    """Blobs that are for all jobs, in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def put(self, digest, source):
        if not (self.folder / digest).exists():
            (self.folder / digest).write_bytes(pathlib.Path(source).read_bytes())


class Sent:
    def __init__(self, root, put, carriage):
        self.root, self.put, self.carriage = root, put, carriage
        self.base = root / "base"
        for name in ("work", "home", "tmp"):
            (self.base / name).mkdir(parents=True)
        self.program = root / "agent.pyz"
        self.program.write_bytes(carrier.program())
        self.follower = carrier.Follower(carrier.connect(carriage))
        self.output = Output()

    def start(self, *argv, ports=(), change=None, **fields):
        variables = {"PATH": os.environ["PATH"], **fields.pop("variables", {})}
        job = Job(
            run_id="run",
            argv=argv,
            variables=variables,
            folder=str(self.base / "work"),
            base=str(self.base),
            **fields,
        )
        self.shipment = carrier.ship(job, self.put, str(self.root / "tree"))
        scratch = self.root / "scratch"
        spec = json.loads(
            carrier.specification(
                job, self.shipment.tree, self.carriage, scratch=str(scratch), ports=ports
            )
        )
        self.spec = json.dumps({**spec, **(change or {})})
        return self.again()

    def again(self):
        """Start the agent, as another attempt if it was started before."""
        path = self.root / "spec.json"
        path.write_text(self.spec)
        argv = [sys.executable, "-I", str(self.program), str(path)]
        return subprocess.Popen(argv, stderr=subprocess.PIPE, cwd="/")

    def hear(self, is_so, seconds=60):
        end = time.monotonic() + seconds
        while True:
            self.follower.deliver(self.output)
            if is_so():
                return
            assert time.monotonic() < end, self.output.chunks
            time.sleep(0.02)

    def finish(self, process):
        self.hear(lambda: self.follower.end)
        _, said = process.communicate(timeout=60)
        assert said == b""
        assert not any((self.root / "scratch").iterdir())
        return self.follower.end

    def bring(self):
        carriage = carrier.connect(self.carriage)
        carrier.bring(carriage, self.follower.end["tree"], self.shipment.entries, str(self.base))


def files(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


# --- from inputs to outputs ----------------------------------------------------------------


def test_inputs_get_there_and_what_changed_comes_back(sent):
    work = sent.base / "work"
    (work / "same").write_text("same")
    (work / "sub").mkdir()
    (work / "sub" / "tool").write_text("#!/bin/sh\necho tool\n")
    (work / "sub" / "tool").chmod(0o755)
    (work / "old").write_text("old")
    (work / "gone").write_text("gone")
    (work / "link").symlink_to("/nowhere")
    text = "sub/tool; cat old; echo new >old; rm gone; mkdir -p a/b e; echo o >a/b/c; ln -s c a/b/l"
    process = sent.start("sh", "-c", f"{text}; touch x; chmod +x x; readlink link; exit 0")
    end = sent.finish(process)
    assert (end["code"], end["cause"], process.returncode) == (0, "exit", 0)
    assert (sent.output.out, sent.output.err) == (b"tool\nold/nowhere\n", b"")
    before = (work / "same").stat().st_ino
    sent.bring()
    assert (work / "same").stat().st_ino == before
    assert files(work) == {
        "same": "same",
        "sub/tool": "#!/bin/sh\necho tool\n",
        "old": "new\n",
        "a/b/c": "o\n",
        "a/b/l": "o\n",
        "x": "",
    }
    assert (work / "x").stat().st_mode & 0o100
    assert (work / "e").is_dir()
    assert os.readlink(work / "a/b/l") == "c"


def test_the_command_gets_exactly_its_variables_and_its_own_paths(sent):
    odd = {"EMPTY": "", "LINES": "a\nb", "BYTES": os.fsdecode(b"\xff"), "HOME": f"{sent.base}/home"}
    process = sent.start("env", "-0", variables={**odd, "MINE": str(sent.base), "PATH": "/usr/bin"})
    sent.finish(process)
    found = dict(pair.split(b"=", 1) for pair in sent.output.out.split(b"\0")[:-1])
    home = found.pop(b"HOME")
    assert home == found.pop(b"MINE") + b"/home"
    assert home.startswith(os.fsencode(sent.root / "scratch"))
    assert found == {b"EMPTY": b"", b"LINES": b"a\nb", b"BYTES": b"\xff", b"PATH": b"/usr/bin"}


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("sh", "-c", "exit 9"), 9),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_the_exit_code_is_kept_and_is_that_of_the_program_too(sent, argv, code):
    process = sent.start(*argv)
    end = sent.finish(process)
    assert (end["code"], end["cause"], process.returncode) == (code, "exit", code)


def test_the_specification_may_be_a_variable(sent):
    process = sent.start("true")
    sent.finish(process)
    variables = {"JOB": sent.spec.replace('["true"]', '["env"]')}
    argv = [sys.executable, "-I", str(sent.program), "env:JOB"]
    process = subprocess.run(argv, env=variables, check=False, timeout=60)
    assert process.returncode == 0
    sent.follower.next_attempt()
    sent.hear(lambda: sent.follower.end)
    assert b"JOB" not in sent.output.out


def test_what_a_failed_command_left_comes_back_if_it_is_small(sent):
    work = sent.base / "work"
    (work / "in").write_text("in")
    text = "echo small >small; head -c 17000000 /dev/zero >big; cp big in; exit 3"
    sent.finish(sent.start("sh", "-c", text))
    sent.bring()
    assert files(work) == {"small": "small\n", "in": "in"}


def test_odd_files_come_back_as_odd_ones(sent):
    sent.finish(sent.start("mkfifo", "pipe"))
    sent.bring()
    assert (sent.base / "work" / "pipe").is_fifo()


def test_a_folder_that_locks_everybody_out_is_removed(sent):
    sent.finish(sent.start("sh", "-c", "mkdir a a/b; chmod 0 a/b; chmod 0 a"))


# --- its end -------------------------------------------------------------------------------


def test_being_asked_to_end_is_passed_on_with_a_grace(sent):
    process = sent.start("sh", "-c", LIVES, grace_ms=30_000)
    sent.hear(lambda: b"ready" in sent.output.out)
    process.send_signal(signal.SIGTERM)
    end = sent.finish(process)
    assert (end["code"], end["cause"], sent.output.out) == (143, "cancel", b"ready\nbye\n")


def test_what_does_not_listen_is_killed_with_all_it_started(sent):
    text = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do date >>t; sleep 0.02; done' &)"
    process = sent.start(
        "sh", "-c", f"{text}; while :; do sleep 1; done", timeout_ms=700, grace_ms=200
    )
    end = sent.finish(process)
    assert (end["code"], end["cause"]) == (137, "timeout")


def test_what_is_left_behind_ends_with_the_command(sent):
    sent.finish(sent.start("sh", "-c", "(sleep 600 &) ; (setsid sleep 601 &); exit 4"))
    assert sent.follower.end["code"] == 4
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 601" not in listed.stdout.splitlines()


def test_a_folder_without_signals_has_a_file_that_asks_to_end(tmp_path):
    parts = {"kind": "parts", "path": str(tmp_path / "job"), "blobs": str(tmp_path / "job/blobs")}
    os.mkdir(parts["path"])
    sent = Sent(tmp_path, Parts(parts["path"], "").put, parts)
    process = sent.start("sh", "-c", LIVES, grace_ms=30_000)
    sent.hear(lambda: b"ready" in sent.output.out)
    (tmp_path / "job" / "stop").touch()
    end = sent.finish(process)
    assert (end["code"], end["cause"], sent.output.out) == (143, "cancel", b"ready\nbye\n")


def test_a_program_that_is_killed_has_told_what_came_and_no_end(sent):
    process = sent.start("sh", "-c", LIVES)
    sent.hear(lambda: b"ready" in sent.output.out)
    (command,) = (
        pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    )
    process.kill()
    process.communicate()
    assert is_gone(command)
    sent.follower.deliver(sent.output)
    assert (sent.output.out, sent.follower.end) == (b"ready\n", None)


def is_gone(pid):
    end = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}"):
        if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
            break
        assert time.monotonic() < end
        time.sleep(0.02)
    return True


def test_another_start_begins_anew_and_its_stream_is_followed(sent):
    (sent.base / "work" / "in").write_text("once\n")
    text = "cat in; echo twice >>in; [ ! -e out ] && touch out"
    sent.finish(sent.start("sh", "-c", text))
    assert not sent.follower.next_attempt()
    process = sent.again()
    end = time.monotonic() + 60
    while not sent.follower.next_attempt():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert sent.finish(process)["code"] == 0
    assert sent.follower.attempt == 1
    assert sent.output.out == b"once\nonce\n"


def test_silence_is_told_from_death(sent):
    process = sent.start("sleep", "600", change={"beat_s": 0.2})
    sent.hear(lambda: sent.follower.told > 1)
    assert sent.output.chunks == []
    process.terminate()
    sent.finish(process)


def test_it_says_where_nobody_answers(sent):
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        ports = there.getsockname()[1], gone.getsockname()[1]
        sent.finish(sent.start("true", ports=ports))
    assert sent.output.err == f"repro: {carrier.DEAF}\n".encode()


def test_an_input_that_is_not_what_its_name_says_is_refused(sent, tmp_path):
    (sent.base / "work" / "in").write_text(os.urandom(8).hex())
    other = tmp_path / "other"
    other.write_text("other")
    sent.put(trees.digest_of(str(sent.base / "work" / "in")), str(other))
    end = sent.finish(sent.start("true"))
    assert "not those that its name promises" in end["failed"]
    assert end["code"] == 126


# --- carriage ------------------------------------------------------------------------------


def test_a_server_that_goes_away_and_comes_back_loses_and_doubles_nothing(tmp_path):
    (tmp_path / "nginx").mkdir()
    with cache_servers.nginx(tmp_path / "nginx") as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
        carriage = {"kind": "http", "url": url, "token": "t", "headers": {}}
        sent = Sent(tmp_path, Http(url, "", {}).put, carriage)
        process = sent.start("sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.1; done")
        sent.hear(lambda: b"3\n" in sent.output.out)
    binary = cache_servers.program("nginx", "apt-get install nginx-light")
    config = str(tmp_path / "nginx" / "nginx.conf")
    argv = [binary, "-p", str(tmp_path / "nginx"), "-c", config, "-g", "daemon off;"]
    with cache_servers.running(argv, port, tmp_path / "log"):
        sent.finish(process)
    assert sent.output.out == b"".join(b"%d\n" % n for n in range(1, 41))


def test_what_somebody_else_put_into_the_stream_is_not_believed(server, tmp_path):
    mine, other = Http(server.url, "mine", {}), Http(server.url, "other", {})
    mine.claim()
    other._hidden = mine._hidden
    other.append(0, frames.frame(0, frames.OUT, b"forged"))
    other.flush()
    output = Output()
    follower = carrier.Follower(mine)
    follower.deliver(output)
    assert output.chunks == []
    mine.append(0, frames.frame(0, frames.OUT, b"true"))
    mine.flush()
    follower.deliver(output)
    assert output.out == b"true"


def test_credentials_do_not_follow_a_redirect(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        answer = f"HTTP/1.1 302 Found\r\nLocation: {url}/elsewhere\r\nContent-Length: 0\r\n\r\n"
        asked = subprocess.Popen(
            [sys.executable, "-c", GET, url], stdout=subprocess.PIPE, text=True
        )
        line, _ = door.accept()
        with line:
            assert b"secret" in line.recv(1 << 16)
            line.sendall(answer.encode())
        assert asked.communicate(timeout=60)[0] == "the server answers 302 to GET\n"


GET = """
import sys
from repro.backends.agent.carriage import Failed
from repro.backends.agent.parts import Parts
from repro.backends.agent.web import Http
try:
    Http(sys.argv[1], "t", {"Authorization": "secret"}).get("0" * 64, "/dev/null")
except Failed as error:
    print(error)
"""


LOGS = st.lists(
    st.tuples(st.sampled_from([frames.OUT, frames.ERR, frames.BEAT]), st.binary(max_size=40)),
    max_size=12,
)


@given(LOGS, st.integers(0, 600), st.binary(max_size=30))
def test_whatever_a_crash_leaves_a_prefix_is_read(log, cut, tail):
    whole = b"".join(frames.frame(n, kind, data) for n, (kind, data) in enumerate(log))
    found, used = frames.frames(whole[:cut] + tail, 0)
    survived = found[: len(log)]
    assert survived == log[: len(survived)]
    assert whole[:cut].startswith(whole[: min(used, cut)])
    assert len(found) >= sum(1 for n in range(len(log)) if _end(log, n) <= cut)


@given(LOGS, st.integers(0, 100_000), st.integers(1, 255))
def test_a_flipped_bit_ends_what_is_read(log, at, flip):
    whole = bytearray(b"".join(frames.frame(n, *pair) for n, pair in enumerate(log)))
    if whole:
        whole[at % len(whole)] ^= flip
        found, _ = frames.frames(bytes(whole), 0)
        assert len(found) < len(log)
        assert found == log[: len(found)]


def _end(log, index):
    return sum(frames.HEADER.size + len(data) for _, data in log[: index + 1])


@settings(deadline=None, max_examples=60)
@given(LOGS, st.lists(st.integers(1, 60), max_size=40), st.booleans())
def test_however_writing_and_reading_interleave_each_frame_comes_once(log, steps, twice):
    whole = b"".join(frames.frame(n, kind, data) for n, (kind, data) in enumerate(log))
    carriage = Growing(whole)
    follower, output = carrier.Follower(carriage), Output()
    expected = {
        name: b"".join(d for k, d in log if k == kind) for kind, name in carrier.STREAMS.items()
    }
    for step in steps:
        carriage.size += step
        follower.deliver(output)
        if twice:
            follower.deliver(output)
        for name, text in expected.items():
            assert text.startswith(output.of(name))
    carriage.size = len(whole)
    follower.deliver(output)
    assert {name: output.of(name) for name in expected} == expected
    assert follower.told == len(log)


class Growing:
    """A stream of which ever more can be seen."""

    def __init__(self, whole):
        self.whole, self.size = whole, 0

    def is_taken(self, attempt):
        return attempt == 0

    def read(self, _attempt, position):
        return self.whole[position : self.size]

    after = staticmethod(Folder.after)


def test_an_append_that_failed_half_way_is_overwritten(tmp_path):
    folder = Folder(str(tmp_path))
    folder.append(0, frames.frame(0, frames.OUT, b"one"))
    with (tmp_path / "0.frames").open("ab") as file:
        file.write(frames.frame(1, frames.OUT, b"other")[:20])
    folder.append(0, frames.frame(1, frames.OUT, b"two"))
    assert [d for _, d in frames.frames(folder.read(0, 0), 0)[0]] == [b"one", b"two"]


def test_parts_are_written_once_and_read_when_they_are_whole(tmp_path):
    parts = Parts(str(tmp_path), "")
    assert (parts.claim(), Parts(str(tmp_path), "").claim()) == (0, 1)
    pieces = [bytes([n]) * 65_536 for n in range(40)]
    for piece in pieces:
        parts.append(0, piece)
    parts.flush()
    found, position = [], 0
    while data := parts.read(0, position):
        found.append(data)
        position = parts.after(position, len(data))
    assert b"".join(found) == b"".join(pieces)
    assert len(found) > 1
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    whole = (tmp_path / "0.1.part").read_bytes()
    for cut in (0, 10, 64, 65, len(whole) - 1):
        (tmp_path / "0.1.part").write_bytes(whole[:cut])
        assert parts.read(0, 1) == b""


# --- what comes back is judged -------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        [("../out", "file", "0" * 64, 1)],
        [("/out", "link", "x", 0)],
        [("a/../../b", "dir", "", 0)],
        [("a", "link", "/etc", 0), ("a/b", "file", "0" * 64, 1)],
        [
            ("a", "left", "", 0),
            ("a/b", "dir", "", 0),
            ("a/b/c", "file", "0" * 64, 1),
            ("a", "link", "x", 0),
        ],
        [("a", "device", "", 0)],
        [("a\0b", "file", "0" * 64, 1)],
    ],
)
def test_a_tree_that_leaves_its_place_is_refused(tmp_path, entries):
    folder = Folder(str(tmp_path / "job"))
    (tmp_path / "job" / "blobs").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    tree = tmp_path / "tree"
    tree.write_bytes(trees.packed(entries))
    digest = trees.digest_of(str(tree))
    folder.put(digest, str(tree))
    with pytest.raises(Failed):
        carrier.bring(folder, digest, (), str(tmp_path / "base"))
    assert sorted(os.listdir(tmp_path)) == ["base", "job", "tree"]
    assert os.listdir(tmp_path / "base") == []


@pytest.mark.parametrize("data", [b"", b"{}", b'["x",[]]', b'["repro.job-tree/1",[[1]]]', b"\xff"])
def test_what_is_no_tree_is_refused(data):
    with pytest.raises(Failed):
        trees.unpacked(data)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"code": 0}',
        b'{"code":"0","cause":"exit","failed":""}',
        b'{"code":0,"cause":"x","failed":""}',
    ],
)
def test_an_end_that_says_nothing_sensible_is_refused(tmp_path, payload):
    folder = Folder(str(tmp_path))
    folder.append(0, frames.frame(0, frames.END, payload))
    with pytest.raises(Failed):
        carrier.Follower(folder).deliver(Output())


# --- the folder of all jobs ----------------------------------------------------------------


def test_a_blob_of_several_jobs_is_there_once_and_goes_when_nobody_uses_it(tmp_path):
    shared = Depot(tmp_path / "shared")
    source = tmp_path / "source"
    source.write_text("x")
    name = trees.digest_of(str(source))
    first, second = shared.parcel("one"), shared.parcel("two")
    first.put(name, str(source))
    second.put(name, str(source))
    kept = tmp_path / "shared" / "cas" / name[:2] / name
    assert kept.stat().st_nlink == 3
    first.remove()
    assert kept.stat().st_nlink == 2
    second.distrust()
    assert not kept.exists()
    assert shared.found("one") is None
    assert shared.found("two").path == second.path


def test_old_things_go_unless_they_are_used(tmp_path):
    for name in ("alone", "linked"):
        (tmp_path / name).touch()
    (tmp_path / "other").hardlink_to(tmp_path / "linked")
    (tmp_path / "folder").mkdir()
    for name in ("alone", "linked", "folder", "gone"):
        depot._remove_old(str(tmp_path / name), time.time() - 60)
    assert len(os.listdir(tmp_path)) == 4
    for name in ("alone", "linked", "folder", "gone"):
        depot._remove_old(str(tmp_path / name), time.time() + 60)
    assert sorted(os.listdir(tmp_path)) == ["linked", "other"]


def test_a_run_id_that_is_a_path_names_no_folder(tmp_path):
    for run_id in ("", "..", "a/b", ".x"):
        with pytest.raises(UsageError):
            Depot(tmp_path).parcel(run_id)


def test_jobs_of_one_run_have_folders_of_their_own_and_the_last_is_found(tmp_path):
    shared = Depot(tmp_path)
    first, second = shared.parcel("run"), shared.parcel("run")
    assert first.path != second.path
    first.remove()
    assert shared.found("run").path == second.path
    assert list(shared.runs()) == ["run"]
    assert (tmp_path.stat().st_mode | os.stat(first._blobs).st_mode) & 0o077 == 0


# --- the program itself --------------------------------------------------------------------


def test_the_program_is_always_the_same_bytes():
    assert carrier.program() == carrier.program()


@pytest.mark.parametrize("module", carrier.MODULES)
def test_the_program_needs_python_3_8_and_nothing_else(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    ours = {f"repro.backends.agent.{name}" for name in carrier.MODULES}
    assert {n for n in names - ours if n.partition(".")[0] not in sys.stdlib_module_names} == set()

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY

from repro.errors import RunUnknown, StoreTooNew
from repro.record import FINISHED, KILLED, RUNNING, RunRecord
from repro.store.history import History
from repro.value import replace

RUN = RunRecord(
    run_id="abcd" + "0" * 28,
    status=FINISHED,
    project="/p",
    entry_point="main",
    started_ns=1000,
    parameters=(("a", "1", "given"),),
    notes=("n",),
    metrics={"m": "0.5"},
    parts={"command": "x"},
)


@pytest.fixture
def history(tmp_path):
    opened = History(str(tmp_path / "h"))
    yield opened
    opened.close()


def test_a_run_comes_back(history):
    history.put(RUN)
    assert history.get("abcd") == RUN
    assert history.find() == [RUN]
    assert history.latest("/p", "main") == RUN
    assert history.latest("/p", "other") is None


def test_a_spooled_run_comes_back_after_any_process_reads(history, tmp_path):
    assert history.spool(replace(RUN, cached=True))
    other = History(str(tmp_path / "h"))
    assert [r.cached for r in other.find()] == [True]
    other.close()
    assert history.find()[0].run_id == RUN.run_id


def test_a_spool_line_that_was_cut_off_is_left_out(history, tmp_path):
    history.spool(RUN)
    history.spool(replace(RUN, run_id="b" * 32))
    path = tmp_path / "h/spool"
    path.write_bytes(path.read_bytes()[:-20])
    assert [r.run_id for r in history.find()] == [RUN.run_id]


def test_many_writers_and_readers_lose_nothing(history, tmp_path):
    def work(index):
        mine = History(str(tmp_path / "h"))
        for number in range(20):
            run = replace(RUN, run_id=f"{index:016x}{number:016x}")
            if number % 2:
                mine.spool(run)
            else:
                mine.put(run)
            mine.find(limit=1)
        mine.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.run_id for r in history.find()}) == 120


def test_ids_that_are_wrong_or_not_unique(history):
    history.put(RUN)
    history.put(replace(RUN, run_id="abce" + "0" * 28))
    history.put(replace(RUN, run_id="abcd" + "1" * 28))
    with pytest.raises(RunUnknown, match="several"):
        history.get("abcd")
    assert history.get("abce").run_id.startswith("abce")
    for word in ("", "abc", "zzzz", "' OR 1", "ffff"):
        with pytest.raises(RunUnknown):
            history.get(word)


def test_a_run_whose_owner_died_is_settled(history):
    history.put(replace(RUN, status=RUNNING))
    settled = history.get("abcd")
    assert (settled.status, settled.cause) == (KILLED, "lost")
    assert settled.error


def test_a_run_whose_owner_lives_stays(history, tmp_path):
    lease = history.lease(RUN.run_id)
    history.put(replace(RUN, status=RUNNING))
    assert history.get("abcd").status == RUNNING
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from repro.store.history import History; print(History(sys.argv[1]).get('abcd').status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "h"), os.getcwd()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == RUNNING
    history.release(lease)
    assert history.get("abcd").status == KILLED


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, None])
def test_a_damaged_database_is_put_aside(tmp_path, damage):
    first = History(str(tmp_path / "h"))
    first.put(RUN)
    first.close()
    path = tmp_path / "h/history.db"
    if damage is None:
        data = bytearray(path.read_bytes())
        data[100:2000] = b"\xff" * 1900
        damage = bytes(data)
    path.write_bytes(damage)
    told = []
    second = History(str(tmp_path / "h"), told.append)
    assert second.find() == []
    second.put(RUN)
    assert second.find() == [RUN]
    second.close()
    kept = [p for p in os.listdir(tmp_path / "h") if "damaged" in p]
    if damage:
        assert kept
        assert "kept as" in told[0]
    else:
        assert not kept  # an empty file is an empty database


def test_a_database_of_a_later_version_is_left_alone(tmp_path):
    first = History(str(tmp_path / "h"))
    first.put(RUN)
    first.close()
    database = sqlite3.connect(tmp_path / "h/history.db")
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    with pytest.raises(StoreTooNew) as caught:
        History(str(tmp_path / "h")).find()
    assert caught.value.exit == 2


def test_an_old_spool_is_taken_away_by_many_readers_at_once(history, tmp_path):
    history.spool(RUN)
    history.find()
    (taken,) = (tmp_path / "h").glob("spool.*")
    os.utime(taken, (1, 1))
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from repro.store.history import History; print(len(History(sys.argv[1]).find()))"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "h"), os.getcwd()], stdout=subprocess.PIPE
        )
        for _ in range(8)
    ]
    assert [reader.communicate()[0] for reader in readers] == [b"1\n"] * 8


def test_a_run_that_ended_while_it_was_looked_at_is_not_lost(history):
    running = replace(RUN, status=RUNNING)
    history.put(running)
    history.put(RUN)  # and its lease is gone, when the one who read `running` looks for it
    assert history._settled(running) == RUN
    assert history.get("abcd") == RUN


def test_a_line_that_was_not_written_to_its_end_takes_no_other_with_it(history, tmp_path):
    history.spool(RUN)
    path = tmp_path / "h/spool"
    path.write_bytes(path.read_bytes()[:-20])
    history.spool(replace(RUN, run_id="b" * 32))
    assert [r.run_id for r in history.find()] == ["b" * 32]


BEGINNERS = """
import sys, time
from repro.record import RunRecord
from repro.store.history import History

folder, number, begin = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for turn in range(80):
    while time.time() < begin + turn * 0.015:
        pass
    history = History(f"{folder}/{turn}")
    name = f"{number:032x}"
    history.put(
        RunRecord(run_id=name, status="FINISHED", project="p", entry_point="m", started_ns=1)
    )
    history.close()
"""


def test_many_processes_may_begin_one_history_at_once(tmp_path):
    begin = str(time.time() + 0.5)
    words = [[sys.executable, "-c", BEGINNERS, str(tmp_path), str(n), begin] for n in range(6)]
    started = [
        subprocess.Popen(w, env={"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE)
        for w in words
    ]
    assert [process.communicate()[1] for process in started] == [b""] * 6
    for turn in range(80):
        history = History(str(tmp_path / str(turn)))
        assert len(history.find()) == 6
        history.close()

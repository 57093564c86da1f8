from __future__ import annotations

import itertools
import os

from repro.manifest import Entry
from repro.store.placement import Placement


def outputs(machine, count):
    return [
        Entry(path=f"out{n}", kind="file", content=machine.blobs.put(b"%d" % n))
        for n in range(count)
    ]


def placement(machine, root):
    return Placement(str(root), machine.home, machine.blobs, machine.memos)


def put(place, entry, step):
    place.announce([entry], step)
    place.place([entry], step, known={}, since_ns=0)
    place.remember()


def written(machine, root):
    path = machine.memos.path("placed", str(root))
    return [os.path.getsize(p) if os.path.exists(p) else 0 for p in (path, f"{path}.more")]


def test_what_is_written_for_a_step_does_not_grow_with_the_memory(machine, tmp_path):
    place = placement(machine, tmp_path)
    entries = outputs(machine, 40)
    sizes = []
    for number, entry in enumerate(entries):
        put(place, entry, f"s{number}")
        sizes.append(written(machine, tmp_path))
    assert {whole for whole, _ in sizes} == {0}
    grown = [after[1] - before[1] for before, after in itertools.pairwise(sizes)]
    assert max(grown) < 2 * min(grown)


def test_a_killed_run_has_told_of_every_step(machine, tmp_path):
    place = placement(machine, tmp_path)
    entries = outputs(machine, 3)
    for number, entry in enumerate(entries[:2]):
        put(place, entry, f"s{number}")
    place.announce(entries[2:], "s2")
    after = placement(machine, tmp_path)
    assert after.made_by("s0", "s2") == {"out0": entries[0].content, "out2": entries[2].content}
    assert after.in_place(entries[:2])
    assert not after.in_place(entries)


def test_a_run_that_ends_leaves_one_memory(machine, tmp_path):
    place = placement(machine, tmp_path)
    entries = outputs(machine, 3)
    for entry in entries:
        put(place, entry, "s")
    place.settle()
    place.remember()
    whole, more = written(machine, tmp_path)
    assert whole
    assert not more
    assert placement(machine, tmp_path).memory == place.memory
    assert placement(machine, tmp_path).in_place(entries)


def test_what_two_processes_learn_at_the_same_time_is_kept(machine, tmp_path):
    one, other = placement(machine, tmp_path), placement(machine, tmp_path)
    entries = outputs(machine, 4)
    put(one, entries[0], "a")
    put(other, entries[1], "b")
    put(one, entries[2], "a")
    one.settle()
    one.remember()
    put(other, entries[3], "b")
    put(other, entries[0], "b")  # which made the same as `a` did
    other.settle()
    other.remember()
    after = placement(machine, tmp_path)
    assert after.in_place(entries)
    assert set(after.made_by("a")) == {"out0", "out2"}
    assert set(after.made_by("b")) == {"out0", "out1", "out3"}


def test_what_was_not_written_to_its_end_is_left_out(machine, tmp_path):
    place = placement(machine, tmp_path)
    entries = outputs(machine, 3)
    put(place, entries[0], "s")
    path = f"{machine.memos.path('placed', str(tmp_path))}.more"
    with open(path, "ab") as file:
        file.write(b'\n0123456789abcdef {"out1": ')
    put(place, entries[2], "s")
    assert set(placement(machine, tmp_path).made_by("s")) == {"out0", "out2"}


def test_who_made_a_file_is_who_made_it_last(machine, tmp_path):
    place = placement(machine, tmp_path)
    first, second = outputs(machine, 2)
    assert place.made_by("a") == {}
    put(place, first, "a")
    put(place, Entry(path="out0", kind="file", content=second.content), "b")
    for seen in (place, placement(machine, tmp_path)):
        assert seen.made_by("a") == {}
        assert seen.made_by("b") == {"out0": second.content}


def test_a_long_memory_beside_the_memo_becomes_one(machine, tmp_path):
    place = placement(machine, tmp_path)
    (entry,) = outputs(machine, 1)
    long = [Entry(path=f"{'x' * 200}/{n}", kind="link", content="x") for n in range(4000)]
    place.announce(long, "s")
    assert written(machine, tmp_path)[1] == 0
    put(place, entry, "s")
    assert placement(machine, tmp_path).in_place([entry])
    assert len(placement(machine, tmp_path).made_by("s")) == 4001

"""A store against a model of it: whatever is done in whatever order, what must be there is there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

import hypothesis
from faults import scene
from faults.scene import HOUR_NS, Outputs, Scene
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from repro import digest
from repro.store import integrity
from repro.store.pins import Pins

STEPS = 50
NUMBERS = st.integers(0, 3)


def blobs_of(number):
    """Give the files of a result by their digests; one of them is in all results."""
    return {digest.of_bytes(data): data for data in Outputs(number=number).files.values()}


ALL = {name: data for number in range(4) for name, data in blobs_of(number).items()}


class Store(RuleBasedStateMachine):
    """Results come and go.

    `there` are those that were published and not collected since, `pinned` those that stay,
    `recent` those published since another process began to work, and `rotten` are files that are
    damaged or were set aside for that. A result without a rotten file must be exact.
    """

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="repro-model-")
        self.place = Scene(self.root).open()
        self.place.close()
        self.other = None
        self.there, self.pinned, self.recent, self.rotten = set(), set(), set(), set()

    def teardown(self):
        if self.other is not None:
            self.other.close()
        self.place.close()
        shutil.rmtree(self.root)

    def broken(self):
        return {number for number in self.there if not self.rotten.isdisjoint(blobs_of(number))}

    def repaired(self, elsewhere=None):
        store = (self.place.home, self.place.blobs, self.place.results)
        found = integrity.repair(integrity.verify(*store, jobs=1), *store, elsewhere)
        assert self.place.faults() == []
        return found

    @rule(number=NUMBERS)
    def publish(self, number):
        self.place.publish(number)
        self.there.add(number)
        self.recent.add(number)
        self.rotten -= set(blobs_of(number))

    @rule(number=NUMBERS)
    def look(self, number):
        found = self.place.look(number)
        if number not in self.there:
            assert found == "absent"
        else:
            assert found == ("absent" if number in self.broken() else "exact")

    @rule(name=st.sampled_from(sorted(ALL)), data=st.sampled_from([b"", b"wrong"]))
    def rot(self, name, data):
        place = self.place.blobs.path(name)
        if os.path.exists(place):
            os.chmod(place, 0o600)
            with open(place, "wb") as file:
                file.write(data)
            self.rotten.add(name)

    @rule(number=NUMBERS)
    def pin(self, number):
        if number in self.there:
            Pins(self.place.home).add(Outputs(number=number).key)
            self.pinned.add(number)

    @rule(number=NUMBERS)
    def unpin(self, number):
        assert Pins(self.place.home).drop(Outputs(number=number).key) == (number in self.pinned)
        self.pinned.discard(number)

    @precondition(lambda self: self.other is None)
    @rule()
    def another_process_begins(self):
        time.sleep(0.005)  # two ticks of the clock that files are dated by
        self.other = Scene(self.root).open()
        self.other.home.scratch()
        time.sleep(0.005)
        self.recent.clear()

    @precondition(lambda self: self.other is not None)
    @rule()
    def the_other_process_ends(self):
        self.other.close()
        self.other = None

    @rule(
        kind=st.sampled_from(["tmp/99999-left/blob-1", "memo/x.12345678~", "ac/aa/left.12345678~"])
    )
    def a_process_dies(self, kind):
        path = self.place.home.path(*kind.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"half of something")

    @rule()
    def prune(self):
        now = time.time_ns() + 2 * HOUR_NS
        self.place.prune(ahead_ns=2 * HOUR_NS, before_ns=now)
        self.there &= self.pinned | (self.recent if self.other else set())

    @rule()
    def verify(self):
        found = self.place.faults()
        kinds = [line.split()[0] for line in found]
        assert kinds.count("result") == len(self.broken())
        assert kinds.count("blob") <= len(self.rotten)
        assert len(kinds) == kinds.count("result") + kinds.count("blob")

    @rule()
    def repair(self):
        self.repaired()
        self.there -= self.broken()

    @rule()
    def heal(self):
        place = self.place

        class Elsewhere:
            def fetch_blob(self, name, _size):
                return name in ALL and bool(place.blobs.put(ALL[name]))

            def fetch_result(self, _key):
                return None

        self.repaired(Elsewhere())
        self.rotten.clear()


def run(count, *, seed=1):
    """Do `count` things or more, some at a time."""
    tally = scene.Tally("F18", "steps of a store against its model", count)

    class Counted(Store):
        @invariant()
        def counted(self):
            tally.done += 1

    settings = hypothesis.settings(
        max_examples=count // STEPS + count // 500 + 1,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Counted), settings=settings)
    except Exception as error:  # noqa: BLE001  (no step may raise any)
        tally.fault(" ".join([repr(error), *getattr(error, "__notes__", ())]))
    return tally.end()

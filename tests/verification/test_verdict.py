"""The verdict over all that two executions made."""

from __future__ import annotations

import pytest

from repro import digest
from repro.manifest import Entry
from repro.spec import Compare
from repro.store.verdicts import KEPT, Verdicts
from repro.verification.causes import Traces
from repro.verification.verdict import Compared, Made, Trial, Verdict, compare, state_of

NUMERIC = Compare(pattern="*.json", rule="numeric", rtol="0.01")
KEY = "ab" * 32


class Contents:
    """Contents by their digests."""

    def __init__(self):
        self.known = {}

    def entry(self, path, data, kind="file"):
        name = digest.of_bytes(data)
        self.known[name] = data
        return Entry(path=path, kind=kind, content=name, size=len(data))


def made(*outputs, logged=(), metrics=None):
    return Made(outputs=outputs, logged=tuple(logged), metrics=metrics or {}, traces=Traces())


def seen(then, now, *wanted, read=None):
    found = compare(then, now, wanted, read or (lambda _name: None))
    return {(one.kind, one.path): (one.state, one.rule) for one in found}


def test_what_is_the_same_is_not_listed_and_the_rest_is_by_its_rule():
    contents = Contents()
    then = made(
        contents.entry("same.txt", b"x"),
        contents.entry("a.json", b"[1.0]"),
        contents.entry("b.json", b"[1.0]"),
        contents.entry("train.log", b"1"),
        contents.entry("gone.txt", b""),
    )
    now = made(
        contents.entry("same.txt", b"x"),
        contents.entry("a.json", b"[1.001]"),
        contents.entry("b.json", b"[1.1]"),
        contents.entry("train.log", b"2"),
        contents.entry("new.txt", b""),
    )
    ignored = Compare(pattern="*.log", rule="ignore")
    assert seen(then, now, NUMERIC, ignored, read=contents.known.get) == {
        ("output", "a.json"): ("equal", "rtol 0.01"),
        ("output", "b.json"): ("different", "rtol 0.01"),
        ("output", "gone.txt"): ("different", "exact"),
        ("output", "new.txt"): ("different", "exact"),
        ("output", "train.log"): ("equal", "ignore"),
    }


def test_kinds_links_and_modes_count():
    contents = Contents()
    link = Entry(path="l", kind="link", content="here", size=4)
    then = made(contents.entry("x", b"1"), link)
    now = made(
        contents.entry("x", b"1", "exec"), Entry(path="l", kind="link", content="away", size=4)
    )
    found = compare(then, now, (), contents.known.get)
    assert [(one.path, one.state) for one in found] == [("l", "different"), ("x", "different")]
    assert found[0].details[0].after == "link to away"
    assert found[1].details[0].after == "exec"


def test_metrics_are_compared_by_their_values_and_rules_name_them():
    then = made(metrics={"rmse": "0.5", "r2": "0.9", "seconds": "3.0", "nan": "nan"})
    now = made(metrics={"rmse": "0.6", "r2": "0.9001", "seconds": "9.0", "nan": "nan"})
    rules = (
        Compare(pattern="r2", rule="numeric", atol="0.01"),
        Compare(pattern="seconds", rule="ignore"),
    )
    assert seen(then, now, *rules) == {
        ("metric", "rmse"): ("different", "exact"),
        ("metric", "r2"): ("equal", "atol 0.01"),
        ("metric", "seconds"): ("equal", "ignore"),
    }


def test_what_mlflow_stamps_on_a_model_is_no_difference_and_everything_else_is():
    contents = Contents()
    model = "flavors:\n  sklearn: {}\nmodel_uuid: %s\nrun_id: %s\nutc_time_created: '%s'\n"
    then = made(logged=[contents.entry("model/MLmodel", (model % ("a", "b", "c")).encode())])
    now = made(logged=[contents.entry("model/MLmodel", (model % ("d", "e", "f")).encode())])
    (one,) = compare(then, now, (), contents.known.get)
    assert (one.state, one.kind) == ("equal", "logged")
    other = (model % ("d", "e", "f")).replace("sklearn", "torch").encode()
    changed = made(logged=[contents.entry("model/MLmodel", other)])
    assert state_of(compare(then, changed, (), contents.known.get)) == "different"


def test_what_is_not_in_the_store_any_more_is_different():
    contents = Contents()
    then, now = made(contents.entry("x", b"1")), made(contents.entry("x", b"2"))
    (one,) = compare(then, now, (NUMERIC,), lambda _name: None)
    assert (one.state, one.format) == ("different", "not in the store any more")


def verdict(*states, variations=(), at_ns=1):
    return Verdict(
        key=KEY,
        run_id="cd" * 16,
        project="/p",
        entry_point="main",
        at_ns=at_ns,
        compared=1,
        repetitions=tuple(Trial(state=state) for state in states),
        variations=tuple(Trial(name=name, state=state) for name, state in variations),
    )


@pytest.mark.parametrize(
    ("states", "variations", "expected"),
    [
        (["same"], [], "same"),
        (["same", "equal"], [], "equal"),
        (["equal", "different"], [], "different"),
        (["different", "failed"], [], "failed"),
        (["same"], [("path", "same"), ("user", "skipped")], "same"),
        (["same"], [("path", "changed")], "different"),
        (["same"], [("user", "failed")], "different"),
    ],
)
def test_a_verdict_is_the_worst_that_was_found(states, variations, expected):
    found = verdict(*states, variations=variations)
    assert found.state == expected
    assert found.good is (expected in ("same", "equal"))
    assert found.dependences == tuple(n for n, s in variations if s in ("changed", "failed"))


def test_verdicts_are_kept_the_latest_first_and_not_without_end(tmp_path):
    verdicts = Verdicts(str(tmp_path))
    assert verdicts.get(KEY) == ()
    for at in range(1, KEPT + 4):
        verdicts.put(verdict("same", at_ns=at))
    found = verdicts.get(KEY)
    assert [one.at_ns for one in found] == list(range(KEPT + 3, 3, -1))
    detailed = Trial(
        state="different", outputs=(Compared(path="x", kind="output", state="different"),)
    )
    whole = verdict("same", variations=[("path", "same")])
    whole = Verdict(
        **{**{f: getattr(whole, f) for f in whole.__fields__}, "repetitions": (detailed,)}
    )
    verdicts.put(whole)
    assert verdicts.get(KEY)[0] == whole
    assert verdicts.get(KEY)[0].differed == ("x",)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"format":2,"verdicts":[]}', b'{"format":1,"verdicts":[{"":"Other"}]}', b"[]"],
)
def test_verdicts_that_cannot_be_read_are_none(tmp_path, damage):
    verdicts = Verdicts(str(tmp_path))
    verdicts.put(verdict("same"))
    with open(verdicts.path(KEY), "wb") as file:
        file.write(damage)
    assert verdicts.get(KEY) == ()
    verdicts.put(verdict("same"))
    assert len(verdicts.get(KEY)) == 1

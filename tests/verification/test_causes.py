"""What the bytes that differ look like."""

from __future__ import annotations

import pytest

from repro.verification.causes import CAUSES, Pair, Traces, causes

THEN = Traces(
    run_id="a" * 32, host="mill", users=("ada", "1000"), span=(1_700_000_000, 1_700_000_009)
)
NOW = Traces(
    run_id="b" * 32,
    places=("/s/tmp/2a-0123456789ab/v/work", "/s/tmp/2a-0123456789ab/v"),
    host="farm",
    users=("bob", "1001"),
    span=(1_700_500_000, 1_700_500_009),
    processes=(4000, 4010),
)  # fmt: skip

CASES = [
    ("in /h/.cache/repro/tmp/1f-0123456789ab/aaaaaaaaaaaaaaaa/work/x", "in /s/tmp/2a-0123456789ab/v/work/x", "path"),
    ("/c/envs/0123456789abcdef0123456789abcdef/lib", "/s/tmp/2a-0123456789ab/anew/envs/0123456789abcdef0123456789abcdef/lib", "path"),
    (f"run {'a' * 32}", f"run {'b' * 32}", "run"),
    ("made on mill", "made on farm", "host"),
    ("by ada (1000)", "by bob (1001)", "user"),
    ("2024-01-02 03:04:05", "2024-02-02 03:04:06", "time"),
    ("2024-01-02T03:04:05.123Z", "2024-01-02T03:04:06.5Z", "time"),
    ("Mon Nov 24 12:01:07 UTC 2025", "Mon Nov 24 12:03:41 UTC 2025", "time"),
    ("Mon, 24 Nov 2025 12:01:07 GMT", "Tue, 25 Nov 2025 12:01:07 GMT", "time"),
    ("took 12:01:07", "took 12:03:00", "time"),
    ("at 1700000001", "at 1700500003", "time"),
    ("at 1700000001.25", "at 1700500003.5", "time"),
    ("at 1700000001250", "at 1700500003500", "time"),
    ("<object at 0x7f00aa110000>", "<object at 0x7f00bb220000>", "address"),
    ("id 123e4567-e89b-12d3-a456-426614174000", "id 9b2e4567-e89b-12d3-a456-426614174999", "identifier"),
    ("id 0123456789abcdef01", "id 9123456789abcdef02", "identifier"),
    ("{'a', 'b', 'c'}", "{'c', 'a', 'b'}", "order"),
    ("total 1,5", "total 1.5", "locale"),
    ("pid 3900", "pid 4002", "process"),
    ("sum 0.30000000000000004", "sum 0.3", "float"),
    ("rmse 0.731", "rmse 0.702", "random"),
    ("0.4290741964396416", "0.7327902492510113", "random"),
    ("name Zoë", "name Zo?", "encoding"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), CASES)
def test_a_cause_is_recognised(before, after, expected):
    assert causes([Pair(before=before, after=after)], (THEN, NOW)) == (expected,)


def test_every_cause_has_a_case():
    assert {case[2] for case in CASES} == set(CAUSES)


@pytest.mark.parametrize(
    ("before", "after"),
    [("yes", "no"), ("made on mill today", "made on mill tomorrow"), ("3 apples", "three apples")],
)
def test_nothing_is_said_where_nothing_is_known(before, after):
    same = (THEN, THEN)
    assert causes([Pair(before=before, after=after)], same) == ()


def test_what_is_the_same_on_both_sides_is_no_cause():
    pair = Pair(before="mill 2024-01-02 /a/b rmse 0.5", after="mill 2024-01-02 /a/b rmse 0.9")
    assert causes([pair], (THEN, THEN)) == ("random",)


def test_several_causes_in_one_place_are_all_named():
    pair = Pair(before=f"mill {'a' * 32} 12:00:01", after=f"farm {'b' * 32} 12:00:02")
    assert causes([pair], (THEN, NOW)) == ("run", "host", "time")


def test_a_name_inside_of_a_word_is_none():
    pair = Pair(before="windmill 1.25", after="windmill 7.5")
    assert causes([pair], (THEN, NOW)) == ("random",)

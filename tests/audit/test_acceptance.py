"""What a project accepts: for a reason, for a time, and never unnoticed."""

from __future__ import annotations

from datetime import date

import pytest
from audit.examples import TODAY, collect
from hypothesis import given
from hypothesis import strategies as st

from repro.audit import acceptance, profiles, settings, verdict
from repro.audit.findings import LEVELS as ORDER
from repro.audit.findings import Finding, fails
from repro.audit.rules.table import BY_CODE, LEVELS, RULES
from repro.audit.settings import Acceptance, Settings
from repro.errors import ProjectInvalid, Where

FILE = settings.FILE
MLPROJECT = """\
entry_points:
  main:
    parameters: {data: {type: string, default: /home/ada/a.csv}}
    command: python main.py {data}
  test:
    command: python test.py /home/ada/b.csv
"""


def entry(code="M01", expires="2026-12-31", **more):
    rows = {"reason": "so it is", **more}
    return f'[[accept]]\ncode = "{code}"\nexpires = {expires}\n' + "".join(
        f'{key} = "{value}"\n' for key, value in rows.items()
    )


def judged(text, file=FILE, **told):
    return verdict.judge(collect({"MLproject": MLPROJECT, file: text}, told))


def counted(report, code="M01"):
    return [f.subject for f in report.findings if f.code == code]


def problems(text, file=FILE):
    with pytest.raises(ProjectInvalid) as caught:
        settings.load({file: text.encode()}.get, LEVELS)
    return [(p.message, p.where.line if p.where else 0) for p in caught.value.problems]


# -- what is accepted


def test_without_acceptances_everything_counts():
    assert counted(judged("")) == ["main.data", "test"]


def test_a_code_accepts_all_its_findings():
    report = judged(entry())
    assert counted(report) == []
    assert [(a.finding.subject, a.reason, a.expires) for a in report.accepted] == [
        ("main.data", "so it is", "2026-12-31"),
        ("test", "so it is", "2026-12-31"),
    ]


@pytest.mark.parametrize(
    ("narrowed", "left"),
    [
        ({"subject": "main.data"}, ["test"]),
        ({"subject": "main.*"}, ["test"]),
        ({"subject": "*"}, []),
        ({"path": "MLproject"}, []),
        ({"path": "ML*"}, []),
        ({"path": "conda.yaml"}, ["main.data", "test"]),
        ({"subject": "test", "path": "conda.yaml"}, ["main.data", "test"]),
    ],
)
def test_subject_and_path_narrow_it(narrowed, left):
    assert counted(judged(entry(**narrowed))) == left


def test_it_stands_in_pyproject_as_well():
    text = entry().replace("[[accept]]", "[[tool.repro.audit.accept]]")
    assert counted(judged(text, "pyproject.toml")) == []


def test_its_own_file_goes_before_pyproject():
    files = {"MLproject": MLPROJECT, FILE: "", "pyproject.toml": "[tool.repro.audit\n"}
    assert counted(verdict.judge(collect(files))) == ["main.data", "test"]


def test_a_pyproject_of_others_says_nothing():
    assert counted(judged("[tool.ruff]\nline-length = 100\n", "pyproject.toml")) == [
        "main.data",
        "test",
    ]
    assert counted(judged('[tool]\nrepro = "text"\n', "pyproject.toml")) == ["main.data", "test"]


def test_its_last_day_still_counts():
    assert counted(judged(entry(expires=TODAY.isoformat()))) == []


def test_when_it_has_expired_the_finding_counts_and_the_report_says_why():
    report = judged(entry(expires="2026-01-30"))
    assert counted(report) == ["main.data", "test"]
    (hit,) = [f for f in report.findings if f.code == "Z01"]
    assert "ended on 2026-01-30: so it is" in hit.message
    assert str(hit.where) == f"{FILE}:1"


def test_one_that_accepts_nothing_is_a_finding():
    report = judged("\n\n" + entry("E01") + "\n" + entry())
    (hit,) = [f for f in report.findings if f.code == "Z02"]
    assert (hit.subject, str(hit.where)) == ("E01", f"{FILE}:3")


def test_one_of_a_rule_that_did_not_look_is_not_called_unused():
    assert counted(judged(entry("T01")), "Z02") == []
    there = [{"kind": "missing", "path": "x"}]
    locked = {
        "MLproject": MLPROJECT,
        "python_env.yaml": "python: '3.11'\ndependencies: [a]\n",
        "lockfiles/pylock.linux-64.toml": 'lock-version = "1.0"\ncreated-by = "x"\n',
        FILE: entry("T01"),
    }
    assert counted(verdict.judge(collect(locked, found=there)), "Z02") == ["T01"]


# -- what is refused


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ('[[accept]]\ncode = "M01"\nreason = "x"\n', "an acceptance has no `expires`", 1),
        ('[[accept]]\ncode = "M01"\nexpires = 2026-01-01\n', "an acceptance has no `reason`", 1),
        ("\n" + entry(reason=" "), "the `reason` of an acceptance is no text", 2),
        (entry("M99"), "no rule `M99`", 1),
        (entry("Z01"), "`Z01` cannot be accepted: it is about acceptances", 1),
        ("[[accept]]\ncode = []\nreason = 'x'\nexpires = 2026-01-01\n", "no rule `[]`", 1),
        (entry(expires='"2026-12-31"'), "`expires` is no date", 1),
        (entry(expires="2026-12-31T00:00:00"), "`expires` is no date", 1),
        (entry(subjekt="x"), "unknown key `subjekt`", 1),
        ("acept = []\n", "unknown key `acept`", 1),
        ("accept = 1\n", "`accept` is not a list of tables", 1),
        ('\nlevels = {P99 = "error"}\n', "no rule `P99`", 2),
        ('levels = {P01 = "fatal"}\n', "`P01`: no level `fatal`", 1),
        ('levels = {L01 = "info"}\n', "`L01` cannot be lowered from error to info", 1),
        ('levels = "error"\n', '`levels` is not a table such as `{P01 = "error"}`', 1),
        ("platforms = 'linux-64'\n", "`platforms` is not a list of texts", 1),
        ("require-attestations = 1\n", "`require-attestations` is neither true nor false", 1),
        ("accept = [\n", f"`{FILE}` is not valid TOML: invalid value", 0),
    ],
)
def test_wrong_settings_are_named_with_their_line(text, message, line):
    assert problems(text) == [(message, line)]


def test_the_second_of_two_acceptances_is_found_by_its_line():
    text = entry() + "\n" + entry("M99")
    assert problems(text) == [("no rule `M99`", 6)]


def test_settings_that_are_no_table_are_refused():
    assert problems('[tool.repro]\naudit = "x"\n', "pyproject.toml") == [
        ("the settings are not a table", 0)
    ]


@given(st.text(max_size=80))
def test_no_text_gives_anything_but_settings_or_an_explanation(text):
    for lead in ("", "accept = ", "levels = ", "[[accept]]\ncode = "):
        try:
            found = settings.load({FILE: (lead + text).encode("utf-8", "replace")}.get, LEVELS)
        except ProjectInvalid:
            continue
        assert isinstance(found, Settings)


# -- levels


def test_a_level_can_be_raised():
    report = judged('levels = {M01 = "error"}\n')
    assert [f.level for f in report.findings if f.code == "M01"] == ["error", "error"]


@pytest.mark.parametrize("profile", [None, *profiles.PROFILES.values()])
@pytest.mark.parametrize("raised", ["error", "warning", "info"])
def test_no_profile_takes_back_what_the_project_raised(profile, raised):
    for rule in RULES:
        said = Settings(levels={rule.code: raised})
        usual = verdict.level_of(rule, Settings(), profile)
        found = verdict.level_of(rule, said, profile)
        assert ORDER.index(found) == min(ORDER.index(usual), ORDER.index(raised))


def test_thresholds():
    table = {level: [one for one in ORDER if fails(one, level)] for level in (*ORDER, "never")}
    assert table == {
        "error": ["error"],
        "warning": ["error", "warning"],
        "info": ["error", "warning", "info"],
        "never": [],
    }


# -- profiles


def test_profiles_speak_of_rules_that_there_are():
    letters = {code[0] for code in LEVELS}
    for profile in profiles.PROFILES.values():
        assert set(profile.levels) <= set(LEVELS) | letters
        assert {code for q in profile.questions for code in q.codes} <= set(LEVELS)


def test_what_a_profile_asks_for_is_not_asked_without_one():
    facts = collect({"MLproject": MLPROJECT})
    assert not [f for f in verdict.judge(facts).findings if f.code.startswith("B")]
    assert [f.code for f in verdict.judge(facts, "neurips").findings if f.code == "B02"] == ["B02"]


def answers(report):
    return {one.question: one.answer for one in report.checklist}


def test_a_question_is_answered_by_its_rules():
    facts = collect({"MLproject": MLPROJECT, "LICENSE": "x", FILE: entry("R05")}, {"git": {}})
    found = answers(verdict.judge(facts, "acm"))
    assert found["May others use it: is there a licence?"] == "yes"
    assert found["Is it documented?"] == "no"
    assert found["Does its exact state have a name?"] == "partly"  # accepted
    assert found["Did every step run to its end?"] == "unknown"  # no history was looked at


def test_a_result_that_was_never_made_was_not_reproduced():
    facts = collect({"MLproject": MLPROJECT}, {"steps": []})
    question = "Were the results made a second time, with the same outcome?"
    assert answers(verdict.judge(facts, "acm"))[question] == "no"


# -- laws

CODES = st.sampled_from(["L01", "M01", "S01"])
FINDINGS = st.lists(
    st.builds(
        Finding,
        code=CODES,
        level=st.just("error"),
        message=st.just("m"),
        subject=st.sampled_from(["a", "b", "ab"]),
        where=st.none() | st.builds(Where, file=st.sampled_from(["x", "y"])),
    )
)
ACCEPTANCES = st.lists(
    st.builds(
        Acceptance,
        code=CODES,
        reason=st.just("r"),
        expires=st.dates(date(2026, 1, 25), date(2026, 2, 5)),
        subject=st.sampled_from(["", "a", "a*"]),
        path=st.sampled_from(["", "x", "*"]),
    )
).map(tuple)


@given(FINDINGS, ACCEPTANCES)
def test_every_finding_is_counted_or_accepted_and_none_is_lost(findings, acceptances):
    counted, accepted, unused = acceptance.divide(findings, acceptances, TODAY)
    assert sorted(map(repr, [*counted, *(a.finding for a in accepted)])) == sorted(map(repr, findings))  # fmt: skip
    live = [one for one in acceptances if not acceptance.has_expired(one, TODAY)]
    assert not [f for f in counted for one in live if acceptance.covers(one, f)]
    assert not [f for f in findings for one in unused if acceptance.covers(one, f)]


@given(st.integers(0, 5))
def test_a_fingerprint_stays_when_lines_move(lines):
    before = collect({"MLproject": MLPROJECT})
    after = collect({"MLproject": "# a comment\n" * lines + MLPROJECT})

    def prints(facts):
        return [f.fingerprint for f in verdict.judge(facts).findings]

    assert prints(before) == prints(after)
    assert len(set(prints(before))) == len(prints(before))


def test_the_table_of_rules_is_the_table_of_levels():
    assert {rule.level for rule in RULES} == {*ORDER, "policy"}
    assert BY_CODE["L01"].level == "error"

"""Every rule has a page, and what the page shows as bad and good is bad and good to the rule."""

from __future__ import annotations

import re
import tomllib

import pytest
from audit import examples
from conftest import REPOSITORY

from repro import auditing
from repro.audit import settings, verdict
from repro.audit.rules.table import LEVELS, NEEDS, RULES
from repro.errors import UsageError

PAGES = REPOSITORY / "docs" / "reference" / "rules"
CODES = [rule.code for rule in RULES]
SECTIONS = ("Why it matters", "Bad", "Good", "How to fix it", "How to accept it")


def page(code):
    return (PAGES / f"{code}.md").read_text(encoding="utf-8")


def found(code, title):
    facts = examples.of_page(examples.section(page(code), title))
    report = verdict.judge(facts, "acm" if code.startswith("B") else "")
    return [finding for finding in report.findings if finding.code == code]


@pytest.mark.parametrize("rule", RULES, ids=CODES)
def test_a_rule_has_a_page_with_all_its_parts(rule):
    text = page(rule.code)
    assert text.startswith(f"# {rule.code}: {rule.title}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(SECTIONS)
    assert all(len(examples.section(text, title)) > 20 for title in SECTIONS)


@pytest.mark.parametrize("rule", RULES, ids=CODES)
def test_a_page_says_how_grave_it_is_and_what_it_needs(rule):
    line = page(rule.code).splitlines()[2]
    word = "info" if rule.code.startswith("B") or rule.level == "policy" else rule.level
    assert line.startswith("Level: ")
    assert word in line
    assert ("Needs: " in line) is bool(rule.needs)
    assert not rule.needs or line.endswith(f" Needs: {NEEDS[rule.needs]}.")


@pytest.mark.parametrize("code", CODES)
def test_the_bad_example_has_the_finding(code):
    assert found(code, "Bad")


@pytest.mark.parametrize("code", CODES)
def test_the_good_example_has_it_not(code):
    assert found(code, "Good") == []


@pytest.mark.parametrize("code", [code for code in CODES if not code.startswith("Z")])
def test_the_acceptance_that_a_page_shows_accepts_the_bad_example(code):
    (text,) = re.findall(
        r"```toml\n(.*?)^```",
        examples.section(page(code), "How to accept it"),
        re.MULTILINE | re.DOTALL,
    )
    files = dict(examples.NAMED.findall(examples.section(page(code), "Bad")))
    told = tomllib.loads(files.pop(examples.MACHINE, ""))
    before = files.get(settings.FILE, "")
    report = verdict.judge(
        examples.collect({**files, settings.FILE: before + text}, told),
        "acm" if code.startswith("B") else "",
    )
    assert [one.finding.code for one in report.accepted] == [code] * len(report.accepted) != []
    assert not [finding for finding in report.findings if finding.code == code]


def test_pages_are_of_rules_that_there_are():
    named = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert named == set(LEVELS)


def test_the_index_lists_every_rule_with_its_level_and_title():
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \| (.+?) \|$",
        (PAGES / "index.md").read_text(),
        re.MULTILINE,
    )
    assert [(code, level, title) for code, _file, level, title in rows] == [
        (rule.code, rule.level, rule.title) for rule in RULES
    ]
    assert all(code == file for code, file, _level, _title in rows)


def test_a_page_is_given_by_its_code():
    assert auditing.page("l01") == page("L01")
    with pytest.raises(UsageError, match="no rule `L99`"):
        auditing.page("L99")
    with pytest.raises(UsageError, match="no rule"):
        auditing.page("../index")


@pytest.mark.parametrize("code", [code for code in CODES if not code.startswith("Z")])
def test_the_good_example_was_looked_at(code):
    """It has not the finding because it is good, not because nothing could be read."""
    facts = examples.of_page(examples.section(page(code), "Good"))
    report = verdict.judge(facts, "acm" if code.startswith("B") else "")
    assert not [f.message for f in report.findings if f.code in ("L02", "L05")]
    assert code not in [skipped for one in report.skipped for skipped in one.codes]

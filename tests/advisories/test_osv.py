"""Which versions an advisory is about, by the rules of the OSV schema and PEP 440."""

from __future__ import annotations

import pytest
from advisories.conftest import document

from repro.advisories import osv, severity

RANGE = [("introduced", "0"), ("fixed", "1.2"), ("introduced", "2.0"), ("fixed", "2.3.1")]


def ids(documents, version, name="tiny"):
    return [m.id for m in osv.match(documents, name, version)]


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("0.1", ["1.2"]),
        ("1.1.9", ["1.2"]),
        ("1.2rc1", ["1.2"]),
        ("1.2.dev1", ["1.2"]),
        ("1.2", None),
        ("1.2.0", None),
        ("1.2.post1", None),
        ("1.9", None),
        ("2.0", ["2.3.1"]),
        ("2.3.0+cu118", ["2.3.1"]),
        ("2.3.1+cu118", None),
        ("1!0.5", None),
        ("0.0a1", ["1.2"]),
    ],
)
def test_ranges_are_half_open_and_may_be_several(version, fixed):
    found = osv.match([document("X-1", events=RANGE)], "tiny", version)
    assert [list(m.fixed) for m in found] == ([] if fixed is None else [fixed])


def test_the_order_of_events_in_the_file_does_not_matter():
    for version in ("1.0", "1.5", "2.1", "3.0"):
        orders = (RANGE, RANGE[::-1], RANGE[2:] + RANGE[:2])
        assert len({bool(ids([document("X-1", events=e)], version)) for e in orders}) == 1


@pytest.mark.parametrize(("version", "hit"), [("1.0", True), ("1.2", True), ("1.2.1", False)])
def test_the_last_affected_version_is_affected(version, hit):
    events = [("introduced", "1.0"), ("last_affected", "1.2")]
    found = osv.match([document("X-1", events=events)], "tiny", version)
    assert [m.fixed for m in found] == ([()] if hit else [])


@pytest.mark.parametrize(
    ("version", "hit"),
    [("1.0", True), ("1.0.0", True), ("1.0+local", True), ("1.1", False), ("2004d", True)],
)
def test_listed_versions_count_beside_ranges(version, hit):
    listed = document("X-1", events=[("introduced", "3")], versions=["1.0", "2004d"])
    assert bool(ids([listed], version)) == hit


def test_other_ecosystems_git_ranges_and_withdrawn_ones_say_nothing():
    conda = document("X-1", events=[("introduced", "0")])
    conda["affected"][0]["package"]["ecosystem"] = "npm"
    git = document("X-2", events=[("introduced", "0")])
    git["affected"][0]["ranges"][0]["type"] = "GIT"
    gone = document("X-3", events=[("introduced", "0")], withdrawn="2026-01-01T00:00:00Z")
    assert ids([conda, git, gone], "1.0") == []
    assert osv.subjects(conda) == osv.subjects(gone) == []


def test_names_are_compared_as_the_index_does():
    one = document("X-1", "Tiny.Package_x", events=[("introduced", "0")])
    assert osv.subjects(one) == ["tiny-package-x"]
    assert ids([one], "1", name="tiny_package.X") == ["X-1"]
    assert ids([one], "1", name="tiny") == []


def test_one_document_may_be_about_several_packages():
    one = document("X-1", "a", events=[("introduced", "0"), ("fixed", "2")])
    one["affected"] += document("X", "b", events=[("introduced", "0"), ("fixed", "5")])["affected"]
    assert osv.subjects(one) == ["a", "b"]
    assert osv.match([one], "b", "3")[0].fixed == ("5",)
    assert ids([one], "3", name="a") == []


def test_aliases_are_one_vulnerability():
    everything = [("introduced", "0"), ("fixed", "2.0")]
    documents = [
        document("GHSA-1", events=everything, aliases=["CVE-1"], summary="", details="\nlong\nx"),
        document("PYSEC-1", events=everything, aliases=["CVE-1"], modified="2026-05-01T00:00:00Z"),
        document("GHSA-2", events=everything, aliases=["CVE-2"]),
        document("OTHER-9", events=everything, aliases=["GHSA-1", "GHSA-3"]),
    ]
    first, second = osv.match(documents, "tiny", "1.0")
    assert (first.id, first.aliases) == ("GHSA-2", ("CVE-2",))
    assert second.id == "PYSEC-1"
    assert second.aliases == ("GHSA-1", "GHSA-3", "CVE-1", "OTHER-9")
    assert second.fixed == ("2.0",)
    assert (second.summary, second.modified) == ("long", "2026-05-01T00:00:00Z")
    assert second.url == "https://osv.dev/vulnerability/PYSEC-1"


def test_the_worst_comes_first():
    events = [("introduced", "0")]
    documents = [
        document("X-1", events=events),
        document("X-2", events=events, database_specific={"severity": "MODERATE"}),
        document("X-3", events=events, database_specific={"severity": "CRITICAL"}),
    ]
    assert [(m.id, m.severity) for m in osv.match(documents, "tiny", "1")] == [
        ("X-3", "critical"),
        ("X-2", "medium"),
        ("X-1", ""),
    ]


@pytest.mark.parametrize(
    ("vector", "score"),
    [  # examples and scores as FIRST and NVD publish them
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
        ("CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),
        ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 4.6),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 0.0),
        ("nonsense", 0.0),
        ("CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 0.0),
    ],
)
def test_scores_are_those_that_are_published(vector, score):
    assert severity.score_of(vector) == score


def test_severity_comes_from_a_vector_where_no_word_is_given():
    vectors = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}]
    assert severity.of({"severity": vectors}) == "high"
    assert severity.of({"severity": vectors, "database_specific": {"severity": "LOW"}}) == "low"
    assert severity.of({"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]}) == ""
    assert severity.of({}) == ""

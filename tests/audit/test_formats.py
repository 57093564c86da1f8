"""The formats of the report: against their schemas, and against what they wrote before."""

from __future__ import annotations

import json
import os
import pathlib
import re
import xml.etree.ElementTree as ET
from datetime import date

import jsonschema
import pytest
from audit.examples import collect
from hypothesis import given
from hypothesis import strategies as st

from repro import __version__, schemas
from repro.audit import verdict
from repro.audit.findings import Accepted, Finding, Report
from repro.audit.formats import cyclonedx, document, junit, markdown, sarif, text
from repro.audit.formats.words import ranges, visible
from repro.audit.rules.table import LEVELS
from repro.errors import Where
from repro.lock import Artifact, EnvironmentLock, Image, Interpreter
from repro.lockfiles import dockerlock, pylock
from repro.value import replace

HERE = pathlib.Path(__file__).parent
GOLDENS = HERE / "goldens"
AUDIT = jsonschema.Draft202012Validator(schemas.load("audit"))
SARIF = jsonschema.Draft202012Validator(json.loads((HERE / "sarif-part.schema.json").read_text()))
SHA = {letter: letter * 64 for letter in "abcdef"}
NUMPY = Artifact(
    name="numpy",
    version="1.26.4",
    kind="wheel",
    digest=SHA["a"],
    filename="numpy-1.26.4-cp311-cp311-linux_x86_64.whl",
    url="https://files.pythonhosted.org/packages/numpy-1.26.4-cp311-cp311-linux_x86_64.whl",
)
PANDAS = Artifact(
    name="pandas",
    version="2.2.0",
    kind="wheel",
    digest=SHA["b"],
    filename="pandas-2.2.0-cp311-cp311-linux_x86_64.whl",
    url="https://files.pythonhosted.org/packages/pandas-2.2.0-cp311-cp311-linux_x86_64.whl",
    depends=("numpy>=1.23", "pytz"),
)
OWN = Artifact(name="own", version="0.1", kind="directory", digest=SHA["c"], url="own")
LOCK = EnvironmentLock(
    kind="python",
    platform="linux-64",
    interpreter=Interpreter(
        implementation="cpython", version="3.11.7", abi="cpython-311", platform="linux-x86_64"
    ),
    artifacts=(NUMPY, PANDAS, OWN),
)
IMAGE = EnvironmentLock(
    kind="docker",
    platform="linux-64",
    image=Image(
        reference="ghcr.io/lab/r:4.3", id=f"sha256:{SHA['d']}", manifest=f"sha256:{SHA['e']}"
    ),
)
FILES = {
    "MLproject": """\
name: wine
python_env: python_env.yaml
entry_points:
  train:
    parameters:
      api_key: {type: string, default: 8f1d0c2b7a}
      data: {type: string, default: /home/ada/wine.csv}
    command: "pip install xgboost && python train.py {data} {api_key}"
  evaluate:
    docker_env: {image: "ghcr.io/lab/r:4.3"}
    inputs: [evaluate.R]
    outputs: [metrics.json]
    command: "Rscript evaluate.R --out $OUT | tee log"
""",
    "python_env.yaml": 'python: "3.11"\ndependencies:\n  - pandas>=2\n  - seaborn\n',
    "lockfiles/pylock.linux-64.toml": pylock.encode((LOCK,), {}).decode(),
    "lockfiles/docker-lock.json": dockerlock.encode((IMAGE,), {}).decode(),
    "README.md": "# Wine\n\nRun `repro run .`.\n",
    ".repro-audit.toml": """\
deny-licenses = ["GPL-*"]

[[accept]]
code = "M01"
reason = "the example is only for | this lab"
expires = 2026-12-31

[[accept]]
code = "E02"
reason = "until summer"
expires = 2026-12-31

[[accept]]
code = "N02"
reason = "old"
expires = 2025-12-31
""",
}
TOLD = {
    "steps": [{"step": "train", "last_good": "k9p1a0b2", "verified": "2026-01-10"}],
    "git": {"commit": "3c0711f" + "0" * 33, "dirty": True},
    "licences": [
        {"name": "numpy", "version": "1.26.4", "text": "BSD-3-Clause"},
        {"name": "pandas", "version": "2.2.0", "text": "BSD License, see the file"},
    ],
    "advisories": {
        "source": "osv/PyPI",
        "date": "2026-01-20",
        "uncovered": ["own"],
        "matches": [
            {
                "id": "PYSEC-2026-1",
                "name": "numpy",
                "version": "1.26.4",
                "aliases": ["CVE-2026-1"],
                "fixed": ["1.26.5"],
                "summary": "a crafted <file> runs code",
                "severity": "high",
                "url": "https://osv.dev/vulnerability/PYSEC-2026-1",
            }
        ],
    },
}


@pytest.fixture(scope="module")
def facts():
    return collect(FILES, TOLD)


@pytest.fixture(scope="module")
def report(facts):
    return verdict.judge(facts, "acm")


def dumped(data):
    return json.dumps(data, indent=2) + "\n"


def golden(name, written):
    """Compare with the file; `UPDATE_GOLDENS=1` writes it, to be read before it is committed."""
    path = GOLDENS / name
    shown = written.replace(f'"{__version__}"', '"VERSION"')
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


def test_text(report):
    golden("report.txt", "\n".join(text.lines(report)) + "\n")


def test_text_is_shorter_when_asked_to(report):
    brief = list(text.lines(report, brief=True))
    assert not [line for line in brief if line.startswith(("info", "not looked at"))]
    assert brief[-1] == list(text.lines(report))[-1]


def test_colours_are_the_callers(report):
    painted = "\n".join(text.lines(report, lambda word, colour: f"<{colour}>{word}</>"))
    assert "<red>error[S01]</> MLproject:6: " in painted


def test_json(report):
    written = document.document(report)
    AUDIT.validate(written)
    golden("report.json", dumped(written))


def test_markdown(report):
    golden("report.md", markdown.write(report))


def test_junit(report):
    written = junit.write(report)
    suite = ET.fromstring(written).find("testsuite")
    cases = suite.findall("testcase")
    failed = [case for case in cases if case.find("failure") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert len(cases) == int(suite.get("tests")) == len(LEVELS)
    assert (
        len(failed)
        == int(suite.get("failures"))
        == len({f.code for f in report.findings if f.level == "error"})
    )
    assert len(skipped) == int(suite.get("skipped")) > 0
    golden("report.junit.xml", written)


def test_the_threshold_decides_which_rules_fail_in_junit(facts):
    def failures(level):
        return junit.write(verdict.judge(facts, fail_on=level)).count("<failure ")

    assert 0 == failures("never") < failures("error") < failures("warning") < failures("info")


def test_sarif(report):
    written = sarif.document(report)
    SARIF.validate(written)
    (run,) = written["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"]
    assert len(run["results"]) == len(report.findings) + len(report.accepted)
    assert [r["ruleId"] for r in run["results"] if "suppressions" in r] == ["M01"]
    run["tool"]["driver"]["rules"] = rules[:2]
    golden("report.sarif", dumped(written))


def test_the_schema_that_sarif_is_checked_with_refuses_what_is_none(report):
    good = sarif.document(report)
    for spoil in (
        lambda d: d.pop("runs"),
        lambda d: d.update(version="2.0.0"),
        lambda d: d["runs"][0]["results"][0].update(level="info"),
        lambda d: d["runs"][0]["results"][0].pop("message"),
        lambda d: d["runs"][0]["tool"]["driver"].pop("name"),
    ):
        bad = json.loads(json.dumps(good))
        spoil(bad)
        assert not SARIF.is_valid(bad)


def test_a_place_is_written_as_a_uri():
    where = Where(file="my data/50% <a>.yaml", line=3)
    finding = Finding(code="L01", level="error", message="m", where=where)
    result = sarif.document(Report(project="p", findings=(finding,)))["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "my%20data/50%25%20%3Ca%3E.yaml"
    assert place["region"] == {"startLine": 3}


# -- the bill of materials


def test_cyclonedx(facts):
    written = dumped(cyclonedx.document(facts))
    golden("bom.json", written)


def test_the_bill_is_accepted_by_cyclonedx_itself(facts):
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation import json as validation
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("cyclonedx-python-lib is not installed")
        pytest.skip("pip install 'cyclonedx-python-lib[json-validation]'")

    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(dumped(cyclonedx.document(facts))) is None
    assert validator.validate_str(dumped({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{}]}))  # fmt: skip


def test_the_bill_names_every_package_once_and_nothing_that_is_not_there(facts):
    bill = cyclonedx.document(facts)
    refs = [component["bom-ref"] for component in bill["components"]]
    assert sorted(c["name"] for c in bill["components"]) == ["ghcr.io/lab/r:4.3", "numpy", "own", "pandas"]  # fmt: skip
    assert len(set(refs)) == len(refs)
    needs = {row["ref"]: row.get("dependsOn", []) for row in bill["dependencies"]}
    assert needs.keys() == {"project", *refs}
    assert all(on in refs for found in needs.values() for on in found)
    pandas, numpy = (next(r for r in refs if f"/{n}@" in r) for n in ("pandas", "numpy"))
    assert needs[pandas] == [numpy]
    assert pandas in needs["project"]
    assert numpy not in needs["project"]
    assert [row["affects"] for row in bill["vulnerabilities"]] == [[{"ref": numpy}]]


def test_the_number_of_a_bill_is_that_of_its_content(facts):
    again = cyclonedx.document(collect(FILES, TOLD))
    assert again == cyclonedx.document(facts)
    later = cyclonedx.document(replace(facts, today=date(2026, 2, 1)))
    assert later["serialNumber"] != again["serialNumber"]
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", again["serialNumber"]
    )


@pytest.mark.parametrize(
    ("artifact", "purl"),
    [
        (NUMPY, f"pkg:pypi/numpy@1.26.4?file_name={NUMPY.filename}"),
        (OWN, ""),
        (
            Artifact(
                name="zlib",
                version="1.3.1",
                kind="conda",
                digest=SHA["a"],
                build="h4ab18f5_1",
                url="https://conda.anaconda.org/conda-forge/linux-64/zlib-1.3.1-h4ab18f5_1.conda",
            ),
            "pkg:conda/zlib@1.3.1?build=h4ab18f5_1&channel=conda-forge&subdir=linux-64",
        ),
        (
            Artifact(
                name="x",
                version="1.0+cpu",
                kind="vcs",
                digest="a" * 40,
                url="https://me:hunter22@git.example/x.git",
            ),
            f"pkg:pypi/x@1.0%2Bcpu?vcs_url=https://git.example/x.git%40{'a' * 40}",
        ),
    ],
)
def test_package_urls(artifact, purl):
    assert cyclonedx.purl(artifact) == purl


# -- laws


@pytest.mark.parametrize(
    "secret", ["8f1d0c2b7a", "hunter22", "hf_abcdefghijklmnopqrstuvwxyzabcdefgh"]
)
def test_no_format_shows_a_secret(secret):
    index = f"https://ci:{secret}@index.example/simple"
    files = {
        **FILES,
        "MLproject": FILES["MLproject"].replace("8f1d0c2b7a", secret)
        + f"    env: {{TOKEN: {secret}}}\n",
        "python_env.yaml": FILES["python_env.yaml"] + f"  - --index-url {index}\n",
    }
    facts = collect(files, TOLD)
    report = verdict.judge(facts, "acm")
    assert {"S01", "S03", "U01"} <= {f.code for f in report.findings}
    for written in (
        "\n".join(text.lines(report)),
        dumped(document.document(report)),
        dumped(sarif.document(report)),
        dumped(cyclonedx.document(facts)),
        markdown.write(report),
        junit.write(report),
    ):
        assert secret not in written


ODD = st.text(
    alphabet=st.sampled_from("ab|<>&\"'`[](){}!\\\n\r\t\x1b\x00\x85\u2028é😀 \udcff"), max_size=12
)
FINDINGS = st.builds(
    Finding,
    code=st.sampled_from(sorted(LEVELS)),
    level=st.sampled_from(["error", "warning", "info"]),
    message=ODD,
    subject=ODD,
    fix=ODD,
    where=st.none() | st.builds(Where, file=ODD, line=st.integers(0, 9)),
    extra=st.dictionaries(ODD, ODD, max_size=1),
)
REPORTS = st.builds(
    Report,
    project=ODD,
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
    accepted=st.lists(
        st.builds(Accepted, finding=FINDINGS, reason=ODD, expires=st.just("2026-12-31")),
        max_size=1,
    ).map(tuple),
    fail_on=st.sampled_from(["error", "warning", "info", "never"]),
)


@given(REPORTS)
def test_whatever_a_project_is_called_every_format_stays_what_it_is(report):
    lines = list(text.lines(report))
    assert all(line.isprintable() for line in lines)
    assert len(ET.fromstring(junit.write(report))) == 1
    rows = [row for row in markdown.write(report).splitlines() if row.startswith("|")]
    for row in rows:
        cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1
        assert cells in (3, 5)
    written = json.loads(json.dumps(document.document(report)))
    AUDIT.validate(written)
    scanned = sarif.document(report)
    scanned["runs"][0]["tool"]["driver"]["rules"] = []  # the same for every report
    SARIF.validate(scanned)


@given(st.text(max_size=30))
def test_what_is_visible_is_printable_and_says_the_same(words):
    shown = visible(words)
    assert shown.isprintable()
    assert words.isprintable() <= (shown == words)


@given(st.sets(st.sampled_from(sorted(LEVELS))))
def test_ranges_name_all_codes_and_no_other(chosen):
    named = set()
    for part in ranges(sorted(chosen)).split():
        first, _, last = part.partition("-")
        numbers = range(int(first[1:]), int((last or first)[1:]) + 1)
        named |= {f"{first[0]}{number:02}" for number in numbers}
    assert named == chosen

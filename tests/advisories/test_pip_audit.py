"""pip-audit, asking the same advisories over OSV's protocol, finds the same."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from advisories.conftest import document

from repro.advisories import database

RANGES = {
    "PYSEC-1": ("tiny", [("introduced", "0"), ("fixed", "1.5")], ["0.9", "1.0", "1.4"]),
    "GHSA-1": ("tiny", [("introduced", "0"), ("fixed", "1.5")], ["0.9", "1.0", "1.4"]),
    "PYSEC-2": ("tiny", [("introduced", "1.1"), ("fixed", "1.3")], ["1.1", "1.2"]),
    "GHSA-3": ("tiny", [("introduced", "1.0"), ("last_affected", "1.0")], ["1.0"]),
    "PYSEC-4": ("Some.Other", [("introduced", "0")], ["1.0", "2.0"]),
    "GHSA-5": ("clean", [("introduced", "2.0")], ["2.0"]),
}
ALIASES = {"PYSEC-1": ["CVE-1", "GHSA-1"], "GHSA-1": ["CVE-1", "PYSEC-1"]}
PINS = {"tiny": "1.0", "some-other": "2.0", "clean": "1.0", "unheard-of": "3"}


@pytest.fixture
def program():
    found = pathlib.Path(sys.executable).parent / "pip-audit"
    if not found.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("pip-audit is not installed")
        pytest.skip("pip install pip-audit")
    return found


def test_pip_audit_finds_the_same(source, serve, home, program, tmp_path, environ):
    documents = [
        document(name, package, events=events, aliases=ALIASES.get(name, []))
        for name, (package, events, _versions) in RANGES.items()
    ]
    gone = document("PYSEC-9", events=[("introduced", "0")], withdrawn="2026-01-01T00:00:00Z")
    source.add(*documents, gone)

    def answer(_method, _path, _headers, body):
        """Answer from the lists of versions, which our copy of the advisories does not have."""
        asked = json.loads(body)
        name, version = asked["package"]["name"], asked["version"]
        found = [
            document(one, package, events=events, versions=versions, aliases=ALIASES.get(one, []))
            for one, (package, events, versions) in RANGES.items()
            if package.lower().replace(".", "-") == name and version in versions
        ]
        return 200, {}, json.dumps({"vulns": found} if found else {}).encode()

    pins = tmp_path / "requirements.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in PINS.items()))
    done = subprocess.run(
        [
            *(program, "--requirement", pins, "--no-deps", "--disable-pip", "--format", "json"),
            *("--vulnerability-service", "osv", "--osv-url", f"{serve(answer)}/v1/query"),
            *("--progress-spinner", "off", "--cache-dir", tmp_path / "cache"),
        ],
        env=environ,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr.decode()
    theirs = {
        (one["name"], frozenset([v["id"], *v["aliases"]]))
        for one in json.loads(done.stdout)["dependencies"]
        for v in one.get("vulns", ())
    }
    known = database.load(str(source.folder), home, fetch=False, progress=print)
    ours = {(m.package, frozenset([m.id, *m.aliases])) for m in known.match(tuple(PINS.items()))}
    assert ours == theirs
    assert len(ours) == 3

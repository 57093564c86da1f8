"""All rules. A code never changes its meaning; a rule that goes takes its code with it."""

from __future__ import annotations

from repro.audit.rules import (
    acceptances,
    commands,
    drift,
    hashes,
    images,
    inputs,
    locks,
    machines,
    papers,
    past,
    pins,
    prefixes,
    secrets,
    supply,
    urls,
)
from repro.audit.rules.rule import Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro.audit.rules.rule import Check

ERROR, WARNING, INFO, POLICY = "error", "warning", "info", "policy"
RELOCK = "`repro lock`; `repro lock --diff` shows what changes"


FIXES = {
    "not-locked": f"name it in the request and lock again, or {prefixes.REBUILD}",
    "pip-installed": "name it below `pip:` in the conda file, and lock again",
    "changed": prefixes.OWNER,
    "extra": prefixes.OWNER,
    "cache-changed": "find out who did it; it is unpacked anew before it is used again",
    "runs-at-start": "read what it does; accept it, or remove its package",
    "link-script": "read what it does; accept it, or remove its package",
}
"""What to do about what was found in an environment, where it is not simply to be made anew."""

RUN = "a run whose result is in the store"
THERE = "`--installed`, and an environment that was made of the lock"
NEEDS = {
    "installed": THERE,
    "licences": THERE,
    "cache": "`--installed`",
    "alterations": THERE,
    "advisories": "`--osv`, a copy of the OSV database",
    "history": "the history of this machine",
    "reads": "a run that was watched",
    "writes": RUN,
    "verdicts": "`repro verify`",
    "git": "a project that is no archive",
    "images": "a container engine that answers, or `--online`",
    "builds": "an engine that has an image by the name in the lock",
    "tags": "`--online`, and a registry that answers",
    "releases": "`--online`, and an index that answers",
    "attestations": "`--online`, and an index that tells of attestations",
    "provenance": RUN,
}
"""How each part of the facts that a rule may need is brought about."""


def _of_prefix(*rows: tuple[str, ...]) -> Iterator[tuple[str, str, str, Check, str]]:
    """Give the rules that report some kinds of what was found in a realised environment."""
    for code, level, title, *kinds in rows:
        fix = FIXES.get(kinds[0], prefixes.REBUILD)
        yield code, level, title, prefixes.found(*kinds, fix=fix), "installed"


_ROWS: tuple[tuple[str, str, str, Check, str], ...] = (
    ("L01", ERROR, "an environment has no lock", locks.missing, ""),
    ("L02", ERROR, "a lock file cannot be read", locks.unreadable, ""),
    ("L03", ERROR, "a platform is not locked", locks.platform, ""),
    ("L04", ERROR, "a lock file was edited by hand", locks.edited, ""),
    ("L05", WARNING, "a lock could not be compared", locks.unchecked, ""),
    ("D01", ERROR, "what is asked for is not in the lock", drift.gaps("D01", RELOCK), ""),
    ("D02", ERROR, "the lock does not satisfy the request", drift.gaps("D02", RELOCK), ""),
    ("D03", WARNING, "a package is locked that nothing asks for", drift.unneeded, ""),
    ("D04", ERROR, "a dependency is missing in the lock", drift.gaps("D04", RELOCK), ""),
    ("D05", ERROR, "the lock was made from other channels", drift.gaps("D05", RELOCK), ""),
    ("D06", ERROR, "conda and pip disagree about a package", drift.gaps("D06", RELOCK), ""),
    ("D07", ERROR, "the lock has another Python", drift.gaps("D07", RELOCK), ""),
    ("D08", WARNING, "the last result is of another environment", drift.unused, "history"),
    ("H01", ERROR, "a package is locked without a hash", hashes.absent, ""),
    ("H02", WARNING, "a package is locked by MD5 alone", hashes.weak, ""),
    ("H03", ERROR, "a checkout names no commit", hashes.checkout, ""),
    ("H04", WARNING, "a package is built from source", hashes.source, ""),
    ("H05", INFO, "a package is built from the project's files", hashes.local, ""),
    ("H06", ERROR, "a direct URL has no hash", hashes.direct, ""),
    ("U01", ERROR, "a URL holds a credential", urls.credential, ""),
    ("U02", ERROR, "packages come over plain http", urls.plain, ""),
    ("U03", WARNING, "a package comes from a place not named", urls.undeclared, ""),
    ("P01", INFO, "a version is neither pinned nor locked", pins.unpinned, ""),
    ("P02", WARNING, "a locked version was withdrawn", pins.yanked, "releases"),
    ("P03", WARNING, "a package is newer than the lock's limit", pins.newer, "releases"),
    ("P04", WARNING, "the version of Python is not pinned", pins.python_unpinned, ""),
    *_of_prefix(
        ("I01", ERROR, "a locked package is not installed", "not-installed"),
        ("I02", ERROR, "an installed package is not locked", "not-locked"),
        ("I03", ERROR, "another build is installed than locked", "other-version", "other-build"),
        ("I04", ERROR, "pip installed into a conda environment", "pip-installed"),
        ("T01", ERROR, "an installed file was changed", "changed"),
        ("T02", ERROR, "an installed file is missing", "missing"),
        ("T03", ERROR, "a file belongs to no package", "extra"),
        ("T04", WARNING, "an installed file has no digest", "no-digest"),
        ("T05", ERROR, "a package cache was changed", "cache-changed"),
        ("T06", ERROR, "an environment is not as it was built", "other-tree"),
        ("X01", INFO, "code runs at every start of Python", "runs-at-start"),
    ),
    ("X02", WARNING, "Python takes code from outside", prefixes.outside, ""),
    *_of_prefix(
        ("X03", WARNING, "a package runs a script when installed", "link-script"),
        ("X04", WARNING, "the Python below an environment changed", "other-base"),
    ),
    ("K01", ERROR, "an image is named by a tag", images.unpinned, ""),
    ("K02", ERROR, "a tag stands for another image now", images.moved, "tags"),
    ("K03", ERROR, "an image is for another architecture", images.architecture, "images"),
    ("K04", ERROR, "an image cannot be had", images.absent, "images"),
    ("K05", ERROR, "a built image is not the locked one", images.built, "builds"),
    ("V01", ERROR, "a package has a known vulnerability", supply.known, "advisories"),
    ("V02", INFO, "no source of advisories covers a package", supply.uncovered, ""),
    ("V03", WARNING, "the advisories are old", supply.stale, "advisories"),
    ("C01", POLICY, "a package states no licence", supply.unlicensed, "licences"),
    ("C02", POLICY, "a licence is against the policy", supply.refused, "licences"),
    ("C03", POLICY, "the licence of a package changed", supply.relicensed, "licences"),
    ("A01", POLICY, "a package has no attestation", supply.unsigned, "attestations"),
    ("A02", ERROR, "an attestation is not valid", supply.forged, "attestations"),
    ("A03", ERROR, "the provenance of a run is not valid", supply.provenance, "provenance"),
    ("G01", INFO, "environments lie about unused", past.leftovers, "cache"),
    ("S01", ERROR, "a default is a secret", secrets.default, ""),
    ("S02", WARNING, "a parameter is a secret and does not say so", secrets.undeclared, ""),
    ("S03", ERROR, "a secret stands in the project", secrets.written, ""),
    ("E01", ERROR, "a step changes its environment", commands.installing, ""),
    ("E02", INFO, "a step calls another workflow tool", commands.nested, ""),
    ("E03", WARNING, "a command reads an undeclared variable", commands.variables, ""),
    ("E04", ERROR, "an environment cannot be made", commands.unmakable, ""),
    ("E05", ERROR, "a run changed its environment", commands.altered, "alterations"),
    ("M01", WARNING, "a path of one machine", machines.paths, ""),
    ("M02", WARNING, "a mount of one machine", machines.mounts, ""),
    ("M03", WARNING, "an environment file of one machine", machines.platform, ""),
    (
        *("N01", WARNING, "a step read what it does not declare"),
        inputs.traced("read", "read", "inputs"),
        "reads",
    ),
    ("N02", INFO, "a step declares no inputs", inputs.inputs, ""),
    ("N03", INFO, "a step declares no outputs", inputs.outputs, ""),
    ("N04", WARNING, "remote data is not checked", inputs.remote, ""),
    (
        *("N05", WARNING, "a step made what it does not declare"),
        inputs.traced("made", "made", "outputs"),
        "writes",
    ),
    ("R01", INFO, "a result was never verified", past.unverified, "history"),
    ("R02", ERROR, "a second run gave another result", past.different, "verdicts"),
    ("R03", INFO, "a step has no seed", past.unseeded, ""),
    ("R04", WARNING, "changes are not committed", past.dirty, "git"),
    ("R05", WARNING, "the project is not in Git", past.uncommitted, "git"),
    ("R06", INFO, "a step never succeeded here", past.never, "history"),
    ("B01", INFO, "the project has no licence", papers.licence, ""),
    ("B02", INFO, "the project has no README", papers.readme, ""),
    (
        *("B03", INFO, "the README does not say how to run it"),
        papers.mentions(
            papers.RUN,
            "the README does not say how to run it",
            "give the commands, such as `repro run .`, and what they make",
        ),
        "",
    ),
    ("B04", INFO, "the project cannot be cited", papers.citation, ""),
    (
        *("B05", INFO, "there is no training code"),
        papers.entry(papers.TRAIN, "trains anything", "add an entry point `train`"),
        "",
    ),
    (
        *("B06", INFO, "there is no evaluation code"),
        papers.entry(papers.EVALUATE, "evaluates anything", "add an entry point `evaluate`"),
        "",
    ),
    ("B07", INFO, "the README has no table of results", papers.results, ""),
    (
        *("B08", INFO, "no trained model is offered"),
        papers.mentions(
            papers.MODEL,
            "the README does not say where the trained models are",
            "publish them and name the place, or say that training takes minutes",
        ),
        "",
    ),
    ("B09", INFO, "the cost of a run is not said", papers.cost, ""),
    ("Z01", WARNING, "an acceptance has expired", acceptances.expired, ""),
    ("Z02", WARNING, "an acceptance accepts nothing", lambda _facts: (), ""),
)

RULES = tuple(
    Rule(code=code, level=level, title=title, check=check, needs=needs)
    for code, level, title, check, needs in _ROWS
)
BY_CODE = {rule.code: rule for rule in RULES}
LEVELS = {rule.code: rule.level for rule in RULES}
HELP = "https://repro-projects.dev/reference/rules/"


def help_uri(code: str) -> str:
    """Give the address of a rule's page."""
    return f"{HELP}{code}"

"""Documents of the OSV schema: which versions of which package they are about."""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.version import InvalidVersion, Version

from repro.advisories import severity
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

ECOSYSTEM = "PyPI"
RANGES = ("ECOSYSTEM", "SEMVER")
FAMILIES = ("PYSEC-", "GHSA-", "CVE-")
"""By which of its ids a vulnerability is called, the first that it has."""

WEB = "https://osv.dev/vulnerability/"


class Match(Value):
    """A vulnerability that one version of a package has.

    Documents that are aliases of each other are one match: `id` is PyPI's own where there is
    one, `aliases` are the others. `fixed` are the versions without it, above this one, the lowest
    first. `severity` is `low`, `medium`, `high`, `critical`, or empty where nobody says.
    `modified` is when the youngest of the documents was changed (RFC 3339).
    """

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    severity: str = ""
    summary: str = ""
    modified: str = ""

    @property
    def url(self) -> str:
        """Give the page about it."""
        return WEB + self.id


def subjects(document: Mapping[str, Any]) -> list[str]:
    """Name the Python packages that a document is about, normalised; none for a withdrawn one."""
    if document.get("withdrawn"):
        return []
    return sorted({normalised(str(a["package"]["name"])) for a in _affected(document)})


def check(document: Mapping[str, Any]) -> None:
    """Read all of a document that a later question could need.

    Raises what reading data of a wrong shape raises: KeyError, TypeError, AttributeError or
    ValueError.
    """
    severity.of(document)
    _ids(document)
    for part in _affected(document):
        _fixes([part], _parsed("0"))
        _is_affected(part, "", _parsed("0"))
    str(document["modified"])


def match(documents: Iterable[Mapping[str, Any]], name: str, version: str) -> list[Match]:
    """Give what `documents` say of one version of one package, the worst first.

    A version that PEP 440 does not know is looked up in the lists of versions alone.
    """
    name = normalised(name)
    own = _parsed(version)
    hits = []
    for document in documents:
        if document.get("withdrawn"):
            continue
        parts = [a for a in _affected(document) if normalised(str(a["package"]["name"])) == name]
        bad = [part for part in parts if _is_affected(part, version, own)]
        if bad:
            hits.append((document, _fixes(bad, own)))
    found = [_merged(group, name, version) for group in _grouped(hits)]
    return sorted(found, key=lambda m: (-severity.LEVELS.index(m.severity), m.id))


def normalised(name: str) -> str:
    """Write a name as PEP 503 does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _affected(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in document.get("affected") or ():
        if (part.get("package") or {}).get("ecosystem") == ECOSYSTEM:
            yield part


@lru_cache(maxsize=1 << 16)
def _parsed(text: str) -> Version | None:
    """Read a version; a local part, as in `1.0+cpu`, says nothing about vulnerabilities."""
    try:
        return Version(text.partition("+")[0])
    except InvalidVersion:
        return None


def _is_affected(part: Mapping[str, Any], version: str, own: Version | None) -> bool:
    listed = [str(text) for text in part.get("versions") or ()]
    if version in listed:
        return True
    if own is None:
        return False
    return any(_parsed(text) == own for text in listed) or any(
        _contains(span, own) for span in _ranges(part)
    )


def _ranges(part: Mapping[str, Any]) -> Iterator[list[tuple[str, str]]]:
    """Give the events of each range of versions, as (kind, version)."""
    for one in part.get("ranges") or ():
        if one.get("type") in RANGES:
            yield [(k, str(v)) for event in one.get("events") or () for k, v in event.items()]


def _contains(events: list[tuple[str, str]], own: Version) -> bool:
    """Say whether a version lies in a range, by the rules of the OSV schema."""
    inside = False
    for kind, at in sorted(_ordered(events), key=lambda event: event[1]):
        if kind == "introduced" and own >= at:
            inside = True
        elif (kind == "fixed" and own >= at) or (kind == "last_affected" and own > at):
            inside = False
    return inside


def _ordered(events: list[tuple[str, str]]) -> Iterator[tuple[str, Version]]:
    for kind, text in events:
        at = _parsed("0.dev0" if text == "0" else text)
        if at is not None:
            yield kind, at


def _fixes(parts: list[Mapping[str, Any]], own: Version | None) -> set[Version]:
    """Give the lowest fixed version above `own` of every range that it lies in.

    Where only a list of versions names it, any range has to do.
    """
    if own is None:
        return set()
    spans = [span for part in parts for span in _ranges(part)]
    fixes = [
        [at for kind, at in _ordered(span) if kind == "fixed" and at > own]
        for span in [span for span in spans if _contains(span, own)] or spans
    ]
    return {min(above) for above in fixes if above}


def _ids(document: Mapping[str, Any]) -> set[str]:
    return {str(document["id"]), *(str(alias) for alias in document.get("aliases") or ())}


def _grouped(
    hits: list[tuple[Mapping[str, Any], set[Version]]],
) -> list[list[tuple[Mapping[str, Any], set[Version]]]]:
    """Put documents together that have an id in common, by themselves or through others."""
    groups: list[tuple[set[str], list[tuple[Mapping[str, Any], set[Version]]]]] = []
    for hit in hits:
        ids, together = _ids(hit[0]), [hit]
        apart = []
        for known, members in groups:
            if known & ids:
                ids |= known
                together = members + together
            else:
                apart.append((known, members))
        groups = [*apart, (ids, together)]
    return [members for _ids_of_all, members in groups]


def _merged(group: list[tuple[Mapping[str, Any], set[Version]]], name: str, version: str) -> Match:
    documents = [document for document, _fixed in group]
    ids = sorted(set().union(*(_ids(document) for document in documents)), key=_rank)
    fixed = sorted(set().union(*(versions for _document, versions in group)))
    texts = [str(d.get("summary") or d.get("details") or "") for d in documents]
    return Match(
        package=name,
        version=version,
        id=ids[0],
        aliases=tuple(ids[1:]),
        fixed=tuple(str(at) for at in fixed),
        severity=severity.worst([severity.of(document) for document in documents]),
        summary=next((text.strip().splitlines()[0] for text in texts if text.strip()), ""),
        modified=max(str(d.get("modified") or "") for d in documents),
    )


def _rank(identifier: str) -> tuple[int, str]:
    ranks = [i for i, family in enumerate(FAMILIES) if identifier.startswith(family)]
    return (ranks or [len(FAMILIES)])[0], identifier

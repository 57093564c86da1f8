"""All locked packages as a bill of materials: CycloneDX 1.6."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit, urlunsplit

from repro import __version__, digest
from repro.audit.rules.demands import demands, name, normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from repro.audit.facts import Advisory, Facts
    from repro.lock import Artifact, EnvironmentLock, Image

    Licences = Mapping[tuple[str, str], str]

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
ROOT = "project"
SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


class _Part:
    """A component in the making: where it is used and what it needs, by reference."""

    def __init__(self, ref: str, about: dict[str, Any]) -> None:
        self.ref = ref
        self.about = about
        self.used: dict[str, None] = {}
        self.needs: dict[str, None] = {}


def document(facts: Facts) -> dict[str, Any]:
    """Give the bill as data; equal facts give equal bills."""
    parts: dict[str, _Part] = {}
    direct: dict[str, None] = {}
    licences = {(one.name, one.version): one.text for one in facts.licences or ()}
    for env in facts.environments:
        wanted = {demand.name for demand in demands(env.request)}
        for _file, lock in env.locked:
            direct |= _add(parts, lock, wanted, env.label, licences)
    rows = [_component(part) for part in sorted(parts.values(), key=lambda p: p.ref)]
    needs = {ROOT: direct, **{part.ref: part.needs for part in parts.values()}}
    body = {
        "metadata": _metadata(facts),
        "components": rows,
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(on)} if on else {})}
            for ref, on in sorted(needs.items())
        ],
        **_vulnerabilities(facts, parts),
    }
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{_uuid(body)}",
        "version": 1,
        **body,
    }


def _uuid(body: dict[str, Any]) -> str:
    from uuid import UUID

    return str(UUID(hex=digest.of_value("repro/bom", body)[:32], version=5))


def _metadata(facts: Facts) -> dict[str, Any]:
    commit = facts.git.commit if facts.git else ""
    return {
        "timestamp": f"{facts.today.isoformat()}T00:00:00Z",
        "tools": {"components": [{"type": "application", "name": "repro", "version": __version__}]},
        "component": {
            "type": "application",
            "bom-ref": ROOT,
            "name": facts.name or ROOT,
            **({"version": commit} if commit else {}),
        },
    }


def _add(
    parts: dict[str, _Part],
    lock: EnvironmentLock,
    wanted: set[str],
    label: str,
    licences: Licences,
) -> dict[str, None]:
    """Add the packages of a lock; give the references of those that the project asks for."""
    used = f"{label or 'project'} {lock.platform}".strip()
    direct: dict[str, None] = {}
    if lock.image is not None:
        ref = _image_purl(lock.image)
        _put(parts, ref, _image(lock.image, ref), used)
        direct[ref] = None
    refs = {artifact.name: _ref(artifact) for artifact in lock.artifacts}
    for artifact in lock.artifacts:
        ref = refs[artifact.name]
        part = _put(parts, ref, _package(artifact, ref, licences), used)
        for line in artifact.depends:
            needed = name(line.rpartition("::")[2])
            on = refs.get(needed.lower()) or refs.get(normal(needed))
            if on and on != ref:
                part.needs[on] = None
        if artifact.name in wanted or not wanted:
            direct[ref] = None
    return direct


def _put(parts: dict[str, _Part], ref: str, about: dict[str, Any], used: str) -> _Part:
    part = parts.setdefault(ref, _Part(ref, about))
    part.used[used] = None
    return part


def _component(part: _Part) -> dict[str, Any]:
    properties = [{"name": "repro:environment", "value": used} for used in sorted(part.used)]
    return {**part.about, "properties": properties}


def _ref(artifact: Artifact) -> str:
    return purl(artifact) or f"{artifact.kind}:{artifact.name}@{artifact.digest[:16]}"


def purl(artifact: Artifact) -> str:
    """Give the package URL of a locked package, empty for one of the project's own files."""
    if artifact.kind == "directory":
        return ""
    if artifact.kind == "conda":
        *_host, channel, subdir, _file = ["", "", "", *urlsplit(artifact.url).path.split("/")]
        qualifiers = {"build": artifact.build, "channel": channel, "subdir": subdir}
        return _purl("conda", artifact.name, artifact.version, qualifiers)
    if artifact.kind == "vcs":
        source = f"{_public(artifact.url)}@{artifact.digest}"
        return _purl("pypi", artifact.name, artifact.version, {"vcs_url": source})
    return _purl("pypi", artifact.name, artifact.version, {"file_name": artifact.filename})


def _purl(kind: str, name_: str, version: str, qualifiers: dict[str, str]) -> str:
    tail = "&".join(
        f"{key}={quote(value, safe=':/')}" for key, value in sorted(qualifiers.items()) if value
    )
    base = f"pkg:{kind}/{quote(name_, safe='')}@{quote(version, safe='')}"
    return f"{base}?{tail}" if tail else base


def _image_purl(image: Image) -> str:
    bare, _, tag = image.reference.partition("@")[0].rpartition(":")
    if not bare or "/" in tag:
        bare, tag = image.reference.partition("@")[0], ""
    qualifiers = {"repository_url": bare, "tag": tag}
    return _purl("oci", bare.rpartition("/")[2], image.manifest or image.id, qualifiers)


def _image(image: Image, ref: str) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": ref,
        "name": image.reference,
        "version": image.manifest or image.id,
        "hashes": [{"alg": "SHA-256", "content": image.id.removeprefix("sha256:")}],
        "purl": ref,
    }


def _package(artifact: Artifact, ref: str, licences: Licences) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": artifact.digest}] if _is_file(artifact) else []
    hashes += [{"alg": "MD5", "content": artifact.md5}] if artifact.md5 else []
    address = _public(artifact.url)
    reference = [{"type": "distribution", "url": address}] if "://" in address else []
    licence = _licence(licences.get((artifact.name, artifact.version), "").strip())
    found = {"hashes": hashes, "licenses": licence, "externalReferences": reference}
    return {
        "type": "library",
        "bom-ref": ref,
        "name": artifact.name,
        "version": artifact.version,
        **({"purl": ref} if ref.startswith("pkg:") else {}),
        **{key: value for key, value in found.items() if value},
    }


def _is_file(artifact: Artifact) -> bool:
    return artifact.kind in ("wheel", "sdist", "conda") and digest.is_digest(artifact.digest)


def _licence(text: str) -> list[dict[str, Any]]:
    """Write a licence as an expression of SPDX, where it is one, or as its own words."""
    if SPDX.fullmatch(text):
        return [{"expression": text}]
    return [{"license": {"name": text[:200]}}] if text else []


def _public(url: str) -> str:
    """Write a URL without credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    bare = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, bare, parts.path, "", ""))


def _vulnerabilities(facts: Facts, parts: dict[str, _Part]) -> dict[str, Any]:
    found = facts.advisories
    if found is None or not found.matches:
        return {}
    refs: dict[tuple[str, str], list[str]] = {}
    for ref, part in sorted(parts.items()):
        refs.setdefault((part.about["name"], part.about["version"]), []).append(ref)
    return {
        "vulnerabilities": [
            _vulnerability(one, found.source, refs.get((one.name, one.version), []))
            for one in found.matches
        ]
    }


def _vulnerability(one: Advisory, source: str, refs: list[str]) -> dict[str, Any]:
    about = {"name": source, **({"url": one.url} if one.url else {})}
    return {
        "id": one.id,
        "source": about,
        **({"references": _aliases(one.aliases, about)} if one.aliases else {}),
        **({"description": one.summary} if one.summary else {}),
        "affects": [{"ref": ref} for ref in refs],
    }


def _aliases(aliases: Iterable[str], about: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": alias, "source": {"name": about["name"]}} for alias in aliases]

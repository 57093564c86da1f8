"""docker-lock.json: every image of a project, for every platform it was locked for.

    {
      "about": {},
      "digest": "…",                      of all the rest: says whether somebody else edited it
      "images": [
        {
          "reference": "python:3.11",
          "platforms": {"linux-64": {"id": "sha256:…", "layers": [], "manifest": "sha256:…"}}
        },
        {
          "reference": "Dockerfile",
          "build": {"dockerfile": "Dockerfile", "context": "…"},
          "platforms": {"linux-64": {"id": "sha256:…", "layers": [], "tool": "buildah 1.28.2"}}
        }
      ],
      "schema": "repro.docker-lock/1"
    }

An image in a registry has the digest of its platform's manifest; one without is known by its id.
"""

from __future__ import annotations

from repro import canonical, digest, manifest, platforms
from repro.errors import LockInvalid, Where
from repro.lock import EnvironmentLock, Image
from repro.lockfiles import references
from repro.lockfiles.names import LockFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

KIND = "docker"
SCHEMA = "repro.docker-lock/"
VERSION = 1
MAKER = "repro"


class _Fault(ValueError):
    """What is wrong with a document, and perhaps what to do."""


def encode(locks: tuple[EnvironmentLock, ...], about: Mapping[str, str]) -> bytes:
    """Give the text of the lock file. Equal locks give equal bytes, in whatever order they come.

    Raises LockInvalid for locks that are none of docker, or contradict each other.
    """
    import json

    document: dict[str, Any] = {
        "schema": f"{SCHEMA}{VERSION}",
        "about": dict(about),
        "images": _images(locks),
    }
    try:
        _check(_locks(document))
    except _Fault as fault:
        message = f"these images cannot be locked together: {fault.args[0]}"
        raise LockInvalid(message) from None
    document["digest"] = _seal(document)
    return json.dumps(document, indent=2, sort_keys=True).encode("ascii") + b"\n"


def decode(path: str, data: bytes) -> LockFile:
    """Read a lock file. Raises LockInvalid for what is none, or of a later version."""
    try:
        document = canonical.decode(data)
    except canonical.NotCanonical as error:
        line, column = _place(data)
        raise LockInvalid(
            f"`{path}` is no JSON of a lock: {error}",
            where=Where(file=path, line=line, column=column),
            hints=["take it from the project's history, or write it anew with `repro lock`"],
        ) from None
    try:
        _check_version(document)
        locks = tuple(_locks(document))
        _check(locks)
    except _Fault as fault:
        raise LockInvalid(
            f"`{path}` cannot be used: {fault.args[0]}",
            where=Where(file=path),
            hints=fault.args[1:] or ["write it anew with `repro lock`"],
        ) from None
    return LockFile(
        path=path,
        kind=KIND,
        locks=locks,
        edited=document.get("digest") != _seal(document),
        maker=MAKER,
    )


# -- writing


def _images(locks: Iterable[EnvironmentLock]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for lock in locks:
        image = lock.image
        if lock.kind != KIND or image is None:
            raise LockInvalid("a lock without an image has no place in a lock file of images")
        key = (image.reference, image.dockerfile, image.context)
        entry = found.setdefault(key, {"reference": image.reference, "platforms": {}})
        if image.dockerfile:
            entry["build"] = {"dockerfile": image.dockerfile, "context": image.context}
        known = entry["platforms"].setdefault(lock.platform, _platform(lock, image))
        if known != _platform(lock, image):
            raise LockInvalid(f"`{image.reference}` has two locks for {lock.platform}")
    return [found[key] for key in sorted(found)]


def _platform(lock: EnvironmentLock, image: Image) -> dict[str, Any]:
    parts = {"manifest": image.manifest, "tool": lock.tool if image.dockerfile else ""}
    present = {name: text for name, text in parts.items() if text}
    return {"id": image.id, "layers": list(image.layers), **present}


def _seal(document: Mapping[str, Any]) -> str:
    rest = {name: part for name, part in document.items() if name != "digest"}
    return digest.of_value("repro/docker-lock", rest)


# -- reading


def _place(data: bytes) -> tuple[int, int]:
    """Find the line and column where a text stops to be JSON; zeros where it does not."""
    import json

    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return error.lineno, error.colno
    except (ValueError, RecursionError):
        pass
    return 0, 0


def _check_version(document: object) -> None:
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith(SCHEMA):
        raise _Fault(f"it does not say `{SCHEMA}{VERSION}` as its schema")
    version = schema.removeprefix(SCHEMA)
    if version.isascii() and version.isdigit() and version.lstrip("0") != str(VERSION):
        raise _Fault(
            f"it is of version {version[:9]}, and this repro reads version {VERSION}",
            "install a newer repro",
        )
    if version != str(VERSION):
        raise _Fault(f"its schema is not `{SCHEMA}{VERSION}`")


def _locks(document: Mapping[str, Any]) -> Iterator[EnvironmentLock]:
    _members(document, "the document", ("schema", "images"), ("about", "digest"))
    about = _typed(document.get("about", {}), dict, "`about`")
    if not all(isinstance(text, str) for text in about.values()):
        raise _Fault("`about` holds something other than texts")
    for entry in _typed(document["images"], list, "`images`"):
        _members(entry, "an image", ("reference", "platforms"), ("build",))
        reference = _typed(entry["reference"], str, "`reference`")
        build = entry.get("build", {"dockerfile": "", "context": ""})
        _members(build, f"the build of `{reference}`", ("dockerfile", "context"))
        _check_name(reference, build, built="build" in entry)
        for platform, told in sorted(_typed(entry["platforms"], dict, "`platforms`").items()):
            yield _lock(reference, build, platform, told)


def _lock(reference: str, build: Mapping[str, Any], platform: str, told: Any) -> EnvironmentLock:
    where = f"`{reference}` for {platform}"
    _members(told, where, ("id", "layers"), ("manifest", "tool"))
    if platforms.named(platform) is None:
        raise _Fault(f"no platform is called `{platform}`")
    pins = [told["id"], *_typed(told["layers"], list, f"the layers of {where}")]
    pins += [told["manifest"]] if "manifest" in told else []
    if not all(references.is_pin(pin) for pin in pins):
        raise _Fault(f"{where}: a digest is written as `sha256:` and 64 digits")
    return EnvironmentLock(
        kind=KIND,
        platform=platform,
        tool=_typed(told.get("tool", ""), str, f"the tool of {where}"),
        image=Image(
            reference=reference,
            id=told["id"],
            manifest=told.get("manifest", ""),
            layers=tuple(told["layers"]),
            dockerfile=build["dockerfile"],
            context=build["context"],
        ),
    )


def _check_name(reference: str, build: Mapping[str, Any], *, built: bool) -> None:
    if not built:
        try:
            references.parse(reference)
        except references.NotAReference as error:
            raise _Fault(f"`{reference}` names no image: {error}") from None
        return
    file = _typed(build["dockerfile"], str, "`dockerfile`")
    if not manifest.is_inside(file):
        raise _Fault(f"the dockerfile `{file}` is not inside the project")
    if not digest.is_digest(build["context"]):
        raise _Fault(f"the context of `{file}` is no digest")


def _check(locks: Iterable[EnvironmentLock]) -> None:
    """Refuse what contradicts itself: these digests name exactly one thing each."""
    seen: set[tuple[str, str]] = set()
    manifests: dict[str, str] = {}
    machines: dict[str, str] = {}
    for lock in locks:
        image, platform = lock.image, platforms.named(lock.platform)
        if image is None or platform is None:
            raise _Fault(f"no platform is called `{lock.platform}`")
        if (image.reference, lock.platform) in seen:
            raise _Fault(f"`{image.reference}` stands there twice for {lock.platform}")
        seen.add((image.reference, lock.platform))
        if image.manifest and manifests.setdefault(image.manifest, image.id) != image.id:
            raise _Fault(f"the manifest {image.manifest} is said to have two images")
        if machines.setdefault(image.id, platform.docker) != platform.docker:
            raise _Fault(f"the image {image.id} is said to be of two platforms")


def _typed(part: Any, kind: type, name: str) -> Any:
    if not isinstance(part, kind):
        words = {"str": "a text", "list": "a list", "dict": "an object"}
        raise _Fault(f"{name} is not {words[kind.__name__]}")
    return part


def _members(
    part: Any, name: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    _typed(part, dict, name)
    missing = [key for key in required if key not in part]
    unknown = sorted(part.keys() - {*required, *optional})
    if missing:
        raise _Fault(f"{name} has no `{missing[0]}`")
    if unknown:
        raise _Fault(f"{name} has `{unknown[0]}`, which means nothing there")

"""The names of container images, as docker reads them: `registry/repository:tag@digest`.

No part of the grammar has room for a password.
"""

from __future__ import annotations

from repro import digest
from repro.value import Value

HUB = "docker.io"
LATEST = "latest"
SHA256 = "sha256:"
LONGEST = 255
LONGEST_TAG = 128
LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
WORD = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
HOST = (WORD - {"_"}) | frozenset(".-:[]")


class NotAReference(ValueError):
    """A text that names no image; the message says why."""


class Reference(Value):
    """The name of an image in full.

    `registry` is a host with an optional port, `docker.io` where none was said. `tag` is `latest`
    where neither tag nor digest was said. `digest` is written as `sha256:…`, empty without one.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Give what stands before the tag, in full."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        """Write it in full."""
        tag = f":{self.tag}" if self.tag else ""
        return self.name + tag + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Read the name of an image. Raises NotAReference."""
    if len(text) > LONGEST + LONGEST_TAG:
        raise NotAReference("it is too long")
    rest, _, pinned = text.partition("@")
    if "@" in text and not is_pin(pinned):
        raise NotAReference("what follows the `@` is no SHA-256 digest")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    elif not _is_tag(tag):
        raise NotAReference("what follows the `:` is no tag")
    registry, slash, repository = path.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = HUB, path
    if registry in {HUB, f"index.{HUB}"}:
        registry = HUB
        repository = repository if "/" in repository else f"library/{repository}"
    _check(registry, repository)
    if not (tag or pinned):
        tag = LATEST
    return Reference(registry=registry, repository=repository, tag=tag, digest=pinned)


def is_pin(text: object) -> bool:
    """Say whether `text` is a digest as images have them: `sha256:` and 64 digits."""
    return (
        isinstance(text, str)
        and text.startswith(SHA256)
        and digest.is_digest(text.removeprefix(SHA256))
    )


def _check(registry: str, repository: str) -> None:
    if len(repository) > LONGEST or not all(_is_component(c) for c in repository.split("/")):
        raise NotAReference("a repository is of lower-case letters, digits, and `.`, `_`, `-`")
    if not registry or not set(registry) <= HOST or registry[0] in ".-:":
        raise NotAReference("its registry is no host name")


def _is_component(text: str) -> bool:
    ends = bool(text) and text[0] in LOWER and text[-1] in LOWER
    return ends and ".." not in text and set(text) <= LOWER | frozenset("._-")


def _is_tag(text: str) -> bool:
    known = bool(text) and len(text) <= LONGEST_TAG and text[0] in WORD
    return known and set(text) <= WORD | frozenset(".-")

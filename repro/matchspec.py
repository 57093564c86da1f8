"""Conda's package requests: what `numpy >=1.26,<2 *_0` means, and whether a package is it.

As the solver reads them, so that a request which a lock satisfies is one that it could be the
answer to. Nothing is looked up: a lock can be judged without a channel.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Atom = tuple[int, int, str]
    Part = tuple[Atom, ...]
    Test = Callable[["Version"], bool]

NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
HEAD = re.compile(r"([A-Za-z0-9_.-]+)\s*(.*)", re.DOTALL)
BRACKETS = re.compile(r"([^\[\]]*)\[(.*)\]\s*", re.DOTALL)
FIELD = re.compile(r"""\s*([a-z_0-9]+)\s*=\s*("[^"]*"|'[^']*'|[^,'"\s]+)\s*(?:,|$)""")
BUILD = re.compile(r"[A-Za-z0-9_.+*-]+|\^.*\$")
BODY = re.compile(r"(?P<version>.*?[^\s=!|,<>~(])(?:(?:\s+|\s*=\s*)(?P<build>[^\s=,|<>~()]+))?")
TOKEN = re.compile(r"\s*([(),|]|[^(),|]+)")
CONSTRAINT = re.compile(r"(===?|!=|<=|>=|~=|<|>|=|)\s*([^\s=!<>~]+(?:![^\s=!<>~]+)?)")
VERSION = re.compile(r"(?:(\d+)!)?([0-9a-z_.-]*[0-9a-z_])(?:\+([0-9a-z_.-]*[0-9a-z_]))?")
ATOM = re.compile(r"[0-9]+|[a-z]+|_")
ZERO = (2, 0, "")
MAX_LENGTH = 2000


class Version:
    """A version that is ordered as conda orders them: dev, letters, numbers, post."""

    __slots__ = ("epoch", "local", "parts", "text")

    def __init__(self, text: str) -> None:
        """Read a version. Raises ValueError."""
        found = VERSION.fullmatch(text.lower())
        if found is None or ".." in text or len(text) > MAX_LENGTH:
            raise ValueError(f"`{text[:60]}` is no version")
        self.text = text
        self.epoch = _number(found[1] or "0")
        self.parts = _parts(found[2])
        self.local = _parts(found[3]) if found[3] else ()

    def compare(self, other: Version) -> int:
        """Give a number below, equal to or above 0."""
        if self.epoch != other.epoch:
            return -1 if self.epoch < other.epoch else 1
        return _compared(self.parts, other.parts) or _compared(self.local, other.local)

    def begins_with(self, other: Version) -> bool:
        """Say whether it is `other` or a refinement of it, as 1.2.3 and 1.2rc1 are of 1.2."""
        if self.epoch != other.epoch:
            return False
        if other.local:
            same = _compared(self.parts, other.parts) == 0
            return same and _begins(self.local, other.local)
        return _begins(self.parts, other.parts)


class MatchSpec(Value):
    """One request: a name, and what its version, build and channel must be.

    `version` and `build` are as written, empty for any. `channel` is a name or URL. `digest` is a
    SHA-256, if one is asked for.
    """

    name: str
    version: str = ""
    build: str = ""
    channel: str = ""
    digest: str = ""

    def has_version(self, version: str) -> bool:
        """Say whether a version is asked for; one that nobody can read never is."""
        if not self.version:
            return True
        try:
            return _constraint(self.version)(Version(version))
        except ValueError:
            return False

    def has_build(self, build: str) -> bool:
        """Say whether a build is asked for."""
        if not self.build or self.build == build:
            return True
        if self.build.startswith("^"):
            return re.fullmatch(self.build[1:-1], build) is not None
        pieces = (re.escape(piece) for piece in self.build.split("*"))
        return re.fullmatch(".*".join(pieces), build) is not None

    def __str__(self) -> str:
        """Write it as the solver reads it."""
        channel = f"{self.channel}::" if self.channel else ""
        version = self.version or ("*" if self.build else "")
        return " ".join(part for part in (channel + self.name, version, self.build) if part)


def parse(text: str) -> MatchSpec:
    """Read one request, in any of the forms that stand in environment files and packages.

    Raises ValueError that says what is wrong with it.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError("it is too long")
    rest, fields = _fields(text.strip())
    channel, rest = _channel(rest)
    head = HEAD.fullmatch(rest)
    if head is None or not NAME.fullmatch(head[1].lower()):
        raise ValueError("it names no package")
    version, build = _version_and_build(head[2].strip())
    spec = MatchSpec(
        name=head[1].lower(),
        version=fields.pop("version", version),
        build=fields.pop("build", build),
        channel=fields.pop("channel", channel),
        digest=fields.pop("sha256", "").lower(),
    )
    _check(spec, fields)
    return spec


def name_of(text: str) -> str:
    """Give the name of the package that a request is about. Raises ValueError."""
    return parse(text).name


def joined(requests: list[str]) -> str:
    """Give the version and build that all of several requests for one package leave.

    Two builds cannot be written in one request; the last one stays.
    """
    specs = [parse(request) for request in requests]
    versions = dict.fromkeys(s.version for s in specs if s.version and s.version != "*")
    # `,` binds closer than `|`: alternatives of one request must stay together
    texts = [f"({v})" if "|" in v and len(versions) > 1 else v for v in versions]
    builds = [s.build for s in specs if s.build]
    version = ",".join(texts) or "*"
    return f"{version} {builds[-1]}" if builds else version


def _check(spec: MatchSpec, fields: dict[str, str]) -> None:
    unknown = next(iter(fields), "")
    if unknown:
        raise ValueError(f"`{unknown}` cannot be asked for")
    if spec.version:
        _constraint(spec.version)
    if spec.build and not BUILD.fullmatch(spec.build):
        raise ValueError(f"`{spec.build}` is no build")
    if spec.build.startswith("^"):
        try:
            re.compile(spec.build[1:-1])
        except re.error:
            raise ValueError(f"`{spec.build}` is no build") from None


def _fields(text: str) -> tuple[str, dict[str, str]]:
    """Split off what stands in brackets."""
    found = BRACKETS.fullmatch(text)
    if found is None:
        if ("[" in text or "]" in text) and "^" not in text:
            raise ValueError("its brackets do not match")
        return text, {}
    fields, at = {}, 0
    while at < len(found[2]):
        field = FIELD.match(found[2], at)
        if field is None:
            raise ValueError(f"`{found[2][at:]}` is not written as key=value")
        fields[field[1]] = field[2].strip("\"'")
        at = field.end()
    return found[1].strip(), fields


def _channel(text: str) -> tuple[str, str]:
    channel, colons, rest = text.partition("::")
    if colons:
        return channel.strip(), rest.strip()
    if "://" in text:
        raise ValueError("a package is asked for by its name, not by a URL")
    return "", text


def _version_and_build(text: str) -> tuple[str, str]:
    """Split `=1.2=py_0`, `>=1.2 py_0`; `=1.2` alone means any 1.2, before a build exactly 1.2."""
    if not text:
        return "", ""
    found = BODY.fullmatch(text.removesuffix("=") if text.count("=") > 1 else text)
    if found is None:
        raise ValueError(f"`{text}` is no version")
    version, build = found["version"].strip(), found["build"] or ""
    if build and re.fullmatch(r"=[^=,|<>!~]+", version):
        version = version[1:].strip()
    return version, build


def _constraint(text: str) -> Test:
    """Read alternatives of conditions, `(1.2|1.3.*),<1.3.5`. Raises ValueError."""
    tokens = [token.strip() for token in TOKEN.findall(text)]
    tokens = [token for token in tokens if token]
    test, at = _alternatives(tokens, 0)
    if at != len(tokens):
        raise ValueError(f"`{text}` is no version")
    return test


def _alternatives(tokens: list[str], at: int) -> tuple[Test, int]:
    tests = []
    while True:
        test, at = _conditions(tokens, at)
        tests.append(test)
        if at >= len(tokens) or tokens[at] != "|":
            return (lambda v: any(test(v) for test in tests)), at
        at += 1


def _conditions(tokens: list[str], at: int) -> tuple[Test, int]:
    tests = []
    while True:
        test, at = _condition(tokens, at)
        tests.append(test)
        if at >= len(tokens) or tokens[at] != ",":
            return (lambda v: all(test(v) for test in tests)), at
        at += 1


def _condition(tokens: list[str], at: int) -> tuple[Test, int]:
    if at >= len(tokens) or tokens[at] in "),|":
        raise ValueError("a version is missing")
    if tokens[at] != "(":
        return _comparison(tokens[at]), at + 1
    if tokens.count("(") > 20:  # noqa: PLR2004  (far more than anybody writes)
        raise ValueError("its version is nested too deeply")
    test, at = _alternatives(tokens, at + 1)
    if at >= len(tokens) or tokens[at] != ")":
        raise ValueError("a `)` is missing")
    return test, at + 1


def _comparison(text: str) -> Test:
    found = CONSTRAINT.fullmatch(text)
    if found is None or found[1] == "===":
        raise ValueError(f"`{text}` is no version")
    operator, wanted = found[1], found[2]
    bare = re.sub(r"(\.?\*)+$", "", wanted)
    if not bare and wanted.strip("*") == "":
        return lambda _v: operator != "!="
    asked = Version(bare)
    starred = bare != wanted
    if operator in ("", "==", "=") and (starred or operator == "="):
        return lambda v: v.begins_with(asked)
    if operator == "!=" and starred:
        return lambda v: not v.begins_with(asked)
    if operator == ">" and starred:  # as the solver reads it
        return lambda v: v.compare(asked) >= 0
    if operator == "~=":
        return _compatible(asked)
    return {
        "": lambda v: v.compare(asked) == 0,
        "==": lambda v: v.compare(asked) == 0,
        "!=": lambda v: v.compare(asked) != 0,
        "<": lambda v: v.compare(asked) < 0,
        "<=": lambda v: v.compare(asked) <= 0,
        ">": lambda v: v.compare(asked) > 0,
        ">=": lambda v: v.compare(asked) >= 0,
    }[operator]


def _compatible(asked: Version) -> Test:
    def test(version: Version) -> bool:
        family = asked.parts[:-1]
        same = version.epoch == asked.epoch and _begins(version.parts, family)
        return same and version.compare(asked) >= 0

    return test


def _parts(text: str) -> tuple[Part, ...]:
    """Split at dots, dashes and underscores, each part into numbers and words."""
    end = "_" if text.endswith("_") else ""  # 1.0.1_ is older than 1.0.1a
    pieces = re.split(r"[._-]", text.removesuffix("_"))
    pieces[-1] += end
    return tuple(_part(piece) for piece in pieces)


def _part(piece: str) -> Part:
    atoms = tuple(_atom(atom) for atom in ATOM.findall(piece))
    return atoms if atoms and atoms[0][0] == ZERO[0] else (ZERO, *atoms)


def _atom(text: str) -> Atom:
    if text.isdigit():
        return (2, _number(text), "")
    rank = {"dev": 0, "post": 3}.get(text, 1)
    return (rank, 0, text)


def _number(digits: str) -> int:
    """Read a number; Python refuses those of thousands of digits, which nobody means."""
    return int(digits[:100])


def _compared(left: tuple[Part, ...], right: tuple[Part, ...]) -> int:
    for mine, others in zip_longest(left, right, fillvalue=()):
        for atom, other in zip_longest(mine, others, fillvalue=ZERO):
            if atom != other:
                return -1 if atom < other else 1
    return 0


def _begins(parts: tuple[Part, ...], with_: tuple[Part, ...]) -> bool:
    """Say whether `parts` begins as `with_` does; 1 begins as 1.0 does."""
    if not with_:
        return True
    padded = (*parts, *((ZERO,) for _ in with_[len(parts) :]))
    *first, last = with_
    return list(padded[: len(first)]) == first and padded[len(first)][: len(last)] == last

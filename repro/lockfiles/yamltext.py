"""YAML as lock files need it: every scalar is text, written in one form, and places are known.

Text as it stands: `3.10` is no number here. Anchors, tags and several documents are refused, so
that a hostile file is at most wrong.
"""

from __future__ import annotations

import re

import yaml

from repro.errors import LockInvalid, Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn, TypeAlias

    Plain: TypeAlias = "str | list[Plain] | Map | None"

MAX_BYTES = 64 << 20
MAX_DEPTH = 12
LOADER = yaml.CSafeLoader if getattr(yaml, "__with_libyaml__", False) else yaml.SafeLoader
NOTHING = ("", "~", "null", "Null", "NULL")
BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+@%-]*(?::/*[A-Za-z0-9_./+@%-]+)*")
WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


class Map(dict[str, "Plain"]):
    """A mapping that knows the line it begins in."""

    line = 0


class Reader:
    """Reads one file and checks what is in it; what is wrong is a LockInvalid with its place."""

    def __init__(self, path: str) -> None:
        """Take the name that messages show."""
        self.path = path

    def fail(self, why: str, at: Map | None = None, *, line: int = 0, hint: str = "") -> NoReturn:
        """Say what is wrong in the mapping `at`, or in a line."""
        where = Where(file=self.path, line=at.line if at is not None else line)
        hints = [hint] if hint else ["write it again with `repro lock`"]
        raise LockInvalid(f"`{self.path}` cannot be used: {why}", where=where, hints=hints)

    def read(self, data: bytes) -> Plain:
        """Read the whole file."""
        if len(data) > MAX_BYTES:
            self.fail(f"it has {len(data):,} bytes, more than {MAX_BYTES:,}")
        try:
            text = data.decode("utf-8-sig")
            return _Builder(self).build(yaml.parse(text, Loader=LOADER))
        except UnicodeDecodeError:
            self.fail("it is no UTF-8 text")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = str(getattr(error, "problem", None) or "it cannot be read")
            self.fail(f"it is no valid YAML: {said}", line=mark.line + 1 if mark else 0)

    def mapping(self, value: Plain, what: str, at: Map | None = None) -> Map:
        """Give a value that must be a mapping."""
        if not isinstance(value, Map):
            self.fail(f"{what} is no mapping", at)
        return value

    def sequence(self, value: Plain, what: str, at: Map) -> list[Plain]:
        """Give a value that must be a list."""
        if not isinstance(value, list):
            self.fail(f"{what} is no list", at)
        return value

    def text(self, value: Plain, what: str, at: Map | None = None) -> str:
        """Give a value that must be text, and not empty."""
        if not isinstance(value, str) or not value:
            self.fail(f"{what} is missing", at)
        return value

    def texts(self, value: Plain, what: str, at: Map) -> dict[str, str]:
        """Give a mapping of texts, empty where there is none."""
        found = self.mapping(Map() if value is None else value, what, at)
        return {
            key: self.optional(item, f"{what} of `{key[:40]}`", at) for key, item in found.items()
        }

    def optional(self, value: Plain, what: str, at: Map | None = None) -> str:
        """Give text that may be missing."""
        if value is None:
            return ""
        if not isinstance(value, str):
            self.fail(f"{what} is no text", at)
        return value


class _Builder:
    """Turns the parser's events into plain values, without recursion."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.open: list[list[Plain] | Map] = []
        self.keys: list[str | None] = []
        self.root: Plain = None
        self.documents = 0

    def build(self, events: Any) -> Plain:
        for event in events:
            self._take(event)
        return self.root

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.reader.fail("a second document begins in it", line=line)
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self.reader.fail("it uses anchors, which no lock file needs", line=line)
        elif getattr(event, "tag", None) not in (None, "!"):
            self.reader.fail("it uses tags, which no lock file needs", line=line)
        elif isinstance(event, yaml.ScalarEvent):
            empty = event.implicit[0] and event.value in NOTHING
            self._add(None if empty else event.value, line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._start(Map() if isinstance(event, yaml.MappingStartEvent) else [], line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.open.pop()
            self.keys.pop()

    def _start(self, value: list[Plain] | Map, line: int) -> None:
        if len(self.open) >= MAX_DEPTH:
            self.reader.fail("it is nested too deeply", line=line)
        if isinstance(value, Map):
            value.line = line
        self._add(value, line)
        self.open.append(value)
        self.keys.append(None)

    def _add(self, value: Plain, line: int) -> None:
        if not self.open:
            self.root = value
            return
        parent = self.open[-1]
        if isinstance(parent, list):
            parent.append(value)
            return
        key = self.keys[-1]
        if key is not None:
            parent[key] = value
            self.keys[-1] = None
        elif not isinstance(value, str) or value in parent:
            self.reader.fail("a key stands in it twice, or is no text", line=line)
        else:
            self.keys[-1] = value


def write(document: dict[str, Any]) -> str:
    """Write texts, whole numbers, booleans, lists and mappings, in the order that they have."""
    return "".join(f"{line}\n" for line in _lines(document, ""))


def _lines(value: dict[str, Any] | list[Any], indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(f"{indent}{_scalar(key)}:", item, indent + "  ")
        return
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *others = _lines(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from others
        else:
            yield f"{indent}- {_scalar(item)}"


def _entry(start: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, (dict, list)) and item:
        yield start
        yield from _lines(item, indent if isinstance(item, dict) else indent.removesuffix("  "))
    else:
        yield f"{start} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    text = str(value)
    if BARE.fullmatch(text) and text.lower() not in WORDS:
        return text
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return f"\\{char}"
    return char if " " <= char <= "~" else f"\\U{code:08x}"

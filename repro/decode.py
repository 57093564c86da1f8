"""YAML text as a tree of nodes that know their place, with bombs and surprises refused."""

from __future__ import annotations

from itertools import takewhile

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from repro.errors import Problem, ProjectInvalid, Where

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_ALIASED = 1000
STANDARD = "tag:yaml.org,2002:"
MERGE = f"{STANDARD}merge"
SCALAR_TAGS = {f"{STANDARD}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")}
COLLECTION_TAGS = {None, "!", f"{STANDARD}map", f"{STANDARD}seq"}
LOADER = yaml.CSafeLoader if getattr(yaml, "__with_libyaml__", False) else yaml.SafeLoader


class Node:
    """One value of a document. `line` and `column` count from 1.

    `value` is a list of (key node, node) pairs for a `mapping`, a list of nodes for a
    `sequence`, and the Python value, as PyYAML resolves it, for a `scalar`, whose characters are
    in `text`.
    """

    __slots__ = ("column", "kind", "line", "size", "tag", "text", "value")

    def __init__(self, kind: str, value: Any, mark: Any, *, text: str = "", tag: str = "") -> None:
        """Take the place from a mark of the parser, which counts from 0."""
        self.kind = kind
        self.value = value
        self.line = mark.line + 1
        self.column = mark.column + 1
        self.text = text
        self.tag = tag
        self.size = 1

    def plain(self) -> Any:
        """Give the data without places, as `yaml.safe_load` would."""
        if self.kind == "mapping":
            return {key.plain(): node.plain() for key, node in self.value}
        if self.kind == "sequence":
            return [node.plain() for node in self.value]
        return self.value

    def get(self, name: str) -> Node | None:
        """Give the value under a key of a mapping, the last one if it stands there twice."""
        found = [node for key, node in self.items() if key.value == name]
        return found[-1] if found else None

    def key(self, name: str) -> Node | None:
        """Give the node of a key itself, whose place is where the key stands."""
        return next((key for key, _node in self.items() if key.value == name), None)

    def items(self) -> list[tuple[Node, Node]]:
        """Give the pairs of a mapping, and none of anything else."""
        return list(self.value) if self.kind == "mapping" else []

    def at(self, path: Iterator[Any] | list[Any] | tuple[Any, ...]) -> Node:
        """Follow keys and indices as far as they lead."""
        node = self
        for step in path:
            if node.kind == "sequence" and isinstance(step, int):
                node = node.value[step]
            else:
                node = node.get(step) or node
        return node


class _Scalars(SafeConstructor, Resolver):
    """PyYAML's own reading of scalars, and nothing else of it."""

    def __init__(self) -> None:
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


class Document:
    """The text of one file: reads it into nodes and points into it for messages."""

    def __init__(self, file: str, data: bytes) -> None:
        """Take the name that messages show and the bytes of the file."""
        self.file = file
        self.data = data
        self.lines: list[str] = []

    def where(self, node: Node | None = None, *, line: int = 0, column: int = 0) -> Where:
        """Give the place of a node, or of a line and column, with the user's own text."""
        if node is not None:
            line, column = node.line, node.column
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Where(file=self.file, line=line, column=column, text=text[:200])

    def fail(self, code: str, message: str, where: Where | None = None, hint: str = "") -> Any:
        """Raise ProjectInvalid with this one problem."""
        raise ProjectInvalid(
            [Problem(code=code, message=message, where=where or Where(file=self.file), hint=hint)]
        )

    def root(self) -> Node:
        """Read the whole document.

        Raises ProjectInvalid for text that is not one YAML document of plain data: too long, too
        deep, binary, with tags, recursive, or growing through aliases.
        """
        text = self._text()
        self.lines = text.splitlines()
        try:
            node = _Composer(self).compose(yaml.parse(text, Loader=LOADER))
        except yaml.YAMLError as error:
            self._explain(error, text)
        if node is None:
            self.fail(
                "empty",
                f"`{self.file}` is empty",
                hint="describe the project, for example `entry_points: {main: {command: ...}}`",
            )
        assert node is not None  # noqa: S101  (fail does not return)
        return node

    def _text(self) -> str:
        if len(self.data) > MAX_BYTES:
            size = f"{len(self.data):,}"
            self.fail("too-long", f"`{self.file}` has {size} bytes; at most {MAX_BYTES:,} are read")
        try:
            text = self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            self.fail(
                "not-text",
                f"`{self.file}` is not UTF-8 text: byte 0x{self.data[error.start]:02x} at "
                f"offset {error.start}",
                Where(file=self.file, line=line),
            )
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            where = Where(file=self.file, line=line)
            self.fail("not-text", f"`{self.file}` is a binary file, not YAML", where)
        return text

    def _explain(self, error: yaml.YAMLError, text: str) -> Any:
        line, column, said = _told(error, text)
        there = self.where(line=line, column=column)
        hint = ""
        if is_template(text):
            hint = template_hint()
        elif "tab" in said.split() or there.text[column - 1 : column] == "\t":
            hint = "indent with blanks; YAML takes no tabs"
        elif there.text and column == 1 and ":" not in there.text:
            hint = "is this text after the document? only YAML may stand in this file"
        self.fail("yaml", f"`{self.file}` is not valid YAML: {said}", there, hint)


def _told(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Give the line and the column, which are 0 where they are not known, and what is wrong."""
    if isinstance(error, yaml.reader.ReaderError):  # its place counts bytes or characters
        before = "".join(takewhile(_may_stand, text))
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        found = ord(text[len(before) :][:1] or "\0")
        return line, column, f"the character U+{found:04X} may not stand in it"
    mark = getattr(error, "problem_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return line, column, getattr(error, "problem", None) or " ".join(str(error).split())


def _may_stand(character: str) -> bool:
    """Say whether YAML allows a character; source: YAML 1.1, `c-printable`."""
    return (
        character.isprintable()
        or character in "\t\n\r\x85\ufeff"
        or (
            character >= "\xa0"
            and not "\ud800" <= character <= "\udfff"
            and character not in "\ufffe\uffff"
        )
    )


def is_template(text: str) -> bool:
    """Say whether the text still holds the placeholders of a project template."""
    return "{%" in text or ("{{" in text and ("cookiecutter." in text or "{{ " in text))


def template_hint() -> str:
    """Give the advice for a template."""
    return "this is a template, not a project: fill it in first, for example with cookiecutter"


class _Composer:
    """Builds nodes from the parser's events without recursion."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.scalars = _Scalars()
        self.anchors: dict[str, Node] = {}
        self.open: list[Node] = []
        self.pending: list[Node | None] = []
        self.aliased = 0
        self.root: Node | None = None

    def compose(self, events: Any) -> Node | None:
        """Take every event; one document only."""
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    where = self._where(event)
                    self.document.fail("yaml", "a second document begins here", where)
            elif isinstance(event, yaml.ScalarEvent):
                self._add(self._scalar(event), event)
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._alias(event), event)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._start(event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._end()
        return self.root if self.root is None or self.root.text or self.root.value else None

    def _where(self, event: Any) -> Where:
        mark = event.start_mark
        return self.document.where(line=mark.line + 1, column=mark.column + 1)

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        tag = event.tag
        if tag is None or tag == "!":
            tag = str(
                self.scalars.resolve(  # type: ignore[no-untyped-call]
                    yaml.ScalarNode, event.value, event.implicit
                )
            )
        elif tag not in SCALAR_TAGS:
            self._refuse_tag(tag, event)
        value = event.value if tag == MERGE else self._value(tag, event)
        node = Node("scalar", value, event.start_mark, text=event.value, tag=tag)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _value(self, tag: str, event: yaml.ScalarEvent) -> Any:
        try:
            return self.scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, yaml.YAMLError, KeyError, OverflowError):
            kind = tag.rpartition(":")[2]
            message = f"`{event.value[:60]}` is no {kind}"
            return self.document.fail("yaml", message, self._where(event), "put it in quotes")

    def _refuse_tag(self, tag: str, event: Any) -> None:
        self.document.fail(
            "tag",
            f"the tag `{tag[:60]}` is not allowed: a project is plain data",
            self._where(event),
            "remove the tag",
        )

    def _alias(self, event: yaml.AliasEvent) -> Node:
        node = self.anchors.get(event.anchor or "")
        if node is None or node in self.open:
            what = "is not defined before" if node is None else "contains itself"
            self.document.fail("yaml", f"the alias `*{event.anchor}` {what}", self._where(event))
        assert node is not None  # noqa: S101  (fail does not return)
        self.aliased += node.size
        if self.aliased > MAX_ALIASED:
            self.document.fail(
                "yaml-bomb",
                f"aliases repeat more than {MAX_ALIASED:,} values",
                self._where(event),
                "write the values out",
            )
        return node

    def _start(self, event: Any) -> None:
        if event.tag not in COLLECTION_TAGS:
            self._refuse_tag(event.tag, event)
        if len(self.open) >= MAX_DEPTH:
            message = f"values are nested deeper than {MAX_DEPTH} levels"
            self.document.fail("too-deep", message, self._where(event))
        kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "sequence"
        node = Node(kind, [], event.start_mark)
        if event.anchor:
            self.anchors[event.anchor] = node
        self.open.append(node)
        self.pending.append(None)

    def _end(self) -> None:
        node = self.open.pop()
        self.pending.pop()
        if node.kind == "mapping":
            node.value = self._merged(node.value)
        self._add(node, None)

    def _add(self, node: Node, event: Any) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        parent.size += node.size
        if parent.kind == "sequence":
            parent.value.append(node)
        elif self.pending[-1] is None:
            self.pending[-1] = self._as_key(node, event)
        else:
            self._pair(parent, self.pending[-1], node)
            self.pending[-1] = None

    def _as_key(self, node: Node, _event: Any) -> Node:
        if node.kind != "scalar":
            text = "\n".join(self.document.lines)
            hint = template_hint() if is_template(text) else "a key is a single word or text"
            where = self.document.where(node)
            self.document.fail("yaml", f"a {node.kind} cannot be a key", where, hint)
        return node

    def _pair(self, parent: Node, key: Node, node: Node) -> None:
        earlier = next((k for k, _ in parent.value if k.value == key.value), None)
        if earlier is not None and key.tag != MERGE:
            self.document.fail(
                "duplicate-key",
                f"`{key.text}` stands here twice, first in line {earlier.line}",
                self.document.where(key),
                "keep one of them",
            )
        parent.value.append((key, node))

    @staticmethod
    def _merged(pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
        own = [pair for pair in pairs if pair[0].tag != MERGE]
        names = {key.value for key, _ in own}
        merged: list[tuple[Node, Node]] = []
        for key, node in pairs:
            if key.tag != MERGE:
                continue
            for source in node.value if node.kind == "sequence" else [node]:
                for pair in source.items():
                    if pair[0].value not in names:
                        names.add(pair[0].value)
                        merged.append(pair)
        return [*merged, *own]


def nearest(word: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Give the known word that `word` was probably meant to be, or an empty text."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""

"""Why a step runs: two sets of key parts compared, in the user's words."""

from __future__ import annotations

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from repro.lock import EnvironmentLock
    from repro.manifest import Entry

    Trees = Callable[[str], "tuple[Entry, ...] | None"]
    Locks = Callable[[str], "EnvironmentLock | None"]

SHOWN = 3
WIDTH = 60
PAIR = 2


class Reason(Value):
    """One part of the key that differs. Empty texts mean: not there.

    `lines` are how many lines were added and removed, for a text file whose history is known.
    """

    part: str
    name: str = ""
    before: str = ""
    after: str = ""
    lines: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        what = f"{self.part} {self.name}".strip()
        if self.lines is not None and self.before and self.after:
            return f"{what} (+{self.lines[0]} -{self.lines[1]} lines)"
        if self.before and self.after:
            return f"{what} {self.before} → {self.after}"
        if self.after:
            return f"{what} added ({self.after})" if self.name else f"{what}: {self.after}"
        return f"{what} removed" if self.before else what


def reasons(
    old: Mapping[str, Any], new: Mapping[str, Any], trees: Trees, locks: Locks
) -> tuple[Reason, ...]:
    """Compare the parts of an earlier key with those of a new one.

    `trees` and `locks` give what stands behind a digest, or None where it is gone; then the
    digests themselves are named.
    """
    found: list[Reason] = []
    for part in ("parameters", "inputs", "environment", "command", "variables", "unset", "secrets"):
        if old.get(part) != new.get(part):
            found += _compare(part, old.get(part), new.get(part), trees, locks)
    named = {"parameters", "inputs", "environment", "command", "variables", "unset", "secrets"}
    for part in sorted((old.keys() | new.keys()) - named):
        before, after = old.get(part), new.get(part)
        if before != after:
            found += _named(part, before, after)
    return tuple(found)


def _named(part: str, before: Any, after: Any) -> list[Reason]:
    """Compare parts that are pairs, such as mounts, name by name."""
    then, now = _pairs(before), _pairs(after)
    if then is None or now is None:
        return [Reason(part=part, before=_short(before), after=_short(after))]
    return _mappings(part, then, now, part)


def _pairs(value: Any) -> dict[str, str] | None:
    if isinstance(value, dict):
        return {str(name): "set" if text is None else str(text) for name, text in value.items()}
    if not isinstance(value, (list, tuple)):
        return None
    rows = [row for row in value if isinstance(row, (list, tuple)) and len(row) == PAIR]
    return {str(row[0]): str(row[1]) for row in rows} if len(rows) == len(value) else None


def summary(found: tuple[Reason, ...]) -> str:
    """Put the first reasons into one line."""
    shown = "; ".join(str(reason) for reason in found[:SHOWN])
    return f"{shown}; and {len(found) - SHOWN} more" if len(found) > SHOWN else shown


def _compare(part: str, old: Any, new: Any, trees: Trees, locks: Locks) -> list[Reason]:
    if part == "parameters":
        return _mappings(part, _by_name(old), _by_name(new), "param")
    if part == "variables":
        return _mappings(part, old or {}, new or {}, "variable")
    if part == "inputs":
        return _files(str(old), str(new), trees)
    if part == "environment":
        return _packages(str(old), str(new), locks)
    if part == "command":
        return [Reason(part=part, before=f"`{_short(old)}`", after=f"`{_short(new)}`")]
    return [Reason(part=part, before=_short(old), after=_short(new))]


def _by_name(parameters: Any) -> dict[str, str]:
    return {
        name: "***" + str(identity)[:8] if kind == "secret" else _value(kind, identity)
        for name, kind, identity in parameters or []
    }


def _value(kind: str, identity: Any) -> str:
    if identity is None:
        return "(none)"
    return str(identity)[:12] if kind == "path" else str(identity)


def _mappings(part: str, old: Mapping[str, str], new: Mapping[str, str], word: str) -> list[Reason]:
    del part
    return [
        Reason(
            part=word,
            name=name,
            before=_quoted(old.get(name)),
            after=_quoted(new.get(name)),
        )
        for name in [*new, *(n for n in old if n not in new)]
        if old.get(name) != new.get(name)
    ]


def _files(old: str, new: str, trees: Trees) -> list[Reason]:
    before, after = trees(old), trees(new)
    if before is None or after is None:
        return [Reason(part="inputs", before=old[:12], after=new[:12])]
    then, now = ({e.path: e for e in tree} for tree in (before, after))
    return [
        Reason(part="file", name=path, before=_entry(then.get(path)), after=_entry(now.get(path)))
        for path in sorted(then.keys() | now.keys())
        if then.get(path) != now.get(path)
    ]


def _packages(old: str, new: str, locks: Locks) -> list[Reason]:
    from repro.lock import differences

    before, after = locks(old), locks(new)
    if before is None or after is None:
        return [Reason(part="environment", before=old[:12], after=new[:12])]
    found = [
        Reason(part="package", name=d.name, before=d.before, after=d.after)
        for d in differences(before, after)
    ]
    return found or [Reason(part="environment", before=before.kind, after=after.kind)]


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.kind == "link":
        return f"link to {entry.content}"
    return f"{entry.content[:12]}{' (executable)' if entry.kind == 'exec' else ''}"


def _quoted(text: str | None) -> str:
    if text is None:
        return ""
    short = _short(text)
    return short if short and not short.isspace() else f"`{short}`"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"

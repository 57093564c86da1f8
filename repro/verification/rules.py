"""The rules of `compare:`: whether two contents are equal, to the bit or within a tolerance."""

from __future__ import annotations

import json
import re
import zlib

from repro import manifest
from repro.spec import Compare
from repro.verification import arrays

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Difference = tuple[str, str, str]

NUMBER = re.compile(
    r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\b(?:nan|inf|infinity)\b", re.IGNORECASE
)
EXACT = Compare(pattern="", rule="exact")
MISSING = "(none)"
WIDTH = 80
LIMIT = 64 << 20
"""What unpacks to more is not looked into: a small file can hold very much."""


def rule_for(path: str, rules: Iterable[Compare]) -> Compare:
    """Give the rule for an output: of those whose pattern names it, the last."""
    found = [rule for rule in rules if manifest.matcher((rule.pattern,))(path)]
    return found[-1] if found else EXACT


def words(rule: Compare) -> str:
    """Name a rule in a few words."""
    if rule.rule != "numeric":
        return rule.rule
    given = [f"{n} {v}" for n, v in (("rtol", rule.rtol), ("atol", rule.atol)) if v]
    return ", ".join(given) or "numeric"


def close(before: float, after: float, rule: Compare) -> bool:
    """Say whether two numbers are equal within a tolerance, which is that of `numpy.isclose`."""
    if before == after or (before != before and after != after):  # noqa: PLR0124  (nan)
        return True
    if rule.rule != "numeric":
        return False
    tolerance = float(rule.atol or 0) + float(rule.rtol or 0) * abs(before)
    return abs(after - before) <= tolerance


def agree(before: bytes, after: bytes, rule: Compare) -> bool:
    """Say whether two contents are equal by a rule.

    By numbers, JSON, arrays of numpy and any text can be compared, compressed by gzip or not;
    in a text, all that is no number has to be the same.
    """
    if before == after or rule.rule == "ignore":
        return True
    if rule.rule != "numeric":
        return False
    before, after = unpacked(before), unpacked(after)
    found = json_differences(before, after, rule)
    if found is not None:
        return next(found, None) is None
    there = [arrays.arrays(data) for data in (before, after)]
    if there[0] is not None and there[1] is not None:
        return _arrays_agree(there[0], there[1], rule)
    return _texts_agree(before, after, rule)


def unpacked(data: bytes) -> bytes:
    """Give what a gzip file holds; of anything else, itself."""
    if data[:2] != b"\x1f\x8b":
        return data
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        found = unpacking.decompress(data, LIMIT)
    except zlib.error:
        return data
    return found if unpacking.eof and not unpacking.unused_data else data


def _arrays_agree(
    before: dict[str, arrays.Array], after: dict[str, arrays.Array], rule: Compare
) -> bool:
    if before.keys() != after.keys():
        return False
    for name, one in before.items():
        other = after[name]
        if one.header != other.header:
            return False
        if one.values is None or other.values is None:
            if one.data != other.data:
                return False
        elif not all(close(a, b, rule) for a, b in zip(one.values, other.values, strict=True)):
            return False
    return True


def _texts_agree(before: bytes, after: bytes, rule: Compare) -> bool:
    try:
        texts = [data.decode() for data in (before, after)]
    except UnicodeDecodeError:
        return False
    if NUMBER.sub("0", texts[0]) != NUMBER.sub("0", texts[1]):
        return False
    numbers = (map(float, NUMBER.findall(text)) for text in texts)
    return all(close(a, b, rule) for a, b in zip(*numbers, strict=True))


# -- JSON


def json_differences(
    before: bytes, after: bytes, rule: Compare = EXACT
) -> Iterator[Difference] | None:
    """Give the values of two JSON documents that differ, by path; None for what is no JSON."""
    if before.lstrip()[:1] not in (b"{", b"[") or after.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return _differ(json.loads(before), json.loads(after), "$", rule)
    except (ValueError, RecursionError):
        return None


def _differ(before: Any, after: Any, place: str, rule: Compare) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys() if before.keys() != after.keys() else before:
            inside = f"{place}.{key}"
            if key not in before or key not in after:
                yield inside, _shown(before, key), _shown(after, key)
            else:
                yield from _differ(before[key], after[key], inside, rule)
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _differ(one, other, f"{place}[{index}]", rule)
        if len(before) != len(after):
            yield f"{place} (length)", str(len(before)), str(len(after))
    elif not _equal(before, after, rule):
        yield place, short(json.dumps(before)), short(json.dumps(after))


def _equal(before: Any, after: Any, rule: Compare) -> bool:
    numbers = [
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in (before, after)
    ]
    if all(numbers):
        return close(before, after, rule)
    return type(before) is type(after) and bool(before == after)


def _shown(mapping: dict[str, Any], key: str) -> str:
    return short(json.dumps(mapping[key])) if key in mapping else MISSING


def short(text: str) -> str:
    """Cut a text off where it is too long to be shown."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"

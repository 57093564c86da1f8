"""How two contents differ: by lines, by values, by members, by numbers, by bytes."""

from __future__ import annotations

import difflib
import itertools

from repro.value import Value
from repro.verification import archives, arrays, rules
from repro.verification.causes import Pair
from repro.verification.rules import short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHOWN = 10
PAIRS = 400
TEXT_LIMIT = 2 << 20
LINES_LIMIT = 2_000
WINDOW = 48
LF = b"\n"
NEAR = 16
PICKLE = tuple(bytes((0x80, version)) for version in (2, 3, 4, 5))
TEXT_CHUNKS = ("tEXt", "iTXt", "tIME")
PNG = b"\x89PNG\r\n\x1a\n"


class Detail(Value):
    """One difference: where it is, and what stood there before and after, each in short."""

    place: str
    before: str
    after: str


class Look(Value):
    """What was seen of two contents.

    `kind` says as what they were compared. `details` are the first differences of `count`, `pairs`
    the pieces that differ, for a search for causes, `causes` those that are known already.
    """

    kind: str
    count: int
    details: tuple[Detail, ...] = ()
    pairs: tuple[Pair, ...] = ()
    causes: tuple[str, ...] = ()


def look(before: bytes, after: bytes, depth: int = 0) -> Look:
    """Compare two contents in the way that suits them; `depth` counts what was unpacked."""
    for attempt in (_json, _packed, _members, _arrays, _images, _text):
        found = attempt(before, after, depth)
        if found is not None:
            return found
    return _bytes(before, after)


def _json(before: bytes, after: bytes, _depth: int) -> Look | None:
    found = rules.json_differences(before, after)
    if found is None:
        return None
    rows = list(found)
    if not rows:
        seen = _text(before, after, 0)
        is_order = sorted(before) == sorted(after)
        causes = ("order",) if is_order else ()
        return seen and Look(kind="JSON, equal but for its form", count=seen.count, causes=causes)
    pairs = [Pair(before=b, after=a) for _place, b, a in rows if rules.MISSING not in (b, a)]
    return Look(kind="JSON", count=len(rows), details=_details(rows), pairs=tuple(pairs[:PAIRS]))


def _details(rows: Iterable[tuple[str, str, str]]) -> tuple[Detail, ...]:
    return tuple(
        Detail(place=place, before=before, after=after)
        for place, before, after in itertools.islice(rows, SHOWN)
    )


def _packed(before: bytes, after: bytes, depth: int) -> Look | None:
    """Look into gzip files: at the time in their headers, and at what they hold."""
    inside = (rules.unpacked(before), rules.unpacked(after))
    if depth or inside[0] is before or inside[1] is after:
        return None
    times = tuple(int.from_bytes(data[4:8], "little") for data in (before, after))
    rows = [("gzip header: time", str(times[0]), str(times[1]))] if times[0] != times[1] else []
    causes = ("time",) if rows else ()
    if inside[0] == inside[1]:
        return Look(kind="gzip", count=max(len(rows), 1), details=_details(rows), causes=causes)
    seen = look(*inside, depth + 1)
    return Look(
        kind=f"gzip of {seen.kind}",
        count=seen.count + len(rows),
        details=(*_details(rows), *seen.details)[:SHOWN],
        pairs=seen.pairs,
        causes=(*causes, *seen.causes),
    )


def _members(before: bytes, after: bytes, depth: int) -> Look | None:
    """Look into archives: at names, their order, times and other facts, and contents."""
    there = [archives.members(data) for data in (before, after)]
    then, now = there
    if depth > 1 or then is None or now is None or then.kind != now.kind:
        return None
    rows = list(_facts(then, now))
    pairs: list[Pair] = []
    causes: list[str] = []
    if any("time" in place for place, _b, _a in rows):
        causes.append("time")
    names = [list(one.members) for one in (then, now)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        rows.append(("order of the members", short(" ".join(names[0])), short(" ".join(names[1]))))
        causes.append("order")
    for name, member in then.members.items():
        other = now.members.get(name)
        if other is not None and member.data != other.data:
            seen = look(member.data, other.data, depth + 1)
            rows += [(f"{name}: {d.place}", d.before, d.after) for d in seen.details]
            pairs += seen.pairs
            causes += seen.causes
    return Look(
        kind=then.kind,
        count=max(len(rows), 1),
        details=_details(rows),
        pairs=tuple(pairs[:PAIRS]),
        causes=tuple(dict.fromkeys(causes)),
    )


def _facts(then: archives.Archive, now: archives.Archive) -> Iterator[tuple[str, str, str]]:
    for name in {**then.members, **now.members}:
        one, other = then.members.get(name), now.members.get(name)
        if one is None or other is None:
            there = [rules.MISSING if m is None else "(there)" for m in (one, other)]
            yield f"member {name}", there[0], there[1]
            continue
        for fact, value in one.facts.items():
            if other.facts[fact] != value:
                yield f"{name}: {fact}", value, other.facts[fact]


def _arrays(before: bytes, after: bytes, _depth: int) -> Look | None:
    then, now = arrays.arrays(before), arrays.arrays(after)
    if then is None or now is None or len(then) != 1 or then.keys() != now.keys():
        return None  # several are members of an archive
    ((name, one),) = then.items()
    other = now[name]
    if one.header != other.header:
        return Look(kind="array", count=1, details=_details([("header", one.header, other.header)]))
    if one.values is None or other.values is None or name:
        return None
    rows = [
        (f"[{index}]", repr(a), repr(b))
        for index, (a, b) in enumerate(zip(one.values, other.values, strict=True))
        if not rules.close(a, b, rules.EXACT)
    ]
    pairs = tuple(Pair(before=b, after=a) for _place, b, a in rows[:PAIRS])
    return Look(kind="array", count=max(len(rows), 1), details=_details(rows), pairs=pairs)


def _images(before: bytes, after: bytes, _depth: int) -> Look | None:
    """Look at the sizes and chunks of PNG images."""
    if not (before.startswith(PNG) and after.startswith(PNG)):
        return None
    sizes = [
        f"{int.from_bytes(data[16:20], 'big')}x{int.from_bytes(data[20:24], 'big')}"
        for data in (before, after)
    ]
    rows = [("size", sizes[0], sizes[1])] if sizes[0] != sizes[1] else []
    pairs = []
    for one, other in zip(_chunks(before), _chunks(after), strict=False):
        if one != other:
            rows.append((f"chunk {one[0]}", _chunk(*one), _chunk(*other)))
            if one[0] in TEXT_CHUNKS:
                pairs.append(Pair(before=_chunk(*one), after=_chunk(*other)))
    causes = ("time",) if any(place == "chunk tIME" for place, *_ in rows) else ()
    return Look(
        kind="PNG image",
        count=max(len(rows), 1),
        details=_details(rows),
        pairs=tuple(pairs),
        causes=causes,
    )


def _chunk(kind: str, data: bytes) -> str:
    """Show what a chunk holds."""
    return short(data.decode("latin-1")) if kind in TEXT_CHUNKS else f"{len(data)} bytes"


def _chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = len(PNG)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + 8 + size]
        at += size + 12


# -- texts


def _text(before: bytes, after: bytes, _depth: int) -> Look | None:
    if b"\0" in before or b"\0" in after or max(len(before), len(after)) > TEXT_LIMIT:
        return None
    try:
        texts = before.decode(), after.decode()
    except UnicodeDecodeError:
        return None
    then, now = (text.splitlines() for text in texts)
    if then == now:
        row = ("ends of the lines", _endings(before), _endings(after))
        return Look(kind="text", count=1, details=_details([row]))
    if sorted(then) == sorted(now):
        rows = list(_aligned(then, now))
        return Look(kind="text", count=len(rows), details=_details(rows), causes=("order",))
    same_length = len(then) == len(now)
    rows = list(_aligned(then, now) if same_length else _edits(then, now))
    pairs = [Pair(before=b, after=a) for _place, b, a in rows if rules.MISSING not in (b, a)]
    details = [(place, short(b), short(a)) for place, b, a in rows]
    return Look(kind="text", count=len(rows), details=_details(details), pairs=tuple(pairs[:PAIRS]))


def _endings(data: bytes) -> str:
    windows = data.count(b"\r\n")
    return f"{windows} with CR LF, {data.count(LF) - windows} with LF"


def _aligned(then: list[str], now: list[str]) -> Iterator[tuple[str, str, str]]:
    for number, (one, other) in enumerate(zip(then, now, strict=True), 1):
        if one != other:
            yield f"line {number}", one, other


def _edits(then: list[str], now: list[str]) -> Iterator[tuple[str, str, str]]:
    """Give the lines that were changed, added and removed, as far as it does not take long."""
    one, other = then[:LINES_LIMIT], now[:LINES_LIMIT]
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for _tag, begin, end, first, last in (c for c in matcher.get_opcodes() if c[0] != "equal"):
        lines = itertools.zip_longest(one[begin:end], other[first:last], fillvalue=rules.MISSING)
        for offset, (before, after) in enumerate(lines):
            yield f"line {begin + offset + 1}", before, after
    if max(len(then), len(now)) > LINES_LIMIT:
        yield "number of lines", str(len(then)), str(len(now))


# -- bytes


def _bytes(before: bytes, after: bytes) -> Look:
    """Compare byte by byte, giving the surroundings of what differs."""
    kind = "pickle" if before[:2] in PICKLE and after[:2] in PICKLE else "binary"
    first = _first(before, after)
    size = len(before), len(after)
    if size[0] != size[1]:
        rows = [
            ("size", f"{size[0]} bytes", f"{size[1]} bytes"),
            (f"byte {first}", _hex(before, first), _hex(after, first)),
        ]
        pair = _window(before, after, first)
        return Look(kind=kind, count=abs(size[0] - size[1]), details=_details(rows), pairs=(pair,))
    places = [i for i in range(first, size[0]) if before[i] != after[i]]
    starts = [p for p, q in zip(places, [-WINDOW, *places], strict=False) if p - q > NEAR]
    rows = [(f"byte {at}", _hex(before, at), _hex(after, at)) for at in starts[:SHOWN]]
    pairs = tuple(_window(before, after, at) for at in starts[:SHOWN])
    return Look(kind=kind, count=len(places), details=_details(rows), pairs=pairs)


def _first(before: bytes, after: bytes) -> int:
    """Find the first byte that differs, halving what is compared."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _hex(data: bytes, at: int) -> str:
    return data[at : at + 8].hex(" ") or rules.MISSING


def _window(before: bytes, after: bytes, at: int) -> Pair:
    begin = max(0, at - 2 * WINDOW)
    texts = [data[begin : at + 2 * WINDOW].decode("latin-1") for data in (before, after)]
    return Pair(before=texts[0], after=texts[1])

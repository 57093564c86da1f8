"""Why two outputs differ, as far as the bytes that differ tell."""

from __future__ import annotations

import re

from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CAUSES = {
    "path": "a path of the folder that the step runs in, or of its environment",
    "run": "the id of the run, which every step finds in REPRO_RUN_ID and MLFLOW_RUN_ID",
    "host": "the name of the machine",
    "user": "the name or number of the user",
    "time": "the time: a timestamp is inside",
    "address": "an address in memory, as `<object at 0x…>` shows it",
    "identifier": "random identifiers, such as UUIDs",
    "order": "the order: of a set, a dict, a folder's listing, or of threads",
    "locale": "the locale: how numbers are written",
    "process": "the number of the process",
    "float": "rounding: sums in another order, by threads or other libraries",
    "random": "random numbers without a seed, or something that was measured",
    "encoding": "how text is encoded",
}
"""What can be told, with its words."""

HINTS = {
    "path": "write paths relative to the project folder",
    "time": "leave the time out, or take it from SOURCE_DATE_EPOCH",
    "order": "sort before writing",
    "random": "give the seed as a parameter",
    "float": "fix the number of threads, or allow a tolerance with `compare:`",
    "identifier": "derive identifiers from content, or leave them out",
}

PRIVATE = r"""/[^\s"'\0:<>]*?/tmp/[0-9a-f]+-[0-9a-f]{12}/(?:anew/envs/)?[\w.-]+|"""
PATH = re.compile(PRIVATE + r"""/[^\s"'\0:<>]*?/envs/[0-9a-f]{32}""")
MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?"
TIME = re.compile(
    rf"\d{{4}}[-/]\d\d[-/]\d\d(?:[T _]{CLOCK}(?: ?(?:Z|[A-Z]{{3,4}}|[+-]\d\d:?\d\d))?)?"
    rf"|(?:\w{{3}},? )?(?:\d{{1,2}} (?:{MONTHS})|(?:{MONTHS}) +\d{{1,2}})"
    rf"(?: \d{{4}})?(?:,? {CLOCK})?(?: ?[A-Z]{{3,4}})?(?: \d{{4}})?"
    rf"|\b{CLOCK}(?: ?(?:Z|[+-]\d\d:?\d\d))?\b|\b\d{{8}}[T_-]\d{{6}}Z?\b"
)
ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,16}\b")
IDENTIFIER = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|(?<![\w.])(?=[0-9]*[a-f])[0-9a-f]{16,64}\b"
)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
TOKEN = re.compile(r"\w+|[^\w\s]")
EPOCHS = (1, 10**3, 10**6, 10**9)
DAY = 86_400.0
NOISE = 1e-5
LARGEST_PROCESS = 1 << 22


class Traces(Value):
    """What an execution may have left in its outputs.

    `places` are folders, `span` the seconds since 1970 from its start to its end, as the step
    saw them, `processes` the numbers of the processes before and after.
    """

    run_id: str = ""
    places: tuple[str, ...] = ()
    host: str = ""
    users: tuple[str, ...] = ()
    span: tuple[float, float] = (0.0, 0.0)
    processes: tuple[int, int] = (0, 0)


class Pair(Value):
    """Two pieces of output that stand in the same place and differ."""

    before: str
    after: str


def causes(pairs: Iterable[Pair], traces: tuple[Traces, Traces]) -> tuple[str, ...]:
    """Name the likely causes of some differences, see CAUSES, the surest first."""
    found: dict[str, None] = {}
    for pair in pairs:
        for name in _of_pair(pair, traces):
            found[name] = None
    return tuple(name for name in CAUSES if name in found)


def _of_pair(pair: Pair, traces: tuple[Traces, Traces]) -> list[str]:
    """Take out, one after the other, what has a known form, and see what still differs then."""
    texts = (pair.before, pair.after)
    found = []
    for name, take in _known(traces):
        taken = (take(texts[0], 0), take(texts[1], 1))
        if taken[0][1] != taken[1][1]:
            found.append(name)
        texts = (taken[0][0], taken[1][0])
    if texts[0] == texts[1] and found:
        return found
    return [*found, *_unknown(texts[0], texts[1], traces)]


def _known(
    traces: tuple[Traces, Traces],
) -> list[tuple[str, Callable[[str, int], tuple[str, list[str]]]]]:
    """Give what takes a cause out of a text: the text without, and what was taken."""

    def literal(words: Callable[[Traces], Iterable[str]]) -> Callable[[str, int], _Taken]:
        return lambda text, side: _without_words(text, words(traces[side]))

    def pattern(expression: re.Pattern[str]) -> Callable[[str, int], _Taken]:
        return lambda text, _side: _without(text, expression)

    return [
        ("path", literal(lambda t: t.places)),
        ("path", pattern(PATH)),
        ("run", literal(lambda t: (t.run_id,))),
        ("host", literal(lambda t: (t.host,))),
        ("time", pattern(TIME)),
        ("time", lambda text, side: _without_epochs(text, traces[side])),
        ("address", pattern(ADDRESS)),
        ("identifier", pattern(IDENTIFIER)),
    ]


_Taken = tuple[str, list[str]]


def _without_words(text: str, words: Iterable[str]) -> _Taken:
    taken = []
    for word in sorted(filter(None, words), key=len, reverse=True):
        text, count = re.subn(rf"(?<!\w){re.escape(word)}(?!\w)", "…", text)
        taken += [word] * count
    return text, taken


def _without(text: str, expression: re.Pattern[str]) -> _Taken:
    return expression.sub("…", text), expression.findall(text)


def _without_epochs(text: str, traces: Traces) -> _Taken:
    """Take out numbers that are seconds, or parts of seconds, since 1970 about the time."""
    taken: list[str] = []
    begin, end = traces.span

    def seen(match: re.Match[str]) -> str:
        number = _float(match[0])
        if end and any(begin - DAY <= number / unit <= end + DAY for unit in EPOCHS):
            taken.append(match[0])
            return "…"
        return match[0]

    return NUMBER.sub(seen, text), taken


def _unknown(before: str, after: str, traces: tuple[Traces, Traces]) -> list[str]:
    """Judge what has no form of its own."""
    if sorted(TOKEN.findall(before)) == sorted(TOKEN.findall(after)):
        return ["order"] if TOKEN.findall(before) != TOKEN.findall(after) else []
    if before.replace(",", ".") == after.replace(",", "."):
        return ["locale"]
    if _words_are(before, after, traces):
        return ["user"]
    if NUMBER.sub("0", before) != NUMBER.sub("0", after):
        return ["encoding"] if _same_letters(before, after) else []
    found = set()
    for one, other in zip(NUMBER.findall(before), NUMBER.findall(after), strict=True):
        if one != other:
            found.add(_of_numbers(one, other, traces))
    return [name for name in CAUSES if name in found]


def _words_are(before: str, after: str, traces: tuple[Traces, Traces]) -> bool:
    """Say whether nothing differs but who the user is."""
    words = (TOKEN.findall(before), TOKEN.findall(after))
    if len(words[0]) != len(words[1]):
        return False
    different = [(a, b) for a, b in zip(*words, strict=True) if a != b]
    return bool(different) and all(
        a in traces[0].users and b in traces[1].users for a, b in different
    )


def _same_letters(before: str, after: str) -> bool:
    """Say whether only what is no ASCII differs."""
    plain = [re.sub(r"[^\x20-\x7e]+|\\[xuU][0-9a-fA-F]+|\?", "", text) for text in (before, after)]
    return plain[0] == plain[1] and not before.isascii()


def _of_numbers(before: str, after: str, traces: tuple[Traces, Traces]) -> str:
    one, other = _float(before), _float(after)
    low, high = traces[1].processes
    if before.isdigit() and after.isdigit() and low <= other <= high and one < LARGEST_PROCESS:
        return "process"
    size = max(abs(one), abs(other))
    is_whole = before.lstrip("+-").isdigit() and after.lstrip("+-").isdigit()
    if not is_whole and abs(one - other) <= NOISE * size:
        return "float"
    return "random"


def _float(text: str) -> float:
    try:
        return float(text)
    except (ValueError, OverflowError):
        return 0.0

"""MLflow's search language, for the few runs, models and experiments that one step knows.

`metrics.loss < 0.5 AND params."model name" LIKE 'tree%'`, ordered by `attributes.start_time DESC`.
"""

from __future__ import annotations

import re

from repro.tracking.ledger import Experiment, Model, Refused, Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from repro.tracking.ledger import Logged

    Fact = str | float | None
    Facts = Callable[[str, str], Fact]
    Test = Callable[[Facts], bool]
    Item = Logged | Experiment
    L = TypeVar("L", bound=Item)

LONGEST = 10_000
KINDS = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), "parameter"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
}
TEXT = r"'(?:[^'\\]|\\.)*'" + r'|"(?:[^"\\]|\\.)*"'
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
KEY = r"""(?:(?P<kind>\w+)\s*\.\s*)?(?P<name>`[^`]+`|"[^"]+"|[\w.\-/]+)"""
CLAUSE = re.compile(
    rf"""\s*{KEY}\s*
    (?:(?P<null>IS\s+(?P<set>NOT\s+)?NULL)
     | (?P<list>(?:NOT\s+)?IN)\s*\((?P<values>[^)]*)\)
     | (?P<sign>>=|<=|!=|=|>|<|LIKE\b|ILIKE\b)\s*(?P<value>{TEXT}|{NUMBER}))\s*""",
    re.VERBOSE | re.IGNORECASE,
)
CONJUNCTION = re.compile(r"AND\b", re.IGNORECASE)
ORDER = re.compile(rf"\s*{KEY}(?:\s+(?P<way>ASC|DESC))?\s*", re.VERBOSE | re.IGNORECASE)


def matching(logged: Iterable[L], text: str) -> list[L]:
    """Keep what the filter `text` lets through; an empty one lets everything. Raises Refused."""
    tests = _parse(text)
    return [item for item in logged if all(test(_facts(item)) for test in tests)]


def ordered(logged: Iterable[L], columns: Sequence[str]) -> list[L]:
    """Sort by columns such as `metrics.loss ASC`, the first the most important one.

    The newest comes first among equals; what has no value in a column comes last in it.
    """
    items = list(logged)[::-1]
    for column in reversed(columns):
        match = ORDER.fullmatch(column)
        if not match:
            raise Refused(f"Invalid order_by clause '{column}'")
        kind, name = _key(match)
        down = (match["way"] or "").upper() == "DESC"
        known = [item for item in items if _facts(item)(kind, name) is not None]
        unknown = [item for item in items if _facts(item)(kind, name) is None]
        known.sort(key=lambda item: _sortable(_facts(item)(kind, name)), reverse=down)
        items = known + unknown
    return items


def _parse(text: str) -> list[Test]:
    if len(text) > LONGEST:
        raise Refused(f"Filter string has more than {LONGEST} characters")
    tests: list[Test] = []
    place = 0
    while text[place:].strip():
        joint = CONJUNCTION.match(text, place) if tests else None
        clause = CLAUSE.match(text, joint.end() if joint else place)
        if not clause or bool(tests) != bool(joint):
            raise Refused(f"Invalid clause(s) in filter string: '{text[place:].strip()}'")
        tests.append(_test(clause))
        place = clause.end()
    return tests


def _key(match: re.Match[str]) -> tuple[str, str]:
    kind = (match["kind"] or "attribute").lower()
    if kind not in KINDS:
        raise Refused(f"Invalid entity type '{match['kind']}'")
    return KINDS[kind], match["name"].strip('`"')


def _test(clause: re.Match[str]) -> Test:
    kind, name = _key(clause)
    if clause["null"]:
        wanted = bool(clause["set"])
        return lambda facts: (facts(kind, name) is not None) is wanted
    if clause["list"]:
        choices = [_literal(text) for text in re.findall(f"{TEXT}|{NUMBER}", clause["values"])]
        inside = clause["list"].upper() == "IN"
        return lambda facts: (facts(kind, name) in choices) is inside
    sign, value = clause["sign"].upper(), _literal(clause["value"])
    return lambda facts: _holds(facts(kind, name), sign, value)


def _literal(text: str) -> str | float:
    return text[1:-1] if text[0] in "'\"" else float(text)


def _holds(fact: Fact, sign: str, value: str | float) -> bool:
    if isinstance(fact, str) and isinstance(value, str):
        return _text_holds(fact, sign, value)
    if isinstance(fact, str) or isinstance(value, str) or fact is None:
        return False
    return {
        "=": fact == value,
        "!=": fact != value,
        "<": fact < value,
        "<=": fact <= value,
        ">": fact > value,
        ">=": fact >= value,
    }.get(sign, False)


def _text_holds(fact: str, sign: str, value: str) -> bool:
    if sign in {"LIKE", "ILIKE"}:
        flags = re.DOTALL | (re.IGNORECASE if sign == "ILIKE" else 0)
        return re.fullmatch(_pattern(value), fact, flags) is not None
    return (fact == value) is (sign == "=") if sign in {"=", "!="} else False


def _pattern(like: str) -> str:
    """Translate `%` and `_`, with groups that never give back, so that no text takes long."""
    first, *rest = ["".join("." if c == "_" else re.escape(c) for c in p) for p in like.split("%")]
    if not rest:
        return first
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + ".*" + rest[-1]


def _facts(item: Item) -> Facts:
    """Give the function that looks up one thing about an item, None where unknown."""

    def fact(kind: str, name: str) -> Fact:
        if kind == "attribute":
            return _attributes(item).get(name)
        if kind == "tag":
            return item.tags.get(name)
        if isinstance(item, Experiment):
            return None
        if kind == "parameter":
            return item.parameters.get(name)
        metric = item.latest.get(name)
        return metric.value if metric else None

    return fact


def _attributes(item: Item) -> dict[str, Fact]:
    if isinstance(item, Run):
        return {
            "run_id": item.run_id,
            "run_name": item.name,
            "Run Name": item.name,
            "status": item.status,
            "artifact_uri": item.uri,
            "user_id": item.tags.get("mlflow.user", ""),
            "start_time": item.started_ms,
            "created": item.started_ms,
            "end_time": item.ended_ms or None,
        }
    if isinstance(item, Model):
        return {
            "model_id": item.model_id,
            "name": item.name,
            "model_type": item.kind,
            "status": item.status.removeprefix("LOGGED_MODEL_"),
            "source_run_id": item.run_id,
            "creation_timestamp": item.created_ms,
            "creation_time": item.created_ms,
            "last_updated_timestamp": item.changed_ms,
        }
    if isinstance(item, Experiment):
        return {
            "name": item.name,
            "experiment_id": item.experiment_id,
            "creation_time": item.created_ms,
            "last_update_time": item.created_ms,
        }
    return {}


def _sortable(fact: Fact) -> tuple[float, str]:
    return (0.0, fact) if isinstance(fact, str) else (fact or 0.0, "")

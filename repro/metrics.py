"""Numbers in the output files of a step: what `metrics:` declares."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


def of_file(path: str, data: bytes) -> list[tuple[str, str, int]]:
    """Give the metrics in a JSON, YAML or CSV file as (key, value as text, step).

    Nested names are joined with dots. In a CSV file every column of numbers is a metric, and
    every row a step; a column `step` gives the step itself. Raises ValueError, with the reason,
    for a file that cannot be read so.
    """
    text = data.decode("utf-8-sig")
    if path.endswith(".csv"):
        return list(_table(text))
    if path.endswith((".yaml", ".yml")):
        import yaml

        try:
            return list(_nested(yaml.safe_load(text), ""))
        except yaml.YAMLError as error:
            raise ValueError(str(error).partition("\n")[0]) from None
    import json

    return list(_nested(json.loads(text), ""))


def _nested(value: Any, name: str) -> Iterator[tuple[str, str, int]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _nested(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nested(inner, f"{name}.{index}" if name else str(index))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name or "value", repr(float(value)), 0


def _table(text: str) -> Iterator[tuple[str, str, int]]:
    import csv

    for index, row in enumerate(csv.DictReader(text.splitlines())):
        at = _number(row.get("step"))
        number = index if at is None else int(at)
        for name, cell in row.items():
            value = _number(cell)
            if name and name != "step" and value is not None:
                yield name, repr(value), number


def _number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) else None
    except ValueError:
        return None


def latest(metrics: tuple[tuple[str, str, int, int], ...]) -> Mapping[str, str]:
    """Give the last value of each metric."""
    return {key: text for key, text, _time, _step in metrics}

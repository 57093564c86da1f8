"""Durations and sizes, as people write them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)
}


def milliseconds(value: Any) -> int:
    """Read a duration: a number of seconds, or a text such as `90s`, `15m`, `2h`."""
    if isinstance(value, str):
        number, unit = _number_and_unit(value)
        return int(number * UNITS[unit])
    return int(value * 1000)


def size(value: int | str) -> int:
    """Read a size in bytes: a number, or a text such as `512MiB`, `4G`."""
    if isinstance(value, int):
        return value
    number, unit = _number_and_unit(value)
    return int(number * SIZES[unit.removesuffix("B")])


def _number_and_unit(text: str) -> tuple[float, str]:
    digits = len(text) - len(text.lstrip("0123456789."))
    return float(text[:digits]), text[digits:].strip()

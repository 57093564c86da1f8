"""The errors of a JSON Schema in plain words."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def message(error: Any) -> str:
    """Say in plain words what a JSON Schema error says in its own."""
    if error.validator == "type":
        wanted = error.validator_value
        names = [wanted] if isinstance(wanted, str) else [w for w in wanted if w != "null"]
        return f"expected {_or(_KINDS[n] for n in names)}, found {_article(kind(error.instance))}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"no `{missing[0]}`"
    if error.validator == "enum":
        shown = ", ".join(f"`{v}`" for v in error.validator_value)
        return f"`{error.instance}` is not one of {shown}"
    if error.validator == "anyOf":
        kinds = [s.get("type") for s in error.validator_value]
        names = [k for k in kinds if isinstance(k, str)]
        if _json_kind(error.instance) in names and error.context:
            inner = max(error.context, key=lambda e: len(e.absolute_path))
            return message(inner)
        return f"expected {_or(_KINDS[n] for n in names)}, found {_article(kind(error.instance))}"
    if error.validator == "additionalProperties":
        return str(error.message).replace("'", "`")
    if error.validator == "pattern":
        return f"`{error.instance}` is not written as it must be"
    return str(error.message).replace("'", "`")


_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}


def _or(words: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(words))


def kind(value: Any) -> str:
    """Name what a value is, with the value itself where it is short."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "mapping"
    if isinstance(value, list):
        return "list"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{str(value)[:40]}`" if not isinstance(value, str) else f"text `{value[:40]}`"


def _article(kind: str) -> str:
    return f"a {kind}" if kind in ("mapping", "list") else kind


def _json_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else ""

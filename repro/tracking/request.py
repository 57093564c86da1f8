"""A client's request as data, read strictly: what does not fit is refused, never guessed."""

from __future__ import annotations

from repro.tracking.ledger import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LIMIT = 2**63
WORDS = {"nan": "nan", "infinity": "inf", "-infinity": "-inf"}


class Request:
    """The fields of one request, or of one object inside it. A null counts as left out."""

    def __init__(self, fields: object) -> None:
        """Take decoded JSON. Refused where it is no object."""
        if not isinstance(fields, dict):
            raise Refused("Invalid request: expected a JSON object")
        self._fields: Mapping[str, Any] = fields

    def text(self, name: str, default: str | None = None) -> str:
        """Give a text. Without a `default` it must be there and not be empty."""
        value = self._fields.get(name)
        if value is None or (value == "" and default is None):
            if default is None:
                raise Refused(f"Missing value for required parameter '{name}'.")
            return default
        if not isinstance(value, str):
            raise Refused(f"Invalid value for parameter '{name}': expected a string")
        return value

    def name(self, name: str) -> str:
        """Give a member of an enumeration, by its name or number; empty where it is left out."""
        value = self._fields.get(name)
        return "" if value is None else str(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Give a yes or no."""
        value = self._fields.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Refused(f"Invalid value for parameter '{name}': expected true or false")
        return value

    def whole(self, name: str, default: int = 0) -> int:
        """Give a whole number of at most 64 bits, which the protocol may write as a string."""
        value = self._fields.get(name, default)
        if value is None:
            return default
        try:
            number = int(value)
            fits = number == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits or not -LIMIT <= number < LIMIT:
            raise Refused(f"Invalid value for parameter '{name}': expected a 64-bit integer")
        return number

    def real(self, name: str) -> float:
        """Give a number; not-a-number and the infinities are written as words."""
        value = self._fields.get(name)
        if isinstance(value, str):
            value = WORDS.get(value.lower(), value)
        try:
            return float("" if value is None or isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            message = f"Invalid value for parameter '{name}': expected a number"
            raise Refused(message) from None

    def mapping(self, name: str) -> dict[str, str | None]:
        """Give texts, or nulls, by name; nothing where it is left out."""
        value = self._fields.get(name) or {}
        if not isinstance(value, dict) or not all(
            text is None or isinstance(text, str) for text in value.values()
        ):
            raise Refused(f"Invalid value for parameter '{name}': expected texts by name")
        return dict(value)

    def texts(self, name: str) -> list[str]:
        """Give a list of texts, empty where it is left out."""
        return [Request({"item": item}).text("item") for item in self._list(name)]

    def objects(self, name: str) -> list[Request]:
        """Give a list of objects, empty where it is left out."""
        return [Request(item) for item in self._list(name)]

    def object(self, name: str) -> Request:
        """Give an object, an empty one where it is left out."""
        return Request(self._fields.get(name) or {})

    def _list(self, name: str) -> list[Any]:
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise Refused(f"Invalid value for parameter '{name}': expected a list")
        return value

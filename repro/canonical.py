"""The one encoding of data whose digest matters: JSON with no freedom left.

Objects (keys sorted by code point), arrays, strings, true, false, null and integers of at most
64 bits; no floats, no white space, ASCII only. A string may hold lone surrogates, which is how
Python carries file names that are not UTF-8: they are escaped and come back unchanged.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:  # the accelerator of the json module: importing json itself would cost a hit 6 ms
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner
except ImportError:  # an interpreter without it
    from json.encoder import encode_basestring_ascii as _quote
    from json.scanner import make_scanner as _make_scanner

LIMIT = 2**63


class NotCanonical(ValueError):
    """A value that has no canonical form, or bytes that are not one."""


class _Settings:
    """What the scanner asks for: strict JSON, with floats and constants refused."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012  (only the pure-Python scanner reads it)

    @staticmethod
    def parse_float(text: str) -> None:
        """Refuse: 1.0 and 1 would have two forms."""
        raise NotCanonical(f"float {text}")

    parse_constant = parse_float

    @staticmethod
    def parse_string(text: str, end: int, strict: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Read a string; only the pure-Python scanner calls this."""
        from json.decoder import scanstring  # type: ignore[attr-defined]

        return scanstring(text, end, strict)

    @staticmethod
    def parse_object(*args: Any) -> Any:
        """Read an object; only the pure-Python scanner calls this."""
        from json.decoder import JSONObject  # type: ignore[attr-defined]

        return JSONObject(*args)

    @staticmethod
    def parse_array(*args: Any) -> Any:
        """Read an array; only the pure-Python scanner calls this."""
        from json.decoder import JSONArray  # type: ignore[attr-defined]

        return JSONArray(*args)


_scan = _make_scanner(_Settings)  # type: ignore[arg-type]


def encode(value: Any) -> bytes:
    """Give the canonical bytes of `value`.

    Raises NotCanonical for floats, sets, bytes, keys that are not strings and other data
    that two machines could write differently.
    """
    return _text(value).encode("ascii")


def decode(data: bytes) -> Any:
    """Read what `encode` wrote. Raises NotCanonical for anything that is not such JSON."""
    try:
        text = data.decode("ascii")
        value, end = _scan(text, 0)
    except (StopIteration, ValueError, RecursionError, SystemError) as error:
        # SystemError: what the accelerator raises for cut-off text while json is not loaded
        raise NotCanonical(str(error) or "not JSON") from None
    if text[end:].strip(" \n"):
        raise NotCanonical("text after the value")
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _quote(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        if not -LIMIT <= value < LIMIT:
            raise NotCanonical(f"integer {value} has more than 64 bits")
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_text(item) for item in value]) + "]"
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise NotCanonical("an object key is not a string")
        return "{" + ",".join([f"{_quote(k)}:{_text(value[k])}" for k in sorted(value)]) + "}"
    raise NotCanonical(f"{type(value).__name__} has no canonical form")

"""Texts that stand for files in a step key, where the path of the files is another each time."""

from __future__ import annotations

from repro import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = Iterable[tuple[str, str]]

MARK = "repro-files:"


def of(identity: str, path: str) -> str:
    """Give what stands for the files at `path`, whose content has the digest `identity`."""
    return f"{MARK}{identity}/{path.rstrip('/').rpartition('/')[2]}"


def identity_of(text: str) -> str:
    """Give the digest in a text that stands for files, empty for any other text."""
    found = text.removeprefix(MARK).partition("/")[0]
    return found if text.startswith(MARK) and digest.is_digest(found) else ""


def of_parameter(name: str, text: str) -> tuple[str, str]:
    """Say what stands for a whole `path` parameter, whatever its value: no text has such a path."""
    return f"\0{name}", text


def known(name: str, stand_ins: Pairs) -> str:
    """Give the digest that is known of a `path` parameter without looking, empty if none is."""
    return next((identity_of(text) for path, text in stand_ins if path == f"\0{name}"), "")


def replaced(text: str, stand_ins: Pairs) -> str:
    """Give `text` with what stands for them instead of paths; `stand_ins` are (path, text)."""
    for path, instead in sorted(stand_ins, key=lambda pair: -len(pair[0])):
        text = text.replace(path, instead)
    return text

"""Texts that stand for files in a step key, where the path of the files is another each time."""

from __future__ import annotations

from repro import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MARK = "repro-files:"
DIGEST = 64


def of(identity: str, path: str) -> str:
    """Give what stands for the files at `path`, whose content has the digest `identity`."""
    return f"{MARK}{identity}/{path.rstrip('/').rpartition('/')[2]}"


def identity_of(text: str) -> str:
    """Give the digest in a text that stands for files, empty for any other text."""
    plain = text.removeprefix("file://")
    found = plain.removeprefix(MARK)[:DIGEST]
    return found if plain.startswith(MARK) and digest.is_digest(found) else ""


def replaced(text: str, stand_ins: Iterable[tuple[str, str]]) -> str:
    """Give `text` with what stands for them instead of paths; `stand_ins` are (path, text)."""
    for path, instead in sorted(stand_ins, key=lambda pair: -len(pair[0])):
        text = text.replace(path, instead)
    return text

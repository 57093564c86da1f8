"""How bad a vulnerability is, as a word: from the database's own, or from a CVSS vector."""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LEVELS = ("", "low", "medium", "high", "critical")
"""From unknown to worst."""

OTHER_WORDS = {"moderate": "medium", "important": "high"}
BOUNDS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))

# CVSS 3.1, section 7.4: https://www.first.org/cvss/v3.1/specification-document
WEIGHTS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
PRIVILEGES = {
    "U": {"N": 0.85, "L": 0.62, "H": 0.27},
    "C": {"N": 0.85, "L": 0.68, "H": 0.5},
}


def of(document: Mapping[str, Any]) -> str:
    """Give the severity of an OSV document, empty where it cannot be told.

    CVSS 4 is not computed: documents that have it name the word too.
    """
    own = document.get("database_specific")
    word = str(own.get("severity") or "").lower() if isinstance(own, dict) else ""
    word = OTHER_WORDS.get(word, word)
    if word in LEVELS[1:]:
        return word
    scores = [
        score_of(str(one.get("score")))
        for one in document.get("severity") or ()
        if one.get("type") == "CVSS_V3"
    ]
    highest = max(scores, default=0.0)
    return next((name for bound, name in BOUNDS if highest >= bound), "")


def worst(levels: list[str]) -> str:
    """Give the worst of several severities."""
    return max(levels, key=LEVELS.index, default="")


def score_of(vector: str) -> float:
    """Give the base score of a vector such as `CVSS:3.1/AV:N/AC:L/…`; 0.0 for anything else."""
    metrics = dict(part.split(":", 1) for part in vector.split("/") if ":" in part)
    try:
        w = {name: table[metrics[name]] for name, table in WEIGHTS.items()}
        scope = metrics["S"]
        privileges = PRIVILEGES[scope][metrics["PR"]]
    except KeyError:
        return 0.0
    exploitability = 8.22 * w["AV"] * w["AC"] * privileges * w["UI"]
    lost = 1 - (1 - w["C"]) * (1 - w["I"]) * (1 - w["A"])
    if scope == "U":
        impact = 6.42 * lost
        total = impact + exploitability
    else:
        impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15
        total = 1.08 * (impact + exploitability)
    return _rounded_up(min(total, 10.0)) if impact > 0 else 0.0


def _rounded_up(score: float) -> float:
    """Round up to one digit, in integers as the specification does it."""
    hundred_thousandths = round(score * 100_000)
    if hundred_thousandths % 10_000 == 0:
        return hundred_thousandths / 100_000
    return (math.floor(hundred_thousandths / 10_000) + 1) / 10

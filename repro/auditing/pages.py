"""The pages of the rules, as they are installed."""

from __future__ import annotations

import os

from repro.audit.rules.table import LEVELS
from repro.errors import UsageError
from repro.system import files


def page(code: str) -> str:
    """Give the page of a rule. Raises UsageError where there is no such rule."""
    from repro.decode import nearest

    name = code.upper()
    if name not in LEVELS:
        near = nearest(name, tuple(LEVELS))
        hint = f"a similar rule exists: `{near}`" if near else "`repro audit --list-rules`"
        raise UsageError(f"no rule `{code[:20]}`", hints=[hint])
    data = files.read(os.path.join(_folder(), f"{name}.md"))
    if data is None:
        raise UsageError(f"the page of `{name}` is not installed")
    return data.decode()


def _folder() -> str:
    """Give the folder of the pages: inside the package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = os.path.join(package, "audit", "pages")
    beside = os.path.join(os.path.dirname(package), "docs", "reference", "rules")
    return inside if os.path.isdir(inside) else beside

"""The JSON Schemas that repro publishes, as they are installed with it."""

from __future__ import annotations

import os

from repro.errors import UsageError
from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SUFFIX = ".schema.json"


def folder() -> str:
    """Give the folder of the schemas: inside the package, or beside it in a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, "schemas")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(here), "schemas")


def names() -> list[str]:
    """List the schemas."""
    return sorted(n.removesuffix(SUFFIX) for n in os.listdir(folder()) if n.endswith(SUFFIX))


def text(name: str) -> str:
    """Give a schema as it is published. Raises UsageError where there is none of that name."""
    data = files.read(os.path.join(folder(), name + SUFFIX)) if "/" not in name else None
    if data is None:
        raise UsageError(f"no schema `{name}`", hints=[f"schemas: {', '.join(names())}"])
    return data.decode()


def load(name: str) -> dict[str, Any]:
    """Give a schema as data."""
    import json

    loaded: dict[str, Any] = json.loads(text(name))
    return loaded

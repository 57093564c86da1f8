"""Docker's own configuration, as its command line reads it."""

from __future__ import annotations

import json
import os

from repro.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Give what stands in `config.json`; one that cannot be read is as good as none."""
    home = environ.get("HOME") or os.path.expanduser("~")
    folder = environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    try:
        found = json.loads(files.read(os.path.join(folder, "config.json")) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Give what the user wants every engine to be sent; what is no header is left out."""
    found = read(environ).get("HttpHeaders")
    if not isinstance(found, dict):
        return {}
    return {n: v for n, v in found.items() if isinstance(v, str) and f"{n}{v}".isprintable()}

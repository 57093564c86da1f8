"""Every environment variable that repro reads by a name of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VARIABLES = {
    "REPRO_HOME": "folder of the store; everything in it can be rebuilt",
    "REPRO_DATA": "folder of the history of runs",
    "REPRO_SDISTS": "1: environments may build packages from source",
    "REPRO_TOOL": "what makes virtual environments: auto (default), uv or pip",
    "REPRO_UV": "path of the `uv` to use",
    "REPRO_TRACEBACK": "1: show tracebacks of internal errors",
    "REPRO_RUN_ID": "set for every step: the id of its run",
    "REPRO_KEY": "set for every step: its step key",
}
PREFIXES = ("REPRO_PYTHON_", "REPRO_SECRET_")


def unknown(names: Iterable[str]) -> list[str]:
    """List the variables that look like ours and are not."""
    return [
        name
        for name in names
        if name.startswith("REPRO_") and name not in VARIABLES and not name.startswith(PREFIXES)
    ]

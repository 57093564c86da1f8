"""Run MLproject projects as deterministic, cached, explained steps.

`repro.run` and `repro.projects.run` mirror `mlflow.projects.run`. Everything is imported when it
is first used, so that `import repro` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.api import SubmittedRun
    from repro.errors import ExecutionException, ReproError
    from repro.projects import run

__version__ = "0.1.0"
__all__ = ["ExecutionException", "ReproError", "SubmittedRun", "projects", "run"]

_HOMES = {
    "ExecutionException": "errors",
    "ReproError": "errors",
    "SubmittedRun": "api",
    "run": "projects",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    import importlib

    if name == "projects":
        return importlib.import_module("repro.projects")
    if name in _HOMES:
        return getattr(importlib.import_module(f"repro.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'repro' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])

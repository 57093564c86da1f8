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
    "projects": "projects",
    "run": "projects",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:  # also asked for every submodule that is imported for the first time
        raise AttributeError(f"module 'repro' has no attribute {name!r}")
    import importlib

    home = importlib.import_module(f"repro.{_HOMES[name]}")
    return home if name == "projects" else getattr(home, name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])

"""Found by Python as `sitecustomize` in a step: what `mlflow.projects` runs is run by repro.

It stays out of the way: no import beyond what Python has loaded, no entry left before others on
`sys.path`, and the environment's own `sitecustomize` comes after it.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = "mlflow.projects"


class Finder:
    """Finds `mlflow.projects` where it is, and changes it when it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the module that others find."""
        if name != NAME:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)  # type: ignore[assignment]
        return spec


class Loader:
    """Loads a module as another loader does, and lets `run` in it be ours."""

    def __init__(self, loader: Any) -> None:
        """Take the loader that there is."""
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        """Be like the loader in everything else."""
        return getattr(self.loader, name)

    def exec_module(self, module: Any) -> None:
        """Load the module."""
        self.loader.exec_module(module)
        loaded("_repro_calls", os.path.join(HERE, "late", "repro.py")).adopt(module)


def loaded(name: str, path: str) -> Any:
    """Load a file as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  (it is a Python file)
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def chain() -> None:
    """Run the `sitecustomize` that would have been found without us."""
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != HERE]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.origin and spec.origin != __file__:
        loaded("sitecustomize", spec.origin)


if __name__ == "sitecustomize" and os.environ.get("REPRO_CALLS"):
    sys.meta_path.insert(0, Finder())
    sys.path.append(os.path.join(HERE, "late"))  # `import repro`, where it is not installed
    chain()

"""The backends that there are: ours, and those that other packages bring."""

from __future__ import annotations

from repro.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from repro.ports import Lasting

OURS = ("docker", "slurm", "kubernetes", "databricks")


def make(name: str, config: Any, *, store: str, environ: Mapping[str, str]) -> Lasting:
    """Give the backend of that name, with its settings; `store` is the folder of the store.

    Raises Unsupported for one that there is not, with what there is, and what the backend itself
    raises for wrong settings.
    """
    if name == "docker":
        from repro.backends.docker import Docker

        return Docker(environ)
    if name == "slurm":
        from repro.backends.slurm import Slurm

        return Slurm(config, store=store, environ=environ)
    if name == "kubernetes":
        from repro.backends.kubernetes import Kubernetes  # type: ignore

        return Kubernetes(config, store=store, environ=environ)
    if name == "databricks":
        from repro.backends.databricks import Databricks  # type: ignore

        return Databricks(config, store=store, environ=environ)
    raise Unsupported(f"no backend `{name}`", hints=[f"backends: local, {', '.join(OURS)}"])

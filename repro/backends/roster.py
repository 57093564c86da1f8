"""The backends that there are: ours, and those that other packages bring.

A package names a factory below the entry points `repro.backends`. What is below MLflow's own
`mlflow.project_backend` is taken too, see `foreign`.
"""

from __future__ import annotations

from importlib import import_module

from repro.errors import ReproError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint
    from typing import Any

    from repro.ports import Job, Lasting, Sink, SubmittedJob

LOCAL = "local"
OURS = {
    "docker": "Docker",
    "slurm": "Slurm",
    "kubernetes": "Kubernetes",
    "databricks": "Databricks",
}
"""The class of each, in the module of its name."""
GROUP = "repro.backends"
FOREIGN = "mlflow.project_backend"
OURSELVES = "repro"
"""What MLflow knows us by; there is no way from us to it and back to us."""
BROUGHT = ("files", "images", "references", "locks", "projects")


def make(name: str, config: Any, *, store: str, environ: Mapping[str, str]) -> Lasting:
    """Give the backend of that name, with its settings; `store` is the folder of the store.

    Ours come first, then those of `repro.backends`, then MLflow's. Raises Unsupported for one
    that there is not, with what there is, and for a plug-in that is none; and what the backend
    itself raises for wrong settings.
    """
    if name in OURS:
        module = import_module(f"repro.backends.{name}")
        made: Lasting
        if name == "docker":
            made = module.Docker(environ)
        else:
            made = getattr(module, OURS[name])(config, store=store, environ=environ)
        return made
    point = _brought(GROUP, name)
    if point is not None:
        return _made(point, config, store=store, environ=environ)
    point = _brought(FOREIGN, name)
    if point is not None:
        from repro.backends.foreign import Foreign

        return Foreign(name, settings(config), _origin(point), environ=environ)
    raise _unknown(name, environ)


def names(_environ: Mapping[str, str]) -> tuple[str, ...]:
    """Name all backends, also those that lack something here; nothing of a plug-in is loaded."""
    return (LOCAL, *OURS, *dict.fromkeys(point.name for _group, point in _others()))


def described(environ: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Give each backend as (name, who brings it, what it lacks here), nothing being good.

    A plug-in that cannot be loaded lacks just that, and so does one whose name another has.
    """
    rows = [(LOCAL, OURSELVES, ""), *((name, OURSELVES, _lacks(name, environ)) for name in OURS)]
    taken = {name for name, _origin, _lack in rows}
    for group, point in _others():
        lack = "another backend has its name" if point.name in taken else ""
        rows.append((point.name, _origin(point), lack or _plugin_lacks(group, point, environ)))
        taken.add(point.name)
    return tuple(rows)


def settings(config: Any) -> dict[str, Any]:
    """Give the settings for a plug-in as a mapping, from a file, a text or a mapping.

    Raises UsageError where there is no such file, ProjectInvalid for what is no mapping.
    """
    from repro.backends import configuration

    return configuration.read(config, "backend-plugin")


# -- ours


def _lacks(name: str, environ: Mapping[str, str]) -> str:
    return str(import_module(f"repro.backends.{name}").lacks(environ))


def _unknown(name: str, environ: Mapping[str, str]) -> Unsupported:
    from repro.decode import nearest

    known = described(environ)
    near = nearest(name, [row[0] for row in known])
    hints = [f"a similar one exists: `{near}`"] if near else []
    for other, origin, lack in known:
        whose = "" if origin == OURSELVES else f" of {origin}"
        hints.append(f"there is `{other}`{whose}" + (f", but {lack}" if lack else ""))
    return Unsupported(f"no backend `{name}`", hints=hints)


# -- those of others


def _points(group: str) -> list[EntryPoint]:
    """Give the entry points of a group in a fixed order, without what leads back to us."""
    from importlib.metadata import entry_points

    found = [p for p in entry_points(group=group) if (group, p.name) != (FOREIGN, OURSELVES)]
    return sorted(found, key=lambda p: (p.name, _origin(p)))


def _others() -> list[tuple[str, EntryPoint]]:
    return [(group, point) for group in (GROUP, FOREIGN) for point in _points(group)]


def _origin(point: EntryPoint) -> str:
    """Name the distribution that brings a plug-in."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _brought(group: str, name: str) -> EntryPoint | None:
    found = [point for point in _points(group) if point.name == name]
    if len(found) > 1:
        owners = " and ".join(_origin(point) for point in found)
        raise Unsupported(
            f"{owners} both bring a backend `{name}`", hints=["uninstall all of them but one"]
        )
    return found[0] if found else None


def _plugin_lacks(group: str, point: EntryPoint, environ: Mapping[str, str]) -> str:
    if group == FOREIGN:
        from repro.backends import foreign

        return foreign.lacks(environ)
    try:
        factory = _factory(point)
        return str(factory.lacks(environ)) if hasattr(factory, "lacks") else ""
    except ReproError as error:
        return error.message
    except Exception as error:  # noqa: BLE001  (what others wrote may raise anything)
        return f"`lacks` of it fails: {_said(error)}"


def _factory(point: EntryPoint) -> Any:
    """Load a plug-in. Raises Unsupported where that fails, or where it cannot be called."""
    try:
        factory = point.load()
    except Exception as error:
        raise _broken(point, f"cannot be loaded: {_said(error)}") from error
    if not callable(factory):
        raise _broken(point, f"is no factory: `{point.value}` cannot be called")
    return factory


def _made(point: EntryPoint, config: Any, *, store: str, environ: Mapping[str, str]) -> Lasting:
    factory = _factory(point)
    plain = settings(config)
    try:
        backend = factory(plain, store=store, environ=environ)
    except ReproError:
        raise
    except Exception as error:
        raise _broken(point, f"cannot be made: {_said(error)}") from error
    wrong = _misshapen(backend)
    if wrong:
        raise _broken(point, f"is no backend: {wrong}")
    whole: Lasting = backend if hasattr(backend, "find") else Fleeting(backend)
    return whole


def _misshapen(backend: Any) -> str:
    """Say what an object lacks of `repro.ports.Backend`, or nothing."""
    if not callable(getattr(backend, "submit", None)):
        return "it has no method `submit`"
    if not isinstance(getattr(backend, "name", None), str):
        return "its `name` is no text"
    brought = getattr(backend, "environments", None)
    if brought not in BROUGHT:
        return f"its `environments` is `{brought}`, and none of {', '.join(BROUGHT)}"
    if hasattr(backend, "find") != hasattr(backend, "orphans"):
        return "it has only one of `find` and `orphans`"
    return ""


def _broken(point: EntryPoint, what: str) -> Unsupported:
    return Unsupported(
        f"the backend `{point.name}` of {_origin(point)} {what}",
        hints=["ask those who made it, or choose another backend: `repro backends` lists them"],
    )


def _said(error: Exception) -> str:
    """Put an exception into one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Fleeting:
    """A backend of others whose jobs cannot be found again by another process."""

    def __init__(self, backend: Any) -> None:
        """Take what has a name and can be submitted to."""
        self._backend = backend
        self.name: str = backend.name
        self.environments: str = backend.environments
        self.submit: Callable[[Job, Sink], SubmittedJob] = backend.submit

    def find(self, _run_id: str, _sink: Sink | None = None, _base: str = "") -> None:
        """Find nothing."""

    def orphans(self) -> tuple[str, ...]:
        """Know of none."""
        return ()

"""An image with a project in it, as MLflow builds one for `build_image`."""

from __future__ import annotations

import re

from repro.environments import baking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro.images.daemon import Daemon
    from repro.manifest import Entry

UNNAMED = "repro-project"
SEPARATORS = re.compile(r"[^a-z0-9]+")
SHORT = 12


def with_project(
    image_id: str,
    root: str,
    entries: Iterable[Entry],
    *,
    engine: Daemon,
    home: str,
    environ: Mapping[str, str],
    name: str,
) -> str:
    """Put files of the project `name`, below `root`, on an image; give the new image's id.

    They lie in `/mlflow/projects/code`, where a container starts. The same image and files give
    the same id, and nothing is sent to an engine that has it. It is tagged with the project's name
    and its own id, which keeps `docker image prune` from it. `home` is the store.

    Raises EnvironmentFailed when the image is not in the engine, or a file is no longer what its
    entry says.
    """
    made = baking.project_layer(image_id, root, entries, engine=engine, home=home, environ=environ)
    engine.tag(made, repository(name), made.partition(":")[2][:SHORT])
    return made


def repository(name: str) -> str:
    """Give a project's name as one that engines take for an image."""
    return SEPARATORS.sub("-", name.lower()).strip("-") or UNNAMED

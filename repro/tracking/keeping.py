"""What a step logged, taken out of the store again, as it was when the step had ended."""

from __future__ import annotations

import os

from repro import manifest
from repro.ports import ChildRun, Tracked
from repro.value import load, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from repro.store.blobs import Blobs
    from repro.store.results import Result


def restored(result: Result, blobs: Blobs, folder: str) -> Tracked:
    """Give what a result says was logged, its files written below `folder`. Raises BlobMissing."""
    children = []
    for plain in result.children:
        child = load(plain, {"ChildRun": ChildRun})
        children.append(replace(child, artifacts=_written(child.artifacts, blobs, folder)))
    return Tracked(
        metrics=result.metrics,
        parameters=result.parameters,
        tags=result.tags,
        datasets=result.datasets,
        children=tuple(children),
        artifacts=_written(result.artifacts, blobs, folder),
    )


def _written(name: str, blobs: Blobs, folder: str) -> str:
    entries = manifest.decode(blobs.get(name))
    if not entries:
        return ""
    place = os.path.join(folder, f"logged-{os.urandom(6).hex()}")
    blobs.write(entries, place)
    return place
